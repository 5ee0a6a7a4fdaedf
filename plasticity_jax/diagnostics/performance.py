"""How well the network does on the inputs of the task under way, at its end.

Letters: B examples, C classes.
"""

import jax.numpy as jnp

from plasticity_jax.base import Diagnostic

__all__ = ["accuracy", "performance", "weighted_mean"]


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
    return Diagnostic(lambda learner, snapshot: (), apply, {name: {} for name in names})


def accuracy(scores, batch):
    """Weighted share of examples whose highest score is at their label.

    Args:
      scores: [B, ..., C]; the first of equal scores counts as the highest.
      batch: "y" [B, ...] class numbers, "weight" [B].

    Returns:
      [] float32; NaN where "y" is not of an integer type, where a counted score is NaN, or where no example counts.

    >>> batch = {"y": jnp.array([1, 0]), "weight": jnp.array([3.0, 1.0])}
    >>> float(accuracy(jnp.array([[0.0, 1.0], [0.0, 1.0]]), batch))
    0.75
    """
    labels = batch["y"]
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        return jnp.float32(jnp.nan)
    hits = (jnp.argmax(scores, -1) == labels).astype(jnp.float32)
    return weighted_mean(jnp.where(jnp.any(jnp.isnan(scores), -1), jnp.nan, hits), batch["weight"])


def weighted_mean(values, weight):
    """sum_b w_b v_b / sum_b w_b, in float32.

    Args:
      values: [B, ...]; further axes are averaged.
      weight: [B] not negative; an example of weight 0 does not count, even if its value is NaN.

    Returns:
      [] float32, NaN if all weights are 0.

    >>> float(weighted_mean(jnp.array([1.0, 5.0, jnp.nan]), jnp.array([1.0, 3.0, 0.0])))
    4.0
    """
    per_example = jnp.asarray(values, jnp.float32).reshape(values.shape[0], -1).mean(-1)  # [B]
    return jnp.sum(jnp.where(weight > 0, weight * per_example, 0.0)) / jnp.sum(weight)
