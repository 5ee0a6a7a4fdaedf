"""Several changes at once: what each would do alone, one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records import arrays, spec
from test_streams import KEY, evaluated, tasks

from plasticity_jax.build import build
from plasticity_jax.streams.composite import CHANGES, composite
from plasticity_jax.streams.input_drift import KINDS

CONTRAST = {"name": "drift", "kind": "contrast", "growth": 0.3}
ALL = {
    "a_drift": CONTRAST,
    "labels": {"name": "draw_labels", "fraction": 0.5},
    "names": {"name": "permute_labels"},
    "permute_pixels": {},
    "targets": {"values": 0, "offset": 2.0, "growth": 1.0},
}


def made(changes, **settings):
    return composite(spec(), changes, **{"steps": 8, "batch": 5, "images": 18, **settings})


def test_changes_follow_one_another_in_the_order_of_their_names():
    data, stream = arrays(), made(dict(reversed(ALL.items())))
    assert stream.outputs == 3
    for task, state in enumerate(tasks(stream, 3, data)):
        batch, parts = evaluated(stream, state, data), state.change
        x = np.asarray(data["train"]["x"])[np.asarray(state.rows)] / np.float32(255)
        x = np.asarray(KINDS["contrast"](x, 0.3 * task, None, None))
        x = x.reshape(18, -1)[:, np.asarray(parts["permute_pixels"])].reshape(x.shape)
        labels = np.asarray(parts["names"])[np.asarray(parts["labels"])]
        np.testing.assert_allclose(batch["x"], x, atol=1e-6)
        np.testing.assert_allclose(batch["y"], 2 + task + np.eye(3)[labels])
        assert stream.evaluate(state, data, "test")["weight"].sum() == 0  # labels are drawn by image


def test_each_change_draws_the_same_whichever_others_there_are():
    every = tasks(made(ALL), 3, arrays())
    for name, block in ALL.items():
        alone = tasks(made({name: block}), 3, arrays())
        for a, b in zip(alone, every, strict=True):
            for x, y in zip(jax.tree.leaves(a.change[name]), jax.tree.leaves(b.change[name]), strict=True):
                assert (x == y).all()
    twins = tasks(made({"a": {"name": "permute_pixels"}, "b": {"name": "permute_pixels"}}), 1, arrays())[0].change
    assert (twins["a"] != twins["b"]).any()  # and two of a kind draw for themselves


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_can_stand_alone(name):
    data, stream = arrays(), made({name: {}})
    for state in tasks(stream, 2, data):
        batch = stream.sample(KEY, state, data, jnp.int32(3))
        assert batch["x"].shape == (5, 4, 4, 1) and batch["y"].shape[0] == 5


def test_a_float_that_is_given_may_be_an_axis_of_the_grid():
    config = {
        "stream": {"name": "composite", "changes": {"drift": {"kind": "contrast", "growth": 0.1}}, "images": 18},
        "grid": (("stream.changes.drift.growth", (0.1, 0.2)),),
        "seeds": 1,
    }
    plan = build(config, spec())
    np.testing.assert_allclose(plan.settings["stream.changes.drift.growth"], [0.1, 0.2])
    config["grid"] = (("stream.changes.drift.growth", (0.1, -0.2)),)
    with pytest.raises(ValueError, match=r"growth=-0\.2"):
        build(config, spec())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "changes is empty"),
        ({"drifft": {}}, "changes.drifft.name='drifft' is unknown. Did you mean 'drift'"),
        ({"drift": {"growht": 0.1}}, "changes.drift.growht is not a setting. Did you mean 'growth'"),
        ({"drift": 0.1}, "changes.drift=0.1, but it must be a block"),
        ({"drift": {"growth": -0.1}}, "growth=-0.1"),
        ({"l": {"name": "draw_labels", "transition": 9}}, "transition=9, but a task has 8 steps"),
        ({"a": {"name": "targets"}, "b": {"name": "draw_labels"}}, "changes.a makes values.*after 'b'"),
        ({"drift": {"inside": "no"}}, "changes.drift.inside='no', but it must be of type bool"),
        ({"drift": {"steps": 3}}, "changes.drift.steps is not a setting"),
    ],
)
def test_bad_changes_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        made(changes)
