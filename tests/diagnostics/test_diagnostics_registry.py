import inspect
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.diagnostics import DIAGNOSTICS

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
BY_THE_TRAINER = {"online_accuracy", "online_loss", "diverged", "resets"}


def _make(toy, name):
    """A registry entry, asked for what it needs by the names of its parameters, as build.py does."""
    factory, records = DIAGNOSTICS[name], {"network": toy.network, "objective": toy.objective}
    wanted = inspect.signature(factory).parameters
    return factory(**{key: records[key] for key in wanted if key in records})


KEYS = jax.random.split(jax.random.key(0), 3)


@pytest.fixture(scope="module")
def measure(toy):
    """All families in one function of a key: one compilation for all tests."""
    families = {name: _make(toy, name) for name in DIAGNOSTICS}

    def measure(key):
        learner, snapshot = toy.case(key)
        return {
            name: family.apply(key, family.init(key, learner, snapshot), learner, snapshot)
            for name, family in families.items()
        }

    return measure


@pytest.fixture(scope="module")
def loop(measure):
    """What the compiled function gives for one key after another."""
    one = jax.jit(measure)
    return [one(key) for key in KEYS]


@pytest.fixture(scope="module")
def eager(measure):
    return measure(KEYS[0])


@pytest.fixture(scope="module")
def mapped(measure):
    return jax.jit(jax.vmap(measure))(KEYS)


@pytest.mark.slow  # operation by operation
@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_jit_equals_eager(loop, eager, name):
    eager = eager[name][1]
    assert set(eager) == set(loop[0][name][1])
    for metric, value in loop[0][name][1].items():
        # the Lanczos process amplifies rounding: single nodes agree to fewer digits
        tolerance = {"rtol": 1e-2, "atol": 1e-3} if name == "spectrum" else {"rtol": 1e-5, "atol": 1e-6}
        np.testing.assert_allclose(value, eager[metric], **tolerance, err_msg=metric)


@pytest.mark.parametrize("name", DIAGNOSTICS)
@pytest.mark.slow
def test_vmap_equals_a_loop(loop, mapped, name):
    for metric, values in mapped[name][1].items():
        expected = np.stack([run[name][1][metric] for run in loop])
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6, err_msg=metric)
    assert any(np.ptp(values, axis=0).max() > 0 for values in mapped[name][1].values())  # keys differ


@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_dims_agree_with_the_shapes(toy, loop, name):
    diagnostic, metrics = _make(toy, name), loop[0][name][1]
    assert set(diagnostic.dims) == set(metrics)
    for metric, dims in diagnostic.dims.items():
        assert metrics[metric].dtype == jnp.float32
        assert metrics[metric].shape == tuple(len(labels) for labels in dims.values()), metric
        layers = ({}, {"layer": ("fc0", "fc1")}, {"layer": ("fc0", "fc1", "head")})
        assert dims in layers or (name == "spectrum" and set(dims) == {"probe", "node"})


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "spectrum" else ()) for name in DIAGNOSTICS]
)
def test_nothing_is_written_and_nothing_is_lost(toy, case, name):
    learner, snapshot = case
    diagnostic = _make(toy, name)
    state, metrics = diagnostic.apply(
        jax.random.key(0), diagnostic.init(jax.random.key(0), learner, snapshot), learner, snapshot
    )
    assert state == ()
    unknown = {metric for metric, value in metrics.items() if np.any(np.isnan(value))}
    assert unknown <= {"saturated_fraction", "explained_variance"}  # relu has no bounds, and labels no variance


def test_dims_are_known_while_tracing(toy):
    """build makes the records inside the mapped function, with settings that are tracers."""

    @jax.jit
    def measure(setting):
        made = [DIAGNOSTICS["units"](toy.network, tau=setting), DIAGNOSTICS["ranks"](toy.network, delta=setting)]
        made += [DIAGNOSTICS["weights"](toy.network, delta=setting)]
        assert all(dims == {} or dims["layer"][:2] == ("fc0", "fc1") for d in made for dims in d.dims.values())
        return [d.apply(None, (), *toy.case(jax.random.key(0)))[1] for d in made]

    tight, loose = measure(0.001), measure(0.5)
    assert np.all(tight[0]["dormant_fraction"] <= loose[0]["dormant_fraction"])
    assert np.all(tight[1]["srank"] > loose[1]["srank"]) and np.all(tight[2]["weight_rank"] > loose[2]["weight_rank"])


def test_a_network_without_hidden_layers(toy, case):
    linear = toy.network._replace(wiring=())
    for name in ("units", "ranks"):
        diagnostic = DIAGNOSTICS[name](linear)
        assert all(dims == {"layer": ()} for dims in diagnostic.dims.values())
        assert all(value.shape == (0,) for value in diagnostic.apply(None, (), *case)[1].values())


def test_metric_names_are_unique_and_documented(toy):
    names = [metric for name in DIAGNOSTICS for metric in _make(toy, name).dims]
    assert len(names) == len(set(names))
    rows = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == set(names) | BY_THE_TRAINER


def test_documented_dimensions_are_those_of_the_arrays(toy):
    documented = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]+?) \|", DOCS.read_text(), re.MULTILINE))
    for name in DIAGNOSTICS:
        for metric, dims in _make(toy, name).dims.items():
            assert documented[metric] == (", ".join(dims) or "none"), metric


def test_documented_thresholds_are_the_defaults():
    text = DOCS.read_text()
    for name, factory in DIAGNOSTICS.items():
        for setting in inspect.signature(factory).parameters.values():
            if setting.default is not inspect.Parameter.empty:
                assert f"`{name}.{setting.name}` = {setting.default}" in text, (name, setting.name)
