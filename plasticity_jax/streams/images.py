"""What every stream over images shares: which images a run sees, how they are scaled, what is evaluated.

Images stay uint8 on the device and are scaled when a batch is drawn. Letters: N images of the data set, n images of
the run, B examples of a batch, H, W, C height, width, channels.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import check

__all__ = ["batch_of", "check_images", "draw_rows", "scale"]


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
    """A batch: dict of "x" [B, H, W, C] float32, "y" [B], "weight" [B] float32 (ones by default)."""
    return {"x": x, "y": y, "weight": jnp.ones(x.shape[0]) if weight is None else weight}


def check_images(images, spec, evaluation, mean, std):
    """The number of images that a run sees: `images`, or all of them where it is 0."""
    total = spec["train"]["x"].shape[0]
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
