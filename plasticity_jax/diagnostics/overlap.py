"""Whether dormant units stay dormant.

Letters: L layers, U units.
"""

import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics.shared import hidden_layers, over_inputs, stack, unknown
from plasticity_jax.diagnostics.units import dormant, places_of, rows_of

__all__ = ["overlap"]


def overlap(network, memory_gb, tau: float = 0.025):
    """Share of the units that were dormant at the last measurement and still are.

      dormant_overlap  |D and D'| / |D|,   D the tau-dormant units at the last measurement, D' those of this one

    [L] float32; NaN at the first measurement, where no unit was dormant, and where an activation is not finite.

    Args:
      network: its wiring names the layers.
      memory_gb: gigabytes for activations; see `units`.
      tau: threshold of the score, not negative; see `units`.

    Returns:
      A Diagnostic with one metric of dimension layer, whose state says which units are dormant. It costs no pass of its
      own.

    Raises:
      ValueError: a negative tau.

    Sokar et al. 2023 (arXiv 2302.12902), section 3, whose overlap coefficient divides by the smaller of the two sets:
    it is 1 also where most of many dormant units have come back, which this is not.

    >>> from plasticity_jax.base import Network, Wire
    >>> overlap(Network(init=None, apply=None, wiring=(Wire("fc0", (), ()),)), memory_gb=1.0).dims
    {'dormant_overlap': {'layer': ('fc0',)}}
    """
    check.at_least("overlap.tau", tau, 0.0)
    layers = hidden_layers(network)

    def count(outputs, weight, layer):
        h, counted = rows_of(outputs.acts[layer], weight, outputs.preacts[layer].shape[-1])
        return places_of(h, counted), jnp.sum(jnp.abs(h), 0)

    def init(key, learner, snapshot):
        return {layer: unknown(snapshot.outputs.preacts[layer].shape[-1]) for layer in layers}

    def apply(key, state, learner, snapshot):
        total = over_inputs(network, memory_gb, key, learner, snapshot)
        counts = total(lambda outputs, weight, start: {layer: count(outputs, weight, layer) for layer in layers})
        # [U] 1 or 0, or NaN
        now = {
            name: jnp.where(places > 0, dormant(size, tau).astype(jnp.float32), jnp.nan)
            for name, (places, size) in counts.items()
        }
        shares = [jnp.sum(state[layer] * now[layer]) / jnp.sum(state[layer]) for layer in layers]
        return now, {"dormant_overlap": stack(shares)}

    return Diagnostic(init, apply, {"dormant_overlap": {"layer": layers}})
