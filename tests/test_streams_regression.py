"""Slowly-Changing Regression, against a loop over units and bits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_streams import KEY, assert_uniform, tasks

from plasticity_jax.build import build, spec_of
from plasticity_jax.host.data import load
from plasticity_jax.streams.slowly_changing_regression import slowly_changing_regression

SMALL = {"steps": 8, "batch": 5, "inputs": 7, "slow": 4, "units": 50}


def by_hand(state, x, beta):
    """The target network, unit by unit."""
    weights, biases = np.asarray(state.weights), np.asarray(state.biases)
    total = float(state.offset)
    for unit in range(len(biases)):
        negative = sum(w == -1 for w in weights[:, unit]) + biases[unit] / 2
        threshold = beta * (len(x) + 1) - negative
        total += float(state.readout[unit]) * (sum(weights[:, unit] * x) + biases[unit] > threshold)
    return total


def test_targets_are_those_of_the_fixed_network():
    stream = slowly_changing_regression(**SMALL)
    states = tasks(stream, 3, None)
    assert stream.outputs == 1 and stream.input_shape == (7,)
    for leaf in (states[0].weights, states[0].biases, states[0].readout, states[0].offset):
        assert set(np.unique(leaf)) <= {-1, 1}
    seen = set()
    for state in states:
        batch = stream.evaluate(state, None, "train")
        assert batch["y"].shape == (8, 1) and batch["weight"].tolist() == [1] * 8
        for x, y in zip(np.asarray(batch["x"]), np.asarray(batch["y"])[:, 0], strict=True):
            assert y == by_hand(state, x, 0.7)
        assert {tuple(x[4:]) for x in np.asarray(batch["x"])} == set(itertools.product((0, 1), repeat=3))
        seen |= set(np.asarray(batch["y"])[:, 0])
        assert all((a == b).all() for a, b in zip(state[2:], states[0][2:], strict=True))
        assert stream.evaluate(state, None, "test")["weight"].sum() == 0
    assert len(seen) > 3


@pytest.mark.parametrize("change", ["flip", "redraw"])
def test_what_a_new_task_does_to_the_slow_bits(change):
    stream = slowly_changing_regression(**{**SMALL, "inputs": 20, "slow": 15, "change": change})
    slow = np.stack([state.slow for state in tasks(stream, 200, None)])
    assert set(np.unique(slow)) == {0, 1}
    changed = np.abs(np.diff(slow, axis=0)).sum(1)
    if change == "flip":
        assert (changed == 1).all()
        places = np.abs(np.diff(slow, axis=0)).argmax(1)
        assert_uniform(places, 15)
        assert set(places) == set(range(15))
    else:
        assert abs(changed.mean() - 7.5) < 5 * np.sqrt(15 / 4 / 199)
        assert abs(slow.mean() - 0.5) < 5 * 0.5 / np.sqrt(slow.size)


def test_fast_bits_are_uniform_and_slow_ones_stay():
    stream = slowly_changing_regression(**SMALL)
    state = tasks(stream, 2, None)[1]
    batches = jax.jit(jax.vmap(lambda step: stream.sample(KEY, state, None, step)))(jnp.arange(1_000))
    x = np.asarray(batches["x"]).reshape(-1, 7)
    assert (x[:, :4] == np.asarray(state.slow)).all()
    assert_uniform((x[:, 4:] @ [1, 2, 4]).astype(int), 8)
    assert batches["y"][3, 2, 0] == by_hand(state, np.asarray(batches["x"])[3, 2], 0.7)


def test_some_inputs_are_evaluated_where_all_are_too_many():
    stream = slowly_changing_regression(**{**SMALL, "inputs": 24}, evaluation=100)
    x = np.asarray(stream.evaluate(tasks(stream, 1, None)[0], None, "train")["x"])
    assert len({tuple(row) for row in x}) == len(x) == 100
    assert (np.abs(x[:, 4:].mean(0) - 0.5) < 0.25).all()  # 5 standard deviations


def test_it_needs_no_data():
    found = load("none")
    config = {"stream": {"name": "slowly_changing_regression", "steps": 20}, "head": {"name": "linear"}, "tasks": 2}
    plan = build(config, spec_of(found.arrays, found.classes))
    state = plan.make({}).trainer.init(KEY, found.arrays)
    params = state.learner.variables.params
    assert params["fc0"]["kernel"].shape == (20, 100) and params["head"]["kernel"].shape == (100, 1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"slow": 7}, "slow=7 of inputs=7 leaves 0 fast bits"),
        ({"slow": 0}, "slow=0"),
        ({"inputs": 40}, "leaves 36 fast bits"),
        ({"change": "flipp"}, "Did you mean 'flip'"),
        ({"batch": 0}, "batch=0"),
        ({"units": 0}, "units=0"),
        ({"beta": float("nan")}, "beta=nan"),
        ({"steps": 0}, "steps=0"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        slowly_changing_regression(**{**SMALL, **settings})
