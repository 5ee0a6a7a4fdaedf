"""Which hidden units have stopped working: dead, dormant, saturated and linearised ones.

Letters: B inputs, H and W positions, U units, c copies that a non-linearity makes of each unit (2 for crelu), N rows.
"""

import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.diagnostics.shared import hidden_layers, over_inputs, row_weights, stack, stateless

__all__ = ["dormant", "fraction", "mean_and_deviation", "places_of", "rows_of", "saturating", "units"]

CONSTANT = 1e-5  # of its mean: a deviation below this is rounding
NAMES = ("dead_fraction", "dormant_fraction", "saturated_fraction", "linearised_fraction")


def units(network, memory_gb, tau: float = 0.025, share: float = 0.99, margin: float = 0.01):
    """Shares of the units of every hidden layer that no longer do what units are for.

    A unit of a convolution is its channel. All is measured at the "places", the positions of the inputs of weight > 0;
    h is a unit's post-activation and z its pre-activation:

      dead_fraction        h = 0 exactly, everywhere
      dormant_fraction     s_i <= tau, with the score s_i = mean |h_i| / (mean over the layer's units of mean |h|)
      saturated_fraction   h lies within margin (high - low) / 2 of a bound at `share` or more of the places; NaN
                           where the activation is unbounded. A margin of 0.01 means |h| >= 0.99 on tanh
      linearised_fraction  z > 0 at `share` or more of the places

    Each is [L] float32 between 0 and 1; NaN where an activation is not finite or no input counts. In a layer of zeros
    all units are dead and dormant. Where there are c copies of each unit, it is dead if all of them are, and its score
    and its saturation are taken over all of them together.

    Args:
      network: its wiring names the layers, its `bounds` the range of each bounded activation.
      memory_gb: gigabytes for activations: where those of all inputs take more, they are counted in parts.
      tau: threshold of the score, not negative. ReDo's own runs use 0, 0.025 and 0.1.
      share: share of places, 0 to 1, from which a unit counts as saturated or linearised.
      margin: half-width of the bounded range that counts as "at the bound", 0 to 1.

    Returns:
      A Diagnostic with four metrics of dimension layer.

    Raises:
      ValueError: a setting out of its range; when traced, activations that are no whole number of copies.

    Dead: Dohare et al. 2024 (arXiv 2306.13812) on 2,000 inputs. Dormant: Sokar et al. 2023 (arXiv 2302.12902),
    definition 3.1; their code adds 1e-9 to the denominator, here it is multiplied out, so that tau = 0 is exact.
    Linearised: Lyle et al. 2024 (arXiv 2402.18762), who give no threshold. Saturated: Plasticine counts single
    activations |h| > 0.99 instead of units.

    >>> from plasticity_jax.base import Network, Wire
    >>> units(Network(init=None, apply=None, wiring=(Wire("fc0", (), ()),)), memory_gb=1.0).dims["dead_fraction"]
    {'layer': ('fc0',)}
    """
    check.at_least("units.tau", tau, 0.0)
    check.between("units.share", share, 0.0, 1.0)
    check.between("units.margin", margin, 0.0, 1.0)
    layers = hidden_layers(network)

    def count(outputs, weight, layer):
        """Numbers of places, summed over inputs; [U] but for the places themselves."""
        width = outputs.preacts[layer].shape[-1]
        h, counted_h = rows_of(outputs.acts[layer], weight, width)
        z, counted_z = rows_of(outputs.preacts[layer], weight, width)
        at_bound = saturating(h, network.bounds[layer], margin) if layer in network.bounds else jnp.zeros_like(h, bool)
        return {
            "acts": places_of(h, counted_h),
            "preacts": places_of(z, counted_z),
            "alive": jnp.sum((h != 0) & counted_h, 0),
            "size": jnp.sum(jnp.abs(h), 0),
            "saturated": jnp.sum(at_bound & counted_h, 0),
            "positive": jnp.sum((z > 0) & counted_z, 0),
        }

    def shares(layer, found):
        saturated = found["saturated"] >= share * found["acts"] if layer in network.bounds else jnp.nan
        return {
            "dead_fraction": fraction(found["alive"] == 0, found["acts"]),
            "dormant_fraction": fraction(dormant(found["size"], tau), found["acts"]),
            "saturated_fraction": fraction(saturated, found["acts"]),
            "linearised_fraction": fraction(found["positive"] >= share * found["preacts"], found["preacts"]),
        }

    def apply(key, state, learner, snapshot):
        total = over_inputs(network, memory_gb, key, learner, snapshot)
        counts = total(lambda outputs, weight, start: {layer: count(outputs, weight, layer) for layer in layers})
        found = [shares(layer, counts[layer]) for layer in layers]
        return state, {name: stack([fractions[name] for fractions in found]) for name in NAMES}

    return stateless(apply, {name: {"layer": layers} for name in NAMES})


