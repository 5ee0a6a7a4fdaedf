"""ONE run of supervised training on a stream of tasks: pure functions, a scan inside."""

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.base import Clock, Intervention, Snapshot, Trainer, TrainState
from plasticity_jax.early_stopping import KEEP_LAST, keep_best
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import first_learner, learn
from plasticity_jax.online import online
from plasticity_jax.parts import evaluation_gradient

__all__ = ["supervised"]


def supervised(
    network,
    objective,
    stream,
    optimizer,
    segment_steps,
    intervention=Intervention(),  # noqa: B008 - an immutable record
    early_stopping=False,
    memory_gb=1.0,
    **online_settings,
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
      memory_gb: gigabytes for the activations of evaluation inputs; beyond that they are taken in parts.
      **online_settings: `parts` and `plasticity_every` of `online.online`.

    Returns:
      Trainer. `run_segment` reports what `online.online` measures. `snapshot` holds the evaluation inputs of the task
      in `batch`, those of its test set in `batch["test"]`, and the update that the optimizer would make of the gradient
      on all of them.

    Raises:
      ValueError: early stopping on a stream without a validation split.
    """
    learning = learn(network, objective, optimizer, intervention)
    watch = online(network, objective, segment_steps, **online_settings)
    keep = keep_best(network, objective, stream, memory_gb) if early_stopping else KEEP_LAST

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

    run_segment = _segment(learning, stream, watch, keep, segment_steps)
    snapshot = _snapshot(learning, network, stream, memory_gb)
    return Trainer(init, advance, run_segment, snapshot, stream.steps, keep.finish)


def _segment(learning, stream, watch, keep, segment_steps):
    """`Trainer.run_segment`: one scan over stretches of steps, after each of which `watch` may look closer."""

    def run_segment(state, data, clock):
        first = (state.interventions, state.learner)

        def step(carry, now):
            states, learner = tree.unravel(carry, first)
            key = for_step(state.key, Purpose.BATCH, now)
            batch = stream.sample(key, state.source, data, now - clock.start)
            snapshot = Snapshot(clock._replace(step=now), state.initial, batch)
            states, learner, snapshot = learning.step(state.key, states, learner, snapshot)
            return tree.ravel((states, learner)), watch.step(snapshot)

        def stretch(carry, steps):
            carry, found = jax.lax.scan(step, carry, steps)
            now, variables = steps[-1], tree.unravel(carry, first)[1].variables
            batch = stream.sample(for_step(state.key, Purpose.BATCH, now), state.source, data, now - clock.start)
            return carry, (found, watch.look(state.key, now, variables, batch, found["loss"][-1]))

        steps = clock.step + jnp.arange(segment_steps).reshape(-1, watch.stretch)
        # vectors are carried from step to step: on CPUs, loops over rows of odd length take more than twice as long
        last, (found, gained) = jax.lax.scan(stretch, tree.ravel(first), steps)
        found = jax.tree.map(lambda a: a.reshape(-1), found)
        states, learner = tree.unravel(last, first)
        finite = jnp.isfinite(found["loss"]).all() & jnp.isfinite(tree.norm(learner.variables.params))
        diverged = state.diverged | ~finite
        new = keep.score(state._replace(learner=learner, interventions=states, diverged=diverged), data)
        return _keep_diverged(state, new, diverged), watch.segment(state.diverged, found, gained)

    return run_segment


def _snapshot(learning, network, stream, memory_gb):
    """`Trainer.snapshot`: what the learner does on the evaluation inputs, and the update that would follow."""

    def snapshot(state, data, clock):
        batch = stream.evaluate(state.source, data, "train")
        batch = {**batch, "test": stream.evaluate(state.source, data, "test")}
        key = for_step(state.key, Purpose.MEASURE)
        last = clock._replace(step=jnp.maximum(clock.step - 1, 0))  # a schedule is at the step that was taken last
        seen = Snapshot(last, state.initial, batch, interventions=state.interventions)
        seen = evaluation_gradient(learning, network, key, state, seen, memory_gb)
        seen, _ = learning.update(key, state.interventions, state.learner, seen)
        return seen._replace(clock=clock)

    return snapshot


def _keep_diverged(old, new, diverged):
    """Where a run has diverged, what it has learned stays as it was; its task goes on, so that tasks stay aligned."""

    def choose(before, after):
        return jax.tree.map(lambda a, b: jnp.where(diverged, a, b), before, after)

    return new._replace(
        learner=choose(old.learner, new.learner),
        interventions=choose(old.interventions, new.interventions),
        best=choose(old.best, new.best),
    )
