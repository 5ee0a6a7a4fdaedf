"""From a configuration to a plan: what is filled in, what is refused, what a grid becomes."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from records import arrays, clock, spec

from plasticity_jax.base import Diagnostic
from plasticity_jax.build import COSTLY, DEFAULTS, build, classes_of, complete, config_hash

CONFIG = {
    "seeds": 2,
    "tasks": 3,
    "stream": {"name": "random_labels", "images": 18, "batch": 5, "steps": 40},
    "network": {"name": "mlp", "widths": [8, 6]},
}


def edited(path, value):
    config = json.loads(json.dumps(CONFIG))
    *parents, last = path.split(".")
    node = config
    for part in parents:
        node = node.setdefault(part, {})
    node[last] = value
    return config


def test_every_default_is_filled_in_and_the_result_is_its_own_completion():
    full = complete(CONFIG)
    assert full["optimizer"] == {
        "name": "adam",
        "learning_rate": 1e-3,
        "b1": 0.9,
        "b2": 0.999,
        "eps": 1e-8,
        "eps_root": 0.0,
    }
    assert full["network"]["widths"] == (8, 6) and full["network"]["norm"] == "none"
    assert full["diagnostics"]["units"] == {
            "name": "units", "every": 1, "every_segments": 0, "tau": 0.025, "share": 0.99, "margin": 0.01
        }  # fmt: skip
    assert complete(full) == full == complete(ConfigDict(CONFIG))
    assert set(full) == set(DEFAULTS)


def test_a_plan_has_one_run_for_each_seed_and_grid_point():
    config = {
        **CONFIG,
        "first_seed": 5,
        "grid": (("optimizer.learning_rate", (1e-3, 1e-2)), ("stream.fraction", (0.5,))),
    }
    plan = build(config, spec())
    assert plan.seeds.tolist() == [5, 6, 5, 6]
    np.testing.assert_allclose(plan.settings["optimizer.learning_rate"], [1e-3, 1e-3, 1e-2, 1e-2])
    np.testing.assert_allclose(plan.settings["stream.fraction"], 0.5)
    assert plan.lengths == (40, 40, 40) and plan.segment_steps == 40


def test_settings_may_be_traced_and_act():
    plan = build({**CONFIG, "grid": (("stream.mean", (0.0, 0.5)),)}, spec())

    def first(mean):
        trainer = plan.make({"stream.mean": mean}).trainer
        return trainer.snapshot(trainer.init(jax.random.key(0), arrays()), arrays(), clock()).batch["x"].mean()

    a, b = jax.jit(first)(0.0), jax.jit(first)(0.5)
    assert float(a - b) == pytest.approx(0.5, abs=1e-5)


def test_diagnostics_are_added_to_the_defaults_and_taken_out_by_every_0():
    config = {**CONFIG, "diagnostics": {"ranks": {"every": 0}, "often": {"name": "units", "every": 2, "tau": 0.1}}}
    names = set(complete(config)["diagnostics"])
    assert names == {*DEFAULTS["diagnostics"], "often"} - {"ranks", *COSTLY}
    with pytest.raises(ValueError, match="'dead_fraction' is reported by units and often"):
        build(config, spec())


def largest(network, scale: float = 1.0):
    return Diagnostic(lambda key, learner, snapshot: (), lambda *a: ((), {"largest": scale}), {"largest": {}})


def test_own_factories_are_named_by_their_path():
    config = {**CONFIG, "diagnostics": {"own": {"name": "test_build:largest", "scale": 2.0}}}
    assert build(config, spec()).config["diagnostics"]["own"] == {
        "name": "test_build:largest",
        "every": 1,
        "every_segments": 0,
        "scale": 2.0,
    }
    told = {
        "test_build:largst": "but test_build has no 'largst'. Did you mean 'largest'",
        "no_such_module:f": "cannot be imported: .* Is the module on PYTHONPATH",
    }
    for name, words in told.items():
        config["diagnostics"]["own"] = {"name": name}
        with pytest.raises(ValueError, match=words):
            build(config, spec())


def test_segments_divide_every_task():
    assert build(edited("segment_steps", 20), spec()).segment_steps == 20
    assert build(edited("stream.steps", 30_000), spec()).segment_steps == 10_000
    assert build(edited("stream.steps", 10_007), spec()).segment_steps == 10_007  # a prime number of steps
    with pytest.raises(ValueError, match="segment_steps=30 does not divide every task; use a divisor of 40"):
        build(edited("segment_steps", 30), spec())


@pytest.mark.parametrize(
    ("stream", "classes"),
    [
        ({"name": "random_labels", "images": 20, "batch": 5}, 3),
        ({"name": "continual_pairs", "per_class": 5, "held_out": 5, "batch": 5, "cycle": 2}, 2),
        ({"name": "class_incremental", "classes_per_task": 1, "validation": 2, "batch": 5, "augment": False}, None),
    ],
)
def test_of_how_many_classes_a_guess_has_one(stream, classes):
    assert classes_of(build({**CONFIG, "tasks": 2, "stream": stream}, spec())) == classes


def test_early_stopping_in_tasks_of_one_segment_is_refused():
    stream = {
        "name": "class_incremental",
        "classes_per_task": 1,
        "validation": 2,
        "epochs": 4,
        "batch": 5,
        "augment": False,
    }
    config = {**CONFIG, "stream": stream, "early_stopping": True}
    with pytest.raises(
        ValueError, match=r"task 0 of 16 steps is one segment: set segment_steps to a smaller divisor of"
    ):
        build(config, spec())
    assert build({**config, "segment_steps": 4}, spec()).segment_steps == 4


def test_the_hash_is_of_what_may_change_a_number():
    base = config_hash(complete(CONFIG))
    for path, value in (
        ("checkpoint.keep", "all"),
        ("log.tensorboard", True),
        ("data.dir", "x"),
        ("parallel.devices", 1),
    ):
        assert config_hash(complete(edited(path, value))) == base, path
    for path, value in (("optimizer.b2", 0.9), ("seeds", 3), ("data.name", "mnist"), ("diagnostics.units.every", 2)):
        assert config_hash(complete(edited(path, value))) != base, path


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("netwrk", {}, "netwrk is not a setting. Did you mean 'network'"),
        ("optimizer.learning_rat", 1e-3, "learning_rat is not a setting of adam. Did you mean 'learning_rate'"),
        ("network.name", "mpl", "network.name='mpl' is unknown. Did you mean 'mlp'"),
        ("network.name", "linear", "network.widths is not a setting of linear"),
        ("optimizer.learning_rate", "fast", "optimizer.learning_rate='fast' is of type str.*float"),
        ("optimizer.learning_rate", True, "is of type bool"),
        ("optimizer.learning_rate", -1e-3, "learning_rate=-0.001, but it must be finite and at least 0"),
        ("stream.steps", 40.0, "stream.steps=40.0 is of type float.*int"),
        ("network.widths", 8, "network.widths=8 is of type int.*tuple"),
        ("network.widths", (8, 0), "widths=0"),
        ("stream.batch", 19, "batch=19.*18 examples"),
        ("stream.images", 61, "images=61.*60 training images"),
        ("seeds", 0, "seeds=0"),
        ("seeds", 2.0, "seeds=2.0 is of type float"),
        ("tasks", -1, "tasks=-1"),
        ("checkpoint.minutes", 0.0, "checkpoint.minutes=0.0"),
        ("checkpoint.kep", "all", "checkpoint.kep is not a setting. Did you mean 'keep'"),
        ("parallel.runs_per_batch", -1, "parallel.runs_per_batch=-1"),
        ("diagnostics.rank", {}, "diagnostics.rank.name='rank' is unknown. Did you mean 'ranks'"),
        ("diagnostics.training", {"name": "units"}, "diagnostics.training: costs.json"),
        ("diagnostics.before training", {"name": "units"}, "diagnostics.before training: costs.json"),
        ("diagnostics.units.every", -1, "diagnostics.units.every=-1"),
        ("grid", (("network.widths", (1.0,)),), "network.widths is of type tuple; only float settings"),
        ("grid", (("network.width", (0.5, 1.0)),), "network.width is of type int; only float settings"),
        ("network.width", "wide", "network.width='wide' is of type str.*float or int"),
        ("head.smoothing", 1.5, "smoothing=1.5"),
        ("grid", (("stream.batch", (4.0, 5.0)),), "stream.batch is of type int; only float settings"),
        ("grid", (("optimizer.rate", (1.0,)),), "optimizer has no 'rate'"),
        ("grid", (("optimizer.b2", ()),), "optimizer.b2 is given no values"),
        ("grid", (("optimizer.b2", (0.9, 0.9)),), "optimizer.b2 repeats a value"),
        ("grid", (("optimizer.b2", ("high",)),), "is of type str"),
        ("grid", (("optimizer.b2", (0.9, 1.5)),), "b2=1.5"),
        ("grid", ("optimizer.b2",), "is not a pair"),
        ("grid", (("checkpoint.minutes", (1.0, 2.0)),), "checkpoint.minutes changes no number"),
        ("first_seed", 2**32, "first_seed"),
        ("optimizer.b2", 1.0, "b2=1.0"),
        ("optimizer.eps", 0.0, "eps . eps_root=0.0"),
        ("optimizer.learning_rate", float("inf"), "learning_rate=inf"),
        ("stream.mean", ("a",), "mean='a'"),
        ("stream.steps", 2**30, "2.31 examples"),
    ],
)
def test_what_is_wrong_is_named(path, value, words):
    with pytest.raises(ValueError, match=words):
        build(edited(path, value), spec())
