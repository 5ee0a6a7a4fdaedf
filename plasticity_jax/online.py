"""What is measured while a run learns, on the examples that it learns from.

Letters: S optimizer steps of a segment, P parts of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import accuracy, weighted_mean
from plasticity_jax.schedule import when

__all__ = ["Online", "online", "online_dims"]


class Online(NamedTuple):
    """Two pure functions, written for one run."""

    step: Callable  # (key, learner after the step, snapshot of the step) -> {name: []}
    segment: Callable  # (diverged, {name: [S]}) -> {metric: array}


def online(network, objective, segment_steps, parts=10, plasticity_every=100):
    """Metrics of the examples of a segment, each before the update that it causes.

      online_loss, online_accuracy              means over the examples of the segment                       []
      online_loss_curve, online_accuracy_curve  means over the examples of each part of it                   [P]
      online_plasticity  mean of clip(1 - after / max(before, 1e-8), 0, 1) over the steps that are looked at  []

    before and after are the batch's loss before and after the update, with the same key and in training mode. A metric
    is NaN for a run that had diverged before the segment, for a part without steps, and where no step is looked at.

    Args:
      network, objective: records.
      segment_steps: S.
      parts: P, as equal as whole steps allow.
      plasticity_every: every so many steps the loss is taken again after the update; 0: never.

    Returns:
      Online.

    Online plasticity: UPGD (Elsayed and Mahmood 2024, arXiv 2404.00781), which looks at every step.
    """
    ends = [round(segment_steps * (part + 1) / parts) for part in range(parts)]
    spans = [slice(*bounds) for bounds in zip([0, *ends], ends, strict=False)]

    def gained(_, variables, key, snapshot):
        """How much of the batch's loss the update took away, 0 to 1."""
        key, batch = for_step(key, Purpose.NETWORK, snapshot.clock.step), snapshot.batch
        outputs, _ = network.apply(key, variables, batch["x"], True)
        after = weighted_mean(objective.loss(outputs, batch), batch["weight"])
        return jnp.clip(1.0 - after / jnp.maximum(snapshot.loss, 1e-8), 0.0, 1.0)

    def step(key, learner, snapshot):
        reached = accuracy(objective.predict(snapshot.outputs), snapshot.batch)
        found = {"loss": snapshot.loss, "accuracy": reached, "weight": jnp.sum(snapshot.batch["weight"])}
        if plasticity_every:
            due = snapshot.clock.step % plasticity_every == 0
            found["due"] = due
            found["plasticity"] = when(due, gained, jnp.float32(0.0), learner.variables, key, snapshot)
        return found

    def segment(diverged, found):
        weight, means = found["weight"], {"online_plasticity": jnp.float32(jnp.nan)}
        if plasticity_every:
            means["online_plasticity"] = jnp.sum(found["plasticity"]) / jnp.sum(found["due"])
        for name in ("loss", "accuracy"):

            def mean(part, values=found[name]):
                return jnp.vdot(values[part], weight[part]) / jnp.sum(weight[part])

            means[f"online_{name}"] = mean(slice(None))
            means[f"online_{name}_curve"] = jnp.stack([mean(part) for part in spans])  # [P]
        return {name: jnp.where(diverged, jnp.nan, value) for name, value in means.items()}

    return Online(step, segment)


def online_dims(segments, parts=10):
    """Metric -> {dimension: labels} after (run, task)."""
    whole, curve = {"segment": segments}, {"segment": segments, "part": parts}
    names = {"online_loss": whole, "online_accuracy": whole, "online_plasticity": whole}
    return names | {"online_loss_curve": curve, "online_accuracy_curve": curve}
