"""How large gradients and updates are, alone and against the parameters."""

import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics.shared import kernels, stack, to_float32, weight_layers

__all__ = ["effective_learning_rate", "gradients"]


def gradients(network):
    """Sizes of the gradient and of the update that it became.

      gradient_norm            ||g||_2, g the gradient of loss + penalties before any hook, over all parameters
      update_ratio             ||u||_2 / ||theta||_2, u the optimizer's update, over all parameters
      effective_learning_rate  ||u||_2 / (||g||_2 ||w||_2^2), over the kernels jointly; see `effective_learning_rate`
      layer_update_ratio       ||u_W||_2 / ||W||_2 of each kernel W; NaN for a kernel of zeros

    The first three are [] float32, the last is [L]. Gradient and update are those of `snapshot.batch`; with few
    examples in it they are noisy.

    Args:
      network: its layers are those with a parameter called "kernel", found from shapes alone.

    Returns:
      A Diagnostic with three scalar metrics and one of dimension layer, the output layer included.

    >>> from plasticity_jax.base import Network, Variables
    >>> network = Network(lambda key: Variables({"fc0": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, {}), None)
    >>> gradients(network).dims["layer_update_ratio"]
    {'layer': ('fc0',)}
    """
    layers = weight_layers(network)

    def apply(key, state, learner, snapshot):
        params, gradient, update = map(to_float32, (learner.variables.params, snapshot.gradients, snapshot.updates))
        return state, {
            "gradient_norm": tree.norm(gradient),
            "update_ratio": tree.norm(update) / tree.norm(params),
            "effective_learning_rate": effective_learning_rate(update, gradient, params),
            "layer_update_ratio": stack(
                [_ratio(u, w) for u, w in zip(kernels(update).values(), kernels(params).values(), strict=True)]
            ),
        }

    per_layer = {"layer_update_ratio": {"layer": layers}}
    names = ("gradient_norm", "update_ratio", "effective_learning_rate")
    return Diagnostic(lambda key, learner, snapshot: (), apply, {name: {} for name in names} | per_layer)


def _ratio(update, kernel):
    size = tree.norm(kernel)
    return jnp.where(size == 0, jnp.nan, tree.norm(update) / size)


def effective_learning_rate(updates, gradients, params):
    """The learning rate on the unit sphere: ||u|| / (||g|| ||w||^2), over the kernels jointly.

    Normalisation makes the loss invariant to the scale of w, f(w) = f(w / ||w||), so only the direction v = w / ||w||
    counts. The gradient with respect to v is ||w|| g, a step u moves v by u / ||w|| (u is orthogonal to w up to the
    optimizer's preconditioner), and the learning rate seen by v is the ratio of the two:
    (||u|| / ||w||) / (||w|| ||g||). For gradient descent, u = -eta g, it is eta / ||w||^2 exactly (van Laarhoven 2017,
    "L2 Regularization versus Batch and Weight Normalization", arXiv 1706.05350): growing weights alone slow
    learning down. For networks without normalisation it is an index, not a rate.

    Args:
      updates: tree of the optimizer's updates.
      gradients: tree of the gradients.
      params: tree of the parameters; biases and gains of all three are left out.

    Returns:
      [] float32; NaN where the gradient or the weights are zero.

    >>> params = {"fc0": {"kernel": jnp.array([[2.0], [0.0]])}}
    >>> gradient = {"fc0": {"kernel": jnp.array([[0.0], [3.0]])}}
    >>> round(float(effective_learning_rate(tree.scale(-0.1, gradient), gradient, params)), 6)  # 0.1 / 2^2
    0.025
    """
    norm_u, norm_g, norm_w = (tree.norm(kernels(t)) for t in (updates, gradients, params))
    scale = norm_g * jnp.square(norm_w)
    return jnp.where(scale == 0, jnp.nan, norm_u / scale)
