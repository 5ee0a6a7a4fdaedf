"""Convolutional networks without skip connections: convolutions, each perhaps pooled, then dense layers.

Letters: B examples, H x W pixels, C channels, U units of a layer.
"""

import math
from typing import NamedTuple

import flax.linen as nn
from flax.core import FrozenDict

from plasticity_jax import check
from plasticity_jax.base import Network, Outputs, Wire
from plasticity_jax.networks.activations import BOUNDS, COPIES, Activation
from plasticity_jax.networks.convolution import average_pool, max_pool
from plasticity_jax.networks.initialisers import kernel_initialiser, output_initialiser
from plasticity_jax.networks.layers import (
    Conv,
    Dense,
    Norm,
    check_layers,
    has_bias,
    layer_writes,
    matched,
    norm_writes,
    special_weights,
)
from plasticity_jax.networks.record import pure
from plasticity_jax.networks.shapes import image_size, moved, scaled

__all__ = ["PRESETS", "cnn", "max_pooled"]

_VALID = {"strides": 1, "padding": "VALID", "pool_window": 2, "pool_stride": 2}
_LECUN = {"kernel_init": "lecun_normal", "bias_init": "zeros"}
_TORCH = {"kernel_init": "torch", "bias_init": "torch"}
PRESETS = {
    "lyle": {"channels": (64, 64), "windows": (5, 3), "pool": "none", "widths": (256, 256), **_VALID, **_LECUN},
    "kumar": {"channels": (16, 16), "windows": 5, "pool": "max", "widths": (100, 100), **_VALID, **_TORCH},
    "dohare": {
        "channels": (32, 64, 128),
        "windows": (5, 3, 3),
        "pool": "max",
        "widths": (128, 128),
        **_VALID,
        **_TORCH,
    },
}
POOLS = {"none": None, "max": max_pool, "average": average_pool}
MONOTONE = ("relu", "leaky_relu", "elu", "softplus", "tanh", "sigmoid", "identity")  # max pooling commutes with these


