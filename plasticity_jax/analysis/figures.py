"""Figures of a result folder: what each shows is an entry of `catalogue.FIGURES`; drawing is the same for all.

A panel shows one metric (of one layer) over tasks: a line per group, the mean over seeds, and a band, the pointwise 95%
bootstrap interval. Numbers behind the lines come back with the figure, so that nobody has to read them off.
"""

import math
from typing import NamedTuple

import numpy as np

from plasticity_jax.analysis import groups as grouping
from plasticity_jax.analysis import interference, landscape, retention, statistics, style
from plasticity_jax.analysis.catalogue import FIGURES

__all__ = ["FIGURES", "Drawing", "draw", "select"]

MOST_LINES = 6
COLUMNS = 4  # panels side by side
LONGEST_TITLE = 28  # characters in a line
LOG_FROM = 30  # an axis may be logarithmic where its largest number is that many times the smallest: it has two labels


class Drawing(NamedTuple):
    """A finished figure."""

    name: str
    figure: object  # matplotlib.figure.Figure
    caption: str
    curves: list  # of records: the numbers behind the lines


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
        drawings += [_learning(shown, classes), _earlier(shown), _heat_maps(shown), _lines(shown), _fits(shown)]
    return [d._replace(caption=f"{d.caption} {note}".strip()) for d in drawings if d is not None]


def _figure(name, caption, *metrics, groups, classes):
    """One figure of FIGURES, None where nothing of it was measured."""
    if name == "loss" and grouping.score(groups) == "accuracy":
        return None
    rows = _rows([m for m in metrics if any(g.values(m.variable) is not None for g in groups)], groups)
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
    _share(axes, rows)
    style.legend(figure)
    return Drawing(name, figure, f"{caption} {_band(curves, groups)}", curves)


def _rows(metrics, groups):
    """Rows of panels (metric, layer): metrics side by side, but layered ones begin a row each; both wrap."""
    rows = _wrapped([(m, None) for m in metrics if not m.per_layer])
    for metric in metrics:
        if metric.per_layer:
            rows += _wrapped([(metric, layer) for layer in _layers(metric.variable, groups)])
    return rows


def _wrapped(panels):
    """Rows of equal length, none of them too long."""
    width = math.ceil(len(panels) / max(1, math.ceil(len(panels) / COLUMNS)))
    return [panels[i : i + width] for i in range(0, len(panels), max(1, width))]


def _layers(variable, groups):
    """Names of the layers for which any group has numbers, in the order in which they are met."""
    names = {}
    for group in groups:
        values = group.values(variable)
        if values is not None:
            finite = np.isfinite(values).any([d for d in values.dims if d != "layer"])
            names |= dict.fromkeys(np.asarray(values["layer"])[finite.values].tolist())
    return list(names)


def _panel(axes, metric, layer, groups, labelled):
    """Draws one metric of one layer; returns the numbers drawn."""
    curves = []
    for i, group in enumerate(groups):
        values = _curve(group, metric.variable, layer)
        if values is None:
            continue
        interval = statistics.interval(values, axis="run")
        tasks = values["task"].values + 1
        style.line(axes, i, tasks, interval, group.label)
        curves += _records(group, metric.variable, layer, "task", tasks, interval)
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
    measured = np.flatnonzero(np.isfinite(values).any("run"))  # some diagnostics skip tasks
    return values.isel(task=measured).transpose("run", "task") if len(measured) else None


def _learning(groups, classes):
    """Online score over the segments of the first and of the last task that all groups have done."""
    kind = grouping.score(groups)
    curves = [(g, g.values(f"online_{kind}")) for g in groups]
    curves = [(g, v) for g, v in curves if v is not None and v.sizes.get("segment", 1) > 1]
    if not curves:
        return None
    tasks = sorted({0, min(v.sizes["task"] for _, v in curves) - 1})
    figure, axes = style.grid(1, len(tasks), 2.5)
    records = []
    for axis, task in zip(axes[0], tasks, strict=True):
        records += _segments(axis, task, [(groups.index(g), g, v) for g, v in curves])
        if classes and kind == "accuracy":
            style.mark_chance(axis, classes)
    for axis in axes[0][1:]:
        axis.tick_params(labelleft=False)
    axes[0][0].set_ylabel(f"online {kind}{' (fraction)' if kind == 'accuracy' else ''}")
    style.share(axes[0])
    style.legend(figure)
    caption = f"Learning curves inside tasks: online {kind}, averaged over each segment, "
    caption += "in the first task and in the newest that all lines have reached."
    return Drawing("learning_curves", figure, f"{caption} {_band(records, [g for g, _ in curves])}", records)


def _earlier(groups):
    """Accuracy on the inputs of each task, None where it was not measured."""
    found = retention.draw(groups, _records)
    if found is None:
        return None
    caption = "Accuracy on the test inputs of single tasks, those whose classes came in it, at the end of each task."
    figure, records = found
    return Drawing(retention.NAME, figure, f"{caption} {_band(records, groups)}", records)


