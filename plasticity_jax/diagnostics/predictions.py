"""How sure the predictions are, and how far one update moves them.

Letters: B inputs, C classes or values.
"""

import jax
import jax.numpy as jnp
import optax

from plasticity_jax.base import Diagnostic
from plasticity_jax.learn import weighted_mean

__all__ = ["predictions"]


def predictions(network, objective):
    """Entropy of the predictions, and churn: their change under one update.

      prediction_entropy  mean over the inputs of -sum_c p_c ln p_c, p the softmax of the scores, in nats
      churn               share of the inputs whose highest score is at another class after the update
      churn_distance      mean over inputs and classes of |score after - score before|

    Scores are `objective.predict`: logits of a softmax head. A head that regresses on one-hot labels predicts values
    near 0 and 1, whose entropy is close to ln C however sure it is; there only changes of the entropy mean something.
    The update is `snapshot.updates`, which the optimizer would make of the gradient on all evaluation inputs, and the
    inputs are the same: what moves is what was learned from. It is not applied to the learner.

    All three are [] float32. The first two are NaN for real-valued targets, and where a score is NaN; classes that do
    not exist yet, by "classes" [B, C] in the batch, have no part in them.

    Args:
      network: evaluates the inputs once more, with `train=False`.
      objective: gives the scores.

    Returns:
      A Diagnostic with three scalar metrics. It costs one forward pass.

    Schaul et al. 2022 (arXiv 2206.00730), section 2, "policy churn": the share of states whose greedy action changes
    under one update.

    >>> sorted(predictions(network=None, objective=None).dims)
    ['churn', 'churn_distance', 'prediction_entropy']
    """

    def apply(key, state, learner, snapshot):
        batch = snapshot.batch
        params = optax.apply_updates(learner.variables.params, snapshot.updates)
        after, _ = network.apply(key, learner.variables._replace(params=params), batch["x"], False)
        old, new = objective.predict(snapshot.outputs), objective.predict(after)
        moved = weighted_mean(jnp.abs(new - old), batch["weight"])
        if "classes" in batch:
            old, new = (jnp.where(batch["classes"], scores, -jnp.inf) for scores in (old, new))
        entropy = jnp.sum(jax.scipy.special.entr(jax.nn.softmax(old)), -1)  # [B, ...]
        changed = jnp.where(jnp.isnan(old + new).any(-1), jnp.nan, jnp.argmax(old, -1) != jnp.argmax(new, -1))
        classes = jnp.issubdtype(batch["y"].dtype, jnp.integer)
        return state, {
            "prediction_entropy": weighted_mean(entropy, batch["weight"]) if classes else jnp.float32(jnp.nan),
            "churn": weighted_mean(changed, batch["weight"]) if classes else jnp.float32(jnp.nan),
            "churn_distance": moved,
        }

    names = ("prediction_entropy", "churn", "churn_distance")
    return Diagnostic(lambda key, learner, snapshot: (), apply, {name: {} for name in names})
