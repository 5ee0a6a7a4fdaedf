"""The plasticity probes against plain loops that follow their definition, and what they must not touch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from records import CLASSES, SIDE, assert_close, assert_same, clock, raw, spec
from small_runs import CONFIG, config, numbers, states

from plasticity_jax.base import DoesNotFit, Intervention, Learner, Network, Outputs, Snapshot, Variables
from plasticity_jax.diagnostics import copies, probe, probe_labels, probe_offset
from plasticity_jax.diagnostics.copies import Size, _order, moments
from plasticity_jax.flops import matrix_flops
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.learn import first_learner
from plasticity_jax.networks import HEADS, NETWORKS
from plasticity_jax.optimizers import SCHEDULES, Horizon, scheduled
from plasticity_jax.run import run
from plasticity_jax.streams import STREAMS

N = 14
SIZE = {"targets": 2, "steps": 9, "inputs": N, "batch": 5}
KEY, DRAWN = jax.random.key(7), jax.random.key(11)


@dataclasses.dataclass
class Job:
    """A small job, and a learner that has moved away from its initialisation."""

    head: str = "linear"
    norm: str = "none"
    optimizer: object = optax.adam(1e-2)
    intervention: Intervention = Intervention()  # noqa: RUF009
    at: int = 30  # step of the clock

    def __post_init__(self):
        self.head = HEADS[self.head](spec())
        self.network = NETWORKS["mlp"]((SIDE, SIDE, 1), self.head.outputs, widths=(8,), norm=self.norm)
        self.stream = STREAMS["random_labels"](spec(), images=20, batch=5, steps=8)
        batch = {"x": jax.random.uniform(DRAWN, (20, SIDE, SIDE, 1)), "y": jnp.zeros(20, int), "weight": jnp.ones(20)}
        self.states, first = first_learner(KEY, self.network, self.optimizer, self.intervention, clock(), batch)
        moved = jax.tree.map(lambda p: 1.3 * p + 0.1, first.variables.params)
        opt_state = optax.tree_utils.tree_map_params(
            self.optimizer, lambda m: jnp.full_like(m, 0.01), self.optimizer.init(moved)
        )
        self.first, self.learner = first, Learner(first.variables._replace(params=moved), opt_state)
        self.start = Snapshot(clock(), first.variables, batch, interventions=self.states)
        self.snapshot = self.start._replace(clock=clock(self.at, 2, 20))

    def diagnostic(self, factory=probe, **settings):
        records = (self.network, self.head, self.optimizer, self.intervention, self.stream, spec(), 1.0)
        common = {**SIZE, "multiplier": 30.0, "points": 4} if factory is probe else SIZE
        return factory(*records, **{**common, **settings})

    def probed(self, **settings):
        """(state, metrics) of the learner at a boundary."""
        member = self.diagnostic(**settings)
        state = jax.jit(member.init)(KEY, self.first, self.start)
        return state, jax.jit(member.apply)(DRAWN, state, self.learner, self.snapshot)[1]

    def fitted(self, state, objective, goal, measure, learner):
        """The definition as a loop: `measure` of what is said of all inputs, before each step and at the end."""
        x, (params, stats), opt_state = state.data["x"], learner.variables, learner.opt_state
        order = _order(for_step(state.key, Purpose.BATCH), Size(**SIZE))
        update = optax.with_extra_args_support(self.optimizer).update

        @jax.jit
        def outputs(params, stats):
            return self.network.apply(None, Variables(params, stats), x, False)[0]

        @jax.jit
        def gradient(params, stats, part):
            def loss(params):
                outputs, new = self.network.apply(None, Variables(params, stats), part["x"], True)
                return objective.loss(outputs, part).mean(), new

            return jax.grad(loss, has_aux=True)(params)

        goal, found = goal(outputs(params, stats)), []
        for i in range(SIZE["steps"] + 1):
            found.append(measure(outputs(params, stats), goal))
            rows = order[min(i, SIZE["steps"] - 1)]
            gradients, stats = gradient(params, stats, {"x": x[rows], "y": jnp.asarray(goal)[rows]})
            updates, opt_state = update(gradients, opt_state, params, clock=clock(i))
            params = optax.apply_updates(params, updates)
        return found

    def onto_wave(self, state, wave, predict, learner, offset=0.0):
        """Squared errors of a fit to a + offset + wave."""

        def goal(outputs):
            return np.asarray(wave) + offset + np.asarray(predict(outputs)).mean(0)

        def error(outputs, goal):
            return ((np.asarray(predict(outputs)) - goal) ** 2).mean()

        return self.fitted(state, self.head.regression, goal, error, learner)

    def anew(self, learner):
        """The learner with an optimizer state that has seen nothing."""
        return learner._replace(opt_state=self.optimizer.init(learner.variables.params))

    def fresh(self, key):
        """A learner of its own, for the target of this key."""
        records = (self.network, self.optimizer, self.intervention, clock(), self.start.batch)
        return first_learner(for_step(key, Purpose.INIT), *records)[1]


def softmax_means(outputs):
    """The mean of 61 bins from -1 to 2, written out."""
    p = jax.nn.softmax(outputs.y.reshape(-1, CLASSES, 61))
    return p @ (np.arange(61) / 20 - 1.0)


@pytest.mark.parametrize(
    ("head", "norm", "predict"),
    [
        pytest.param("linear", "batch", lambda outputs: outputs.y, id="linear, batch norm"),
        pytest.param("linear", "none", lambda outputs: outputs.y, id="linear", marks=pytest.mark.slow),
        pytest.param("two_hot", "none", softmax_means, id="two_hot", marks=pytest.mark.slow),
    ],
)
def test_the_probe_is_a_plain_loop(head, norm, predict):
    job = Job(head, norm)
    state, found = job.probed()
    for j, wave in enumerate(state.targets):
        curve = job.onto_wave(state, wave, predict, job.anew(job.learner))
        np.testing.assert_allclose(found["probe_curve"][j], np.array(curve)[[0, 3, 6, 9]], rtol=1e-3)
    carried = [job.onto_wave(state, wave, predict, job.learner)[-1] for wave in state.targets]
    np.testing.assert_allclose(found["probe_loss_carried"], np.mean(carried), rtol=1e-3)
    assert abs(np.mean(carried) - found["probe_loss"]) > 1e-3 * found["probe_loss"]  # the two states do differ
    for j, key in enumerate(copies.keys(for_step(state.key, Purpose.TASK), SIZE["targets"])):
        curve = job.onto_wave(state, state.targets[j], predict, job.fresh(key))
        np.testing.assert_allclose(found["probe_curve_fresh"][j], np.array(curve)[[0, 3, 6, 9]], rtol=1e-3)
    np.testing.assert_allclose(found["probe_loss_fresh"], np.mean(found["probe_curve_fresh"][:, -1]), rtol=1e-5)
    initial = np.mean([job.onto_wave(state, wave, predict, job.first)[-1] for wave in state.targets])
    np.testing.assert_allclose(found["plasticity_loss"], found["probe_loss"] - initial, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["plasticity_loss_carried"], found["probe_loss_carried"] - initial, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["offset", "labels"])
def test_the_other_probes_are_plain_loops_too(name):
    job = Job("linear" if name == "offset" else "softmax")
    state, found = job.probed(factory={"offset": probe_offset, "labels": probe_labels}[name])

    def cross_entropy(outputs, labels):
        scores = np.asarray(outputs.y)
        return (np.log(np.exp(scores).sum(-1)) - scores[np.arange(N), labels]).mean()

    def last(target, learner):
        if name == "offset":
            return job.onto_wave(state, target, lambda outputs: outputs.y, learner, offset=10.0)[-1]
        return job.fitted(state, job.head.objective, lambda outputs: np.asarray(target), cross_entropy, learner)[-1]

    own = copies.keys(for_step(state.key, Purpose.TASK), SIZE["targets"])
    expected = {
        "": [last(target, job.anew(job.learner)) for target in state.targets],
        "_carried": [last(target, job.learner) for target in state.targets],
        "_fresh": [last(target, job.fresh(key)) for target, key in zip(state.targets, own, strict=True)],
    }
    means = {whose: np.mean(losses) for whose, losses in expected.items()}
    for whose, loss in means.items():
        np.testing.assert_allclose(found[f"probe_{name}_loss{whose}"], loss, rtol=1e-3, err_msg=whose)
    assert len(set(np.round(list(means.values()), 3))) == 3  # the three do differ


@functools.cache
def compiled():
    """A job with its probe, whose functions are compiled once for several tests."""
    job = Job()
    member = job.diagnostic()
    return job, jax.jit(member.init), jax.jit(member.apply)


def test_waves_are_those_of_networks_of_the_same_initialisation():
    job, init, apply = compiled()
    state = init(KEY, job.first, job.start)
    assert state.targets.shape == (2, N, CLASSES) and len(np.unique(state.data["x"].reshape(N, -1), axis=0)) == N
    twin = jax.random.fold_in(jax.random.fold_in(KEY, 1), 0)
    y = job.network.apply(None, job.network.init(twin), state.data["x"], False)[0].y
    np.testing.assert_allclose(state.targets[0], np.sin(30.0 * y), atol=1e-4)
    assert abs(state.targets[0] - state.targets[1]).max() > 0.1
    found = apply(DRAWN, state, job.learner, job.snapshot)[1]
    np.testing.assert_allclose(found["probe_baseline"], np.var(state.targets, 1).mean(), rtol=1e-5)


def test_an_unchanged_network_has_lost_nothing_and_the_state_stays():
    job, init, apply = compiled()
    state = init(KEY, job.first, job.start)
    for boundary in (DRAWN, KEY):
        after, found = apply(boundary, state, job.first, job.snapshot)
        assert_same(after, state)
        assert abs(float(found["plasticity_loss"])) < 1e-5 and abs(float(found["plasticity_loss_carried"])) < 1e-5


def test_inputs_of_weight_0_count_nowhere():
    job, init, apply = compiled()
    weight = (jnp.arange(20) < N - 2).astype(jnp.float32)  # two of the inputs must be of those that do not count
    state = init(KEY, job.first, job.start._replace(batch={**job.start.batch, "weight": weight}))
    out = state.data["weight"] == 0
    assert out.sum() == 2
    x = jnp.where(out[:, None, None, None], 9.0, state.data["x"])
    other = state._replace(data={**state.data, "x": x}, targets=jnp.where(out[:, None], 9.0, state.targets))
    assert_close(*(apply(DRAWN, s, job.learner, job.snapshot)[1] for s in (state, other)))


@pytest.mark.slow
def test_the_papers_multiplier_gives_a_baseline_of_one_half():
    _, found = Job().probed(multiplier=1e5, inputs=20)
    assert float(found["probe_baseline"]) == pytest.approx(0.5 * 19 / 20, abs=0.12)  # of 20 inputs


def test_a_probe_that_asks_nothing_is_not_passed():
    """Initial networks that say the same of every input have constant waves, which any network fits."""
    job = Job()
    inner = job.network.init
    job.network = job.network._replace(init=lambda key: jax.tree.map(jnp.zeros_like, inner(key)))
    _, found = job.probed()
    assert np.isnan([found[name] for name in ("plasticity_loss", "probe_loss", "probe_baseline")]).all()


def sloping_network(values):
    """A network that says `values` of every input, and at its initialisation adds the mean pixel to them."""

    def apply(key, variables, x, train):
        brightness = x.reshape(len(x), -1).mean(-1, keepdims=True)
        return Outputs(variables.params["values"] + variables.params["slope"] * brightness, {}, {}), {}

    return Network(lambda key: Variables({"values": jnp.asarray(values), "slope": jnp.float32(30.0)}, {}), apply)


@pytest.mark.parametrize(
    "values", [pytest.param(np.zeros(CLASSES), marks=pytest.mark.slow), np.array([3.0, -2.0, 50.0])]
)
@pytest.mark.slow
def test_targets_move_with_the_mean_prediction(values):
    """A constant network differs from a + wave by the wave alone, wherever its constant is."""
    job = Job()
    job.network = sloping_network(np.float32(values))
    flat = Variables({"values": jnp.float32(values), "slope": jnp.float32(0.0)}, {})
    job.learner = job.first = Learner(flat, job.optimizer.init(flat.params))
    job.start, job.snapshot = (s._replace(initial=flat) for s in (job.start, job.snapshot))
    state, found = job.probed(multiplier=1.0, points=2)
    waves = np.asarray(state.targets)
    assert waves.std() > 0.1
    np.testing.assert_allclose(found["probe_curve"][:, 0], np.mean(waves**2, (1, 2)), rtol=1e-4)
    state, found = job.probed(factory=probe_offset, multiplier=1.0, offset=4.0, steps=1)
    expected = np.mean((np.asarray(state.targets) + 4.0) ** 2)
    assert float(found["probe_offset_loss"]) == pytest.approx(expected, rel=0.02)


def test_gradient_hooks_and_no_others_are_run():
    """A mask of zeros keeps the copy where it is; penalties and updates are not run."""

    def frozen(key, states, gradients, learner, snapshot):
        return jax.tree.map(lambda g: g * states["mask"], gradients)

    def wrong(*_):
        raise AssertionError("only gradients hooks belong to a probe")

    def with_mask(key, learner, snapshot):
        return {"mask": jnp.zeros(())}, learner

    job = Job(optimizer=optax.sgd(0.1), intervention=Intervention(with_mask, wrong, frozen, wrong, wrong))
    member = job.diagnostic()
    state, apply = jax.jit(member.init)(KEY, job.first, job.start), jax.jit(member.apply)
    _, found = apply(DRAWN, state, job.learner, job.snapshot)
    for name in ("probe_curve", "probe_curve_fresh"):
        np.testing.assert_array_equal(found[name], np.repeat(found[name][:, :1], 4, 1))
    seen = job.snapshot._replace(interventions={"mask": jnp.ones(())})
    moved = apply(DRAWN, state, job.learner, seen)[1]["probe_curve"]
    assert (moved[:, 1:] != moved[:, :1]).all()


def test_schedules_begin_with_the_probe_and_end_with_the_first_task():
    """A task of 6 steps: the rate falls to 0 by then, and does not rise again in the steps that are left."""
    cosine = SCHEDULES["cosine"](Horizon(4, lambda task: 6 + 10 * task))
    job = Job(optimizer=scheduled(optax.sgd(0.1), cosine))
    member = job.diagnostic(points=10)
    state, apply = jax.jit(member.init)(KEY, job.first, job.start), jax.jit(member.apply)
    early, late = (
        apply(DRAWN, state, job.first, job.snapshot._replace(clock=now))[1] for now in (clock(), clock(29, 2))
    )
    curve = early["probe_curve"][0]
    assert (abs(np.diff(curve[:6])) > 0).all() and np.ptp(curve[6:]) == 0
    assert_same(early, late)  # at every boundary alike
    assert abs(float(late["plasticity_loss"])) < 1e-5


def test_its_matrix_products_are_counted_step_by_step():
    job = Job()

    def flops(steps):
        member = job.diagnostic(steps=steps)
        state = jax.eval_shape(member.init, KEY, job.first, job.start)
        return matrix_flops(jax.make_jaxpr(member.apply)(DRAWN, state, job.learner, job.snapshot))

    nine, more = flops(9), flops(90)
    forward = 2 * SIZE["batch"] * (SIDE * SIDE * 8 + 8 * CLASSES)
    assert more - nine >= 81 * 2 * 2 * 2 * forward  # two targets, two states, forwards and backwards


def test_a_copy_learns_without_dropout():
    """A network that would drop everything, if it were given a key."""
    job = Job()
    inner = job.network.apply

    def apply(key, variables, x, train):
        outputs, stats = inner(key, variables, x, train)
        return (outputs if key is None else outputs._replace(y=outputs.y * jnp.nan)), stats

    expected = job.probed()[1]
    job.network = job.network._replace(apply=apply)
    assert_close(job.probed()[1], expected)


def test_without_a_key_dropout_is_off_and_batch_statistics_move():
    small = {"patch": 2, "dim": 4, "feedforward": 4, "heads": 1, "dropout": 0.9}
    vit = NETWORKS["vit"]((SIDE, SIDE, 1), CLASSES, **small)
    variables, x = jax.jit(vit.init)(KEY), jax.random.uniform(DRAWN, (4, SIDE, SIDE, 1))
    apply = jax.jit(vit.apply, static_argnums=3)
    np.testing.assert_allclose(*(apply(None, variables, x, train)[0].y for train in (True, False)), rtol=1e-5)
    normed = NETWORKS["mlp"]((SIDE, SIDE, 1), CLASSES, widths=(8,), norm="batch")
    variables = normed.init(KEY)
    _, stats = normed.apply(None, variables, x, True)
    assert any((a != b).any() for a, b in zip(raw(stats), raw(variables.stats), strict=True))


def test_random_labels_are_memorised():
    job = Job("softmax", optimizer=optax.adam(0.05))
    state, found = job.probed(factory=probe_labels, steps=400, batch=N)
    assert state.targets.dtype == jnp.int32 and set(np.unique(state.targets)) == set(range(CLASSES))
    assert float(found["probe_labels_accuracy_fresh"]) == 1.0 and float(found["probe_labels_loss_fresh"]) < 0.05
    assert float(found["probe_labels_accuracy"]) == 1.0 and float(found["probe_labels_loss"]) < 0.05


@pytest.mark.parametrize(
    ("factory", "head", "settings", "words"),
    [
        (probe, "linear", {"inputs": 21}, r"inputs=21, but the stream evaluates 20 inputs.*inputs=20 or less"),
        (probe, "linear", {"batch": 15}, r"batch=15, but probe\.inputs=14"),
        (probe, "linear", {"points": 11}, r"points=11 and probe\.steps=9.*must divide"),
        (probe, "linear", {"points": 1}, r"points=1"),
        (probe, "linear", {"targets": 0}, r"targets=0"),
        (probe, "linear", {"multiplier": 0.0}, r"multiplier=0\.0"),
        (probe_offset, "two_hot", {"offset": -1.5}, r"range of 3, but the targets span 3\.5: set head\.low and"),
        (probe_labels, "softmax", {"batch": 15}, r"probe_labels\.batch=15"),
    ],
)
def test_bad_settings_are_named(factory, head, settings, words):
    with pytest.raises(ValueError, match=words):
        Job(head).diagnostic(factory, **settings)


def test_one_value_has_no_random_labels():
    job = Job()
    records = (job.network, job.head, job.optimizer, job.intervention, job.stream, {**spec(), "classes": 1}, 1.0)
    with pytest.raises(ValueError, match="2 classes or more"):
        probe_labels(*records, **SIZE)


def test_targets_side_by_side_fill_the_memory_and_change_nothing(monkeypatch):
    job, init, apply = compiled()
    state = init(KEY, job.first, job.start)
    one_by_one = apply(DRAWN, state, job.learner, job.snapshot)[1]
    shapes = (job.network, job.learner, state.data["x"], Size(6, 9, N, 5))
    assert copies._at_once("probe", 1.0, *shapes) == 1  # a CPU
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    one, some, most = (copies._at_once("probe", gigabytes, *shapes) for gigabytes in (1e-5, 2e-5, 1.0))
    assert one == 1 < some < 6 == most and 6 % some == 0
    with pytest.raises(DoesNotFit, match=r"step of 5 inputs takes .*, but memory_gb=1e-06: .* lower probe\.batch"):
        copies._at_once("probe", 1e-6, *shapes)
    side_by_side = jax.jit(job.diagnostic().apply)(DRAWN, state, job.learner, job.snapshot)[1]
    assert_close(side_by_side, one_by_one, 1e-4)


def test_moments_are_evenly_spread():
    assert moments(Size(1, 500, 8, 4, 21)) == tuple(range(0, 501, 25))


def test_training_is_untouched_by_probing(tmp_path):
    """The same run with a probe at every boundary and without any: states and numbers agree to the bit."""
    sizes = {"every": 1, "targets": 2, "steps": 6, "inputs": 20, "batch": 8, "points": 3}
    plain = config(seeds=2, tasks=2)
    assert run(plain, tmp_path / "without") == "done"
    assert run({**plain, "diagnostics": {**CONFIG["diagnostics"], "probe": sizes}}, tmp_path / "with") == "done"
    bare, probed = (states(tmp_path / name) for name in ("without", "with"))
    train = [path for path in bare if "train" in path]
    assert train and all(bare[path].tobytes() == probed[path].tobytes() for path in train)
    found, same = numbers(tmp_path / "with"), numbers(tmp_path / "without")
    for name in ("final_loss", "online_loss", "weight_norm"):
        np.testing.assert_array_equal(found[name], same[name])
    assert found.probe_step.values.tolist() == [0, 3, 6] and np.isfinite(found.plasticity_loss).all()
    assert (found.probe_loss_fresh[:, 0] == found.probe_loss_fresh[:, 1]).all()
    assert (found.probe_loss[:, 0] != found.probe_loss[:, 1]).all()
