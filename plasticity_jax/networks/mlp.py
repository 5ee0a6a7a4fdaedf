"""The multi-layer perceptron, and the linear network that it is compared with. B examples, U units of a layer."""

import math

import flax.linen as nn

from plasticity_jax import check
from plasticity_jax.base import Network, Outputs, Wire
from plasticity_jax.networks.activations import BOUNDS, COPIES, Activation
from plasticity_jax.networks.initialisers import kernel_initialiser, output_initialiser
from plasticity_jax.networks.layers import (
    Dense,
    Norm,
    check_layers,
    has_bias,
    layer_writes,
    matched,
    norm_writes,
    special_weights,
    units_of,
)
from plasticity_jax.networks.record import pure

__all__ = ["linear", "mlp"]


def mlp(
    input_shape,
    outputs,
    widths: tuple = (100, 100),
    width: int | float = 1,
    activation: str = "relu",
    copies: str = "keep",
    norm: str = "none",
    norm_place: str = "before",
    residual: bool = False,
    weights: str = "free",
    weights_on: tuple = (),
    kernel_init: str = "lecun_normal",
    bias_init: str = "zeros",
    gain: float = 1.0,
    head_init: str = "",
    head_gain: float = 1.0,
):
    """Dense layers `fc0`, `fc1`, ... and a dense layer `head`; inputs are flattened.

    Args:
      input_shape: shape of one input, such as (28, 28, 1).
      outputs: number of outputs.
      widths: units of each hidden layer.
      width: all widths are multiplied by it and rounded.
      activation: a name in `networks.activations.ACTIVATIONS`.
      copies: for activations that make two copies of each unit (crelu, fourier): "keep" the units, so that readers have
        twice the inputs; "share" the width among the copies: half the units, and about half the parameters; or "match"
        the number of weights and biases of the same widths without copies, by one factor for all of them, as Kumar et
        al. 2023 do (arXiv 2308.11958).
      norm: "none" or a kind of `networks.layers.Norm`, at every hidden layer.
      norm_place: "before" the activation (Lyle et al. 2024) or "after" it; the 2023 paper does not say.
      residual: add what a hidden layer reads to what it writes: h = x + f(x) with f the dense layer, norm and
        activation, from `fc1` on. Where the two differ in width, x passes a dense layer without bias, `skip1`, ...
        (He et al. 2016, arXiv 1512.03385, option B).
      weights: "free", "standardised", "scaled_standardised" or "spectral" (see `networks.layers`).
      weights_on: names of the layers with such weights, `head` included; () for all hidden layers. Lyle et al. 2023
        normalise the spectrum of the first layer: ("fc0",).
      kernel_init: a name in `networks.initialisers.KERNELS`; "torch" is torch.nn.Linear's default.
      bias_init: "zeros", "torch" or "dqn".
      gain: factor of the initial kernels of hidden layers.
      head_init: as `kernel_init`, for the head; "" for the same ("mup_output" where that is "mup").
      head_gain: factor of the initial kernel of the head.

    Returns:
      Network over x [B, *input_shape]. The head is `head`; `acts` and `preacts` hold [B, U] for each hidden layer, acts
      before a sum with the layer's input. Units of residual layers share channels: a unit is read by the rows of its
      channel in every layer that reads the sum, and so are the same units of the layers before.

    Raises:
      ValueError: a width below 1, unknown names; when traced for training, a norm over a batch of 1.

    >>> import jax, jax.numpy as jnp
    >>> network = mlp((8, 8, 1), 10, widths=(32,))
    >>> variables = network.init(jax.random.key(0))
    >>> network.apply(jax.random.key(1), variables, jnp.zeros((4, 8, 8, 1)), False)[0].y.shape
    (4, 10)
    """
    check_layers(activation, norm, norm_place, kernel_init, bias_init, weights, copies)
    head_init = head_init or output_initialiser(kernel_init)
    kernel_initialiser(head_init)
    check.whole("outputs", outputs)
    check.fixed("width", width)
    check.positive("width", width)
    for units in widths:
        check.whole("widths", units)
    layers = tuple(f"fc{i}" for i in range(len(widths)))
    special = special_weights(weights, weights_on, layers)
    check.finite("gain", gain)
    check.finite("head_gain", head_gain)
    units = tuple(units_of(u, width, activation, copies) for u in widths)
    if copies == "match":
        units = matched(units, COPIES[activation], math.prod(input_shape), outputs)
    module = _MLP(
        units,
        outputs,
        activation,
        norm,
        norm_place,
        residual,
        tuple(special.get(name, "free") for name in (*layers, "head")),
        kernel_init,
        bias_init,
        gain,
        head_init,
        head_gain,
    )
    bounds = {name: BOUNDS[activation] for name in layers if activation in BOUNDS}
    return Network(*pure(module, input_shape), _wiring(module), bounds)


