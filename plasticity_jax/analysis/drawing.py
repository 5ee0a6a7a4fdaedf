"""What all figures of lines share: a line with its band, the numbers behind it, and the sentence on both.

A point that rests on fewer than half of a group's seeds is left out: it says more of which seeds have a number than of
the group.
"""

from typing import NamedTuple

import numpy as np

from plasticity_jax.analysis import statistics, style

__all__ = ["Drawing", "excluded", "finished", "interval", "line", "mean", "records"]


class Drawing(NamedTuple):
    """A finished figure."""

    name: str
    figure: object  # matplotlib.figure.Figure
    caption: str
    curves: list  # of records: the numbers behind the lines


def line(axes, i, group, values, x, unit, metric, layer="", label=None):
    """Draws the mean over runs of one group with its band, the pointwise 95% bootstrap interval.

    Args:
      axes: of matplotlib.
      i: number of the line, which gives it its colour.
      group: whose runs these are.
      values: DataArray [run, X] or [X, run].
      x: [X].
      unit, metric, layer: what x is, and of what the numbers are: for the records.
      label: in the legend; None is the group's.

    Returns:
      The numbers of the line, a record a point.
    """
    found, x = interval(group, values), np.asarray(x)
    shown = np.isfinite(found.mean)
    if shown.any():
        drawn = statistics.Interval(*(field[shown] for field in found))
        style.line(axes, i, x[shown], drawn, group.label if label is None else label)
    return records(group, x, found, unit, metric, layer)


def interval(group, values):
    """The mean over runs with its bootstrap interval, NaN where it rests on fewer than half of the group's seeds."""
    found = statistics.interval(values, axis="run")
    few = 2 * found.n < group.seeds
    return statistics.Interval(*(np.where(few, np.nan, field) for field in found[:3]), found.n)


def mean(group, values):
    """The mean over runs as a DataArray, NaN as in `interval`."""
    return values.mean("run").where(2 * np.isfinite(values).sum("run") >= group.seeds)


def records(group, x, interval, unit, metric, layer=""):
    """The numbers of one line, a record a point; arguments as of `line`, and its `statistics.Interval`."""
    fixed = {"variant": group.variant, **group.settings, "metric": metric, "layer": layer}
    points = zip(np.asarray(x).tolist(), *(field.tolist() for field in interval), strict=True)
    return [fixed | {"unit": unit, "x": at, "mean": m, "low": a, "high": b, "n": n} for at, m, a, b, n in points]


def finished(name, figure, caption, curves, groups):
    """A Drawing with a legend, whose caption says what lines and bands are and what was left out of them."""
    style.legend(figure)
    counts = sorted({record["n"] for record in curves if np.isfinite(record["mean"])})
    if not counts:
        return Drawing(name, figure, caption + excluded(groups, curves), curves)
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = f"{caption} Lines: mean over {seeds} seed{'s' if counts[-1] > 1 else ''}; "
    text += "bands: pointwise 95% bootstrap intervals over seeds." if counts[-1] > 1 else "one seed gives no band."
    return Drawing(name, figure, text + excluded(groups, curves), curves)


def excluded(groups, curves=()):
    """The sentences of a caption on the points that are left out, and on the runs that are; "" where there are none."""
    few = sum(record["n"] > 0 and not np.isfinite(record["mean"]) for record in curves)
    text = f" Points that rest on fewer than half of the seeds are left out: {few}." if few else ""
    count = sum(len(group.excluded) for group in groups)
    return text + (f" Runs excluded: {count}." if count else "")
