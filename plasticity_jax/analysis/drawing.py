"""What all figures of lines share: a line with its band, the numbers behind it, and the sentence on both."""

from typing import NamedTuple

import numpy as np

from plasticity_jax.analysis import statistics, style

__all__ = ["Drawing", "excluded", "finished", "line", "records"]


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
    interval = statistics.interval(values, axis="run")
    style.line(axes, i, np.asarray(x), interval, group.label if label is None else label)
    return records(group, x, interval, unit, metric, layer)


def records(group, x, interval, unit, metric, layer=""):
    """The numbers of one line, a record a point; arguments as of `line`, and its `statistics.Interval`."""
    fixed = {"variant": group.variant, **group.settings, "metric": metric, "layer": layer}
    points = zip(np.asarray(x).tolist(), *(field.tolist() for field in interval), strict=True)
    return [fixed | {"unit": unit, "x": at, "mean": m, "low": a, "high": b, "n": n} for at, m, a, b, n in points]


def finished(name, figure, caption, curves, groups):
    """A Drawing with a legend, whose caption says what lines and bands are and what was left out of them."""
    style.legend(figure)
    counts = sorted({record["n"] for record in curves if record["n"]}) or [0]
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = f"{caption} Lines: mean over {seeds} seed{'s' if counts[-1] > 1 else ''}; "
    text += "bands: pointwise 95% bootstrap intervals over seeds." if counts[-1] > 1 else "one seed gives no band."
    return Drawing(name, figure, text + excluded(groups), curves)


def excluded(groups):
    """The sentence of a caption on the runs that are left out of all means; "" where there are none."""
    count = sum(len(group.excluded) for group in groups)
    return f" Runs excluded: {count}." if count else ""
