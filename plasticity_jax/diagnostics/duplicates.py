"""How many units do what another unit of their layer already does.

Letters: L layers, N rows, U units.
"""

import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics.shared import hidden_layers, stack
from plasticity_jax.diagnostics.units import fraction, mean_and_deviation, rows_of

__all__ = ["duplicated", "duplicates"]


def duplicates(network, threshold: float = 0.95):
    """Share of the units of every hidden layer that repeat an earlier unit.

      duplicate_fraction  share of the units i with |corr(h_i, h_j)| > threshold for some j < i

    corr is Pearson's correlation of post-activations over the places (inputs and positions) that count. A unit that is
    constant up to rounding, such as a dead one, has no correlation and so is no duplicate; it still counts among the
    units. Of a group of equal units all but the first are duplicates. [L] float32; NaN where an activation is not
    finite or no input counts. Copies that a non-linearity makes of a unit are more places.

    Args:
      network: its wiring names the layers.
      threshold: 0 to 1.

    Returns:
      A Diagnostic with one metric of dimension layer. It costs about the forward pass of a dense layer of U inputs, and
      holds the [N, U] centred activations and [U, U] correlations of one layer.

    Raises:
      ValueError: a threshold out of its range.

    The threshold is ours. Others compare directions from the origin, without centring, which makes any two ReLU units
    alike.

    >>> from plasticity_jax.base import Network, Wire
    >>> duplicates(Network(init=None, apply=None, wiring=(Wire("fc0", (), ()),))).dims
    {'duplicate_fraction': {'layer': ('fc0',)}}
    """
    check.between("duplicates.threshold", threshold, 0.0, 1.0)
    layers = hidden_layers(network)

    def measured(snapshot, layer):
        acts, width = snapshot.outputs.acts[layer], snapshot.outputs.preacts[layer].shape[-1]
        h, counted = rows_of(acts, snapshot.batch["weight"], width)
        return fraction(duplicated(h, counted, threshold), h, counted)

    def apply(key, state, learner, snapshot):
        return state, {"duplicate_fraction": stack([measured(snapshot, layer) for layer in layers])}

    return Diagnostic(lambda key, learner, snapshot: (), apply, {"duplicate_fraction": {"layer": layers}})


def duplicated(h, counted, threshold):
    """[U] bool: correlated with an earlier unit. Arguments as `units.rows_of` returns them."""
    mean, deviation = mean_and_deviation(h, counted)
    varies = deviation > 0
    normal = jnp.where(counted & varies, (h - mean) / jnp.where(varies, deviation, 1.0), 0.0)  # [N, U]
    correlation = jnp.einsum("ni,nj->ij", normal, normal, precision="highest") / jnp.sum(counted)
    return jnp.any(jnp.tril(jnp.abs(correlation) > threshold, -1), 1)
