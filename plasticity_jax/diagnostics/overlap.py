"""Whether dormant units stay dormant.

Letters: L layers, U units.
"""

import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics.shared import hidden_layers, stack
from plasticity_jax.diagnostics.units import dormant, rows_of

__all__ = ["overlap"]


def overlap(network, tau: float = 0.025):
    """Share of the units that were dormant at the last measurement and still are.

      dormant_overlap  |D and D'| / |D|,   D the tau-dormant units at the last measurement, D' those of this one

    [L] float32; NaN at the first measurement, where no unit was dormant, and where an activation is not finite.

    Args:
      network: its wiring names the layers.
      tau: threshold of the score, not negative; see `units`.

    Returns:
      A Diagnostic with one metric of dimension layer, whose state says which units are dormant. It costs no pass of its
      own.

    Raises:
      ValueError: a negative tau.

    Sokar et al. 2023 (arXiv 2302.12902), section 3, whose overlap coefficient divides by the smaller of the two sets:
    it is 1 also where most of many dormant units have come back, which this is not.

    >>> from plasticity_jax.base import Network, Wire
    >>> overlap(Network(init=None, apply=None, wiring=(Wire("fc0", (), ()),))).dims
    {'dormant_overlap': {'layer': ('fc0',)}}
    """
    check.at_least("overlap.tau", tau, 0.0)
    layers = hidden_layers(network)

    def measured(snapshot, layer):
        acts, width = snapshot.outputs.acts[layer], snapshot.outputs.preacts[layer].shape[-1]
        h, counted = rows_of(acts, snapshot.batch["weight"], width)
        known = jnp.any(counted) & jnp.all(jnp.isfinite(h))
        return jnp.where(known, dormant(h, counted, tau), jnp.nan)  # [U] 1 or 0, or NaN

    def init(key, learner, snapshot):
        return {layer: jnp.full(snapshot.outputs.preacts[layer].shape[-1], jnp.nan) for layer in layers}

    def apply(key, state, learner, snapshot):
        now = {layer: measured(snapshot, layer) for layer in layers}
        shares = [jnp.sum(state[layer] * now[layer]) / jnp.sum(state[layer]) for layer in layers]
        return now, {"dormant_overlap": stack(shares)}

    return Diagnostic(init, apply, {"dormant_overlap": {"layer": layers}})
