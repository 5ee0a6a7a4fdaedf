"""Images that drift away from what they were: more noise, less contrast or a rotation from task to task.

Letters: B examples of a batch, H, W, C height, width, channels, P = H * W * C pixels.
"""

import itertools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Array
from plasticity_jax.streams import order as orders
from plasticity_jax.streams.images import Change, image_stream

__all__ = ["drift", "input_drift"]

NOISE = 0  # what the key of the first task is folded with


class Drift(NamedTuple):
    """How far a run has come."""

    task: Array  # [] int32
    words: Array  # [16] uint32 what the noise of every image is computed from


def input_drift(
    spec,
    steps: int = 2_000,
    batch: int = 16,
    images: int = 0,
    kind: str = "rotation",
    severity: float = 0.0,
    growth: float = 0.2,
    inside: bool = False,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Inputs that change gradually while their labels stay: x_t = f(x, s_t), with a severity s_t that grows by task.

    The severity of task t is s_t = severity + growth t; with `inside` it is severity + growth (t + i / steps) at step
    i, so that nothing jumps at a boundary. f acts on scaled pixels, on training and test images alike:

      noise     f(x, s) = x + s z_i, where z_i ~ N(0, 1) for each pixel, once per run for each image i: every training
                and test image has its own
      contrast  f(x, s) = m + exp(-s) (x - m), where m is the mean pixel of the image in each channel
      rotation  f(x, s) = x turned by s radians around the middle of the image, interpolated linearly between pixels;
                what comes in from outside repeats the nearest pixel of the border

    The three kinds, their scales and the defaults are our choice: gradual drift is a problem of the field (Lyle et al.
    2024, arXiv 2402.18762, speak of input transformations) without a common definition.

    Args:
      spec: shapes of the data.
      kind: "noise", "contrast" or "rotation".
      severity: of the first task, 0 or more: deviations of noise in units of a scaled pixel, nats of contrast, radians.
      growth: severity that each task adds, 0 or more.
      inside: let it grow evenly inside a task as well.
      steps, batch, images, order, mean, std, evaluation: as for `image_stream`; raises as it does.

    Returns:
      Stream.

    Raises:
      ValueError: an unknown kind, a negative severity or growth.
    """
    change = drift(steps, kind, severity, growth, inside)
    return image_stream(spec, change, steps, batch, images, order, mean, std, evaluation)


def drift(steps, kind: str = "rotation", severity: float = 0.0, growth: float = 0.2, inside: bool = False):
    """Change whose state is a `Drift`; the settings are those of `input_drift`."""
    check.known("kind", kind, KINDS)
    check.at_least("severity", severity, 0.0)
    check.at_least("growth", growth, 0.0)

    def init(key, y):
        return Drift(jnp.int32(0), orders.words(jax.random.fold_in(key, NOISE)))

    def apply(state, x, y, index, step):
        now = state.task + step / steps if inside else state.task
        return KINDS[kind](x, severity + growth * now, state.words, index), y

    return Change(init, lambda key, state: state._replace(task=state.task + 1), apply)


def _add_noise(x, severity, words, index):
    """Normal numbers that are computed from the number of the image and of the pixel, and so need not be kept."""
    pixels = math.prod(x.shape[1:])
    place = index.astype(jnp.uint32)[:, None] * jnp.uint32(pixels) + jnp.arange(pixels, dtype=jnp.uint32)  # [B, P]
    bits = orders.scrambled(words[:4], place)
    between = ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-22 - 1.0  # uniform, of 23 bits: -1 and 1 are left out
    return x + severity * math.sqrt(2.0) * jax.lax.erf_inv(between).reshape(x.shape)


def _lower_contrast(x, severity, words, index):
    middle = jnp.mean(x, (1, 2), keepdims=True)  # [B, 1, 1, C]
    return middle + jnp.exp(-severity) * (x - middle)


def _rotate(x, severity, words, index):
    _, height, width, channels = x.shape
    rows, columns = jnp.arange(height) - (height - 1) / 2, jnp.arange(width) - (width - 1) / 2
    rows, columns = jnp.meshgrid(rows, columns, indexing="ij")  # [H, W] of the new image, from its middle
    cosine, sine = jnp.cos(severity), jnp.sin(severity)
    row = jnp.clip(cosine * rows + sine * columns + (height - 1) / 2, 0, height - 1)  # of the old image
    column = jnp.clip(cosine * columns - sine * rows + (width - 1) / 2, 0, width - 1)
    # pixels first, images last, so that each of the four neighbours is a copy of whole rows: twice as fast on CPUs
    pixels = jnp.moveaxis(x, 0, -1).reshape(height * width, -1)  # [H W, C B]
    turned = jnp.zeros_like(pixels)
    for down, right in itertools.product((0, 1), repeat=2):
        near_row, near_column = jnp.floor(row) + down, jnp.floor(column) + right
        weight = (1 - jnp.abs(row - near_row)) * (1 - jnp.abs(column - near_column))  # 0 for a neighbour outside
        place = jnp.minimum(near_row, height - 1) * width + jnp.minimum(near_column, width - 1)
        turned += weight.reshape(-1, 1) * pixels[place.astype(int).ravel()]
    return jnp.moveaxis(turned.reshape(height, width, channels, -1), -1, 0)


KINDS = {"noise": _add_noise, "contrast": _lower_contrast, "rotation": _rotate}
