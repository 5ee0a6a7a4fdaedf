"""Metrics that no figure of the catalogue is made for, such as those of one's own diagnostics."""

from plasticity_jax.analysis.catalogue import FIGURES, Metric

__all__ = ["figures", "undrawn"]

ELSEWHERE = {  # drawn by modules of their own, or said in words
    *("accuracy_by_task", "diverged", "gradient_covariance", "loss_along_eigenvectors", "loss_along_gradient"),
    *("online_accuracy_curve", "online_loss_curve", "preactivation_mean"),
    *("probe_baseline", "probe_curve", "probe_curve_fresh"),
}
SIMILAR = {"approximate_rank", "churn_distance", "feature_rank", "layer_weight_norm", "stable_rank"}  # to what is drawn
CAPTION = "Metrics that no other figure shows, at the end of each task."


def figures(groups):
    """Entries as of `catalogue.FIGURES` for metrics that have a number for each task, or for each task and layer.

    Args:
      groups: from `groups.split`.

    Returns:
      {"other": entry, "other_layers": entry}, without those that hold nothing.
    """
    found, out = _unknown(groups), {}
    for figure, dims in {"other": (), "other_layers": ("layer",)}.items():
        panels = [Metric(n, n, n, per_layer=bool(dims)) for n, own in found.items() if own == dims and n not in SIMILAR]
        out |= {figure: (CAPTION, *panels)} if panels else {}
    return out


def undrawn(groups):
    """A sentence on the metrics that were measured and are in no figure, "" without any."""
    drawn = {metric.variable for _, *panels in figures(groups).values() for metric in panels}
    names = [name for name in _unknown(groups) if name not in drawn]
    return f"In metrics.zarr, not drawn: {', '.join(names)}." if names else ""


def _unknown(groups):
    """{name: dimensions beside run, task and segment} of the metrics that no other figure shows, by name."""
    known, found = ELSEWHERE | {metric.variable for _, *panels in FIGURES.values() for metric in panels}, {}
    for group in groups:
        for name in set(group.data.data_vars) - known:
            values = group.values(name)
            if values is not None and {"run", "task"} <= set(values.dims):
                found[name] = tuple(d for d in values.dims if d not in ("run", "task", "segment"))
    return dict(sorted(found.items()))
