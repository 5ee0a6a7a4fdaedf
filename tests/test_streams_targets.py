"""Targets with an offset, against their formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records import arrays, spec
from test_streams import KEY, evaluated, tasks

from plasticity_jax.base import Outputs
from plasticity_jax.networks import HEADS
from plasticity_jax.streams.target_offset import target_offset


def test_targets_are_the_offset_plus_new_normal_numbers():
    data = arrays(400)
    stream = target_offset(spec(400), 8, 5, 400, values=3, offset=20.0, growth=5.0, scale=2.0)
    states = tasks(stream, 3, data)
    assert stream.outputs == 3
    for task, state in enumerate(states):
        batch = evaluated(stream, state, data)
        rest = np.asarray(batch["y"]) - (20 + 5 * task)
        np.testing.assert_allclose(rest, 2 * np.asarray(state.change.noise), atol=1e-5)
        assert batch["y"].shape == (400, 3) and batch["y"].dtype == jnp.float32
        assert abs(rest.mean()) < 5 * 2 / np.sqrt(1200) and abs(rest.std() - 2) < 5 * 2 / np.sqrt(2400)
        assert stream.evaluate(state, data, "test")["weight"].sum() == 0
    a, b = (np.asarray(state.change.noise).ravel() for state in states[:2])
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(1200)


def test_an_image_keeps_its_target_for_the_task():
    data, stream = arrays(), target_offset(spec(), 40, 5, 18)
    state = tasks(stream, 2, data)[1]
    images = np.asarray(data["train"]["x"])[np.asarray(state.rows)]
    target = {image.tobytes(): value for image, value in zip(images, 10 + np.asarray(state.change.noise), strict=True)}
    for step in (0, 7):
        batch = stream.sample(KEY, state, data, jnp.int32(step))
        drawn = np.asarray(batch["x"] * 255).round().astype(np.uint8)
        np.testing.assert_allclose(batch["y"], [target[image.tobytes()] for image in drawn], rtol=1e-6)


def test_labels_in_the_place_of_noise():
    data, stream = arrays(), target_offset(spec(), 8, 5, 0, values=0, offset=1.0, growth=3.0, scale=0.5)
    state = tasks(stream, 3, data)[2]
    assert stream.outputs == 3
    for split in ("train", "test"):
        batch = evaluated(stream, state, data, split)
        np.testing.assert_allclose(batch["y"], 7 + 0.5 * np.eye(3)[np.asarray(data[split]["y"])])
        assert batch["weight"].min() == 1


def test_the_head_of_regression_fits_them():
    data, stream = arrays(), target_offset(spec(), 8, 5, 18, values=2)
    batch = stream.evaluate(stream.init(KEY, data), data, "train")
    head = HEADS["linear"]({**spec(), "classes": stream.outputs})
    assert head.outputs == 2
    loss = head.objective.loss(Outputs(jnp.zeros((18, 2)), {}, {}), batch)
    np.testing.assert_allclose(loss, (np.asarray(batch["y"]) ** 2).mean(1), rtol=1e-5)


def test_the_head_of_classes_refuses_them():
    data, stream = arrays(), target_offset(spec(), 8, 5, 18, values=2)
    batch = stream.evaluate(stream.init(KEY, data), data, "train")
    with pytest.raises(ValueError, match=r"real-valued targets.*use head linear"):
        HEADS["softmax"](spec()).objective.loss(Outputs(jnp.zeros((18, 2)), {}, {}), batch)


def test_rates_may_be_traced():
    def targets(growth):
        stream = target_offset(spec(), 8, 5, 18, growth=growth)
        return stream.evaluate(tasks(stream, 2, arrays())[1], arrays(), "train")["y"]

    np.testing.assert_allclose(targets(2.0), jax.jit(targets)(2.0), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"values": -1}, "values=-1"),
        ({"growth": -1.0}, "growth=-1.0"),
        ({"scale": 0.0}, "scale=0.0"),
        ({"offset": float("inf")}, "offset=inf"),
        ({"images": 61}, "60 training images"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        target_offset(spec(), **{"steps": 8, "batch": 5, "images": 18, **settings})
