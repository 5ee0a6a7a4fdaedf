"""Evaluation inputs in parts whose activations fit in memory: what is measured on many inputs is summed over parts.

Networks in evaluation mode treat every input by itself, so that sums over parts are those over all inputs. Letters: N
inputs, B those of a part, P parts.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.base import DoesNotFit, Outputs

__all__ = ["evaluated", "evaluation_gradient", "fitting", "split", "summed"]

COPIES = 4  # of what a network gives out: for a Hessian product values, tangents, and what each of them sends back


def fitting(outputs, memory_gb):
    """How many inputs may be processed at once: those whose activations fit in memory, about; an int, 1 or more.

    DoesNotFit where not even those of one input do.

    Args:
      outputs: Outputs of some inputs, or their shapes: activations are counted four times.
      memory_gb: gigabytes for them.

    >>> fitting(Outputs(jnp.zeros((10, 5)), {"a": jnp.zeros((10, 20))}, {}), memory_gb=2e-6)  # 4 * 4 * 25 = 400 bytes
    5
    """
    inputs = jax.tree.leaves(outputs)[0].shape[0]
    bytes_each = COPIES * 4 * tree.size(outputs) / inputs
    most = int(memory_gb * 1e9 / bytes_each)
    if most < 1:
        raise DoesNotFit(
            f"The activations of one evaluation input take {bytes_each / 1e9:.2g} GB, but memory_gb={memory_gb:.3g}: "
            "raise it."
        )
    return min(inputs, most)


def split(batch, size):
    """The batch in parts of one size; copies of the last row, of weight 0, fill the last part.

    Args:
      batch: tree of [N, ...] with "weight" [N] at its top.
      size: B.

    Returns:
      Tree of [P, B, ...].

    >>> {name: part.tolist() for name, part in split({"x": jnp.arange(3), "weight": jnp.ones(3)}, 2).items()}
    {'weight': [[1.0, 1.0], [1.0, 0.0]], 'x': [[0, 1], [2, 2]]}
    """
    count = len(batch["weight"])
    rows = jnp.arange(-(-count // size) * size)
    parts = jax.tree.map(lambda a: a[jnp.minimum(rows, count - 1)].reshape(-1, size, *a.shape[1:]), batch)
    return {**parts, "weight": jnp.where(rows.reshape(-1, size) < count, parts["weight"], 0.0)}


def summed(f, batch, size):
    """The sum of f(part) over the parts of a batch; arguments as for `split`."""
    parts = split(batch, size)
    shapes = jax.eval_shape(f, jax.tree.map(lambda a: a[0], parts))
    zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    return jax.lax.scan(lambda total, part: (jax.tree.map(jnp.add, total, f(part)), None), zeros, parts)[0]


def evaluated(network, key, variables, x, memory_gb):
    """What the network says of all inputs in evaluation mode: Outputs with y alone.

    Args:
      network: Network.
      key: [] as `network.apply` takes it.
      variables: Variables.
      x: [N, ...].
      memory_gb: gigabytes for activations.
    """
    size = fitting(jax.eval_shape(lambda: network.apply(key, variables, x, False)[0]), memory_gb)
    if size >= len(x):
        return Outputs(network.apply(key, variables, x, False)[0].y, {}, {})
    parts = split({"x": x, "weight": jnp.ones(len(x))}, size)["x"]
    y = jax.lax.map(lambda part: network.apply(key, variables, part, False)[0].y, parts)
    return Outputs(y.reshape(-1, *y.shape[2:])[: len(x)], {}, {})


def evaluation_gradient(learning, network, key, state, snapshot, memory_gb):
    """`learning.gradient` in evaluation mode, on inputs of any number.

    Args:
      learning: learn.Learn.
      network: Network.
      key: [] as `learning.gradient` takes it.
      state: TrainState.
      snapshot: Snapshot with clock, initial and batch.
      memory_gb: gigabytes for activations.

    Returns:
      The snapshot with outputs, loss and gradients. Where it works in parts, the activations among the outputs are
      those of a forward pass of all inputs, which is only made, and only takes memory, where somebody reads them.
    """
    variables, batch = state.learner.variables, {name: a for name, a in snapshot.batch.items() if name != "test"}
    outputs = jax.eval_shape(lambda: network.apply(key, variables, batch["x"], False)[0])
    size = fitting(outputs, memory_gb)
    if size >= len(batch["weight"]):
        return learning.gradient(key, state.interventions, state.learner, snapshot, train=False)[0]

    def of_a_part(part):
        seen = snapshot._replace(batch=part)
        seen, _ = learning.gradient(key, state.interventions, state.learner, seen, train=False)
        weight = jnp.sum(part["weight"])
        # in float32, since there may be many parts
        return weight, jax.tree.map(lambda a: jnp.where(weight > 0, weight * a, 0.0), (seen.loss, seen.gradients))

    total, sums = summed(of_a_part, batch, size)
    loss, gradients = jax.tree.map(lambda a: a / total, sums)
    gradients = jax.tree.map(lambda g, p: g.astype(p.dtype), gradients, variables.params)
    y = evaluated(network, key, variables, batch["x"], memory_gb).y
    outputs = network.apply(key, variables, batch["x"], False)[0]._replace(y=y)
    return snapshot._replace(outputs=outputs, loss=loss, gradients=gradients)
