"""How many directions the features span: five ranks of every hidden layer, from one decomposition.

Letters: B inputs, H and W positions, U units (c*U where a non-linearity makes c copies), N rows of Phi, L layers.
"""

import math

import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import DoesNotFit
from plasticity_jax.diagnostics import spectra
from plasticity_jax.diagnostics.shared import hidden_layers, over_inputs, row_weights, stack, stateless

__all__ = ["feature_matrix", "ranks"]

COPIES = 3  # of Phi: its sum over parts of the inputs, one part of it, and what the decomposition makes
NAMES = ("srank", "effective_rank", "stable_rank", "approximate_rank", "feature_rank")


def ranks(network, memory_gb, delta: float = 0.01, epsilon: float = 0.01, max_rows: int = 8192):
    """Ranks of the features Phi of every hidden layer.

    Phi [N, U] holds the post-activations of the inputs of weight > 0, not centred; see `feature_matrix`. With sigma its
    singular values and p_i = sigma_i / sum sigma:

      srank             min{k : sum_{i<=k} sigma_i >= (1 - delta) sum_i sigma_i}         Kumar et al. 2020
      effective_rank    exp(-sum_i p_i ln p_i)                                           Roy & Vetterli 2007
      stable_rank       sum_i sigma_i^2 / sigma_1^2                                      Rudelson & Vershynin 2007
      approximate_rank  min{k : sum_{i<=k} sigma_i^2 >= (1 - delta) sum_i sigma_i^2}     Yang et al. 2019
      feature_rank      #{i : sigma_i / sqrt(N) > epsilon}                               Lyle et al. 2022

    Each is [L] float32 between 0 and U, 0 where all features are zero, NaN where one is not finite.

    Args:
      network: its wiring names the layers.
      memory_gb: gigabytes for activations, see `units`, and as much for Phi of all layers and what is made of it.
      delta: share of the spectrum that srank and approximate_rank leave out, 0 to 1.
      epsilon: threshold of feature_rank, not negative.
      max_rows: rows of Phi at most; convolutions have one row per input and position, and are thinned to this.

    Returns:
      A Diagnostic with five metrics of dimension layer.

    Raises:
      ValueError: a setting out of its range; while tracing, more rows than memory_gb holds.

    Deviations: copies that a non-linearity makes of a unit (crelu) are columns of their own, since the next layer reads
    them as such.

    >>> from plasticity_jax.base import Network, Wire
    >>> ranks(Network(init=None, apply=None, wiring=(Wire("fc0", (), ()),)), memory_gb=1.0).dims["srank"]
    {'layer': ('fc0',)}
    """
    check.between("ranks.delta", delta, 0.0, 1.0)
    check.at_least("ranks.epsilon", epsilon, 0.0)
    check.whole("ranks.max_rows", max_rows)
    layers = hidden_layers(network)

    def apply(key, state, learner, snapshot):
        inputs, found = len(snapshot.batch["weight"]), []
        _require_memory([snapshot.outputs.acts[layer] for layer in layers], max_rows, memory_gb)

        def features(outputs, weight, start):  # rows of other inputs are zero, so that parts add up
            acts = {layer: outputs.acts[layer] for layer in layers}
            return {layer: feature_matrix(h, weight, max_rows, start, inputs) for layer, h in acts.items()}

        for matrix, rows in over_inputs(network, memory_gb, key, learner, snapshot)(features).values():
            found.append(spectra.ranks_of(spectra.singular_values(matrix), rows, delta, epsilon))
        return state, {name: stack([rank[name] for rank in found]) for name in NAMES}

    return stateless(apply, {name: {"layer": layers} for name in NAMES})


def feature_matrix(acts, weight, max_rows: int = 8192, start=0, inputs=None):
    """The features of one layer as a matrix, with at most max_rows rows.

    Positions of a convolution and tokens are rows. Too many rows are thinned by a constant stride that shares no factor
    with the number of positions, so that every position is met equally often. Rows of weight 0 become zero, which adds
    nothing to any singular value.

    Args:
      acts: [B, U], [B, T, U] or [B, H, W, U] post-activations.
      weight: [B]; an input counts if it is positive.
      max_rows: a Python int.
      start: [] int32 number of the first input, where the B inputs are some of many; the rows of the others are zero.
      inputs: how many there are in all, a Python int; None: B.

    Returns:
      ([N, U] float32, [] int32 number of rows that count).

    >>> features, rows = feature_matrix(jnp.ones((2, 3, 3, 5)), jnp.array([1.0, 0.0]))
    >>> features.shape, int(rows)
    ((18, 5), 9)
    """
    positions = math.prod(acts.shape[1:-1])
    total = (inputs or acts.shape[0]) * positions
    chosen = jnp.arange(0, total, _stride(total, positions, max_rows)) - start * positions  # [N]
    here = (chosen >= 0) & (chosen < acts.shape[0] * positions)
    chosen = jnp.where(here, chosen, 0)
    counted = here & (row_weights(weight, acts)[chosen] > 0)
    rows = acts.reshape(-1, acts.shape[-1])[chosen].astype(jnp.float32)
    return jnp.where(counted[:, None], rows, 0.0), jnp.sum(counted)


def _stride(total, positions, max_rows):
    """The least stride that leaves at most max_rows of so many rows and shares no factor with the positions."""
    stride = -(-total // max_rows)
    while math.gcd(stride, positions) > 1:
        stride += 1
    return stride


def _require_memory(layers, max_rows, memory_gb):
    """Raise DoesNotFit where the matrices of these activations [B, ..., U] exceed memory_gb."""
    numbers = 0
    for acts in layers:
        positions = math.prod(acts.shape[1:-1])
        total = acts.shape[0] * positions
        numbers += -(-total // _stride(total, positions, max_rows)) * acts.shape[-1]
    needed = 4e-9 * COPIES * numbers
    if needed > memory_gb:
        raise DoesNotFit(
            f"ranks: the features of {len(layers)} layers take {needed:.2g} GB, but memory_gb={memory_gb:.3g}: raise "
            f"it, or lower ranks.max_rows={max_rows}."
        )
