"""The main job in process: what it writes, and that however it is stopped it ends with the same bits."""

import contextlib
import json
import os
import shutil
import signal
import subprocess

import jax
import numpy as np
import pytest
from small_runs import CONFIG, after, assert_same_bits, config, finish, numbers, start, states, terminate

import plasticity_jax.run as main
from plasticity_jax.host import folder
from plasticity_jax.host.results import Results
from plasticity_jax.run import run, sweep

SEGMENTS = 9  # of the run of small_runs.CONFIG: three tasks of three


class Crash(Exception):
    """Something unexpected."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of small_runs.CONFIG, run without interruption."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert run(config(), workdir) == "done"
    return workdir


def read(workdir, name="status"):
    return json.loads((workdir / f"{name}.json").read_text())


def crash():
    raise Crash("power cut")


def test_what_is_written(undisturbed):
    status = read(undisturbed)
    assert {**status, "seconds": 0} == {
        "state": "done", "seconds": 0, "task": 3, "tasks": 3, "runs": 3, "diverged": []
    }  # fmt: skip
    environment = read(undisturbed, "environment")
    assert environment["runs_per_batch"] == 1 and environment["resumed"] == []
    assert environment["parameters"] == 16 * 8 + 8 + 8 * 4 + 4
    assert environment["layers"] == {"fc0": 16 * 8 + 8, "head": 8 * 4 + 4}
    resolved = read(undisturbed, "config")["config"]
    assert resolved["seeds"] == 3 and resolved["optimizer"]["b1"] == 0.9
    dataset = numbers(undisturbed)
    assert dataset.sizes["run"] == 3 and dataset.sizes["task"] == 3 and dataset.sizes["segment"] == 3
    assert list(dataset.seed.values) == [0, 1, 2]
    assert np.isfinite(dataset[["online_loss", "final_accuracy", "weight_norm", "diverged"]]).all().to_array().all()
    assert (dataset.diverged == 0).all()
    assert len(np.unique(dataset.online_loss.values)) == dataset.online_loss.size  # runs, tasks and segments differ


def test_a_diagnostic_of_every_second_task(undisturbed):
    dead = numbers(undisturbed).dead_fraction.sel(layer="fc0")
    assert np.isfinite(dead.isel(task=1)).all() and np.isnan(dead.isel(task=[0, 2])).all()


def test_a_diagnostic_inside_tasks_and_what_measuring_costs(undisturbed, tmp_path):
    """After every second segment and at the end of the tasks, in one go or resumed inside a task."""
    inside = config(diagnostics={**CONFIG["diagnostics"], "units": {"every": 2, "every_segments": 2}})
    assert run(inside, tmp_path / "whole") == "done"
    with after(5, terminate):
        assert run(inside, tmp_path / "parts") == "preempted"
    assert run(inside, tmp_path / "parts") == "done"
    assert_same_bits(tmp_path / "whole", tmp_path / "parts")
    dead, once = (numbers(path).dead_fraction.sel(layer="fc0") for path in (tmp_path / "whole", undisturbed))
    assert dead.dims == ("run", "task", "segment") and once.dims == ("run", "task")
    assert np.isfinite(dead).all("run").values.tolist() == [[False] * 3, [False, True, True], [False] * 3]
    np.testing.assert_array_equal(dead.isel(task=1, segment=2), once.isel(task=1))
    costs = read(tmp_path / "parts", "costs")
    assert {name: cost.get("measurements") for name, cost in costs.items()} == {
        "before training": 1, "training": None, "performance": 3, "weights": 3, "units": 2, "shift": 3
    }  # fmt: skip
    forward = 2 * 32 * (16 * 8 + 8 * 4)  # units read the forward pass of each of 3 runs
    assert costs["units"]["gflop"] >= 3 * forward / 1e9 and costs["training"] | {"seconds": 0} == {
        "seconds": 0, "timed": 7, "segments": 9
    }  # fmt: skip
    assert all(cost["seconds"] > 0 for cost in costs.values())


def test_a_second_call_returns_at_once(undisturbed, monkeypatch):
    monkeypatch.setattr(main._Session, "train", crash)
    before = {path: path.read_bytes() for path in undisturbed.rglob("*") if path.is_file() and path.name != "lock"}
    assert run(config(), undisturbed) == "done"
    assert before == {p: p.read_bytes() for p in undisturbed.rglob("*") if p.is_file() and p.name != "lock"}


@pytest.mark.parametrize(
    ("segments", "tasks"),
    [pytest.param(3, [1, 2], marks=pytest.mark.slow, id="between tasks"), pytest.param(4, [1, 2], id="inside tasks")],
)
def test_stopped_and_resumed(undisturbed, tmp_path, segments, tasks, monkeypatch):
    seen, advanced = [], []

    def prepare(*arguments, inner=main.prepare):
        job = inner(*arguments)

        def advance(settings, states, data, clock):
            advanced.append(int(clock.task))
            return job.programs.advance(settings, states, data, clock)

        advance.trace = job.programs.advance.trace
        return job._replace(programs=job.programs._replace(advance=advance))

    monkeypatch.setattr(main, "prepare", prepare)
    while True:
        with after(segments, terminate):
            state = run(config(), tmp_path / "x")
        if state == "done":
            break
        assert state == "preempted" and read(tmp_path / "x")["state"] == "preempted"
        seen.append(read(tmp_path / "x")["task"])
    assert seen == tasks and advanced == [1, 2]  # once each: boundary hooks may not act twice
    assert len(read(tmp_path / "x", "environment")["resumed"]) == len(tasks)
    assert_same_bits(tmp_path / "x", undisturbed)


def test_a_stop_before_the_first_segment(undisturbed, tmp_path):
    with after(1, terminate, main, "prepare"):
        assert run(config(), tmp_path / "x") == "preempted"
    assert read(tmp_path / "x")["task"] == 0
    assert run(config(), tmp_path / "x") == "done"
    assert_same_bits(tmp_path / "x", undisturbed)


def test_a_stop_during_the_last_boundary_is_done(tmp_path):
    with after(1, terminate, main._Session, "_boundary"):
        assert run(config(tasks=1), tmp_path / "x") == "done"


@pytest.mark.slow
def test_saved_inside_a_task(undisturbed, tmp_path):
    often = config(checkpoint={"minutes": 1e-9, "keep": "all"})
    with pytest.raises(Crash), after(5, crash):
        run(often, tmp_path / "x")
    assert sorted(int(p.name) for p in (tmp_path / "x" / "checkpoints").iterdir()) == [10, 20, 30, 40]
    assert read(tmp_path / "x")["state"] == "failed" and "power cut" in read(tmp_path / "x")["error"]
    segments = []
    with after(1, lambda: segments.append(numbers(tmp_path / "x").online_loss.values)):
        assert run(often, tmp_path / "x") == "done"
    assert np.isfinite(segments[0]).sum() == 3 * 5  # it went on at the fifth segment, and nothing was ahead of it
    assert_same_bits(tmp_path / "x", undisturbed)


@pytest.mark.parametrize(
    ("owner", "name", "calls"),
    [
        (
            Results,
            "write",
            (3 + 2 + 1) + (3 + 3 + 1),
        ),  # segments, diagnostics, divergence: the numbers of the second task are written, its checkpoint is not
        (main._Session, "_save", 2),  # its checkpoint is saved, status.json says nothing of it
        (main._Session, "_save", 3),  # the same at the very end
        (Results, "clear_after", 1),
    ],
)
@pytest.mark.slow
def test_crashes_between_two_writes(undisturbed, tmp_path, owner, name, calls):
    with pytest.raises(Crash), after(calls, crash, owner, name):
        run(config(), tmp_path / "x")
    assert read(tmp_path / "x")["state"] == "failed"
    assert run(config(), tmp_path / "x") == "done"
    assert read(tmp_path / "x")["task"] == 3 and read(tmp_path / "x")["state"] == "done"
    assert_same_bits(tmp_path / "x", undisturbed)


@pytest.mark.slow
def test_a_crash_with_half_of_the_numbers_written(undisturbed, tmp_path, monkeypatch):
    whole = Results.write

    def half(self, task, metrics, segment=None):
        if task == 1 and segment is None:
            whole(self, task, dict(list(metrics.items())[: len(metrics) // 2]))
            crash()
        whole(self, task, metrics, segment)

    monkeypatch.setattr(Results, "write", half)
    with pytest.raises(Crash):
        run(config(), tmp_path / "x")
    monkeypatch.setattr(Results, "write", whole)
    run(config(), tmp_path / "x")
    assert_same_bits(tmp_path / "x", undisturbed)


def not_done(workdir):
    """As if the process had died before it could say that it was done."""
    path = workdir / "status.json"
    path.write_text(path.read_text().replace('"done"', '"running"'))


def test_numbers_without_checkpoints_are_never_overwritten(undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed, tmp_path / "x")
    shutil.rmtree(workdir / "checkpoints")
    before = numbers(workdir)
    assert run(config(), workdir) == "done"  # it was done, and its checkpoints were big
    not_done(workdir)
    with pytest.raises(ValueError, match="numbers of 3 tasks but no checkpoint"):
        run(config(), workdir)
    assert numbers(workdir).identical(before)


@pytest.mark.parametrize("state", ["done", "running"])
def test_numbers_that_are_gone_are_missed(undisturbed, tmp_path, state):
    workdir = shutil.copytree(undisturbed, tmp_path / "x")
    shutil.rmtree(workdir / "metrics.zarr")
    if state == "running":
        not_done(workdir)
    with pytest.raises(folder.FolderError, match=r"metrics\.zarr, are missing"):
        run(config(), workdir)
    assert not (workdir / "metrics.zarr").exists()


def test_a_damaged_checkpoint_is_gone_around(undisturbed, tmp_path):
    workdir = shutil.copytree(undisturbed, tmp_path / "x")
    biggest = max(
        (p for p in (workdir / "checkpoints" / "90").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size
    )
    os.truncate(biggest, biggest.stat().st_size // 2)
    not_done(workdir)
    assert run(config(), workdir) == "done"
    assert_same_bits(workdir, undisturbed)
    assert (workdir / "checkpoints-damaged" / "90").is_dir()


RESUME = """
import os, signal
from plasticity_jax.run import _Session
inner, count = _Session._segment, []
def segment(self, progress):
    count.append(0)
    if len(count) == 4:
        os.kill(os.getpid(), signal.SIGTERM)
    return inner(self, progress)
