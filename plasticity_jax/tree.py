"""Algebra of pytrees: inner products and norms, random trees, paths, and an optimizer's moments by path."""

import math

import jax
import jax.numpy as jnp

__all__ = [
    "axpy",
    "dot",
    "get",
    "moments",
    "norm",
    "path_name",
    "put",
    "random_like",
    "ravel",
    "scale",
    "size",
    "size_by_layer",
    "subtract",
    "unravel",
]


def dot(a, b):
    """Sum of the products of all entries of two trees of one structure: [] float.

    No leaf is flattened, which would gather one that is sharded over devices.
    """
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return sum(jnp.tensordot(x, y, axes=jnp.ndim(x), precision="highest") for x, y in pairs)


def norm(a):
    """Euclidean norm of all entries: [] float.

    >>> float(norm({"w": jnp.array([3.0]), "b": jnp.array([4.0])}))
    5.0
    """
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(a)))


def axpy(alpha, x, y):
    """Alpha * x + y, leaf by leaf."""
    return jax.tree.map(lambda a, b: alpha * a + b, x, y)


def scale(alpha, x):
    """Alpha * x, leaf by leaf."""
    return jax.tree.map(lambda a: alpha * a, x)


def subtract(x, y):
    """X - y, leaf by leaf."""
    return jax.tree.map(jnp.subtract, x, y)


def size(a):
    """Number of entries: a Python int, so leaves may be shapes only."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(a))


def size_by_layer(a):
    """Number of entries of each layer: path of a dictionary of arrays -> a Python int, in the order of the tree.

    >>> size_by_layer(
    ...     {"fc0": {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}, "block": {"fc": {"bias": jnp.ones(4)}}}
    ... )
    {'block/fc': 4, 'fc0': 8}
    """
    sizes = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(a):
        layer = path_name(path[:-1])
        sizes[layer] = sizes.get(layer, 0) + math.prod(leaf.shape)
    return sizes


def random_like(key, a, sampler=jax.random.normal):
    """A tree of independent draws with the shapes and dtypes of `a`; sampler(key, shape, dtype)."""
    leaves, structure = jax.tree.flatten(a)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(structure, [sampler(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])


def ravel(a):
    """Every leaf as a vector; typed keys stay as they are.

    >>> jax.tree.map(jnp.shape, ravel({"w": jnp.ones((2, 3)), "n": jnp.ones(())}))
    {'n': (1,), 'w': (6,)}
    """
    return jax.tree.map(lambda x: x if _is_key(x) else x.reshape(-1), a)


def unravel(a, like):
    """The inverse of `ravel`: leaves in the shapes of `like`."""
    return jax.tree.map(lambda x, y: x if _is_key(x) else x.reshape(y.shape), a, like)


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def path_name(path):
    """A path of jax.tree_util as text: ("params", "fc0", "kernel") -> "params/fc0/kernel"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def get(tree, path):
    """The subtree at a path of field names, dictionary keys and positions.

    >>> get({"a": [1, {"b": 2}]}, ("a", 1, "b"))
    2
    """
    for part in path:
        tree = getattr(tree, part) if hasattr(tree, "_fields") and isinstance(part, str) else tree[part]
    return tree


def put(tree, path, value):
    """A copy of `tree` with `value` at a path; only containers along the path are copied."""
    if not path:
        return value
    head, rest = path[0], path[1:]
    if hasattr(tree, "_fields") and isinstance(head, str):
        return tree._replace(**{head: put(getattr(tree, head), rest, value)})
    if isinstance(tree, dict):
        return {**tree, head: put(tree[head], rest, value)}
    return type(tree)([*tree[:head], put(tree[head], rest, value), *tree[head + 1 :]])


def moments(f, opt_state, params, *rest):
    """f(moment, *rest) on every moment that an optimizer keeps of a parameter; other leaves pass unchanged.

    A leaf of `opt_state` is a moment if its path ends with a parameter's path and it has that parameter's shape, so
    nested, masked and partitioned optimizers are reached, where `optax.tree_utils.tree_map_params` raises. Factored
    moments (Adafactor) have other shapes and are not reached.

    Args:
      f: (moment, *leaves of rest at that parameter) -> moment.
      opt_state: any optax state.
      params: the parameters that the state was made for.
      *rest: trees with the structure of `params`.

    Returns:
      A tree with the structure of `opt_state`.
    """
    table = {}
    others = [jax.tree.leaves(tree) for tree in rest]
    for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(params)):
        table[path] = (leaf.shape, [leaves[i] for leaves in others])

    def visit(path, leaf):
        for start in range(len(path)):  # the longest suffix first
            shape, arguments = table.get(path[start:], (None, None))
            if shape is not None and getattr(leaf, "shape", None) == shape:
                return f(leaf, *arguments)
        return leaf

    return jax.tree_util.tree_map_with_path(visit, opt_state)
