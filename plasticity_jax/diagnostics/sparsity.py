"""How much of the activations is zero, and how large the features are.

Letters: B inputs, L layers.
"""

import jax.numpy as jnp

from plasticity_jax.diagnostics.shared import hidden_layers, over_inputs, row_weights, stack, stateless
from plasticity_jax.diagnostics.units import places_of

__all__ = ["sparsity"]


def sparsity(network, memory_gb):
    """Zeros among activations, and the length of the features.

      activation_sparsity  share of the post-activations that are 0, over units and places that count
      feature_norm         mean over the inputs of ||h(x)||_2, over all units and positions of an input

    Both are [L] float32; NaN where a value is not finite or no input counts. Zero is exactly zero.

    Args:
      network: its wiring names the hidden layers.
      memory_gb: gigabytes for activations; see `units`.

    Returns:
      A Diagnostic with two metrics of dimension layer.
      It costs no pass beside those of the snapshot.

    Plasticine (arXiv 2504.17490) calls 1 - activation_sparsity the fraction of active units.

    >>> from plasticity_jax.base import Network, Wire
    >>> sparsity(Network(init=None, apply=None, wiring=(Wire("a", (), ()),)), memory_gb=1.0).dims["feature_norm"]
    {'layer': ('a',)}
    """
    layers = hidden_layers(network)

    def count(outputs, weight, start):
        return {layer: _count(outputs.acts[layer], weight) for layer in layers}

    def apply(key, state, learner, snapshot):
        counts = over_inputs(network, memory_gb, key, learner, snapshot)(count).values()
        return state, {
            "activation_sparsity": stack([found["zeros"] / found["values"] for found in counts]),
            "feature_norm": stack([found["lengths"] / found["inputs"] for found in counts]),
        }

    dims = {name: {"layer": layers} for name in ("activation_sparsity", "feature_norm")}
    return stateless(apply, dims)


def _count(h, weight):
    """Sums over inputs and places of weight > 0."""
    rows, counted = h.reshape(-1, h.shape[-1]), row_weights(weight, h)[:, None] > 0
    lengths = jnp.linalg.norm(h.reshape(len(h), -1).astype(jnp.float32), axis=1)  # [B]
    return {
        "zeros": jnp.sum((rows == 0) & counted, dtype=jnp.float32),
        "values": h.shape[-1] * places_of(jnp.where(counted, rows, 0.0), counted),
        "lengths": jnp.sum(lengths, where=weight > 0),
        "inputs": jnp.sum(weight > 0),
    }
