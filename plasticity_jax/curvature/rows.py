"""Several vectors side by side: trees whose leaves have a leading axis of rows, the bases of Krylov methods.

No leaf is flattened, so that a leaf that is sharded over devices stays so. Letters: m rows.
"""

import functools

import jax
import jax.numpy as jnp

from plasticity_jax import tree

__all__ = [
    "coefficients",
    "combine",
    "dots",
    "each",
    "get",
    "largest",
    "norm",
    "orthogonalise",
    "put",
    "repeat",
    "unit",
    "while_loop",
    "zeros",
]


def zeros(like, m):
    """M rows of zeros."""
    return jax.tree.map(lambda x: jnp.zeros((m, *x.shape), x.dtype), like)


def get(rows, i):
    """Row i, which may be traced."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), rows)


def put(rows, i, v):
    """The rows with v at place i, which may be traced."""
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, i, 0), rows, v)


def coefficients(rows, v):
    """The inner products of v with every row: [m]."""
    pairs = zip(jax.tree.leaves(rows), jax.tree.leaves(v), strict=True)
    return sum(
        jnp.tensordot(x, y, (tuple(range(1, x.ndim)), tuple(range(y.ndim))), precision="highest") for x, y in pairs
    )


def combine(weights, rows):
    """Sums of rows; weights [m] give a vector, [j, m] give j rows.

    >>> combine(jnp.array([[1.0, 2.0]]), {"w": jnp.eye(2)})["w"].tolist()
    [[1.0, 2.0]]
    """
    return jax.tree.map(lambda x: jnp.tensordot(weights.astype(x.dtype), x, 1, precision="highest"), rows)


def dots(a, b):
    """The inner products of the rows of a with those of b, pair by pair: [m]."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.sum(x * y, axis=tuple(range(1, x.ndim))) for x, y in pairs)


def orthogonalise(rows, v):
    """The part of v orthogonal to orthonormal rows, and the coefficients [m] of the rest: Gram-Schmidt, twice."""
    first = coefficients(rows, v)
    v = tree.subtract(v, combine(first, rows))
    second = coefficients(rows, v)
    return tree.subtract(v, combine(second, rows)), first + second


def norm(v):
    """Euclidean norm of a vector, also of one whose squares are too small or too large for their type: []."""
    plain, limits = tree.norm(v), jnp.finfo(jnp.result_type(*jax.tree.leaves(v)))
    # above this, squares that are too small for the type cannot be seen in the sum; a second pass is rarely needed
    least = (tree.size(v) * float(limits.tiny) / float(limits.eps)) ** 0.5
    return jax.lax.cond((plain > least) & (plain < jnp.inf), lambda v: plain, _norm_by_largest, v)


def _norm_by_largest(v):
    top = largest(v)
    scale = jnp.where(top > 0, top, 1)
    return jnp.where(top > 0, scale * tree.norm(unit(v, scale)), top)


def largest(v):
    """The largest |entry| of a vector: []."""
    return functools.reduce(jnp.maximum, [jnp.abs(x).max() for x in jax.tree.leaves(v) if x.size])


def unit(v, length):
    """V / length, in the types of v."""
    return jax.tree.map(lambda x: x / length.astype(x.dtype), v)


def while_loop(condition, body, state, host=False):
    """jax.lax.while_loop; with `host` the same in Python, for a body that cannot be traced."""
    if not host:
        return jax.lax.while_loop(condition, body, state)
    while bool(condition(state)):
        state = body(state)
    return state


def repeat(count, body, state, host=False):
    """The body `count` times; with `host` in Python."""
    if not host:
        return jax.lax.fori_loop(0, count, lambda _, s: body(s), state)
    for _ in range(count):
        state = body(state)
    return state


def each(f, rows, host=False):
    """The function of every row, one after another, side by side; with `host` in Python."""
    if not host:
        return jax.lax.map(f, rows)
    return jax.tree.map(lambda *x: jnp.stack(x), *[f(get(rows, i)) for i in range(jax.tree.leaves(rows)[0].shape[0])])
