r"""The Lanczos process on pytrees: A V = V T + beta v e_k^T, V orthonormal, T tridiagonal.

In exact arithmetic V stays orthogonal by itself; in floating point it is lost as soon as an eigenvalue has converged,
and copies of that eigenvalue appear (Paige 1976). The cures:

"full"     every new vector is made orthogonal to all earlier ones by one classical Gram-Schmidt pass, which reads the
           basis twice, and by a second one where the first removed so much that rounding is left over ("twice is
           enough", Daniel et al. 1976). Orthogonal to 1e-5 in float32.
"partial"  the loss of orthogonality is estimated by a recurrence in scalars (Simon 1984), and only when it reaches
           sqrt(eps) two neighbouring vectors are made orthogonal: eigenvalues as accurate as with "full", vectors
           orthogonal to sqrt(eps).
"none"     three vectors of memory. Enough for densities and spectral sums (Chen et al. 2021, arXiv 2105.06595); never
           read single eigenvalues from it.

Breakdown. After as many steps as the start vector meets distinct eigenvalues, nothing new is left and beta is rounding
noise. That is the rule for low-rank Gauss-Newton matrices and dead units, not the exception, and what follows without a
guard is garbage of any size. A step is live where beta > 10 eps scale, eps the rounding of the parameters' type and
scale the largest |alpha| + beta so far; later vectors are zero, which needs no branch and is safe under jit and vmap.

The basis lives in blocks that fill one after another, so that no pass reads vectors which are not there yet.
Letters: k steps, b vectors of a block, n entries of a vector.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import tree
from plasticity_jax.curvature import rows
from plasticity_jax.curvature.require import require_counts, require_key, require_operator

__all__ = ["Basis", "Lanczos", "lanczos", "ritz", "start_vector"]

BLOCK = 16  # vectors of a block: fewer read less that is empty, more need fewer programs
ENOUGH = 0.7  # a pass that leaves this share of the length was exact enough
DEAD = 10.0  # units of eps * scale below which beta is rounding noise
MODES = ("full", "partial", "none")


class Basis(NamedTuple):
    """Orthonormal vectors, stored once, as blocks of them."""

    blocks: tuple  # of trees with leaves [b, ...]

    def project(self, w):
        """Inner products with all vectors: [k]."""
        return jnp.concatenate([_inner(block, w) for block in self.blocks])

    def combine(self, coefficients):
        """Linear combinations: coefficients [k] give a vector, [m, k] a tree of m vectors on a leading axis."""
        sizes = [jax.tree.leaves(block)[0].shape[0] for block in self.blocks]
        parts = jnp.split(coefficients, np.cumsum(sizes)[:-1].tolist(), axis=-1)
        sums = [_combination(block, part) for block, part in zip(self.blocks, parts, strict=True)]
        return functools.reduce(lambda a, b: jax.tree.map(jnp.add, a, b), sums)

    def stack(self):
        """One tree with leaves [k, ...]; needs the memory of a second basis."""
        return jax.tree.map(lambda *blocks: jnp.concatenate(blocks), *self.blocks)


class Lanczos(NamedTuple):
    """What k steps give. The matrix T has alphas on its diagonal and betas[:-1] beside it."""

    alphas: jax.Array  # [k]; of dead steps the first one, which lies inside the spectrum
    betas: jax.Array  # [k]; betas[j] couples vectors j and j + 1, the last one is the residual; 0 from breakdown on
    live: jax.Array  # [k] bool: whether the vector j exists; live.sum() is the effective number of steps
    basis: Any  # Basis, or None where it was not kept


def lanczos(A, steps, key=None, v0=None, reorthogonalize="full", keep_basis=True):
    """Take k steps of the Lanczos process with a symmetric operator.

    Args:
      A: Operator.
      steps: k; more than the dimension are clamped to it.
      key: for a random start; or
      v0: the first vector, of any length but 0.
      reorthogonalize: "full" | "partial" | "none".
      keep_basis: whether to return the basis, k times the memory of the parameters; "none" needs it for nothing else.

    Returns:
      Lanczos. NaN throughout where the operator gives NaN.

    Raises:
      ValueError: steps < 1, neither key nor v0, a v0 of other shapes or of length 0, an unknown mode.

    >>> from plasticity_jax.curvature.operators import operator
    >>> A = operator(lambda v: v * jnp.array([1.0, 2.0, 2.0]), like=jnp.zeros(3))
    >>> t = lanczos(A, steps=3, v0=jnp.ones(3))
    >>> t.live.tolist(), [round(float(x), 4) for x in ritz(t)[0]]  # two distinct eigenvalues: two steps
    ([True, True, False], [1.0, 2.0, 1.6667])
    """
    steps = clamp_steps(A, steps)
    if reorthogonalize not in MODES:
        raise ValueError(f"reorthogonalize={reorthogonalize!r} is unknown: choose one of {', '.join(MODES)}.")
    v = start_vector(A, key, v0)
    run = _run if A.host else _compiled
    return run(A, v, steps, reorthogonalize, keep_basis)


def clamp_steps(A, steps):
    """The number of steps that can be taken; raises ValueError for less than 1."""
    require_operator("Lanczos", A)
    require_counts(steps=steps)
    return min(int(steps), tree.size(A.like))


def start_vector(A, key=None, v0=None, sampler=jax.random.normal):
    """A unit vector in the space of A: v0, or a random one."""
    if v0 is None:
        if key is None:
            raise ValueError("A random start needs key=jax.random.key(...); or pass the first vector, v0=.")
        require_key("A random start", key)
        v0 = A.random(key, sampler)
    v0 = A.project(A.vector("v0", v0))
    top = rows.largest(v0)  # the length itself may be too large for its type
    if not isinstance(top, jax.core.Tracer) and not 0 < float(top) < float("inf"):
        raise ValueError(f"v0 has the length {float(rows.norm(v0))}: the first vector must be finite and not zero.")
    v0 = rows.unit(v0, top)
    return rows.unit(v0, tree.norm(v0))


def ritz(t):
    """Eigenvalues of T and the squares of the first components of its eigenvectors, dead steps last.

    Args:
      t: Lanczos of one run.

    Returns:
      (nodes [k] ascending over the live ones, weights [k] that sum to 1 and are 0 for dead ones, vectors [k, k], whose
      columns are coefficients in the basis, zero for dead ones).
    """
    couplings = t.betas[:-1]
    reach = jnp.max(jnp.abs(t.alphas) + jnp.append(couplings, 0.0) + jnp.append(0.0, couplings))
    # dead steps are moved beyond the spectrum, where they mix with nothing and are sorted last
    diagonal = jnp.where(t.live, t.alphas, jnp.where(reach > 0, 2.0 * reach, 1.0))
    matrix = jnp.diag(diagonal) + jnp.diag(couplings, 1) + jnp.diag(couplings, -1)
    nodes, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    real = jnp.arange(nodes.size) < jnp.sum(t.live)
    weights = jnp.where(real, vectors[0] ** 2, 0.0)
    return jnp.where(real, nodes, t.alphas[0]), weights / jnp.sum(weights), jnp.where(real, vectors, 0.0)


class _State(NamedTuple):
    v: Any
    previous: Any
    beta: jax.Array  # that couples the two
    alphas: jax.Array
    betas: jax.Array
    live: jax.Array
    scale: jax.Array
    blocks: tuple
    omega: tuple  # of "partial": estimates of <v_j, v_i> and <v_j-1, v_i>, [k] each, and whether the last step acted


def _run(A, v, steps, mode, keep_basis):
    product, dtype = A.product(), jnp.result_type(*jax.tree.leaves(v))
    size = BLOCK if mode != "none" or keep_basis else 0
    lengths = [min(size, steps - first) for first in range(0, steps, size)] if size else []
    blocks = tuple(jax.tree.map(lambda x, b=b: jnp.zeros((b, *x.shape), x.dtype), v) for b in lengths)
    zeros = jnp.zeros(steps, dtype)
    omega = (zeros, zeros, jnp.zeros((), bool)) if mode == "partial" else ()
    first = zeros.astype(bool).at[0].set(True)
    none = jax.tree.map(jnp.zeros_like, v)
    state = _State(v, none, zeros[0], zeros, zeros, first, zeros[0], blocks, omega)
    body = functools.partial(_step, product, mode, A.shapes.eps)
    state = jax.lax.fori_loop(0, steps, body, state) if not A.host else _python_loop(steps, body, state)
    alphas = jnp.where(state.live, state.alphas, state.alphas[0])
    return Lanczos(alphas, state.betas, state.live, Basis(state.blocks) if keep_basis else None)


_compiled = functools.partial(jax.jit, static_argnums=(2, 3, 4))(_run)


def _python_loop(steps, body, state):
    for j in range(steps):
        state = body(jnp.int32(j), state)
    return state


def _step(product, mode, eps, j, state):
    w = product(state.v)
    alpha = tree.dot(state.v, w)
    w = jax.tree.map(lambda w, v, u: w - alpha * v - state.beta * u, w, state.v, state.previous)
    scale = jnp.maximum(state.scale, jnp.abs(alpha) + state.beta)
    alphas = state.alphas.at[j].set(alpha)
    blocks = tuple(_write(block, state.v, j - i * BLOCK) for i, block in enumerate(state.blocks))
    omega = state.omega
    if mode == "full":
        w, beta = _orthogonalized(blocks, w, j)
    elif mode == "partial":
        w, beta, omega = _partially_orthogonalized(blocks, w, j, alphas, state, scale)
    else:
        beta = rows.norm(w)
    # written so that NaN counts as alive: it must show
    alive = state.live[j] & ~(beta <= DEAD * eps * scale)
    beta = jnp.where(alive, beta, 0.0)
    v = jax.tree.map(lambda x: jnp.where(alive, x / jnp.where(beta == 0, 1.0, beta), 0.0), w)
    live = state.live.at[j + 1].set(alive, mode="drop")
    return _State(v, state.v, beta, alphas, state.betas.at[j].set(beta), live, scale, blocks, omega)


def _write(block, v, row):
    """Put v into a row of the block; a row outside leaves it as it is."""
    rows = jax.tree.leaves(block)[0].shape[0]
    inside, row = (row >= 0) & (row < rows), jnp.clip(row, 0, rows - 1)

    def put(block, x):
        old = jax.lax.dynamic_index_in_dim(block, row, keepdims=False)
        return jax.lax.dynamic_update_index_in_dim(block, jnp.where(inside, x, old), row, 0)

    return jax.tree.map(put, block, v)


def _orthogonalized(blocks, w, j):
    """(w orthogonal to the vectors 0 to j, its length); a second pass only where the first was not exact enough."""
    before = rows.norm(w)
    w = _pass(blocks, w, j)
    once = rows.norm(w)

    def again(w):
        w = _pass(blocks, w, j)
        return w, rows.norm(w)

    return jax.lax.cond(once < ENOUGH * before, again, lambda w: (w, once), w)


def _pass(blocks, w, j):
    """One classical Gram-Schmidt pass, inner products before subtractions; blocks without vectors are skipped."""
    started = [j >= i * BLOCK for i in range(len(blocks))]
    inner = [
        jax.lax.cond(on, _inner, lambda block, w: jnp.zeros(_rows(block), _dtype(w)), block, w)
        for on, block in zip(started, blocks, strict=True)
    ]
    for on, block, h in zip(started, blocks, inner, strict=True):
        w = jax.lax.cond(
            on, lambda w, block, h: tree.subtract(w, _combination(block, h)), lambda w, block, h: w, w, block, h
        )
    return w


def _dtype(w):
    return jnp.result_type(*jax.tree.leaves(w))


def _rows(block):
    return jax.tree.leaves(block)[0].shape[0]


def _inner(block, w):
    """<v_i, w> for the vectors of a block: [b]. No leaf is reshaped, so that a sharded one stays where it is."""
    return sum(
        jnp.tensordot(v, x, axes=x.ndim, precision="highest")
        for v, x in zip(jax.tree.leaves(block), jax.tree.leaves(w), strict=True)
    )


def _combination(block, coefficients):
    """sum_i coefficients[..., i] v_i."""
    return jax.tree.map(lambda v: jnp.tensordot(coefficients, v, axes=1, precision="highest"), block)


def _partially_orthogonalized(blocks, w, j, alphas, state, scale):
    """(w, its length, omega): orthogonalized where the estimate says so, and once more at the step after.

    The estimates omega[i] of <v_j+1, v_i> follow the recurrence of the vectors themselves (Simon 1984, eq. 2.8).
    """
    current, last, acted = state.omega
    eps, index = jnp.finfo(alphas.dtype).eps, jnp.arange(alphas.size)
    beta = rows.norm(w)
    current = jnp.where(index == j, 1.0, jnp.where(index < j, current, 0.0))
    up = state.betas * jnp.append(current[1:], 0.0)
    down = jnp.append(0.0, state.betas[:-1] * current[:-1])
    grown = up + (alphas - alphas[j]) * current + down - state.beta * last
    divisor = jnp.where(beta > 0, beta, 1.0)
    estimate = (grown + jnp.sign(grown) * 2.0 * eps * scale) / divisor
    estimate = jnp.where(index < j, estimate, jnp.where(index == j, eps * scale / divisor, 0.0))
    due = acted | (jnp.max(jnp.abs(estimate)) > jnp.sqrt(eps))

    def act(w):
        return _orthogonalized(blocks, w, j)

    w, beta = jax.lax.cond(due, act, lambda w: (w, beta), w)
    estimate = jnp.where(due & (index <= j), eps, estimate)
    return w, beta, (estimate, current, due & ~acted)
