"""How many floating-point operations the matrix products of a function take, counted in its jaxpr, not by a clock."""

import math

import jax
import jax.extend.core
from jax.interpreters import partial_eval

__all__ = ["matrix_flops"]

# where the images, or the result that stands for them, and the kernel are among operands and result
_CONVOLUTIONS = {"conv": (2, 1), "conv_to_images": (0, 1), "conv_to_kernel": (1, 2)}


def matrix_flops(jaxpr):
    """FLOPs of the products and convolutions of a function by their definition, whatever way they are computed.

    Args:
      jaxpr: of the function, from `jax.make_jaxpr(function)(*args)`.

    Returns:
      int: 2 for each multiplication with its addition, if a result needs it: an upper count of what is run. A scan
      counts each of its rounds, a condition its costlier branch, and so products that a run skips; padding counts as
      data do. A loop of unknown length counts one round: with such loops it is a lower bound. Decompositions (QR,
      eigenvalues) count nothing.

    >>> import jax.numpy as jnp
    >>> matrix_flops(jax.make_jaxpr(jnp.dot)(jnp.ones((2, 4)), jnp.ones((4, 3))))  # 2 * 4 * 3 multiplications
    48
    """
    needed, _ = partial_eval.dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.jaxpr.outvars))
    return _of_jaxpr(needed)


def _of_jaxpr(jaxpr):
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation):
    name, params = equation.primitive.name, equation.params
    shapes = [v.aval.shape for v in (*equation.invars, *equation.outvars)]
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        return 2 * math.prod(shapes[-1]) * math.prod(shapes[0][axis] for axis in contracted)
    if name in _CONVOLUTIONS:
        outputs, kernel = (shapes[place] for place in _CONVOLUTIONS[name])
        return 2 * math.prod(outputs[:-1]) * math.prod(kernel)
    if name == "conv_general_dilated":
        kernel = params["dimension_numbers"].rhs_spec  # the kernel's axes: outputs, inputs, then positions
        inner = math.prod(shapes[1]) // shapes[1][kernel[0]]
        return 2 * math.prod(shapes[-1]) * inner
    inner = [_of_jaxpr(sub) for sub in jax.extend.core.jaxprs_in_params(params)]
    if name == "cond":
        return max(inner)
    if name == "shard_map":
        return sum(inner) * params["mesh"].size
    return sum(inner) * (params["length"] if name == "scan" else 1)
