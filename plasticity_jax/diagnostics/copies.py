"""Copies of a network that are fitted to targets: what all plasticity probes share.

A copy learns as the network does: its optimizer, its `gradients` hooks with their states, statistics of the batch where
a norm has them; but no dropout and no other hook. Its clock begins at 0, as that of the run did, so that a fit has the
same learning rates at every boundary and a network that did not change scores the same. Letters: T targets, n probe
inputs, B examples of a batch, K predicted values, M moments of a fit.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import check, tree
from plasticity_jax.base import Array, Clock, DoesNotFit, Intervention, Snapshot
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import first_learner, learn
from plasticity_jax.parts import evaluated

__all__ = ["Copies", "ProbeState", "Size", "exactly", "fitted_copies", "keys", "moments", "weighted_average"]

INPUTS, TARGETS, FITS = range(3)  # what the key of a run is folded with


class Size(NamedTuple):
    """How much a probe does."""

    targets: int
    steps: int  # of each fit
    inputs: int
    batch: int
    points: int = 2  # moments at which a fit is measured, before its first step and after its last included


class ProbeState(NamedTuple):
    """What a run keeps of a probe: drawn and measured once, before training."""

    key: Array  # [] of the batches: the same at every boundary, so that an unchanged network scores the same
    data: dict  # "x" [n, ...] and "weight" [n]
    targets: Array  # [T, n, K] float32, or labels [T, n] int32
    initial: dict  # name -> [T, M] of the run's own initial network
    fresh: dict  # name -> [T, M] of T networks that were initialised anew


class Copies(NamedTuple):
    """What a probe is made of."""

    init: Callable  # (key, learner, snapshot) -> ProbeState
    apply: Callable  # (state, learner, snapshot) -> {"" | "_carried": {name: [T, M]}} by whose optimizer state


def fitted_copies(name, network, objective, optimizer, intervention, memory_gb, size, draw, wanted, measure):
    """Copies of a network that are fitted to T targets each.

    Args:
      name: of the diagnostic, for errors.
      network, objective, optimizer, intervention: records; the objective is that of the fit.
      memory_gb: targets are fitted side by side as far as this allows, by an estimate; on CPUs one after another.
      size: Size.
      draw: (key, data) -> [T, ...] targets, for the data "x" [n, ...] and "weight" [n].
      wanted: (target, outputs, weight) -> "y" of all inputs, given what the network said of them before the fit.
      measure: (outputs, data) -> {name: []} at each moment, over all inputs in evaluation mode.

    Returns:
      Copies. Both functions raise DoesNotFit, while they are traced, where one training step exceeds memory_gb.
    """
    check.fixed("memory_gb", memory_gb)
    fit = _fit(network, objective, optimizer, intervention, memory_gb, size, wanted, measure)

    def over_targets(fit_one, state, learner):
        """fit_one(key, order, target) for each target, in the same order of examples: {name: [T, M]}."""
        order = _order(for_step(state.key, Purpose.BATCH), size)
        at_once = _at_once(name, memory_gb, network, learner, state.data["x"], size)
        targets = (keys(for_step(state.key, Purpose.TASK), size.targets), state.targets)
        together = None if at_once == 1 else at_once
        return jax.lax.map(lambda pair: fit_one(pair[0], order, pair[1]), targets, batch_size=together)

    def init(key, learner, snapshot):
        data = _inputs(jax.random.fold_in(key, INPUTS), snapshot.batch, size.inputs)
        targets = draw(jax.random.fold_in(key, TARGETS), data)
        state = ProbeState(jax.random.fold_in(key, FITS), data, targets, {}, {})
        batch = {name: value[: size.batch] for name, value in snapshot.batch.items() if name != "test"}

        def of_the_run(key, order, target):
            return fit(key, order, target, data, learner, snapshot)

        def of_a_fresh_network(key, order, target):
            own = for_step(key, Purpose.INIT)
            states, new = first_learner(own, network, optimizer, intervention, snapshot.clock, batch)
            seen = Snapshot(snapshot.clock, new.variables, {}, interventions=states)
            return fit(key, order, target, data, new, seen)

        initial, fresh = (over_targets(f, state, learner) for f in (of_the_run, of_a_fresh_network))
        return state._replace(initial=initial, fresh=fresh)

    def apply(state, learner, snapshot):
        def of_a_copy(learner):
            def fit_one(key, order, target):
                return fit(key, order, target, state.data, learner, snapshot)

            return over_targets(fit_one, state, learner)

        fresh = learner._replace(opt_state=optimizer.init(learner.variables.params))
        # one after the other in one loop, which is compiled once
        curves = jax.lax.map(of_a_copy, jax.tree.map(lambda *a: jnp.stack(a), fresh, learner))
        return {"": jax.tree.map(lambda a: a[0], curves), "_carried": jax.tree.map(lambda a: a[1], curves)}

    return Copies(init, apply)


def _fit(network, objective, optimizer, intervention, memory_gb, size, wanted, measure):
    """(key, order, target, data, learner, snapshot) -> {name: [M]}: one copy, fitted to one target."""
    without_dropout = network._replace(apply=lambda key, *rest: network.apply(None, *rest))
    learning = learn(without_dropout, objective, optimizer, Intervention(gradients=intervention.gradients))

    def fit(key, order, target, data, learner, snapshot):
        def outputs_of(learner):
            return exactly(network, learner.variables, data["x"], memory_gb / size.targets)

        def step(carry, now):
            i, rows = now
            clock = Clock(i, jnp.int32(0), jnp.int32(0))
            seen = Snapshot(clock, snapshot.initial, jax.tree.map(lambda a: a[rows], data))
            _, new, _ = learning.step(key, snapshot.interventions, tree.unravel(carry, learner), seen)
            return tree.ravel(new), None

        def stretch(carry, steps):
            carry, _ = jax.lax.scan(step, carry, steps)
            return carry, measure(outputs_of(tree.unravel(carry, learner)), data)

        before = outputs_of(learner)
        data = {**data, "y": wanted(target, before, data["weight"])}
        # vectors are carried from step to step, as in train.py
        stretches = jax.tree.map(
            lambda a: a.reshape(size.points - 1, -1, *a.shape[1:]), (jnp.arange(size.steps), order)
        )
        _, later = jax.lax.scan(stretch, tree.ravel(learner), stretches)
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), measure(before, data), later)

    return fit


def exactly(network, variables, x, memory_gb):
    """`parts.evaluated` at the highest precision."""
    with jax.default_matmul_precision("highest"):
        return evaluated(network, None, variables, x, memory_gb)


def moments(size):
    """The steps at which a fit is measured: a tuple of M ints at equal distances.

    >>> moments(Size(targets=1, steps=10, inputs=8, batch=4, points=3))
    (0, 5, 10)
    """
    return tuple(range(0, size.steps + 1, size.steps // (size.points - 1)))


def keys(key, count):
    """[count] keys that are folded from one."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(count))