_Session._segment = segment
assert len(jax.devices()) == 1
assert run(config(), sys.argv[1]) == "preempted"
"""


@pytest.mark.slow
def test_resumed_on_other_numbers_of_devices(undisturbed, tmp_path):
    assert len(jax.devices()) == 2
    with after(2, terminate):
        assert run(config(), tmp_path / "x") == "preempted"
    assert finish(start(RESUME, tmp_path / "x", devices=1)) == 0
    assert read(tmp_path / "x")["task"] == 2
    assert run(config(), tmp_path / "x") == "done"
    assert [len(session["devices"]) for session in read(tmp_path / "x", "environment")["resumed"]] == [1, 2]
    assert_same_bits(tmp_path / "x", undisturbed)


@pytest.mark.slow
def test_runs_that_do_not_divide_the_devices_equal_the_same_run_alone(undisturbed, tmp_path):
    run(config(seeds=1, first_seed=1), tmp_path / "x")
    alone, together = numbers(tmp_path / "x"), numbers(undisturbed)
    for name in alone.data_vars:
        np.testing.assert_array_equal(alone[name].isel(run=0), together[name].isel(run=1), err_msg=name)
    alone, together = states(tmp_path / "x"), states(undisturbed)
    for name in alone:
        if "clock" not in name:
            np.testing.assert_array_equal(alone[name][0], together[name][1], err_msg=name)


@pytest.mark.slow
def test_the_number_of_vmapped_runs_is_kept(tmp_path, monkeypatch):
    sizes, inner = [], main.runs.programs

    def programs(make, mesh, size):
        sizes.append(size)
        return inner(make, mesh, size)

    monkeypatch.setattr(main.runs, "programs", programs)
    monkeypatch.setattr(main.runs, "batch_size", lambda *_: 2)
    for name in ("whole", "parts"):
        with after(4, terminate) if name == "parts" else contextlib.nullcontext():
            run(config(), tmp_path / name)
    monkeypatch.setattr(main.runs, "batch_size", lambda *_: 1)
    assert run(config(), tmp_path / "parts") == "done"
    assert sizes == [2, 2, 2]
    assert_same_bits(tmp_path / "parts", tmp_path / "whole")


def test_a_diverging_run_is_frozen_and_the_others_are_untouched(tmp_path):
    for name, rates in (("calm", (1e-2, 1e-3)), ("wild", (1e-2, 1e30))):
        run(config(seeds=2, grid=(("optimizer.learning_rate", rates),)), tmp_path / name)
    calm, wild = numbers(tmp_path / "calm"), numbers(tmp_path / "wild")
    assert list(wild.seed.values) == [0, 1, 0, 1]
    assert list(wild["optimizer.learning_rate"].values) == [1e-2, 1e-2, 1e30, 1e30]
    assert read(tmp_path / "wild")["diverged"] == [2, 3] and read(tmp_path / "calm")["diverged"] == []
    assert (wild.diverged.values == np.array([0, 0, 1, 1])[:, None]).all()
    for name in wild.data_vars:
        np.testing.assert_array_equal(wild[name][:2], calm[name][:2], err_msg=name)
    calm, wild = states(tmp_path / "calm"), states(tmp_path / "wild")
    moved = 0
    for name in wild:
        if "clock" in name:
            continue
        np.testing.assert_array_equal(wild[name][:2], calm[name][:2], err_msg=name)
        if "params" in name:
            assert np.isfinite(wild[name]).all(), name
        if "source" in name:  # the tasks of a diverged run go on, so that all runs are in the same task
            np.testing.assert_array_equal(wild[name], calm[name], err_msg=name)
        moved += "params" in name and bool((wild[name][2:] != calm[name][2:]).any())
    assert moved


def test_a_folder_of_another_configuration(undisturbed, tmp_path):
    before = (undisturbed / "config.json").read_bytes()
    with pytest.raises(folder.FolderError, match=r"optimizer.learning_rate: 0.01 there, 0.1 asked.*--workdir"):
        run(config(optimizer={"learning_rate": 0.1}), undisturbed)
    assert (undisturbed / "config.json").read_bytes() == before and read(undisturbed)["state"] == "done"
    shutil.copytree(undisturbed, tmp_path / "x" / "b")
    with pytest.raises(folder.FolderError, match="another configuration"):
        sweep({"a": config(tasks=1), "b": config(tasks=1)}, tmp_path / "x")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["b"]  # a was not started


@pytest.fixture
def order(monkeypatch):
    """The names of variants in the order in which sweep runs them; they do nothing."""
    names = []

    def nothing(plan, arrays, workdir, name, stream, asked_to_stop):
        names.append(name)
        return "done"

    monkeypatch.setattr(main, "_dims", lambda job: {})
    monkeypatch.setattr(main, "_run", nothing)
    return names


def test_sweep_keeps_the_order(tmp_path, order):
    assert sweep({"b": config(), "a": config(seeds=2)}, tmp_path / "x") == "done"
    assert order == ["b", "a"] and read(tmp_path / "x", "sweep") == {"variants": ["b", "a"]}
    assert sweep({"c": config(), "a": config(seeds=2)}, tmp_path / "x") == "done"
    assert order == ["b", "a", "c", "a"] and read(tmp_path / "x", "sweep") == {"variants": ["b", "a", "c"]}


def test_sweep_stops_after_the_variant_that_ended_when_the_signal_came(tmp_path, order):
    with after(1, terminate, main, "_run"):
        assert sweep({"a": config(), "b": config()}, tmp_path / "x") == "preempted"
    assert order == ["a"]


def test_sweep_runs_each_variant_in_its_folder(undisturbed, tmp_path):
    assert sweep({"plain": config(), "short": config(tasks=1)}, tmp_path / "x") == "done"
    assert_same_bits(tmp_path / "x" / "plain", undisturbed)
    assert read(tmp_path / "x" / "short")["tasks"] == 1


def test_signals_are_as_before(tmp_path):
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with pytest.raises(Crash), after(1, crash):
        run(config(), tmp_path / "x")
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_a_second_interrupt_does_not_wait(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), after(1, twice):
        run(config(), tmp_path / "x")
    assert read(tmp_path / "x")["state"] == "failed"


@pytest.mark.parametrize("size", ["100k", "200k", "400k"])  # creating, first checkpoint, last checkpoint
@pytest.mark.slow
def test_a_disk_that_fills_up(undisturbed, tmp_path, size):
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        with pytest.raises(folder.FolderError, match=r"small/x: the disk is full.*free some space.*same command"):
            run(config(), place / "x")
        subprocess.run(["mount", "-o", "remount,size=50m", place], check=True)
        assert run(config(), place / "x") == "done"
        assert_same_bits(place / "x", undisturbed)
    finally:
        subprocess.run(["umount", place], check=True)
