"""How well the network does on the inputs of the task under way, at its end, and how sure it is.

Letters: B examples, C classes, K values of a target.
"""

import jax.numpy as jnp

from plasticity_jax.diagnostics.predictions import entropy
from plasticity_jax.diagnostics.shared import stateless
from plasticity_jax.learn import accuracy, weighted_mean
from plasticity_jax.parts import evaluated

__all__ = ["explained_variance", "performance"]


def performance(network, objective, memory_gb):
    """Loss, accuracy and explained variance at the end of a task, in evaluation mode.

      final_loss          sum_b w_b loss_b / sum_b w_b over `snapshot.batch`, the task's own training inputs; no
                          penalties
      final_accuracy      sum_b w_b [argmax_c score_bc = y_b] / sum_b w_b over the same
      explained_variance  `explained_variance` of the predictions over the same
      test_accuracy       as final_accuracy, over `snapshot.batch["test"]`
      prediction_entropy  `predictions.entropy` over `snapshot.batch`, in nats

    All are [] float32. Accuracies and entropy are NaN for real-valued targets, and `test_accuracy` also where the
    stream has no test set: no "test" in the batch, or weights of 0 alone. The explained variance is NaN for labels.

    Args:
      network: evaluates the test inputs, with `train=False`.
      objective: gives losses and scores.
      memory_gb: gigabytes for activations: the test inputs are taken in parts that need no more.

    Returns:
      A Diagnostic with five scalar metrics.

    >>> sorted(performance(network=None, objective=None, memory_gb=1.0).dims)
    ['explained_variance', 'final_accuracy', 'final_loss', 'prediction_entropy', 'test_accuracy']
    """

    def test_accuracy(key, learner, batch):
        if "test" not in batch:
            return jnp.float32(jnp.nan)
        outputs = evaluated(network, key, learner.variables, batch["test"]["x"], memory_gb)
        return accuracy(objective.predict(outputs), batch["test"])

    def apply(key, state, learner, snapshot):
        batch, outputs = snapshot.batch, snapshot.outputs
        predictions = objective.predict(outputs)
        return state, {
            "explained_variance": explained_variance(predictions, batch),
            "final_accuracy": accuracy(predictions, batch),
            "final_loss": weighted_mean(objective.loss(outputs, batch), batch["weight"]),
            "test_accuracy": test_accuracy(key, learner, batch),
            "prediction_entropy": entropy(predictions, batch),
        }

    names = ("explained_variance", "final_accuracy", "final_loss", "test_accuracy", "prediction_entropy")
    return stateless(apply, {name: {} for name in names})


def explained_variance(predictions, batch):
    """1 - sum_b w_b |y_b - f_b|^2 / sum_b w_b |y_b - m|^2, with m [K] the weighted mean of the targets y.

    1 for a perfect fit, 0 for one that is as good as the best constant, below 0 for a worse one.

    Args:
      predictions: f [B, K].
      batch: "y" [B, K], "weight" [B].

    Returns:
      [] float32; NaN where "y" is not real-valued or has another shape than the predictions, where the targets do not
      vary, and where no example counts.

    >>> batch = {"y": jnp.array([[0.0], [2.0]]), "weight": jnp.ones(2)}
    >>> float(explained_variance(jnp.array([[0.0], [1.0]]), batch))
    0.5
    """
    y, weight = batch["y"], batch["weight"]
    if not jnp.issubdtype(y.dtype, jnp.floating) or y.shape != predictions.shape:
        return jnp.float32(jnp.nan)
    counts = weight.reshape(-1, *[1] * (y.ndim - 1)) > 0
    y, residuals = (jnp.where(counts, values, 0.0).reshape(len(y), -1) for values in (y, y - predictions))
    spread = y - weight @ y / jnp.sum(weight)
    total = weighted_mean(spread**2, weight)
    return jnp.where(total > 0, 1.0 - weighted_mean(residuals**2, weight) / total, jnp.nan)
