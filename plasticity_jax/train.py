"""ONE run of supervised training on a stream of tasks: pure functions, a scan inside.

Letters: S optimizer steps of a segment, P parts of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.base import Clock, Intervention, Snapshot, Trainer, TrainState
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import accuracy, first_learner, learn, weighted_mean
from plasticity_jax.schedule import when

__all__ = ["online_dims", "supervised"]


def supervised(
    network,
    objective,
    stream,
    optimizer,
    segment_steps,
    intervention=Intervention(),  # noqa: B008 - an immutable record
    early_stopping=False,
    parts=10,
    plasticity_every=100,
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
      parts: P; the segment is cut into so many parts, as equal as whole steps allow, for the curves inside it.
      plasticity_every: every so many steps the loss on the batch is taken again after the update; 0: never.

    Returns:
      Trainer. `run_segment` reports, of examples before the update that they cause, NaN for a run that had diverged:
      `online_loss` and `online_accuracy`, means over the segment; `online_loss_curve` and `online_accuracy_curve` [P],
      means over each part. And `online_plasticity`, the mean of clip(1 - after / max(before, 1e-8), 0, 1) over the
      steps at which the batch's loss is taken before and after the update, with the same key and in training mode
      (UPGD, Elsayed and Mahmood 2024, arXiv 2404.00781); NaN where it is never taken. `snapshot` holds the
      evaluation inputs of the task in `batch`, those of its test set in `batch["test"]`, and the update that the
      optimizer would make of the gradient on all of them.

    Raises:
      ValueError: early stopping on a stream without a validation split.
    """
    learning = learn(network, objective, optimizer, intervention)
    ends = [round(segment_steps * (part + 1) / parts) for part in range(parts)]
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
            online = {"loss": snapshot.loss, "accuracy": accuracy(scores, batch)}
            if plasticity_every:
                due = now % plasticity_every == 0
                online["plasticity"] = when(due, gained, jnp.float32(jnp.nan), learner.variables, state.key, snapshot)
            return tree.ravel((states, learner)), (online, jnp.sum(batch["weight"]))

        steps = clock.step + jnp.arange(segment_steps)
        # vectors are carried from step to step: on CPUs, loops over rows of odd length take more than twice as long
        last, (online, weight) = jax.lax.scan(step, tree.ravel(first), steps)
        states, learner = tree.unravel(last, first)
        finite = jnp.isfinite(online["loss"]).all() & jnp.isfinite(tree.norm(learner.variables.params))
        diverged = state.diverged | ~finite
        new = keep.score(state._replace(learner=learner, interventions=states, diverged=diverged), data)
        return _keep_diverged(state, new, diverged), _segment_means(state.diverged, weight, online, ends)

    def gained(_, variables, key, snapshot):
        """How much of the batch's loss the update took away, 0 to 1."""
        key, batch = for_step(key, Purpose.NETWORK, snapshot.clock.step), snapshot.batch
        outputs, _ = network.apply(key, variables, batch["x"], True)
        after = weighted_mean(objective.loss(outputs, batch), batch["weight"])
        return jnp.clip(1.0 - after / jnp.maximum(snapshot.loss, 1e-8), 0.0, 1.0)

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


def online_dims(segments, parts=10):
    """Name -> {dimension: labels} after (run, task) of what `run_segment` reports."""
    whole, curve = {"segment": segments}, {"segment": segments, "part": parts}
    names = {"online_loss": whole, "online_accuracy": whole, "online_plasticity": whole}
    return names | {"online_loss_curve": curve, "online_accuracy_curve": curve}


def _segment_means(diverged, weight, online, ends):
    """Means over the examples of a segment; a run that had diverged before has none: what it computed is dropped."""

    def mean(name, part=slice(None)):
        return jnp.vdot(online[name][part], weight[part]) / jnp.sum(weight[part])

    means = {f"online_{name}": mean(name) for name in ("loss", "accuracy")}
    means["online_plasticity"] = jnp.nanmean(online.get("plasticity", jnp.full(1, jnp.nan)))
    parts = [slice(*bounds) for bounds in zip([0, *ends], ends, strict=False)]
    for name in ("loss", "accuracy"):
        means[f"online_{name}_curve"] = jnp.stack([mean(name, part) for part in parts])  # [P]
    return {name: jnp.where(diverged, jnp.nan, value) for name, value in means.items()}


def _keep_diverged(old, new, diverged):
    """Where a run has diverged, what it has learned stays as it was; its task goes on, so that tasks stay aligned."""

    def choose(before, after):
        return jax.tree.map(lambda a, b: jnp.where(diverged, a, b), before, after)

    return new._replace(
        learner=choose(old.learner, new.learner),
        interventions=choose(old.interventions, new.interventions),
        best=choose(old.best, new.best),
    )
