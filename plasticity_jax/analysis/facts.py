"""What a report says in words: what was run, how far it is, what is wrong with it, and where it ran."""

import json

import numpy as np

__all__ = [
    "classes",
    "constant_settings",
    "costs",
    "differing_settings",
    "environment",
    "flatten",
    "spans",
    "status",
    "warnings",
]

BLOCKS = ("stream", "network", "head", "optimizer", "schedule", "interventions", "data")


def flatten(tree, prefix=""):
    """Leaves of nested dicts by dotted path; lists stay whole.

    >>> flatten({"optimizer": {"name": "adam", "b2": 0.9}, "seeds": 8})
    {'optimizer.name': 'adam', 'optimizer.b2': 0.9, 'seeds': 8}
    """
    out = {}
    for name, value in tree.items():
        path = f"{prefix}{name}"
        out |= flatten(value, f"{path}.") if isinstance(value, dict) and value else {path: value}
    return {path: value for path, value in out.items() if value != {}}


def spans(numbers):
    """Whole numbers as spans.

    >>> spans([0, 1, 2, 5])
    '0–2, 5'
    """
    out = []
    for number in sorted(set(numbers)):
        if out and out[-1][1] == number - 1:
            out[-1][1] = number
        else:
            out.append([number, number])
    return ", ".join(f"{a}" if a == b else f"{a}–{b}" for a, b in out)


def constant_settings(variants):
    """Settings of the stream, network, optimizer, interventions and data that all variants share: {path: text}.

    Those of a diagnostic stand in one line; one that has none, and is measured at every boundary, is left out.
    """
    configs = [flatten(d.attrs["config"]) for d in variants.values() if d.attrs["config"]]
    shared = {p: _text(v) for p, v in (configs or [{}])[0].items() if all(_text(c.get(p)) == _text(v) for c in configs)}
    blocks = {path: text for path, text in shared.items() if path.split(".")[0] in BLOCKS}
    return blocks | _diagnostics(shared)


def differing_settings(variants):
    """Settings that differ between variants: {path: a text per variant}; "-" where a variant has no such setting."""
    configs = [flatten(d.attrs["config"]) for d in variants.values() if d.attrs["config"]]
    paths = dict.fromkeys(path for config in configs for path in config)
    rows = {p: [_text(flatten(d.attrs["config"]).get(p)) for d in variants.values()] for p in paths}
    known = [i for i, d in enumerate(variants.values()) if d.attrs["config"]]
    return {path: row for path, row in rows.items() if len({row[i] for i in known}) > 1}


def classes(variants):
    """Number of classes of the data if all variants agree on it, else None."""
    counts = {d.attrs["environment"].get("classes") for d in variants.values()} - {None}
    return counts.pop() if len(counts) == 1 else None


def status(variants, groups):
    """How far each variant is: {name: [state, tasks, seeds, time]}."""
    out = {}
    for name, dataset in variants.items():
        state, mine = dataset.attrs["status"], [g for g in groups if g.variant == name]
        seeds = spans(dataset["seed"].values.tolist()) if "seed" in dataset.coords else "-"
        runs = f"{dataset.sizes.get('run', 0)} runs, seeds {seeds}"
        tasks = f"{mine[0].done} of {mine[0].tasks or state.get('tasks', '?')}"
        out[name] = [str(state.get("state", "unknown")), tasks, runs, _duration(state.get("seconds"))]
    return out


def warnings(variants, groups):
    """Sentences on everything that a reader has to know before believing the numbers."""
    out = []
    for name, dataset in variants.items():
        out += [f"{name}: {problem}." for problem in dataset.attrs["missing"]]
        mine = [g for g in groups if g.variant == name]
        if mine[0].done < mine[0].tasks:
            state = dataset.attrs["status"].get("state", "unknown")
            out.append(f"{name}: {mine[0].done} of {mine[0].tasks} tasks have numbers (state: {state}).")
    out += [_different(block, groups) for block in ("data", "stream") if _different(block, groups)]
    for group in groups:
        if group.excluded:
            total = group.seeds + len(group.excluded)
            named = "; ".join(f"{seed}: {why}" for seed, why in group.excluded.items())
            text = f"{len(group.excluded)} of {total} runs are left out of all means, which favours those that remain"
            out.append(f"{group.label}: {text} ({named}).")
    for seeds in range(1, 5):
        few = [group.label for group in groups if group.seeds == seeds]
        if few:
            named = "all" if len(few) == len(groups) > 1 else ", ".join(few)
            count = "1 seed" if seeds == 1 else f"{seeds} seeds"
            out.append(f"{named}: {count}; below 5 seeds, bands in figures cover less than 95%.")
    return out


def costs(variants):
    """What measuring cost: {"variant: diagnostic": [times, time each, products each, share of training]}.

    Times and products are of one measurement of all runs. The share is of all that was measured over all that was
    trained; neither counts compiling.
    """
    out = {}
    for name, dataset in variants.items():
        found = {**dataset.attrs.get("costs", {})}
        training = found.pop("training", {"timed": 0})
        whole = training["seconds"] / training["timed"] * training["segments"] if training["timed"] else None
        for diagnostic, cost in sorted(found.items(), key=lambda item: -item[1]["seconds"]):
            each = f"{cost['seconds'] / cost['measurements']:.3g} s" if cost["measurements"] else "-"
            share = f"{cost['seconds'] / whole:.2%}" if whole else "-"
            out[f"{name}: {diagnostic}"] = [str(cost["measurements"]), each, f"{cost['gflop']:.3g}", share]
    return out


def environment(variants):
    """Versions, devices, commit and number of parameters: {name: text}, variants named where they differ."""
    facts = {name: flatten(d.attrs["environment"]) for name, d in variants.items() if d.attrs["environment"]}
    out = {}
    for path in dict.fromkeys(p for f in facts.values() for p in f):
        values = {}
        for name, fact in facts.items():
            values.setdefault(_text(fact.get(path)), []).append(name)
        texts = [v if len(values) == 1 else f"{v} ({', '.join(names)})" for v, names in values.items()]
        out[path.removeprefix("versions.")] = "; ".join(texts)
    return out


def _diagnostics(shared):
    """Settings of diagnostics, a line for each: {"diagnostics.probe": "every 5 tasks, targets 3"}."""
    lines = {}
    for path, text in shared.items():
        block, name, setting = [*path.split(".", 2), "", ""][:3]
        usual = {"name": name, "every": "1", "every_segments": "0"}
        if block == "diagnostics" and setting and text != usual.get(setting):
            said = {"every": f"every {text} tasks", "every_segments": f"every {text} segments"}
            lines.setdefault(f"{block}.{name}", []).append(said.get(setting, f"{setting} {text}"))
    return {path: ", ".join(said) for path, said in lines.items()}


def _different(block, groups):
    """The warning that variants have different data or streams, "" where they have not."""
    found = {}
    for group in groups:
        if group.named(block):
            found.setdefault(group.named(block), {})[group.variant] = None
    named = "; ".join(f"{name} ({', '.join(who)})" for name, who in found.items())
    text = f"Variants differ in {block}: {named}. They learn other things, and no differences between them are given."
    return text if len(found) > 1 else ""


def _text(value):
    """A setting as text."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{np.float32(value):.6g}"
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _duration(seconds):
    """Seconds as hours, minutes and seconds."""
    if not isinstance(seconds, (int, float)):
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
