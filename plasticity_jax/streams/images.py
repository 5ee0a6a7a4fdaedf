"""What every stream over images shares: which images a run sees, how they are scaled, what is evaluated.

A stream is an order of examples and a `Change`: what happens to images and labels from task to task. Images stay uint8
on the device and are scaled when a batch is drawn. Letters: N images of the data set, n images of the run, B examples
of a batch, H, W, C height, width, channels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import check
from plasticity_jax.base import Array, PyTree, Stream
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.streams import order as orders

__all__ = ["Change", "ImagesState", "batch_of", "check_images", "draw_rows", "image_stream", "scale"]

ORDER, ROWS = 2, 100  # what the key of a task is folded with for shuffles and images; a change takes other numbers


class Change(NamedTuple):
    """One kind of non-stationarity: pure functions, written for one run."""

    init: Callable  # (key, y) -> state               the first task; y [n] the data set's labels of the run's images
    advance: Callable  # (key, state) -> state        the next task
    apply: Callable  # (state, x, y, index, step) -> (x, y)   index [B]: number of the image; step: of the task
    by_image: bool = False  # it draws something for each image of the run, and so says nothing of a test set
    outputs: int = 0  # values that it makes of a label; 0: labels stay classes of the data


class ImagesState(NamedTuple):
    """One task of one run."""

    rows: Array  # [n] int32 which images of the data set
    change: PyTree  # what the change has drawn
    order: Array  # [16] uint32 what this task's shuffles are computed from


def image_stream(spec, change, steps, batch, images, order, mean, std, evaluation, redraw=False):
    """A stream over fixed images of which a `Change` makes the tasks.

    Args:
      spec: shapes of the data.
      change: Change.
      steps: optimizer steps of a task.
      batch: B, at most `images`; 1 is fine.
      images: n, drawn once per run without replacement from the training set; 0 takes the whole of it.
      order: "shuffled", "shuffled_ragged" or "independent"; see streams/order.py.
      mean, std: pixels become (x / 255 - mean) / std; one number, or one per channel.
      evaluation: at most so many images of each split are evaluated at a boundary, as they are at the task's end; which
        ones is the same for all runs and tasks where they are fewer than there are.
      redraw: draw the images anew for each task; the change must draw nothing for each image.

    Returns:
      Stream over data {"train": {"x": [N, H, W, C] uint8, "y": [N] int32}, "test": {...}}.

    Raises:
      ValueError: more images than the data set has, a batch that is larger than a task, unknown names.
    """
    images = check_images(images, spec, evaluation, mean, std)
    orders.check_order(order, images, batch, steps)
    draw = orders.ORDERS[order]

    def init(key, data):
        rows = draw_rows(for_step(key, Purpose.STREAM), data, images)
        task_key = for_step(key, Purpose.TASK, 0)
        own = data["train"]["y"][rows].astype(jnp.int32)
        return ImagesState(rows, change.init(task_key, own), orders.words(jax.random.fold_in(task_key, ORDER)))

    def advance(key, state, data):
        words = orders.words(jax.random.fold_in(key, ORDER))
        rows = draw_rows(jax.random.fold_in(key, ROWS), data, images) if redraw else state.rows
        return ImagesState(rows, change.advance(key, state.change), words)

    def show(part, rows, index, change_state, step):
        x = scale(part["x"][rows], mean, std)
        return change.apply(change_state, x, part["y"][rows].astype(jnp.int32), index, step)

    def sample(key, state, data, step):
        index, weight = draw(state.order, step, images, batch)
        return batch_of(*show(data["train"], state.rows[index], index, state.change, step), weight)

    def evaluate(state, data, split):
        has_test = split == "train" or not change.by_image
        index = orders.mixed(images, min(images, evaluation))
        part, rows = data["train"], state.rows[index]
        if split == "test" and has_test:
            count = data["test"]["x"].shape[0]
            part, rows = data["test"], orders.mixed(count, min(count, evaluation))
            index = images + rows  # an image's number: those of the test set come after those of the run
        rows, index = (rows, index) if has_test else (rows[:1], index[:1])  # an image of weight 0
        weight = jnp.full(len(rows), float(has_test))
        return batch_of(*show(part, rows, index, state.change, jnp.int32(steps)), weight)

    return Stream(init, advance, sample, evaluate, lambda task: steps, change.outputs or spec["classes"])


def draw_rows(key, data, images):
    """Which training images a run sees: [n] int32 distinct rows; all of them, in their own order, where images = N."""
    total = data["train"]["x"].shape[0]
    if images == total:
        return jnp.arange(total, dtype=jnp.int32)
    return jax.random.permutation(key, total)[:images].astype(jnp.int32)


def scale(x, mean, std):
    """(x / 255 - mean) / std: uint8 to float32. `mean` and `std` are numbers, or one number per channel."""
    mean, std = jnp.asarray(mean, jnp.float32), jnp.asarray(std, jnp.float32)
    return x.astype(jnp.float32) * (1.0 / (255.0 * std)) - mean / std


def batch_of(x, y, weight=None):
    """A batch: dict of "x" [B, H, W, C] float32, "y" [B] or [B, K], "weight" [B] float32 (ones by default)."""
    return {"x": x, "y": y, "weight": jnp.ones(x.shape[0]) if weight is None else weight}


def check_images(images, spec, evaluation, mean, std):
    """The number of images that a run sees: `images`, or all of them where it is 0."""
    total = spec["train"]["x"].shape[0]
    for part in ("train", "test"):
        if spec[part]["x"].dtype != np.uint8:
            raise ValueError(
                f"The {part} images are {spec[part]['x'].dtype}, but they must be uint8, 0 to 255: streams scale them."
            )
    check.whole("images", images, low=0)
    if images > total:
        raise ValueError(f"images={images}, but the data set has {total} training images: choose at most {total}.")
    check.whole("evaluation", evaluation)
    channels = spec["train"]["x"].shape[-1]
    for name, values in (("mean", mean), ("std", std)):
        if isinstance(values, (tuple, list)) and len(values) != channels:
            raise ValueError(f"{name} has {len(values)} entries, but the images have {channels} channels.")
    for value in mean if isinstance(mean, (tuple, list)) else (mean,):
        check.finite("mean", value)
    for value in std if isinstance(std, (tuple, list)) else (std,):
        check.positive("std", value)
    return images or total
