"""Parts that every network is made of: activations and norms by name, the dense layer. B examples, U units."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.networks.initialisers import bias_initialiser, kernel_initialiser

__all__ = ["ACTIVATIONS", "BOUNDS", "NORMS", "Dense", "Norm", "check_layers"]

ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "identity": lambda x: x,
}
BOUNDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}  # where a unit can saturate on both sides
NORMS = ("none", "layer", "rms")
PLACES = ("before", "after")


class Dense(nn.Module):
    """x @ kernel + bias, with the kernel [inputs, units]."""

    units: int
    kernel_init: str
    bias_init: str

    @nn.compact
    def __call__(self, x):
        """[B, inputs] -> [B, U]."""
        fan_in = x.shape[-1]
        kernel = self.param("kernel", kernel_initialiser(self.kernel_init), (fan_in, self.units))
        bias = self.param("bias", bias_initialiser(self.bias_init, fan_in), (self.units,))
        return x @ kernel + bias


class Norm(nn.Module):
    """Layer norm or RMS norm over the units, with gain (and shift for layer norm); epsilon 1e-5 inside the root."""

    kind: str

    @nn.compact
    def __call__(self, x):
        """[B, U] -> [B, U]."""
        if self.kind == "layer":
            return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name="norm")(x)
        return nn.RMSNorm(epsilon=1e-5, name="norm")(x)


def check_layers(activation, norm, norm_place, kernel_init, bias_init):
    """Known names, or a ValueError that names the nearest one."""
    check.known("activation", activation, ACTIVATIONS)
    check.known("norm", norm, NORMS)
    check.known("norm_place", norm_place, PLACES)
    kernel_initialiser(kernel_init)
    bias_initialiser(bias_init, 1)
