"""Means over data sets of any size: at once, by microbatches inside one program, or from a host iterator.

Every curvature matrix here is a mean over examples, so that a product is a weighted mean of the microbatches' products.
One differentiates inside the loop, never through it: through it, all residuals of all microbatches are kept.
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from plasticity_jax import tree

__all__ = ["average", "count", "host_average", "is_iterator", "precisely", "widen"]

SHOWN = 5  # leaves that an error lists


def is_iterator(data):
    """Whether `data` is a function that starts a pass over the data: () -> iterable of batches."""
    return callable(data)


def count(data):
    """The number of examples: the leading axis that all leaves share; None for data without leaves.

    Raises:
      ValueError: no examples, leaves whose leading axes differ, or a loader instead of arrays.
    """
    leaves = jax.tree_util.tree_leaves_with_path(data, is_leaf=lambda x: isinstance(x, Iterator))
    if not leaves:
        return None
    for _, leaf in leaves:
        if not hasattr(leaf, "shape") and not isinstance(leaf, int | float | complex):
            raise ValueError(
                f"The data holds a {type(leaf).__name__} instead of arrays: take it out. For a loader, pass a function "
                "that starts a new pass over it: data=lambda: loader."
            )
    sizes = {tree.path_name(path) or "data": jnp.shape(leaf)[0] if jnp.ndim(leaf) else None for path, leaf in leaves}
    if len(set(sizes.values())) != 1 or None in sizes.values():
        shown = ", ".join(f"{name}: {size}" for name, size in list(sizes.items())[:SHOWN])
        more = f" and {len(sizes) - SHOWN} more" if len(sizes) > SHOWN else ""
        raise ValueError(
            f"The leaves of the data must share their leading axis, the examples; it is {shown}{more}. Make lists of "
            "numbers arrays, np.asarray(y)."
        )
    size = next(iter(sizes.values()))
    if size == 0:
        raise ValueError("The data has no examples.")
    return size


def average(f, data, microbatch=None):
    """The mean of f over all examples, by microbatches.

    Args:
      f: (batch, start) -> tree of means over the batch; `start` is the number of examples before it.
      data: tree of [N, ...].
      microbatch: int, examples of one call; None: all at once. The last call takes what is left, and weighs as much.

    Returns:
      Tree like that of f, as `widen` makes it.
    """
    size = count(data)
    if microbatch is None or size is None or microbatch >= size:
        return widen(f(data, 0))
    full, rest = divmod(size, microbatch)

    def add(total, i):
        batch = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * microbatch, microbatch), data)
        return tree.axpy(microbatch / size, widen(f(batch, i * microbatch)), total), None

    shapes = jax.eval_shape(lambda: widen(f(jax.tree.map(lambda x: x[:microbatch], data), 0)))
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, total, jnp.arange(full))
    if rest:
        last = jax.tree.map(lambda x: x[full * microbatch :], data)
        total = tree.axpy(rest / size, widen(f(last, full * microbatch)), total)
    return total


def host_average(f, batches, progress=None):
    """The same mean by a Python loop, for data that do not fit.

    Args:
      f: as above; compiled by the caller.
      batches: () -> iterable of batches, the same ones at every call.
      progress: function (done, total) called after every batch, in batches; total is None where `batches()` has no
        length.

    Returns:
      (mean, number of examples).

    Raises:
      ValueError: an iterator without batches, a batch without arrays.
    """
    total, seen = None, 0
    passing = batches()
    length = len(passing) if hasattr(passing, "__len__") else None
    for done, batch in enumerate(passing):
        size = count(batch)
        if size is None:
            raise ValueError(f"Batch {done} of the iterator holds no arrays: it is {batch!r}.")
        part = widen(f(batch, seen))
        total = tree.scale(size, part) if total is None else tree.axpy(size, part, total)
        seen += size
        if progress is not None:
            progress(done + 1, length)
    if total is None:
        raise ValueError("The iterator gave no batches. data= must be a function that starts a new pass at every call.")
    return tree.scale(1.0 / seen, total), seen


def widen(a):
    """The tree in the precision of vectors: float32, or float64 where x64 is on."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.result_type(float))), a)


def precisely(f):
    """On TPUs and GPUs matrix products in float32 have three digits by default, which no spectrum survives.

    It acts on what is traced inside of f, not on what f returns: a derivative that f returns is traced already.
    """

    def precise(*args, **kwargs):
        with jax.default_matmul_precision("highest"):
            return f(*args, **kwargs)

    return precise