def weighted_average(values, weight):
    """[K] weighted mean over the inputs of [n, K]; a sum, for a matrix product may be less exact."""
    return jnp.sum(values * weight[:, None], 0) / jnp.sum(weight)


def _inputs(key, batch, count):
    """Rows of a batch, without replacement; those of weight 0 only where there are no others."""
    weight = batch["weight"]
    rows = jnp.argsort(jax.random.uniform(key, weight.shape) + (weight <= 0))[:count]
    return {"x": batch["x"][rows], "weight": weight[rows]}


def _order(key, size):
    """[steps, B] rows: one permutation after another; batches run across them, and every row comes equally often."""
    epochs = -(-size.steps * size.batch // size.inputs)
    rows = jax.vmap(lambda key: jax.random.permutation(key, size.inputs))(keys(key, epochs))
    return rows.reshape(-1)[: size.steps * size.batch].reshape(size.steps, size.batch)


def _at_once(name, memory_gb, network, learner, x, size):
    """How many targets are fitted side by side, a divisor of their number; DoesNotFit where it would be none."""
    outputs = jax.eval_shape(lambda: network.apply(None, learner.variables, x[: size.batch], False)[0])
    # learner, gradients and next learner; activations, what the backward pass makes of them, and as much again; batches
    floats = 3 * tree.size((learner, outputs)) + 2 * tree.size(x[: size.batch])
    most = memory_gb * 1e9 // (4 * floats)
    if most < 1:
        raise DoesNotFit(
            f"{name}: a training step of {size.batch} inputs takes {4e-9 * floats:.2g} GB, but memory_gb="
            f"{memory_gb:.3g}: raise it, or lower {name}.batch."
        )
    if jax.default_backend() == "cpu":
        return 1  # side by side, they push each other out of the cache
    return max(count for count in range(1, size.targets + 1) if size.targets % count == 0 and count <= most)
