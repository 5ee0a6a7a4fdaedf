"""What is measured while a run learns, on the examples that it learns from.

Letters: S optimizer steps of a segment, P parts of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import accuracy, weighted_mean

__all__ = ["Online", "online", "online_dims"]


class Online(NamedTuple):
    """Three pure functions, written for one run, and how often the second is asked."""

    stretch: int  # steps after which `look` is asked; it divides S
    step: Callable  # (snapshot of the step) -> {name: []}
    look: Callable  # (key, step, variables after it, its batch, its loss) -> [] what the update took away, or NaN
    segment: Callable  # (diverged, {name: [S]}, gained [S / stretch]) -> {metric: array}


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
      plasticity_every: every so many steps, or the next larger number that divides S, and so at the end of each segment
        that is shorter, the loss is taken again after the update; 0: never. A decision at each step would cost a tenth
        of training.

    Returns:
      Online.

    Online plasticity: UPGD (Elsayed and Mahmood 2024, arXiv 2404.00781), which looks at every step.
    """
    ends = [round(segment_steps * (part + 1) / parts) for part in range(parts)]
    spans = [slice(*bounds) for bounds in zip([0, *ends], ends, strict=False)]

    least = min(plasticity_every or segment_steps, segment_steps)
    stretch = next(n for n in range(least, segment_steps + 1) if segment_steps % n == 0)

    def look(key, step, variables, batch, before):
        if not plasticity_every:
            return jnp.float32(jnp.nan)
        outputs, _ = network.apply(for_step(key, Purpose.NETWORK, step), variables, batch["x"], True)
        after = weighted_mean(objective.loss(outputs, batch), batch["weight"])
        return jnp.clip(1.0 - after / jnp.maximum(before, 1e-8), 0.0, 1.0)

    def step(snapshot):
        reached = accuracy(objective.predict(snapshot.outputs), snapshot.batch)
        return {"loss": snapshot.loss, "accuracy": reached, "weight": jnp.sum(snapshot.batch["weight"])}

    def segment(diverged, found, gained):
        weight, means = found["weight"], {"online_plasticity": jnp.mean(gained)}
        for name in ("loss", "accuracy"):

            def mean(part, values=found[name]):
                return jnp.vdot(values[part], weight[part]) / jnp.sum(weight[part])

            means[f"online_{name}"] = mean(slice(None))
            means[f"online_{name}_curve"] = jnp.stack([mean(part) for part in spans])  # [P]
        return {name: jnp.where(diverged, jnp.nan, value) for name, value in means.items()}

    return Online(stretch, step, look, segment)


def online_dims(segments, parts=10):
    """Metric -> {dimension: labels} after (run, task)."""
    whole, curve = {"segment": segments}, {"segment": segments, "part": parts}
    names = {"online_loss": whole, "online_accuracy": whole, "online_plasticity": whole}
    return names | {"online_loss_curve": curve, "online_accuracy_curve": curve}
