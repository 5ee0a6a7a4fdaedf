"""Panels of the metrics in the catalogue, and the figure of what is left of each task."""

import numpy as np
import pytest
from fake_results import metrics, write_variant

from plasticity_jax.analysis import catalogue, figures, groups, others, report, results


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


def test_metrics_of_own_diagnostics_are_drawn_or_named(tmp_path):
    """A number for each task; for each task and layer, also inside tasks; and what has another dimension."""
    dataset = metrics(0.1, seeds=[0, 1]).isel(layer=slice(0, 2))
    dataset["mine"] = dataset["final_loss"] + 1
    dataset["largest"] = dataset["srank"]
    dataset["inside"] = dataset["srank"] * (dataset["online_loss"] * 0 + 1)
    dataset["scores"] = (("run", "task", "probe_step"), np.ones((2, 6, 3)))
    dataset["stable_rank"] = dataset["srank"]
    dataset["empty"] = dataset["mine"] * np.nan
    write_variant(tmp_path / "a", dataset)
    write_variant(tmp_path / "b", dataset.drop_vars(["mine", "largest"]))
    drawn = {d.name: d for d in _drawn(tmp_path)}
    (panel,) = drawn["other"].figure.axes
    assert panel.get_title() == panel.get_ylabel() == "mine" and len(panel.lines) == 1
    np.testing.assert_allclose(panel.lines[0].get_ydata(), dataset["mine"].mean("run"), rtol=1e-6)
    panels = {axes.get_title(): axes for axes in drawn["other_layers"].figure.axes}
    assert list(panels) == ["inside, fc0", "inside, fc1", "largest, fc0", "largest, fc1"]
    np.testing.assert_allclose(panels["inside, fc1"].lines[1].get_ydata(), dataset["srank"][..., 1].mean("run"))
    assert others.undrawn(groups.split(results.load(tmp_path))) == "In metrics.zarr, not drawn: scores, stable_rank."
    assert "not drawn: scores, stable_rank." in report.write(tmp_path).read_text(encoding="utf-8")


def test_own_metrics_of_many_layers_are_maps_beside_numbers_of_none(tmp_path):
    deep = _deep(9)
    deep["largest"], deep["mine"] = deep["spectral_norm"], deep["final_loss"]
    write_variant(tmp_path / "a", deep)
    drawn = {d.name: d for d in _drawn(tmp_path)}
    assert drawn["other_layers"].figure.axes[0].images and drawn["other"].figure.axes[0].lines
    assert "not drawn" not in report.write(tmp_path).read_text(encoding="utf-8")


def _overlap(seeds_with_numbers):
    """Metrics of eight seeds, of which so many have dormant units in each task."""
    dataset = metrics(0.1).isel(layer=slice(0, 1))
    values = np.tile(0.1 * np.arange(8)[:, None, None], (1, 6, 1))
    for task, seeds in enumerate(seeds_with_numbers):
        values[seeds:, task] = np.nan
    return dataset.assign(dormant_overlap=(("run", "task", "layer"), values))


def test_points_of_fewer_than_half_of_the_seeds_are_left_out(tmp_path):
    write_variant(tmp_path / "a", _overlap([8, 4, 3, 8, 1, 0]))
    drawing = next(d for d in _drawn(tmp_path) if d.name == "changes")
    (panel,) = drawing.figure.axes
    assert panel.lines[0].get_xdata().tolist() == [1, 2, 4]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), [0.35, 0.15, 0.35], rtol=1e-6)
    assert drawing.caption.endswith("Points that rest on fewer than half of the seeds are left out: 2.")
    assert "mean over 4 to 8 seeds" in drawing.caption
    assert [(c["n"], np.isfinite(c["mean"])) for c in drawing.curves] == [
        *((8, True), (4, True), (3, False), (8, True), (1, False))
    ]


def test_a_panel_without_enough_seeds_is_empty_and_a_map_has_a_gap(tmp_path):
    few = _overlap([3] * 6)
    few["spectral_norm"] = few["dormant_overlap"] + 1
    write_variant(tmp_path / "few", few)
    drawn = {d.name: d for d in _drawn(tmp_path)}
    assert not drawn["changes"].figure.axes[0].lines and not drawn["weights"].figure.axes[0].lines
    assert "Lines" not in drawn["changes"].caption
    deep = _deep(9)
    deep = deep.isel(run=[0, 1, 0, 1, 0]).assign_coords(seed=("run", range(5)))
    deep["spectral_norm"][2:, :, 4] = np.nan
    deep["preactivation_mean"][2:, :, 0] = np.nan
    write_variant(tmp_path / "deep" / "a", deep)
    drawn = {d.name: d for d in _drawn(tmp_path / "deep")}
    (image,) = drawn["weights"].figure.axes[0].images
    assert np.isnan(np.ma.filled(image.get_array(), np.nan)).all(1).tolist() == [layer == 4 for layer in range(9)]
    assert "are left out: 6." in drawn["weights"].caption
    assert np.isnan(drawn["preactivation_mean"].figure.axes[0].lines[0].get_ydata()).all()


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


