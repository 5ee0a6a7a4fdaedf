"""Non-linearities by name. U units; where one makes c copies of each unit, its result has c U channels.

Copies stand copy after copy: channel j U + i is copy j of unit i. A reader of such a layer has c U inputs.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from plasticity_jax import check

__all__ = ["ACTIVATIONS", "BOUNDS", "COPIES", "Activation", "crelu", "fourier", "rational"]

# Least squares fit to leaky ReLU with slope 0.01 on [-3, 3], largest error 0.034; computed for this file. The odd
# coefficients of the denominator vanish, because leaky ReLU is a line plus a multiple of |x|.
NUMERATOR = (0.0335721, 0.5049913, 1.6526321, 2.0080636, 0.9305442, 0.1521275)  # of 1, x, ..., x^5
DENOMINATOR = (0.0, 3.9764805, 0.0, 0.3012530)  # of x, ..., x^4


def crelu(x):
    """Concatenated ReLU: (max(x, 0), max(-x, 0)). [..., U] -> [..., 2 U].

    Shang et al. 2016 (arXiv 1603.05201); for plasticity, Abbas et al. 2023 (arXiv 2303.07507).

    >>> crelu(jnp.array([1.0, -2.0])).tolist()
    [1.0, 0.0, 0.0, 2.0]
    """
    return jnp.concatenate([jax.nn.relu(x), jax.nn.relu(-x)], -1)


def fourier(x):
    """Deep Fourier features: (sin x, cos x). [..., U] -> [..., 2 U].

    Lewandowski, Schuurmans and Machado 2024 (arXiv 2410.20634): wherever one copy is nearly constant in a unit's input,
    the other is nearly linear, so that no unit loses its gradient.
    """
    return jnp.concatenate([jnp.sin(x), jnp.cos(x)], -1)


def rational(x, numerator=NUMERATOR, denominator=DENOMINATOR):
    """Padé activation unit: (a0 + a1 x + ... + a5 x^5) / (1 + |b1 x + ... + b4 x^4|), which has no poles.

    Molina, Schramowski and Kersting 2020 (arXiv 1907.06732), "safe PAU", and Delfosse et al. 2024 (arXiv 2102.09407)
    for plasticity. There the coefficients are learned, one set for each layer, from an approximation of leaky ReLU; so
    are they in `Activation`. As a plain function this is that approximation.
    """
    above, below = numerator[-1], denominator[-1]
    for a in numerator[-2::-1]:
        above = above * x + a
    for b in denominator[-2::-1]:
        below = below * x + b
    return above / (1.0 + jnp.abs(below * x))


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,  # slope 0.01
    "crelu": crelu,
    "elu": jax.nn.elu,
    "gelu": jax.nn.gelu,  # the approximation by tanh
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "sine": jnp.sin,
    "fourier": fourier,
    "rational": rational,
    "identity": lambda x: x,
}
COPIES = {name: 2 if name in ("crelu", "fourier") else 1 for name in ACTIVATIONS}
BOUNDS = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0)}  # where a unit can saturate on both sides


class Activation(nn.Module):
    """The non-linearity `name_`; `rational` owns its coefficients, which all units of the layer share."""

    name_: str

    @nn.compact
    def __call__(self, x):
        """[..., U] -> [..., copies U]. Raises ValueError for an unknown name."""
        check.known("activation", self.name_, ACTIVATIONS)
        if self.name_ != "rational":
            return ACTIVATIONS[self.name_](x)
        numerator = self.param("numerator", lambda key: jnp.array(NUMERATOR))
        denominator = self.param("denominator", lambda key: jnp.array(DENOMINATOR))
        return rational(x, numerator, denominator)
