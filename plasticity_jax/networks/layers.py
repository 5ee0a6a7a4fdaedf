"""Parts that every network is made of: dense layers, convolutions, norms.

Letters: B examples, H x W positions, C channels that are read, U units, F fan-in of a unit.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import FrozenDict

from plasticity_jax import check
from plasticity_jax.networks.activations import ACTIVATIONS, COPIES
from plasticity_jax.networks.convolution import conv
from plasticity_jax.networks.initialisers import bias_initialiser, kernel_initialiser

__all__ = [
    "NORMS",
    "WEIGHTS",
    "Conv",
    "Dense",
    "Norm",
    "check_layers",
    "has_bias",
    "layer_writes",
    "matched",
    "norm_writes",
    "special_weights",
    "units_of",
]

WEIGHTS = ("free", "standardised", "scaled_standardised", "spectral")
CENTRED = ("batch", "hybrid")  # norms that take away the batch's mean, and a bias before them with it
NORMS = ("none", "layer", "rms", "group", *CENTRED)
PLACES = ("before", "after")
WIDTHS = ("keep", "share", "match")
EPSILON = 1e-5  # inside every root of a norm, as in torch
MOMENTUM = 0.1  # of running statistics, as in torch: the weight of the newest batch
GROUPS, GROUP_SIZE = 32, 16  # at most so many groups, of at least so many numbers
FIRST_ITERATIONS = 15  # of the power iteration, as in torch


class Dense(nn.Module):
    """x @ kernel + bias.

    Attributes:
      units: U.
      kernel_init, bias_init: names in `networks.initialisers`.
      use_bias: False before a norm that takes away the mean over the batch.
      weights: a name in WEIGHTS; see `_weights`.
      gain: factor of the initial kernel.
    """

    units: int
    kernel_init: str
    bias_init: str = "zeros"
    use_bias: bool = True
    weights: str = "free"
    gain: float = 1.0

    @nn.compact
    def __call__(self, x, train=False):
        """[..., F] -> [..., U]; parameters kernel [F, U], bias [U]."""
        fan_in = x.shape[-1]
        kernel = self.param("kernel", kernel_initialiser(self.kernel_init, self.gain), (fan_in, self.units))
        y = x @ _weights(self, kernel, train)
        if not self.use_bias:
            return y
        return y + self.param("bias", bias_initialiser(self.bias_init, fan_in), (self.units,))


class Conv(nn.Module):
    """`networks.convolution.conv` with a kernel and a bias.

    Attributes:
      units, kernel_init, bias_init, use_bias, weights, gain: as for Dense.
      window: (h, w).
      strides: (rows, columns).
      padding: "SAME", "VALID" or ((above, below), (left, right)).
    """

    units: int
    window: tuple
    kernel_init: str
    strides: tuple = (1, 1)
    padding: str | tuple = "SAME"
    bias_init: str = "zeros"
    use_bias: bool = True
    weights: str = "free"
    gain: float = 1.0

    @nn.compact
    def __call__(self, x, train=False):
        """[B, H, W, C] -> [B, H', W', U]; parameters kernel [h, w, C, U], bias [U]."""
        shape = (*self.window, x.shape[-1], self.units)
        kernel = self.param("kernel", kernel_initialiser(self.kernel_init, self.gain), shape)
        y = conv(x, _weights(self, kernel, train), self.strides, self.padding)
        if not self.use_bias:
            return y
        return y + self.param("bias", bias_initialiser(self.bias_init, math.prod(shape[:-1])), (self.units,))


# ---- what the weights of a layer are made of ----


def _weights(module, kernel, train):
    """The weights that a layer multiplies with; w is the kernel as a matrix [F, U], one column for each unit.

    free                 w
    standardised         (w - mean) / deviation of each column, to be followed by a norm (Qiao et al. 2019, 1903.10520)
    scaled_standardised  g times the same / sqrt(F), with a learned gain g [U] (Brock et al. 2021, 2101.08692),
                         which keeps the scale of the inputs without a norm
    spectral             w / its largest singular value (Miyato et al. 2018, 1802.05957); zeros stay zeros

    The numbers are of arXiv. A row of zeros in the kernel reads nothing where weights are free or spectral; where they
    are standardised it reads -mean / deviation, so that units cannot be cut off from such a reader by zeros.
    """
    check.known("weights", module.weights, WEIGHTS)
    if module.weights == "free":
        return kernel
    w = kernel.reshape(-1, kernel.shape[-1])
    if module.weights == "spectral":
        largest = _largest_singular_value(module, w, train)
        return kernel / jnp.where(largest > 0, largest, 1.0)
    w = w - jnp.mean(w, 0)
    w = w * jax.lax.rsqrt(jnp.mean(w**2, 0) + 1e-10)  # a unit whose weights are all alike, such as 0, stays at 0
    if module.weights == "scaled_standardised":
        w = w * (module.param("gain", nn.initializers.ones, (w.shape[1],)) * w.shape[0] ** -0.5)
    return w.reshape(kernel.shape)


def _largest_singular_value(module, w, train):
    """Sigma of w [F, U] by power iteration: one step in each training pass, from the vector u [U] that is kept.

    Sigma = v' w u with v = w u / |w u|; no gradient flows through the vectors, which is exact at convergence.
    """

    def first():
        u = _unit(jax.random.normal(module.make_rng("params"), (w.shape[1],)))
        for _ in range(FIRST_ITERATIONS):
            u = _turned(w, u)
        return u

    kept = module.variable("stats", "u", first)
    fixed = jax.lax.stop_gradient(w)
    u = _turned(fixed, kept.value) if train else kept.value
    if train:
        kept.value = u
    v = _unit(fixed @ u)
    return v @ w @ u


def _turned(w, u):
    """One step of the power iteration from u [U]; u itself where w takes it to 0."""
    turned = _unit(w @ u) @ w
    return jnp.where(jnp.any(turned != 0), _unit(turned), u)


def _unit(vector):
    """The vector at length 1; zeros stay zeros."""
    return vector / jnp.maximum(jnp.linalg.norm(vector), 1e-12)


# ---- norms ----


class Norm(nn.Module):
    """Normalised activations, times a gain and plus a shift for each unit; epsilon 1e-5 inside every root.

    layer   (x - mean) / deviation of each example (Ba et al. 2016, arXiv 1607.06450)
    rms     x / root mean square of each example, no shift (Zhang and Sennrich 2019, arXiv 1910.07467)
    group   as layer, over the positions and the channels of one group (Wu and He 2018, arXiv 1803.08494): 32 groups, or
            the largest number below that divides the channels and leaves 16 numbers to a group
    batch   (x - mean) / deviation of each unit over batch and positions (Ioffe and Szegedy 2015, arXiv 1502.03167). In
            training of the batch, else running averages: weight 0.1 for the newest, variance unbiased, as in torch
    hybrid  takes away the mean of each unit over batch and positions, then divides by the deviation of each example
            over its features (Lyle et al. 2024, arXiv 2402.18762, who do not say which is done first). Outside training
            the mean is a running average

    Attributes:
      kind: as above.
      over: for layer, rms and the deviation of hybrid: "channels", the last axis, or "all" axes but the batch. Gain
        and shift are per unit in both cases (torch's layer norm over several axes has one for each place).
      copies: how many copies of each unit the channels hold, for a norm after crelu or Fourier features.
    """

    kind: str
    over: str = "channels"
    copies: int = 1

    @nn.compact
    def __call__(self, x, train=False):
        """[B, ..., U] -> the same shape; parameters scale [U] and bias [U], or [copies, U] where there are several.

        Raises ValueError for an unknown name, and in training for a mean over a batch of 1.
        """
        check.known("norm", self.kind, NORMS[1:])
        check.known("norm over", self.over, ("channels", "all"))
        features = tuple(range(1, x.ndim)) if self.over == "all" else (-1,)
        z = {
            "layer": lambda: _divided(_centred(x, features), features),
            "rms": lambda: _divided(x, features),
            "group": lambda: _grouped(x),
            "batch": lambda: self._by_batch(x, train),
            "hybrid": lambda: self._by_both(x, features, train),
        }[self.kind]()
        z = z * self.param("scale", nn.initializers.ones, self._shape(x)).reshape(-1)
        if self.kind == "rms":
            return z
        return z + self.param("bias", nn.initializers.zeros, self._shape(x)).reshape(-1)

    def _shape(self, x):
        """Of what is kept for each unit: the units are the last axis."""
        units = x.shape[-1] // self.copies
        return (units,) if self.copies == 1 else (self.copies, units)

    def _by_batch(self, x, train):
        var = self.variable("stats", "var", jnp.ones, self._shape(x))
        x = self._centred_by_batch(x, train)
        if not train:
            return x * jax.lax.rsqrt(var.value.reshape(-1) + EPSILON)
        axes = tuple(range(x.ndim - 1))
        now, count = jnp.mean(x**2, axes), math.prod(x.shape[:-1])
        var.value = _running(var.value, now * count / (count - 1))
        return x * jax.lax.rsqrt(now + EPSILON)

    def _by_both(self, x, features, train):
        x = self._centred_by_batch(x, train)
        return x * jax.lax.rsqrt(jnp.var(x, features, keepdims=True) + EPSILON)

    def _centred_by_batch(self, x, train):
        mean = self.variable("stats", "mean", jnp.zeros, self._shape(x))
        if not train:
            return x - mean.value.reshape(-1)
        if len(x) < 2:
            raise ValueError(
                f"norm={self.kind!r} takes means over the batch, which a batch of 1 does not have: use batches of "
                "2 or more, or norm='layer'."
            )
        now = jnp.mean(x, tuple(range(x.ndim - 1)))
        mean.value = _running(mean.value, now)
        return x - now


def _running(average, newest):
    """The running average after one more batch; no gradient flows into it."""
    newest = jax.lax.stop_gradient(newest).reshape(average.shape)
    return (1 - MOMENTUM) * average + MOMENTUM * newest


def _centred(x, axes):
    return x - jnp.mean(x, axes, keepdims=True)


def _divided(x, axes):
    return x * jax.lax.rsqrt(jnp.mean(x**2, axes, keepdims=True) + EPSILON)


def _grouped(x):
    """Group norm of [B, ..., U]."""
    positions, units = math.prod(x.shape[1:-1]), x.shape[-1]
    allowed = (g for g in range(GROUPS, 1, -1) if units % g == 0 and positions * units // g >= GROUP_SIZE)
    groups = next(allowed, 1)
    z = x.reshape(*x.shape[:-1], groups, units // groups)
    axes = (*range(1, x.ndim - 1), -1)
    return _divided(_centred(z, axes), axes).reshape(x.shape)


# ---- settings and wiring that networks share ----


def check_layers(activation, norm, norm_place, kernel_init, bias_init, weights="free", copies="keep"):
    """Known names, or a ValueError that names the nearest one."""
    check.known("activation", activation, ACTIVATIONS)
    check.known("norm", norm, NORMS)
    check.known("norm_place", norm_place, PLACES)
    kernel_initialiser(kernel_init)
    bias_initialiser(bias_init, 1)
    check.known("weights", weights, WEIGHTS)
    check.known("copies", copies, WIDTHS)


def special_weights(weights, weights_on, layers):
    """{layer: kind} of the layers whose weights are not free: those in `weights_on`, or () for all hidden `layers`.

    Raises ValueError for a layer that is not there, and for settings that change nothing.
    """
    for name in weights_on:
        check.known("weights_on", name, (*layers, "head"))
    special = weights_on or (layers if weights != "free" else ())
    if (weights == "free") == bool(special):
        raise ValueError(
            f"weights={weights!r} on weights_on={weights_on!r} changes nothing with {len(layers)} hidden layers: name "
            "a kind of weights other than 'free', and a layer that there is."
        )
    return FrozenDict(dict.fromkeys(special, weights))


def units_of(width, multiplier=1.0, activation="relu", copies="keep"):
    """Units of a layer: its width times the multiplier, rounded, at least 1.

    Where the activation makes c copies of each unit, "keep" keeps the units, so that readers have c times the inputs;
    "share" divides them by c, so that the channels, and nearly the parameters, are those of another activation.

    >>> units_of(100, 0.5), units_of(100, 0.5, "crelu", "share")
    (50, 25)
    """
    units = width * multiplier / (COPIES[activation] if copies == "share" else 1)
    return max(1, round(units))


def matched(units, copies, inputs, outputs, places=()):
    """Units that, `copies` of each, come nearest below the weights and biases of these units without copies.

    One factor for all of them, as Kumar et al. 2023 do (arXiv 2308.11958).

    Args:
      units: of each hidden layer.
      copies: that the activation makes of a unit.
      inputs, outputs: channels of the input, and units of the head.
      places: where a layer reads each channel: the entries of its window, or the positions of an image. One number for
        each of the first layers, the head included; 1 for the others.
    """
    places = (*places, *(1 for _ in range(len(units) + 1 - len(places))))

    def count(units, copies):
        read = [inputs, *(copies * u for u in units)]
        return sum((p * r + 1) * u for p, r, u in zip(places, read, (*units, outputs), strict=True))

    def shrunk(factor):
        return tuple(units_of(u, factor) for u in units)

    low, high = 1 / copies, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if count(shrunk(middle), copies) <= count(units, 1) else (low, middle)
    return shrunk(low)


def has_bias(norm, norm_place):
    """Whether a layer has a bias: not where the norm that follows takes away the mean over the batch.

    Its gradient would be rounding noise, which Adam turns into steps of the size of the learning rate.
    """
    return not (norm in CENTRED and norm_place == "before")


def layer_writes(layer, weights="free", use_bias=True):
    """Paths of what writes the units of a Dense or Conv layer; `layer` is its path of names under "params"."""
    leaves = ("kernel", *(("gain",) if weights == "scaled_standardised" else ()), *(("bias",) if use_bias else ()))
    return tuple(("params", *layer, leaf) for leaf in leaves)


def norm_writes(layer, kind):
    """Paths of what a Norm keeps for each unit: gain, shift, running statistics. "none" has none."""
    params = {"none": (), "rms": ("scale",)}.get(kind, ("scale", "bias"))
    stats = {"batch": ("mean", "var"), "hybrid": ("mean",)}.get(kind, ())
    return tuple(("params", *layer, leaf) for leaf in params) + tuple(("stats", *layer, leaf) for leaf in stats)
