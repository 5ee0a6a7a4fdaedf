"""A checkpoint measured again, and the figure that scripts/spectrum.py draws of it."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
from small_runs import ROOT, config, environment

import plasticity_jax.run as main
from plasticity_jax.analysis import spectrum
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.host.folder import FolderError
from plasticity_jax.remeasure import remeasure
from plasticity_jax.run import run

SETTINGS = {"steps": 6, "probes": 2, "inputs": 16}
OFF = {name: {"every": 0} for name in DIAGNOSTICS}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of two runs of two tasks whose spectrum was measured as they trained."""
    workdir = tmp_path_factory.mktemp("runs") / "plain"
    diagnostics = {**OFF, "weights": {}, "spectrum": {**SETTINGS, "every": 1}}
    run(config(seeds=2, tasks=2, diagnostics=diagnostics, checkpoint={"keep": "all"}), workdir)
    return workdir


@pytest.mark.slow
def test_a_checkpoint_gives_what_was_measured_while_training(trained):
    results = xr.open_zarr(trained / "metrics.zarr", consolidated=False)
    for task in (0, 1):
        found, metrics = remeasure(trained, {"spectrum": SETTINGS, "weights": {}}, task)
        assert found == task
        for name, value in metrics.items():
            np.testing.assert_allclose(value, results[name].isel(task=task), rtol=1e-4, atol=1e-6, err_msg=name)
    assert remeasure(trained, {"weights": {}})[0] == 1  # the newest


def test_runs_are_measured_together_as_they_were_trained_and_prepared_once(trained, tmp_path, monkeypatch):
    prepared, inner = [], main.prepare
    path = shutil.copytree(trained, tmp_path / "x") / "environment.json"
    path.write_text(path.read_text().replace('"runs_per_batch": 1', '"runs_per_batch": 2'))

    def prepare(*arguments):
        prepared.append(inner(*arguments))
        return prepared[-1]

    monkeypatch.setattr(main, "prepare", prepare)
    remeasure(tmp_path / "x", {"weights": {}}, 1)
    assert [job.runs_per_batch for job in prepared] == [2]


@pytest.mark.slow
def test_before_training_the_distance_from_the_start_is_zero(trained):
    task, metrics = remeasure(trained, {"weights": {}}, -1)
    assert task == -1
    distances = [value for name, value in metrics.items() if "distance" in name]
    assert distances and not any(np.asarray(value).any() for value in distances)


@pytest.mark.slow
def test_tasks_and_folders_that_are_not_there_are_named(trained, tmp_path):
    with pytest.raises(FolderError, match=r"end of task 7, counted from 0; it has those of the tasks \[0, 1\]"):
        remeasure(trained, {"weights": {}}, 7)
    with pytest.raises(FolderError, match=r"holds no config\.json"):
        remeasure(tmp_path, {"weights": {}})


@pytest.mark.slow
def test_the_script_prints_a_table_and_writes_figure_and_numbers(trained):
    settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
    command = [sys.executable, ROOT / "scripts" / "spectrum.py", trained, "--task=-1", "--task=1", *settings]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    table = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    assert [row[:2] for row in table] == [["task", "run"], ["-1", "0"], ["-1", "1"], ["1", "0"], ["1", "1"]]
    figures = trained / "figures"
    assert {path.name for path in figures.iterdir()} == {
        "spectrum_task-1_1.png",
        "spectrum_task-1_1.svg",
        "spectrum_task-1.npz",
        "spectrum_task1.npz",
    }
    with np.load(figures / "spectrum_task1.npz") as numbers:
        sharpness = [float(row[table[0].index("sharpness")]) for row in table[3:]]
        np.testing.assert_allclose(numbers["sharpness"], sharpness, rtol=1e-3)


def test_the_density_integrates_to_one_and_outliers_stand_alone():
    nodes = np.array([[-1.0, 0.0, 0.01, 5.0], [-1.1, 0.0, 0.02, 5.0]])
    weights = np.array([[0.1, 0.5, 0.3, 0.1], [0.1, 0.5, 0.4, 0.0]])
    grid = np.linspace(-3, 7, 5001)
    density = spectrum.density(nodes, weights, grid, 0.1)
    np.testing.assert_allclose(density.sum() * (grid[1] - grid[0]), 1, rtol=1e-6)
    assert spectrum.outliers(nodes, weights, 0.1).tolist() == [-1.0, 5.0]
    assert spectrum.outliers(nodes[1:], weights[1:], 0.1).tolist() == [-1.1]  # no weight, no eigenvalue


def drawn(nodes):
    return spectrum.draw({"x": {"hessian_nodes": nodes, "hessian_weights": np.full(nodes.shape, 1 / nodes.shape[-1])}})


def test_the_figure_shows_the_negative_side():
    figure = drawn(np.array([[[-0.5, -1e-3, 0.0, 2.0]]]))
    line = next(line for line in figure.axes[1].lines if line.get_label() == "run 0")
    x, y = line.get_data()
    peaks = x[1:-1][(y[1:-1] > y[:-2]) & (y[1:-1] > y[2:])]
    np.testing.assert_allclose(peaks, [-0.5, -1e-3, 0, 2], rtol=0.05, atol=1e-5)


def test_the_zero_spectrum_is_drawn_and_nan_is_refused():
    drawn(np.zeros((1, 1, 4)))
    with pytest.raises(ValueError, match="not finite"):
        drawn(np.full((1, 1, 4), np.nan))
