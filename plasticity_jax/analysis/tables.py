"""The table of variants and the table of paired differences, as records, aligned text, CSV and HTML.

All intervals in tables are Student t at 95%; changes and differences are taken seed by seed before they are averaged.
Each group is judged at the first and at the newest task of which all its runs have a final score, a difference at those
that both sides have: some diagnostics skip tasks, and a task under way has no final score yet.
"""

import csv
import html
import io

import numpy as np

from plasticity_jax.analysis import groups as grouping
from plasticity_jax.analysis import statistics

__all__ = ["cell", "differences", "measured", "summary", "to_csv", "to_html", "to_text", "unpaired"]

SCORES = ("first task", "last task", "change")
ABSENT = statistics.Interval(*(np.array(np.nan),) * 3, np.array(0))


def summary(groups):
    """One record per group: first task, last task and change of the final score, and the mean online score.

    Intervals are keyed by the heading under which they are printed, for example "first task".
    """
    kind = grouping.score(groups)
    return [_identity(group) | _scores(group, kind) for group in groups]


def differences(groups):
    """One record per group that has a reference with the same tasks: group minus reference, paired by seed."""
    kind = grouping.score(groups)
    return [_difference(a, b, kind) for a, b in _pairs(groups) if not _apart(a, b)]


def unpaired(groups):
    """Sentences on the groups that have no row of differences because they have other tasks, "" without any."""
    alone = {}
    for a, b in _pairs(groups):
        for what, mine, theirs in _apart(a, b)[:1]:
            alone.setdefault(what, []).append(f"{a.label} ({mine}; {b.label} has {theirs})")
    return " ".join(f"Not compared, because their {what} differ: {', '.join(who)}." for what, who in alone.items())


def measured(records):
    """A sentence on which tasks stand under "first task" and "last task" in some records, "" where none does."""
    found = {}
    for record in records:
        tasks = dict.fromkeys(record[edge] for edge in ("first", "last") if record[edge])
        if tasks:
            found.setdefault(" and ".join(map(str, tasks)), []).append(record["variant"])
    parts = [f"{tasks} ({', '.join(names)})" if len(found) > 1 else tasks for tasks, names in found.items()]
    return f"First and last task that have a final score: {'; '.join(parts)}." if parts else ""


