"""The figure of the units' mean pre-activations: how they are spread over the units of a layer, task by task."""

import numpy as np

from plasticity_jax.analysis import drawing, layers, style
from plasticity_jax.analysis import groups as grouping

__all__ = ["draw"]

NAME = "preactivation_mean"
COLUMNS = 4  # panels side by side: layers, evenly chosen where there are more
BANDS = {(0.05, 0.95): 0.15, (0.25, 0.75): 0.3}  # quantiles -> opacity


def draw(groups):
    """A row of panels for each group, a panel for each layer, and in it the median over units and two bands.

    Args:
      groups: from `groups.split`.

    Returns:
      Drawing, whose records hold every quantile of every layer; None where nothing was measured.
    """
    found = [(i, group, group.values(NAME)) for i, group in enumerate(groups) if group.values(NAME) is not None]
    if not found:
        return None
    every = layers.names(NAME, groups)
    chosen = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, min(COLUMNS, len(every))).round().astype(int))]
    figure, axes = style.grid(len(found), len(chosen))
    curves = []
    for row, (i, group, values) in zip(axes, found, strict=True):
        for layer in (name for name in every if name in values["layer"].values):
            curves += _records(group, values.sel(layer=layer), layer)
        for axis, layer in zip(row, chosen, strict=True):
            _panel(axis, i, group, values.sel(layer=layer) if layer in values["layer"].values else None)
            axis.set_title(f"{layer},\n{style.wrapped(group.label, len(chosen))}")
        row[0].set_ylabel("mean pre-activation")
    for column in axes.T:  # one range for each layer, so that groups can be compared
        style.share(column)
    caption = "Mean pre-activation of each unit at the end of each task. Lines: median over a layer's units; bands: "
    caption += "the middle 50% and 90% of them; each quantile is a mean over seeds."
    caption += f" Of {len(every)} layers {len(chosen)} are shown." if len(every) > len(chosen) else ""
    caption += drawing.excluded([group for _, group, _ in found])
    return drawing.Drawing(NAME, figure, caption, curves)


def _panel(axes, i, group, values):
    """Draws one layer of one group, nothing where the group lacks it."""
    if values is not None:
        means = drawing.mean(group, values.isel(task=grouping.measured(values)))
        bands = [(_at(means, low), _at(means, high), opacity) for (low, high), opacity in BANDS.items()]
        style.spread(axes, i, means["task"].values + 1, _at(means, 0.5), bands)
    style.count(axes, group.done, "task")


def _at(means, share):
    """[task] one quantile over units; labels may be rounded."""
    return means.sel(quantile=share, method="nearest").values


def _records(group, values, layer):
    """The means over runs of all quantiles of one layer, a record for each task."""
    means = drawing.mean(group, values.isel(task=grouping.measured(values))).transpose("task", "quantile")
    fixed = {"variant": group.variant, **group.settings, "metric": NAME, "layer": layer, "unit": "task"}
    names = [f"quantile {share:.3g}" for share in means["quantile"].values]
    return [
        fixed | {"x": task + 1} | dict(zip(names, row, strict=True))
        for task, row in zip(means["task"].values.tolist(), means.values.tolist(), strict=True)
    ]
