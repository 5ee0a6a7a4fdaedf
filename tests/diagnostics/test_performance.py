import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.base import Clock, Learner, Network, Objective, Outputs, Snapshot
from plasticity_jax.diagnostics.performance import performance
from plasticity_jax.learn import accuracy, weighted_mean

# the scores of an example are its inputs plus a parameter; the "train" flag and the key would show if they were misused
NETWORK = Network(None, lambda key, variables, x, train: (Outputs(x + variables + 100.0 * train, {}, {}), {}))
OBJECTIVE = Objective(lambda outputs, batch: outputs.y[:, 0] - batch["y"], lambda outputs: outputs.y)
MEASURE = jax.jit(performance(NETWORK, OBJECTIVE).apply)


def _measure(batch, shift=(0.0, 0.0)):
    shift = jnp.asarray(shift)
    outputs, _ = NETWORK.apply(None, jnp.zeros(2), batch["x"], False)
    snapshot = Snapshot(Clock(0, 0, 0), None, batch, outputs)
    _, got = MEASURE(jax.random.key(0), (), Learner(shift, ()), snapshot)
    assert all(value.shape == () and value.dtype == jnp.float32 for value in got.values())
    return {name: float(value) for name, value in got.items()}


def _batch(x, y, weight):
    return {"x": jnp.asarray(x, jnp.float32), "y": jnp.asarray(y), "weight": jnp.asarray(weight, jnp.float32)}


TRAIN = _batch([[1, 0], [0, 1], [5, 0], [0, 2]], [0, 0, 1, 1], [1, 1, 2, 0])  # right, wrong, wrong, right


def test_weighted_accuracy_and_loss():
    got = _measure(TRAIN)
    assert got["final_accuracy"] == 0.25
    assert got["final_loss"] == pytest.approx((1 * 1 + 1 * 0 + 2 * 4) / 4)


def test_without_a_test_set_its_accuracy_is_not_a_number():
    assert np.isnan(_measure(TRAIN)["test_accuracy"])
    empty = _batch([[1, 0], [0, 1]], [0, 0], [0, 0])
    got = _measure({**TRAIN, "test": empty})
    assert np.isnan(got["test_accuracy"]) and got["final_accuracy"] == 0.25


def test_test_accuracy_evaluates_the_network_on_the_test_inputs():
    test = _batch([[1, 0], [0, 1], [0, 3], [5, 0]], [0, 0, 0, 1], [1, 1, 1, 1])
    assert _measure({**TRAIN, "test": test})["test_accuracy"] == 0.25
    assert _measure({**TRAIN, "test": test}, shift=(2.0, 0.0))["test_accuracy"] == 0.5  # the learner's own variables
    assert _measure({**TRAIN, "test": {**test, "weight": jnp.array([1.0, 0, 0, 0])}})["test_accuracy"] == 1.0


def test_evaluation_mode():
    seen = []

    def spy(key, variables, x, train):
        seen.append(train)
        return NETWORK.apply(key, variables, x, train)

    snapshot = Snapshot(Clock(0, 0, 0), None, {**TRAIN, "test": TRAIN}, NETWORK.apply(None, 0.0, TRAIN["x"], False)[0])
    performance(NETWORK._replace(apply=spy), OBJECTIVE).apply(
        jax.random.key(0), (), Learner(jnp.zeros(2), ()), snapshot
    )
    assert seen == [False]


def test_regression_has_a_loss_and_no_accuracy():
    batch = {**TRAIN, "y": jnp.array([0.0, 0.0, 1.0, 1.0])}
    got = _measure({**batch, "test": batch})
    assert np.isnan(got["final_accuracy"]) and np.isnan(got["test_accuracy"])
    assert got["final_loss"] == pytest.approx(2.25)


def test_nan_counts_where_the_example_does():
    x = TRAIN["x"].at[3].set(jnp.nan)
    assert _measure({**TRAIN, "x": x})["final_accuracy"] == 0.25
    assert _measure({**TRAIN, "x": x})["final_loss"] == pytest.approx(2.25)
    got = _measure({**TRAIN, "x": TRAIN["x"].at[0].set(jnp.nan)})
    assert np.isnan(got["final_accuracy"]) and np.isnan(got["final_loss"])


def test_labels_with_positions_are_averaged_within_an_example():
    scores = jax.nn.one_hot(jnp.array([[0, 1], [1, 1]]), 2)
    batch = {"y": jnp.array([[0, 0], [1, 1]]), "weight": jnp.array([1.0, 3.0])}
    assert float(accuracy(scores, batch)) == pytest.approx((0.5 + 3.0) / 4)
    assert float(weighted_mean(jnp.array([[1.0, 3.0], [4.0, 4.0]]), jnp.ones(2))) == 3.0
