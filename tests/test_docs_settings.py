"""docs/settings.md against the code: every setting with its default, every name, and the stream of one's own data."""

import ast
import inspect
import re

import chex
import numpy as np
import pytest
from small_runs import ROOT

from plasticity_jax.build import DEFAULTS, REGISTRIES, complete
from plasticity_jax.host import data
from plasticity_jax.run import load_data

TEXT = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
WITH_SETTINGS = ("head", "optimizer", "schedule")  # whose tables are here; docs/networks.md and docstrings have others


def rows(*header):
    """The rows of all tables with these columns."""
    lines = iter(TEXT.splitlines())
    found = []
    for line in lines:
        if line == f"| {' | '.join(header)} |":
            next(lines)
            while (row := next(lines, "")).startswith("|"):
                found.append([cell.strip() for cell in row.strip("|").split(" | ")])
    assert found and all(len(row) == len(header) and all(row) for row in found), header
    return found


def value(cell):
    """(type, value) of a default: 1 and 1.0 are two things."""
    found = ast.literal_eval(cell.strip("`"))
    return type(found), found


def settings(kind, factory):
    parameters = inspect.signature(factory).parameters.values()
    if kind == "data":  # as `data.load` tells settings from what it passes itself
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def flat(tree, path=()):
    for name, item in tree.items():
        yield from flat(item, (*path, name)) if isinstance(item, dict) else [(".".join((*path, name)), item)]


def test_every_setting_of_the_configuration_and_its_default():
    expected = {key: default for key, default in DEFAULTS.items() if key not in ("diagnostics", "interventions")}
    expected["stream"] = {**expected["stream"], "cycle": complete({})["stream"]["cycle"]}
    blocks = {"diagnostics": {"NAME": {"name": "shift"}}, "interventions": {"NAME": {"name": "own_parts:noisy"}}}
    for kind, given in complete(blocks).items():
        if kind in blocks:  # what build itself adds to the settings of a factory
            own = {name: item for name, item in given["NAME"].items() if name.startswith(("every", "at"))}
            expected[kind] = {"NAME": own}
    documented = [(path.strip("`"), value(default)) for path, default, _ in rows("setting", "default", "meaning")]
    assert len(documented) == len(dict(documented))
    assert dict(documented) == {path: (type(item), item) for path, item in flat(expected)}


def test_every_setting_of_a_part_and_its_default():
    factories = {kind: REGISTRIES[kind] for kind in WITH_SETTINGS} | {"data": data._LOADERS}
    expected = {}
    for kind, registry in factories.items():
        for name, factory in registry.items():
            found = settings(kind, factory).items()
            expected |= {(f"{kind}.{setting}", name): (type(item), item) for setting, item in found}
    documented = [
        ((path.strip("`"), owner), value(default))
        for path, owners, default, _ in rows("setting", "of", "default", "meaning")
        for owner in owners.split(", ")
    ]
    assert len(documented) == len(dict(documented))
    assert dict(documented) == expected


@pytest.mark.parametrize("kind", WITH_SETTINGS)
def test_every_name(kind):
    [meaning] = [row[2] for row in rows("setting", "default", "meaning") if row[0] == f"`{kind}.name`"]
    assert set(REGISTRIES[kind]) <= set(re.findall(r"`(\w+)`", meaning))


def test_data_sets_and_their_sizes():
    documented, where = {}, "where they come from"
    for names, images, size, classes, _ in rows("`data.name`", "images for training, test", "size", "classes", where):
        documented |= dict.fromkeys(re.findall(r"\w+", names), f"{images} of {size}, {classes}")
    assert set(documented) == set(data.NAMES)
    for name in ("digits", "none"):  # those that need no files
        found = data.load(name)
        train, test = (len(found.arrays[part]["y"]) for part in ("train", "test"))
        size = "x".join(map(str, found.arrays["train"]["x"].shape[1:]))
        assert documented[name] == f"{train:,}, {test:,} of {size}, {found.classes}"


def test_data_of_ones_own(tmp_path, monkeypatch):
    """The loader of the last section reads back what was written."""
    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    (tmp_path / "docs_own_images.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    made = data.load("synthetic", images=40, test_images=10, height=4, width=4, classes=4)
    parts = made.arrays.items()
    np.savez(tmp_path / "images.npz", **{f"{part}_{name}": a for part, found in parts for name, a in found.items()})
    found = load_data({"data": {"name": "docs_own_images:own_images", "file": str(tmp_path / "images.npz")}})
    assert (found.classes, found.name) == (4, "docs_own_images:own_images")
    chex.assert_trees_all_equal(found.arrays, made.arrays)
