"""Convolution and its two transposes on CPUs, made of matrix products over blocks of examples that fit into the cache.

Three ways, of which the shapes decide:

- Winograd's minimal filtering (Lavin and Gray 2016, arXiv 1509.09308) for square 3x3 and 5x5 windows at stride 1: tiles
  of 2x2 outputs are taken to a space in which the convolution is a product per point, 16 multiplications instead of 36
  for 3x3, 36 instead of 100 for 5x5. What is exactly 0 by the definition may be rounding noise here.
- Sums over the taps, for windows of few entries: an image of one to three channels.
- Patches: the windows side by side, times the kernel. For all else.

Letters as in convolution.py; m x m outputs of a tile, n = m + h - 1 points of its transform along each axis.
"""

import functools
import math
from fractions import Fraction

import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["forward", "to_images", "to_kernel"]

M = 2  # 4 would multiply less, but its transforms cost more than that saves
POINTS = {3: (0, 1, -1), 5: (0, 1, -1, Fraction(1, 2), -2)}  # of interpolation, beside infinity, for each window
TILES = 512  # of a block: 4 MB of transforms for 64 channels
PATCHES = 2**18  # entries of a block
CHANNELS = 8  # that Winograd needs on both sides to pay its transforms back
SUMMED = 32  # entries of a window up to which a sum of products that fuses beats a matrix product


