"""The same classification problem behind a new permutation of the pixels at every task.

Letters: N images of the data set, n images of the run, B examples of a batch, P = H * W * C pixels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.base import Array, Stream
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.streams import order as orders
from plasticity_jax.streams.images import batch_of, check_images, draw_rows, scale

__all__ = ["PermutedPixelsState", "permuted_pixels"]

PIXELS, ORDER = range(2)  # what the key of a task is folded with


class PermutedPixelsState(NamedTuple):
    """One task of one run."""

    rows: Array  # [n] int32 which images of the data set; constant for ever
    pixels: Array  # [P] int32 which pixel of the image stands at each place
    order: Array  # [16] uint32 what this task's shuffles are computed from


def permuted_pixels(
    spec,
    steps: int = 625,
    batch: int = 16,
    images: int = 10_000,
    first_identity: bool = False,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Permuted images: Kumar et al. 2023 (Table 1), and Online Permuted MNIST of Dohare et al. 2024.

    Defaults are Kumar's Permuted MNIST: 10,000 images, batch 16, 625 steps (one epoch) a task. Dohare's is
    `images=0, batch=1, steps=60_000`: each image of the data set once per task, one at a time.

    Args:
      spec: shapes of the data.
      steps: optimizer steps of a task.
      batch: B, at most `images`; 1 is fine.
      images: n, drawn once per run without replacement; 0 takes the whole training set.
      first_identity: leave the pixels of the first task where they are.
      order: "shuffled", "shuffled_ragged" or "independent"; see streams/order.py.
      mean, std: pixels become (x / 255 - mean) / std; one number, or one per channel.
      evaluation: at most so many images of each split are evaluated at a boundary.

    Returns:
      Stream over data {"train": {"x": [N, H, W, C] uint8, "y": [N] int32}, "test": {...}}; training and test images
      of a task share its permutation.

    Raises:
      ValueError: more images than the data set has, a batch that is larger than a task, unknown names.
    """
    images = check_images(images, spec, evaluation, mean, std)
    orders.check_order(order, images, batch, steps)
    draw = orders.ORDERS[order]
    shape = spec["train"]["x"].shape[1:]
    count = shape[0] * shape[1] * shape[2]

    def permutation(key):
        return jax.random.permutation(jax.random.fold_in(key, PIXELS), count).astype(jnp.int32)

    def init(key, data):
        rows = draw_rows(for_step(key, Purpose.STREAM), data, images)
        task_key = for_step(key, Purpose.TASK, 0)
        pixels = jnp.arange(count, dtype=jnp.int32) if first_identity else permutation(task_key)
        return PermutedPixelsState(rows, pixels, orders.words(jax.random.fold_in(task_key, ORDER)))

    def advance(key, state, data):
        return state._replace(pixels=permutation(key), order=orders.words(jax.random.fold_in(key, ORDER)))

    def show(x, pixels):
        x = scale(x, mean, std)  # before it is permuted: a channel's mean belongs to the pixel, not to the place
        return x.reshape(x.shape[0], -1)[:, pixels].reshape(x.shape)

    def sample(key, state, data, step):
        index, weight = draw(state.order, step, images, batch)
        rows = state.rows[index]
        return batch_of(show(data["train"]["x"][rows], state.pixels), data["train"]["y"][rows], weight)

    def evaluate(state, data, split):
        if split == "train":
            rows = state.rows[: min(images, evaluation)]
        else:
            rows = jnp.arange(min(data["test"]["x"].shape[0], evaluation))
        return batch_of(show(data[split]["x"][rows], state.pixels), data[split]["y"][rows])

    return Stream(init, advance, sample, evaluate, lambda task: steps)
