"""Entropy and churn, and forgetting over tasks: on networks whose scores are written out by hand."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.base import Clock, Learner, Network, Objective, Outputs, Snapshot, Variables
from plasticity_jax.diagnostics import predictions
from plasticity_jax.diagnostics.forgetting import forgetting

# scores are the inputs plus a parameter; the "train" flag would show
NETWORK = Network(None, lambda key, variables, x, train: (Outputs(x + variables.params + 100.0 * train, {}, {}), {}))
OBJECTIVE = Objective(None, lambda outputs: outputs.y)


def _learner(params=0.0):
    return Learner(Variables(jnp.asarray(params), {}), ())


def _predictions(x, update, y=None, weight=None, **more):
    x = jnp.asarray(x, jnp.float32)
    y = jnp.zeros(len(x), jnp.int32) if y is None else y
    batch = {"x": x, "y": y, "weight": jnp.ones(len(x)) if weight is None else jnp.asarray(weight), **more}
    after = x + jnp.asarray(update)
    got = {name: getattr(predictions, name)(x, after, batch) for name in ("churn", "churn_distance")}
    got["prediction_entropy"] = predictions.entropy(x, batch)
    assert all(value.dtype == jnp.float32 for value in got.values())
    return {name: float(value) for name, value in got.items()}


def test_entropy_in_nats():
    uniform, certain = [0.0, 0.0, 0.0], [50.0, 0.0, 0.0]
    skewed = [np.log(2.0), 0.0, 0.0]  # p = 1/2, 1/4, 1/4
    for scores, expected in ((uniform, np.log(3)), (certain, 0.0), (skewed, 1.5 * np.log(2))):
        assert _predictions([scores], [0.0] * 3)["prediction_entropy"] == pytest.approx(expected, abs=1e-6)
    mixed = _predictions([uniform, certain, skewed], [0.0] * 3, weight=[1.0, 3.0, 0.0])
    assert mixed["prediction_entropy"] == pytest.approx(np.log(3) / 4)


def test_churn_is_what_one_update_changes():
    x = [[1.0, 0.0], [0.1, 0.0], [0.0, 1.0], [0.0, 0.4]]
    got = _predictions(x, [0.0, 0.5])
    assert got["churn"] == 0.25 and got["churn_distance"] == pytest.approx(0.25)  # the second input; half of the scores
    assert _predictions(x, [0.0, 0.5], weight=[1.0, 1.0, 0.0, 0.0])["churn"] == 0.5
    assert _predictions(x, [0.0, 0.0])["churn"] == 0.0


def test_classes_that_have_not_come_have_no_part():
    exist = {"classes": jnp.array([[True, True, False]])}
    got = _predictions([[0.0, 0.0, 9.0]], [0.0, 1.0, -20.0], **exist)
    assert got["prediction_entropy"] == pytest.approx(np.log(2)) and got["churn"] == 1.0  # the second one wins
    assert _predictions([[1.0, 0.0, 0.0]], [0.0, 0.0, 9.0], **exist)["churn"] == 0.0


def test_without_classes_only_the_distance_is_known():
    got = _predictions([[1.0, 0.0]], [0.0, 3.0], y=jnp.zeros((1, 2)))
    assert np.isnan(got["churn"]) and np.isnan(got["prediction_entropy"]) and got["churn_distance"] == 1.5
    broken = _predictions([[np.nan, 0.0], [1.0, 0.0]], [0.0, 3.0])
    assert np.isnan(list(broken.values())).all()


TASKS = jnp.array([0, 0, 1, 1, 2, 2], jnp.int32)


def _stream_of(accuracies, tasks=range(3)):
    """Measurements after which [G] of two inputs of each task are right, in these tasks."""
    diagnostic = forgetting(NETWORK, OBJECTIVE, SimpleNamespace(tasks=3), 1.0)
    apply = jax.jit(diagnostic.apply)
    state, found = None, []
    for task, wanted in zip(tasks, accuracies, strict=True):
        right = np.concatenate([[share > 0.25, share > 0.75] for share in wanted])
        x = np.where(right[:, None], [1.0, 0.0], [0.0, 1.0])
        weight = np.repeat(np.isfinite(wanted), 2).astype(np.float32)
        test = {"x": jnp.asarray(x, jnp.float32), "y": jnp.zeros(6, jnp.int32), "weight": jnp.asarray(weight)}
        snapshot = Snapshot(Clock(jnp.int32(0), jnp.int32(task), jnp.int32(0)), None, {"test": {**test, "task": TASKS}})
        state = state or diagnostic.init(None, _learner(), snapshot)
        state, metrics = apply(None, state, _learner(), snapshot)
        found.append({name: np.asarray(value) for name, value in metrics.items()})
    return found


def test_forgetting_and_backward_transfer():
    nan = np.nan
    first, second, third = _stream_of([[0.5, nan, nan], [1.0, 1.0, nan], [0.0, 0.5, 1.0]])
    np.testing.assert_array_equal(third["accuracy_by_task"], [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(first["accuracy_by_task"], [0.5, nan, nan])
    assert np.isnan(first["forgetting"]) and np.isnan(first["backward_transfer"])
    assert (second["forgetting"], second["backward_transfer"]) == (-0.5, 0.5)  # the first task has become better
    # best before: 1, 1; right after learning: 0.5, 1; now: 0, 0.5
    assert (third["forgetting"], third["backward_transfer"]) == (0.75, -0.5)


def test_forgetting_does_not_count_what_was_right_before_it_was_learned():
    _, second, third = _stream_of([[1.0, 1.0, 1.0], [1.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
    assert second["forgetting"] == 0.0
    assert (third["forgetting"], third["backward_transfer"]) == (0.0, 0.0)  # the second task's best is 0.5


def test_what_a_task_comes_to_counts_where_it_is_measured_inside_tasks_too():
    _, _, third = _stream_of([[0.5, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 1.0, 0.0]], tasks=(0, 0, 1))
    assert (third["forgetting"], third["backward_transfer"]) == (0.5, -0.5)
    nan = np.nan  # a first task that has no test inputs now
    *_, third = _stream_of([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [nan, 0.5, 1.0]])
    assert (third["forgetting"], third["backward_transfer"]) == (0.5, -0.5)


def test_a_stream_without_tasks_of_inputs_is_refused():
    diagnostic = forgetting(NETWORK, OBJECTIVE, SimpleNamespace(tasks=3), 1.0)
    with pytest.raises(ValueError, match="do not say to which task they belong; class_incremental's do"):
        diagnostic.init(None, None, Snapshot(None, None, {"test": {"x": jnp.zeros((1, 2))}}))


def test_the_number_of_groups_is_a_setting():
    horizon = SimpleNamespace(tasks=3)
    assert forgetting(NETWORK, OBJECTIVE, horizon, 1.0, groups=5).dims["accuracy_by_task"] == {"group": range(5)}
    with pytest.raises(ValueError, match=r"forgetting\.groups"):
        forgetting(NETWORK, OBJECTIVE, horizon, 1.0, groups=-1)