def _deep(layers):
    """Metrics of a network of so many layers: a norm that grows tenfold with each task and layer, and quantiles."""
    dataset = metrics(0.1, seeds=[0, 1], small=True).drop_vars("layer")
    names = [f"block{i}/conv" for i in range(layers)]
    norm = 10.0 ** (np.arange(6)[:, None] + np.arange(layers))
    dataset["spectral_norm"] = (("run", "task", "layer"), np.stack([0.5 * norm, 1.5 * norm]))
    shares = [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
    means = np.arange(6.0)[:, None, None] - np.arange(layers)[:, None] + 10 * np.array(shares)
    dataset["preactivation_mean"] = (("run", "task", "layer", "quantile"), np.stack([means - 1, means + 1]))
    return dataset.assign_coords(layer=names, quantile=shares)


def test_many_layers_are_one_map_for_each_variant(tmp_path):
    deep = _deep(18)
    deep["spectral_norm"][:, 1::2] = np.nan  # measured after every other task
    write_variant(tmp_path / "a", deep)
    write_variant(tmp_path / "b", deep.isel(layer=slice(1, 18)))
    drawing = next(d for d in _drawn(tmp_path) if d.name == "weights")
    maps = [axes for axes in drawing.figure.axes if axes.images]
    assert [axes.get_title() for axes in maps] == ["a", "b"]
    assert [tick.get_text() for tick in maps[0].get_yticklabels()] == deep["layer"].values.tolist()
    assert [tick.get_text() for tick in maps[0].get_xticklabels()] == ["1", "3", "5"]
    (first,), (second,) = (axes.images for axes in maps)
    expected = 10.0 ** (np.arange(0, 6, 2) + np.arange(18)[:, None])
    np.testing.assert_allclose(first.get_array(), expected, rtol=1e-5)
    assert np.isnan(np.ma.filled(second.get_array()[0], np.nan)).all()  # b has no such layer
    assert first.norm is second.norm and type(first.norm).__name__ == "LogNorm"
    assert len(drawing.curves) == (18 + 17) * 3 and max(drawing.figure.get_size_inches()) < 10


def test_few_layers_have_a_panel_each(tmp_path):
    write_variant(tmp_path / "a", _deep(8))
    drawing = next(d for d in _drawn(tmp_path) if d.name == "weights")
    assert len(drawing.figure.axes) == 8 and all(axes.lines for axes in drawing.figure.axes)


def test_quantiles_of_units_are_a_line_between_two_bands(tmp_path):
    write_variant(tmp_path / "a", _deep(9))
    drawing = next(d for d in _drawn(tmp_path) if d.name == "preactivation_mean")
    titles = [axes.get_title() for axes in drawing.figure.axes]
    assert titles == [f"block{i}/conv,\na" for i in (0, 3, 5, 8)] and "Of 9 layers 4 are shown." in drawing.caption
    last = drawing.figure.axes[-1]
    np.testing.assert_allclose(last.lines[0].get_ydata(), np.arange(6.0) - 8 + 5, atol=1e-5)  # mean of both seeds
    outer, inner = (band.get_paths()[0].get_extents() for band in last.collections)
    np.testing.assert_allclose([outer.y0, outer.y1], [-8 + 0.5, 5 - 8 + 9.5], atol=1e-5)
    np.testing.assert_allclose([inner.y0, inner.y1], [-8 + 2.5, 5 - 8 + 7.5], atol=1e-5)
    assert len(drawing.curves) == 9 * 6 and drawing.curves[0]["quantile 0.95"] == pytest.approx(9.5)


def test_all_captions_count_the_runs_that_are_left_out(tmp_path):
    dataset = _deep(9)
    dataset["diverged"][1, 3:] = 1
    write_variant(tmp_path / "a", dataset, diverged=[1])
    captions = {drawing.name: drawing.caption for drawing in _drawn(tmp_path)}
    assert {"accuracy", "weights", "preactivation_mean"} <= set(captions)
    assert all(caption.endswith(" Runs excluded: 1.") for caption in captions.values())


def test_a_single_measurement_shows_its_interval_and_the_axis_all_tasks(tmp_path):
    dataset = _deep(1)
    dataset["sharpness"] = dataset["final_accuracy"].where(dataset["task"] == 5)
    dataset["preactivation_mean"] = dataset["preactivation_mean"].where(dataset["task"] == 5)
    write_variant(tmp_path / "a", dataset)
    drawn = {d.name: d.figure.axes[0] for d in _drawn(tmp_path)}
    axes, bars = drawn["curvature"], drawn["preactivation_mean"].collections[1::2]
    np.testing.assert_allclose([bar.get_segments()[0][:, 1] for bar in bars], [[5.5, 14.5], [7.5, 12.5]], rtol=1e-5)
    low, high = axes.collections[1].get_segments()[0][:, 1]
    assert low < float(dataset["sharpness"][:, 5].mean()) < high
    assert axes.get_xlim()[0] < 1 and axes.get_xlim()[1] > 6
