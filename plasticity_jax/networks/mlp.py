"""The multi-layer perceptron, and the linear network that it is compared with. B examples, U units of a layer."""

import math

import flax.linen as nn
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Network, Outputs, Variables, Wire
from plasticity_jax.networks.layers import ACTIVATIONS, BOUNDS, Dense, Norm, check_layers

__all__ = ["linear", "mlp"]


def mlp(
    input_shape,
    outputs,
    widths: tuple = (100, 100),
    activation: str = "relu",
    norm: str = "none",
    norm_place: str = "before",
    kernel_init: str = "lecun_normal",
    bias_init: str = "zeros",
):
    """Dense layers `fc0`, `fc1`, ... and a dense layer `head`; inputs are flattened.

    Args:
      input_shape: shape of one input, such as (28, 28, 1).
      outputs: number of outputs.
      widths: units of each hidden layer.
      activation: a name in `networks.layers.ACTIVATIONS`.
      norm: "none", "layer" or "rms", after every hidden dense layer.
      norm_place: "before" the activation (Lyle et al. 2024) or "after" it; the 2023 paper does not say.
      kernel_init: a name in `networks.initialisers.KERNELS`; "torch" is torch.nn.Linear's default.
      bias_init: "zeros" or "torch".

    Returns:
      Network over x [B, *input_shape]. The head is `head`; `acts` and `preacts` hold [B, U] for each hidden layer.

    Raises:
      ValueError: a width below 1, unknown names.

    >>> import jax
    >>> network = mlp((8, 8, 1), 10, widths=(32,))
    >>> variables = network.init(jax.random.key(0))
    >>> network.apply(jax.random.key(1), variables, jnp.zeros((4, 8, 8, 1)), False)[0].y.shape
    (4, 10)
    """
    check_layers(activation, norm, norm_place, kernel_init, bias_init)
    check.whole("outputs", outputs)
    for width in widths:
        check.whole("widths", width)
    module = _MLP(tuple(widths), outputs, activation, norm, norm_place, kernel_init, bias_init)

    def init(key):
        # the same parameters as for a whole batch, from one input: flax asks for an array of the input's shape
        return Variables(module.init(key, jnp.zeros((1, math.prod(input_shape))))["params"], {})

    def apply(key, variables, x, train):
        del key, train  # neither dropout nor batch statistics
        return module.apply({"params": variables.params}, x.reshape(x.shape[0], -1)), variables.stats

    bounds = {f"fc{i}": BOUNDS[activation] for i in range(len(widths)) if activation in BOUNDS}
    return Network(init, apply, _wiring(len(widths), norm), bounds)


def linear(input_shape, outputs, kernel_init: str = "lecun_normal", bias_init: str = "zeros"):
    """One dense layer `head`: the floor that a deep network must beat (Dohare et al. 2024).

    Arguments and errors as for `mlp`.
    """
    return mlp(input_shape, outputs, (), kernel_init=kernel_init, bias_init=bias_init)


class _MLP(nn.Module):
    widths: tuple
    outputs: int
    activation: str
    norm: str
    norm_place: str
    kernel_init: str
    bias_init: str

    @nn.compact
    def __call__(self, x):
        acts, preacts = {}, {}
        for i, width in enumerate(self.widths):
            x = Dense(width, self.kernel_init, self.bias_init, name=f"fc{i}")(x)
            if self.norm != "none" and self.norm_place == "before":
                x = Norm(self.norm, name=f"norm{i}")(x)
            preacts[f"fc{i}"] = x
            x = acts[f"fc{i}"] = ACTIVATIONS[self.activation](x)
            if self.norm != "none" and self.norm_place == "after":
                x = Norm(self.norm, name=f"norm{i}")(x)
        return Outputs(Dense(self.outputs, self.kernel_init, self.bias_init, name="head")(x), acts, preacts)


def _wiring(depth, norm):
    """Layer i writes its kernel, bias and norm; layer i + 1 reads it, once per unit."""
    gains = {"none": (), "layer": ("scale", "bias"), "rms": ("scale",)}[norm]
    wires = []
    for i in range(depth):
        reader = f"fc{i + 1}" if i + 1 < depth else "head"
        writes = [("params", f"fc{i}", leaf) for leaf in ("kernel", "bias")]
        writes += [("params", f"norm{i}", "norm", leaf) for leaf in gains]
        wires.append(Wire(f"fc{i}", tuple(writes), ((("params", reader, "kernel"), 1),)))
    return tuple(wires)
