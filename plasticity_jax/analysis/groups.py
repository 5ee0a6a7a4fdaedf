"""Groups of runs that belong together: one variant at one point of its grid.

A group is a row of the table and a line of a figure. Runs that diverged, and runs that lack numbers which others of
their variant have, are taken out of it as a whole, so that its first and its last task rest on the same seeds;
`excluded` names each of them with the reason.
"""

from typing import NamedTuple

import numpy as np
import xarray

from plasticity_jax.analysis import results

__all__ = ["Group", "best", "measured", "reference", "score", "split", "tasks_done"]

CORE = ("final_accuracy", "online_accuracy", "final_loss", "online_loss")


class Group(NamedTuple):
    """The runs of one variant at one grid point."""

    variant: str
    settings: dict  # dotted path -> value; {} where there is no grid
    data: xarray.Dataset  # the runs that count
    excluded: dict  # "seed 3" -> why it does not count
    done: int  # tasks that are done
    tasks: int  # tasks that were asked for
    alone: bool = False  # whether there is no other variant

    @property
    def label(self):
        """Variant and grid point in words, the point alone where there is no other variant.

        Settings go by the last part of their path where that is unique.
        """
        names = [path.rsplit(".", 1)[-1] for path in self.settings]
        names = [n if names.count(n) == 1 else path for n, path in zip(names, self.settings, strict=True)]
        point = ", ".join(f"{n} {value:.4g}" for n, value in zip(names, self.settings.values(), strict=True))
        if not point:
            return self.variant
        return point if self.alone else f"{self.variant} ({point})"

    @property
    def seeds(self):
        """Number of runs that count."""
        return self.data.sizes.get("run", 0)

    def named(self, block):
        """The name in a block of the configuration, such as "data"; "" where it is not known."""
        return self.data.attrs.get("config", {}).get(block, {}).get("name", "")

    def values(self, name):
        """One metric of the tasks done, or None where it was not measured or is NaN throughout.

        What was measured inside tasks is taken at their ends, and is NaN where it was NaN there; online metrics keep
        their segments.
        """
        if name not in self.data or not self.done:
            return None
        data = self.data.isel(task=slice(0, self.done))
        inside = "segment" in data[name].dims and not name.startswith("online_")
        values = _last_segment(data, name) if inside else data[name]
        return values if bool(np.isfinite(values).any()) else None


def split(variants):
    """All groups of a {name: dataset}, in the order of the variants and, within one, of the runs."""
    found = [group for name, dataset in variants.items() for group in _points(name, dataset)]
    return [group._replace(alone=len(variants) == 1) for group in found]


def tasks_done(dataset):
    """How many tasks a dataset has numbers for: up to the last task for which any run has one."""
    if "task" not in dataset.dims:
        return 0
    done = np.zeros(dataset.sizes["task"], bool)
    for finite in _finite(dataset):
        done |= finite.any(0)
    return int(np.flatnonzero(done)[-1]) + 1 if done.any() else 0


def measured(values, dimension="task"):
    """Indices along a dimension at which anything is finite."""
    return np.flatnonzero(np.isfinite(values).any([d for d in values.dims if d != dimension])).tolist()


def score(groups):
    """What runs are judged by: "accuracy", or "loss" where no accuracy was measured."""
    names = ("online_accuracy", "final_accuracy")
    return "accuracy" if any(g.values(n) is not None for g in groups for n in names) else "loss"


def best(groups):
    """The best grid point of each variant: highest mean online accuracy over tasks (or lowest loss), same seeds."""
    kind = score(groups)
    sign = 1 if kind == "accuracy" else -1

    def merit(group):
        values = group.values(f"online_{kind}")
        values = group.values(f"final_{kind}") if values is None else values
        return -np.inf if values is None else sign * float(values.mean())

    names = dict.fromkeys(group.variant for group in groups)
    return [max((g for g in groups if g.variant == name), key=merit) for name in names]


def reference(group, groups):
    """The group that `group` is compared with: the first variant's at the same grid point.

    None where there is not exactly one. A variant that is alone has its first grid point as the reference.
    """
    first = groups[0]
    if all(g.variant == first.variant for g in groups):
        return None if group is first else first
    if group.variant == first.variant:
        return None
    matching = [g for g in groups if g.variant == first.variant and _agree(g.settings, group.settings)]
    return matching[0] if len(matching) == 1 else None


def _agree(a, b):
    """Whether two grid points are equal in all settings that both have."""
    return all(np.float32(a[path]) == np.float32(b[path]) for path in a if path in b)


def _points(name, dataset):
    """The groups of one variant."""
    paths = results.settings_of(dataset)
    done, tasks = tasks_done(dataset), dataset.sizes.get("task", 0)
    if "run" not in dataset.dims:
        return [Group(name, {}, dataset, {}, done, tasks)]
    columns = [np.asarray(dataset[path].values).tolist() for path in paths]
    points = list(zip(*columns, strict=True)) if paths else [()] * dataset.sizes["run"]
    reasons = _excluded(dataset)
    return [
        _group(name, dataset, dict(zip(paths, point, strict=True)), [p == point for p in points], reasons, done)
        for point in dict.fromkeys(points)
    ]


def _group(name, dataset, settings, members, reasons, done):
    """One group: the members without a reason against them, and the names of the others."""
    kept = [i for i, member in enumerate(members) if member and i not in reasons]
    excluded = {f"seed {int(dataset['seed'][i])}": why for i, why in reasons.items() if members[i]}
    return Group(name, settings, dataset.isel(run=kept), excluded, done, dataset.sizes["task"])


def _excluded(dataset):
    """{index of a run: why it does not count}."""
    reasons = {}
    for finite in _finite(dataset):
        for i in np.flatnonzero((~finite & finite.any(0)).any(1)):
            task = int(np.flatnonzero(~finite[i] & finite.any(0))[0]) + 1
            reasons[int(i)] = f"no finite value in task {task}"
    if "diverged" in dataset:
        flags = np.nan_to_num(dataset["diverged"].transpose("run", "task").values) > 0
        for i in np.flatnonzero(flags.any(1)):
            reasons[int(i)] = f"diverged in task {int(np.flatnonzero(flags[i])[0]) + 1}"
    for i in dataset.attrs.get("status", {}).get("diverged") or ():
        if i < dataset.sizes["run"] and not reasons.get(int(i), "").startswith("diverged"):
            reasons[int(i)] = "diverged"
    return dict(sorted(reasons.items()))


def _last_segment(data, name):
    """A metric in the last segment of each task: the last that has an online loss, or this metric, in any run."""
    last = 0
    for known in (np.isfinite(data[n]) for n in (name, "online_loss") if n in data):
        known = known.any([d for d in known.dims if d not in ("task", "segment")])
        last = np.maximum(last, (known * np.arange(1, data.sizes["segment"] + 1)).argmax("segment"))
    return data[name].isel(segment=last).drop_vars("segment", errors="ignore")


def _finite(dataset):
    """For each core metric: which runs have finite values in which task, [run, task] bool."""
    for name in CORE:
        if name in dataset and {"run", "task"} <= set(dataset[name].dims):
            finite = np.isfinite(dataset[name].transpose("run", "task", ...).values)
            yield finite.reshape(*finite.shape[:2], -1).any(-1)
