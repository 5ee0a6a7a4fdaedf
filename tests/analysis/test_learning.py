"""Learning curves inside tasks, of 4000 optimizer steps in the configuration of the fakes."""

import json

import numpy as np
import pytest
from fake_results import metrics, write_variant

from plasticity_jax.analysis import groups, learning, results


def _drawn(folder):
    return learning.draw(groups.split(results.load(folder)), classes=10)


def _with_parts(segments, parts=5):
    """Accuracy grows by 0.1 with each part of a task, from 0.1 times its number; even ones have one segment."""
    dataset = metrics(0.1, seeds=[0, 1])
    steps = np.arange(segments * parts).reshape(segments, parts)
    curve = np.tile(0.1 * np.arange(1, 7)[:, None, None] + 0.01 * steps, (2, 1, 1, 1))
    curve[:, 1::2, 1:] = np.nan
    online = dataset["online_accuracy"].isel(segment=slice(0, segments))
    dataset = dataset.drop_vars(["online_accuracy", "online_loss"]).assign(online_accuracy=online)
    return dataset.assign(online_accuracy_curve=(("run", "task", "segment", "part"), curve.astype(np.float32)))


def test_tasks_of_one_segment_are_drawn_by_their_parts(tmp_path):
    write_variant(tmp_path / "a", _with_parts(1))
    drawn = _drawn(tmp_path)
    panels = {axes.get_title(): axes for axes in drawn.figure.axes}
    assert list(panels) == ["task 1", "task 3", "task 6"] and "tasks 1, 3, 6" in drawn.caption
    for task, axes in zip((1, 3, 6), panels.values(), strict=True):
        assert axes.get_xlabel() == "optimizer step of the task" and axes.get_xlim() == (0, 4000)
        np.testing.assert_allclose(axes.lines[0].get_xdata(), [400, 1200, 2000, 2800, 3600])
        np.testing.assert_allclose(axes.lines[0].get_ydata(), 0.1 * task + 0.01 * np.arange(5), rtol=1e-6)
    assert len(drawn.curves) == 3 * 5


def test_parts_of_all_segments_stand_one_after_another(tmp_path):
    write_variant(tmp_path / "a", _with_parts(2))
    third, last = _drawn(tmp_path).figure.axes[1:]
    np.testing.assert_allclose(third.lines[0].get_xdata(), np.arange(200, 4000, 400))
    np.testing.assert_allclose(third.lines[0].get_ydata(), 0.3 + 0.01 * np.arange(10), rtol=1e-6)
    np.testing.assert_allclose(last.lines[0].get_xdata(), np.arange(200, 2000, 400))  # task 6 has one segment only
    assert third.get_xlim() == (0, 4000) and last.get_xlim() == (0, 2000)


@pytest.mark.parametrize(
    ("settings", "segments", "unit", "first", "end"),
    [
        ({"segment_steps": 30, "stream": {"steps": 0}}, 2, "optimizer step of the task", 3.0, 60),
        ({"segment_steps": 30, "stream": {"steps": 0}}, 1, "optimizer step of the task", 3.0, 30),
        ({"segment_steps": 0, "stream": {"steps": 0}}, 2, "segments since the task began", 0.1, 2),
        ({}, 1, "fraction of the task", 0.1, 1),
    ],
)
def test_the_axis_counts_steps_where_a_segment_has_a_known_number(tmp_path, settings, segments, unit, first, end):
    config = write_variant(tmp_path / "a", _with_parts(segments)) / "config.json"
    config.write_text(json.dumps({"config": settings}))
    drawn = _drawn(tmp_path)
    axes = drawn.figure.axes[0]
    assert axes.get_xlabel() == unit and axes.get_xlim() == (0, end)
    assert axes.lines[0].get_xdata()[0] == pytest.approx(first)
    assert drawn.curves[0]["unit"] == f"{unit}, task 1"


def test_variants_share_an_axis_of_segments_where_one_lacks_steps(tmp_path):
    write_variant(tmp_path / "a", _with_parts(2))
    write_variant(tmp_path / "b", _with_parts(2), stream__steps=0)
    axes = _drawn(tmp_path).figure.axes[0]
    assert axes.get_xlabel() == "segments since the task began"
    assert [line.get_xdata()[0] for line in axes.lines[:2]] == pytest.approx([0.1, 0.1])


def test_without_parts_segments_are_drawn(tmp_path):
    dataset = metrics(0.1, seeds=[0, 1])
    write_variant(tmp_path / "a", dataset)
    axes = _drawn(tmp_path).figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [500, 1500, 2500, 3500])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), dataset["online_accuracy"][:, 0].mean("run"), rtol=1e-6)


def test_single_points_are_no_figure(tmp_path):
    write_variant(tmp_path / "a", metrics(0.1, seeds=[0, 1]).isel(segment=slice(0, 1)))
    assert _drawn(tmp_path) is None


def test_a_variant_of_fewer_tasks_stands_where_it_has_them(tmp_path):
    write_variant(tmp_path / "a", _with_parts(1))
    write_variant(tmp_path / "b", _with_parts(1).isel(task=slice(0, 1)))
    drawn = _drawn(tmp_path)
    assert [len(axes.lines) for axes in drawn.figure.axes] == [3, 2, 2]  # with chance
    assert "Variants have different tasks here." in drawn.caption
    (tmp_path / "a" / "config.json").unlink()
    assert "need not be equally long" in _drawn(tmp_path).caption
