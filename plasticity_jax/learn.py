"""The one gradient step: outputs, loss and penalties, gradient hooks, optimizer, update hooks.

Supervised training, RL and the plasticity probe all scan this step, so that none of them learns by rules of its own.
Letters: B examples of a batch, C classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax.base import Intervention, Learner, Snapshot, Variables
from plasticity_jax.keys import Purpose, for_step

__all__ = ["Learn", "accuracy", "first_learner", "learn", "weighted_mean"]


class Learn(NamedTuple):
    """Two functions of one network, objective, optimizer and intervention."""

    gradient: Callable  # (key, states, learner, snapshot, train) -> (snapshot with outputs, loss, gradients; stats)
    update: Callable  # (key, states, learner, snapshot) -> (snapshot with updates, optimizer state)
    step: Callable  # (key, states, learner, snapshot) -> (states, learner, snapshot)


def learn(network, objective, optimizer, intervention=Intervention()):  # noqa: B008 - an immutable record
    """The gradient step of one run.

    Args:
      network: Network.
      objective: Objective.
      optimizer: optax transformation; it is called with `clock=` as an extra argument.
      intervention: Intervention; several are joined by `schedule.chain`.

    Returns:
      Learn. `step` expects a Snapshot that holds clock, initial and batch, and fills in the rest.
    """
    optimizer = optax.with_extra_args_support(optimizer)

    def gradient(key, states, learner, snapshot, train=True):
        step = snapshot.clock.step

        def total(params):
            variables = learner.variables._replace(params=params)
            outputs, stats = network.apply(for_step(key, Purpose.NETWORK, step), variables, snapshot.batch["x"], train)
            loss = weighted_mean(objective.loss(outputs, snapshot.batch), snapshot.batch["weight"])
            seen = snapshot._replace(outputs=outputs, loss=loss)
            penalty = intervention.loss(for_step(key, Purpose.LOSS, step), states, params, seen)
            return loss + penalty, (seen, stats)

        gradients, (seen, stats) = jax.grad(total, has_aux=True)(learner.variables.params)
        return seen._replace(gradients=gradients), stats

    def update(key, states, learner, snapshot):
        hook_key = for_step(key, Purpose.GRADIENTS, snapshot.clock.step)
        gradients = intervention.gradients(hook_key, states, snapshot.gradients, learner, snapshot)
        updates, opt_state = optimizer.update(
            gradients, learner.opt_state, learner.variables.params, clock=snapshot.clock
        )
        return snapshot._replace(updates=updates), opt_state

    def step(key, states, learner, snapshot):
        snapshot, stats = gradient(key, states, learner, snapshot)
        snapshot, opt_state = update(key, states, learner, snapshot)
        params = optax.apply_updates(learner.variables.params, snapshot.updates)
        learner = learner._replace(variables=Variables(params, stats), opt_state=opt_state)
        hook_key = for_step(key, Purpose.UPDATE, snapshot.clock.step)
        states, learner = intervention.update(hook_key, states, learner, snapshot)
        return states, learner, snapshot

    return Learn(gradient, update, step)


def first_learner(key, network, optimizer, intervention, clock, batch):
    """A fresh learner and the first states of its interventions.

    Args:
      key: [] key of the run.
      network, optimizer, intervention: records.
      clock: Clock at step 0.
      batch: a first batch, from which the interventions learn shapes.

    Returns:
      (states of the interventions, Learner).
    """
    variables = network.init(for_step(key, Purpose.INIT))
    outputs, _ = network.apply(for_step(key, Purpose.NETWORK), variables, batch["x"], False)
    learner = Learner(variables, optimizer.init(variables.params))
    snapshot = Snapshot(clock, variables, batch, outputs)
    return intervention.init(for_step(key, Purpose.INTERVENTION), learner, snapshot)


def accuracy(scores, batch):
    """Weighted share of examples whose highest score is at their label.

    Args:
      scores: [B, ..., C]; the first of equal scores counts as the highest.
      batch: "y" [B, ...] class numbers, "weight" [B]; where it has "classes" [B, C] bool, the others cannot win.

    Returns:
      [] float32; NaN where "y" is not of an integer type, where a counted score is NaN, or where no example counts.

    >>> batch = {"y": jnp.array([1, 0]), "weight": jnp.array([3.0, 1.0])}
    >>> float(accuracy(jnp.array([[0.0, 1.0], [0.0, 1.0]]), batch))
    0.75
    """
    labels = batch["y"]
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        return jnp.float32(jnp.nan)
    if "classes" in batch:
        scores = jnp.where(batch["classes"], scores, -jnp.inf)
    hits = (jnp.argmax(scores, -1) == labels).astype(jnp.float32)
    return weighted_mean(jnp.where(jnp.any(jnp.isnan(scores), -1), jnp.nan, hits), batch["weight"])


def weighted_mean(values, weight, total=None):
    """sum_b w_b v_b / sum_b w_b, in float32.

    Args:
      values: [B, ...]; further axes are averaged.
      weight: [B] not negative; an example of weight 0 does not count, even if its value is NaN.
      total: [] what to divide by; None: the sum of the weights. A constant, for parts of a batch that are averaged.

    Returns:
      [] float32, NaN if all weights are 0.

    >>> float(weighted_mean(jnp.array([1.0, 5.0, jnp.nan]), jnp.array([1.0, 3.0, 0.0])))
    4.0
    """
    per_example = jnp.asarray(values, jnp.float32).reshape(values.shape[0], -1).mean(-1)  # [B]
    return jnp.sum(jnp.where(weight > 0, weight * per_example, 0.0)) / (jnp.sum(weight) if total is None else total)
