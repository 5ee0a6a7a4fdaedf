import base64
import csv
import itertools
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import xarray as xr
from fake_results import VARIANTS, metrics, write_variant

from plasticity_jax.analysis import figures, groups, report, results, style, tables

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def page(sweep):
    return report.write(sweep).read_text(encoding="utf-8")


def found(folder):
    return groups.split(results.load(folder))


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_table_holds_means_and_students_intervals(sweep):
    record = tables.summary(found(sweep))[0]
    final = results.load(sweep)["adam"]["final_accuracy"].values.astype(float)
    change = final[:, -1] - final[:, 0]
    low, high = scipy.stats.t.interval(0.95, 7, change.mean(), scipy.stats.sem(change))
    np.testing.assert_allclose(record["change"][:3], [change.mean(), low, high], rtol=1e-6)
    np.testing.assert_allclose(record["first task"].mean, final[:, 0].mean())
    assert record["change"].high < 0 and record["seeds"] == 8 and record["tasks"] == 6


def test_the_text_table_has_every_variant_and_number(sweep):
    text = report.text(sweep)
    lines = text.splitlines()
    assert re.split(r"\s{2,}", lines[1]) == [
        *("variant", "seeds", "tasks", "first task", "last task", "change", "online accuracy")
    ]
    assert [line.split()[0] for line in lines[2:5]] == list(VARIANTS)
    for record in tables.summary(found(sweep)):
        assert f"{record['change'].mean:.3f} ±" in text and f"{record['online accuracy'].mean:.3f} ±" in text
    assert len({len(line) for line in lines[1:5]}) == 1
    assert "warning" not in text


def test_differences_are_paired_with_the_first_variant(sweep):
    records = tables.differences(found(sweep))
    assert [(r["variant"], r["minus"], r["pairs"]) for r in records] == [
        ("tuned_adam", "adam", 8),
        ("layer_norm", "adam", 8),
    ]
    assert records[0]["last task"].low > 0.45  # the noise of a seed is common to the variants and cancels
    alone = tables.summary(found(sweep))[0]["last task"]
    assert np.ptp(records[0]["last task"][1:3]) < 0.6 * np.ptp(alone[1:3])


def test_differences_use_tasks_that_both_sides_have_done(troubled):
    (record,) = (r for r in tables.differences(found(troubled)) if r["variant"] == "half")
    assert record["tasks"] == 4 and record["pairs"] == 7
    np.testing.assert_allclose(record["last task"].mean, 0.3, atol=0.02)  # (0.12 - 0.02) * 3


