"""The figure of what is left of each task: accuracy on its test inputs while later ones are learned."""

import math

import numpy as np

from plasticity_jax.analysis import drawing, style
from plasticity_jax.analysis import groups as grouping

__all__ = ["draw"]

NAME = "accuracy_by_task"
COLUMNS = 3  # panels side by side
MOST_LINES = 6  # in a panel


def draw(groups):
    """A panel for each group, and in it a line for each task, for six of them where there are more.

    Args:
      groups: from `groups.split`.

    Returns:
      Drawing; None where nothing was measured.
    """
    found = [(group, group.values(NAME)) for group in groups if group.values(NAME) is not None]
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    figure, axes = style.grid(math.ceil(len(found) / columns), columns, 2.5)
    curves = []
    for axis, (group, values) in zip(axes.flat, found, strict=False):
        curves += _panel(axis, group, values)
        axis.set_title(style.wrapped(group.label, columns))
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for row in axes:
        row[0].set_ylabel("accuracy (fraction)")
    style.share(axes.flat[: len(found)])
    caption = "Accuracy on the test inputs of single tasks, those whose classes came in it, at the end of each task."
    return drawing.finished(NAME, figure, caption, curves, [group for group, _ in found])


def _panel(axes, group, values):
    """Draws the lines of one group; returns the numbers drawn."""
    curves = []
    for i, task in enumerate(_spread(np.array(grouping.measured(values, "group")))):
        line, name = values.isel(group=task).dropna("task", how="all"), f"inputs of task {task + 1}"
        curves += drawing.line(axes, i, group, line, line["task"] + 1, "task", NAME, name, label=name)
    style.count(axes, group.done, "task")
    return curves


def _spread(known):
    """At most six of some numbers, the first and the last among them."""
    return known[np.unique(np.linspace(0, len(known) - 1, min(MOST_LINES, len(known))).round().astype(int))].tolist()
