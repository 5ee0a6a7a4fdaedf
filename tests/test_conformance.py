"""What every member of every registry must do: house style 12, one suite over all of them.

A new member is tested by being in its registry; settings that fit the small test data stand in SETTINGS.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conforming import conforms, keeps_structure, lane, slowly, survives_a_checkpoint, two_keys
from masking import assert_wired
from own_parts import noisy
from records import (
    SIDE,
    SMALL,
    arrays,
    assert_close,
    assert_same,
    batch,
    clock,
    learner_and_snapshot,
    network,
    raw,
    spec,
)

from plasticity_jax.base import Intervention, Learner, Snapshot
from plasticity_jax.build import REGISTRIES, _call, build, complete
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.interventions import INTERVENTIONS
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.networks import HEADS, NETWORKS
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES, Horizon
from plasticity_jax.streams import STREAMS

SHORT = {"steps": 8, "batch": 5, "images": 18}
SETTINGS = {
    "class_incremental": {"classes_per_task": 1, "steps": 8, "batch": 5, "validation": 4, "augment": False},
    "five_plus_one": {"hard": 1, "steps": 8, "batch": 5, "per_class": 12},
    "continual_pairs": {"steps": 8, "batch": 5, "per_class": 12, "held_out": 3},
    "warm_start": {"steps": 8, "batch": 5},
    "composite": SHORT,
    "input_drift": {**SHORT, "kind": "noise", "inside": True},
    "label_permutation": SHORT,
    "random_labels": {**SHORT, "transition": 4},
    "permuted_pixels": SHORT,
    "slowly_changing_regression": {"steps": 8, "batch": 5, "inputs": 9, "slow": 6, "units": 7},
    "target_offset": {**SHORT, "values": 2},
    **SMALL,
}


def settings(name):
    return SETTINGS.get(name, {})


@functools.cache
def stream(name):
    return _call("stream", complete({"stream": {"name": name, **settings(name)}})["stream"], {"spec": spec()})


@functools.cache
def net(name):
    return NETWORKS[name]((SIDE, SIDE, 1), 3, **settings(name))


def test_registries_are_complete():
    covered = {"stream", "network", "head", "optimizer", "schedule", "interventions", "diagnostics"}
    assert set(REGISTRIES) == covered


QUICK_STREAMS = ("random_labels",)
QUICK_DIAGNOSTICS = ("gradients", "overlap", "performance", "shift", "units", "weights")


@pytest.mark.parametrize("name", slowly(STREAMS, *(name for name in STREAMS if name not in QUICK_STREAMS)))
def test_streams_jit_vmap_trace(name):
    data, member = arrays(), stream(name)

    def steps(key):
        state = member.init(key, data)
        batches = [member.sample(for_step(key, Purpose.BATCH, i), state, data, jnp.int32(i)) for i in (0, 3)]
        after = member.advance(for_step(key, Purpose.TASK, 1), state, data)
        return state, batches, after, [member.evaluate(after, data, split) for split in ("train", "test")]

    conforms(steps)


@pytest.mark.parametrize("name", STREAMS)
class TestStreams:
    def test_state_keeps_its_structure(self, name):
        data, member = arrays(), stream(name)
        state = member.init(two_keys()[0], data)
        keeps_structure(state, member.advance(two_keys()[1], state, data))

    def test_seeds_and_tasks_differ(self, name):
        data, member = arrays(), stream(name)
        a, b = (member.init(key, data) for key in two_keys())
        c = member.advance(two_keys()[0], a, data)
        assert any((x != y).any() for x, y in zip(raw(a), raw(b), strict=True))
        assert any((x != y).any() for x, y in zip(raw(a), raw(c), strict=True))

    def test_batches_have_what_a_step_needs(self, name):
        data, member = arrays(), stream(name)
        state = member.init(two_keys()[0], data)
        size = settings(name)["batch"]
        drawn = member.sample(two_keys()[0], state, data, jnp.int32(0))
        assert drawn["x"].shape == (size, *(member.input_shape or (SIDE, SIDE, 1))) and drawn["x"].dtype == jnp.float32
        assert drawn["y"].shape[0] == drawn["weight"].shape[0] == size
        assert isinstance(member.steps(0), int)

    def test_the_tasks_of_a_seed_are_those_of_every_variant(self, name):
        """Another network, optimizer, head and intervention: the same tasks, so that variants are compared in pairs."""
        variants = (
            {"network": {"name": "linear"}, "head": {"name": "linear"}},
            {"network": {"name": "mlp", "widths": (5,)}, "optimizer": {"name": "sgd"}, "head": {"name": "two_hot"},
             "interventions": {"mine": {"name": "own_parts:noisy"}}},
        )  # fmt: skip
        sources = []
        for variant in variants:
            config = {"stream": {"name": name, **settings(name)}, "tasks": 3, **variant}
            trainer = build(config, spec()).make({}).trainer
            state = first = trainer.init(two_keys()[0], arrays())
            for task, start in ((1, trainer.steps(0)), (2, trainer.steps(0) + trainer.steps(1))):
                state = trainer.advance(state, arrays(), clock(start, task, start))
            sources.append((first.source, state.source))
        assert_same(*sources)

    def test_survives_a_checkpoint(self, name, tmp_path):
        survives_a_checkpoint(tmp_path, stream(name).init(two_keys()[0], arrays()))

    def test_data_are_an_argument(self, name):
        member, data = stream(name), jax.tree.map(jnp.asarray, arrays())
        state = member.init(two_keys()[0], data)
        traced = jax.make_jaxpr(lambda s, d: member.sample(two_keys()[0], s, d, jnp.int32(0)))(state, data)
        assert all(np.size(constant) < 100 for constant in traced.consts)


@pytest.mark.parametrize("name", slowly(NETWORKS, "cnn", "resnet18", "vit"))
class TestNetworks:
    def test_jit_vmap_trace(self, name):
        x = batch(two_keys()[0])["x"]

        def forward(key):
            variables = net(name).init(key)
            return variables, net(name).apply(key, variables, x, True)

        conforms(forward)

    def test_seeds_differ(self, name):
        a, b = (net(name).init(key) for key in two_keys())
        assert any((x != y).any() for x, y in zip(raw(a), raw(b), strict=True))

    def test_stats_keep_their_structure(self, name):
        variables = net(name).init(two_keys()[0])
        _, stats = net(name).apply(two_keys()[0], variables, batch(two_keys()[0])["x"], True)
        keeps_structure(variables.stats, stats)

    def test_wiring_names_every_hidden_layer_and_exactly_its_readers(self, name):
        key = two_keys()[0]
        assert_wired(net(name), net(name).init(key), batch(key)["x"], key)

    def test_survives_a_checkpoint(self, name, tmp_path):
        survives_a_checkpoint(tmp_path, net(name).init(two_keys()[0]))


@pytest.mark.parametrize("name", HEADS)
def test_heads(name):
    head = HEADS[name](spec())
    examples = batch(two_keys()[0])
    member = NETWORKS["linear"]((SIDE, SIDE, 1), head.outputs)

    def loss(key):
        outputs, _ = member.apply(key, member.init(key), examples["x"], False)
        return head.objective.loss(outputs, examples), head.objective.predict(outputs)

    values, scores = loss(two_keys()[0])
    assert values.shape == (12,) and scores.shape == (12, 3) and (np.asarray(values) >= 0).all()
    conforms(loss)


def updates(optimizer, key, steps=3):
    params = network().init(key).params
    state = optimizer.init(params)
    for i in range(steps):
        gradients = jax.tree.map(lambda p, i=i: jnp.cos(p + i), params)
        change, state = optax.with_extra_args_support(optimizer).update(gradients, state, params, clock=clock(i))
        params = optax.apply_updates(params, change)
    return params, state


@pytest.mark.parametrize("name", slowly(OPTIMIZERS, *(n for n in OPTIMIZERS if n not in ("adam", "sgd"))))
class TestOptimizers:
    def test_jit_vmap_trace(self, name):
        f = functools.partial(updates, OPTIMIZERS[name]())
        conforms(f)

    def test_every_float_setting_may_be_traced(self, name):
        floats = {
            n: p.default for n, p in inspect.signature(OPTIMIZERS[name]).parameters.items() if p.annotation is float
        }
        assert "learning_rate" in floats
        plain = updates(OPTIMIZERS[name](**floats), two_keys()[0])[0]
        traced = jax.jit(lambda f: updates(OPTIMIZERS[name](**f), two_keys()[0])[0])(floats)
        assert_close(plain, traced, 1e-4)

    def test_rate_zero_changes_nothing(self, name):
        rates = {n: 0.0 for n in ("learning_rate", "adam_learning_rate") if n in OPTIMIZERS[name].__annotations__}
        params, _ = updates(OPTIMIZERS[name](**rates), two_keys()[0])
        assert_same(params, network().init(two_keys()[0]).params)

    def test_state_keeps_its_structure_and_survives_a_checkpoint(self, name, tmp_path):
        _, state = updates(OPTIMIZERS[name](), two_keys()[0])
        keeps_structure(OPTIMIZERS[name]().init(network().init(two_keys()[0]).params), state)
        survives_a_checkpoint(tmp_path, state)

    def test_negative_rate_is_refused(self, name):
        with pytest.raises(ValueError, match=r"learning_rate=-0\.1"):
            OPTIMIZERS[name](learning_rate=-0.1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules(name):
    horizon = Horizon(3, lambda task: 10 * (task + 1))
    factor = jax.jit(SCHEDULES[name](horizon, warmup=0.2))
    for task, start in ((0, 0), (2, 30)):
        values = [float(factor(clock(start + i, task, start))) for i in range(10 * (task + 1))]
        assert 0 < values[0] < 1 and max(values) == pytest.approx(1.0) and min(values) > 0
        assert values.index(max(values)) <= 2 * (task + 1)
    assert factor._cache_size() == 1


FITS = {"targets": 2, "steps": 4, "inputs": 10, "batch": 4}
WAVES = {**FITS, "multiplier": 10.0}  # the probe's own multiplies rounding by 1e5
QUICK = {  # settings that keep the suite quick
    "spectrum": {"steps": 8, "probes": 2},
    "gradient_covariance": {"examples": 5},
    "ntk": {"inputs": 4},
    "landscape": {"points": 3, "directions": 1},
    "probe": {**WAVES, "points": 3},
    "probe_offset": WAVES,
    "probe_labels": FITS,
}


ALIKE = ("duplicates",)  # small random layers have none
FIXED = ("landscape.radius",)  # of distances that are labels


@functools.cache
def situations():
    """Two keys, each with a learner and a snapshot: made once for all diagnostics."""

    def situation(key):
        learner, snapshot = learner_and_snapshot(key)
        test = {**snapshot.batch["test"], "task": jnp.arange(len(snapshot.batch["test"]["y"])) % 3}
        return key, learner, snapshot._replace(batch={**snapshot.batch, "test": test})

    return jax.jit(jax.vmap(situation))(two_keys())


@pytest.mark.parametrize("name", slowly(DIAGNOSTICS, *(n for n in DIAGNOSTICS if n not in QUICK_DIAGNOSTICS)))
class TestDiagnostics:
    def member(self, name, **settings):
        block = self.settings(name) | settings
        offered = {"network": network(), "objective": self.objective(), "spec": spec()}
        offered |= {"optimizer": optax.adam(1e-2), "stream": stream("random_labels"), "memory_gb": 0.1}
        offered |= {"intervention": Intervention(), "horizon": Horizon(3, lambda task: 10)}
        offered |= {"head": HEADS["softmax"](spec())}
        return _call("diagnostics", block, offered)

    def objective(self):
        return HEADS["softmax"](spec()).objective

    def measured(self, name, **settings):
        member = self.member(name, **settings)

        def f(situation):
            key, learner, snapshot = situation
            return member.apply(key, member.init(key, learner, snapshot), learner, snapshot)

        return f

    def test_jit_vmap_trace(self, name):
        conforms(self.measured(name), 1e-3, situations())

    def test_dims_are_the_shapes(self, name):
        _, metrics = self.measured(name)(lane(situations(), 0))
        member = self.member(name)
        assert set(metrics) == set(member.dims)
        for metric, dims in member.dims.items():
            sizes = tuple(labels if isinstance(labels, int) else len(labels) for labels in dims.values())
            assert metrics[metric].shape == sizes, metric

    def test_state_keeps_its_structure(self, name):
        key, learner, snapshot = lane(situations(), 0)
        member = self.member(name)
        state = member.init(key, learner, snapshot)
        keeps_structure(state, member.apply(key, state, learner, snapshot)[0])

    @pytest.mark.slow
    def test_seeds_differ_and_state_survives_a_checkpoint(self, name, tmp_path):
        measured = jax.jit(self.measured(name))
        both, others = (measured(lane(situations(), i)) for i in range(2))
        differ = any(np.any(a != b) for a, b in zip(raw(both), raw(others), strict=True) if np.isfinite(a).any())
        assert differ or name in ALIKE
        if both[0] != ():
            survives_a_checkpoint(tmp_path, both[0])

    @pytest.mark.slow
    def test_every_float_setting_may_be_traced(self, name):
        floats = {
            n: self.settings(name)[n]
            for n, p in inspect.signature(DIAGNOSTICS[name]).parameters.items()
            if p.annotation is float and f"{name}.{n}" not in FIXED
        }
        plain = self.measured(name)(lane(situations(), 0))[1]
        traced = jax.jit(lambda f: self.measured(name, **f)(lane(situations(), 0))[1])(floats)
        assert_close(plain, traced, 1e-3)

    def settings(self, name):
        return complete({"diagnostics": {name: {"every": 1, **QUICK.get(name, {})}}})["diagnostics"][name]


ALL_INTERVENTIONS = {**INTERVENTIONS, "own_parts:noisy": noisy}  # one of a user's, so that the suite is never empty
OFF = {"own_parts:noisy": {"strength": 0.0}}  # the settings under which a method does nothing; every member has some


@pytest.mark.parametrize("name", ALL_INTERVENTIONS)
class TestInterventions:
    def member(self, name, **settings):
        block = complete({"interventions": {"it": {"name": name, **settings}}})["interventions"]["it"]
        return _call("interventions", block, {"network": network(), "optimizer": optax.adam(1e-2)})

    def hooks(self, member, key):
        learner, snapshot = learner_and_snapshot(key)
        state, learner = member.init(key, learner, snapshot)
        loss = member.loss(key, state, learner.variables.params, snapshot)
        gradients = member.gradients(key, state, snapshot.gradients, learner, snapshot)
        update, boundary = (hook(key, state, learner, snapshot) for hook in (member.update, member.boundary))
        return (state, learner), jnp.float32(loss), gradients, update, boundary

    @pytest.mark.slow
    def test_jit_vmap_trace(self, name):
        conforms(lambda key: self.hooks(self.member(name), key))

    def test_hooks_keep_structure_and_do_something(self, name):
        before, loss, gradients, update, boundary = self.hooks(self.member(name), two_keys()[0])
        _, snapshot = learner_and_snapshot(two_keys()[0])
        keeps_structure(snapshot.gradients, gradients)
        keeps_structure(before, update)
        keeps_structure(before, boundary)
        after = raw((gradients, update[1], boundary[1]))
        plain = raw((snapshot.gradients, before[1], before[1]))
        assert float(loss) != 0 or any((x != y).any() for x, y in zip(after, plain, strict=True))

    def test_switched_off_each_hook_returns_its_input_bit_for_bit(self, name):
        before, loss, gradients, update, boundary = self.hooks(self.member(name, **OFF[name]), two_keys()[0])
        _, snapshot = learner_and_snapshot(two_keys()[0])
        assert float(loss) == 0.0
        assert_same(gradients, snapshot.gradients)
        assert_same(update[1], before[1])
        assert_same(boundary[1], before[1])

    def test_seeds_differ_and_state_survives_a_checkpoint(self, name, tmp_path):
        a, b = (self.hooks(self.member(name), key)[3] for key in two_keys())
        assert any((x != y).any() for x, y in zip(raw(a), raw(b), strict=True))
        survives_a_checkpoint(tmp_path, a)


def test_learner_is_a_checkpointable_tree(tmp_path):
    learner, _ = learner_and_snapshot(two_keys()[0])
    assert isinstance(learner, Learner) and Snapshot(clock(), learner.variables, {}).interventions == ()
    survives_a_checkpoint(tmp_path, learner)
