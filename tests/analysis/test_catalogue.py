"""Panels of the metrics in the catalogue, and the figure of what is left of each task."""

import numpy as np
import pytest
from fake_results import metrics, write_variant

from plasticity_jax.analysis import catalogue, figures, groups, results


def _drawn(folder):
    return figures.draw(groups.split(results.load(folder)))


def test_every_entry_is_drawn_where_it_was_measured_and_left_out_elsewhere(tmp_path):
    base = metrics(0.1, seeds=[0, 1])
    variables = {m.variable: m for _, *panels in catalogue.FIGURES.values() for m in panels}
    absent = variables.pop("saturated_fraction").variable
    dims = {False: ("run", "task"), True: ("run", "task", "layer")}
    for name, metric in variables.items():
        sizes = [base.sizes[d] for d in dims[metric.per_layer]]
        base[name] = (dims[metric.per_layer], np.random.default_rng(0).uniform(1, 2, sizes))
    base[absent] = (dims[True], np.full([base.sizes[d] for d in dims[True]], np.nan))
    write_variant(tmp_path / "all", base)
    drawn = {d.name: {c["metric"] for c in d.curves} for d in _drawn(tmp_path)}
    for name, (_, *panels) in catalogue.FIGURES.items():
        assert name == "loss" or drawn[name] == {m.variable for m in panels} - {absent}  # here accuracy stands for loss


@pytest.mark.parametrize(("largest", "scale"), [(2.0, "linear"), (1e4, "log")])
def test_axes_are_logarithmic_where_values_span_decades_and_panels_of_one_label_share_them(tmp_path, largest, scale):
    dataset = metrics(0.1, small=True)
    for name, values in {"probe_loss": np.full(6, 1.0), "probe_loss_carried": np.geomspace(1.0, largest, 6)}.items():
        dataset[name] = (("run", "task"), np.tile(values, (8, 1)))
    write_variant(tmp_path / "a", dataset)
    (drawing,) = (d for d in _drawn(tmp_path) if d.name == "probe")
    assert {axes.get_yscale() for axes in drawing.figure.axes} == {scale}
    ((low, high),) = {axes.get_ylim() for axes in drawing.figure.axes}
    assert low < 1.0 and high > largest  # no line lies on the frame


def test_long_names_of_layers_have_a_line_of_their_own(tmp_path):
    long = "stage3_block0/shortcut"
    write_variant(tmp_path / "a", metrics(0.1).assign_coords(layer=["stem", long, "head"]))
    drawings = _drawn(tmp_path)
    titles = {axes.get_title() for d in drawings for axes in d.figure.axes if d.name == "units"}
    assert {"dead units, stem", f"dead units,\n{long}"} <= titles


def test_what_is_left_of_each_task_has_a_line(tmp_path):
    """Of 11 tasks six are drawn, those that have begun by then; accuracy falls from 0.9 by 0.1 a task."""
    dataset = metrics(0.0, seeds=[0, 1], small=True)
    age = np.arange(6.0)[:, None] - np.arange(-5, 6)  # at the end of 6 tasks, on the inputs of 11
    values = np.where(age >= 0, 0.9 - 0.1 * age, np.nan)
    dataset["accuracy_by_task"] = (("run", "task", "group"), np.stack([values - 0.05, values + 0.05]))
    write_variant(tmp_path / "a", dataset)
    (drawing,) = (d for d in _drawn(tmp_path) if d.name == "accuracy_by_task")
    (panel,) = drawing.figure.axes
    assert [line.get_label() for line in panel.lines] == [f"inputs of task {t}" for t in (1, 3, 5, 7, 9, 11)]
    for line, begun in zip(panel.lines, (1, 1, 1, 2, 4, 6), strict=True):
        assert line.get_xdata().tolist() == list(range(begun, 7))
    np.testing.assert_allclose(panel.lines[4].get_ydata(), [0.9, 0.8, 0.7])
    assert len(drawing.curves) == 3 * 6 + 5 + 3 + 1
