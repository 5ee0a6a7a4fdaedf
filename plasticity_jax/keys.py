"""Random keys, by purpose and step: one constant key per run, everything else is derived from it by fold_in.

Two draws that differ in purpose or step are independent, and a draw does not depend on which other draws were made:
that is why the task sequence and the initial weights of a seed are the same in every variant.
"""

import enum
import zlib

import jax

__all__ = ["IMPLEMENTATION", "Purpose", "for_seeds", "for_step", "named"]

# Pinned, because the ambient default has changed results for the same seed elsewhere (peers: asi PR 2907).
IMPLEMENTATION = "threefry2x32"


class Purpose(enum.IntEnum):
    """What a key is for. Append only: a number that moves changes every result."""

    INIT = 0  # initial weights
    STREAM = 1  # what is drawn once per run: which images, in which order tasks come
    TASK = 2  # what is drawn once per task: labels, permutations
    BATCH = 3
    NETWORK = 4  # dropout, in the forward pass of a training step
    INTERVENTION = 5  # init of the interventions
    LOSS = 6  # loss hooks
    GRADIENTS = 7  # gradients hooks
    UPDATE = 8  # update hooks
    BOUNDARY = 9  # boundary hooks
    DIAGNOSTIC = 10
    ADVANCE = 11  # the gradient that boundary hooks may read
    MEASURE = 12  # the gradient and update that diagnostics may read
    DIAGNOSTIC_INIT = 13  # what a diagnostic draws once per run


def for_step(key, purpose, step=0):
    """The key of one purpose at one step: fold_in(fold_in(key, purpose), step).

    Args:
      key: [] typed key of a run, or one derived from it.
      purpose: a `Purpose`.
      step: int or [] int32, not negative.

    Returns:
      [] typed key.
    """
    return jax.random.fold_in(jax.random.fold_in(key, int(purpose)), step)


def named(key, name):
    """The key of one of several parts, by its name and not by its place: adding another leaves its draws alone."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def for_seeds(seeds):
    """The keys of runs with these seeds, [R] typed threefry keys.

    >>> for_seeds([3, 4]).shape
    (2,)
    """
    return jax.vmap(lambda seed: jax.random.key(seed, impl=IMPLEMENTATION))(jax.numpy.asarray(seeds, "uint32"))
