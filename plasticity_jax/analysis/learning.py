"""The figure of learning inside tasks: the online score from the beginning of a task to its end."""

import math

import numpy as np

from plasticity_jax.analysis import drawing, style
from plasticity_jax.analysis import groups as grouping

__all__ = ["draw"]

FRACTION, SEGMENTS, STEPS = "fraction of the task", "segments since the task began", "optimizer step of the task"


def draw(groups, classes=None):
    """A panel for the first, the middle and the newest task of the longest groups, and in it a line for each group.

    A point is the mean over a part of a segment, or over a segment where its parts were not written; it stands at the
    middle of what it is the mean of. The x axis counts optimizer steps where it is known how many a segment has.

    Args:
      groups: from `groups.split`.
      classes: number of classes, for a line at chance; None draws none.

    Returns:
      Drawing; None where no task has more than one point.
    """
    kind = grouping.score(groups)
    lines = [(i, group, _parts(group, f"online_{kind}")) for i, group in enumerate(groups)]
    lines = [line for line in lines if line[2] is not None]
    if all(values.sizes["segment"] * values.sizes["part"] == 1 for _, _, values in lines):
        return None
    unit, steps = _unit(lines)
    longest = max(group.tasks for _, group, _ in lines)  # others stand where they have a task
    last = min(values.sizes["task"] for _, group, values in lines if group.tasks == longest) - 1
    tasks = sorted({0, last // 2, last})
    figure, axes = style.grid(1, len(tasks), 2.5)
    curves = []
    for axis, task in zip(axes[0], tasks, strict=True):
        curves += _panel(axis, task, lines, f"online_{kind}", unit, steps)
        axis.tick_params(labelleft=task == tasks[0])
        if classes and kind == "accuracy":
            style.mark_chance(axis, classes)
    axes[0][0].set_ylabel(f"online {kind}{' (fraction)' if kind == 'accuracy' else ''}")
    style.share(axes[0])
    caption = f"Learning inside tasks: online {kind}, each example before the update that it causes, in "
    caption += f"task{'s' if len(tasks) > 1 else ''} {', '.join(str(task + 1) for task in tasks)}."
    if len({group.tasks for _, group, _ in lines}) > 1:
        caption += " Variants have different tasks here" + (
            "." if unit == STEPS else ", whose segments need not be equally long."
        )
    return drawing.finished("learning_curves", figure, caption, curves, [group for _, group, _ in lines])


def _parts(group, name):
    """[run, task, segment, part] of an online metric, in one part where a segment was not cut; None if absent."""
    curve, whole = group.values(f"{name}_curve"), group.values(name)
    if curve is None and whole is None:
        return None
    values = whole.expand_dims("part") if curve is None else curve
    values = values if "segment" in values.dims else values.expand_dims("segment")
    return values.transpose("run", "task", "segment", "part")


def _unit(lines):
    """What x counts, and how much of it a segment of each line is."""
    steps = [_segment_steps(group, values.sizes["segment"]) for _, group, values in lines]
    if all(steps):
        return STEPS, steps
    one = all(values.sizes["segment"] == 1 for _, _, values in lines)
    return FRACTION if one else SEGMENTS, [1] * len(lines)


def _segment_steps(group, segments):
    """Optimizer steps of a segment, 0 where neither they nor those of a task, of so many segments, are known."""
    config = group.data.attrs.get("config", {})
    task = config.get("stream", {}).get("steps", 0)
    return config.get("segment_steps", 0) or (task / segments if isinstance(task, int) else 0)


def _panel(axes, task, lines, name, unit, steps):
    """Draws one task of each group; returns the numbers drawn."""
    curves, end = [], 0
    for (i, group, values), each in zip(lines, steps, strict=True):
        if task >= values.sizes["task"]:
            continue
        found = values.isel(task=task)
        x = np.arange(found.sizes["segment"])[:, None] + (np.arange(found.sizes["part"]) + 0.5) / found.sizes["part"]
        found = found.stack(at=("segment", "part"), create_index=False)
        known = grouping.measured(found, "at")
        x = each * x.reshape(-1)[known]
        end = max(end, each * math.ceil(max(x, default=0) / each))
        curves += drawing.line(axes, i, group, found.isel(at=known), x, f"{unit}, task {task + 1}", name)
    axes.set(title=f"task {task + 1}", xlabel=unit)
    axes.set_xlim(0, end or 1)
    axes.set_xticks([0, 0.5, 1]) if unit == FRACTION else axes.locator_params("x", integer=True, nbins=4)
    return curves
