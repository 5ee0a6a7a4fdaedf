import inspect
import math
import re
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax.base import Intervention
from plasticity_jax.build import COSTLY
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.online import online_dims

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
SETTINGS = {  # quick ones, and a threshold that some of 4 units are below
    "gradient_covariance": {"examples": 4},
    "landscape": {"points": 3, "inputs": 4},
    "ntk": {"inputs": 4},
    "overlap": {"tau": 0.9},
}
NOT_YET = {"preactivation_shift", "preactivation_shift_spread", "dormant_overlap", "forgetting", "backward_transfer"}
BY_THE_TRAINER = {*online_dims(1), "diverged", "resets"}


def _make(toy, name, memory_gb=0.1):
    """A registry entry, asked for what it needs by the names of its parameters, as build.py does."""
    factory, records = DIAGNOSTICS[name], {"network": toy.network, "objective": toy.objective, "memory_gb": memory_gb}
    records |= {"horizon": SimpleNamespace(tasks=3), "optimizer": optax.sgd(0.1), "intervention": Intervention()}
    records |= {"head": SimpleNamespace(objective=toy.objective, regression=toy.objective, span=math.inf)}
    records |= {"spec": {"train": {}, "test": {}, "classes": 3}}
    records["stream"] = SimpleNamespace(examples=0, init=lambda *_: (), evaluate=lambda *_: {"weight": jnp.ones(2_048)})
    wanted = inspect.signature(factory).parameters
    return factory(**{key: records[key] for key in wanted if key in records}, **SETTINGS.get(name, {}))


MEASURED = [name for name in DIAGNOSTICS if not name.startswith("probe")]  # those train: tests/test_probe.py
KEYS = jax.random.split(jax.random.key(0), 3)


@pytest.fixture(scope="module")
def measure(toy):
    """All families in one function of a key: one compilation for all tests."""
    families = {name: _make(toy, name) for name in MEASURED}

    def measure(key):
        earlier, now, found = toy.case(jax.random.fold_in(key, 2)), toy.case(key), {}
        now = now[0], now[1]._replace(clock=now[1].clock._replace(task=jnp.int32(1)))
        for name, family in families.items():
            state = family.init(key, *earlier)
            if state != ():  # compares with the measurement before
                state, _ = family.apply(key, state, *earlier)
            found[name] = family.apply(key, state, *now)
        return found

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
@pytest.mark.parametrize("name", MEASURED)
def test_jit_equals_eager(loop, eager, name):
    eager = eager[name][1]
    assert set(eager) == set(loop[0][name][1])
    for metric, value in loop[0][name][1].items():
        # the Lanczos process amplifies rounding: single nodes agree to fewer digits
        tolerance = {"rtol": 1e-2, "atol": 1e-3} if name == "spectrum" else {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(value, eager[metric], **tolerance, err_msg=metric)


@pytest.mark.parametrize("name", MEASURED)
@pytest.mark.slow
def test_vmap_equals_a_loop(loop, mapped, name):
    for metric, values in mapped[name][1].items():
        expected = np.stack([run[name][1][metric] for run in loop])
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-6, err_msg=metric)
    assert any(np.ptp(values, axis=0).max() > 0 for values in mapped[name][1].values())  # keys differ


@pytest.mark.parametrize("name", MEASURED)
def test_dims_agree_with_the_shapes(toy, loop, name):
    diagnostic, metrics = _make(toy, name), loop[0][name][1]
    assert set(diagnostic.dims) == set(metrics)
    for metric, dims in diagnostic.dims.items():
        assert metrics[metric].dtype == jnp.float32
        assert metrics[metric].shape == tuple(len(labels) for labels in dims.values()), metric
        assert dims.get("layer", ("fc0", "fc1")) in (("fc0", "fc1"), ("fc0", "fc1", "head"))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in COSTLY else ()) for name in MEASURED]
)
def test_nothing_is_written_and_nothing_is_lost(toy, case, name):
    learner, snapshot = case
    diagnostic = _make(toy, name)
    state, metrics = diagnostic.apply(
        jax.random.key(0), diagnostic.init(jax.random.key(0), learner, snapshot), learner, snapshot
    )
    chex.assert_trees_all_equal_shapes_and_dtypes(state, diagnostic.init(jax.random.key(0), learner, snapshot))
    unknown = {metric for metric, value in metrics.items() if np.any(np.isnan(value))}
    not_counted = {"gradient_covariance", "accuracy_by_task"}  # of the last input, and of a task without inputs
    no_bounds_and_no_variance = {"saturated_fraction", "explained_variance"}  # of relu, and of labels
    assert unknown <= no_bounds_and_no_variance | not_counted | NOT_YET


IN_PARTS = ("units", "ranks", "shift", "overlap", "duplicates", "sparsity", "performance", "gradients", "forgetting")


