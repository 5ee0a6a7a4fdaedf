"""How sure predictions are, and how far an update moves them: functions of scores [B, ..., C] and their batch.

Scores are `objective.predict`: logits of a softmax head. Classes that do not exist yet, by "classes" [B, C] in the
batch, have no part in what is said of classes. Letters: B inputs, C classes or values.
"""

import jax
import jax.numpy as jnp

from plasticity_jax.learn import weighted_mean

__all__ = ["churn", "churn_distance", "entropy"]


def entropy(scores, batch):
    """Mean over the inputs of -sum_c p_c ln p_c, p the softmax of the scores: [] float32 nats.

    NaN for real-valued targets. A head that regresses on one-hot labels predicts values near 0 and 1, whose entropy is
    close to ln C however sure it is; there only changes of the entropy mean something.

    >>> batch = {"y": jnp.array([0]), "weight": jnp.ones(1)}
    >>> round(float(entropy(jnp.zeros((1, 2)), batch)), 4)
    0.6931
    """
    if not _has_classes(batch):
        return jnp.float32(jnp.nan)
    return weighted_mean(jnp.sum(jax.scipy.special.entr(jax.nn.softmax(_existing(scores, batch))), -1), batch["weight"])


def churn(before, after, batch):
    """Share of the inputs whose highest score is at another class afterwards: [] float32.

    NaN for real-valued targets, and where a score is NaN.

    >>> batch = {"y": jnp.array([0, 0]), "weight": jnp.ones(2)}
    >>> float(churn(jnp.array([[1.0, 0.0], [1.0, 0.0]]), jnp.array([[1.0, 0.0], [0.0, 1.0]]), batch))
    0.5
    """
    if not _has_classes(batch):
        return jnp.float32(jnp.nan)
    before, after = _existing(before, batch), _existing(after, batch)
    changed = jnp.argmax(before, -1) != jnp.argmax(after, -1)
    return weighted_mean(jnp.where(jnp.isnan(before + after).any(-1), jnp.nan, changed), batch["weight"])


def churn_distance(before, after, batch):
    """Mean over inputs and classes of |score after - score before|: [] float32."""
    return weighted_mean(jnp.abs(after - before), batch["weight"])


def _has_classes(batch):
    return jnp.issubdtype(batch["y"].dtype, jnp.integer)


def _existing(scores, batch):
    return jnp.where(batch["classes"], scores, -jnp.inf) if "classes" in batch else scores
