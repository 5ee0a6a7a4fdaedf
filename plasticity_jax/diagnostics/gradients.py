"""How large gradients and updates are, alone and against the parameters, and what an update changes."""

import jax.numpy as jnp
import optax

from plasticity_jax import tree
from plasticity_jax.diagnostics.predictions import churn, churn_distance
from plasticity_jax.diagnostics.shared import kernels, stack, stateless, to_float32, weight_layers
from plasticity_jax.parts import evaluated

__all__ = ["effective_learning_rate", "gradients"]


def gradients(network, objective, memory_gb):
    """Sizes of the gradient and of the update that it became, and how far that update moves the predictions.

      gradient_norm            ||g||_2, g the gradient of loss + penalties before any hook, over all parameters
      update_ratio             ||u||_2 / ||theta||_2, u the optimizer's update, over all parameters
      effective_learning_rate  ||u||_2 / (||g||_2 ||w||_2^2), over the kernels jointly; see `effective_learning_rate`
      layer_update_ratio       ||u_W||_2 / ||W||_2 of each kernel W; NaN for a kernel of zeros
      gradient_sparsity        share of the entries of each kernel's gradient that are exactly 0
      churn, churn_distance    of the predictions on the inputs, once the update is made; see predictions.py

    Update ratio and sparsity of layers are [L] float32, the others []. Gradient and update are those of
    `snapshot.batch`, all evaluation inputs; what moves is what would be learned from. The update is not applied to the
    learner.

    Args:
      network: its layers are those with a parameter called "kernel", found from shapes alone.
      objective: gives the scores.
      memory_gb: gigabytes for activations: inputs are taken in parts that need no more.

    Returns:
      A Diagnostic with five scalar metrics and two of dimension layer, the output layer included. It costs one gradient
      and one forward pass.

    Churn: Schaul et al. 2022 (arXiv 2206.00730), section 2, "policy churn": the share of states whose greedy action
    changes under one update.

    >>> from plasticity_jax.base import Network, Variables
    >>> network = Network(lambda key: Variables({"fc0": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, {}), None)
    >>> gradients(network, objective=None, memory_gb=1.0).dims["layer_update_ratio"]
    {'layer': ('fc0',)}
    """
    layers = weight_layers(network)

    def moved(key, learner, snapshot):
        params = optax.apply_updates(learner.variables.params, snapshot.updates)
        after = evaluated(network, key, learner.variables._replace(params=params), snapshot.batch["x"], memory_gb)
        scores = [objective.predict(outputs) for outputs in (snapshot.outputs, after)]
        return {f.__name__: f(*scores, snapshot.batch) for f in (churn, churn_distance)}

    def apply(key, state, learner, snapshot):
        params, gradient, update = map(to_float32, (learner.variables.params, snapshot.gradients, snapshot.updates))
        return state, {
            "gradient_norm": tree.norm(gradient),
            "update_ratio": tree.norm(update) / tree.norm(params),
            "effective_learning_rate": effective_learning_rate(update, gradient, params),
            "layer_update_ratio": stack(
                [_ratio(u, w) for u, w in zip(kernels(update).values(), kernels(params).values(), strict=True)]
            ),
            "gradient_sparsity": stack([_share_of_zeros(g) for g in kernels(snapshot.gradients).values()]),
            **moved(key, learner, snapshot),
        }

    per_layer = {name: {"layer": layers} for name in ("layer_update_ratio", "gradient_sparsity")}
    names = ("gradient_norm", "update_ratio", "effective_learning_rate", "churn", "churn_distance")
    return stateless(apply, {name: {} for name in names} | per_layer)


def _share_of_zeros(values):
    return jnp.where(jnp.all(jnp.isfinite(values)), jnp.mean(values == 0), jnp.nan)


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