def test_in_parts_that_fit_in_memory_all_is_the_same(toy, case):
    """19 numbers of each of 6 inputs: 4 times 4 * 4 * 19 bytes hold 4 of them."""
    key, earlier = jax.random.key(0), toy.case(jax.random.key(1))

    def measured(name, memory_gb):
        diagnostic = _make(toy, name, memory_gb)
        state, _ = diagnostic.apply(key, diagnostic.init(key, *earlier), *earlier)
        learner, snapshot = case
        later = snapshot._replace(clock=snapshot.clock._replace(task=jnp.int32(1)))
        return diagnostic.apply(key, state, learner, later)

    for name in IN_PARTS:
        whole, parts = (jax.jit(measured, static_argnums=(0, 1))(name, memory) for memory in (0.1, 4 * 304e-9))
        chex.assert_trees_all_close(parts, whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "setting"), [("spectrum", "steps"), ("landscape", "directions")])
def test_vectors_that_do_not_fit_in_memory_are_refused(toy, name, setting):
    with pytest.raises(ValueError, match=rf"{name}\.{setting} takes \d+ vectors of 59 .* memory_gb=1e-06"):
        _make(toy, name, 1e-6)


def test_dims_are_known_while_tracing(toy):
    """build makes the records inside the mapped function, with settings that are tracers."""

    @jax.jit
    def measure(setting):
        made = [DIAGNOSTICS["units"](toy.network, 1.0, tau=setting)]
        made += [DIAGNOSTICS["ranks"](toy.network, 1.0, delta=setting)]
        made += [DIAGNOSTICS["weights"](toy.network, delta=setting)]
        assert all(dims == {} or dims["layer"][:2] == ("fc0", "fc1") for d in made for dims in d.dims.values())
        return [d.apply(None, (), *toy.case(jax.random.key(0)))[1] for d in made]

    tight, loose = measure(0.001), measure(0.5)
    assert np.all(tight[0]["dormant_fraction"] <= loose[0]["dormant_fraction"])
    assert np.all(tight[1]["srank"] > loose[1]["srank"]) and np.all(tight[2]["weight_rank"] > loose[2]["weight_rank"])


def test_a_network_without_hidden_layers(toy, case):
    linear = toy.network._replace(wiring=())
    for name in ("units", "ranks", "shift", "overlap", "duplicates"):
        diagnostic = DIAGNOSTICS[name](linear, 1.0)
        assert all(dims["layer"] == () for dims in diagnostic.dims.values())
        state = diagnostic.init(None, *case)
        for metric, value in diagnostic.apply(None, state, *case)[1].items():
            assert value.shape == tuple(len(labels) for labels in diagnostic.dims[metric].values())


def test_metric_names_are_unique_and_documented(toy):
    names = [metric for name in DIAGNOSTICS for metric in _make(toy, name).dims]
    assert len(names) == len(set(names))
    rows = re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == set(names) | BY_THE_TRAINER


def test_documented_families_have_their_metrics(toy):
    """Those that are on by default, and after them those that are off."""
    on, off = DOCS.read_text().split("## What they are")[0].split("Off by default")
    for text, names in ((on, set(DIAGNOSTICS) - set(COSTLY)), (off, set(COSTLY))):
        families = dict(re.findall(r"^- `(\w+)`: ((?:`\w+`,?\s+)+)", text, re.MULTILINE))
        assert set(families) == names
        for name, metrics in families.items():
            assert sorted(re.findall(r"\w+", metrics)) == sorted(_make(toy, name).dims), name


def test_every_documented_metric_has_a_formula_a_source_and_a_cost():
    header, _, *rows = re.findall(r"^\|(.+)\|$", DOCS.read_text(), re.MULTILINE)
    columns = [cell.strip() for cell in header.split("|")]
    assert [column.split()[0].rstrip(",") for column in columns] == [
        *("metric", "formula", "dimension", "thresholds", "source", "cost")
    ]
    for row in rows:
        cells = dict(zip(columns, (cell.strip() for cell in row.split("|")), strict=True))
        empty = [column for column, cell in cells.items() if not cell and not column.startswith("thresholds")]
        assert not empty, (row, empty)


def test_documented_dimensions_are_those_of_the_arrays(toy):
    documented = dict(re.findall(r"^\| `(\w+)` \|[^|]*\| ([^|]+?) \|", DOCS.read_text(), re.MULTILINE))
    for name in DIAGNOSTICS:
        for metric, dims in _make(toy, name).dims.items():
            assert documented[metric] == (", ".join(dims) or "none"), metric


def test_documented_thresholds_are_the_defaults(toy):
    """Each family's settings stand in its own rows, all of them, with their values; "the same" is the row above."""
    thresholds, above = {}, ""
    for row in re.findall(r"^\| (`\w+` \|.+)\|$", DOCS.read_text(), re.MULTILINE):
        metric, _, _, cell = (part.strip() for part in row.split("|")[:4])
        above = thresholds[metric.strip("`")] = cell.replace("the same", above)
    for name, factory in DIAGNOSTICS.items():
        family = " ".join(thresholds[metric] for metric in _make(toy, name).dims)
        found = dict(re.findall(r"`(\w+\.\w+)` = ([^\s,;]+)", family))
        settings = inspect.signature(factory).parameters.values()
        defaults = {f"{name}.{s.name}": str(s.default) for s in settings if s.default is not inspect.Parameter.empty}
        assert found == defaults, name
