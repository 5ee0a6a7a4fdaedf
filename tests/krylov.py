"""Lanczos in numpy, float64 and with full reorthogonalisation: spectra to test against, independent of the package."""

import jax.numpy as jnp
import numpy as np

from plasticity_jax.curvature.spectrum import Spectrum


def rotated(rng, eigenvalues):
    """A dense matrix with these eigenvalues and random eigenvectors, and the eigenvectors in its columns."""
    q, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))
    return (q * np.asarray(eigenvalues)) @ q.T, q


def quadrature(a, steps, rng, known=None, garbage=np.nan):
    """One probe: nodes, weights, live, alphas, betas [k]; dead entries of the nodes are `garbage`."""
    n = len(a)
    basis, alphas, betas = np.zeros((steps + 1, n)), np.zeros(steps), np.zeros(steps)
    known = np.zeros((n, 0)) if known is None else known
    v, scale, done = rng.standard_normal(n), 0.0, 0
    v -= known @ (known.T @ v)
    basis[0] = v / np.linalg.norm(v)
    for j in range(steps):
        w = a @ basis[j]
        w -= known @ (known.T @ w)
        alphas[j], done = basis[j] @ w, j + 1
        for _ in range(2):
            w = w - basis[: j + 1].T @ (basis[: j + 1] @ w)
        residual, scale = np.linalg.norm(w), max(scale, abs(alphas[j]) + betas[j - 1] * (j > 0))
        if residual <= 1e3 * np.finfo(float).eps * scale:
            break
        betas[j], basis[j + 1] = residual, w / residual
    t = np.diag(alphas[:done]) + np.diag(betas[: done - 1], 1) + np.diag(betas[: done - 1], -1)
    theta, vectors = np.linalg.eigh(t)
    nodes, weights = np.full(steps, garbage), np.zeros(steps)
    nodes[:done], weights[:done] = theta, vectors[0] ** 2
    return nodes, weights, np.arange(steps) < done, alphas, betas


def spectrum_of(a, steps, probes, seed=100, known=None, deflated=(), garbage=np.nan):
    """A Spectrum in float32; `known` [n, m] holds the eigenvectors of the `deflated` eigenvalues.

    The seed must not be the one that made the matrix: probes that repeat its entries are not independent of it.
    """
    rng = np.random.default_rng(seed)
    rows = [quadrature(a, steps, rng, known, garbage) for _ in range(probes)]
    nodes, weights, live, alphas, betas = (np.stack(column) for column in zip(*rows, strict=True))
    nodes, weights, alphas, betas = (jnp.asarray(x, jnp.float32) for x in (nodes, weights, alphas, betas))
    deflated, size = jnp.asarray(deflated, jnp.float32), jnp.int32(len(a))
    return Spectrum(nodes, weights, jnp.asarray(live), alphas, betas, deflated, size)


def marchenko_pastur(n=1000, samples=2000, seed=0):
    """X^T X / N with Gaussian entries: its eigenvalues follow the Marchenko-Pastur law of aspect n / N."""
    x = np.random.default_rng(seed).standard_normal((samples, n))
    return x.T @ x / samples


def marchenko_pastur_law(x, aspect=0.5):
    """Its density in the limit of many dimensions, on the support (1 -+ sqrt(aspect))^2."""
    low, high = (1 - np.sqrt(aspect)) ** 2, (1 + np.sqrt(aspect)) ** 2
    inside = (x > low) & (x < high)
    x = np.where(inside, x, 1.0)
    return np.where(inside, np.sqrt(np.maximum((high - x) * (x - low), 0.0)) / (2 * np.pi * aspect * x), 0.0)


def wigner(n=600, seed=0):
    """The Gaussian orthogonal ensemble, scaled to the semicircle on [-2, 2]."""
    g = np.random.default_rng(seed).standard_normal((n, n))
    return (g + g.T) / np.sqrt(2 * n)
