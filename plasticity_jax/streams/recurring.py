"""Tasks that come back: any stream, with its first tasks again and again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Array, PyTree

__all__ = ["Recurring", "recurring"]


class Recurring(NamedTuple):
    """What a stream that recurs keeps."""

    first: PyTree  # the stream's state in its first task
    now: PyTree  # in the task under way
    keys: Array  # [cycle] typed keys of the tasks of the first cycle
    task: Array  # [] int32


def recurring(stream, cycle):
    """The stream whose task t is task t mod `cycle` of another, exactly: the same images, labels and order of examples.

    Task t is made of the stream's state before it and of a key; the wrapper keeps the first state and the keys of the
    first cycle, and goes through them again. Its first `cycle` tasks are those of the stream itself.

    Args:
      stream: Stream.
      cycle: how many tasks there are before the first one comes back, 1 or more.

    Returns:
      Stream with a `Recurring` state, which holds the stream's state twice.
    """
    check.whole("cycle", cycle)

    def init(key, data):
        first = stream.init(key, data)
        return Recurring(first, first, jnp.broadcast_to(key, (cycle,)), jnp.int32(0))

    def advance(key, state, data):
        task = state.task + 1
        place = task % cycle
        keys = state.keys.at[place].set(jnp.where(task < cycle, key, state.keys[place]))
        following = stream.advance(keys[place], state.now, data)
        now = jax.tree.map(lambda a, b: jnp.where(place == 0, a, b), state.first, following)
        return Recurring(state.first, now, keys, task)

    return stream._replace(
        init=init,
        advance=advance,
        sample=lambda key, state, data, step: stream.sample(key, state.now, data, step),
        evaluate=lambda state, data, split: stream.evaluate(state.now, data, split),
        steps=lambda task: stream.steps(task % cycle),
    )