def _heat_maps(groups):
    """The matrices of the gradient covariance, None where they were not measured."""
    found = interference.draw(groups)
    if found is None:
        return None
    caption = "Cosines between the gradients of single examples, of one run: its first and its newest measurement. "
    caption += "Rows and columns are ordered by k-means with 10 clusters, anew in each panel."
    figure, records = found
    return Drawing(interference.NAME, figure, caption, records)


def _lines(groups):
    """The loss along lines, None where it was not measured."""
    found = landscape.draw(groups, _records)
    if found is None:
        return None
    caption = (
        "Loss along the gradient and along the top eigenvectors of the Hessian, at its first and newest measurement."
    )
    figure, records = found
    return Drawing("landscape", figure, f"{caption} {_band(records, groups)}", records)


def _fits(groups):
    """Loss of probed copies over their fit: of new networks, and at the first and the newest boundary of all groups."""
    found = [(i, g, g.values("probe_curve"), g.values("probe_curve_fresh")) for i, g in enumerate(groups)]
    found = [line for line in found if line[2] is not None and line[3] is not None]
    if not found:
        return None
    shared = set.intersection(*(set(_measured(old)) for _, _, old, _ in found))
    if not shared:
        return None
    first, newest = min(shared), max(shared)
    panels = {"new networks": [(i, g, fresh.isel(task=first)) for i, g, _, fresh in found]}
    for task in sorted({first, newest}):
        panels[f"after task {task + 1}"] = [(i, g, old.isel(task=task)) for i, g, old, _ in found]
    figure, axes = style.grid(1, len(panels), 2.5)
    records = []
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for i, group, values in lines:
            values = values.mean("target").transpose("run", "probe_step").dropna("probe_step", how="all")
            interval, x = statistics.interval(values, axis="run"), values["probe_step"].values
            style.line(axis, i, x, interval, group.label)
            records += _records(group, values.name, None, f"step of the fit, {title}", x, interval)
        axis.set(title=title, xlabel="optimizer step of the fit", yscale="log")
        axis.tick_params(labelleft=axis is axes[0][0])
    axes[0][0].set_ylabel("probe loss (squared error)")
    style.share(axes[0])
    style.legend(figure)
    caption = (
        "Copies fitted to fresh targets: loss over all probe inputs, mean over targets, from a fresh optimizer state."
    )
    return Drawing("probe_curves", figure, f"{caption} {_band(records, [g for _, g, _, _ in found])}", records)


def _measured(values):
    """Numbers of the tasks for which any run has a finite value."""
    return np.flatnonzero(np.isfinite(values).any([d for d in values.dims if d != "task"])).tolist()


def _segments(axes, task, curves):
    """Draws one task of each group; returns the numbers drawn."""
    records = []
    for i, group, values in curves:
        values = values.isel(task=task).transpose("run", "segment")
        values = values.isel(segment=np.flatnonzero(np.isfinite(values).any("run")))
        interval = statistics.interval(values, axis="run")
        x = np.arange(1, values.sizes["segment"] + 1)
        style.line(axes, i, x, interval, group.label)
        records += _records(group, values.name, None, f"segment of task {task + 1}", x, interval)
    style.count(axes, max(v.sizes["segment"] for _, _, v in curves), "segment of the task")
    axes.set_title(f"task {task + 1}")
    return records


def _records(group, variable, layer, unit, x, interval):
    """The numbers of one line, a record a point."""
    fixed = {"variant": group.variant, **group.settings, "metric": variable, "layer": layer or ""}
    points = zip(np.asarray(x).tolist(), *(field.tolist() for field in interval), strict=True)
    return [fixed | {"unit": unit, "x": at, "mean": m, "low": a, "high": b, "n": n} for at, m, a, b, n in points]


def _share(axes, rows):
    """One y range for panels with one label, logarithmic where that is asked for and their lines span enough."""
    kinds = {}
    for row, panels in zip(axes, rows, strict=True):
        for axis, (metric, _) in zip(row, panels, strict=False):
            kinds.setdefault((metric.label, metric.log), []).append(axis)
    for (_, log), shared in kinds.items():
        style.share(shared)
        values = np.concatenate([line.get_ydata() for axis in shared for line in axis.lines])
        if log and np.nanmin(values) > 0 and np.nanmax(values) > LOG_FROM * np.nanmin(values):
            shared[0].set_yscale("log")


def _band(records, groups):
    """The sentence on seeds and bands, with what was left out."""
    counts = sorted({record["n"] for record in records if record["n"]}) or [0]
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = f"Lines: mean over {seeds} seed{'s' if counts[-1] > 1 else ''}; "
    text += "bands: pointwise 95% bootstrap intervals over seeds." if counts[-1] > 1 else "one seed gives no band."
    excluded = sum(len(group.excluded) for group in groups)
    return text + (f" Runs excluded: {excluded}." if excluded else "")
