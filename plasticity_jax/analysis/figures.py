"""Figures of a result folder: what each shows is an entry of `catalogue.FIGURES`; drawing is the same for all.

A panel shows one metric (of one layer) over tasks: a line per group, the mean over seeds, and a band, the pointwise 95%
bootstrap interval. Numbers behind the lines come back with the figure, so that nobody has to read them off.
"""

import math

import numpy as np

from plasticity_jax.analysis import (
    drawing,
    fits,
    interference,
    landscape,
    layers,
    learning,
    others,
    preactivations,
    retention,
    style,
)
from plasticity_jax.analysis import groups as grouping
from plasticity_jax.analysis.catalogue import FIGURES

__all__ = ["FIGURES", "draw", "select"]

MOST_LINES = 6
MOST_LAYERS = 8  # that have a panel each
COLUMNS = 4  # panels side by side
LONGEST_TITLE = 28  # characters in a line
LOG_FROM = 30  # an axis may be logarithmic where its largest number is that many times the smallest: it has two labels


def select(groups):
    """(groups that figures show, sentence that says how they were selected; "" where all are shown)."""
    if len(groups) <= MOST_LINES:
        return groups, ""
    chosen = grouping.best(groups)
    if len(chosen) == len(groups):
        return groups, ""
    kind = grouping.score(groups)
    text = (
        f"Of {len(groups)} variants and grid points, the best of each variant is shown, selected by mean online {kind} "
        "over tasks on the same seeds, which favours it."
    )
    return chosen, text


def draw(groups, classes=None):
    """All figures for which there are numbers: a list of Drawing.

    Args:
      groups: from `groups.split`; where there are more than six, each variant's best grid point is drawn.
      classes: number of classes, for a line at chance; None draws none.
    """
    shown, note = select(groups)
    with style.context():
        drawings = [_figure(name, *FIGURES[name], groups=shown, classes=classes) for name in FIGURES]
        drawings.append(learning.draw(shown, classes))
        drawings += [module.draw(shown) for module in (preactivations, retention, interference, landscape, fits)]
        own = others.figures(shown)
        drawings += [_figure(name, *own[name], groups=shown, classes=None) for name in own]
    return [d._replace(caption=f"{d.caption} {note}".strip()) for d in drawings if d is not None]


def _figure(name, caption, *metrics, groups, classes):
    """One figure of FIGURES, None where nothing of it was measured."""
    if name == "loss" and grouping.score(groups) == "accuracy":
        return None
    metrics = [m for m in metrics if any(g.values(m.variable) is not None for g in groups)]
    if any(m.per_layer and len(layers.names(m.variable, groups)) > MOST_LAYERS for m in metrics):
        return layers.draw(name, caption, metrics, groups, LOG_FROM)
    rows = _rows(metrics, groups)
    if not rows:
        return None
    figure, axes = style.grid(len(rows), max(len(row) for row in rows))
    curves = []
    for row, panels in zip(axes, rows, strict=True):
        for i, (axis, panel) in enumerate(zip(row, panels, strict=False)):
            curves += _panel(axis, *panel, groups, i == 0 or not panel[0].per_layer)
            axis.tick_params(labelleft=i == 0 or not panel[0].per_layer)
            if classes and "accuracy" in panel[0].variable:
                style.mark_chance(axis, classes)
        for axis in row[len(panels) :]:
            axis.remove()
    if name == "probe":
        caption += fits.mark_baseline([axis for axis in figure.axes if axis.lines], groups)
    _share(axes, rows)
    return drawing.finished(name, figure, caption, curves, groups)


def _rows(metrics, groups):
    """Rows of panels (metric, layer): metrics side by side, but layered ones begin a row each; both wrap."""
    rows = _wrapped([(m, None) for m in metrics if not m.per_layer])
    for metric in metrics:
        if metric.per_layer:
            rows += _wrapped([(metric, layer) for layer in layers.names(metric.variable, groups)])
    return rows


def _wrapped(panels):
    """Rows of equal length, none of them too long."""
    width = math.ceil(len(panels) / max(1, math.ceil(len(panels) / COLUMNS)))
    return [panels[i : i + width] for i in range(0, len(panels), max(1, width))]


def _panel(axes, metric, layer, groups, labelled):
    """Draws one metric of one layer; returns the numbers drawn."""
    curves = []
    for i, group in enumerate(groups):
        values = _curve(group, metric.variable, layer)
        if values is None:
            continue
        curves += drawing.line(axes, i, group, values, values["task"] + 1, "task", metric.variable, layer or "")
    style.count(axes, max((g.done for g in groups), default=1), "task")
    axes.set_title(_title(metric.title, layer))
    if labelled:
        axes.set_ylabel(metric.label)
    return curves


def _title(text, layer):
    """The title of a panel, on two lines where it is long: layers of residual networks have long names."""
    title = f"{text}, {layer}" if layer else text
    return title if len(title) <= LONGEST_TITLE else title.replace(", ", ",\n")


def _curve(group, variable, layer=None):
    """[run, task] of one metric: mean over segments if it is an online one, else at the task's end; None if absent."""
    values = group.values(variable)
    if values is None:
        return None
    if layer is not None:
        if layer not in values["layer"].values:
            return None
        values = values.sel(layer=layer)
    if "segment" in values.dims:
        values = values.mean("segment")
    measured = grouping.measured(values)  # some diagnostics skip tasks
    return values.isel(task=measured).transpose("run", "task") if measured else None


def _share(axes, rows):
    """One y range for panels with one label, logarithmic where that is asked for and their lines span enough."""
    kinds = {}
    for row, panels in zip(axes, rows, strict=True):
        for axis, (metric, _) in zip(row, panels, strict=False):
            kinds.setdefault((metric.label, metric.log), []).append(axis)
    for (_, log), shared in kinds.items():
        style.share(shared)
        values = np.concatenate([[np.nan], *(line.get_ydata() for axis in shared for line in axis.lines)])
        values = values[np.isfinite(values)]
        if log and values.size and values.min() > 0 and values.max() > LOG_FROM * values.min():
            shared[0].set_yscale("log")
