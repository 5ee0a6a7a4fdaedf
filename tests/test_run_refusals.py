"""Settings that the main job refuses, before anything is written."""

import jax.numpy as jnp
import pytest
from small_runs import DATA, config

from plasticity_jax.base import Diagnostic, Intervention
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.run import load_data, run, sweep

BAD = {
    "data.foo": ({"data": {"foo": 3}}, "synthetic has no option 'foo'"),
    "data.imges": ({"data": {"imges": 3}}, "Did you mean 'images'"),
    "data.name": ({"data": {"name": "mnsit"}}, "data.name='mnsit' is unknown. Did you mean 'mnist'"),
    "data.dir": ({"data": {"dir": 3}}, "data.dir=3"),
    "data": ({"data": "mnist"}, "data='mnist', but it must be a block"),
    "interventions": ({"interventions": "redo"}, "interventions='redo', but it must be a block"),
    "misspelt": ({"optimizer": {"learning_rat": 0.1}}, "is not a setting of adam. Did you mean 'learning_rate'"),
    "block": ({"netwrk": {}}, "netwrk is not a setting. Did you mean 'network'"),
    "type": ({"optimizer": {"learning_rate": "fast"}}, "learning_rate='fast'"),
    "rate": ({"optimizer": {"learning_rate": -1.0}}, "learning_rate=-1.0"),
    "seeds": ({"seeds": 0}, "seeds=0"),
    "grid": ({"grid": (("network.widths", (1.0,)),)}, "only float settings can be an axis"),
    "grid value": ({"grid": (("optimizer.learning_rate", (0.1, -0.1)),)}, "learning_rate=-0.1"),
    "shape": ({"stream": {"images": 41}}, "images=41"),
    "segments": ({"segment_steps": 7}, "segment_steps=7 does not divide"),
    "devices": ({"parallel": {"devices": 64}}, "parallel.devices=64, but there are 2"),
    "keep": ({"checkpoint": {"keep": "some"}}, "checkpoint.keep='some'"),
    "minutes": ({"checkpoint": {"minutes": 0.0}}, "checkpoint.minutes=0.0"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_before_anything_is_written(tmp_path, name):
    changes, told = BAD[name]
    with pytest.raises(ValueError) as error:
        run(config(**changes), tmp_path / "x")
    assert told in str(error.value)
    with pytest.raises(ValueError):
        sweep({"good": config(), "bad": config(**changes)}, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_missing_writer(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"log.tensorboard needs tensorboardX"):
        run(config(log={"tensorboard": True}), tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_data_without_a_block():
    """The digits are the default."""
    assert load_data({}).name == "digits"
    assert load_data({"data": DATA}).arrays["train"]["x"].shape == (40, 4, 4, 1)


def cannot_advance():
    """A part that fails between tasks, when it is traced."""

    def boundary(key, state, learner, snapshot):
        raise ValueError("no next task")

    return Intervention(boundary=boundary)


def misdeclared(network):
    """A diagnostic of the user's that reports other things than it declares."""

    def apply(key, state, learner, snapshot):
        return state, {"right": jnp.zeros(2), "long": jnp.zeros(3), "more": jnp.float32(0)}

    dims = {"right": {"layer": ("a", "b")}, "long": {"layer": 2}, "less": {}}
    return Diagnostic(lambda key, learner, snapshot: (), apply, dims)


BARE = {name: {"every": 0} for name in DIAGNOSTICS}
RADII = {"grid": (("diagnostics.landscape.radius", (0.1, 0.2)),), "diagnostics": {**BARE, "landscape": {"every": 1}}}
REAL = {**config(tasks=1, diagnostics=BARE), "stream": {"name": "slowly_changing_regression", "batch": 8, "steps": 30}}
IN_TRACING = {
    "targets": ({**REAL, "head": {"name": "softmax"}}, "real-valued targets"),
    "advance": (
        config(diagnostics=BARE, interventions={"late": {"name": "test_run_refusals:cannot_advance"}}),
        "no next task",
    ),
    "grid": (config(**RADII), "landscape.radius decides shapes"),
}


@pytest.mark.parametrize("name", IN_TRACING)
def test_what_fails_in_tracing_is_refused_before_another_variant_is_trained(tmp_path, name):
    bad, told = IN_TRACING[name]
    with pytest.raises(ValueError, match=told):
        sweep({"good": config(diagnostics=BARE), "bad": bad}, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_a_diagnostic_reports_is_what_it_declares(tmp_path):
    settings = config(diagnostics={**BARE, "own": {"name": "test_run_refusals:misdeclared"}})
    with pytest.raises(ValueError) as error:
        run(settings, tmp_path / "x")
    assert str(error.value).endswith(
        "diagnostics.own does not report what its dims declare: 'less' is nothing and declared (); 'long' is (3,) and "
        "declared (2,); 'more' is () and declared nothing. These are shapes of one run."
    )
    assert not (tmp_path / "x").exists()
