"""Random flips, crops and rotations of training images.

Letters: B examples of a batch, H, W, C height, width, channels.
"""

import jax
import jax.numpy as jnp

__all__ = ["PAD", "augment"]

PAD = 4  # pixels
FLIP, CROP, ROTATION = range(3)  # what the key is folded with


def augment(key, x, pad: int = PAD, degrees: float = 15.0):
    """Each image flipped left to right or not, then shifted, then rotated, as in the CIFAR-100 of Dohare et al. 2024.

    The shift is a crop of H x W out of the image reflected by `pad` pixels at its borders, every place equally likely.
    The rotation, about the centre and counterclockwise, is by an angle uniform in [0, degrees). A pixel takes the
    nearest one to where it comes from, and 0 where that is outside: the mean, where images are normalised. All three
    are one look-up. The source names the three; that a rotation takes the nearest pixel is our choice.

    Args:
      key: one for each step; the draws of the examples are independent.
      x: [B, H, W, C], scaled.
      pad: pixels, below H and W.
      degrees: of the largest rotation.

    Returns:
      [B, H, W, C].

    >>> augment(jax.random.key(0), jnp.ones((2, 8, 8, 3)), pad=2, degrees=0.0).min().item()
    1.0
    """
    size, height, width = x.shape[:3]
    flip = jax.random.bernoulli(jax.random.fold_in(key, FLIP), 0.5, (size,))
    shift = jax.random.randint(jax.random.fold_in(key, CROP), (size, 2), -pad, pad + 1)
    angle = jnp.deg2rad(degrees) * jax.random.uniform(jax.random.fold_in(key, ROTATION), (size,))

    def one(x, flip, shift, angle):
        row, column = jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")
        row, column = _rotated(row, column, angle)
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        row, column = _reflected(row + shift[0], height), _reflected(column + shift[1], width)
        column = jnp.where(flip, width - 1 - column, column)
        return jnp.where(inside[..., None], x[row, column], 0.0)

    return jax.vmap(one)(x, flip, shift, angle)


def _rotated(row, column, angle):
    """Which pixel each one shows when the image is rotated; rows count downwards."""
    y, x = row - (row.shape[0] - 1) / 2, column - (row.shape[1] - 1) / 2
    back_y, back_x = y * jnp.cos(angle) + x * jnp.sin(angle), x * jnp.cos(angle) - y * jnp.sin(angle)
    return (
        jnp.round(back_y + (row.shape[0] - 1) / 2).astype(jnp.int32),
        jnp.round(back_x + (row.shape[1] - 1) / 2).astype(jnp.int32),
    )


def _reflected(index, size):
    """Indices beyond the borders, mirrored at the outermost pixel."""
    index = jnp.abs(index)
    return jnp.where(index >= size, 2 * (size - 1) - index, index)
