"""How well the network does on the inputs of the task under way, at its end.

Letters: B examples, C classes.
"""

import jax.numpy as jnp

from plasticity_jax.base import Diagnostic
from plasticity_jax.learn import accuracy, weighted_mean

__all__ = ["performance"]


def performance(network, objective):
    """Loss and accuracy at the end of a task, in evaluation mode.

      final_loss      sum_b w_b loss_b / sum_b w_b over `snapshot.batch`, the task's own training inputs; no penalties
      final_accuracy  sum_b w_b [argmax_c score_bc = y_b] / sum_b w_b over the same
      test_accuracy   the same over `snapshot.batch["test"]`

    All three are [] float32. Accuracies are NaN for real-valued targets, and `test_accuracy` also where the stream has
    no test set: no "test" in the batch, or weights of 0 alone.

    Args:
      network: evaluates the test inputs, with `train=False`.
      objective: gives losses and scores.

    Returns:
      A Diagnostic with three scalar metrics.

    >>> sorted(performance(network=None, objective=None).dims)
    ['final_accuracy', 'final_loss', 'test_accuracy']
    """

    def test_accuracy(key, learner, batch):
        if "test" not in batch:
            return jnp.float32(jnp.nan)
        outputs, _ = network.apply(key, learner.variables, batch["test"]["x"], False)
        return accuracy(objective.predict(outputs), batch["test"])

    def apply(key, state, learner, snapshot):
        batch, outputs = snapshot.batch, snapshot.outputs
        return state, {
            "final_accuracy": accuracy(objective.predict(outputs), batch),
            "final_loss": weighted_mean(objective.loss(outputs, batch), batch["weight"]),
            "test_accuracy": test_accuracy(key, learner, batch),
        }

    names = ("final_accuracy", "final_loss", "test_accuracy")
    return Diagnostic(lambda key, learner, snapshot: (), apply, {name: {} for name in names})
