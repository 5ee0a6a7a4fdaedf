"""Which network of a task is measured at its end and goes on into the next: the last one, or the best on validation."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import accuracy
from plasticity_jax.parts import evaluated

__all__ = ["KEEP_LAST", "Keep", "check_segments", "keep_best"]


class Keep(NamedTuple):
    """Three pure functions around `TrainState.best`, written for one run."""

    begin: Callable  # (learner) -> best        at the beginning of a task
    score: Callable  # (state, data) -> state   after each segment
    finish: Callable  # (state) -> state        the state whose learner is the one that is kept


KEEP_LAST = Keep(lambda learner: (), lambda state, data: state, lambda state: state)


def check_segments(lengths, segment_steps):
    """Raise ValueError where a task is one segment: its network is scored once, so that there is nothing to choose.

    Args:
      lengths: optimizer steps of each task.
      segment_steps: of a segment; it divides them.

    >>> check_segments((40, 80), 20)
    """
    for task, steps in enumerate(lengths):
        if steps == segment_steps:
            raise ValueError(
                f"early_stopping=True chooses among segments' ends, but task {task} of {steps} steps is one segment: "
                f"set segment_steps to a smaller divisor of {math.gcd(*lengths)}, such as the steps of an epoch."
            )


def keep_best(network, objective, stream, memory_gb=1.0):
    """Keep the network with the highest accuracy on the stream's validation split; the first of several.

    Args:
      network, objective, stream: records.
      memory_gb: gigabytes for the activations of validation images; beyond that they are taken in parts.

    Returns:
      Keep, whose `best` is (accuracy [], Variables). States of the optimizer and of interventions are not kept: they go
      on as they are.

    Raises:
      ValueError: the stream has no validation split.
    """
    if "validation" not in stream.splits:
        raise ValueError(
            f"early_stopping=True, but the stream has no validation images, only {' and '.join(stream.splits)}: choose "
            "a stream that holds some out, such as class_incremental with validation=50."
        )

    def score(state, data):
        batch, variables = stream.evaluate(state.source, data, "validation"), state.learner.variables
        if not jnp.issubdtype(batch["y"].dtype, jnp.integer):
            raise ValueError("early_stopping=True, but the stream has real-valued targets: there is no accuracy.")
        outputs = evaluated(network, for_step(state.key, Purpose.MEASURE), variables, batch["x"], memory_gb)
        reached = accuracy(objective.predict(outputs), batch)
        is_better = reached > state.best[0]  # never where it is NaN
        best = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), (reached, variables), state.best)
        return state._replace(best=best)

    def finish(state):
        return state._replace(learner=state.learner._replace(variables=state.best[1]))

    return Keep(lambda learner: (jnp.float32(-1.0), learner.variables), score, finish)
