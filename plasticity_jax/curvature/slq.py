r"""Stochastic Lanczos quadrature: the whole spectrum of an operator from a few dozen products per probe.

For a random unit vector v, f(A) has E[n v^T f(A) v] = tr f(A), and k Lanczos steps from v give the Gaussian quadrature
of that form: nodes the Ritz values, weights the squared first components of the eigenvectors of T, exact for
polynomials up to degree 2k - 1 (Golub & Meurant 1994; Ubaru, Chen & Saad 2017). Error of the distribution: its
Wasserstein distance is about range / k plus range / sqrt(p n) (Chen et al. 2021, arXiv 2105.06595): more steps
resolve, more probes average, and a large network needs few.

Letters: n dimension, p probes, k steps, m known eigenpairs.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.curvature.lanczos import clamp_steps, lanczos, ritz
from plasticity_jax.curvature.require import require_counts, require_key, require_operator, require_rows
from plasticity_jax.curvature.spectrum import Spectrum, exact

__all__ = ["slq"]

BASIS_BYTES = 2e9  # of a basis that is kept for orthogonality where the caller does not say
DENSE_SIZE = 2000  # up to here the dense matrix costs less than it hides


def slq(
    A, steps=64, probes=8, key=None, probe_batch=1, reorthogonalize=None, sampler=jax.random.rademacher, deflate=None,
    dense=False,
):  # fmt: skip
    """The spectrum of a symmetric operator as nodes and weights.

    Args:
      A: Operator.
      steps: k, clamped to the dimension.
      probes: p independent random vectors; standard errors need at least 2.
      key: for the probes.
      probe_batch: probes that are processed side by side: 1 on CPUs, more on accelerators for small networks.
      reorthogonalize: "full" | "partial" | "none"; None: "full" where its basis takes at most 2 GB, else "none", which
        densities and sums do not suffer from, but single nodes do.
      sampler: (key, shape, dtype) of independent entries with mean 0 and variance 1: signs by default.
      deflate: Eigenpairs of A, all converged: they enter with no error, and the probes see the rest only. Their
        residuals should be small against the resolution that is asked for. With all n of them no product is needed.
      dense: whether to take the exact eigenvalues of the dense matrix where the dimension is at most 2,000.

    Returns:
      Spectrum; `density`, `count`, `spectral_sum`, `summary` read it without further products.

    Raises:
      ValueError: no Operator, probes, steps or probe_batch < 1, no key, an unknown mode, `dense` above 2,000 parameters
        or with a mask; outside jit, pairs to deflate that have not converged or are padding.

    >>> from plasticity_jax.curvature.operators import operator
    >>> A = operator(lambda v: v * jnp.arange(1.0, 5.0), like=jnp.zeros(4))
    >>> s = slq(A, steps=4, probes=2, key=jax.random.key(0))
    >>> [round(float(x), 3) for x in s.nodes[0]], round(float(s.weights[0].sum()), 3)
    ([1.0, 2.0, 3.0, 4.0], 1.0)
    """
    require_operator("slq", A)
    steps = clamp_steps(A, steps)
    require_counts(probes=probes, probe_batch=probe_batch)
    if dense:
        return exact(_eigenvalues(A), steps)
    if deflate is not None:
        _require_pairs(A, deflate)
        if A.mask is None and len(deflate.values) >= A.size:
            return exact(deflate.values, steps)
    require_key("slq", key)
    if reorthogonalize is None:
        item = max(x.dtype.itemsize for x in jax.tree.leaves(A.like))
        basis = steps * tree.size(A.like) * item * min(probe_batch, probes)
        reorthogonalize = "full" if basis <= BASIS_BYTES else "none"
    known = None if deflate is None else (deflate.values, deflate.vectors)
    run = _run if A.host else _compiled
    return run(A, known, jax.random.split(key, probes), steps, probe_batch, reorthogonalize, sampler)


def _run(A, known, keys, steps, probe_batch, mode, sampler):
    values = jnp.zeros(0) if known is None else known[0]
    rest = A if known is None else _deflated(A, known[1])

    def probe(key):
        v = A.random(key, sampler)
        v = v if known is None else _off(known[1], v)
        t = lanczos(rest, steps, v0=v, reorthogonalize=mode, keep_basis=False)
        nodes, weights, _ = ritz(t)
        return nodes, weights, jnp.arange(steps) < jnp.sum(t.live), t.alphas, t.betas

    if A.host:
        found = jax.tree.map(lambda *x: jnp.stack(x), *[probe(key) for key in keys])
    else:
        together = min(probe_batch, keys.shape[0])
        # one by one and not in batches of one, in which `cond` would run both branches and copy the basis for them
        found = jax.lax.map(probe, keys, batch_size=together if together > 1 else None)
    return Spectrum(*found, deflated=values, size=jnp.asarray(A.size, jnp.int32))


_compiled = functools.partial(jax.jit, static_argnums=(3, 4, 5, 6))(_run)


def _require_pairs(A, pairs):
    """Raise ValueError unless these are vectors of A, and have converged where one can know."""
    require_rows("deflate", pairs.vectors, A.like)
    good = getattr(pairs, "converged", jnp.isfinite(pairs.values))  # pairs from elsewhere are known without a flag
    if not isinstance(good, jax.core.Tracer) and not good.all():
        bad = jnp.flatnonzero(~good).tolist()
        raise ValueError(
            f"deflate has padded or unconverged pairs, at {bad}, which would count as exact: ask eigenpairs for fewer "
            "pairs or for more restarts."
        )


def _eigenvalues(A):
    if A.mask is not None:
        raise ValueError("dense=True knows no masks: take the default, or restrict to paths.")
    if A.size > DENSE_SIZE:
        raise ValueError(f"dense=True is for at most {DENSE_SIZE} parameters; this operator has {A.size}.")
    matrix = A.dense()
    return jnp.linalg.eigvalsh(0.5 * (matrix + matrix.T))


@dataclasses.dataclass(frozen=True)
class _OffKnown:
    """(I - U U^T) A (I - U U^T): the operator without what is known."""

    inner: Callable

    def __call__(self, args):
        apply, vectors = self.inner(args[0]), args[1]

        def off(v):
            return _off(vectors, v)

        return lambda v: off(apply(off(v)))


def _off(vectors, v):
    inner = sum(
        jnp.tensordot(u, x, axes=x.ndim, precision="highest")
        for u, x in zip(jax.tree.leaves(vectors), jax.tree.leaves(v), strict=True)
    )
    return jax.tree.map(lambda x, u: x - jnp.tensordot(inner, u, axes=1, precision="highest"), v, vectors)


def _deflated(A, vectors):
    return dataclasses.replace(A, args=(A.args, vectors), prepare=_OffKnown(A.prepare))
