"""The figure of what is left of each task: accuracy on its test inputs while later ones are learned."""

import math

import numpy as np

from plasticity_jax.analysis import statistics, style

__all__ = ["draw"]

NAME = "accuracy_by_task"
COLUMNS = 3  # panels side by side
MOST_LINES = 6  # in a panel


def draw(groups, records):
    """A panel for each group, and in it a line for each task, for six of them where there are more.

    Args:
      groups: from `groups.split`.
      records: function (group, metric, layer, unit, x, interval) -> list of records, the numbers behind a line.

    Returns:
      (matplotlib Figure, records); None where nothing was measured.
    """
    found = [(group, group.values(NAME)) for group in groups if group.values(NAME) is not None]
    if not found:
        return None
    columns = min(COLUMNS, len(found))
    figure, axes = style.grid(math.ceil(len(found) / columns), columns, 2.5)
    numbers = []
    for axis, (group, values) in zip(axes.flat, found, strict=False):
        numbers += _panel(axis, group, values, records)
    for axis in axes.flat[len(found) :]:
        axis.remove()
    for row in axes:
        row[0].set_ylabel("accuracy (fraction)")
    style.share(axes.flat[: len(found)])
    style.legend(figure)
    return figure, numbers


def _panel(axes, group, values, records):
    """Draws the lines of one group; returns the numbers drawn."""
    numbers, values = [], values.transpose("run", "task", "group")
    known = np.flatnonzero(np.isfinite(values).any(("run", "task")))
    for i, task in enumerate(_spread(known)):
        line = values.isel(group=task).dropna("task", how="all")
        interval, x = statistics.interval(line, axis="run"), line["task"].values + 1
        name = f"inputs of task {task + 1}"
        style.line(axes, i, x, interval, name)
        numbers += records(group, NAME, name, "task", x, interval)
    style.count(axes, group.done, "task")
    axes.set_title(group.label)
    return numbers


def _spread(known):
    """At most six of some numbers, the first and the last among them."""
    return known[np.unique(np.linspace(0, len(known) - 1, min(MOST_LINES, len(known))).round().astype(int))].tolist()
