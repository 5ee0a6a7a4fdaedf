"""What is left of earlier tasks, where the stream says to which task each test example belongs.

Letters: B test inputs, G tasks.
"""

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import check
from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics.shared import unknown
from plasticity_jax.learn import accuracy
from plasticity_jax.parts import evaluated

__all__ = ["forgetting"]


def forgetting(network, objective, horizon, memory_gb, groups: int = 0):
    """Accuracy on the test inputs of every task so far, and what became of it.

    A test input belongs to the task g in which its class came, `snapshot.batch["test"]["task"]` [B] int32. With a_g the
    accuracy on those of task g now, at the end of task t:

      accuracy_by_task   a_g                                                                     [G]
      forgetting         mean over g < t of max over earlier measurements of a_g, minus a_g      []
      backward_transfer  mean over g < t of a_g minus what it was right after task g             []

    "Right after" is the first measurement at the end of task g or later. Forgetting is negative where the accuracy now
    is the best so far. All are float32 and NaN for a task without examples of weight > 0, and, the last two, in the
    first task. An earlier task without test inputs now does not count.

    Args:
      network: evaluates the test inputs, with `train=False`.
      objective: gives the scores.
      horizon: its `tasks` is the number of tasks of a run.
      memory_gb: gigabytes for activations: the test inputs are taken in parts that need no more.
      groups: G; 0: the number of tasks of a run.

    Returns:
      A Diagnostic with one metric of dimension group and two scalar ones, whose state is the best accuracy and the
      first one of each task. Off by default. It costs one forward pass of the test inputs.

    Raises:
      ValueError: a negative number of groups; in `init`, a stream that does not say to which task an input belongs.

    Forgetting: Chaudhry et al. 2018 (arXiv 1801.10112), equations 3 and 4. Backward transfer: Lopez-Paz & Ranzato 2017
    (arXiv 1706.08840), equation 3. Both mean over the tasks before the present one, as here.
    """
    check.whole("forgetting.groups", groups, low=0)
    tasks = np.arange(groups or horizon.tasks)

    def accuracies(key, learner, test):
        scores = objective.predict(evaluated(network, key, learner.variables, test["x"], memory_gb))
        return jax.vmap(lambda g: accuracy(scores, {**test, "weight": test["weight"] * (test["task"] == g)}))(tasks)

    def init(key, learner, snapshot):
        if "task" not in snapshot.batch["test"]:
            raise ValueError(
                "forgetting: this stream's test inputs do not say to which task they belong; class_incremental's do. "
                "Choose that stream, or take the diagnostic out."
            )
        return {"best": unknown(len(tasks)), "learned": unknown(len(tasks))}

    def apply(key, state, learner, snapshot):
        test, task = snapshot.batch["test"], snapshot.clock.task
        now = accuracies(key, learner, test)
        earlier = (tasks < task) & ~jnp.isnan(state["best"]) & ~jnp.isnan(now)
        metrics = {
            "accuracy_by_task": now,
            "forgetting": jnp.mean(state["best"] - now, where=earlier),
            "backward_transfer": jnp.mean(now - state["learned"], where=earlier),
        }
        met = jnp.where(tasks <= task, now, jnp.nan)
        learned = jnp.where(jnp.isnan(state["learned"]) | (tasks == task), met, state["learned"])
        return {"best": jnp.fmax(state["best"], met), "learned": learned}, metrics

    dims = {"accuracy_by_task": {"group": range(len(tasks))}, "forgetting": {}, "backward_transfer": {}}
    return Diagnostic(init, apply, dims)
