"""Heads: how many outputs a problem asks of a network, and the objective that reads them.

Letters: B examples, K classes or values to predict, N bins. Every regression head takes labels [B] of whole numbers,
whose targets are one-hot, or targets [B, K].
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import check
from plasticity_jax.base import Objective

__all__ = [
    "HEADS",
    "Head",
    "c51_head",
    "dueling_head",
    "hl_gauss_head",
    "linear_head",
    "project",
    "softmax_head",
    "two_hot_head",
]


class Head(NamedTuple):
    """What a network must output, and what is made of it."""

    outputs: int
    objective: Objective  # of the job
    regression: Objective  # onto targets [B, K] with the same outputs: what the plasticity probes fit
    span: float = math.inf  # from the lowest value that `regression` can predict to the highest


def softmax_head(spec, smoothing: float = 0.0):
    """Classification: cross-entropy of K logits against an integer label, in nats.

    With smoothing s the target is 1 - s + s / K at the label and s / K elsewhere, so that the loss is
    (1 - s) (-log p_label) + s mean_k (-log p_k). Szegedy et al. 2016 (arXiv 1512.00567), section 7.

    Where the batch carries "classes" [B, K] bool, the others do not exist: p and the mean are over those that do.

    Args:
      spec: shapes of the data; "classes" is K.
      smoothing: 0 to below 1.

    Returns:
      Head with K outputs; `predict` gives the logits [B, K]. Its regression fits the logits by least squares.

    Raises:
      ValueError: smoothing outside 0 to below 1; when traced, targets that are no class numbers.
    """
    check.fraction("smoothing", smoothing)

    def loss(outputs, batch):
        if not jnp.issubdtype(batch["y"].dtype, jnp.integer):
            raise ValueError("The stream has real-valued targets, the head softmax is for classes: use head linear.")
        exist = batch.get("classes")  # None: all
        logits = outputs.y if exist is None else jnp.where(exist, outputs.y, -jnp.inf)
        at_label = optax.softmax_cross_entropy_with_integer_labels(logits, batch["y"])  # [B]
        if _is_off(smoothing):
            return at_label
        return (1 - smoothing) * at_label - smoothing * jnp.mean(jax.nn.log_softmax(logits), -1, where=exist)

    return linear_head(spec)._replace(objective=Objective(loss, lambda outputs: outputs.y))


def linear_head(spec):
    """Regression onto the one-hot label, or onto targets [B, K]: squared error, mean over the K outputs.

    Head with K outputs; `predict` gives them, [B, K].
    """
    return _regression(spec["classes"], spec["classes"], lambda y: y)


def dueling_head(spec):
    """Regression with a shared value v and advantages a: q_k = v + a_k - mean_j a_j, squared error as for `linear`.

    The network's K + 1 outputs are v and a_1 ... a_K, all read from its last hidden layer, so that it fits every
    network. Wang et al. 2016 (arXiv 1511.06581), equation 9, whose two streams have a hidden layer each before they are
    joined; here they share all hidden layers.

    Args:
      spec: shapes of the data; "classes" is K.

    Returns:
      Head with K + 1 outputs; `predict` gives q [B, K].
    """

    def values(y):
        advantages = y[:, 1:]
        return y[:, :1] + advantages - jnp.mean(advantages, -1, keepdims=True)

    return _regression(spec["classes"] + 1, spec["classes"], values)


def two_hot_head(spec, bins: int = 61, low: float = -1.0, high: float = 2.0, smoothing: float = 0.0):
    """Regression as classification: each value's mass lies on the two bins beside it, so that its mean is the value.

    With bins at z_n = low + n d, d = (high - low) / (N - 1), and a target t (moved into [low, high] where it lies
    outside) the target distribution is q_n = max(0, 1 - |t - z_n| / d). The loss is the cross-entropy of the softmax p
    of N logits against q, in nats, mean over the K values; the prediction is sum_n p_n z_n.

    Args:
      spec: shapes of the data; "classes" is K.
      bins: N, 2 or more.
      low, high: of the range. The default suits one-hot targets: 0 and 1 are bins, 0.05 apart from the next, with 20
        more bins on either side, which the targets of the plasticity probe need: they lie within 1 of the mean
        prediction. Values of a reward problem need a range that covers them.
      smoothing: s; the target distribution becomes (1 - s) q + s / N (Lyle et al. 2024, arXiv 2402.18762).

    Returns:
      Head with K N outputs, the bins of a value side by side; `predict` gives the means [B, K]. Its regression has no
      smoothing, which would keep the means away from the targets.

    Raises:
      ValueError: fewer than 2 bins, a range that is empty, smoothing outside 0 to below 1.

    Lyle et al. 2023 (arXiv 2303.01486), section 6.2, give neither bins nor range; the name and encoding are those of
    MuZero (Schrittwieser et al. 2020, arXiv 1911.08265, appendix F).
    """
    support = _support(bins, low, high)
    encoded = functools.partial(_two_hot, bins=bins, low=low, high=high)
    return _categorical(spec["classes"], support, smoothing, encoded, high - low)


def hl_gauss_head(
    spec, bins: int = 61, low: float = -1.0, high: float = 2.0, spread: float = 0.75, smoothing: float = 0.0
):
    """Regression as classification onto a normal distribution around the target, cut off at the range.

    The N bins are the intervals of width d = (high - low) / N between the edges e_0 = low ... e_N = high. With F the
    distribution function of N(t, (spread d)^2), the target is q_n = (F(e_{n+1}) - F(e_n)) / (F(e_N) - F(e_0)). Loss and
    prediction as for `two_hot`, with the centres of the bins for z.

    Args:
      spec, bins, low, high, smoothing: as for `two_hot`.
      spread: deviation in widths of a bin, positive.

    Returns:
      Head with K N outputs; `predict` gives the means [B, K].

    Imani and White 2018 (arXiv 1806.04613); spread 0.75 is the choice of Farebrother et al. 2024 (arXiv 2403.03950).
    """
    centres = _support(bins, low, high, centres=True)
    check.positive("spread", spread)
    width = (high - low) / bins
    edges = low + width * jnp.arange(bins + 1)

    def distribution(target):
        z = (edges - jnp.clip(target, low, high)[..., None]) / (spread * width)
        below = jax.scipy.special.ndtr(z)
        return jnp.diff(below) / (below[..., -1:] - below[..., :1])

    return _categorical(spec["classes"], centres, smoothing, distribution, high - low - width)


def c51_head(spec, bins: int = 61, low: float = -1.0, high: float = 2.0, smoothing: float = 0.0):
    """Categorical values after Bellemare et al. 2017 (arXiv 1707.06887), algorithm 1.

    Where the batch carries a target distribution, "atoms" [B, K, M] (such as r + gamma z) and "probabilities"
    [B, K, M], it is projected onto the bins (`project`). A target that is a number is a distribution of one atom, whose
    projection is its two-hot encoding: without atoms this head is `two_hot`.

    Args:
      spec, bins, low, high, smoothing: as for `two_hot`; the paper has 51 bins from -10 to 10 for clipped rewards.

    Returns:
      Head with K N outputs; `predict` gives the means [B, K].
    """
    support = _support(bins, low, high)
    encoded = functools.partial(_two_hot, bins=bins, low=low, high=high)
    return _categorical(spec["classes"], support, smoothing, encoded, high - low, projects=True)


def project(atoms, probabilities, bins, low, high):
    """C51's projection: the mass of every atom goes to the two bins beside it, in proportion to their nearness.

    Args:
      atoms: [..., M] values; those outside the range are moved to its ends.
      probabilities: [..., M].
      bins, low, high: N bins at equal distances, the first at `low` and the last at `high`.

    Returns:
      [..., N] probabilities. The mean of a distribution inside the range is unchanged.

    >>> project(jnp.array([0.25, 5.0]), jnp.array([0.5, 0.5]), 3, 0.0, 2.0).tolist()
    [0.375, 0.125, 0.5]
    """
    return _projected(probabilities, _two_hot(atoms, bins, low, high))


def _projected(probabilities, encoded):
    return jnp.einsum("...m,...mn->...n", probabilities, encoded)


HEADS = {
    "linear": linear_head,
    "softmax": softmax_head,
    "two_hot": two_hot_head,
    "hl_gauss": hl_gauss_head,
    "c51": c51_head,
    "dueling": dueling_head,
}


def _targets(batch, size):
    """[B, K]: the labels' one-hot vectors, or the targets themselves. Raises ValueError where y is neither."""
    y = batch["y"]
    if y.ndim == 1 and jnp.issubdtype(y.dtype, jnp.integer):
        return jax.nn.one_hot(y, size)
    if y.ndim != 2 or y.shape[1] != size:
        raise ValueError(
            f"y has the shape {y.shape} and the type {y.dtype}: give labels [B] of whole numbers, or targets "
            f"[B, {size}], which has one column for each of the {size} values."
        )
    return y


