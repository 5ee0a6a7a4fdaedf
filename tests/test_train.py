"""The training of one run against a plain loop, and many runs against one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from records import CLASSES, arrays, assert_close, assert_same, batch, clock, network, objective, raw, spec

from plasticity_jax import sweep, tree
from plasticity_jax.base import Experiment, Intervention, Learner, Snapshot, Variables
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.keys import Purpose, for_seeds, for_step
from plasticity_jax.learn import accuracy, learn, weighted_mean
from plasticity_jax.schedule import at_boundary, chain
from plasticity_jax.streams import STREAMS
from plasticity_jax.train import supervised

KEY = for_seeds([3])[0]
STEPS = 20


def stream(name="random_labels", **settings):
    return STREAMS[name](spec(), **{"steps": STEPS, "batch": 5, "images": 18, **settings})


def trainer(optimizer=None, intervention=None, segment_steps=10, early_stopping=False, plasticity_every=4):
    return supervised(
        network(), objective(), stream(), optimizer or optax.adam(1e-2), segment_steps, intervention or Intervention(),
        early_stopping, parts=min(5, segment_steps), plasticity_every=plasticity_every,
    )  # fmt: skip


def task(member, state, number=0):
    """One whole task; returns the state and the metrics of its segments."""
    metrics = []
    for first in range(number * STEPS, (number + 1) * STEPS, 10):
        state, found = jax.jit(member.run_segment)(state, arrays(), clock(first, number, number * STEPS))
        metrics.append(found)
    return state, metrics


def test_training_is_a_plain_loop_of_optax():
    data, member, source, tx = arrays(), trainer(), stream(), optax.adam(1e-2)
    state = jax.jit(member.init)(KEY, data)
    trained, metrics = task(member, state)

    params = network().init(for_step(KEY, Purpose.INIT)).params
    opt_state, labels = tx.init(params), source.init(KEY, data)
    losses, hits = [], []

    @jax.jit
    def one(params, opt_state, step):
        examples = source.sample(for_step(KEY, Purpose.BATCH, step), labels, data, step)

        def loss(p):
            logits = network().apply(KEY, state.learner.variables._replace(params=p), examples["x"], True)[0].y
            return optax.softmax_cross_entropy_with_integer_labels(logits, examples["y"]).mean(), logits

        (value, logits), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = tx.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value, (logits.argmax(-1) == examples["y"]).mean()

    for step in range(STEPS):
        params, opt_state, value, hit = one(params, opt_state, jnp.int32(step))
        losses.append(float(value))
        hits.append(float(hit))
    assert_close(trained.learner.variables.params, params)
    for i, found in enumerate(metrics):
        fifths = np.reshape(hits[10 * i : 10 * i + 10], (5, 2)).mean(1)
        np.testing.assert_allclose(found["online_accuracy_curve"], fifths, rtol=1e-5)
        assert float(found["online_loss_curve"].mean()) == pytest.approx(float(found["online_loss"]), rel=1e-4)
        assert float(found["online_loss"]) == pytest.approx(np.mean(losses[10 * i : 10 * i + 10]), rel=1e-4)
        assert float(found["online_accuracy"]) == pytest.approx(np.mean(hits[10 * i : 10 * i + 10]), rel=1e-4)


def test_online_plasticity_is_what_an_update_takes_off_the_loss_of_its_batch():
    """Every 4 steps are every 5 of ten: at 4 and 9; the optimizer is gradient descent, so that steps go by hand."""
    member = trainer(optax.sgd(0.1), plasticity_every=4)
    state = jax.jit(member.init)(KEY, arrays())
    after, found = jax.jit(member.run_segment)(state, arrays(), clock())
    params, gains = state.learner.variables.params, []

    @jax.jit
    def one(params, step):
        examples = stream().sample(for_step(KEY, Purpose.BATCH, step), state.source, arrays(), step)

        def loss(params):
            logits = network().apply(KEY, Variables(params, {}), examples["x"], True)[0].y
            return optax.softmax_cross_entropy_with_integer_labels(logits, examples["y"]).mean()

        before, gradients = jax.value_and_grad(loss)(params)
        new = jax.tree.map(lambda p, g: p - 0.1 * g, params, gradients)
        return new, jnp.clip(1 - loss(new) / before, 0.0, 1.0)

    for step in range(10):
        params, gain = one(params, jnp.int32(step))
        gains += [float(gain)] if step in (4, 9) else []
    assert float(found["online_plasticity"]) == pytest.approx(np.mean(gains), rel=1e-3) and min(gains) > 0
    never = trainer(optax.sgd(0.1), plasticity_every=0)
    assert np.isnan(jax.jit(never.run_segment)(state, arrays(), clock())[1]["online_plasticity"])
    assert_close(raw(jax.jit(never.run_segment)(state, arrays(), clock())[0]), raw(after))


@pytest.mark.slow
def test_weights_of_a_ragged_batch_count():
    net, tx = network(), optax.sgd(0.1)
    variables = net.init(KEY)
    full = batch(KEY, 4)
    padded = jax.tree.map(lambda a: jnp.concatenate([a, a[:2]]), full)
    padded["weight"] = padded["weight"].at[4:].set(0.0)
    learning, learner = learn(net, objective(), tx), Learner(variables, tx.init(variables.params))
    after = [
        learning.step(KEY, (), learner, Snapshot(clock(), variables, examples))[1].variables.params
        for examples in (full, padded)
    ]
    assert_close(*after, tolerance=1e-6)


def test_hooks_run_in_their_order_and_see_what_they_may():
    seen = {}

    def init(key, learner, snapshot):
        seen["init"] = snapshot.outputs.y.shape
        return {"count": jnp.int32(0)}, learner

    def loss(key, state, params, snapshot):
        assert snapshot.outputs is not None and snapshot.loss is not None and snapshot.gradients is None
        return 0.5 * tree.dot(params, params)

    def gradients(key, state, gradients, learner, snapshot):
        assert_same(gradients, snapshot.gradients)
        return jax.tree.map(lambda g: 2.0 * g, gradients)

    def update(key, state, learner, snapshot):
        assert snapshot.updates is not None and snapshot.interventions == ()
        moved = tree.subtract(learner.variables.params, seen["before"])
        seen["moved"], seen["updates"], seen["gradients"] = moved, snapshot.updates, snapshot.gradients
        return {"count": state["count"] + 1}, learner

    member = Intervention(init, loss, gradients, update)
    net, tx = network(), optax.sgd(0.1)
    variables = net.init(KEY)
    seen["before"] = variables.params
    examples = batch(KEY)
    learning, learner = learn(net, objective(), tx, member), Learner(variables, tx.init(variables.params))
    state, learner = member.init(
        KEY, learner, Snapshot(clock(), variables, examples, net.apply(KEY, variables, examples["x"], False)[0])
    )
    state, learner, _ = learning.step(KEY, state, learner, Snapshot(clock(), variables, examples))
    plain = learn(net, objective(), tx).gradient(
        KEY, (), learner._replace(variables=variables), Snapshot(clock(), variables, examples)
    )[0]
    assert int(state["count"]) == 1 and seen["init"] == (12, CLASSES)
    assert_close(seen["gradients"], jax.tree.map(jnp.add, plain.gradients, variables.params))  # + the penalty's
    assert_close(seen["updates"], tree.scale(-0.2, seen["gradients"]))  # after the gradients hook
    assert_close(seen["moved"], seen["updates"])


SPY = at_boundary(  # what a boundary hook sees
    Intervention(
        init=lambda key, learner, snapshot: ((learner.variables.params, snapshot.batch["y"]), learner),
        update=lambda key, state, learner, snapshot: ((learner.variables.params, snapshot.batch["y"]), learner),
    )
)


def test_boundary_hooks_act_between_tasks_on_the_new_task():
    member = trainer(intervention=chain(spy=SPY))
    state, _ = task(member, jax.jit(member.init)(KEY, arrays()))
    new = jax.jit(member.advance)(state, arrays(), clock(STEPS, 1, STEPS))
    params, labels = new.interventions["spy"]
    assert_same(params, state.learner.variables.params)
    first = stream().sample(for_step(KEY, Purpose.BATCH, STEPS), new.source, arrays(), jnp.int32(0))
    assert (labels == first["y"]).all()
    assert (new.source.change != state.source.change).any() and (new.source.rows == state.source.rows).all()


def test_task_sequence_and_initial_weights_do_not_depend_on_the_method():
    noisy = Intervention(update=lambda key, state, learner, snapshot: (state, learner._replace(
        variables=tree.axpy(0.01, tree.random_like(key, learner.variables), learner.variables))))  # fmt: skip
    states = []
    for intervention, optimizer in ((Intervention(), optax.adam(1e-2)), (chain(noise=noisy), optax.sgd(0.1))):
        member = trainer(optimizer, intervention)
        state = jax.jit(member.init)(KEY, arrays())
        trained, _ = task(member, state)
        states.append((state.initial, jax.jit(member.advance)(trained, arrays(), clock(STEPS, 1, STEPS)).source))
    assert_same(*states)


def test_a_diverged_run_goes_back_to_the_start_of_its_segment_and_stays_there():
    member = trainer(optax.sgd(1e30))
    state = jax.jit(member.init)(KEY, arrays())
    broken, metrics = task(member, state)
    assert bool(broken.diverged) and not np.isfinite(metrics[0]["online_loss"])
    assert_same(broken.learner, state.learner)
    assert np.isnan(metrics[1]["online_accuracy"]) and np.isnan(metrics[1]["online_loss"])
    next_task = jax.jit(member.advance)(broken, arrays(), clock(STEPS, 1, STEPS))
    assert_same(next_task.learner, state.learner)
    assert (next_task.source.change != state.source.change).any()  # its tasks go on


def test_a_run_that_diverged_before_reports_nothing():
    member = trainer()
    state = jax.jit(member.init)(KEY, arrays())._replace(diverged=jnp.array(True))
    after, metrics = jax.jit(member.run_segment)(state, arrays(), clock())
    assert_same(after.learner, state.learner)
    assert all(np.isnan(value).all() for value in metrics.values())  # though it would learn well if it were let


def incremental(new=1):
    """A stream with validation images, and so many new classes at every task."""
    settings = {"classes_per_task": new, "validation": 8, "augment": False, "steps": STEPS, "batch": 5}
    return STREAMS["class_incremental"](spec(), **settings)


def early(intervention=None, optimizer=None, new=1):
    return supervised(
        network(), objective(), incremental(new), optimizer or optax.adam(0.05), 2, intervention or Intervention(), True
    )


@pytest.mark.slow
def test_early_stopping_keeps_the_first_of_the_best_networks():
    member, data = early(), arrays()
    state = jax.jit(member.init)(KEY, data)
    state = jax.jit(member.advance)(state, data, clock(STEPS, 1, STEPS))  # two classes
    segment, scores, networks = jax.jit(member.run_segment), [], []
    images = incremental().evaluate(state.source, data, "validation")
    counted = int(images["weight"].sum())
    for first in range(STEPS, 2 * STEPS, 2):
        state, _ = segment(state, data, clock(first, 1, STEPS))
        networks.append(state.learner.variables)
        y = np.array(network().apply(KEY, networks[-1], images["x"], False)[0].y)
        y[:, ~np.asarray(images["classes"][0])] = -np.inf
        scores.append((y.argmax(1) == np.asarray(images["y"]))[:counted].mean())
    best = int(np.argmax(scores))  # the first of several
    assert best < len(scores) - 1 and float(state.best[0]) == pytest.approx(scores[best])
    finished = member.finish(state)
    assert_same(finished.learner.variables, networks[best])
    assert_same(finished.learner.opt_state, state.learner.opt_state)
    spied = early(chain(spy=SPY))
    state = state._replace(interventions={"spy": (state.learner.variables.params, images["y"][:5])})
    after = jax.jit(spied.advance)(state, data, clock(2 * STEPS, 2, 2 * STEPS))
    assert_same(after.interventions["spy"][0], networks[best].params)  # before the boundary hooks
    assert_same(after.learner.variables, networks[best])
    assert float(after.best[0]) == -1.0


def test_without_early_stopping_nothing_is_kept():
    member = trainer()
    state = jax.eval_shape(member.init, KEY, arrays())
    assert state.best == () and member.finish(state) is state


@pytest.mark.slow
def test_a_run_that_diverges_keeps_its_best_network():
    member, data = early(optimizer=optax.sgd(1e30)), arrays()
    advance = jax.jit(member.advance)
    state = advance(jax.jit(member.init)(KEY, data), data, clock(STEPS, 1, STEPS))  # of one class nothing is learned
    kept = (jnp.float32(0.7), state.initial)
    broken, _ = jax.jit(member.run_segment)(state._replace(best=kept), data, clock(STEPS, 1, STEPS))
    assert bool(broken.diverged)
    assert_same(broken.best, kept)
    after = advance(broken, data, clock(2 * STEPS, 2, 2 * STEPS))
    assert_same((after.learner, after.best), (state.learner, kept))


def test_early_stopping_without_validation_images_is_refused():
    with pytest.raises(ValueError, match=r"early_stopping=True.*no validation images, only train and test"):
        trainer(early_stopping=True)


def test_no_two_gradients_share_a_key():
    """The last step of a task, measuring, the boundary and the first step of the next one."""
    seen = []

    def loss(key, state, params, snapshot):
        jax.debug.callback(lambda data: seen.append(tuple(data.tolist())), jax.random.key_data(key))
        return 0.0

    member = trainer(intervention=Intervention(loss=loss), segment_steps=1)
    state = jax.jit(member.init)(KEY, arrays())
    state, _ = jax.jit(member.run_segment)(state, arrays(), clock(STEPS - 1))
    jax.block_until_ready(jax.jit(member.snapshot)(state, arrays(), clock(STEPS)).gradients)
    state = jax.jit(member.advance)(state, arrays(), clock(STEPS, 1, STEPS))
    jax.block_until_ready(jax.jit(member.run_segment)(state, arrays(), clock(STEPS, 1, STEPS)))
    jax.effects_barrier()
    assert len(seen) >= 3 and len(set(seen)) == len(seen)


def test_the_snapshot_is_of_the_whole_task_in_evaluation_mode():
    member = trainer()
    state = jax.jit(member.init)(KEY, arrays())
    snapshot = jax.jit(member.snapshot)(state, arrays(), clock(STEPS))
    assert snapshot.batch["x"].shape[0] == 18 and float(snapshot.batch["test"]["weight"].sum()) == 0
    expected = objective().loss(snapshot.outputs, snapshot.batch).mean()
    assert float(snapshot.loss) == pytest.approx(float(expected), rel=1e-5)
    updates, _ = optax.adam(1e-2).update(snapshot.gradients, state.learner.opt_state, state.learner.variables.params)
    assert_close(snapshot.updates, updates)


def test_accuracy_and_weighted_mean():
    scores, weight = jnp.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), jnp.array([1.0, 1.0, 0.0])
    assert float(accuracy(scores, {"y": jnp.array([0, 0, 0]), "weight": weight})) == 0.5
    assert np.isnan(accuracy(scores, {"y": jnp.array([0.0, 0.0, 0.0]), "weight": weight}))
    assert np.isnan(weighted_mean(jnp.ones(2), jnp.zeros(2)))


def test_a_class_that_does_not_exist_yet_cannot_win():
    scores, exist = jnp.array([[1.0, 5.0, 0.0], [-3.0, 5.0, -2.0]]), jnp.array([[True, False, True]] * 2)
    examples = {"y": jnp.array([0, 2]), "weight": jnp.ones(2)}
    assert float(accuracy(scores, examples)) == 0.0 and float(accuracy(scores, {**examples, "classes": exist})) == 1.0


@pytest.mark.slow
def test_the_best_network_is_what_is_measured():
    def make(settings, at_once):
        return Experiment(early(new=2), {"performance": DIAGNOSTICS["performance"](network(), objective(), 1.0)})

    programs, data = sweep.programs(make, sweep.runs_mesh(1, 1)), arrays()
    states = programs.init({}, for_seeds([0]), data)
    diagnostics = programs.begin({}, states, data)
    for first in range(0, STEPS, 2):
        states, _ = programs.run_segment({}, states, data, clock(first))
    best = jax.tree.map(lambda a: a[0] + 0.1, states.best[1])  # another network than the last one
    states = states._replace(best=(states.best[0], jax.tree.map(lambda a: a[None], best)))
    _, metrics = programs.measure({}, states, diagnostics, data, clock(STEPS), ("performance",))
    examples = incremental(2).evaluate(jax.tree.map(lambda a: a[0], states.source), data, "train")
    loss = np.asarray(objective().loss(network().apply(KEY, best, examples["x"], False)[0], examples))
    expected = loss[np.asarray(examples["weight"]) > 0].mean()
    assert float(metrics["final_loss"][0]) == pytest.approx(expected, rel=1e-4)
