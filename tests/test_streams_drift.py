"""Drifting inputs, against formulas and scipy's rotation."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
from records import SIDE, arrays, spec
from test_streams import KEY, evaluated, tasks

from plasticity_jax.streams.input_drift import KINDS, input_drift


def plain(images):
    return np.asarray(images, np.float32) / 255


def shown(stream, state, data, split="train"):
    return np.asarray(evaluated(stream, state, data, split)["x"])


def by_noise(x, severity, words, index):
    """Of every pixel by itself, from its place among all pixels of all images, in whole numbers modulo 2^32."""

    def mixed(value):
        value = (value ^ (value >> 16)) * 0x85EBCA6B % 2**32
        value = (value ^ (value >> 13)) * 0xC2B2AE35 % 2**32
        return value ^ (value >> 16)

    def number(place):
        a, b, c, d = map(int, words[:4])
        bits = mixed((mixed(((place ^ a) + b) % 2**32) ^ c) + d & 0xFFFFFFFF)
        return scipy.stats.norm.ppf(((bits >> 9) + 0.5) / 2**23)

    noise = [[number(int(i) * x[0].size + p) for p in range(x[0].size)] for i in index]
    return x + severity * np.reshape(noise, x.shape)


def by_contrast(x, severity, words, index):
    middle = x.mean((1, 2), keepdims=True)
    return middle + math.exp(-severity) * (x - middle)


def by_rotation(x, severity, words, index):
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
                numbers = np.arange(count) + (60 if split == "test" else 0)  # after those of the 60 training images
                want = STATEMENTS[kind](x, 0.1 + 0.25 * task, np.asarray(state.change.words), numbers)
                np.testing.assert_allclose(shown(stream, state, data, split), want, atol=1e-5)
                assert (evaluated(stream, state, data, split)["y"] == data[split]["y"]).all()

    def test_inside_a_task_nothing_jumps(self, kind):
        data, stream = arrays(), input_drift(spec(), 12, 5, 5, kind, severity=0.1, growth=0.25, inside=True)
        first, second = tasks(stream, 2, data)
        images, words = plain(data["train"]["x"])[np.asarray(first.rows)], np.asarray(first.change.words)
        for state, begins in ((first, 0.1), (second, 0.35)):
            for step in (0, 3, 11):
                batch = stream.sample(KEY, state, data, jnp.int32(step))
                want = STATEMENTS[kind](images, begins + 0.25 * step / 12, words, range(5))
                found = np.abs(np.asarray(batch["x"])[:, None] - want[None]).max((2, 3, 4)).min(1)  # batches shuffle
                assert (found < 1e-5).all()
        want = STATEMENTS[kind](images, 0.35, words, range(5))
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
    data = arrays(1_500, 500)
    stream = input_drift(spec(1_500, 500), 12, 5, kind="noise", severity=1.0, growth=0.0)

    def noise(state):
        """Of the images of training and then of the test set."""
        splits = ("train", "test")
        parts = [shown(stream, state, data, split) - plain(data[split]["x"]) for split in splits]
        return np.concatenate(parts).reshape(-1, SIDE * SIDE)

    (first, second), other = tasks(stream, 2, data), stream.init(jax.random.key(8), data)
    found = noise(first)
    np.testing.assert_array_equal(found, noise(second))
    assert abs(np.corrcoef(found.ravel(), noise(other).ravel())[0, 1]) < 5 / np.sqrt(found.size)
    assert scipy.stats.kstest(found.ravel(), "norm").pvalue > 1e-3
    between = np.corrcoef(found)[np.triu_indices(2_000, 1)]  # images of training among those of the test set
    assert abs(between.std() - 1 / np.sqrt(15)) < 0.002 and abs(between).max() < 0.97  # of 16 pixels about their mean
    line = found.ravel()  # nor is an image's noise that of another one, moved
    for lag in (1, 4, 15, 16, 17, 32, 1_500 * 16):
        assert abs(np.corrcoef(line[lag:], line[:-lag])[0, 1]) < 5 / np.sqrt(line.size)


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