def cnn(
    input_shape,
    outputs,
    preset: str = "lyle",
    channels: tuple | None = None,
    windows: tuple | int | None = None,
    strides: tuple | int | None = None,
    padding: str | None = None,
    pool: tuple | str | None = None,
    pool_window: int | None = None,
    pool_stride: int | None = None,
    widths: tuple | None = None,
    width: int | float = 1,
    activation: str = "relu",
    norm: str = "none",
    norm_place: str = "before",
    norm_over: str = "channels",
    weights: str = "free",
    weights_on: tuple = (),
    copies: str = "keep",
    kernel_init: str | None = None,
    bias_init: str | None = None,
    gain: float = 1.0,
    head_init: str = "",
    head_gain: float = 1.0,
):
    """Convolutions `conv0`, `conv1`, ..., then dense layers `fc0`, `fc1`, ... and a dense layer `head`.

    A preset gives all that is None; what is given overrides it. The presets:

    - "lyle" (Lyle et al. 2023, appendix A.2): conv 5x5 with 64 channels, conv 3x3 with 64, dense 256, dense 256. The
      paper states neither strides nor padding nor pooling nor the initialiser: stride 1, VALID, no pooling and LeCun's
      normal are our choice; the first three are those of the independent reproduction.
    - "kumar" (Kumar, Marklund and Van Roy 2023): conv 5x5 with 16 and 2x2 max pooling, twice, dense 100, dense 100;
      torch's initialisers. Padding and pooling as in their code.
    - "dohare" (Dohare et al. 2024, Continual ImageNet): conv 5x5 with 32, conv 3x3 with 64, conv 3x3 with 128, each
      with 2x2 max pooling, dense 128, dense 128; torch's initialisers. Padding and pooling as in their code.

    Args:
      input_shape: (H, W, C) of one image.
      outputs: number of outputs.
      preset: a name in `PRESETS`.
      channels: units of each convolution.
      windows: side of each convolution's square window; an int stands for all of them.
      strides: of each convolution, likewise.
      padding: "VALID" or "SAME", of the convolutions.
      pool: "none", "max" or "average" after each convolution's non-linearity, one name or one for each.
      pool_window: side of the pooled window.
      pool_stride: from one window to the next.
      widths: units of each hidden dense layer.
      width: multiplies all channels and widths, rounded.
      activation: a name in `networks.activations.ACTIVATIONS`.
      norm: "none" or a kind of `networks.layers.Norm`, after every hidden layer.
      norm_place: "before" the activation (Lyle et al. 2024) or "after" it; the 2023 paper does not say.
      norm_over: "channels", or "all" positions and channels; neither paper says for convolutions.
      weights: "free", "spectral", "standardised" or "scaled_standardised", as in `networks.layers`.
      weights_on: the names of the layers that `weights` holds for, such as ("conv0",); (): all hidden layers. The 2023
        paper has the spectral norm on "the initial linear layer".
      copies: "keep" or "share" the units where an activation makes copies of them (`networks.layers.units_of`), or
        "match" the number of parameters, as for `mlp`.
      kernel_init: a name in `networks.initialisers.KERNELS`.
      bias_init: "zeros", "torch" or "dqn".
      gain: factor of the initial kernels of hidden layers.
      head_init: as `kernel_init`, for the head; "" for the same ("mup_output" where that is "mup").
      head_gain: factor of the initial kernel of the head.

    Returns:
      Network over x [B, H, W, C]. `acts` and `preacts` hold [B, H', W', U] of each convolution, before its pooling, and
      [B, U] of each dense layer. A layer has no bias where a norm over the batch would remove it. The wiring holds as
      it stands for weights that are free or spectral: the mean of standardised weights brings a row of zeros back.

    Raises:
      ValueError: unknown names, sizes below 1, an image too small for the windows; while tracing, a batch of 1 where
        the norm is over the batch.

    >>> import jax, jax.numpy as jnp
    >>> network = cnn((8, 8, 3), 10, channels=(4, 4), windows=3, widths=(16,))
    >>> variables = jax.eval_shape(network.init, jax.random.key(0))
    >>> found = jax.eval_shape(lambda v, x: network.apply(None, v, x, False)[0], variables, jnp.zeros((2, 8, 8, 3)))
    >>> {layer: units.shape for layer, units in found.acts.items()}
    {'conv0': (2, 6, 6, 4), 'conv1': (2, 4, 4, 4), 'fc0': (2, 16)}
    """
    check.known("preset", preset, PRESETS)
    check.whole("outputs", outputs)
    given = {
        "channels": channels,
        "windows": windows,
        "strides": strides,
        "padding": padding,
        "pool": pool,
        "pool_window": pool_window,
        "pool_stride": pool_stride,
        "widths": widths,
        "kernel_init": kernel_init,
        "bias_init": bias_init,
    }
    full = {**PRESETS[preset], **{name: value for name, value in given.items() if value is not None}}
    check_layers(activation, norm, norm_place, full["kernel_init"], full["bias_init"], weights, copies)
    check.known("norm_over", norm_over, ("channels", "all"))
    convs = _convs(full, width, activation, copies)
    image = _last_image(image_size(input_shape), convs)
    widths = tuple(scaled("widths", units, width, activation, copies) for units in full["widths"])
    if copies == "match":
        convs, widths = _matched(convs, widths, COPIES[activation], image, input_shape[2], outputs)
    names = tuple([f"conv{i}" for i in range(len(convs))] + [f"fc{i}" for i in range(len(widths))])
    check.finite("gain", gain)
    check.finite("head_gain", head_gain)
    head_init = head_init or output_initialiser(full["kernel_init"])
    kernel_initialiser(head_init)
    inits = (full["kernel_init"], gain), (head_init, head_gain), full["bias_init"]
    common = _Layers(activation, norm, norm_place, norm_over, *inits, special_weights(weights, weights_on, names))
    wiring = _wiring(names, len(convs), image[0] * image[1], common)
    bounds = {name: BOUNDS[activation] for name in names if activation in BOUNDS}
    return Network(*pure(_CNN(convs, widths, outputs, common), input_shape), wiring, bounds)


class _Convolution(NamedTuple):
    """What is static about one convolution and its pooling."""

    units: int
    window: tuple
    strides: tuple
    padding: str
    pool: str
    pool_window: tuple
    pool_strides: tuple


class _Layers(NamedTuple):
    """What all layers have in common."""

    activation: str
    norm: str
    norm_place: str
    norm_over: str
    hidden_init: tuple  # (name, gain)
    head_init: tuple
    bias_init: str
    special: FrozenDict  # name of a layer whose weights are not free -> their kind

    def weights_in(self, name):
        """The kind of weights of the layer of this name."""
        return self.special.get(name, "free")

    def parameters(self, name):
        """Keyword arguments of the layer of this name."""
        head = name == "head"
        kernel_init, gain = self.head_init if head else self.hidden_init
        return {
            "kernel_init": kernel_init,
            "gain": gain,
            "bias_init": self.bias_init,
            "use_bias": head or has_bias(self.norm, self.norm_place),
            "weights": self.weights_in(name),
            "name": name,
        }


