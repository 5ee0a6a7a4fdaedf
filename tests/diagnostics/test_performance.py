import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.base import Clock, Learner, Network, Objective, Outputs, Snapshot
from plasticity_jax.diagnostics.performance import explained_variance, performance
from plasticity_jax.learn import accuracy, weighted_mean

# the scores of an example are its inputs plus a parameter; the "train" flag and the key would show if they were misused
NETWORK = Network(None, lambda key, variables, x, train: (Outputs(x + variables + 100.0 * train, {}, {}), {}))
OBJECTIVE = Objective(lambda outputs, batch: outputs.y[:, 0] - batch["y"], lambda outputs: outputs.y)
MEASURE = jax.jit(performance(NETWORK, OBJECTIVE, 1.0).apply)


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
    performance(NETWORK._replace(apply=spy), OBJECTIVE, 1.0).apply(
        jax.random.key(0), (), Learner(jnp.zeros(2), ()), snapshot
    )
    assert set(seen) == {False}


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


def test_explained_variance_is_the_formula_over_all_outputs_and_weights():
    draw = np.random.default_rng(0)
    y, f, w = draw.normal(100, 3, (9, 4)), draw.normal(100, 3, (9, 4)), np.array([1, 1, 1, 2, 2, 0.5, 1, 3, 0])
    y[8] = np.nan  # of weight 0
    middle = sum(w[b] * y[b] for b in range(8)) / w.sum()
    error = sum(w[b] * ((y[b] - f[b]) ** 2).sum() for b in range(8))
    total = sum(w[b] * ((y[b] - middle) ** 2).sum() for b in range(8))
    batch = _batch(f, y.astype(np.float32), w)
    assert float(explained_variance(batch["x"], batch)) == pytest.approx(1 - error / total, rel=1e-4)
    assert float(explained_variance(batch["y"], batch)) == 1.0
    assert abs(float(explained_variance(jnp.asarray(middle, jnp.float32) + jnp.zeros((9, 4)), batch))) < 1e-5


def test_explained_variance_of_what_has_none_is_not_a_number():
    y = np.array([[1.0], [2.0]], np.float32)
    for f, target, weight in (
        (y, np.array([0, 1]), (1, 1)),  # labels
        (np.ones((2, 3)), y, (1, 1)),  # scores of another shape
        (y, np.ones((2, 1), np.float32), (1, 1)),  # a constant
        (y, y, (0, 0)),
    ):
        assert np.isnan(explained_variance(jnp.asarray(f), _batch(f, target, weight)))
    assert (
        _measure(_batch([[1, 2], [3, 5]], np.array([[1, 2], [3, 4]], np.float32), [1, 1]))["explained_variance"] == 0.75
    )
    assert np.isnan(_measure(TRAIN)["explained_variance"])
