"""Initial weights and biases by name. F is the fan-in of a layer: what one unit reads."""

import math

import jax
from jax.nn import initializers

from plasticity_jax import check

__all__ = ["BIASES", "KERNELS", "bias_initialiser", "kernel_initialiser", "output_initialiser"]


def torch_uniform(key, shape, dtype=float):
    """U(-1/sqrt(F), 1/sqrt(F)): torch.nn.Linear and Conv2d, whose kaiming_uniform(a=sqrt(5)) comes to this.

    It is also DQN's, inherited from Torch 7 ("legacy" in dqn_zoo), for weights and biases.
    """
    bound = _fan_in(shape) ** -0.5
    return jax.random.uniform(key, shape, dtype, -bound, bound)


def mup(key, shape, dtype=float):
    """N(0, 1/F): the scale of input and hidden weights in the maximal update parametrisation.

    Yang et al. 2022, "Tensor Programs V" (arXiv 2203.03466), table 3. A network's output layer gets `mup_output`
    (see `output_initialiser`), whose outputs vanish as 1/sqrt(F) at the beginning. Their learning rates by layer (for
    Adam, in proportion to 1/F for hidden and output weights) are a matter of the optimizer and are not set here.
    """
    return jax.random.normal(key, shape, dtype) * _fan_in(shape) ** -0.5


def mup_output(key, shape, dtype=float):
    """N(0, 1/F^2): the scale of output weights in the maximal update parametrisation, see `mup`."""
    return jax.random.normal(key, shape, dtype) / _fan_in(shape)


def delta_orthogonal(key, shape, dtype=float):
    """Orthogonal at the centre of the window, zero elsewhere (Xiao et al. 2018, arXiv 1806.05393).

    A dense kernel has no window and is orthogonal. A convolution needs at least as many units as channels.
    """
    if len(shape) == 2:
        return initializers.orthogonal()(key, shape, dtype)
    if shape[-2] > shape[-1]:
        raise ValueError(
            f"kernel_init='delta_orthogonal' needs at least as many units as channels, but a convolution has "
            f"{shape[-1]} units of {shape[-2]} channels: widen it, or use 'orthogonal'."
        )
    return initializers.delta_orthogonal()(key, shape, dtype)


def _fan_in(shape):
    return math.prod(shape[:-1])


# all of jax.nn.initializers: `variance_scaling` as the eight named cases, `constant` as "ones" with a gain
KERNELS = {
    "lecun_normal": initializers.lecun_normal(),
    "lecun_uniform": initializers.lecun_uniform(),
    "he_normal": initializers.he_normal(),
    "he_uniform": initializers.he_uniform(),
    "kaiming_normal": initializers.kaiming_normal(),
    "kaiming_uniform": initializers.kaiming_uniform(),
    "glorot_normal": initializers.glorot_normal(),
    "glorot_uniform": initializers.glorot_uniform(),
    "xavier_normal": initializers.xavier_normal(),
    "xavier_uniform": initializers.xavier_uniform(),
    "normal": initializers.normal(),  # N(0, 0.01^2)
    "truncated_normal": initializers.truncated_normal(),  # the same, cut at 0.02
    "uniform": initializers.uniform(),  # U(0, 0.01): jax's is not centred
    "orthogonal": initializers.orthogonal(),
    "delta_orthogonal": delta_orthogonal,
    "torch": torch_uniform,
    "dqn": torch_uniform,
    "mup": mup,
    "mup_output": mup_output,
    "zeros": initializers.zeros,
    "ones": initializers.ones,
}
BIASES = ("zeros", "torch", "dqn")
OUTPUTS = {"mup": "mup_output"}  # the output layer's initialiser, where it is another


def kernel_initialiser(name, gain=1.0):
    """(key, shape, dtype) -> gain times the kernel; the last axis of the shape is the units, all others the fan-in.

    Args:
      name: a name in KERNELS.
      gain: what the initial weights are multiplied with, such as sqrt(2) for "orthogonal" before ReLU.

    Raises:
      ValueError: an unknown name.
    """
    check.known("kernel_init", name, KERNELS)
    draw = KERNELS[name]
    if isinstance(gain, float) and gain == 1.0:
        return draw
    return lambda key, shape, dtype=float: gain * draw(key, shape, dtype)


def output_initialiser(name):
    """The name of the initialiser of an output layer, where hidden layers have `name`.

    >>> output_initialiser("mup"), output_initialiser("torch")
    ('mup_output', 'torch')
    """
    return OUTPUTS.get(name, name)


def bias_initialiser(name, fan_in):
    """(key, shape, dtype) -> bias of a layer with this fan-in: zeros, or U(-1/sqrt(F), 1/sqrt(F)) as torch and DQN."""
    check.known("bias_init", name, BIASES)
    if name == "zeros":
        return initializers.zeros
    bound = fan_in**-0.5
    return lambda key, shape, dtype=float: jax.random.uniform(key, shape, dtype, -bound, bound)
