"""What operators ask of their arguments: each function raises ValueError with the value, its path and the remedy."""

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import tree

__all__ = [
    "require_alike",
    "require_counts",
    "require_floating",
    "require_key",
    "require_operator",
    "require_real",
    "require_rows",
]


def require_alike(what, value, like):
    """Raise ValueError unless `value` has the structure and the shapes of `like`."""
    if jax.tree.structure(value) != jax.tree.structure(like):
        got, wanted = jax.tree.structure(value), jax.tree.structure(like)
        raise ValueError(f"{what} has the structure {got}, but the operator acts on {wanted}.")
    expected = jax.tree.leaves(like)
    for (path, leaf), x in zip(jax.tree_util.tree_leaves_with_path(value), expected, strict=True):
        if jnp.shape(leaf) != x.shape:
            name = tree.path_name(path) or "the only leaf"
            raise ValueError(f"{what} has the shape {jnp.shape(leaf)} at {name}, but the operator acts on {x.shape}.")


def require_rows(what, value, like):
    """Raise ValueError unless `value` holds vectors like `like` side by side: leaves [j, ...], one j for all."""
    if jax.tree.structure(value) != jax.tree.structure(like):
        got, wanted = jax.tree.structure(value), jax.tree.structure(like)
        raise ValueError(f"{what} has the structure {got}, but the operator acts on {wanted}.")
    leaves = jax.tree_util.tree_leaves_with_path(value)
    count = jnp.shape(leaves[0][1])[:1]
    for (path, leaf), x in zip(leaves, jax.tree.leaves(like), strict=True):
        if not count or jnp.shape(leaf) != (*count, *x.shape):
            name = tree.path_name(path) or "the only leaf"
            raise ValueError(
                f"{what} has the shape {jnp.shape(leaf)} at {name}, but j vectors of this operator have "
                f"(j, {', '.join(map(str, x.shape))}), with one j for all leaves."
            )


def require_real(what, value, kind=np.generic):
    """Raise ValueError where a leaf is complex, or not of the kind: by default integers and booleans will do."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.complexfloating) or not jnp.issubdtype(dtype, kind):
            name = tree.path_name(path) or "the only leaf"
            raise ValueError(f"{what} has the type {dtype} at {name}: operators are real, and products floating.")


def require_counts(**values):
    """Raise ValueError unless every value is a whole number of at least 1; traced ones have no place here either."""
    for name, value in values.items():
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name}={value}: choose a whole number, at least 1.")


def require_operator(what, A):
    """Raise ValueError unless A is an Operator."""
    if not hasattr(A, "prepare"):
        raise ValueError(f"{what} takes an Operator, not a {type(A).__name__}: see hessian, ggn, operator.")


def require_key(what, key):
    """Raise ValueError unless `key` is a key of jax.random, of the new kind or the old one."""
    dtype = getattr(key, "dtype", None)
    old = dtype == np.uint32 and jnp.ndim(key) == 1
    if not old and (dtype is None or not jnp.issubdtype(dtype, jax.dtypes.prng_key)):
        raise ValueError(f"{what} draws random vectors, and key={key!r} is no key: pass key=jax.random.key(0).")


def require_floating(what, value):
    """Raise ValueError, with the path, unless all leaves are arrays of real floating numbers, and there is one."""
    leaves = jax.tree_util.tree_leaves_with_path(value)
    for path, leaf in leaves:
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            kind = f"an array of {dtype}" if dtype is not None else f"a {type(leaf).__name__}"
            raise ValueError(
                f"{what} holds {kind} at {tree.path_name(path) or 'its only leaf'}, which cannot be "
                "differentiated. Pass the tree of floating parameters only, and put the rest together inside the loss: "
                "from a dict take this leaf out; params = model.init(key, x) for linen; nnx.split(model, nnx.Param, "
                "...); eqx.partition(model, eqx.is_inexact_array). A function of params comes before them."
            )
    if sum(leaf.size for _, leaf in leaves) == 0:
        raise ValueError(f"{what} holds no parameters.")
