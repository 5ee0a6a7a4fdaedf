"""Tables of one metric in chosen tasks."""

import numpy as np
import pytest
from fake_results import metrics, write_variant

from plasticity_jax.analysis import tables, windows


@pytest.fixture
def folder(tmp_path):
    """Two variants of two seeds: a metric that is 10 x task + seed, online in two segments, and in two layers."""
    dataset = metrics(0.0, seeds=[0, 1], small=True).isel(layer=slice(0, 2))
    value = 10.0 * np.arange(1, 7) + np.arange(2)[:, None]  # [run, task]
    dataset["online_loss"] = (("run", "task", "segment"), np.stack([value - 1, value + 1], -1))
    dataset["explained_variance"] = (("run", "task"), np.where(np.arange(6) % 2, value, np.nan))
    dataset["srank"] = (("run", "task", "layer"), np.stack([value, 2 * value], -1))
    dataset["curve"] = (("run", "task", "probe_step"), np.stack([value, value], -1))
    write_variant(tmp_path / "a", dataset)
    write_variant(tmp_path / "b", dataset.assign(online_loss=dataset["online_loss"] + 100))
    return tmp_path


def _means(record):
    return {name: round(float(value.mean), 4) for name, value in record.items() if hasattr(value, "mean")}


def test_means_over_windows_and_the_change_run_by_run(folder):
    a, b = windows.table(folder, "online_loss", ["1-3:2", "6"])
    assert (a["variant"], b["variant"], a["seeds"]) == ("a", "b", 2)
    assert _means(a) == {"tasks 1-3:2": 20.5, "tasks 6": 60.5, "change": 40.0}
    assert _means(b) == {"tasks 1-3:2": 120.5, "tasks 6": 160.5, "change": 40.0}
    assert float(a["change"].high - a["change"].low) == pytest.approx(0.0, abs=1e-4)  # the same change in both runs
    assert float(a["tasks 6"].high) == pytest.approx(60.5 + 12.706 * np.std([60, 61], ddof=1) / np.sqrt(2), rel=1e-3)
    assert "60.500" in tables.to_text([a, b])


def test_only_tasks_that_were_measured_count(folder):
    (a, _) = windows.table(folder, "explained_variance", ["1-4"])
    assert _means(a) == {"tasks 1-4": 30.5}  # tasks 2 and 4


def test_a_row_for_each_layer(folder):
    rows = windows.table(folder, "srank", ["2"])
    assert [(r["variant"], r["layer"], _means(r)["tasks 2"]) for r in rows[:2]] == [
        ("a", "fc0", 20.5),
        ("a", "fc1", 41.0),
    ]


@pytest.mark.parametrize(
    ("metric", "tasks", "words"),
    [
        ("sharpnes", "1", "No numbers of 'sharpnes' in .* It has: curve, diverged"),
        ("srank", "1-7", "tasks='1-7', but a has 6 tasks"),
        ("srank", "0", "tasks='0': write 3, 1-5 or 1-29:2"),
        ("srank", "3-1", "tasks='3-1'"),
        ("srank", "1-3:0", "tasks='1-3:0'"),
        ("srank", "first", "tasks='first'"),
        ("curve", "1", "curve has the dimension probe_step: read it from metrics"),
    ],
)
def test_what_cannot_be_shown_is_refused(folder, metric, tasks, words):
    with pytest.raises(ValueError, match=words):
        windows.table(folder, metric, [tasks])
