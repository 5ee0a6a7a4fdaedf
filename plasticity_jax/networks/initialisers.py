"""Initial weights and biases by name. F is the fan-in of a layer: what one unit reads."""

import jax
import jax.numpy as jnp

from plasticity_jax import check

__all__ = ["BIASES", "KERNELS", "bias_initialiser", "kernel_initialiser"]


def _torch(key, shape, dtype=jnp.float32):
    """U(-1/sqrt(F), 1/sqrt(F)): torch.nn.Linear and Conv2d, whose kaiming_uniform(a=sqrt(5)) comes to this."""
    bound = _fan_in(shape) ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def _fan_in(shape):
    fan_in = 1
    for extent in shape[:-1]:
        fan_in *= extent
    return fan_in


KERNELS = {
    "lecun_normal": jax.nn.initializers.lecun_normal(),
    "lecun_uniform": jax.nn.initializers.lecun_uniform(),
    "he_normal": jax.nn.initializers.he_normal(),
    "he_uniform": jax.nn.initializers.he_uniform(),
    "glorot_normal": jax.nn.initializers.glorot_normal(),
    "glorot_uniform": jax.nn.initializers.glorot_uniform(),
    "orthogonal": jax.nn.initializers.orthogonal(),
    "torch": _torch,
}
BIASES = ("zeros", "torch")


def kernel_initialiser(name):
    """(key, shape, dtype) -> kernel; the last axis of the shape is the units, all others are the fan-in."""
    check.known("kernel_init", name, KERNELS)
    return KERNELS[name]


def bias_initialiser(name, fan_in):
    """(key, shape, dtype) -> bias of a layer with this fan-in: zeros, or torch's U(-1/sqrt(F), 1/sqrt(F))."""
    check.known("bias_init", name, BIASES)
    if name == "zeros":
        return jax.nn.initializers.zeros
    bound = fan_in**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
