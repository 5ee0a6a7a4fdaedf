"""How many units do what another unit of their layer already does.

Letters: L layers, N rows, U units.
"""

import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.diagnostics.shared import hidden_layers, over_inputs, stack, stateless
from plasticity_jax.diagnostics.units import fraction, mean_and_deviation, places_of, rows_of

__all__ = ["duplicates"]


def duplicates(network, memory_gb, threshold: float = 0.95):
    """Share of the units of every hidden layer that repeat an earlier unit.

      duplicate_fraction  share of the units i with |corr(h_i, h_j)| > threshold for some j < i

    corr is Pearson's correlation of post-activations over the places (inputs and positions) that count. A unit that is
    constant up to rounding, such as a dead one, has no correlation and so is no duplicate; it still counts among the
    units. Of a group of equal units all but the first are duplicates. [L] float32; NaN where an activation is not
    finite or no input counts. Copies that a non-linearity makes of a unit are more places.

    Args:
      network: its wiring names the layers.
      memory_gb: gigabytes for activations; see `units`.
      threshold: 0 to 1.

    Returns:
      A Diagnostic with one metric of dimension layer. It costs about the forward pass of a dense layer of U inputs and
      outputs, and two passes more where it is taken in parts.

    Raises:
      ValueError: a threshold out of its range.

    The threshold is ours. Others compare directions from the origin, without centring, which makes any two ReLU units
    alike.

    >>> from plasticity_jax.base import Network, Wire
    >>> duplicates(Network(init=None, apply=None, wiring=(Wire("fc0", (), ()),)), memory_gb=1.0).dims
    {'duplicate_fraction': {'layer': ('fc0',)}}
    """
    check.between("duplicates.threshold", threshold, 0.0, 1.0)
    layers = hidden_layers(network)

    def rows(outputs, weight, layer):
        return rows_of(outputs.acts[layer], weight, outputs.preacts[layer].shape[-1])

    def apply(key, state, learner, snapshot):
        total = over_inputs(network, memory_gb, key, learner, snapshot)
        moments = mean_and_deviation(total, rows, layers)

        def products(outputs, weight, start):
            found = {layer: rows(outputs, weight, layer) for layer in layers}
            return {name: (places_of(*both), _products(*both, *moments[name])) for name, both in found.items()}

        sums = total(products)
        fractions = [fraction(_repeats(product / places, threshold), places) for places, product in sums.values()]
        return state, {"duplicate_fraction": stack(fractions)}

    return stateless(apply, {"duplicate_fraction": {"layer": layers}})


def _products(h, counted, mean, deviation):
    """[U, U] sums over places of the products of standardised activations; 0 for units that do not vary."""
    varies = deviation > 0
    normal = jnp.where(counted & varies, (h - mean) / jnp.where(varies, deviation, 1.0), 0.0)  # [N, U]
    return jnp.einsum("ni,nj->ij", normal, normal, precision="highest")


def _repeats(correlation, threshold):
    """[U] bool: correlated with an earlier unit."""
    return jnp.any(jnp.tril(jnp.abs(correlation) > threshold, -1), 1)
