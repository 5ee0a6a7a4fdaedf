"""How much of activations and gradients is zero, and how large the features are.

Letters: B inputs, L layers.
"""

import jax.numpy as jnp

from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics.shared import hidden_layers, kernels, row_weights, stack, weight_layers
from plasticity_jax.learn import weighted_mean

__all__ = ["sparsity"]


def sparsity(network):
    """Zeros among activations and gradients, and the length of the features.

      activation_sparsity  share of the post-activations that are 0, over units and places that count      hidden layers
      feature_norm         mean over the inputs of ||h(x)||_2, over all units and positions of an input    hidden layers
      gradient_sparsity    share of the entries of the kernel's gradient that are 0                        kernels

    Each is [L] float32; NaN where a value is not finite or no input counts. Zero is exactly zero.

    Args:
      network: its wiring names the hidden layers; those with a parameter called "kernel" have gradients.

    Returns:
      A Diagnostic with three metrics of dimension layer.
      It costs no pass beside those of the snapshot.

    Plasticine (arXiv 2504.17490) calls 1 - activation_sparsity the fraction of active units.

    >>> from plasticity_jax.base import Network, Variables, Wire
    >>> network = Network(lambda key: Variables({"head": {"kernel": jnp.ones((3, 2))}}, {}), None, (Wire("a", (), ()),))
    >>> sparsity(network).dims["activation_sparsity"], sparsity(network).dims["gradient_sparsity"]
    ({'layer': ('a',)}, {'layer': ('head',)})
    """
    hidden, weighted = hidden_layers(network), weight_layers(network)

    def apply(key, state, learner, snapshot):
        acts, weight = [snapshot.outputs.acts[layer] for layer in hidden], snapshot.batch["weight"]
        return state, {
            "activation_sparsity": stack([_zeros(_rows(h), row_weights(weight, h)[:, None] > 0) for h in acts]),
            "feature_norm": stack([weighted_mean(_lengths(h), weight > 0) for h in acts]),
            "gradient_sparsity": stack([_zeros(g) for g in kernels(snapshot.gradients).values()]),
        }

    dims = {name: {"layer": hidden} for name in ("activation_sparsity", "feature_norm")}
    return Diagnostic(lambda key, learner, snapshot: (), apply, dims | {"gradient_sparsity": {"layer": weighted}})


def _rows(h):
    return h.reshape(-1, h.shape[-1])


def _lengths(h):
    return jnp.linalg.norm(h.reshape(len(h), -1).astype(jnp.float32), axis=1)  # [B]


def _zeros(values, counted=True):
    """Share of zeros among the values that count."""
    finite = jnp.all(jnp.isfinite(values) | ~jnp.asarray(counted))
    return jnp.where(finite, jnp.mean(values == 0, where=counted), jnp.nan)
