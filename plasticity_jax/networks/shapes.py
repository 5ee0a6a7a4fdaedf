"""Shapes that image networks work out before anything is compiled."""

from plasticity_jax import check
from plasticity_jax.networks.convolution import output_size, pads
from plasticity_jax.networks.layers import units_of

__all__ = ["image_size", "moved", "scaled"]


def scaled(name, units, width, activation="relu", copies="keep"):
    """`units_of` with its checks: units times the width multiplier, rounded, at least 1, or a ValueError.

    >>> scaled("channels", 64, 0.25)
    16
    """
    check.whole(name, units)
    check.fixed("width", width)
    check.positive("width", width)
    return units_of(units, width, activation, copies)


def image_size(input_shape):
    """(H, W) of images [H, W, C], or a ValueError for inputs that are none."""
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(f"input_shape={tuple(input_shape)!r}, but this network reads images [H, W, C].")
    return tuple(input_shape[:2])


def moved(layer, image, window, strides, padding):
    """(H', W') after a window has moved over an image; the ValueError where it does not fit names the layer.

    >>> moved("conv0", (28, 28), (5, 5), (2, 2), "VALID")
    (12, 12)
    """
    try:
        return output_size(image, window, strides, pads(image, window, strides, padding))
    except ValueError as error:
        raise ValueError(f"{layer}: {error}") from error
