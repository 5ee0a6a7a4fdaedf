"""Drifting inputs, against formulas and scipy's rotation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from records import SIDE, arrays, spec
from test_streams import KEY, evaluated, tasks

from plasticity_jax.streams.input_drift import KINDS, input_drift


def plain(images):
    return np.asarray(images, np.float32) / 255


def shown(stream, state, data, split="train"):
    return np.asarray(evaluated(stream, state, data, split)["x"])


def by_noise(x, severity, noise, index):
    cut = [noise[i : i + x[0].size].reshape(x[0].shape) for i in index]
    return x + severity * np.stack(cut)


def by_contrast(x, severity, noise, index):
    middle = x.mean((1, 2), keepdims=True)
    return middle + math.exp(-severity) * (x - middle)


def by_rotation(x, severity, noise, index):
    turn = functools.partial(scipy.ndimage.rotate, angle=math.degrees(severity), reshape=False, order=1, mode="nearest")
    return np.stack([np.stack([turn(image[..., c]) for c in range(image.shape[-1])], -1) for image in x])


STATEMENTS = {"noise": by_noise, "contrast": by_contrast, "rotation": by_rotation}


@pytest.mark.parametrize("kind", KINDS)
class TestInputDrift:
    def test_each_task_is_as_far_away_as_the_formula_says(self, kind):
        data, stream = arrays(), input_drift(spec(), 12, 5, kind=kind, severity=0.1, growth=0.25)
        for task, state in enumerate(tasks(stream, 3, data)):
            for split in ("train", "test"):
                x, count = plain(data[split]["x"]), len(data[split]["y"])
                want = STATEMENTS[kind](x, 0.1 + 0.25 * task, np.asarray(state.change.noise), range(count))
                np.testing.assert_allclose(shown(stream, state, data, split), want, atol=1e-5)
                assert (evaluated(stream, state, data, split)["y"] == data[split]["y"]).all()

    def test_inside_a_task_nothing_jumps(self, kind):
        data, stream = arrays(), input_drift(spec(), 12, 5, 5, kind, severity=0.1, growth=0.25, inside=True)
        first, second = tasks(stream, 2, data)
        images, noise = plain(data["train"]["x"])[np.asarray(first.rows)], np.asarray(first.change.noise)
        for state, begins in ((first, 0.1), (second, 0.35)):
            for step in (0, 3, 11):
                batch = stream.sample(KEY, state, data, jnp.int32(step))
                want = STATEMENTS[kind](images, begins + 0.25 * step / 12, noise, range(5))
                found = np.abs(np.asarray(batch["x"])[:, None] - want[None]).max((2, 3, 4)).min(1)  # batches shuffle
                assert (found < 1e-5).all()
        want = STATEMENTS[kind](images, 0.35, noise, range(5))
        np.testing.assert_allclose(shown(stream, first, data), want, atol=1e-5)  # at the end of the task

    def test_severity_0_shows_the_images_themselves(self, kind):
        data, stream = arrays(), input_drift(spec(), 12, 5, kind=kind, growth=0.0)
        state = tasks(stream, 2, data)[1]
        np.testing.assert_allclose(shown(stream, state, data), plain(data["train"]["x"]), atol=1e-6)

    def test_rates_may_be_traced(self, kind):
        def third(growth):
            stream = input_drift(spec(), 12, 5, kind=kind, growth=growth)
            return stream.evaluate(tasks(stream, 3, arrays())[2], arrays(), "train")["x"]

        plainly, traced = third(0.2), jax.jit(third)(0.2)
        np.testing.assert_allclose(plainly, traced, atol=1e-5)


def test_rotation_of_colours_on_a_rectangle_and_by_right_angles():
    x = np.random.default_rng(1).uniform(size=(2, 3, 5, 2)).astype(np.float32)
    np.testing.assert_allclose(KINDS["rotation"](x, 0.4, None, None), by_rotation(x, 0.4, None, None), atol=1e-5)
    square = x[:, :, :3]
    turned = np.rot90(square, axes=(1, 2))
    np.testing.assert_allclose(KINDS["rotation"](square, math.pi / 2, None, None), turned, atol=1e-5)


def test_noise_is_white_the_same_in_every_task_and_another_in_every_run():
    data, stream = arrays(400), input_drift(spec(400), 12, 5, kind="noise", severity=1.0, growth=0.0)
    first, second = tasks(stream, 2, data)
    assert (first.change.noise == second.change.noise).all()
    assert (first.change.noise != stream.init(jax.random.key(8), data).change.noise).any()
    noise = (shown(stream, first, data) - plain(data["train"]["x"])).reshape(400, SIDE * SIDE)
    assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.1
    between = np.corrcoef(noise)[np.triu_indices(400, 1)]
    assert abs(between.std() - 1 / 4) < 0.02  # 1 / sqrt(pixels), as for independent noise


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "rotate"}, "Did you mean 'rotation'"),
        ({"growth": -0.1}, "growth=-0.1"),
        ({"severity": -1.0}, "severity=-1.0"),
        ({"severity": float("nan")}, "severity=nan"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        input_drift(spec(), 12, 5, **settings)