def forward(x, kernel, geometry):
    """[B, H', W', U]."""
    low = [low for low, _ in geometry.padding]
    padded = [size + sum(pad) for size, pad in zip(geometry.image, geometry.padding, strict=True)]
    size = [(p - h) // s + 1 for p, h, s in zip(padded, geometry.window, geometry.strides, strict=True)]
    return _correlate(x, kernel, geometry.strides, low, size)


def to_images(y, kernel, geometry):
    """[B, H, W, C]: what each tap gives, in one product, summed for each phase of the strides."""
    low = [low for low, _ in geometry.padding]
    if geometry.strides == (1, 1):
        return _back(y, kernel, low, geometry.image)
    (h, w), channels, (rows, columns) = geometry.window, kernel.shape[2], geometry.strides
    size = [-(-(e + p) // s) for e, p, s in zip(geometry.image, low, geometry.strides, strict=True)]

    def images(y):
        taps = y.reshape(-1, y.shape[3]) @ kernel.reshape(-1, kernel.shape[3]).T
        taps = taps.reshape(*y.shape[:3], h, w, channels)

        def phase(row, column):  # which has no taps where the strides are larger than the window
            places = [(i, j) for i in range(row, h, rows) for j in range(column, w, columns)]
            seen = [_window_of(taps[:, :, :, i, j], (-(i // rows), -(j // columns)), size) for i, j in places]
            return sum(seen) if seen else jnp.zeros((len(y), *size, channels), y.dtype)

        x = jnp.stack([jnp.stack([phase(i, j) for j in range(columns)], 3) for i in range(rows)], 2)
        x = x.reshape(len(y), size[0] * rows, size[1] * columns, channels)
        return _window_of(x, low, geometry.image)

    return _over_blocks(images, _examples(PATCHES, *y.shape[1:3], *geometry.window, channels), y)


def to_kernel(x, y, geometry):
    """[h, w, C, U]."""
    low, window, (channels, units) = [low for low, _ in geometry.padding], geometry.window, (x.shape[3], y.shape[3])
    if _suits_winograd(window, geometry.strides, channels, units, x.dtype):
        return _winograd_to_kernel(x, y, window[0], low)

    def products(x, y):
        p = jnp.concatenate(_taps(x, window, geometry.strides, low, y.shape[1:3]), -1)
        return (y.reshape(-1, units).T @ p.reshape(-1, p.shape[-1])).T  # quicker than p.T @ y

    found = _sum_over_blocks(products, _examples(PATCHES, *y.shape[1:3], *window, channels), x, y)
    return found.reshape(*window, channels, units)


def _back(y, kernel, low, size):
    """The convolution at stride 1 that leads back from units to channels: with the kernel mirrored and transposed."""
    kernel, low = kernel[::-1, ::-1], [h - 1 - p for h, p in zip(kernel.shape[:2], low, strict=True)]
    if _suits_winograd(kernel.shape[:2], (1, 1), *kernel.shape[2:], y.dtype):
        return _winograd(y, kernel, low, size, "ptu,pcu->ptc")  # to transpose the kernel takes longer than the product
    return _correlate(y, kernel.swapaxes(2, 3), (1, 1), low, size)


def _correlate(x, kernel, strides, low, size):
    """`size` outputs, the first of which reads from `low` pixels before the image."""
    window, channels, units = kernel.shape[:2], *kernel.shape[2:]
    if _suits_winograd(window, strides, channels, units, x.dtype):
        return _winograd(x, kernel, low, size, "ptc,pcu->ptu")

    def products(x):
        taps = _taps(x, window, strides, low, size)
        if channels < CHANNELS and len(taps) * channels <= SUMMED and _is_wide(x.dtype):
            rows = kernel.reshape(-1, channels, units)
            return sum(tap[..., c, None] * row[c] for tap, row in zip(taps, rows, strict=True) for c in range(channels))
        p = jnp.concatenate(taps, -1)  # what each output reads
        return (p.reshape(-1, p.shape[-1]) @ kernel.reshape(-1, units)).reshape(*p.shape[:3], units)

    return _over_blocks(products, _examples(PATCHES, *size, *window, channels), x)


def _taps(x, window, strides, low, size):
    """For each place in the window, the pixels that the outputs read there: h w arrays [B, H', W', C]."""
    extent = [(count - 1) * s + 1 for count, s in zip(size, strides, strict=True)]
    x = _window_of(x, [-p for p in low], [e + h - 1 for e, h in zip(extent, window, strict=True)])
    return [
        x[:, i : i + extent[0] : strides[0], j : j + extent[1] : strides[1]]
        for i in range(window[0])
        for j in range(window[1])
    ]


# ---- Winograd ----


def _suits_winograd(window, strides, channels, units, dtype):
    """Bits are lost in the transforms, which types of 16 bits cannot spare."""
    return (
        _is_wide(dtype)
        and window[0] == window[1]
        and window[0] in POINTS
        and strides == (1, 1)
        and min(channels, units) >= CHANNELS
    )


@functools.cache
def _transforms(taps):
    """Toom and Cook's matrices: outputs [m, n], kernel [n, taps], inputs [n, n]; out = O ((K k) * (I x))."""
    points = [Fraction(p) for p in POINTS[taps]]
    others = [[q for q in points if q is not p] for p in points]
    outputs = [[p**i for p in points] + [Fraction(i == M - 1)] for i in range(M)]
    kernel = [
        [p**j / math.prod(p - q for q in rest) for j in range(taps)] for p, rest in zip(points, others, strict=True)
    ]
    kernel.append([Fraction(j == taps - 1) for j in range(taps)])
    inputs = [*([*np.poly(rest)[::-1], 0] for rest in others), np.poly(points)[::-1]]
    return tuple(np.array(matrix, float) for matrix in (outputs, kernel, inputs))


def _winograd(x, kernel, low, size, product):
    """`_correlate` at stride 1; `product` says which of the kernel's last two axes is read (p points, t tiles)."""
    taps = kernel.shape[0]
    outputs, kernels, inputs = _transforms(taps)
    n, tiles = len(inputs), [-(-extent // M) for extent in size]
    u = _mix(kernels, [_mix(kernels, list(rows), 0) for rows in kernel.swapaxes(0, 1)], 1)
    u = u.reshape(n * n, *kernel.shape[2:])

    def products(x):
        points = _points(inputs, x, [-p for p in low], tiles)
        y = jnp.einsum(product, points, u)
        units = y.shape[2]
        y = y.reshape(n, n, len(x), *tiles, units)
        y = jnp.stack(_sums(outputs, list(y)), 3)  # [n, B, rows of tiles, m, columns of tiles, U]
        y = jnp.stack(_sums(outputs, list(y)), 4).reshape(len(x), M * tiles[0], M * tiles[1], units)
        return y[:, : size[0], : size[1]]

    return _over_blocks(products, _examples(TILES, *tiles), x)


def _winograd_to_kernel(x, y, taps, low):
    """`to_kernel` at stride 1."""
    outputs, kernels, inputs = _transforms(taps)
    n, tiles = len(inputs), [-(-extent // M) for extent in y.shape[1:3]]

    def products(x, y):
        read = _points(inputs, x, [-p for p in low], tiles)
        written = _points(outputs.T, y, (0, 0), tiles)
        return jnp.einsum("ptc,ptu->pcu", read, written)

    u = _sum_over_blocks(products, _examples(TILES, *tiles), x, y).reshape(n, n, x.shape[3], y.shape[3])

    def row(weights):
        return _mix(kernels.T, [sum(weights[i] * u[i, j] for i in range(n)) for j in range(n)], 0)

    # in a loop, because XLA would compute it anew for each moment of an optimizer (a barrier does not hinder it)
    return lax.map(row, jnp.asarray(kernels.T, u.dtype))


def _points(matrix, x, start, tiles):
    """Tiles of an image, from pixel `start` on, times a matrix [n, tile] along both axes: [n n, tiles of all, C]."""
    n, tile = matrix.shape
    # a pixel more than is read, so that the block is copied: fused with its choice, what follows takes a quarter longer
    x = _window_of(x, start, [M * (count - 1) + tile + 1 for count in tiles])
    ends = [M * (count - 1) + 1 for count in tiles]
    rows = _mix(matrix, [x[:, i : i + ends[0] : M] for i in range(tile)], 0)
    both = _mix(matrix, [rows[:, :, :, j : j + ends[1] : M] for j in range(tile)], 1)
    return both.reshape(n * n, -1, x.shape[3])


def _mix(matrix, parts, axis):
    """The matrix [a, b] times b arrays; the a results stand side by side on a new axis."""
    total = 0
    for column, part in zip(matrix.T, parts, strict=True):
        shape = [-1 if i == axis else 1 for i in range(part.ndim + 1)]
        total += jnp.asarray(column, part.dtype).reshape(shape) * jnp.expand_dims(part, axis)
    return total


def _sums(matrix, parts):
    """The same as a list of results, without terms that are 0: quicker where few are asked for."""
    return [sum(float(c) * part for c, part in zip(row, parts, strict=True) if c) for row in matrix]


def _is_wide(dtype):
    return jnp.finfo(dtype).bits >= 32


# ---- blocks of examples ----


def _examples(entries, *per_example):
    """How many examples are a block."""
    return max(1, entries // math.prod(per_example))


def _over_blocks(f, examples, x):
    """F on blocks of examples, one after another."""
    blocks, rest = _split(examples, x)
    y = [] if blocks is None else [lax.map(f, blocks)]
    y = [block.reshape(-1, *block.shape[2:]) for block in y] + ([] if rest is None else [f(rest)])
    return y[0] if len(y) == 1 else jnp.concatenate(y)


def _sum_over_blocks(f, examples, x, y):
    """The sum of f over blocks of examples, in 32 bits or more."""
    dtype, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    (xs, x), (ys, y) = _split(examples, x), _split(examples, y)
    if xs is None:
        return f(x, y)
    start = jnp.zeros_like(f(xs[0], ys[0])) if x is None else f(x, y)
    return lax.scan(lambda total, pair: (total + f(*pair), None), start.astype(wide), (xs, ys))[0].astype(dtype)


def _split(examples, x):
    """(blocks [count, examples, ...], what is left), either of which may be None."""
    count = len(x) // examples
    if count == 0 or len(x) == examples:
        return None, x
    blocks = x[: count * examples].reshape(count, examples, *x.shape[1:])
    return blocks, x[count * examples :] if len(x) % examples else None


def _window_of(x, start, size):
    """`size` pixels from pixel `start` on; zeros outside the image."""
    edges = [(-s, s + e - have, 0) for s, e, have in zip(start, size, x.shape[1:3], strict=True)]
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