def cell(value, short=False):
    """A number for people: intervals as mean [low, high], short as mean ± half width, "-" where there is none.

    >>> cell(statistics.Interval(np.array(0.5), np.array(0.4), np.array(0.6), np.array(8)))
    '0.500 [0.400, 0.600]'
    """
    if not isinstance(value, statistics.Interval):
        return str(value)
    if not np.isfinite(value.mean):
        return "-"
    mean, low, high = (round(float(v), 3) + 0.0 for v in (value.mean, value.low, value.high))  # + 0.0: no -0.000
    if not np.isfinite(low):
        return f"{mean:.3f}"
    if short:
        return f"{mean:.3f} ± {(value.high - value.low) / 2:.3f}"
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def to_text(records):
    """Aligned columns for a terminal; "" without records.

    >>> print(to_text([{"variant": "adam", "seeds": 8}, {"variant": "layer norm", "seeds": 8}]))
    variant     seeds
    adam            8
    layer norm      8
    """
    if not records:
        return ""
    rows = [list(_shown(records[0])), *([cell(v, short=True) for v in _shown(r).values()] for r in records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(_align(i, text, widths[i]) for i, text in enumerate(row)).rstrip() for row in rows)
    return "\n".join(lines)


def to_csv(records):
    """The same records with all digits: an interval becomes four columns, a grid setting one of its own."""
    if not records:
        return ""
    rows = [_flat(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def to_html(records, caption=""):
    """A table element; everything is escaped."""
    if not records:
        return ""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in _headings(records))
    body = "\n".join(_html_row(_shown(record).values()) for record in records)
    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _identity(group):
    """What names a group, and how much of it there is."""
    return {
        "variant": group.label,
        "settings": {"name": group.variant, **group.settings},
        "seeds": group.seeds,
        "excluded": len(group.excluded),
        "tasks": group.done,
        "tasks asked for": group.tasks,
    }


def _scores(group, kind):
    """First, last, change and online mean of one group."""
    final, online = group.values(f"final_{kind}"), group.values(f"online_{kind}")
    out = dict.fromkeys(("first", "last"), "") | dict.fromkeys(SCORES, ABSENT) | {f"online {kind}": ABSENT}
    tasks = _shared(final) if final is not None else []
    if tasks:
        out["first"], out["first task"] = tasks[0] + 1, _student(final.isel(task=tasks[0]))
    if len(tasks) > 1:
        out["last"], out["last task"] = tasks[-1] + 1, _student(final.isel(task=tasks[-1]))
        out["change"] = _student(_change(final, tasks))
    if online is not None:
        out[f"online {kind}"] = _student(_per_run(online))
    return out


def _difference(a, b, kind):
    """The record of a minus b."""
    done = min(a.done, b.done)
    out = {"variant": a.label, "minus": b.label, "settings": {"name": a.variant, **a.settings}}
    out |= {"pairs": 0, "tasks": done, "first": "", "last": "", "last task": ABSENT, "change": ABSENT}
    out[f"online {kind}"] = ABSENT
    final = _both(a, b, f"final_{kind}", done)
    tasks = sorted(set.intersection(*(set(_shared(x)) for x in final))) if final else []
    if tasks:
        out["first"], out["last"] = tasks[0] + 1, tasks[-1] + 1
        out["last task"] = statistics.paired_difference(*(x.isel(task=tasks[-1]) for x in final))
        out["pairs"] = int(out["last task"].n)
        if len(tasks) > 1:
            out["change"] = statistics.paired_difference(*(_change(x, tasks) for x in final))
    online = _both(a, b, f"online_{kind}", done)
    if online is not None:
        out[f"online {kind}"] = statistics.paired_difference(*(_per_run(x) for x in online))
        out["pairs"] = int(out[f"online {kind}"].n)
    return out


def _pairs(groups):
    """Each group that has a reference, with it."""
    pairs = [(group, grouping.reference(group, groups)) for group in groups]
    return [(a, b) for a, b in pairs if b is not None]


def _apart(a, b):
    """Why the tasks of two groups are others, [(what differs, of a, of b)]; what one of them lacks is no reason."""
    reasons = [("data", a.named("data"), b.named("data")), ("streams", a.named("stream"), b.named("stream"))]
    reasons += [("numbers of tasks", a.tasks, b.tasks)]
    return [(what, mine, theirs) for what, mine, theirs in reasons if mine and theirs and mine != theirs]


def _shared(final):
    """Indices of the tasks in which all runs have a finite value."""
    return np.flatnonzero(np.isfinite(final).all("run")).tolist() if final.sizes["run"] else []


def _both(a, b, name, done):
    """One metric of two groups over the tasks that both have done, None where either lacks it."""
    values = [group.values(name) for group in (a, b)]
    if any(v is None for v in values):
        return None
    return [_unlabelled(v.isel(task=slice(0, done)), g) for v, g in zip(values, (a, b), strict=True)]


def _unlabelled(values, group):
    """Values without the grid settings, which a group does not vary: pairs are then made by seed."""
    return values.drop_vars(list(group.settings))


def _student(values):
    """Mean over runs with Student's interval."""
    return statistics.interval(values, axis="run", method="student")


def _change(values, tasks):
    """Last of some tasks minus first, run by run."""
    return values.isel(task=tasks[-1], drop=True) - values.isel(task=tasks[0], drop=True)


def _per_run(values):
    """Mean over tasks, each task weighing the same whatever its number of segments."""
    return values.mean([d for d in values.dims if d not in ("run", "task")]).mean("task")


def _shown(record):
    """A record as it is printed: what counts over what there is, and no columns for machines."""
    hidden = ("settings", "excluded", "tasks asked for", "first", "last")
    shown = {name: value for name, value in record.items() if name not in hidden}
    if record.get("excluded"):
        shown["seeds"] = f"{record['seeds']}/{record['seeds'] + record['excluded']}"
    if record.get("tasks asked for", 0) > record.get("tasks", 0):
        shown["tasks"] = f"{record['tasks']}/{record['tasks asked for']}"
    return shown


def _headings(records):
    """Column headings, with the level where a column holds intervals."""
    intervals = {n for r in records for n, v in r.items() if isinstance(v, statistics.Interval)}
    return [f"{name} [95%]" if name in intervals else name for name in _shown(records[0])]


def _align(i, text, width):
    """Names to the left, numbers to the right."""
    return text.ljust(width) if i == 0 else text.rjust(width)


def _html_row(values):
    """One row; in intervals a minus is a minus sign."""
    cells = [cell(v).replace("-", "−") if isinstance(v, statistics.Interval) else cell(v) for v in values]
    return f"<tr><th>{html.escape(cells[0])}</th>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells[1:]) + "</tr>"


def _flat(record):
    """A record with scalars only."""
    out = {}
    for name, value in record.items():
        if isinstance(value, statistics.Interval):
            names = [f"{name} {part}" for part in ("mean", "low", "high", "n")]
            out |= dict(zip(names, (v.item() for v in value), strict=True))
        elif isinstance(value, dict):
            out |= {"variant" if key == "name" else key: v for key, v in value.items()}
        else:
            out[name] = value
    return out