def test_every_figure_is_written_embedded_and_explained(sweep, page):
    names = ["accuracy", "units", "norms", "ranks", "learning_curves"]
    assert re.findall(r'<img id="(\w+)"', page) == names
    embedded = re.findall(r"data:image/svg\+xml;base64,([^\"]+)", page)
    for name, data in zip(names, embedded, strict=True):
        assert (sweep / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert base64.b64decode(data) == (sweep / "figures" / f"{name}.svg").read_bytes()
    assert page.count("mean over 8 seeds; bands: pointwise 95% bootstrap intervals") == len(names)


def test_the_page_holds_every_number_of_the_tables(sweep, page):
    for record in tables.summary(found(sweep)) + tables.differences(found(sweep)):
        for value in record.values():
            if hasattr(value, "low"):
                assert tables.cell(value).replace("-", "−") in page
    for fact in ("4000", "random_labels", "0.10.2", "0123abc", "13066", "seeds 0–7", "cpu:0, cpu:1", "Student t"):
        assert fact in page
    assert "<h2>Warnings" not in page


def test_the_page_needs_nothing_from_outside(page):
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page and "@import" not in page


def test_tables_hold_all_digits_and_the_numbers_behind_the_figures(sweep, page):
    (change,) = (r["change mean"] for r in rows(sweep / "tables" / "variants.csv") if r["variant"] == "adam")
    assert float(change) == float(tables.summary(found(sweep))[0]["change"].mean)
    points = rows(sweep / "tables" / "accuracy.csv")
    assert len(points) == 2 * 3 * 6 and {p["metric"] for p in points} == {"final_accuracy", "online_accuracy"}
    final = results.load(sweep)["adam"]["final_accuracy"]
    assert float(points[0]["mean"]) == pytest.approx(float(final[:, 0].mean()), abs=1e-6)
    assert {p["layer"] for p in rows(sweep / "tables" / "ranks.csv")} == {"fc0", "fc1"}  # the head has no ranks
    assert len(rows(sweep / "tables" / "differences.csv")) == 2


def test_equal_results_give_equal_files(sweep, page):
    before = {p.name: p.read_bytes() for p in (sweep / "figures").iterdir()}
    assert report.write(sweep).read_text(encoding="utf-8") == page
    assert before == {p.name: p.read_bytes() for p in (sweep / "figures").iterdir()}


def test_trouble_is_named_in_page_and_text(troubled):
    page, text = report.write(troubled).read_text(encoding="utf-8"), report.text(troubled)
    for said in (
        "adam: 1 of 8 runs are left out",
        "seed 3: diverged in task 3",
        "half: 4 of 6 tasks have numbers (state: running)",
        "waiting: config.json cannot be read",
        "waiting: metrics.zarr is absent",
    ):
        assert said in page and said in text
    assert "7/8" in text and "4/6" in text and "4 of 6" in page
    assert "selected by mean online accuracy over tasks on the same seeds" in page
    assert "mean over 7 to 8 seeds" in page and "Runs excluded: 1." in page


def test_with_few_grid_points_all_are_drawn(tmp_path):
    write_variant(tmp_path / "adam", metrics(0.1, grid={"optimizer.learning_rate": (1e-2, 1e-3)}))
    shown, note = figures.select(found(tmp_path))
    assert len(shown) == 2 and note == ""


def test_one_seed_gives_a_report_without_bands(tmp_path):
    write_variant(tmp_path / "adam", metrics(0.1, seeds=[4], small=True))
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert "one seed gives no band" in page and "adam: 1 seed" in page
    record = tables.summary(found(tmp_path))[0]
    assert tables.cell(record["change"]) == f"{record['change'].mean:.3f}"


def test_variants_with_few_seeds_share_one_warning(tmp_path):
    for name, seeds in {"a": [0, 1], "b": [4], "c": [0, 1], "d": range(5)}.items():
        write_variant(tmp_path / name, metrics(0.1, seeds=list(seeds), small=True))
    told = [line for line in report.text(tmp_path).splitlines() if "below 5 seeds" in line]
    assert [line.partition(";")[0] for line in told] == ["warning: b: 1 seed", "warning: a, c: 2 seeds"]
    (told,) = (line for line in report.text(tmp_path / "a").splitlines() if "below 5 seeds" in line)
    assert told.startswith("warning: a: 2 seeds")
    for name in "bd":
        shutil.rmtree(tmp_path / name)
    (told,) = (line for line in report.text(tmp_path).splitlines() if "below 5 seeds" in line)
    assert told.startswith("warning: all: 2 seeds")


def test_one_task_gives_a_report_without_changes(tmp_path):
    write_variant(tmp_path / "adam", metrics(0.1, tasks=1))
    report.write(tmp_path)
    record = tables.summary(found(tmp_path))[0]
    assert tables.cell(record["first task"]).startswith("0.9") and tables.cell(record["change"]) == "-"


def test_runs_that_all_diverged_leave_dashes_and_a_warning(tmp_path):
    write_variant(tmp_path / "adam", metrics(0.1), diverged=range(8))
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert "8 of 8 runs are left out" in page and "Nothing to draw yet" in page


def test_before_the_first_task_is_done_there_is_a_report(tmp_path):
    dataset = metrics(0.1)
    write_variant(tmp_path / "adam", dataset.where(dataset["task"] < 0), state="running")
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert "0 of 6 tasks have numbers" in page and "Nothing to draw yet" in page


def test_without_accuracy_losses_are_shown(tmp_path):
    dataset = metrics(0.1)[["final_loss", "online_loss", "diverged"]]
    write_variant(tmp_path / "adam", dataset.assign(final_accuracy=(("run", "task"), np.full((8, 6), np.nan))))
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert '<img id="loss"' in page and '<img id="accuracy"' not in page
    assert "online loss" in report.text(tmp_path)


def test_explained_variance_stands_beside_the_losses(tmp_path):
    dataset = metrics(0.1, small=True).assign(explained_variance=lambda found: found["final_accuracy"])
    write_variant(tmp_path / "adam", dataset.assign(final_accuracy=dataset["final_accuracy"] * np.nan))
    report.write(tmp_path)
    points = rows(tmp_path / "tables" / "loss.csv")
    assert {p["metric"] for p in points} == {"final_loss", "explained_variance"}


def test_costs_are_explained_where_there_are_any(tmp_path, page):
    folder = write_variant(tmp_path / "adam", metrics(0.1, seeds=[0, 1], small=True))
    costs = {"landscape": {"seconds": 1.0, "measurements": 2, "gflop": 12.0}}
    (folder / "costs.json").write_text(json.dumps(costs))
    explained = report.write(tmp_path).read_text(encoding="utf-8").partition("What measuring cost")[2]
    assert (
        "an upper count" in " ".join(explained.split())
        and "lower bound" in explained
        and "before training" in explained
    )
    assert "lower bound" not in page


def test_names_and_settings_are_escaped(tmp_path):
    write_variant(tmp_path / "a<b>&", metrics(0.1, seeds=[0, 1], small=True), network__norm="<script>")
    page = report.write(tmp_path).read_text(encoding="utf-8")
    assert "a&lt;b&gt;&amp;" in page and "<script" not in page and "<b>" not in page


def test_settings_that_differ_are_told_from_those_that_do_not(page):
    differing, constant = page.split("setting of all variants")
    assert "network.norm" in differing and "network.norm" not in constant.split("<details>")[0]
    assert "optimizer.learning_rate" in constant.split("</table>")[0]


def test_layers_of_different_networks_align_by_name_and_panels_share_their_range(tmp_path):
    write_variant(tmp_path / "a", metrics(0.1))
    other = metrics(0.02).assign_coords(layer=["conv0", "fc0", "head"])
    write_variant(tmp_path / "b", other)
    (drawing,) = (d for d in figures.draw(found(tmp_path)) if d.name == "units")
    titles = {axes.get_title(): axes for axes in drawing.figure.axes}
    assert list(titles)[:3] == ["dead units, fc0", "dead units, fc1", "dead units, conv0"]
    assert [len(titles[f"dead units, {layer}"].lines) for layer in ("fc0", "fc1", "conv0")] == [2, 1, 1]
    assert len({axes.get_ylim() for title, axes in titles.items() if title.startswith("dead")}) == 1


def test_chance_is_drawn_only_where_the_number_of_classes_is_known(sweep):
    for classes, expected in ((10, True), (None, False)):
        drawing = figures.draw(found(sweep), classes)[0]
        labels = {line.get_label() for line in drawing.figure.axes[0].lines}
        assert ("chance (1/10)" in labels) == expected


def test_probes_are_drawn_where_they_were_measured(tmp_path):
    """Every second task is probed; curves fall from 2 to 1, those of new networks to 0.1."""
    dataset, steps = metrics(0.1), [0, 10, 20]
    for name, last in (("probe_curve", 1.0), ("probe_curve_fresh", 0.1)):
        values = np.full((8, 6, 2, 3), np.nan, np.float32)
        values[:, 1::2] = np.linspace(2.0, last, 3)
        dataset[name] = (("run", "task", "target", "probe_step"), values)
    dataset["plasticity_loss"] = dataset["probe_curve"].isel(target=0, probe_step=2) - 0.1
    write_variant(tmp_path / "a", dataset.assign_coords(target=[0, 1], probe_step=steps))
    drawings = {d.name: d for d in figures.draw(found(tmp_path))}
    (panel,) = drawings["plasticity"].figure.axes
    assert panel.lines[0].get_xdata().tolist() == [2, 4, 6]
    np.testing.assert_allclose(panel.lines[0].get_ydata(), 0.9, rtol=1e-6)
    curves = {axes.get_title(): axes.lines[0] for axes in drawings["probe_curves"].figure.axes}
    assert list(curves) == ["new networks", "after task 2", "after task 6"]
    for line, last in zip(curves.values(), (0.1, 1.0, 1.0), strict=True):
        assert line.get_xdata().tolist() == steps
        np.testing.assert_allclose(line.get_ydata(), np.linspace(2.0, last, 3), rtol=1e-6)


def test_losses_of_probes_stand_beside_those_of_the_best_constants(tmp_path):
    """Both figures of them, in each panel; 0.5 and 0.4 in two variants."""
    for name, constants in {"a": 0.5, "b": 0.4}.items():
        dataset = metrics(0.1, seeds=[0, 1], small=True).assign_coords(target=[0], probe_step=[0, 10])
        curve = (("run", "task", "target", "probe_step"), np.ones((2, 6, 1, 2)))
        dataset = dataset.assign(probe_curve=curve, probe_curve_fresh=curve)
        dataset["probe_loss"] = dataset["probe_loss_carried"] = dataset["final_loss"]
        write_variant(tmp_path / "without" / name, dataset)
        write_variant(tmp_path / name, dataset.assign(probe_baseline=dataset["final_loss"] * 0 + constants))
    drawings = {d.name: d for d in figures.draw(found(tmp_path))}
    for name, panels in {"probe": 2, "probe_curves": 3}.items():
        marks = [line for axes in drawings[name].figure.axes for line in axes.lines if "constants" in line.get_label()]
        assert len(drawings[name].figure.axes) == len(marks) == panels
        assert {line.get_label() for line in marks} == {"best constants (0.45)"}
        np.testing.assert_allclose([line.get_ydata() for line in marks], 0.45, rtol=1e-6)
        assert "Grey line: the loss of the best constants" in drawings[name].caption
    without = {d.name: d for d in figures.draw(found(tmp_path / "without"))}
    assert "Grey line" not in without["probe"].caption and len(without["probe"].figure.axes[0].lines) == 2


@pytest.mark.parametrize("tasks", [1, 2, 7, 15, 50, 237, 3000])
def test_tasks_are_counted_from_one(tasks):
    _, axes = style.grid(1, 1)
    style.count(axes[0][0], tasks, "task")
    ticks = axes[0][0].get_xticks()
    assert ticks[0] == 1 and ticks[-1] <= tasks and len(ticks) <= 9 and (ticks == np.round(ticks)).all()


def test_legends_lie_outside_the_panels(sweep):
    for drawing in figures.draw(found(sweep), 10):
        drawing.figure.draw_without_rendering()
        (legend,) = drawing.figure.legends
        box = legend.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= drawing.figure.bbox.x1
        assert not any(axes.get_tightbbox().overlaps(box) for axes in drawing.figure.axes)


def test_labels_of_axes_fit_their_panels():
    with style.context():
        figure, ((axes,),) = style.grid(1, 1)
        axes.plot([0, 1], label="adam")
        axes.set(xlabel="task", title="a")
        style.legend(figure)
        for label in {metric.label for _, *panels in figures.FIGURES.values() for metric in panels}:
            axes.set_ylabel(label)
            figure.draw_without_rendering()
            box = axes.yaxis.label.get_window_extent()
            assert box.y0 >= 0 and box.y1 <= figure.bbox.y1, label


def test_neighbouring_colours_differ_in_lightness():
    shades = [np.dot([0.299, 0.587, 0.114], [int(c[i : i + 2], 16) for i in (1, 3, 5)]) for c in style.COLOURS]
    assert min(abs(a - b) for a, b in itertools.pairwise(shades)) > 20


def test_the_script_prints_the_table_and_the_path(tmp_path):
    write_variant(tmp_path / "adam", metrics(0.1, small=True))
    command = [sys.executable, str(ROOT / "scripts" / "report.py")]
    options = {"capture_output": True, "text": True, "env": {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}}
    done = subprocess.run([*command, str(tmp_path)], check=True, **options)
    assert done.stdout.startswith("final accuracy") and str(tmp_path / "report.html") in done.stdout
    failed = subprocess.run([*command, str(tmp_path / "none")], check=False, **options)
    assert failed.returncode == 1 and "none: no such folder" in failed.stderr and "Traceback" not in failed.stderr


def test_reading_results_needs_no_jax_and_leaves_matplotlib_as_it_was(sweep):
    code = f"""
import sys
from plasticity_jax.analysis import report
assert "matplotlib" not in sys.modules
import matplotlib
before = matplotlib.rcParams.copy()
report.write({str(sweep)!r})
assert dict.items(before) == dict.items(matplotlib.rcParams)
assert "matplotlib.pyplot" not in sys.modules
assert not {{"jax", "flax", "optax", "orbax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, env={"PYTHONPATH": str(ROOT)})


def test_results_of_float64_and_of_transposed_arrays_are_read(tmp_path):
    dataset = metrics(0.1)
    turned = xr.Dataset({k: v.astype("float64").transpose() for k, v in dataset.data_vars.items()}, dataset.coords)
    write_variant(tmp_path / "a", turned)
    write_variant(tmp_path / "b", dataset)
    a, b = tables.summary(found(tmp_path))
    np.testing.assert_allclose(a["change"][:3], b["change"][:3], rtol=1e-5)
    assert len(figures.draw(found(tmp_path))) == 5
