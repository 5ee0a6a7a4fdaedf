"""Whole runs with unusual parts: no hidden layers, one's own intervention, a broken diagnostic, vmapped runs."""

import json

import numpy as np
import pytest
from small_runs import CONFIG, after, assert_same_bits, config, numbers, states, terminate

from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.run import run

EVERYTHING = {  # classes that come one after another, the best network of each task kept, all that has a state measured
    **CONFIG,
    "stream": {
        **{"name": "class_incremental", "classes_per_task": 1, "validation": 2, "epochs": 10, "augment": False},
        **{"batch": 8, "order": "shuffled"},
    },
    "segment_steps": 5,
    "early_stopping": True,
    "diagnostics": {
        **CONFIG["diagnostics"],
        "units": {"every_segments": 1},
        "overlap": {"every": 1},
        "forgetting": {"every": 1},
        "probe": {"every": 2, "targets": 2, "steps": 6, "inputs": 8, "batch": 4, "points": 3},
    },
}


def test_a_network_without_hidden_layers_runs_with_every_diagnostic(tmp_path):
    settings = config(seeds=1, tasks=1, diagnostics={"ranks": {"every": 1}})
    settings["network"] = {"name": "linear"}
    assert run(settings, tmp_path / "x") == "done"
    found = numbers(tmp_path / "x")
    assert np.isfinite(found.layer_weight_norm).all() and found.layer.values.tolist() == ["head"]
    assert "srank" in found and found.srank.isnull().all()


@pytest.mark.parametrize(("when", "count"), [({}, 90), ({"every": 7}, 12), ({"at": "boundary", "every": 2}, 1)])
@pytest.mark.slow
def test_ones_own_intervention_runs_when_it_is_asked_to(tmp_path, when, count):
    part = {"name": "own_parts:noisy", "strength": 0.01, **when}
    assert run(config(interventions={"mine": part}), tmp_path / "x") == "done"
    counts = [leaf for path, leaf in states(tmp_path / "x").items() if "'mine'" in path and "count" in path]
    assert [leaf.tolist() for leaf in counts] == [[count] * len(counts[0])]


def test_what_fails_in_tracing_leaves_nothing_behind(tmp_path):
    broken = config(diagnostics={"broken": {"name": "test_run_parts:broken"}})
    with pytest.raises(TypeError, match="cannot be traced"):
        run(broken, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def broken(network):
    def apply(key, state, learner, snapshot):
        raise TypeError("cannot be traced")

    return Diagnostic(lambda key, learner, snapshot: (), apply, {"broken": {}})


@pytest.mark.slow
def test_runs_that_are_measured_together_give_what_they_give_alone(tmp_path):
    """A probe, metrics inside tasks, early stopping and forgetting, three runs one by one and in blocks of two."""
    for size in (1, 2):
        assert run({**EVERYTHING, "parallel": {"runs_per_batch": size}}, tmp_path / str(size)) == "done"
    alone, together = (numbers(tmp_path / str(size)) for size in (1, 2))
    assert set(alone) == set(together) and alone.dead_fraction.dims == ("run", "task", "segment", "layer")
    for name in alone:
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-3, atol=1e-4, err_msg=name)
    assert np.isfinite(alone[["plasticity_loss", "forgetting"]].isel(task=1)).all().to_array().all()


MANY_VECTORS = {  # 8 vectors of 172 parameters take 5.5e-6 GB
    **{name: {"every": 0} for name in DIAGNOSTICS},
    "spectrum": {"every": 1, "steps": 8, "probes": 1, "inputs": 8},
}


@pytest.mark.slow
def test_what_fits_for_fewer_runs_is_measured_however_many_are_trained_together(tmp_path):
    short = {"seeds": 4, "tasks": 1, "segment_steps": 20, "stream": {"steps": 20}, "memory_gb": 1.2e-5}
    for size in (1, 4):
        settings = config(**short, parallel={"runs_per_batch": size, "devices": 1})
        assert run({**settings, "diagnostics": MANY_VECTORS}, tmp_path / str(size)) == "done"
    alone, together = (numbers(tmp_path / str(size)) for size in (1, 4))
    assert np.isfinite(alone.sharpness).all()
    for name in ("sharpness", "hessian_effective_rank", "negative_curvature"):
        np.testing.assert_allclose(together[name], alone[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_what_does_not_fit_for_one_run_is_refused_before_anything_is_written(tmp_path):
    settings = {**config(memory_gb=5e-6, parallel={"runs_per_batch": 3}), "diagnostics": MANY_VECTORS}
    with pytest.raises(ValueError, match=r"spectrum\.steps takes 8 vectors of 172 .* but memory_gb=5e-06: raise"):
        run(settings, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_a_run_that_is_stopped_inside_a_task_ends_with_the_same_bits(tmp_path):
    """Kept: the probe's targets, units of the measurement before, accuracies of earlier tasks, the best network."""
    assert run({**EVERYTHING, "seeds": 1}, tmp_path / "whole") == "done"
    segments = round(float(numbers(tmp_path / "whole").online_loss.notnull().sum()))
    for stop in (2, segments // 2, segments - 2):
        with after(stop, terminate):
            assert run({**EVERYTHING, "seeds": 1}, tmp_path / str(stop)) == "preempted"
        assert run({**EVERYTHING, "seeds": 1}, tmp_path / str(stop)) == "done"
        assert_same_bits(tmp_path / "whole", tmp_path / str(stop))


@pytest.mark.slow
def test_vmapped_runs_that_do_not_fill_a_batch(tmp_path):
    """Two at a time, three in all, on two devices: the same tasks and initial weights, and nearly the same training."""
    short = {"tasks": 1, "segment_steps": 20, "stream": {"steps": 20}}
    for size in (1, 2):
        run(config(**short, parallel={"runs_per_batch": size}), tmp_path / str(size))
    one, two = states(tmp_path / "1"), states(tmp_path / "2")
    assert json.loads((tmp_path / "2" / "environment.json").read_text())["runs_per_batch"] == 2
    for name in one:
        exact = ".key" in name or "source" in name or "initial" in name
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=0 if exact else 1e-5, err_msg=name)
    np.testing.assert_allclose(numbers(tmp_path / "1").online_loss, numbers(tmp_path / "2").online_loss, rtol=1e-5)