def _regression(outputs, size, values):
    """A head whose `values(y)` [B, K] are fitted by least squares."""

    def loss(outputs, batch):
        return jnp.mean((values(outputs.y) - _targets(batch, size)) ** 2, -1)  # [B]

    objective = Objective(loss, lambda outputs: values(outputs.y))
    return Head(outputs, objective, objective)


def _categorical(size, support, smoothing, distribution, span, projects=False):
    """A head with one softmax over the support for each of K values; distribution(target) [..., N]."""
    check.fraction("smoothing", smoothing)
    bins = support.shape[0]

    def logits(outputs):
        return outputs.y.reshape(-1, size, bins)

    def cross_entropy(outputs, q):
        return -jnp.mean(jnp.sum(q * jax.nn.log_softmax(logits(outputs)), -1), -1)  # [B]

    def loss(outputs, batch):
        if projects and "atoms" in batch:
            q = _projected(batch["probabilities"], distribution(batch["atoms"]))
        else:
            q = distribution(_targets(batch, size))  # [B, K, N]
        return cross_entropy(outputs, (1 - smoothing) * q + smoothing / bins)

    def regression(outputs, batch):
        return cross_entropy(outputs, distribution(_targets(batch, size)))

    def predict(outputs):
        return jax.nn.softmax(logits(outputs)) @ support

    return Head(size * bins, Objective(loss, predict), Objective(regression, predict), span)


def _support(bins, low, high, centres=False):
    """[N] float32: bins from `low` to `high`, or the centres of as many intervals between them."""
    check.whole("bins", bins, low=2)
    check.finite("low", low)
    check.finite("high", high)
    check.positive("high - low", high - low)
    if centres:
        return low + (high - low) / bins * (jnp.arange(bins) + 0.5)
    return low + (high - low) / (bins - 1) * jnp.arange(bins)


def _two_hot(target, bins, low, high):
    """[..., N] for targets [...]: 1 at a bin, falling linearly to 0 at its neighbours. Sums to 1 wherever the range."""
    place = (jnp.clip(target, low, high) - low) * ((bins - 1) / (high - low))
    return jnp.maximum(0.0, 1.0 - jnp.abs(place[..., None] - jnp.arange(bins)))


def _is_off(smoothing):
    return isinstance(smoothing, float) and smoothing == 0.0