def rows_of(values, weight, width):
    """Activations as rows of units, and which rows count.

    Args:
      values: [B, ..., c*U], copy after copy.
      weight: [B].
      width: U, a Python int.

    Returns:
      ([N, U] float32 with N = B * positions * c, rows that do not count set to 0; [N, 1] bool).

    >>> h, counted = rows_of(jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.ones(1), width=2)
    >>> h.tolist()
    [[1.0, 2.0], [3.0, 4.0]]
    """
    channels = values.shape[-1]
    if channels % width:
        raise ValueError(f"units: {channels} activations of {width} units are no whole number of copies.")
    counted = jnp.repeat(row_weights(weight, values) > 0, channels // width)[:, None]
    return jnp.where(counted, values.reshape(-1, width).astype(jnp.float32), 0.0), counted


def places_of(values, counted):
    """[] float32: how many rows count; NaN where a value is not finite. Arguments as `rows_of` returns them."""
    return jnp.where(jnp.all(jnp.isfinite(values)), jnp.sum(counted, dtype=jnp.float32), jnp.nan)


def dormant(size, tau):
    """[U] bool: sum |h_i| <= tau times its mean over units. The number of places cancels."""
    return size <= tau * jnp.mean(size)


def mean_and_deviation(total, rows, layers):
    """Mean and standard deviation of every unit over the places that count.

    A deviation below 1e-5 of the mean is 0: a constant is left with some by rounding.

    Args:
      total: from `shared.over_inputs`.
      rows: (outputs, weight, layer) -> values and counted, as `rows_of` returns them.
      layers: names.

    Returns:
      {layer: ([U], [U])} float32; NaN where no place counts.
    """

    def first_moment(outputs, weight, start):
        found = {layer: rows(outputs, weight, layer) for layer in layers}
        return {layer: (jnp.sum(values, 0), jnp.sum(counted)) for layer, (values, counted) in found.items()}

    sums = total(first_moment)
    means = {layer: values / places for layer, (values, places) in sums.items()}

    def second_moment(outputs, weight, start):  # around the mean: the mean of squares would cancel
        found = {layer: rows(outputs, weight, layer) for layer in layers}
        return {
            layer: jnp.sum(jnp.square(values - means[layer]), 0, where=counted)
            for layer, (values, counted) in found.items()
        }

    squares = total(second_moment)
    deviations = {layer: jnp.sqrt(squares[layer] / sums[layer][1]) for layer in layers}
    return {
        layer: (mean, jnp.where(deviations[layer] <= CONSTANT * jnp.abs(mean), 0.0, deviations[layer]))
        for layer, mean in means.items()
    }


def saturating(h, bounds, margin):
    """[N, U] bool: within margin * (high - low) / 2 of a bound."""
    low, high = bounds
    width = margin * (high - low) / 2
    return (h <= low + width) | (h >= high - width)


def fraction(flags, places):
    """Share of units with a flag; NaN where `places_of` gave NaN or 0: comparisons would hide both."""
    return jnp.where(places > 0, jnp.mean(flags), jnp.nan)
