"""Whole runs with unusual parts: no hidden layers, one's own intervention, a broken diagnostic."""

import numpy as np
import pytest
from small_runs import config, numbers, states

from plasticity_jax.base import Diagnostic
from plasticity_jax.run import run


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
