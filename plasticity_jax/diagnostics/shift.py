"""Where the pre-activations of the units are, and how far they have moved since the last measurement.

Letters: L layers, U units, Q quantiles.
"""

import jax.numpy as jnp

from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics.shared import hidden_layers, over_inputs, stack, unknown
from plasticity_jax.diagnostics.units import mean_and_deviation, rows_of

__all__ = ["shift"]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def shift(network, memory_gb):
    """Every unit's mean pre-activation, and its change in units of the unit's own deviation before the change.

    With m_i and s_i the mean and the standard deviation of unit i's pre-activation over the places (inputs and
    positions) that count, at the last measurement and, with a prime, at this one: d_i = (m'_i - m_i) / s_i, and

      preactivation_mean          quantiles of m'_i over the units, of the shares QUANTILES           [L, Q]
      preactivation_shift         mean_i d_i       positive: the layer was pushed up as a whole       [L]
      preactivation_shift_spread  standard deviation of d_i over the units                            [L]

    All are float32. The shifts are NaN at the first measurement. Units that were constant, s_i = 0 up to rounding, are
    left out of them; where all were, both are NaN. Quantiles are of all units, linear between neighbours, and NaN where
    the mean of any unit is not finite. Each mean is taken on the inputs of its own task: a change of the inputs counts.

    Args:
      network: its wiring names the layers.
      memory_gb: gigabytes for activations; see `units`.

    Returns:
      A Diagnostic with a metric of dimensions layer and quantile and two of dimension layer; its state is m and s.
      It costs no pass beside those of the snapshot, or a second one where it is taken in parts.

    Lyle et al. 2024 (arXiv 2402.18762) show histograms of m over the units after a change of task, which the quantiles
    stand for, and give no scalar: the two shifts are ours.

    >>> from plasticity_jax.base import Network, Wire
    >>> shift(Network(init=None, apply=None, wiring=(Wire("fc0", (), ()),)), memory_gb=1.0).dims["preactivation_shift"]
    {'layer': ('fc0',)}
    """
    layers = hidden_layers(network)

    def rows(outputs, weight, layer):
        return rows_of(outputs.preacts[layer], weight, outputs.preacts[layer].shape[-1])

    def init(key, learner, snapshot):
        return {layer: (unknown(snapshot.outputs.preacts[layer].shape[-1]),) * 2 for layer in layers}

    def apply(key, state, learner, snapshot):
        now = mean_and_deviation(over_inputs(network, memory_gb, key, learner, snapshot), rows, layers)
        found = [_shift(*state[layer], now[layer][0]) for layer in layers]
        means = [jnp.quantile(now[layer][0], jnp.array(QUANTILES)) for layer in layers]
        return now, {
            "preactivation_mean": stack(means).reshape(len(layers), len(QUANTILES)),  # also without layers
            "preactivation_shift": stack([mean for mean, _ in found]),
            "preactivation_shift_spread": stack([spread for _, spread in found]),
        }

    dims = {name: {"layer": layers} for name in ("preactivation_shift", "preactivation_shift_spread")}
    return Diagnostic(init, apply, {"preactivation_mean": {"layer": layers, "quantile": QUANTILES}, **dims})


def _shift(mean, deviation, new_mean):
    """Mean and standard deviation over the units of (new_mean - mean) / deviation; arguments [U]."""
    varied = deviation != 0  # also where it is NaN, which must stay visible
    moved = (new_mean - mean) / jnp.where(varied, deviation, 1.0)
    return jnp.mean(moved, where=varied), jnp.std(moved, where=varied)
