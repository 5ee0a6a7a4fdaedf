"""A table of one metric in chosen tasks, such as the first five and the last five."""

import re

from plasticity_jax.analysis import groups as grouping
from plasticity_jax.analysis import results, statistics

__all__ = ["parse", "table"]


def parse(text):
    """Numbers of tasks, counted from 1 as in figures: one, a span, or a span in steps.

    >>> parse("3"), parse("1-3"), parse("1-7:2")
    ([3], [1, 2, 3], [1, 3, 5, 7])
    """
    found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", text)
    first, last, step = (int(n) if n else None for n in found.groups()) if found else (0, 0, 0)
    if not first or step == 0 or (last is not None and last < first):
        raise ValueError(f"tasks={text!r}: write 3, 1-5 or 1-29:2; tasks are counted from 1.")
    return list(range(first, (last or first) + 1, step or 1))


def table(folder, metric, windows):
    """One record for each group of runs, and each layer where the metric has them.

    Args:
      folder: of results, as for `report.write`.
      metric: its name; segments of a task are averaged.
      windows: names of windows as for `parse`: each is a column, the mean over those of its tasks in which the metric
        was measured; then the change from the first to the last of them, run by run.

    Returns:
      Records for `tables.to_text`, with Student's intervals over runs.

    Raises:
      ValueError: no such metric or task, or a metric that is no number for each run, task and layer.
      FileNotFoundError: the folder holds no results.
    """
    groups = grouping.split(results.load(folder))
    tasks = {name: parse(name) for name in windows}
    found = [(group, group.values(metric)) for group in groups]
    if all(values is None for _, values in found):
        names = sorted({str(name) for group in groups for name in group.data.data_vars})
        raise ValueError(f"No numbers of {metric!r} in {folder}. It has: {', '.join(names)}.")
    return [record for group, values in found if values is not None for record in _records(group, values, tasks)]


def _records(group, values, tasks):
    """The records of one group."""
    values = values.mean("segment") if "segment" in values.dims else values
    others = [d for d in values.dims if d not in ("run", "task", "layer")]
    if others:
        raise ValueError(f"{values.name} has the dimension {others[0]}: read it from metrics.zarr.")
    for name, numbers in tasks.items():
        if numbers[-1] > values.sizes["task"]:
            raise ValueError(f"tasks={name!r}, but {group.label} has {values.sizes['task']} tasks.")
    layers = grouping.measured(values, "layer") if "layer" in values.dims else [None]
    for layer in layers:
        one = values if layer is None else values.isel(layer=layer)
        means = [one.isel(task=[n - 1 for n in numbers]).mean("task") for numbers in tasks.values()]
        columns = dict(zip((f"tasks {name}" for name in tasks), means, strict=True))
        columns |= {"change": means[-1] - means[0]} if len(means) > 1 else {}
        intervals = {name: statistics.interval(v, axis="run", method="student") for name, v in columns.items()}
        where = {} if layer is None else {"layer": str(one["layer"].item())}
        yield {"variant": group.label, **where, "seeds": group.seeds, **intervals}
