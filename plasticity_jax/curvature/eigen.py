r"""The extreme eigenpairs of an operator, to a tolerance, with their multiplicity: thick-restart Lanczos on pytrees.

With the orthonormal rows of V as basis, A V_i = sum_j T_ij V_j + c_i v: what leaves the basis is one vector v, so that
x = sum_i s_i V_i with T s = theta s has the residual |c . s|. When the basis is full, it is replaced by its best
vectors x and v, which is again of this form, with T diagonal but for the row of v (Wu and Simon 2000).

From one start vector, each distinct eigenvalue is seen once. Two things bring in the others:

- where the space is exhausted, c = 0, a random vector orthogonal to the basis takes the place of v;
- once the wanted pairs have converged, they are locked: v is given up for such a random vector. If eigenvalues at
  least as extreme then appear, they are brought to convergence and the check is done again, else it is over.

What is given up, |c_i|, is remembered for every vector of the basis and counts until the end. The residuals that are
returned do not come from this bookkeeping: k more products compute them.

Letters: n entries of a vector, k pairs, m vectors of the basis that have been multiplied; it has m + 1 rows.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.curvature import rows
from plasticity_jax.curvature.require import require_key, require_operator, require_rows

__all__ = ["Eigenpairs", "eigenpairs"]

WHICH = ("LA", "SA", "LM", "BE")
DENSE_SIZE = 2000  # up to here the whole matrix is cheaper and exact
CHECK = 5  # products between two looks at the Ritz values
LOCKED = 0.25  # part of the tolerance that may be given up at one locking
# In units of eps times the largest |eigenvalue|:
BREAKDOWN = 10  # what leaves the basis is rounding noise below this
MARGIN = 25  # what the bookkeeping of the residuals may miss
ATTAINABLE = 50  # the residual that counts as converged whatever `tol` says
ROUNDING = 5  # added to the residuals that are computed


class Eigenpairs(NamedTuple):
    """Eigenvalues and -vectors with their errors; the leading axis of every field but `matvecs` is k.

    Attributes:
      values: [k] float; NaN where there is no such pair.
      vectors: tree like a vector, every leaf [k, ...], of unit norm; zeros where there is no such pair.
      residuals: [k] float, ||A x - theta x|| plus 5 eps L for rounding: some eigenvalue lies within it of theta.
      converged: [k] bool, whether the residual is at most max(tol |theta|, 50 eps L), L the largest |eigenvalue|
        that the method met; eps = 1.2e-7 for float32 parameters. The second is what the arithmetic allows.
      matvecs: [] int32, products used.
    """

    values: jax.Array
    vectors: Any
    residuals: jax.Array
    converged: jax.Array
    matvecs: jax.Array


def eigenpairs(
    A, k=10, which="LA", tol=1e-4, key=None, warm_start=None, ncv=None, max_restarts=50, multiplicity=True, dense=None
):
    r"""The k most extreme eigenpairs of a symmetric operator: A x = theta x.

    Thick-restart Lanczos (Wu and Simon 2000, SIAM J. Matrix Anal. Appl. 22, 602), orthogonalised twice against the
    whole basis. Stops when for all k pairs

    $$\|A x - \theta x\| \le \max(\mathrm{tol}\,|\theta|,\ 50\,\epsilon\,\|A\|),$$

    and, with `multiplicity`, when a random start orthogonal to them brings no eigenvalue at least as extreme. Up to
    2,000 entries the dense matrix is decomposed instead. Works under jit and vmap, where each lane stops on its own.

    Args:
      A: Operator.
      k: int, number of pairs.
      which: "LA" the largest, in descending order; "SA" the smallest, ascending; "LM" the largest in magnitude, by
        magnitude, descending; "BE" both ends, ascending, the extra one of an odd k from the upper end.
      tol: float, relative residual. An eigenvalue's own relative error is then about tol^2 |theta| / gap.
      key: for the random vectors; None: key(0). It changes the results by rounding only.
      warm_start: `vectors` of an earlier call, for an operator near this one: the start vector is their sum.
      ncv: int >= k + 2, rows of the basis, which is all the memory that counts; None: max(2 k + 20, 40). Rounded up to
        a multiple of 5 and to at least k + 5, capped at the dimension.
      max_restarts: int; pairs that have not converged by then say so.
      multiplicity: whether to look for further copies of degenerate eigenvalues, and for anything that the start vector
        missed: about (ncv - k) / 2 products more, as many again for every time that something is found. It fails for
        copies which these products do not separate from the eigenvalues behind them. Without it, copies are found
        where the Krylov space is exhausted, or by luck.
      dense: whether to decompose the matrix, at n products; None: up to 2,000 entries, unless its data is an iterator.

    Returns:
      Eigenpairs. The largest entry of every vector, in magnitude, is positive. NaN from the operator gives NaN, not
      converged. Where a mask lets fewer than k entries through, the rest is padding.

    Raises:
      ValueError: k < 1 or k > n, an unknown `which`, ncv < k + 2, a negative tolerance, no restarts, a warm start of
        another structure or shape.

    >>> from plasticity_jax.curvature.operators import operator
    >>> A = operator(lambda v, d: d * v, like=jnp.zeros(4), args=(jnp.array([1.0, 3.0, -5.0, 3.0]),))
    >>> eigenpairs(A, k=2).values.tolist(), eigenpairs(A, k=2, which="LM", dense=False).converged.tolist()
    ([3.0, 3.0], [True, True])
    """
    plan = _plan(A, k, which, ncv, dense)
    _require_numbers(tol, max_restarts)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), A.like) if warm_start is None else _sum(A, warm_start)
    key = jax.random.key(0) if key is None else key
    require_key("eigenpairs", key)
    options = _Options(jnp.asarray(WHICH.index(which)), tol, A.shapes.eps, jnp.asarray(multiplicity), max_restarts)
    if plan.dense:
        return (_dense if A.host else _dense_jitted)(A, options, plan)
    return (_iterate if A.host else _iterate_jitted)(A, start, key, options, plan)


class _Plan(NamedTuple):
    """What decides on shapes, and is static."""

    k: int
    columns: int  # m
    kept: int  # rows that survive a restart
    dense: bool


class _Options(NamedTuple):
    """What does not, so that no change of it compiles anew."""

    which: jax.Array  # [] int32, a place in WHICH
    tol: float
    eps: float  # rounding of a product
    multiplicity: jax.Array  # [] bool
    max_restarts: int


class _State(NamedTuple):
    basis: Any  # leaves [m + 1, ...]; rows 0 .. col are in use, of which row col is not yet multiplied
    missing: jax.Array  # [] bool, whether row col is still to be drawn
    matrix: jax.Array  # [m + 1, m + 1]: T, and c in row and column col
    dropped: jax.Array  # [m] what was given up of A v, per row
    col: jax.Array  # [] int32
    rank: jax.Array  # [] int32, rows that exist: col + 1, or all there can be
    scale: jax.Array  # [] running estimate of the largest |eigenvalue|
    theta: jax.Array  # [m] Ritz values, the most wanted first
    rotation: jax.Array  # [m, m] their vectors in the basis, as columns
    known: jax.Array  # [k] what was locked last; NaN before
    limit: jax.Array  # [] int32, column that a check must reach
    locked: jax.Array  # [] bool, whether the wanted pairs have converged and are to be locked
    done: jax.Array  # [] bool
    restarts: jax.Array  # [] int32
    matvecs: jax.Array  # [] int32
    key: jax.Array


def _plan(A, k, which, ncv, dense):
    """The static part, from checked arguments."""
    require_operator("eigenpairs", A)
    n = tree.size(A.like)
    if which not in WHICH:
        raise ValueError(f"which={which!r} is unknown: choose one of {', '.join(WHICH)}.")
    if not 1 <= k <= n:
        raise ValueError(f"k={k} eigenpairs of an operator of dimension n={n}: k must be between 1 and n.")
    if ncv is not None and ncv < min(k + 2, n):
        raise ValueError(f"ncv={ncv} is too small for k={k} eigenpairs: it must be at least k + 2 = {k + 2}.")
    wanted = max(min(max(2 * k + 20, 40) if ncv is None else ncv, n), k + CHECK)
    columns = -(-wanted // CHECK) * CHECK
    kept = columns - CHECK * max(1, (columns - k) // 2 // CHECK)
    dense = n <= DENSE_SIZE and not A.host if dense is None else bool(dense)
    return _Plan(k, columns, kept, dense)


def _require_numbers(tol, max_restarts):
    """Raise ValueError for a negative tolerance or number of restarts; tracers pass."""
    for name, value in (("tol", tol), ("max_restarts", max_restarts)):
        if not isinstance(value, jax.core.Tracer) and not value >= 0:
            raise ValueError(f"{name}={value} must not be negative.")


def _sum(A, vectors):
    """The sum of the vectors of an earlier call; raises ValueError where they are not vectors of this operator."""
    require_rows("warm_start", vectors, A.like)
    return A.project(jax.tree.map(lambda x, y: jnp.sum(x, axis=0).astype(y.dtype), vectors, A.like))


def _iterate(A, start, key, options, plan):
    """Thick-restart Lanczos."""
    apply = A.product()

    def unfinished(s):
        return ~s.done & (s.restarts <= options.max_restarts) & jnp.isfinite(s.scale)

    def has_room(s):
        return ~s.done & ~s.locked & (s.col + CHECK <= plan.columns) & jnp.isfinite(s.scale)

    def grow(s):
        return _judge(rows.repeat(CHECK, lambda s: _step(A, apply, s), s, A.host), options, plan)

    def cycle(s):
        return rows.while_loop(has_room, grow, _restart(s, plan), A.host)

    s = rows.while_loop(unfinished, cycle, _begin(A, start, key, plan), A.host)
    basis = jax.tree.map(lambda x: x[:-1], s.basis)
    vectors = _finish(rows.combine(s.rotation[:, : plan.k].T, basis))
    images = rows.each(apply, vectors, A.host)
    return _result(s.theta[: plan.k], vectors, images, s.scale, s.matvecs + plan.k, options)


_iterate_jitted = jax.jit(_iterate, static_argnames="plan")


def _begin(A, start, key, plan):
    """An empty basis, and in its first row the start vector, if there is one."""
    m, dtype = plan.columns, jnp.result_type(*jax.tree.leaves(A.like))
    length = rows.norm(start)
    zero, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    return _State(
        basis=rows.put(rows.zeros(A.like, m + 1), 0, rows.unit(start, jnp.where(length == 0, 1, length))),
        missing=length == 0,
        matrix=jnp.zeros((m + 1, m + 1), dtype),
        dropped=jnp.zeros(m, dtype),
        col=zero,
        rank=zero + 1,
        scale=jnp.zeros((), dtype),
        theta=jnp.zeros(m, dtype),
        rotation=jnp.zeros((m, m), dtype),
        known=jnp.full(plan.k, jnp.nan, dtype),
        limit=zero,
        locked=no,
        done=no,
        restarts=zero,
        matvecs=zero,
        key=key,
    )


def _step(A, apply, s):
    """One product: row col of the basis is multiplied, and what leaves the basis becomes row col + 1."""
    key, drawn = jax.random.split(s.key)

    def draw(carry):
        v, _ = rows.orthogonalise(s.basis, A.random(drawn))
        return rows.unit(v, rows.norm(v)), jnp.zeros((), bool)

    # Drawing is a loop of one round, so that under vmap it is skipped where no lane needs it.
    v, _ = rows.while_loop(lambda carry: carry[1], draw, (rows.get(s.basis, s.col), s.missing), A.host)
    basis = rows.put(s.basis, s.col, v)
    w, row = rows.orthogonalise(basis, apply(v))
    beta = rows.norm(w)
    scale = jnp.maximum(s.scale, jnp.abs(row[s.col]) + beta)
    full = s.rank >= A.size
    dead = (beta <= BREAKDOWN * A.shapes.eps * scale) | full  # false for NaN, which must stay visible
    w = jax.tree.map(lambda x: jnp.where(dead, 0, x), rows.unit(w, jnp.where(dead, 1, beta)))
    row = row.at[s.col + 1].set(jnp.where(dead, 0, beta))
    return s._replace(
        basis=rows.put(basis, s.col + 1, w),
        missing=dead & ~full,
        matrix=s.matrix.at[s.col].set(row).at[:, s.col].set(row),
        dropped=s.dropped.at[s.col].set(jnp.where(dead, beta, 0)),
        col=s.col + 1,
        rank=s.rank + ~full,
        scale=scale,
        matvecs=s.matvecs + 1,
        key=key,
    )


def _judge(s, options, plan):
    """Ritz values, their residuals, and whether it is time to lock or to stop."""
    live = jnp.arange(plan.columns) < jnp.minimum(s.col, s.rank)
    theta, rotation = _polish(s.matrix[:-1, :-1], *_ritz(s.matrix[:-1, :-1], live, options.which))
    wanted = rotation[:, : plan.k]
    leaving = jnp.abs(_dot(s.matrix[s.col, :-1], wanted))
    allowed = _allowed(theta[: plan.k], s.scale, options) - MARGIN * options.eps * s.scale
    accurate = (leaving + _dot(s.dropped, jnp.abs(wanted)) <= allowed).all()
    same = (jnp.abs(theta[: plan.k] - s.known) <= allowed).all()
    checked = (s.col >= s.limit) & same | ~options.multiplicity
    exhausted = s.rank <= s.col  # the basis spans all there is
    done = accurate & checked | exhausted
    locked = options.multiplicity & (s.col >= s.limit) & (leaving <= LOCKED * allowed).all() & ~done
    return s._replace(theta=theta, rotation=rotation, locked=locked, done=done)


def _ritz(matrix, live, which):
    """Eigenpairs of the rows and columns that are live, the most wanted first; NaN and zeros for the rest."""
    matrix = jnp.where(live[:, None] & live, (matrix + matrix.T) / 2, 0)
    bound = jnp.abs(matrix).sum(axis=1).max()
    outside = jnp.where(bound == 0, 1, 2 * bound)  # so that padding does not mix with eigenvalues
    values, vectors = jnp.linalg.eigh(matrix + jnp.diag(jnp.where(live, 0, outside)), symmetrize_input=False)
    real = jnp.where(live[:, None], vectors**2, 0).sum(axis=0) > 0.5
    order = jnp.argsort(jnp.where(real, _distance(values, real.sum(), which), jnp.inf))
    return jnp.where(real, values, jnp.nan)[order], jnp.where(real & live[:, None], vectors, 0)[:, order]


def _polish(matrix, values, vectors):
    """One step of Newton-Schulz, then Rayleigh quotients: restarts add up the errors of eigh, 5 to 10 times larger."""
    vectors = 1.5 * vectors - 0.5 * _dot(vectors, _dot(vectors.T, vectors))
    return jnp.where(jnp.isnan(values), jnp.nan, (vectors * _dot(matrix, vectors)).sum(axis=0)), vectors


def _distance(values, count, which):
    """How little ascending values are wanted, for any place in WHICH; `count` of them are no padding."""
    i = jnp.arange(values.size)
    ends = jnp.minimum(2 * (count - 1 - i), 2 * i + 1).astype(values.dtype)  # the last, the first, the last but one
    return jnp.stack([-values, values, -jnp.abs(values), ends])[which]


def _restart(s, plan):
    """The basis shrinks: to nothing at first; to the wanted pairs, to lock them; or to its best rows and row col."""
    m, p = plan.columns, plan.kept
    keep = jnp.where(s.restarts == 0, 0, jnp.where(s.locked, plan.k, p)).astype(jnp.int32)
    used = jnp.arange(p) < keep
    weights = jnp.where(used, s.rotation[:, :p], 0)
    v = jax.tree.map(lambda x: jnp.where(s.locked, 0, x), rows.get(s.basis, s.col))
    best = rows.combine(weights.T, jax.tree.map(lambda x: x[:-1], s.basis))
    basis = jax.tree.map(lambda x, y: jnp.zeros_like(x).at[:p].set(y), s.basis, best)
    leaving = _dot(s.matrix[s.col, :-1], weights)
    row = jnp.zeros(m + 1, s.theta.dtype).at[:p].set(jnp.where(s.locked, 0, leaving))
    diagonal = jnp.zeros(m + 1, s.theta.dtype).at[:p].set(jnp.where(used, s.theta[:p], 0))
    dropped = _dot(s.dropped, jnp.abs(weights)) + jnp.where(s.locked, jnp.abs(leaving), 0)
    return s._replace(
        basis=rows.put(basis, keep, v),
        missing=s.missing | s.locked,
        matrix=jnp.diag(diagonal).at[keep].add(row).at[:, keep].add(row),
        dropped=jnp.zeros(m, s.theta.dtype).at[:p].set(dropped),
        col=keep,
        rank=keep + 1,
        known=jnp.where(s.locked, s.theta[: plan.k], s.known),
        limit=jnp.where(s.locked, plan.k + m - p, 0).astype(jnp.int32),
        locked=jnp.zeros((), bool),
        restarts=s.restarts + 1,
    )


def _dense(A, options, plan):
    """All eigenpairs of the matrix, of which k are kept."""
    flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), A.like))
    live = jnp.ones(flat.size, bool)
    if A.mask is not None:
        live = jax.flatten_util.ravel_pytree(jax.tree.map(lambda m: jnp.asarray(m) != 0, A.mask))[0]
    matrix = A.dense()
    theta, rotation = _ritz(matrix, live, options.which)
    vectors = _finish(jax.vmap(unravel)(rotation[:, : plan.k].T))
    flat_vectors = jax.vmap(lambda v: jax.flatten_util.ravel_pytree(v)[0])(vectors)
    images = jax.vmap(unravel)(_dot(flat_vectors, matrix.T))
    scale = jnp.nanmax(jnp.abs(theta))
    return _result(theta[: plan.k], vectors, images, scale, jnp.asarray(flat.size, jnp.int32), options)


_dense_jitted = jax.jit(_dense, static_argnames="plan")


def _finish(vectors):
    """Rows of unit norm whose largest entry in magnitude is positive; rows of zeros stay."""
    leaves = [(x, tuple(range(1, x.ndim))) for x in jax.tree.leaves(vectors) if x.size]
    high = functools.reduce(jnp.maximum, [x.max(axis=axes) for x, axes in leaves])
    low = functools.reduce(jnp.minimum, [x.min(axis=axes) for x, axes in leaves])
    length = jnp.sqrt(rows.dots(vectors, vectors))
    return _times(vectors, jnp.where(high >= -low, 1, -1) / jnp.where(length == 0, 1, length))


def _result(theta, vectors, images, scale, matvecs, options):
    """Eigenpairs from unit vectors x and A x, where theta is not NaN: Rayleigh quotients, residuals and flags."""
    unit = jnp.where(scale == 0, 1, scale)  # so that no square leaves the range of its type
    images = _times(images, jnp.broadcast_to(1 / unit, theta.shape))
    quotients = rows.dots(vectors, images) / jnp.where(jnp.isnan(theta), 1, rows.dots(vectors, vectors))
    difference = tree.subtract(images, _times(vectors, quotients))
    values = jnp.where(jnp.isnan(theta), jnp.nan, unit * quotients)
    residuals = unit * jnp.sqrt(rows.dots(difference, difference)) + ROUNDING * options.eps * scale
    residuals = jnp.where(jnp.isnan(theta), jnp.nan, residuals)
    converged = residuals <= _allowed(values, scale, options)
    order = jnp.argsort(jnp.stack([-values, values, -jnp.abs(values), values])[options.which])
    missing = jnp.isnan(values)  # zeros, whatever came out
    vectors = jax.tree.map(lambda x: jnp.where(missing.reshape(-1, *[1] * (x.ndim - 1)), 0, x)[order], vectors)
    return Eigenpairs(values[order], vectors, residuals[order], converged[order], matvecs)


def _allowed(theta, scale, options):
    """The residuals that count as converged: [k]."""
    return jnp.maximum(options.tol * jnp.abs(theta), ATTAINABLE * options.eps * scale)


def _times(vectors, factors):
    """Row i times factors[i]."""
    return jax.tree.map(lambda x: x * factors.reshape(-1, *[1] * (x.ndim - 1)).astype(x.dtype), vectors)


def _dot(a, b):
    """A matrix product in full precision."""
    return jnp.matmul(a, b, precision="highest")
