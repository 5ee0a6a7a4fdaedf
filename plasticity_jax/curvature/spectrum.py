r"""What stochastic Lanczos quadrature leaves behind, and the integrals and densities that follow from it.

Letters: n dimension of the operator, m eigenvalues known beforehand, p probes, k Lanczos steps, G grid points.

Each probe carries a Gaussian quadrature of its own spectral measure: nodes theta (Ritz values) and weights w, exact for
polynomials of degree up to 2k - 1. Averaged over probes it estimates the spectrum of the n - m directions that were not
projected out; the m known eigenvalues enter exactly:

    sum_i f(lambda_i)  ~  sum_{i<=m} f(deflated_i)  +  (n - m) mean_probes sum_j w_j f(theta_j).

A node of weight w thus stands for (n - m) w eigenvalues. Nothing here multiplies by the matrix again. Nodes that are
not live are never looked at; where a live one is not finite, every result is NaN. `matvecs` of the results is p k: the
products of the steps after a breakdown were spent too. Those spent on the deflated pairs are not in it, unless nothing
else is left: then it is n, for a dense matrix.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax.curvature.estimate import estimate

__all__ = [
    "Density",
    "Spectrum",
    "cdf",
    "count",
    "density",
    "eigenvalue_counts",
    "exact",
    "kernel_polynomial_density",
    "matvecs",
    "spectral_sum",
    "statistical_dimension",
]


class Spectrum(NamedTuple):
    """Quadratures of a spectrum, one per probe."""

    nodes: jax.Array  # [p, k] Ritz values, ascending; dead ones hold anything
    weights: jax.Array  # [p, k] >= 0, rows sum to 1, 0 where dead; all 0 where all n directions are deflated
    live: jax.Array  # [p, k] bool, False for the nodes that a breakdown left over
    alphas: jax.Array  # [p, k] diagonal of the tridiagonal matrix
    betas: jax.Array  # [p, k] its off-diagonal, T_{j,j+1} = betas[j]; 0 from a breakdown on
    deflated: jax.Array  # [m] eigenvalues known exactly and projected out; m may be 0
    size: jax.Array  # [] dimension n, the deflated directions included


class Density(NamedTuple):
    """A spectral density, which integrates to 1 over all n eigenvalues."""

    grid: jax.Array  # [G]
    value: jax.Array  # [G] per unit of the eigenvalue
    sem: jax.Array  # [G] standard error over the probes, point by point
    margin: jax.Array  # [G] half the width of a 95% interval, point by point
    width: jax.Array  # [] of the kernel, in units of the eigenvalue


def exact(eigenvalues, steps=64):
    """A spectrum known completely: all eigenvalues deflated, nothing left to the probes, all standard errors 0.

    Args:
      eigenvalues: [n] in any order.
      steps: number of Lanczos steps to imitate: the densities take their default resolution from it.

    Returns:
      Spectrum with two probes, none of whose nodes is live.

    >>> s = exact(jnp.array([1.0, 2.0, 4.0]))
    >>> float(spectral_sum(s, jnp.log2).value), float(spectral_sum(s, jnp.log2).sem)
    (3.0, 0.0)
    """
    eigenvalues = jnp.asarray(eigenvalues)
    nothing = jnp.zeros((2, steps), eigenvalues.dtype)
    return Spectrum(
        nodes=nothing,
        weights=nothing,
        live=nothing > 0,
        alphas=nothing,
        betas=nothing,
        deflated=eigenvalues,
        size=jnp.asarray(eigenvalues.shape[0], jnp.int32),
    )


def eigenvalue_counts(s):
    """Live nodes, and how many eigenvalues each of them stands for in its probe.

    Args:
      s: Spectrum.

    Returns:
      nodes: [p, k] with the dead replaced by a live node of the same probe.
      counts: [p, k] (n - m) w, 0 where dead. Both are NaN throughout a probe whose live nodes or weights are not
        finite, or that has no live node although directions are left; 0 where none are left, whatever the probe saw.

    >>> bool((eigenvalue_counts(exact(jnp.ones(3)))[1] == 0).all())
    True
    """
    rest = jnp.asarray(s.size, s.nodes.dtype) - s.deflated.shape[0]
    dead = ~s.live | (s.weights == 0) | (rest <= 0)
    s = s._replace(nodes=jnp.where(rest <= 0, 0.0, s.nodes))
    heaviest = jnp.argmax(jnp.where(dead, -1.0, s.weights), axis=1, keepdims=True)
    nodes = jnp.where(dead, jnp.take_along_axis(s.nodes, heaviest, axis=1), s.nodes)
    counts = jnp.where(dead, 0.0, rest * s.weights)
    finite = jnp.all(dead | (jnp.isfinite(s.nodes) & jnp.isfinite(s.weights)), axis=1, keepdims=True)
    broken = ~finite | (jnp.all(dead, axis=1, keepdims=True) & (rest > 0))
    return jnp.where(broken, jnp.nan, nodes), jnp.where(broken, jnp.nan, counts)


def matvecs(s):
    """Products that a spectrum took: [] int32."""
    return jnp.where(s.size > s.deflated.shape[0], s.nodes.size, s.size)


def spectral_sum(s, f):
    """Sum of f over all n eigenvalues: the trace of f(A).

    Args:
      s: Spectrum.
      f: function of an array of eigenvalues, element by element; what it makes of a dead node does not matter.

    Returns:
      Estimate of [].

    Ubaru, Chen & Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", algorithm 1.

    >>> s = exact(jnp.array([1.0, 2.0, 2.0]))
    >>> float(spectral_sum(s, jnp.square).value)
    9.0
    """
    return estimate(_sums(s, f), matvecs(s))


def statistical_dimension(s, c):
    r"""Number of directions that a ridge of strength c leaves free: tr(A_+ (A_+ + c I)^{-1}).

    sum_i lambda_i / (lambda_i + c) over the positive eigenvalues: a direction counts 1 where lambda >> c, 0 where
    lambda << c, and negative curvature counts 0.

    Args:
      s: Spectrum.
      c: [] > 0, in units of the eigenvalues.

    Returns:
      Estimate of [].

    MacKay 1992, "Bayesian Interpolation" (there gamma, the number of well-determined parameters).

    >>> float(statistical_dimension(exact(jnp.array([-5.0, 0.0, 1.0, 3.0])), 1.0).value)
    1.25
    """
    _check_positive("c", c)
    return spectral_sum(s, lambda x: jnp.maximum(x, 0.0) / (jnp.maximum(x, 0.0) + c))


def cdf(s, x):
    """Share of the n eigenvalues at or below x.

    Args:
      s: Spectrum.
      x: [...] thresholds, in units of the eigenvalues.

    Returns:
      Estimate of [...], 0 to 1; NaN for a threshold that is NaN.

    >>> cdf(exact(jnp.array([1.0, 2.0, 3.0, 4.0])), jnp.array([0.0, 2.0, 9.0])).value.tolist()
    [0.0, 0.5, 1.0]
    """
    x = jnp.asarray(x)
    samples = _sums(s, lambda values: jnp.expand_dims(values, _last(x)) <= x)
    return estimate(jnp.where(jnp.isnan(x), jnp.nan, samples / s.size), matvecs(s))


def count(s, low, high):
    """Number of eigenvalues in [low, high], multiplicity included.

    A node that agrees with an end up to rounding may fall on either side: leave room around a multiple eigenvalue.

    Args:
      s: Spectrum.
      low: [] or [...] in units of the eigenvalues.
      high: [] or [...].

    Returns:
      Estimate of the shape of low and high, 0 to n; not rounded.

    >>> float(count(exact(jnp.array([0.0, 2.0, 2.0, 3.0])), 1.5, 2.5).value)
    2.0
    """
    low, high = jnp.broadcast_arrays(jnp.asarray(low), jnp.asarray(high))

    def inside(values):
        values = jnp.expand_dims(values, _last(low))
        return (low <= values) & (values <= high)

    return estimate(jnp.where(jnp.isnan(low) | jnp.isnan(high), jnp.nan, _sums(s, inside)), matvecs(s))


def density(s, grid=None, width=None, points=1000, padding=5.0):
    r"""Spectral density, smoothed by a Gaussian kernel.

    rho(x) = (1/n) sum_i exp(-(x - lambda_i)^2 / (2 width^2)) / sqrt(2 pi width^2). It is not renormalised: what the
    grid leaves out is missing from its integral.

    Args:
      s: Spectrum.
      grid: [G] where to evaluate; default: `points` values, evenly spaced, from the smallest eigenvalue of any probe
        to the largest, and `padding` widths beyond both.
      width: [] standard deviation of the kernel. Default: (largest - smallest) / k, which is what k steps resolve, but
        at least G roundings of the largest |eigenvalue|, so that the points of a narrow spectrum (c I) stay distinct
        numbers; 1 where all eigenvalues are 0 and there is no scale.
      points: size of the default grid, at least k, or neighbouring points would jump over the kernel.
      padding: widths added on both sides; 4 leave out less than 1e-4 of the mass.

    Returns:
      Density.

    Raises:
      ValueError: for points below k or 2, or a width or padding that is not positive.

    Ghorbani, Krishnan & Xiao 2019 (arXiv 1901.10159), algorithm 1. Theirs has a fixed width and takes its range from
    the mean over probes, which cuts outliers off.

    >>> d = density(exact(jnp.array([0.0, 0.0, 1.0])))
    >>> print(round(float(jnp.trapezoid(d.value, d.grid)), 3), float(d.width))
    1.0 0.015625
    """
    _check_positive("width", width)
    _check_positive("padding", padding)
    steps = s.nodes.shape[1]
    if grid is None and points < max(2, steps):
        raise ValueError(f"points = {points} must be at least the number of Lanczos steps, {steps}, and 2")
    low, high, tiny = _range(s, points if grid is None else len(grid))
    if width is None:
        width = jnp.maximum((high - low) / steps, tiny)
    if grid is None:
        grid = jnp.linspace(low - padding * width, high + padding * width, points)
    grid, width = jnp.asarray(grid, s.nodes.dtype), jnp.asarray(width, s.nodes.dtype)

    def kernel(values):
        return jnp.exp(-0.5 * jnp.square((grid - values[..., None]) / width)) / (jnp.sqrt(2 * jnp.pi) * width)

    return _density(grid, _sums(s, kernel) / s.size, width)


def kernel_polynomial_density(s, grid=None, degree=None, points=1000):
    r"""Spectral density by Chebyshev polynomials with Jackson damping, on the interval that the nodes span.

    With t = (x - centre) / h in [-1, 1] and d the degree,

        rho(x) = [1 + 2 sum_{j=1}^d g_j mu_j T_j(t)] / (pi h sqrt(1 - t^2)),    mu_j = (1/n) sum_i T_j(t_i),

    where the quadrature gives the moments mu_j of each probe exactly up to degree 2k - 1, and g_j are Jackson's
    coefficients, which keep rho >= 0 (up to rounding). The kernel is pi h / d wide in the middle and narrower by
    sqrt(1 - t^2) towards the ends, so edges of the spectrum stay sharper than under a Gaussian of one width. The
    interval reaches pi h' / d beyond the extreme nodes, h' half their distance: one kernel width.

    Args:
      s: Spectrum.
      grid: [G] where to evaluate; 0 outside the interval. Default: `points` evenly spaced values inside it.
      degree: 1 to 2k - 1, the default.
      points: size of the default grid.

    Returns:
      Density, with width pi h / d.

    Raises:
      ValueError: for a degree outside 1 to 2k - 1, or fewer than 2 points.

    Chen 2023, "A spectrum adaptive kernel polynomial method" (arXiv 2308.15683); Jackson's coefficients as in Weisse et
    al. 2006 (arXiv cond-mat/0504627), equation 71. Chen lets the reference density adapt as well; here it is
    Chebyshev's, and only the interval adapts.

    >>> d = kernel_polynomial_density(exact(jnp.array([0.0, 0.5, 1.0])), grid=jnp.array([-1.0, 0.25, 0.5]))
    >>> [round(float(value), 1) for value in d.value]
    [0.0, 0.0, 10.8]
    """
    limit = 2 * s.nodes.shape[1] - 1
    degree = limit if degree is None else degree
    if not 1 <= degree <= limit:
        raise ValueError(f"degree = {degree} must lie between 1 and 2 * steps - 1 = {limit}")
    if grid is None and points < 2:
        raise ValueError(f"points = {points} must be at least 2")
    low, high, tiny = _range(s, points if grid is None else len(grid))
    centre, half = (low + high) / 2, jnp.maximum((high - low) / 2 * (1 + np.pi / degree), 5 * tiny)
    if grid is None:
        grid = jnp.linspace(centre - half, centre + half, points + 2)[1:-1]  # at the ends stands a pole
    grid = jnp.asarray(grid, s.nodes.dtype)
    orders = jnp.arange(degree + 1, dtype=grid.dtype)

    def chebyshev(values):
        t = jnp.clip((values - centre) / half, -1.0, 1.0)
        return jnp.cos(orders * jnp.arccos(t)[..., None])  # [..., degree + 1]

    t = (grid - centre) / half
    inside = jnp.abs(t) < 1
    scale = jnp.pi * half * jnp.sqrt(1 - jnp.square(jnp.where(inside, t, 0.0)))
    kernel = jnp.where(inside[:, None], chebyshev(grid) * _jackson(degree) / scale[:, None], 0.0)  # [G, degree + 1]
    moments = _sums(s, chebyshev) / s.size  # [p, degree + 1]
    samples = jnp.einsum("pj,gj->pg", moments, kernel, precision="highest")
    return _density(grid, samples, np.pi * half / degree)


def _sums(s, f):
    """Sum of f over the n eigenvalues as each probe sees them: [p, ...] for f from [...] to [..., ...]."""

    def total(values, counts):
        terms = f(values)
        counts = jnp.expand_dims(counts, tuple(range(values.ndim, terms.ndim)))
        # f may be infinite where nothing counts; and XLA turns NaN * False into 0
        terms = jnp.where(counts == 0, 0.0, jnp.where(jnp.isnan(counts), jnp.nan, counts * terms))
        return jnp.sum(terms, axis=values.ndim - 1)

    return total(s.deflated, jnp.ones_like(s.deflated)) + total(*eigenvalue_counts(s))


def _range(s, points):
    """Smallest and largest eigenvalue of any probe, and the least width that a grid of so many points can show."""
    nodes, counts = eigenvalue_counts(s)
    low = jnp.min(jnp.where(counts == 0, jnp.inf, nodes), initial=jnp.min(s.deflated, initial=jnp.inf))
    high = jnp.max(jnp.where(counts == 0, -jnp.inf, nodes), initial=jnp.max(s.deflated, initial=-jnp.inf))
    tiny = points * jnp.finfo(nodes.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
    return low, high, jnp.where(tiny == 0, 1.0, tiny)


def _density(grid, samples, width):
    """The record from one density per probe, [p, G]."""
    value, sem, margin, _ = estimate(samples, 0)
    return Density(grid, value, sem, margin, width)


def _jackson(degree):
    """Jackson's damping 1, g_1, ..., g_d, the terms of a sum doubled but for the first: [degree + 1]."""
    order, terms = np.arange(degree + 1), degree + 2
    angle = np.pi / terms
    damping = ((terms - order) * np.cos(angle * order) + np.sin(angle * order) / np.tan(angle)) / terms
    return np.where(order == 0, 1.0, 2.0) * damping


def _last(x):
    """Axes to append to an array so that it broadcasts against all of x."""
    return tuple(range(-x.ndim, 0))


def _check_positive(name, value):
    """Raise ValueError for numbers that are not; None and tracers pass."""
    if value is not None and not isinstance(value, jax.core.Tracer) and not value > 0:
        raise ValueError(f"{name} = {value} must be positive")
