"""Figures of a result folder: what each shows is one entry of FIGURES; drawing is the same for all.

A panel shows one metric (of one layer) over tasks: a line per group, the mean over seeds, and a band, the pointwise 95%
bootstrap interval. Numbers behind the lines come back with the figure, so that nobody has to read them off.
"""

import math
from typing import NamedTuple

import numpy as np

from plasticity_jax.analysis import groups as grouping
from plasticity_jax.analysis import interference, landscape, statistics, style

__all__ = ["FIGURES", "Drawing", "draw", "select"]

MOST_LINES = 6
COLUMNS = 4  # panels side by side


class Metric(NamedTuple):
    """One metric: its variable, the title of its panel, and the label of its y axis with the unit."""

    variable: str
    title: str
    label: str
    per_layer: bool = False


class Drawing(NamedTuple):
    """A finished figure."""

    name: str
    figure: object  # matplotlib.figure.Figure
    caption: str
    curves: list  # of records: the numbers behind the lines


FIGURES = {
    "accuracy": (
        "Accuracy per task.",
        Metric("final_accuracy", "at the end of the task", "final accuracy (fraction)"),
        Metric("online_accuracy", "online, mean over the task", "online accuracy (fraction)"),
        Metric("test_accuracy", "on test data", "test accuracy (fraction)"),
    ),
    "online_plasticity": (
        "Share of the loss on its batch that an update takes away, mean over the updates that were looked at.",
        Metric("online_plasticity", "online plasticity", "share of the batch's loss (fraction)"),
    ),
    "loss": (
        "Loss per task; of squared errors also the share of the targets' variance that is explained.",
        Metric("final_loss", "at the end of the task", "final loss"),
        Metric("online_loss", "online, mean over the task", "online loss"),
        Metric("explained_variance", "at the end of the task", "explained variance"),
    ),
    "units": (
        "Dead and dormant units of each hidden layer at the end of each task.",
        Metric("dead_fraction", "dead units", "dead units (fraction)", True),
        Metric("dormant_fraction", "dormant units", "dormant units (fraction)", True),
    ),
    "changes": (
        "What became of the units of each hidden layer since the last measurement.",
        Metric("preactivation_shift", "shift of pre-activations", "mean shift (deviations)", True),
        Metric("dormant_overlap", "dormant units that stay", "still dormant (fraction)", True),
        Metric("duplicate_fraction", "duplicate units", "duplicates (fraction)", True),
    ),
    "predictions": (
        "Predictions at the end of each task: how sure they are, and how many one more update would change.",
        Metric("prediction_entropy", "entropy", "entropy (nats)"),
        Metric("churn", "churn", "changed by an update (fraction)"),
    ),
    "norms": (
        "Size of the weights at the end of each task.",
        Metric("weight_norm", "weight norm", "L2 norm (all parameters)"),
        Metric("distance_from_init", "distance from initialisation", "L2 distance (all parameters)"),
    ),
    "ranks": (
        "Ranks of each hidden layer's features at the end of each task.",
        Metric("srank", "srank", "srank (directions)", True),
        Metric("effective_rank", "effective rank", "effective rank (directions)", True),
    ),
    "interference": (
        "Gradients of single examples at the end of each task: how many directions they have, and how they agree.",
        Metric("gradient_covariance_rank", "rank of the covariance", "effective rank (directions)"),
        Metric("gradient_interference", "agreement", "mean cosine"),
        Metric("negative_interference", "interference", "pairs below 0 (fraction)"),
    ),
    "tangent_kernel": (
        "The empirical tangent kernel at the end of each task.",
        Metric("ntk_effective_rank", "effective rank", "effective rank (directions)"),
        Metric("ntk_condition", "condition", "eigenvalues (ratio)"),
        Metric("ntk_diagonal_share", "diagonal share", "of squares (fraction)"),
    ),
    "forgetting": (
        "Accuracy on the test inputs of earlier tasks at the end of each task.",
        Metric("forgetting", "forgetting", "lost (fraction)"),
        Metric("backward_transfer", "backward transfer", "gained (fraction)"),
    ),
    "plasticity": (
        "Loss of plasticity: the loss of a copy that was fitted to fresh targets, less that of the initial network.",
        Metric("plasticity_loss", "fresh optimizer state", "plasticity loss (squared error)"),
        Metric("plasticity_loss_carried", "optimizer state of the run", "plasticity loss (squared error)"),
    ),
}


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
        drawings += [_learning(shown, classes), _heat_maps(shown), _lines(shown), _fits(shown)]
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
            if classes and panel[0].variable.endswith("accuracy"):
                style.mark_chance(axis, classes)
        for axis in row[len(panels) :]:
            axis.remove()
    _share(axes, rows)
    style.legend(figure)
    return Drawing(name, figure, f"{caption} {_band(curves, groups)}", curves)


def _rows(metrics, groups):
    """Rows of panels (metric, layer): metrics side by side, but layered ones begin a row each and wrap."""
    flat = [(m, None) for m in metrics if not m.per_layer]
    rows = [flat] if flat else []
    for metric in metrics:
        if metric.per_layer:
            panels = [(metric, layer) for layer in _layers(metric.variable, groups)]
            width = math.ceil(len(panels) / math.ceil(len(panels) / COLUMNS))  # rows of equal length
            rows += [panels[i : i + width] for i in range(0, len(panels), width)]
    return rows


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
    axes.set_title(f"{metric.title}, {layer}" if layer else metric.title)
    if labelled:
        axes.set_ylabel(metric.label)
    return curves


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
    _share(axes, [[("online", None)] * len(tasks)])
    style.legend(figure)
    caption = f"Learning curves inside tasks: online {kind}, averaged over each segment, "
    caption += "in the first task and in the newest that all lines have reached."
    return Drawing("learning_curves", figure, f"{caption} {_band(records, [g for g, _ in curves])}", records)


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
    _share(axes, [[("probe", None)] * len(panels)])
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
    """One y range for all panels of a layered metric."""
    ranges = {}
    panels = [(axis, panel[0]) for row, names in zip(axes, rows, strict=True) for axis, panel in zip(row, names)]  # noqa: B905
    for axis, metric in panels:
        key = metric if getattr(metric, "per_layer", True) else (metric, axis)
        ranges.setdefault(key, []).append(axis)
    for shared in ranges.values():
        low, high = min(a.get_ylim()[0] for a in shared), max(a.get_ylim()[1] for a in shared)
        for axis in shared:
            axis.set_ylim(low, high)


def _band(records, groups):
    """The sentence on seeds and bands, with what was left out."""
    counts = sorted({record["n"] for record in records if record["n"]}) or [0]
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    text = f"Lines: mean over {seeds} seed{'s' if counts[-1] > 1 else ''}; "
    text += "bands: pointwise 95% bootstrap intervals over seeds." if counts[-1] > 1 else "one seed gives no band."
    excluded = sum(len(group.excluded) for group in groups)
    return text + (f" Runs excluded: {excluded}." if excluded else "")
