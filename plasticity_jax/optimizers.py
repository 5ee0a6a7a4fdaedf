"""Optimizers of optax by name, and schedules of the learning rate that restart with a task or span the run.

Every float setting may be a traced scalar, so that it can be an axis of the grid. Schedules read the host's clock,
which an optimizer is called with, and not a counter of their own: they survive resets of its state.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax import check, tree

__all__ = ["OPTIMIZERS", "SCHEDULES", "Horizon", "scheduled"]

SPANS = ("task", "run")


class Horizon(NamedTuple):
    """How long the tasks of a run are: what a schedule must know."""

    tasks: int
    steps: Callable  # (task) -> int


def sgd(learning_rate: float = 1e-2, weight_decay: float = 0.0):
    """Plain gradient descent: update = -learning_rate * (g + weight_decay * theta), biases decayed too."""
    check.at_least("learning_rate", learning_rate, 0.0)
    check.at_least("weight_decay", weight_decay, 0.0)
    return _on_vectors(optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate)))


def momentum(
    learning_rate: float = 1e-2, momentum: float = 0.9, nesterov: bool = False, weight_decay: float = 0.0
):  # fmt: skip
    """Gradient descent with heavy-ball or Nesterov momentum of g + weight_decay * theta, as PyTorch's SGD has it."""
    check.at_least("learning_rate", learning_rate, 0.0)
    check.fraction("momentum", momentum)
    check.at_least("weight_decay", weight_decay, 0.0)
    return _on_vectors(
        optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum, nesterov))
    )


def adam(
    learning_rate: float = 1e-3, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
):  # fmt: skip
    """Adam: update = -learning_rate * m / (sqrt(v + eps_root) + eps), with m and v bias-corrected.

    The tuned Adam of Lyle et al. 2023 (Figure 1) is b2=0.9, eps=1e-9, eps_root=1e-3; their default has eps=1e-9.
    """
    _check_adam(learning_rate, b1, b2, eps, eps_root)
    return _on_vectors(optax.chain(_scale_by_adam(b1, b2, eps, eps_root), optax.scale_by_learning_rate(learning_rate)))


def adamw(
    learning_rate: float = 1e-3,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    eps_root: float = 0.0,
    weight_decay: float = 1e-2,
):
    """Adam with decoupled decay: all parameters, biases too, also shrink by learning_rate * weight_decay a step."""
    _check_adam(learning_rate, b1, b2, eps, eps_root)
    check.at_least("weight_decay", weight_decay, 0.0)
    return _on_vectors(
        optax.chain(
            _scale_by_adam(b1, b2, eps, eps_root),
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(learning_rate),
        )
    )


def rmsprop(
    learning_rate: float = 1e-3, decay: float = 0.9, eps: float = 1e-8, momentum: float = 0.0, centered: bool = False
):
    """RMSProp as in optax: update = -learning_rate * g / sqrt(v + eps), v the running mean of g^2."""
    check.at_least("learning_rate", learning_rate, 0.0)
    check.fraction("decay", decay)
    check.positive("eps", eps)
    check.fraction("momentum", momentum)
    return _on_vectors(optax.rmsprop(learning_rate, decay, eps, centered=centered, momentum=momentum))


def muon(
    learning_rate: float = 2e-2, momentum: float = 0.95, weight_decay: float = 0.0, adam_learning_rate: float = 1e-3
):
    """Muon for matrices, Adam for all other parameters (optax.contrib.muon)."""
    check.at_least("learning_rate", learning_rate, 0.0)
    check.fraction("momentum", momentum)
    check.at_least("weight_decay", weight_decay, 0.0)
    check.at_least("adam_learning_rate", adam_learning_rate, 0.0)
    return optax.contrib.muon(
        learning_rate, beta=momentum, weight_decay=weight_decay, adam_learning_rate=adam_learning_rate
    )


OPTIMIZERS = {"adam": adam, "adamw": adamw, "momentum": momentum, "muon": muon, "rmsprop": rmsprop, "sgd": sgd}


def constant(horizon, warmup: float = 0.0, span: str = "task"):
    """The factor 1 throughout, after a linear rise over the first `warmup` share of the span.

    A schedule is a function clock -> factor of the learning rate, or None where it is always 1. All of them take

    Args:
      horizon: Horizon of the run.
      warmup: share of the span, in [0, 1), over which the factor rises linearly to 1; its first step is not 0.
      span: "task" starts anew at every task, "run" goes once from the first step of the run to the last.

    Raises:
      ValueError: shares outside their range, an unknown span.
    """
    if not isinstance(warmup, jax.core.Tracer) and warmup == 0.0:
        check.known("span", span, SPANS)
        return None
    return _factor(horizon, warmup, span, lambda progress: jnp.ones(()))