class _CNN(nn.Module):
    convs: tuple
    widths: tuple
    outputs: int
    layers: _Layers

    @nn.compact
    def __call__(self, x, train=False):
        acts, preacts, common = {}, {}, self.layers
        for i, c in enumerate(self.convs):
            conv = Conv(c.units, c.window, strides=c.strides, padding=c.padding, **common.parameters(f"conv{i}"))
            z, h, x = self._hidden(conv, x, train, c)
            preacts[conv.name], acts[conv.name] = z, h
        x = x.reshape(len(x), -1)  # channels fastest
        for i, units in enumerate(self.widths):
            dense = Dense(units, **common.parameters(f"fc{i}"))
            z, h, x = self._hidden(dense, x, train)
            preacts[dense.name], acts[dense.name] = z, h
        return Outputs(Dense(self.outputs, **common.parameters("head"))(x, train), acts, preacts)

    def _hidden(self, layer, x, train, c=None):
        """Preacts, acts, and what the next layer reads."""
        common, pool = self.layers, c and POOLS[c.pool]
        act = Activation(common.activation, name=f"{layer.name}_act")
        before, after = (common.norm != "none" and common.norm_place == place for place in ("before", "after"))

        z = layer(x, train)
        if before:
            z = Norm(common.norm, common.norm_over, name=f"{layer.name}_norm")(z, train)
        h = x = act(z)
        if after:
            x = Norm(common.norm, common.norm_over, COPIES[common.activation], name=f"{layer.name}_norm")(h, train)
        if pool is max_pool and not after:
            x = max_pooled(common.activation, act, z, h, c.pool_window, c.pool_strides)
        elif pool:
            x = pool(x, c.pool_window, c.pool_strides)
        return z, h, x


def max_pooled(activation, act, z, h, window, strides, padding="VALID"):
    """max_pool(h) of h = act(z), from fewer activations where the two commute.

    The numbers are the same, and where nobody reads h, the compiler drops it: with relu, on CPUs, a quarter less memory
    and up to a tenth less time.
    """
    if activation in MONOTONE:
        return act(max_pool(z, window, strides, padding))
    return max_pool(h, window, strides, padding)


def _convs(full, width, activation, copies):
    """One _Convolution for each of the channels."""
    columns = []
    for name in ("channels", "windows", "strides", "pool"):
        values = full[name] if isinstance(full[name], tuple) else (full[name],) * len(full["channels"])
        if len(values) != len(full["channels"]):
            raise ValueError(f"{name}={values!r} has {len(values)} entries, but channels={full['channels']!r}.")
        for value in values:
            check.known(name, value, POOLS) if name == "pool" else check.whole(name, value)
        columns.append(values)
    for name in ("pool_window", "pool_stride"):
        check.whole(name, full[name])
    check.known("padding", full["padding"], ("SAME", "VALID"))
    pooled = (full["pool_window"],) * 2, (full["pool_stride"],) * 2
    convs = []
    for channels, window, stride, pool in zip(*columns, strict=True):
        units = scaled("channels", channels, width, activation, copies)
        convs.append(_Convolution(units, (window,) * 2, (stride,) * 2, full["padding"], pool, *pooled))
    return tuple(convs)


def _matched(convs, widths, copies, image, channels, outputs):
    """(convs, widths) with as many parameters as without copies."""
    places = (*(math.prod(c.window) for c in convs), math.prod(image))
    units = matched((*(c.units for c in convs), *widths), copies, channels, outputs, places)
    return tuple(c._replace(units=u) for c, u in zip(convs, units, strict=False)), units[len(convs) :]


def _last_image(image, convs):
    """(H, W) after all convolutions, or a ValueError that names the one that does not fit."""
    for i, c in enumerate(convs):
        image = moved(f"conv{i}", image, c.window, c.strides, c.padding)
        if c.pool != "none":
            image = moved(f"pool of conv{i}", image, c.pool_window, c.pool_strides, "VALID")
    return image


def _wiring(names, convs, positions, common):
    """Each hidden layer is read by the next one; the first dense layer reads a channel at every position."""
    wires = []
    for i, name in enumerate(names):
        reads = ("params", names[i + 1] if i + 1 < len(names) else "head", "kernel")
        copies = COPIES[common.activation] * (positions if i == convs - 1 else 1)
        writes = layer_writes((name,), common.weights_in(name), has_bias(common.norm, common.norm_place))
        wires.append(Wire(name, writes + norm_writes((f"{name}_norm",), common.norm), ((reads, copies),)))
    return tuple(wires)