def linear(input_shape, outputs, kernel_init: str = "lecun_normal", bias_init: str = "zeros"):
    """One dense layer `head`: the floor that a deep network must beat (Dohare et al. 2024).

    Arguments and errors as for `mlp`.
    """
    return mlp(input_shape, outputs, (), kernel_init=kernel_init, bias_init=bias_init)


class _MLP(nn.Module):
    units: tuple
    outputs: int
    activation: str
    norm: str
    norm_place: str
    residual: bool
    weights: tuple  # of each hidden layer and the head
    kernel_init: str
    bias_init: str
    gain: float
    head_init: str
    head_gain: float

    @nn.compact
    def __call__(self, x, train=False):
        x = x.reshape(x.shape[0], -1)
        acts, preacts = {}, {}
        for i in range(len(self.units)):
            read, name = x, f"fc{i}"
            x = preacts[name] = self._norm("before", i, self._dense(i)(x, train), train)
            x = acts[name] = Activation(self.activation, name=f"act{i}")(x)
            x = self._norm("after", i, x, train)
            if self.residual and i > 0:
                x = x + self._shortcut(i, read, x.shape[-1])
        head = Dense(self.outputs, self.head_init, self.bias_init, True, self.weights[-1], self.head_gain, name="head")
        return Outputs(head(x, train), acts, preacts)

    def _dense(self, i):
        bias = has_bias(self.norm, self.norm_place)
        return Dense(self.units[i], self.kernel_init, self.bias_init, bias, self.weights[i], self.gain, name=f"fc{i}")

    def _norm(self, place, i, x, train):
        if self.norm == "none" or self.norm_place != place:
            return x
        copies = COPIES[self.activation] if place == "after" else 1
        return Norm(self.norm, copies=copies, name=f"norm{i}")(x, train)

    def _shortcut(self, i, x, width):
        if x.shape[-1] == width:
            return x
        return Dense(width, self.kernel_init, use_bias=False, gain=self.gain, name=f"skip{i}")(x)


def _wiring(module):
    """Layer i writes its kernel, bias and norm; layer i + 1 reads it, and over shortcuts the layers after it."""
    copies, depth = COPIES[module.activation], len(module.units)
    bias = has_bias(module.norm, module.norm_place)
    wires = []
    for i in range(depth):
        writes = layer_writes((f"fc{i}",), module.weights[i], bias) + norm_writes((f"norm{i}",), module.norm)
        reads = tuple((("params", name, "kernel"), copies) for name in _readers(module, i))
        wires.append(Wire(f"fc{i}", writes, reads))
    return tuple(wires)


def _readers(module, i):
    """Names of the layers that read what layer i writes, in order."""
    depth, names = len(module.units), []
    for j in range(i + 1, depth):
        names.append(f"fc{j}")
        if not module.residual:
            return names
        if module.units[j] != module.units[j - 1]:
            return [*names, f"skip{j}"]
    return [*names, "head"]
