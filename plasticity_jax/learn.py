"""The one gradient step: outputs, loss and penalties, gradient hooks, optimizer, update hooks.

Supervised training, RL and the plasticity probe all scan this step, so that none of them learns by rules of its own.
Letters: B examples of a batch.
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


def weighted_mean(values, weight):
    """sum(weight * values) / sum(weight): [] float, NaN where all weights are 0.

    Args:
      values: [B] float.
      weight: [B] float, 0 for examples that do not count.
    """
    return jnp.sum(values * weight) / jnp.sum(weight)


def accuracy(scores, batch):
    """The weighted share of examples whose highest score is their label: [] float; NaN for other than integer labels.

    Args:
      scores: [B, classes] what Objective.predict returns.
      batch: dict with "y" [B] and "weight" [B].
    """
    if not jnp.issubdtype(batch["y"].dtype, jnp.integer):
        return jnp.full((), jnp.nan)
    return weighted_mean((jnp.argmax(scores, -1) == batch["y"]).astype(jnp.float32), batch["weight"])
