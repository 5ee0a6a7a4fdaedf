"""Regression onto targets that lie far from zero, or ever farther: a cause of plasticity loss in Lyle et al. 2024.

Letters: n images of the run, B examples of a batch, K values per image, C classes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Array
from plasticity_jax.streams.images import Change, image_stream

__all__ = ["draw_targets", "target_offset"]

TARGETS = 0  # what the key of a task is folded with


class Targets(NamedTuple):
    """What stands beside the offset of a task."""

    task: Array  # [] int32
    noise: Array  # [n, K] float32; [n, 0] where the labels take its place


def target_offset(
    spec,
    steps: int = 10_000,
    batch: int = 16,
    images: int = 1_000,
    values: int = 1,
    offset: float = 10.0,
    growth: float = 0.0,
    scale: float = 1.0,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Random targets with an offset: y_i = c_t + e_i, with e_i ~ N(0, scale^2) in each value, drawn anew by task.

    The offset of task t is c_t = offset + growth t: stationary for a growth of 0. Lyle et al. 2024 (arXiv 2402.18762)
    train on f(x) = c + e(x) with c up to 100, then on new targets, on MNIST and CIFAR images; distribution, sizes and
    number of values are our choice. Use it with a head of regression, such as `linear`.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      values: K per image; 0: the one-hot label [C] of the image stands in the place of the normal numbers,
        y_i = c_t + scale onehot_i, so that there is a test set and only the offset changes.
      offset: of the first task.
      growth: offset that each task adds, 0 or more.
      scale: of what must be learned, positive.
      steps, batch, images, order, mean, std, evaluation: as for `image_stream`; raises as it does.

    Returns:
      Stream whose batches have "y" [B, K] float32.

    Raises:
      ValueError: a negative number of values, a growth that is negative, a scale that is not positive.
    """
    change = draw_targets(spec, values, offset, growth, scale)
    return image_stream(spec, change, steps, batch, images, order, mean, std, evaluation)


def draw_targets(spec, values: int = 1, offset: float = 10.0, growth: float = 0.0, scale: float = 1.0):
    """Change that makes values of labels; its state is `Targets`, its settings are those of `target_offset`."""
    check.whole("values", values, low=0)
    check.finite("offset", offset)
    check.at_least("growth", growth, 0.0)
    check.positive("scale", scale)
    outputs = values or spec["classes"]

    def draw(key, images):
        return jax.random.normal(jax.random.fold_in(key, TARGETS), (images, values))

    def apply(state, x, y, index, step):
        signal = state.noise[index] if values else jax.nn.one_hot(y, outputs)
        return x, offset + growth * state.task + scale * signal

    return Change(
        init=lambda key, y: Targets(jnp.int32(0), draw(key, len(y))),
        advance=lambda key, state: Targets(state.task + 1, draw(key, len(state.noise))),
        apply=apply,
        by_image=values > 0,
        outputs=outputs,
    )
