"""ONE run of supervised training on a stream of tasks: pure functions, a scan inside."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.base import Clock, Intervention, Snapshot, Trainer, TrainState
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import accuracy, first_learner, learn

__all__ = ["supervised"]


def supervised(
    network,
    objective,
    stream,
    optimizer,
    segment_steps,
    intervention=Intervention(),  # noqa: B008
    early_stopping=False,
):
    """A Trainer for supervised learning.

    Args:
      network: Network.
      objective: Objective.
      stream: Stream.
      optimizer: optax transformation.
      segment_steps: optimizer steps of one `run_segment`; it divides the length of every task.
      intervention: Intervention.
      early_stopping: score the network on the stream's validation split after each segment; the best one of a task, the
        first of several, is measured at its end and goes on into the next. The states of the optimizer and of the
        interventions go on as they are. Dohare et al. 2024 (CIFAR-100) score after each epoch.

    Returns:
      Trainer. `run_segment` reports `online_loss` and `online_accuracy`: means over the examples of the segment, each
      before the update that it causes; NaN for a run that had diverged before. `snapshot` holds the evaluation inputs
      of the task in `batch`, those of its test set in `batch["test"]`, and the update that the optimizer would make of
      the gradient on all of them.

    Raises:
      ValueError: early stopping on a stream without a validation split.
    """
    learning = learn(network, objective, optimizer, intervention)
    keep = _keep_best(network, objective, stream) if early_stopping else _KEEP_LAST

    def init(key, data):
        source = stream.init(key, data)
        batch = stream.sample(for_step(key, Purpose.BATCH), source, data, jnp.int32(0))
        start = Clock(jnp.int32(0), jnp.int32(0), jnp.int32(0))
        states, learner = first_learner(key, network, optimizer, intervention, start, batch)
        diverged = jnp.zeros((), bool)
        return TrainState(key, learner, learner.variables, states, source, diverged, keep.begin(learner))

    def advance(state, data, clock):
        before, state = state, keep.finish(state)
        source = stream.advance(for_step(state.key, Purpose.TASK, clock.task), state.source, data)
        batch = stream.sample(for_step(state.key, Purpose.BATCH, clock.step), source, data, jnp.int32(0))
        key = for_step(state.key, Purpose.ADVANCE)
        snapshot = Snapshot(clock, state.initial, batch)
        snapshot, _ = learning.gradient(key, state.interventions, state.learner, snapshot, train=False)
        key = for_step(state.key, Purpose.BOUNDARY, clock.step)
        states, learner = intervention.boundary(key, state.interventions, state.learner, snapshot)
        new = state._replace(source=source, learner=learner, interventions=states, best=keep.begin(learner))
        return _keep_diverged(before, new, state.diverged)

    def run_segment(state, data, clock):
        first = (state.interventions, state.learner)

        def step(carry, now):
            states, learner = tree.unravel(carry, first)
            key = for_step(state.key, Purpose.BATCH, now)
            batch = stream.sample(key, state.source, data, now - clock.start)
            snapshot = Snapshot(clock._replace(step=now), state.initial, batch)
            states, learner, snapshot = learning.step(state.key, states, learner, snapshot)
            scores = objective.predict(snapshot.outputs)
            return tree.ravel((states, learner)), (snapshot.loss, accuracy(scores, batch), jnp.sum(batch["weight"]))

        steps = clock.step + jnp.arange(segment_steps)
        # vectors are carried from step to step: on CPUs, loops over rows of odd length take more than twice as long
        last, (loss, hits, weight) = jax.lax.scan(step, tree.ravel(first), steps)
        states, learner = tree.unravel(last, first)
        finite = jnp.isfinite(loss).all() & jnp.isfinite(tree.norm(learner.variables.params))
        diverged = state.diverged | ~finite
        new = keep.score(state._replace(learner=learner, interventions=states, diverged=diverged), data)
        online = {"online_loss": loss, "online_accuracy": hits}
        return _keep_diverged(state, new, diverged), _segment_means(state.diverged, weight, online)

    def snapshot(state, data, clock):
        batch = stream.evaluate(state.source, data, "train")
        batch = {**batch, "test": stream.evaluate(state.source, data, "test")}
        key = for_step(state.key, Purpose.MEASURE)
        last = clock._replace(step=jnp.maximum(clock.step - 1, 0))  # a schedule is at the step that was taken last
        seen = Snapshot(last, state.initial, batch, interventions=state.interventions)
        seen, _ = learning.gradient(key, state.interventions, state.learner, seen, train=False)
        seen, _ = learning.update(key, state.interventions, state.learner, seen)
        return seen._replace(clock=clock)

    return Trainer(init, advance, run_segment, snapshot, stream.steps, keep.finish)


class _Keep(NamedTuple):
    """Which network of a task is measured at its end and goes on into the next."""

    begin: Callable  # (learner) -> best        at the beginning of a task
    score: Callable  # (state, data) -> state   after each segment
    finish: Callable  # (state) -> state


_KEEP_LAST = _Keep(lambda learner: (), lambda state, data: state, lambda state: state)


def _keep_best(network, objective, stream):
    """The network with the highest accuracy on the validation split; the first of several."""
    if "validation" not in stream.splits:
        raise ValueError(
            f"early_stopping=True, but the stream has no validation images, only {' and '.join(stream.splits)}: choose "
            "a stream that holds some out, such as class_incremental with validation=50."
        )

    def score(state, data):
        batch, variables = stream.evaluate(state.source, data, "validation"), state.learner.variables
        outputs, _ = network.apply(for_step(state.key, Purpose.MEASURE), variables, batch["x"], False)
        reached = accuracy(objective.predict(outputs), batch)
        is_better = reached > state.best[0]  # never where it is NaN
        best = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), (reached, variables), state.best)
        return state._replace(best=best)

    def finish(state):
        return state._replace(learner=state.learner._replace(variables=state.best[1]))

    return _Keep(lambda learner: (jnp.float32(-1.0), learner.variables), score, finish)


def _segment_means(diverged, weight, metrics):
    """Means over the examples of a segment; a run that had diverged before has none: what it computed is dropped."""
    means = {name: jnp.vdot(values, weight) / jnp.sum(weight) for name, values in metrics.items()}
    return {name: jnp.where(diverged, jnp.nan, mean) for name, mean in means.items()}


def _keep_diverged(old, new, diverged):
    """Where a run has diverged, what it has learned stays as it was; its task goes on, so that tasks stay aligned."""

    def choose(before, after):
        return jax.tree.map(lambda a, b: jnp.where(diverged, a, b), before, after)

    return new._replace(
        learner=choose(old.learner, new.learner),
        interventions=choose(old.interventions, new.interventions),
        best=choose(old.best, new.best),
    )
