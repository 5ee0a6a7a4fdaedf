"""Figures of networks with many layers: a map of layer and task for each group instead of a panel for each layer."""

import math

import numpy as np

from plasticity_jax.analysis import drawing, style
from plasticity_jax.analysis import groups as grouping

__all__ = ["draw", "names"]

COLUMNS = 6  # maps side by side
LAYER_INCHES = 0.15
MOST_TICKS = 5


def names(variable, groups):
    """Names of the layers for which any group has numbers, in the order in which they are met."""
    found = {}
    for group in groups:
        values = group.values(variable)
        if values is not None:
            known = grouping.measured(values, "layer")
            found |= dict.fromkeys(np.asarray(values["layer"])[known].tolist())
    return list(found)


def draw(name, caption, metrics, groups, log_from):
    """Maps of each metric, one for each group that has it, with one scale of colours for each metric.

    Args:
      name, caption: of the figure.
      metrics: those of `catalogue.Metric` with layers, each of which some group has.
      groups: from `groups.split`.
      log_from: a metric that asks for it has logarithmic colours where its largest number is that many times its least.

    Returns:
      Drawing.
    """
    columns, labels = min(COLUMNS, len(groups)), {m: names(m.variable, groups) for m in metrics}
    height = 0.8 + LAYER_INCHES * max(map(len, labels.values()))
    figure, axes = style.grid(math.ceil(len(groups) / columns) * len(metrics), columns, height)
    curves = []
    for metric, panels in zip(metrics, axes.reshape(len(metrics), -1), strict=True):
        found = [(g, g.values(metric.variable)) for g in groups if g.values(metric.variable) is not None]
        means = [_means(*one, labels[metric]) for one in found]
        norm = _norm(np.concatenate([m.values.ravel() for m in means]), log_from if metric.log else np.inf)
        for i, (axis, (group, values), mean) in enumerate(zip(panels, found, means, strict=False)):
            image = _map(axis, mean, norm, labelled=i % columns == 0)
            axis.set_title(style.wrapped(group.label, columns))
            curves += _records(group, metric.variable, values, labels[metric])
        for axis in panels[len(found) :]:
            axis.remove()
        panels[0].set_ylabel(metric.title)
        figure.colorbar(image, ax=panels[: len(found)].tolist(), label=metric.label, aspect=25, fraction=0.05)
    seeds = max((record["n"] for record in curves), default=0)
    caption += f" Colours: mean over {seeds} seed{'s' if seeds > 1 else ''}; intervals are in its table."
    return drawing.Drawing(name, figure, caption + drawing.excluded(groups, curves), curves)


def _means(group, values, labels):
    """[layer, task] means over runs, of the tasks that were measured."""
    values = values.isel(task=grouping.measured(values)).reindex(layer=labels)
    return drawing.mean(group, values).transpose("layer", "task")


def _norm(values, log_from):
    """From numbers to colours: logarithmic where they are positive and span enough."""
    from matplotlib.colors import LogNorm, Normalize

    if not np.isfinite(values).any():
        return Normalize(0, 1)
    low, high = np.nanmin(values), np.nanmax(values)
    return (LogNorm if low > 0 and high > log_from * low else Normalize)(low, high)


def _map(axes, means, norm, labelled):
    """Draws one map, the first layer at the top; returns the image."""
    image = axes.imshow(means.values, aspect="auto", norm=norm, cmap="viridis", interpolation="nearest")
    tasks, layers = means["task"].values + 1, means["layer"].values.tolist()
    ticks = np.arange(0, len(tasks), math.ceil(len(tasks) / MOST_TICKS))
    axes.set_xticks(ticks, tasks[ticks])
    axes.set_yticks(range(len(layers)), layers if labelled else [""] * len(layers), fontsize=7)
    axes.set_xlabel("task")
    axes.grid(visible=False)
    return image


def _records(group, variable, values, labels):
    """The numbers of one map, a record for each layer and task."""
    values, curves = values.isel(task=grouping.measured(values)), []
    for layer in (name for name in labels if name in values["layer"].values):
        interval = drawing.interval(group, values.sel(layer=layer))
        curves += drawing.records(group, values["task"] + 1, interval, "task", variable, layer)
    return curves
