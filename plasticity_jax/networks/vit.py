"""A small vision transformer. Letters: B examples, T tokens, D model dimensions, N heads, U units."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from plasticity_jax import check
from plasticity_jax.base import Network, Outputs, Wire
from plasticity_jax.networks.activations import BOUNDS, COPIES, Activation
from plasticity_jax.networks.initialisers import kernel_initialiser, output_initialiser
from plasticity_jax.networks.layers import Conv, Dense, Norm, check_layers, layer_writes, special_weights
from plasticity_jax.networks.record import pure
from plasticity_jax.networks.shapes import image_size, moved, scaled

__all__ = ["vit"]

POOLS = ("class", "mean")
PARTS = ("query", "key", "value", "out", "up", "down")  # layers of a block


def vit(
    input_shape,
    outputs,
    patch: int = 3,
    stride: int = 0,
    dim: int = 256,
    feedforward: int = 1024,
    depth: int = 1,
    heads: int = 8,
    dropout: float = 0.1,
    pool: str = "class",
    width: int | float = 1,
    activation: str = "gelu",
    norm: str = "layer",
    weights: str = "free",
    weights_on: tuple = (),
    kernel_init: str = "xavier_uniform",
    bias_init: str = "zeros",
    gain: float = 1.0,
    head_init: str = "",
    head_gain: float = 1.0,
):
    """A vision transformer whose norms stand before attention and feed-forward layers (Dosovitskiy et al. 2021).

    Patches pass one linear layer, learned positions are added, then `depth` blocks of x + attention(norm(x)) and
    x + feedforward(norm(x)) follow, a norm, and a dense layer `head`. Architecture: arXiv 2010.11929, section 3.1.

    The defaults are those of Lyle et al. 2023, appendix A.2 (convolutional embedding with patches of 3, model dimension
    256, feed-forward 1,024, one block, dropout 0.1). What the paper does not say is our choice: stride 3 without
    padding, so 9 x 9 patches of MNIST's 28 x 28 pixels and 10 x 10 of CIFAR's 32 x 32, the last pixels unread; 8 heads;
    a class token; GELU; the place of the norm and of the dropout, which are those of Dosovitskiy et al.: after the
    positions and after each dense layer but query, key and value. Keys have no bias, because softmax takes it away
    again: as before batch norm, its gradient would be noise, which Adam turns into steps of the size of its rate.

    Args:
      input_shape: (H, W, C) of one image.
      outputs: number of outputs.
      patch: side of a patch in pixels.
      stride: from one patch to the next, in pixels; 0: the patch.
      dim: D.
      feedforward: units of the hidden layer of each feed-forward part.
      depth: number of blocks.
      heads: N, a divisor of D; each has D / N channels.
      dropout: probability that a number is dropped in training.
      pool: the head reads the "class" token, or the "mean" over all patches' tokens.
      width: multiplies `dim` and `feedforward`, rounded; the number of heads stays.
      activation: of the feed-forward part, a name in `networks.activations.ACTIVATIONS`.
      norm: "layer", "rms" or "none", over the channels of each token.
      weights: "free", "spectral", "standardised" or "scaled_standardised", as in `networks.layers`; a unit of query,
        key and value is a channel of all heads.
      weights_on: the names of the layers that `weights` holds for: "patches", "block0/query", "block0/key",
        "block0/value", "block0/out", "block0/up", "block0/down" and so on, "head"; (): all of these but the head.
      kernel_init: a name in `networks.initialisers.KERNELS`. Positions are drawn from N(0, 0.02^2), the class token
        starts at 0.
      bias_init: "zeros", "torch" or "dqn".
      gain: factor of the initial kernels of hidden layers.
      head_init: as `kernel_init`, for the head; "" for the same ("mup_output" where that is "mup").
      head_gain: factor of the initial kernel of the head.

    Returns:
      Network over x [B, H, W, C]. For each block, `acts` and `preacts` hold [B, T, U]: `block0/value`, the channels of
      all heads' values before (preacts) and after (acts) attention has mixed them over tokens, which the output
      projection reads; and `block0/up`, the feed-forward units before and after the activation, without dropout. Model
      dimensions are no units: each norm mixes them, so that none can be cut out by itself, and no layer's
      non-linearity acts on them. The wiring holds as it stands for weights that are free or spectral: the mean of
      standardised weights brings a row of zeros back.

    Raises:
      ValueError: unknown names, sizes below 1, images smaller than a patch, heads that do not divide D.

    >>> network = vit((28, 28, 1), 10, dim=16, feedforward=32, heads=4)
    >>> variables = jax.eval_shape(network.init, jax.random.key(0))
    >>> found = jax.eval_shape(lambda v, x: network.apply(None, v, x, False)[0], variables, jnp.zeros((2, 28, 28, 1)))
    >>> {layer: units.shape for layer, units in found.acts.items()}
    {'block0/up': (2, 82, 32), 'block0/value': (2, 82, 16)}
    """
    check_layers(activation, "none", "before", kernel_init, bias_init, weights)
    check.known("norm", norm, ("layer", "rms", "none"))
    check.known("pool", pool, POOLS)
    check.fraction("dropout", dropout)
    for name, value in (("outputs", outputs), ("patch", patch), ("depth", depth), ("heads", heads)):
        check.whole(name, value)
    check.whole("stride", stride, low=0)
    stride = stride or patch
    moved("patches", image_size(input_shape), (patch, patch), (stride, stride), "VALID")
    dim, feedforward = scaled("dim", dim, width), scaled("feedforward", feedforward, width)
    if dim % heads:
        raise ValueError(f"heads={heads} does not divide the {dim} model dimensions.")
    check.finite("gain", gain)
    check.finite("head_gain", head_gain)
    head_init = head_init or output_initialiser(kernel_init)
    kernel_initialiser(head_init)
    names = ("patches", *(f"block{i}/{part}" for i in range(depth) for part in PARTS))
    inits = (kernel_init, gain), (head_init, head_gain), bias_init
    special = special_weights(weights, weights_on, names)
    common = _Layers(dim, feedforward, heads, activation, norm, *inits, special, dropout)
    module = _ViT(outputs, patch, stride, depth, pool, common)
    bounds = {f"block{i}/up": BOUNDS[activation] for i in range(depth) if activation in BOUNDS}
    return Network(*pure(module, input_shape), _wiring(depth, common), bounds)


class _Layers(NamedTuple):
    """What all layers have in common."""

    dim: int
    feedforward: int
    heads: int
    activation: str
    norm: str
    hidden_init: tuple  # (name, gain)
    head_init: tuple
    bias_init: str
    special: FrozenDict  # name of a layer whose weights are not free -> their kind
    dropout: float

    def weights_in(self, name):
        """The kind of weights of the layer of this name."""
        return self.special.get(name, "free")

    def parameters(self, name):
        """Keyword arguments of the layer of this name, such as block0/key; the module is called key."""
        kernel_init, gain = self.head_init if name == "head" else self.hidden_init
        return {
            "kernel_init": kernel_init,
            "gain": gain,
            "bias_init": self.bias_init,
            # a bias of the keys adds the same to all scores of a query, which softmax takes away: its gradient is noise
            "use_bias": not name.endswith("/key"),
            "weights": self.weights_in(name),
            "name": name.split("/")[-1],
        }

    def normed(self, name, x):
        return x if self.norm == "none" else Norm(self.norm, name=name)(x)

    def dropped(self, module, x, train):
        """Dropout; flax's own would ask for the value of a rate that an axis of the grid traces."""
        is_zero = not isinstance(self.dropout, jax.core.Tracer) and self.dropout == 0
        if not train or is_zero or not module.has_rng("dropout"):
            return x
        keep = jax.random.bernoulli(module.make_rng("dropout"), 1.0 - self.dropout, x.shape)
        return jnp.where(keep, x / (1.0 - self.dropout), 0.0)


