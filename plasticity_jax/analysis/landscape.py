"""The figure of the loss along lines through the parameters: the gradient and the top eigenvectors of the Hessian."""

from plasticity_jax.analysis import drawing, style
from plasticity_jax.analysis import groups as grouping

__all__ = ["draw"]

NAMES = ("loss_along_gradient", "loss_along_eigenvectors")


def draw(groups):
    """A row of panels for the first and for the last task that was measured, a panel for each direction.

    Args:
      groups: from `groups.split`.

    Returns:
      Drawing; None where nothing was measured.
    """
    lines = [(i, group, _lines(group)) for i, group in enumerate(groups) if group.values(NAMES[0]) is not None]
    if not lines:
        return None
    tasks = sorted({edge for _, _, found in lines for edge in (min(found), max(found))})
    tasks = sorted({tasks[0], tasks[-1]})
    titles = list(dict.fromkeys(title for _, _, found in lines for panels in found.values() for title in panels))
    figure, axes = style.grid(len(tasks), len(titles))
    curves = []
    for row, task in zip(axes, tasks, strict=True):
        row[0].set_ylabel("loss")
        for axis, title in zip(row, titles, strict=True):
            axis.set_title(f"{title}, task {task + 1}")
            for i, group, found in lines:
                values = found.get(task, {}).get(title)
                if values is not None:
                    unit = f"distance in task {task + 1}"
                    curves += drawing.line(axis, i, group, values, values["distance"], unit, title)
    for column in axes.T:  # one range for each direction, so that its tasks can be compared
        style.share(column)
        column[-1].set_xlabel("distance / norm of weights")
    caption = (
        "Loss along the gradient and along the top eigenvectors of the Hessian, at its first and newest measurement."
    )
    return drawing.finished("landscape", figure, caption, curves, [group for _, group, _ in lines])


def _lines(group):
    """{task: {title: [run, distance]}}, tasks that have numbers alone."""
    found = {}
    for name in NAMES:
        values = group.values(name)
        if values is None:
            continue
        values = values if "direction" in values.dims else values.expand_dims("direction")
        for direction in range(values.sizes["direction"]):
            line = values.isel(direction=direction)
            title = "gradient" if name == NAMES[0] else f"eigenvector {direction + 1}"
            for task in grouping.measured(line):
                found.setdefault(task, {})[title] = line.isel(task=task)
    return found
