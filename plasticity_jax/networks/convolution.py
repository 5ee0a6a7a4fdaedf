"""Two-dimensional convolution that is fast on CPUs also under a seed axis and inside a scan, and pooling.

XLA's convolution for CPUs is 15 to 50 times slower than it need be where it stands inside a loop or has one kernel per
seed. There, `conv` is made of matrix products (convolution_cpu.py); on GPU and TPU it is `lax.conv_general_dilated`.

A convolution is linear in the images and in the kernel, and so are its two transposes. The three are primitives whose
derivatives are each other, so that a gradient or a Hessian product of any order runs the same code as a value.

Letters: B examples, H x W pixels, C channels that are read, U units that are written, h x w taps of the kernel.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from plasticity_jax import check
from plasticity_jax.networks import convolution_cpu as cpu

__all__ = ["Geometry", "average_pool", "conv", "max_pool"]

LAYOUT = ("NHWC", "HWIO", "NHWC")


class Geometry(NamedTuple):
    """All that is static about a convolution.

    Attributes:
      strides: (rows, columns) from one output to the next.
      padding: ((above, below), (left, right)) rows and columns of zeros.
      image: (H, W) of the input.
      window: (h, w) of the kernel.
      precision: of the products, on backends that know more than one.
    """

    strides: tuple
    padding: tuple
    image: tuple
    window: tuple
    precision: str | None


def conv(x, kernel, strides=(1, 1), padding="SAME"):
    """Cross-correlation, as networks mean by convolution: the numbers of `lax.conv_general_dilated` to 1e-5.

    Args:
      x: [B, H, W, C].
      kernel: [h, w, C, U].
      strides: (rows, columns).
      padding: "SAME", "VALID", or ((above, below), (left, right)).

    Returns:
      [B, H', W', U].

    Raises:
      ValueError: shapes that do not fit, strides below 1, an image too small for the window, whole numbers.
    """
    for stride in strides:
        check.whole("strides", stride)
    image, window, strides = x.shape[1:3], kernel.shape[:2], tuple(strides)
    if x.shape[3] != kernel.shape[2]:
        raise ValueError(f"The kernel reads {kernel.shape[2]} channels, but the images have {x.shape[3]}.")
    padding = pads(image, window, strides, padding)
    output_size(image, window, strides, padding)
    geometry = Geometry(strides, padding, image, window, jax.config.jax_default_matmul_precision)
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    dtype = jnp.result_type(x, kernel)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"Images and kernel are of the type {dtype}: convert them to floats first.")
    return forward_p.bind(x.astype(dtype), kernel.astype(dtype), geometry=geometry)


def pads(image, window, strides, padding):
    """((above, below), (left, right)) for "SAME", "VALID" or pairs."""
    if isinstance(padding, str):
        check.known("padding", padding, ("SAME", "VALID"))
        padding = lax.padtype_to_pads(image, window, strides, padding)
    return tuple((int(low), int(high)) for low, high in padding)


def output_size(image, window, strides, padding):
    """(H', W'), or a ValueError where the window does not fit into the padded image."""
    padded = [size + low + high for size, (low, high) in zip(image, padding, strict=True)]
    if any(size < taps for size, taps in zip(padded, window, strict=True)):
        raise ValueError(
            f"A window of {window[0]} x {window[1]} does not fit into images of {padded[0]} x {padded[1]} (padding "
            "included): use fewer or smaller windows, smaller strides, or padding SAME."
        )
    return tuple((size - taps) // stride + 1 for size, taps, stride in zip(padded, window, strides, strict=True))


def _forward(x, kernel, geometry):
    """Y [B, H', W', U] of images x and a kernel."""
    return lax.conv_general_dilated(
        x,
        kernel,
        geometry.strides,
        geometry.padding,
        dimension_numbers=LAYOUT,
        precision=geometry.precision,
    )


def _to_images(y, kernel, geometry):
    """The transpose in the images: [B, H, W, C]."""
    x = jax.ShapeDtypeStruct((y.shape[0], *geometry.image, kernel.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: _forward(x, kernel, geometry), x)(y)[0]


def _to_kernel(x, y, geometry):
    """The transpose in the kernel: [h, w, C, U]."""
    kernel = jax.ShapeDtypeStruct((*geometry.window, x.shape[3], y.shape[3]), x.dtype)
    return jax.linear_transpose(lambda kernel: _forward(x, kernel, geometry), kernel)(y)[0]


def _primitive(name, native, on_cpu):
    """A primitive that XLA's convolution computes, and on CPUs our own."""

    def compute(a, b, *, geometry):
        ours, xla = (functools.partial(f, geometry=geometry) for f in (on_cpu, native))
        return lax.platform_dependent(a, b, cpu=ours, default=xla)

    def batch(operands, axes, *, geometry):
        return jax.vmap(functools.partial(compute, geometry=geometry), axes)(*operands), 0

    def shape(a, b, *, geometry):
        like = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (a, b))
        out = jax.eval_shape(functools.partial(native, geometry=geometry), *like)
        return jax.core.ShapedArray(out.shape, out.dtype)

    p = Primitive(name)
    p.def_impl(jax.jit(compute, static_argnames="geometry"))
    p.def_abstract_eval(shape)
    mlir.register_lowering(p, mlir.lower_fun(compute, multiple_results=False))
    batching.primitive_batchers[p] = batch
    return p


forward_p = _primitive("conv", _forward, cpu.forward)
to_images_p = _primitive("conv_to_images", _to_images, cpu.to_images)
to_kernel_p = _primitive("conv_to_kernel", _to_kernel, cpu.to_kernel)


# each is given the cotangent of the result and the operand that stays
ad.defbilinear(
    forward_p,
    lambda y, x, kernel, **g: to_images_p.bind(y, kernel, **g),
    lambda y, x, kernel, **g: to_kernel_p.bind(x, y, **g),
)
ad.defbilinear(
    to_images_p,
    lambda x, y, kernel, **g: forward_p.bind(x, kernel, **g),
    lambda x, y, kernel, **g: to_kernel_p.bind(x, y, **g),
)
ad.defbilinear(
    to_kernel_p,
    lambda kernel, x, y, **g: to_images_p.bind(y, kernel, **g),
    lambda kernel, x, y, **g: forward_p.bind(x, kernel, **g),
)


def max_pool(x, window=(2, 2), strides=None, padding="VALID"):
    """The maximum over each window; `strides` None: the window. [B, H, W, C] -> [B, H', W', C]."""
    return functools.reduce(jnp.maximum, _windows(x, window, strides, padding, -jnp.inf))


def average_pool(x, window=(2, 2), strides=None, padding="VALID"):
    """The mean over each window, zeros of the padding included; arguments as for `max_pool`."""
    return sum(_windows(x, window, strides, padding, 0.0)) / (window[0] * window[1])


def _windows(x, window, strides, padding, fill):
    """One array for each place in the window: slices fuse and differentiate twice, reduce_window does not."""
    strides = tuple(strides or window)
    padding = pads(x.shape[1:3], window, strides, padding)
    rows, columns = output_size(x.shape[1:3], window, strides, padding)
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=fill)
    ends = (rows - 1) * strides[0] + 1, (columns - 1) * strides[1] + 1
    return [
        x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]