class _ViT(nn.Module):
    outputs: int
    patch: int
    stride: int
    depth: int
    pool: str
    layers: _Layers

    @nn.compact
    def __call__(self, x, train=False):
        common = self.layers
        windows = {"window": (self.patch,) * 2, "strides": (self.stride,) * 2, "padding": "VALID"}
        x = Conv(common.dim, **windows, **common.parameters("patches"))(x, train)
        x = x.reshape(len(x), -1, common.dim)
        if self.pool == "class":
            token = self.param("token", nn.initializers.zeros, (1, 1, common.dim))
            x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, common.dim)), x], 1)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = common.dropped(self, x, train)
        acts, preacts = {}, {}
        for i in range(self.depth):
            x, found = _Block(common, name=f"block{i}")(x, train)
            for layer, (z, h) in found.items():
                preacts[f"block{i}/{layer}"], acts[f"block{i}/{layer}"] = z, h
        x = common.normed("norm", x)
        x = x[:, 0] if self.pool == "class" else jnp.mean(x, 1)
        return Outputs(Dense(self.outputs, **common.parameters("head"))(x, train), acts, preacts)


class _Block(nn.Module):
    layers: _Layers

    @nn.compact
    def __call__(self, x, train):
        """[B, T, D] -> the same, and {layer: (preacts, acts)}."""
        common, found = self.layers, {}
        z = common.normed("norm0", x)
        query, key, value = (self._dense(common.dim, name)(z, train) for name in ("query", "key", "value"))
        h = attention(*(self._by_head(a) for a in (query, key, value))).reshape(value.shape)
        found["value"] = value, h
        x = x + common.dropped(self, self._dense(common.dim, "out")(h, train), train)
        z = self._dense(common.feedforward, "up")(common.normed("norm1", x), train)
        h = Activation(common.activation, name="act")(z)
        found["up"] = z, h
        y = self._dense(common.dim, "down")(common.dropped(self, h, train), train)
        return x + common.dropped(self, y, train), found

    def _dense(self, units, name):
        return Dense(units, **self.layers.parameters(f"{self.name}/{name}"))

    def _by_head(self, x):
        return x.reshape(*x.shape[:2], self.layers.heads, -1)


def attention(query, key, value):
    """softmax(q k' / sqrt(d)) v for each head: three [B, T, N, d] -> [B, T, N, d]."""
    scores = jnp.einsum("bind,bjnd->bnij", query, key) * query.shape[-1] ** -0.5
    return jnp.einsum("bnij,bjnd->bind", jax.nn.softmax(scores), value)


def _wiring(depth, common):
    wires = []
    for i in range(depth):
        for layer, reader, copies in (("value", "out", 1), ("up", "down", COPIES[common.activation])):
            reads = ((("params", f"block{i}", reader, "kernel"), copies),)
            name = f"block{i}/{layer}"
            wires.append(Wire(name, layer_writes((f"block{i}", layer), common.weights_in(name)), reads))
    return tuple(wires)
