import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from records import assert_close, clock

from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES, Horizon, scheduled

HORIZON = Horizon(3, lambda task: 100)


def test_adam_is_the_formula_with_both_epsilons():
    """Lyle et al. 2023, eq. 6: u = lr m / (sqrt(v + eps_root) + eps)."""
    lr, b1, b2, eps, eps_root = 0.1, 0.9, 0.9, 1e-2, 1e-3
    tx = OPTIMIZERS["adam"](lr, b1, b2, eps, eps_root)
    p, m, v = np.array([1.0, -2.0]), 0.0, 0.0
    params, state = jnp.asarray(p, jnp.float32), tx.init(jnp.asarray(p, jnp.float32))
    for t in range(1, 6):
        g = np.sin(3 * p)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
        updates, state = tx.update(jnp.sin(3 * params), state, params)
        params = optax.apply_updates(params, updates)
    np.testing.assert_allclose(params, p, rtol=1e-5)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (OPTIMIZERS["adam"](1e-2, 0.8, 0.99, 1e-4, 1e-5), optax.adam(1e-2, 0.8, 0.99, 1e-4, 1e-5)),
        (OPTIMIZERS["adamw"](1e-2, weight_decay=0.1), optax.adamw(1e-2, weight_decay=0.1)),
        (OPTIMIZERS["sgd"](0.1), optax.chain(optax.add_decayed_weights(0.0), optax.sgd(0.1))),
        (
            OPTIMIZERS["momentum"](0.1, 0.8, True, 0.3),
            optax.chain(optax.add_decayed_weights(0.3), optax.sgd(0.1, 0.8, True)),
        ),
        (OPTIMIZERS["rmsprop"](1e-2, 0.8, centered=True), optax.rmsprop(1e-2, 0.8, centered=True, momentum=0.0)),
    ],
)
def test_optimizers_are_those_of_optax(ours, theirs):
    """Updates and states: ours run on vectors, and Adam divides less, which must not show."""
    params = {"w": jax.random.normal(jax.random.key(0), (5, 3)), "b": jnp.zeros(3), "s": jnp.ones(())}
    states = [tx.init(params) for tx in (ours, theirs)]
    for i in range(5):
        gradients = jax.tree.map(lambda p, i=i: jnp.cos(3 * p + i), params)
        (a, states[0]), (b, states[1]) = (
            tx.update(gradients, state, params) for tx, state in zip((ours, theirs), states, strict=True)
        )
        assert_close(a, b, 1e-6)
        assert_close(states[0], states[1], 1e-6)
        params = optax.apply_updates(params, b)


def test_adamw_decays_by_rate_times_decay():
    tx = OPTIMIZERS["adamw"](0.1, weight_decay=0.5)
    params = jnp.array([2.0])
    updates, _ = tx.update(jnp.zeros(1), tx.init(params), params)
    assert float(updates[0]) == pytest.approx(-0.1 * 0.5 * 2.0)


def test_weight_decay_is_added_to_the_gradient_before_the_momentum():
    tx, p, g, trace = OPTIMIZERS["momentum"](0.1, 0.9, weight_decay=0.5), 2.0, 1.0, 0.0
    params, state = jnp.array([p]), tx.init(jnp.array([p]))
    for _ in range(3):
        trace = 0.9 * trace + g + 0.5 * p
        p -= 0.1 * trace
        updates, state = tx.update(jnp.array([g]), state, params)
        params = params + updates
    assert float(params[0]) == pytest.approx(p)
    updates, _ = OPTIMIZERS["sgd"](0.1, weight_decay=0.5).update(jnp.array([1.0]), state, jnp.array([2.0]))
    assert float(updates[0]) == pytest.approx(-0.2)


def progress(factor, steps, task=0, start=0):
    return [float(factor(clock(start + i, task, start))) for i in range(steps)]


def test_cosine_restarts_with_the_task_or_spans_the_run():
    task = SCHEDULES["cosine"](HORIZON)
    expected = [0.5 * (1 + np.cos(np.pi * i / 100)) for i in range(100)]
    np.testing.assert_allclose(progress(task, 100), expected, atol=1e-6)
    np.testing.assert_allclose(progress(task, 100, 2, 200), expected, atol=1e-6)
    run = SCHEDULES["cosine"](HORIZON, span="run", final=0.1)
    expected = [0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * i / 300)) for i in range(300)]
    np.testing.assert_allclose(progress(run, 300), expected, atol=1e-6)


def test_step_decays_at_its_milestones_and_warm_up_rises():
    factor = SCHEDULES["step"](HORIZON, milestones=(0.5, 0.8), decay=0.1, warmup=0.1)
    values = np.array(progress(factor, 100))
    np.testing.assert_allclose(values[:10], (np.arange(10) + 1) / 10, rtol=1e-5)
    np.testing.assert_allclose(values[10:50], 1.0, rtol=1e-6)
    np.testing.assert_allclose(values[50:80], 0.1, rtol=1e-5)
    np.testing.assert_allclose(values[80:], 0.01, rtol=1e-5)


def test_tasks_of_unequal_length():
    factor = SCHEDULES["cosine"](Horizon(2, lambda task: (10, 40)[task]))
    assert float(factor(clock(5, 0, 0))) == pytest.approx(0.5)
    assert float(factor(clock(10 + 20, 1, 10))) == pytest.approx(0.5, abs=1e-6)


def test_constant_leaves_the_optimizer_alone():
    tx = OPTIMIZERS["sgd"]()
    assert SCHEDULES["constant"](HORIZON) is None and scheduled(tx, None) is tx


def test_a_schedule_scales_the_update_and_needs_the_clock():
    tx = scheduled(OPTIMIZERS["sgd"](0.5), SCHEDULES["cosine"](HORIZON))
    params = {"w": jnp.ones(2)}
    updates, _ = tx.update(params, tx.init(params), params, clock=clock(50, 0, 0))
    np.testing.assert_allclose(updates["w"], -0.25, rtol=1e-6)
    with pytest.raises(ValueError, match="needs the clock"):
        tx.update(params, tx.init(params), params)


def test_the_final_factor_may_be_traced():
    value = jax.jit(lambda final: SCHEDULES["cosine"](HORIZON, final=final)(clock(50)))(0.5)
    assert float(value) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: OPTIMIZERS["adam"](b2=1.5), "b2=1.5"),
        (lambda: OPTIMIZERS["adam"](eps_root=-1e-3), "eps_root=-0.001"),
        (lambda: OPTIMIZERS["adamw"](weight_decay=-1.0), "weight_decay=-1.0"),
        (lambda: OPTIMIZERS["momentum"](momentum=2.0), "momentum=2.0"),
        (lambda: OPTIMIZERS["sgd"](float("nan")), "learning_rate=nan"),
        (lambda: SCHEDULES["cosine"](HORIZON, span="epoch"), "span='epoch'"),
        (lambda: SCHEDULES["constant"](HORIZON, warmup=1.5), "warmup=1.5"),
        (lambda: SCHEDULES["step"](HORIZON, milestones=(2.0,)), "milestones=2.0"),
    ],
)
def test_bad_settings_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
