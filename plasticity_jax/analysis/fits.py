"""The figure of the probe's fits: loss of copies, and of new networks, while they are fitted to fresh targets."""

import numpy as np

from plasticity_jax.analysis import drawing, style
from plasticity_jax.analysis import groups as grouping

__all__ = ["draw", "mark_baseline"]


def draw(groups):
    """A panel for new networks, and one for the first and for the newest boundary at which all groups were probed.

    Args:
      groups: from `groups.split`.

    Returns:
      Drawing; None where there is no such boundary.
    """
    found = [(i, g, g.values("probe_curve"), g.values("probe_curve_fresh")) for i, g in enumerate(groups)]
    found = [line for line in found if line[2] is not None and line[3] is not None]
    shared = set.intersection(*(set(grouping.measured(old)) for _, _, old, _ in found)) if found else set()
    if not shared:
        return None
    first, newest = min(shared), max(shared)
    panels = {"new networks": [(i, g, fresh.isel(task=first)) for i, g, _, fresh in found]}
    for task in sorted({first, newest}):
        panels[f"after task {task + 1}"] = [(i, g, old.isel(task=task)) for i, g, old, _ in found]
    figure, axes = style.grid(1, len(panels), 2.5)
    curves = []
    for axis, (title, lines) in zip(axes[0], panels.items(), strict=True):
        for i, group, values in lines:
            values = values.mean("target").dropna("probe_step", how="all")
            unit = f"step of the fit, {title}"
            curves += drawing.line(axis, i, group, values, values["probe_step"], unit, values.name)
        axis.set(title=title, xlabel="optimizer step of the fit", yscale="log")
        axis.tick_params(labelleft=axis is axes[0][0])
    axes[0][0].set_ylabel("probe loss (squared error)")
    caption = (
        "Copies fitted to fresh targets: loss over all probe inputs, mean over targets, from a fresh optimizer state."
    )
    caption += mark_baseline(axes[0], [group for _, group, _, _ in found])
    style.share(axes[0])
    return drawing.finished("probe_curves", figure, caption, curves, [group for _, group, _, _ in found])


def mark_baseline(panels, groups):
    """Draws the mean of `probe_baseline` into panels of probe losses; returns a sentence on it, "" without any."""
    known = [group.values("probe_baseline") for group in groups]
    means = [float(values.mean()) for values in known if values is not None]
    if not means:
        return ""
    for axes in panels:
        style.mark(axes, np.mean(means), f"best constants ({np.mean(means):.2f})")
    return " Grey line: the loss of the best constants (probe_baseline): from there up, nothing is fitted."
