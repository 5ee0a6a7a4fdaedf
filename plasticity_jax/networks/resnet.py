"""ResNet-18: four stages of two basic blocks. Letters: B examples, H x W pixels, U units (channels) of a layer.

A *stream* is what the blocks of one stage add to. Channel c of a stream is one unit: the stem or the first block's
shortcut writes it, every block of the stage adds to it, and every block after that reads it.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from flax.core import FrozenDict

from plasticity_jax import check, tree
from plasticity_jax.base import Network, Outputs, Wire
from plasticity_jax.networks.activations import BOUNDS, COPIES, Activation
from plasticity_jax.networks.cnn import max_pooled
from plasticity_jax.networks.initialisers import kernel_initialiser, output_initialiser
from plasticity_jax.networks.layers import (
    Conv,
    Dense,
    Norm,
    check_layers,
    layer_writes,
    norm_writes,
    special_weights,
)
from plasticity_jax.networks.record import pure
from plasticity_jax.networks.shapes import image_size, scaled

__all__ = ["resnet18"]

STAGES = (64, 128, 256, 512)
BLOCKS = 2  # of a stage
STEMS = ("cifar", "imagenet")


def resnet18(
    input_shape,
    outputs,
    stem: str = "cifar",
    width: int | float = 1,
    activation: str = "relu",
    norm: str = "batch",
    norm_over: str = "channels",
    weights: str = "free",
    weights_on: tuple = (),
    zero_init: bool = False,
    kernel_init: str = "he_normal",
    bias_init: str = "zeros",
    gain: float = 1.0,
    head_init: str = "",
    head_gain: float = 1.0,
):
    """The residual network with 18 layers (He et al. 2016, arXiv 1512.03385, table 1), with basic blocks.

    A block is y = f(x' + norm(conv(f(norm(conv(x)))))) with 3x3 convolutions; x' is x, or where the shape changes, in
    the first block of the stages 1 to 3, norm(conv1x1(x)) at stride 2. The head reads the mean over all positions. A
    convolution that a norm follows has no bias. Lyle et al. 2023 and Dohare et al. 2024 use this network; the former
    states neither stem nor norm.

    Args:
      input_shape: (H, W, C) of one image; any size, because all windows are padded.
      outputs: number of outputs.
      stem: "cifar": 3x3 at stride 1, as is usual for images of 32 x 32 and below (He et al., section 4.2, and our
        default); "imagenet": 7x7 at stride 2 and 3x3 max pooling at stride 2, as in table 1.
      width: multiplies the stages' 64, 128, 256 and 512 channels, rounded.
      activation: a name in `networks.activations.ACTIVATIONS` that makes one channel of each unit.
      norm: "batch" (He et al.), "none", or another kind of `networks.layers.Norm`.
      norm_over: "channels", or "all" positions and channels, for the norms that do not need the batch.
      weights: "free", "spectral", "standardised" or "scaled_standardised", as in `networks.layers`.
      weights_on: the names of the layers that `weights` holds for: "stem", "stage0_block0/conv0",
        "stage0_block0/conv1", "stage1_block0/shortcut" and so on, "head"; (): all of these but the head.
      zero_init: the gain of the last norm of each block starts at 0, so each block as the identity (Goyal et al. 2017,
        arXiv 1706.02677, section 5.1).
      kernel_init: a name in `networks.initialisers.KERNELS`; the default is that of He et al. 2015.
      bias_init: "zeros", "torch" or "dqn".
      gain: factor of the initial kernels of hidden layers.
      head_init: as `kernel_init`, for the head; "" for the same ("mup_output" where that is "mup").
      head_gain: factor of the initial kernel of the head.

    Returns:
      Network over x [B, H, W, C]. `acts` and `preacts` hold [B, H', W', U] of `stem`, of `stage0_block0/conv0` and so
      on, inside each block, and of `stage0_block0` and so on: what the non-linearity after the sum gives and reads.
      The wires of one stream (the stem and the blocks of stage 0; the blocks of each other stage) have the same
      `writes` and `reads`, because channel c is one unit at all these depths: surgery on it must act once.
      The wiring holds as it stands for weights that are free or spectral: the mean of standardised weights brings a row
      of zeros back.

    Raises:
      ValueError: unknown names, an activation that makes copies, a width that is not positive; zero_init without a
        norm; while tracing, a batch of 1 where the norm is over the batch.

    >>> import jax
    >>> variables = jax.eval_shape(resnet18((32, 32, 3), 10).init, jax.random.key(0))
    >>> tree.size(variables.params)
    11173962
    """
    check.known("stem", stem, STEMS)
    check.whole("outputs", outputs)
    check.known("norm_over", norm_over, ("channels", "all"))
    check_layers(activation, norm, "before", kernel_init, bias_init, weights)
    if COPIES[activation] != 1:
        raise ValueError(
            f"activation={activation!r} makes {COPIES[activation]} channels of a unit, so sums do not fit."
        )
    if zero_init and norm == "none":
        raise ValueError("zero_init=True starts the gain of a norm at 0, but norm='none'.")
    image_size(input_shape)
    units = tuple(scaled("channels", channels, width) for channels in STAGES)
    check.finite("gain", gain)
    check.finite("head_gain", head_gain)
    head_init = head_init or output_initialiser(kernel_init)
    kernel_initialiser(head_init)
    inits = (kernel_init, gain), (head_init, head_gain), bias_init
    common = _Layers(activation, norm, norm_over, *inits, special_weights(weights, weights_on, _convs()))
    init, apply = pure(_ResNet(outputs, stem, units, common), input_shape)
    wiring = _wiring(common)
    bounds = {wire.layer: BOUNDS[activation] for wire in wiring if activation in BOUNDS}
    return Network(_zeroed(init) if zero_init else init, apply, wiring, bounds)


class _Layers(NamedTuple):
    """What all layers have in common."""

    activation: str
    norm: str
    norm_over: str
    hidden_init: tuple  # (name, gain)
    head_init: tuple
    bias_init: str
    special: FrozenDict  # name of a layer whose weights are not free -> their kind

    def weights_in(self, name):
        """The kind of weights of the layer of this name."""
        return self.special.get(name, "free")

    def parameters(self, name):
        """Keyword arguments of the layer of this name, such as stage0_block0/conv0; the module is called conv0."""
        head = name == "head"
        kernel_init, gain = self.head_init if head else self.hidden_init
        return {
            "kernel_init": kernel_init,
            "gain": gain,
            "bias_init": self.bias_init,
            "use_bias": head or self.norm == "none",
            "weights": self.weights_in(name),
            "name": name.split("/")[-1],
        }

    def normed(self, name, units, window, stride, x, train):
        """A convolution, padded as torch does, and its norm: called inside a compact module, which owns both."""
        pad = (window // 2, window // 2)  # SAME would pad even images at stride 2 on one side only
        conv = Conv(units, (window,) * 2, strides=(stride,) * 2, padding=(pad,) * 2, **self.parameters(name))
        x = conv(x, train)
        return x if self.norm == "none" else Norm(self.norm, self.norm_over, name=f"{conv.name}_norm")(x, train)


class _ResNet(nn.Module):
    outputs: int
    stem: str
    units: tuple
    layers: _Layers

    @nn.compact
    def __call__(self, x, train=False):
        common = self.layers
        act = Activation(common.activation, name="stem_act")
        window, stride = (3, 1) if self.stem == "cifar" else (7, 2)
        z = common.normed("stem", self.units[0], window, stride, x, train)
        x = act(z)
        acts, preacts = {"stem": x}, {"stem": z}
        if self.stem == "imagenet":
            x = max_pooled(common.activation, act, z, x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, block in _blocks():
            name = _name(stage, block)
            stride = 2 if stage and block == 0 else 1
            inner, outer = _Block(self.units[stage], stride, common, name=name)(x, train)
            acts[f"{name}/conv0"], preacts[f"{name}/conv0"] = inner
            acts[name], preacts[name] = outer
            x = outer[0]
        head = Dense(self.outputs, **common.parameters("head"))
        return Outputs(head(jnp.mean(x, (1, 2)), train), acts, preacts)


class _Block(nn.Module):
    units: int
    stride: int
    layers: _Layers

    @nn.compact
    def __call__(self, x, train):
        """(acts, preacts) inside of the block, and (acts, preacts) after the sum."""
        common = self.layers
        z0 = common.normed(f"{self.name}/conv0", self.units, 3, self.stride, x, train)
        h0 = Activation(common.activation, name="conv0_act")(z0)
        z1 = common.normed(f"{self.name}/conv1", self.units, 3, 1, h0, train)
        if self.stride != 1:
            x = common.normed(f"{self.name}/shortcut", self.units, 1, self.stride, x, train)
        z = z1 + x
        return (h0, z0), (Activation(common.activation, name="sum_act")(z), z)


def _blocks():
    return [(stage, block) for stage in range(len(STAGES)) for block in range(BLOCKS)]


def _name(stage, block):
    return f"stage{stage}_block{block}"


def _convs():
    """Names of the convolutions, as `weights_on` has them."""
    names = ["stem"]
    for stage, block in _blocks():
        parts = ("conv0", "conv1", "shortcut") if stage and block == 0 else ("conv0", "conv1")
        names += [f"{_name(stage, block)}/{part}" for part in parts]
    return tuple(names)


def _zeroed(init):
    """`init`, with the gain of each block's last norm at 0."""

    def zeroed(key):
        variables = init(key)
        for stage, block in _blocks():
            path = ("params", _name(stage, block), "conv1_norm", "scale")
            variables = tree.put(variables, path, jnp.zeros_like(tree.get(variables, path)))
        return variables

    return zeroed


def _wiring(common):
    """Wires in the order of the layers; those of one stream share what they write and read."""

    def written(*path):
        *parents, name = path
        writes = layer_writes(path, common.weights_in("/".join(path)), common.norm == "none")
        return writes + norm_writes((*parents, f"{name}_norm"), common.norm)

    def read(*path):
        return (("params", *path, "kernel"), 1)

    wires = []
    for stage in range(len(STAGES)):
        names = [_name(stage, block) for block in range(BLOCKS)]
        source = written("stem") if stage == 0 else written(names[0], "shortcut")
        stream_writes = source + tuple(path for name in names for path in written(name, "conv1"))
        readers = [read(name, "conv0") for name in (names if stage == 0 else names[1:])]
        after = _name(stage + 1, 0)
        readers += [read("head")] if stage + 1 == len(STAGES) else [read(after, "conv0"), read(after, "shortcut")]
        if stage == 0:
            wires.append(Wire("stem", stream_writes, tuple(readers)))
        for name in names:
            wires.append(Wire(f"{name}/conv0", written(name, "conv0"), (read(name, "conv1"),)))
            wires.append(Wire(name, stream_writes, tuple(readers)))
    return tuple(wires)
