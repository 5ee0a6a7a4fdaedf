"""What the families of diagnostics share: names of layers, kernels, counted inputs, the loss of the task.

Letters: B inputs, L layers, N rows (inputs, or inputs times positions), U units.
"""

import math
import re

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.base import Diagnostic, DoesNotFit
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import weighted_mean
from plasticity_jax.parts import fitting, summed
from plasticity_jax.tree import path_name

__all__ = [
    "first",
    "hidden_layers",
    "kernels",
    "over_inputs",
    "require_memory",
    "row_weights",
    "stack",
    "stateless",
    "task_loss",
    "to_float32",
    "unknown",
    "weight_layers",
]


def hidden_layers(network):
    """Names of the hidden layers, in the order of the wiring: a tuple of str.

    >>> from plasticity_jax.base import Network, Wire
    >>> hidden_layers(Network(init=None, apply=None, wiring=(Wire("fc0", (), ()), Wire("fc1", (), ()))))
    ('fc0', 'fc1')
    """
    return tuple(wire.layer for wire in network.wiring)


def kernels(params):
    """The kernels among the parameters, by the name of their layer.

    A kernel is a leaf called "kernel" of at least two dimensions; its layer is its path without that last part.

    Args:
      params: a tree of arrays, or of their shapes.

    Returns:
      {layer name: leaf}, numbers in names in their order: fc2 before fc10.

    >>> fc0, conv = {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}, {"kernel": jnp.ones((3, 3, 1, 4))}
    >>> {name: kernel.shape for name, kernel in kernels({"fc0": fc0, "block": {"conv": conv}}).items()}
    {'block/conv': (3, 3, 1, 4), 'fc0': (3, 2)}
    """
    found = {
        path_name(path[:-1]): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
        if path_name(path[-1:]) == "kernel" and len(leaf.shape) >= 2
    }
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def _natural(name):
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def weight_layers(network):
    """Names of the layers that have a kernel, found from shapes alone: a tuple of str."""
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0)))
    return tuple(kernels(shapes.params))


def row_weights(weight, values):
    """The weight of every row of values that are flattened to [N, U].

    Args:
      weight: [B] of the inputs.
      values: [B, ..., U]; every position of an input has the input's weight.

    Returns:
      [N], N = B times the number of positions.

    >>> row_weights(jnp.array([1.0, 0.0]), jnp.zeros((2, 3, 5))).tolist()
    [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    """
    return jnp.repeat(weight, math.prod(values.shape[1:-1]))


def stateless(apply, dims):
    """A Diagnostic that keeps nothing between two measurements."""
    return Diagnostic(lambda key, learner, snapshot: (), apply, dims)


def unknown(count):
    """[count] float32 NaN; of a fixed type, so that a program traced with them serves what replaces them."""
    return jnp.full(count, jnp.nan, jnp.float32)


def stack(values):
    """[L] float32 of L scalars; L may be 0, a network without hidden layers."""
    return jnp.stack([jnp.asarray(value, jnp.float32) for value in values]) if values else jnp.zeros(0, jnp.float32)


def to_float32(tree):
    """The tree in float32, so that sums over half-precision parameters are taken in float32."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), tree)


def first(batch, count):
    """The first `count` inputs of a batch, fewer where it has fewer, without the test inputs that come with it."""
    return jax.tree.map(lambda x: x[:count], {name: value for name, value in batch.items() if name != "test"})


def task_loss(network, objective, learner, batch, key):
    """The mean loss of a batch as a function of the parameters, in evaluation mode and without penalties.

        loss(params, part) = sum_b w_b loss_b / (B_part mean w),   b over the part, mean w over the whole batch

    Args:
      network, objective: records.
      learner: gives what is not trained.
      batch: dict of [B, ...], from `first`.
      key: [] key of the measurement.

    Returns:
      (params, part) -> [] float32. A part is the batch or some of its inputs: the mean over parts of one size is the
      loss of the whole, though the weights of the inputs differ.
    """
    mean_weight = jnp.mean(batch["weight"])

    def loss(params, part):
        variables = learner.variables._replace(params=params)
        outputs, _ = network.apply(for_step(key, Purpose.NETWORK), variables, part["x"], False)
        weight = part["weight"]
        return weighted_mean(objective.loss(outputs, part), weight, mean_weight * len(weight))

    return loss


def require_memory(name, vectors, params, memory_gb):
    """Gigabytes that so many vectors like the parameters leave for activations, a quarter of memory_gb at least.

    Vectors cannot be cut in parts: DoesNotFit where they alone exceed memory_gb.
    """
    parameters = tree.size(params)
    needed = 4e-9 * vectors * parameters
    if needed > memory_gb:
        raise DoesNotFit(
            f"{name} takes {vectors} vectors of {parameters:,} parameters, {needed:.2g} GB, but memory_gb="
            f"{memory_gb:.3g}: raise it, or take less."
        )
    return max(memory_gb - needed, memory_gb / 4)


def over_inputs(network, memory_gb, key, learner, snapshot):
    """Sums over the evaluation inputs, in parts where the activations of all of them would take too much memory.

    Args:
      network: evaluates the parts.
      memory_gb: gigabytes for activations.
      key, learner, snapshot: as a diagnostic has them.

    Returns:
      statistics -> tree of sums, for statistics(outputs, weight [B], start) -> tree of sums over the B inputs of a
      part, whose first one has the number `start`.
    """
    outputs, weight = snapshot.outputs, snapshot.batch["weight"]
    size = fitting(outputs, memory_gb)

    def total(statistics):
        if size >= len(weight):
            return statistics(outputs, weight, 0)

        def of_a_part(part):
            seen, _ = network.apply(key, learner.variables, part["x"], False)
            return statistics(seen, part["weight"], part["number"][0])

        batch = {"x": snapshot.batch["x"], "weight": weight, "number": jnp.arange(len(weight))}
        return summed(of_a_part, batch, size)

    return total
