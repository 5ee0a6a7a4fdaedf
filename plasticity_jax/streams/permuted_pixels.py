"""The same classification problem behind a new permutation of the pixels at every task.

Letters: N images of the data set, n images of the run, B examples of a batch, P = H * W * C pixels.
"""

import math

import jax
import jax.numpy as jnp

from plasticity_jax.streams.images import Change, image_stream

__all__ = ["permute_pixels", "permuted_pixels"]

PIXELS = 0  # what the key of a task is folded with


def permuted_pixels(
    spec,
    steps: int = 625,
    batch: int = 16,
    images: int = 10_000,
    first_identity: bool = False,
    redraw: bool = False,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Permuted images: Kumar et al. 2023 (Table 1), and Online Permuted MNIST of Dohare et al. 2024.

    Defaults are the sizes of Kumar's Permuted MNIST: 10,000 images, batch 16, 625 steps (one epoch) a task; its code
    (github.com/skumar9876/L2_Init) draws the images anew for each task and leaves the pixels of the first one where
    they are: `redraw=True, first_identity=True`, and pixels are scaled by mean and std 0.5. Dohare's is
    `images=0, batch=1, steps=60_000`: each image of the data set once per task, one at a time. Training and test images
    of a task share its permutation.

    Args:
      spec: shapes of the data.
      first_identity: leave the pixels of the first task where they are.
      redraw: draw the images anew for each task.
      steps, batch, images, order, mean, std, evaluation: as for `image_stream`; raises as it does.

    Returns:
      Stream.
    """
    change = permute_pixels(spec, first_identity)
    return image_stream(spec, change, steps, batch, images, order, mean, std, evaluation, redraw)


def permute_pixels(spec, first_identity: bool = False):
    """Change whose state is a permutation [P] int32: which pixel of the image stands at each place."""
    count = math.prod(spec["train"]["x"].shape[1:])

    def permutation(key):
        return jax.random.permutation(jax.random.fold_in(key, PIXELS), count).astype(jnp.int32)

    def init(key, y):
        return jnp.arange(count, dtype=jnp.int32) if first_identity else permutation(key)

    def apply(pixels, x, y, index, step):
        # after scaling: a channel's mean belongs to the pixel, not to the place
        return x.reshape(x.shape[0], -1)[:, pixels].reshape(x.shape), y

    return Change(init, lambda key, state: permutation(key), apply)