def step(horizon, milestones: tuple = (0.5, 0.75), decay: float = 0.1, warmup: float = 0.0, span: str = "task"):
    """`decay` to the power of the milestones (shares of the span) that have passed; the rest as for `constant`."""
    check.at_least("decay", decay, 0.0)
    for milestone in milestones:
        check.between("milestones", milestone, 0.0, 1.0)

    def shape(progress):
        return decay ** sum((progress >= milestone).astype(jnp.float32) for milestone in milestones)

    return _factor(horizon, warmup, span, shape)


def cosine(horizon, final: float = 0.0, warmup: float = 0.0, span: str = "task"):
    """From 1 to `final` along half a cosine after the warm-up; the rest as for `constant`."""
    check.between("final", final, 0.0, 1.0)

    def shape(progress):
        rest = (progress - warmup) / (1.0 - warmup)
        return final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * rest))

    return _factor(horizon, warmup, span, shape)


SCHEDULES = {"constant": constant, "cosine": cosine, "step": step}


def scheduled(optimizer, factor):
    """`optimizer` with its updates multiplied by factor(clock); it must then be called with `clock=`.

    Args:
      optimizer: optax transformation.
      factor: what a schedule returned; None leaves the optimizer as it is.
    """
    if factor is None:
        return optimizer

    def update(updates, state, params=None, *, clock=None, **extra):
        del params, extra
        if clock is None:
            raise ValueError("A schedule needs the clock: call update(..., clock=Clock(step, task, start)).")
        return jax.tree.map(lambda u: u * factor(clock), updates), state

    return optax.chain(optimizer, optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update))


def _scale_by_adam(b1, b2, eps, eps_root):
    """optax.scale_by_adam to rounding, with its state, and one division per entry where that has three."""

    def init(params):
        return optax.ScaleByAdamState(
            jnp.zeros((), jnp.int32), jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params)
        )

    def update(gradients, state, params=None):
        del params
        count = optax.safe_increment(state.count)
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * (g * g), state.nu, gradients)
        unbias_mu, unbias_nu = (1.0 / (1.0 - jnp.asarray(b, jnp.float32) ** count) for b in (b1, b2))
        updates = jax.tree.map(lambda m, v: unbias_mu * m / (jnp.sqrt(unbias_nu * v + eps_root) + eps), mu, nu)
        return updates, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _on_vectors(optimizer):
    """An optimizer that treats every entry alike, run on raveled leaves: see `tree.ravel` in train.py for why."""

    def update(gradients, state, params):
        vectors = tree.moments(jnp.ravel, state, params)
        updates, new = optimizer.update(tree.ravel(gradients), vectors, tree.ravel(params))
        return tree.unravel(updates, params), tree.unravel(new, state)

    return optax.GradientTransformation(optimizer.init, update)


def _check_adam(learning_rate, b1, b2, eps, eps_root):
    check.at_least("learning_rate", learning_rate, 0.0)
    check.fraction("b1", b1)
    check.fraction("b2", b2)
    check.at_least("eps", eps, 0.0)
    check.at_least("eps_root", eps_root, 0.0)
    check.positive("eps + eps_root", eps + eps_root)  # else a gradient of 0 divides 0 by 0


def _factor(horizon, warmup, span, shape):
    """Clock -> factor: a linear rise over `warmup`, then shape(progress), progress in [0, 1) through the span."""
    check.known("span", span, SPANS)
    check.between("warmup", warmup, 0.0, 0.999)
    lengths = [horizon.steps(task) for task in range(horizon.tasks)]

    def factor(clock):
        if span == "task":
            length = jnp.asarray(lengths, jnp.float32)[jnp.minimum(clock.task, horizon.tasks - 1)]
            taken = clock.step - clock.start
        else:
            length, taken = jnp.float32(sum(lengths)), clock.step
        rise = (taken + 1) / jnp.maximum(warmup * length, 1.0)
        progress = jnp.minimum(taken / length, 1.0)  # a probe may take more steps than the task or the run has left
        return jnp.where(taken < warmup * length, jnp.minimum(rise, 1.0), shape(progress))

    return factor
