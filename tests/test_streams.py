"""Streams against straightforward statements of what they are."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records import SIDE, arrays, spec

from plasticity_jax.build import spec_of
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.streams import STREAMS, order
from plasticity_jax.streams.images import draw_rows, scale
from plasticity_jax.streams.permuted_pixels import permuted_pixels
from plasticity_jax.streams.random_labels import random_labels

KEY = jax.random.key(7)
WORDS = order.words(KEY)


def task_keys(count):
    return [for_step(KEY, Purpose.TASK, task) for task in range(count)]


def tasks(stream, count, data):
    states = [stream.init(KEY, data)]
    for key in task_keys(count)[1:]:
        states.append(stream.advance(key, states[-1], data))
    return states


def evaluated(stream, state, data, split="train"):
    """What is evaluated where that is all there is, in the order of the data."""
    batch = stream.evaluate(state, data, split)
    count = len(batch["weight"])
    back = np.argsort(order.mixed(count, count))
    return jax.tree.map(lambda a: a[back], batch)


def loop(condition, body, value):
    while condition(value):
        value = body(value)
    return value


class TestOrder:
    @pytest.mark.parametrize(("n", "batch"), [(1, 1), (2, 1), (7, 3), (16, 16), (60, 7), (1200, 16), (10_000, 16)])
    def test_every_row_once_per_epoch_across_batches(self, n, batch):
        steps = min(2 * n, 3 * n // batch + 1)
        draw = jax.jit(jax.vmap(lambda step: order.shuffled(WORDS, step, n, batch)))
        rows, weight = draw(jnp.arange(steps))
        rows = np.asarray(rows).reshape(-1)
        assert (np.asarray(weight) == 1).all()
        epochs = [rows[i : i + n] for i in range(0, len(rows) - n + 1, n)]
        assert epochs and all((np.sort(epoch) == np.arange(n)).all() for epoch in epochs)
        if n > 7:
            assert (epochs[0] != epochs[1]).any()

    def test_ragged_epochs_end_with_weight_0(self):
        n, batch = 10, 4
        draw = jax.vmap(lambda step: order.shuffled_ragged(WORDS, step, n, batch))
        rows, weight = map(np.asarray, draw(jnp.arange(6)))
        assert weight.sum(1).tolist() == [4, 4, 2, 4, 4, 2]
        for epoch in range(2):
            seen = rows[3 * epoch : 3 * epoch + 3][weight[3 * epoch : 3 * epoch + 3] == 1]
            assert sorted(seen) == list(range(n))

    def test_independent_rows_are_uniform(self):
        rows, _ = jax.vmap(lambda i: order.independent(WORDS, i, 5, 8))(jnp.arange(2_000))
        assert_uniform(np.bincount(np.asarray(rows).ravel(), minlength=5))

    @pytest.mark.parametrize("traced", [False, True])
    @pytest.mark.parametrize("n", [6, 97, *(pytest.param(n, marks=pytest.mark.slow) for n in (10, 24))])
    def test_shuffles_are_uniform(self, n, traced):
        """Places of a row, pairs of neighbours, and steps from one place to the next, over many keys."""
        keys = jax.random.split(KEY, 20_000)
        every_place, count = jnp.arange(n), jnp.int32(n) if traced else n
        shuffle = jax.jit(jax.vmap(lambda key: order._rows(order.words(key), jnp.zeros(n, int), every_place, count)))
        rows = np.asarray(shuffle(keys))
        assert_uniform(rows[:, 0], n)
        assert_uniform(rows[:, n // 2] * n + rows[:, -1], n * n, never=np.arange(n) * (n + 1))
        assert_uniform((rows[:, 1] - rows[:, 0]) % n, n, never=[0])
        assert_uniform(np.argmax(rows == 3, 1), n)

    def test_rows_are_a_permutation_for_any_number_of_them(self, monkeypatch):
        """Primes, squares and their neighbours, products of unlike numbers; with and without a walk.

        The arithmetic is that of numpy: jax would compile it anew for every n. The two are compared at some n.
        """
        by_jax = {n: np.asarray(order._rows(WORDS, jnp.full(n, 3), jnp.arange(n), n)) for n in (30, 31)}
        traced = jax.jit(jax.vmap(lambda n: order._rows(WORDS, jnp.full(130, 3), jnp.arange(130) % n, n)))
        every = np.asarray(traced(jnp.arange(1, 131)))
        monkeypatch.setattr(order, "jnp", np)
        monkeypatch.setattr(jax.lax, "while_loop", loop)
        words = np.asarray(WORDS)
        for n in (*range(1, 131), 961, 997, 1200, 2018, 4095, 10_007):
            rows = order._rows(words, np.full(n, 3), np.arange(n), n)
            assert (np.sort(rows) == np.arange(n)).all(), n
            if n in by_jax:
                assert (rows == by_jax[n]).all(), n
            if n <= 130:
                assert (np.sort(every[n - 1, :n]) == np.arange(n)).all(), n
                assert (every[n - 1, :n] == rows).all() or order._grid(n), n  # a traced n has no grid of its own

    def test_epochs_of_one_key_are_independent(self):
        n = 12
        epochs = jax.vmap(lambda e: order._rows(WORDS, jnp.full(n, e), jnp.arange(n), n))(jnp.arange(6_000))
        epochs = np.asarray(epochs)
        assert_uniform(epochs[:-1, 0] * n + epochs[1:, 0], n * n)

    def test_the_order_of_a_large_set_is_a_shuffle(self):
        rows = np.asarray(jax.jit(lambda: order._rows(WORDS, jnp.zeros(60_000, int), jnp.arange(60_000), 60_000))())
        assert abs(np.corrcoef(rows, np.arange(60_000))[0, 1]) < 0.02
        assert abs(np.corrcoef(rows[1:], rows[:-1])[0, 1]) < 0.02


def assert_uniform(values, bins=None, never=()):
    """Chi-square at 5 standard deviations: fails once in some million keys."""
    counts = np.asarray(values) if bins is None else np.bincount(values, minlength=bins)
    assert (counts[list(never)] == 0).all()
    counts = np.delete(counts, never)
    expected = counts.sum() / len(counts)
    chi2, freedom = ((counts - expected) ** 2 / expected).sum(), len(counts) - 1
    assert abs(chi2 - freedom) < 5 * np.sqrt(2 * freedom), (chi2, freedom)


def test_scale_is_the_formula():
    x = jnp.array([[0, 51, 255]], jnp.uint8)
    np.testing.assert_allclose(scale(x, 0.5, 0.25), (np.array([[0, 51, 255]]) / 255 - 0.5) / 0.25, rtol=1e-6)
    image = jnp.full((1, 2, 2, 3), 255, jnp.uint8)
    np.testing.assert_allclose(scale(image, (0.0, 0.5, 1.0), (1.0, 0.5, 0.1))[0, 0, 0], [1.0, 1.0, 0.0], atol=1e-5)


def test_a_run_sees_distinct_images_and_all_of_them_when_asked():
    rows = np.asarray(draw_rows(KEY, arrays(), 18))
    assert len(set(rows)) == 18 and rows.max() < 60 and (rows != np.arange(18)).any()
    assert draw_rows(KEY, arrays(), 60).tolist() == list(range(60))


class TestRandomLabels:
    def test_images_stay_and_labels_are_drawn_anew(self):
        states = tasks(random_labels(spec(300), 8, 5, images=300), 3, arrays(300))
        assert all((s.rows == states[0].rows).all() for s in states)
        for a, b in itertools.pairwise(states):
            same = float((a.change == b.change).mean())
            assert abs(same - 1 / 3) < 0.14  # 5 standard deviations of 300 draws
            assert (a.order != b.order).any()

    def test_permuted_labels_keep_the_class_balance(self):
        data = arrays(60)
        states = tasks(random_labels(spec(60), 8, 5, images=60, labels="permuted"), 3, data)
        own = np.bincount(np.asarray(data["train"]["y"]), minlength=3)
        assert all((np.bincount(np.asarray(s.change), minlength=3) == own).all() for s in states)
        assert (states[0].change != data["train"]["y"]).any() and (states[1].change != states[0].change).any()

    @pytest.mark.parametrize("labels", ["independent", "permuted"])
    @pytest.mark.parametrize("fraction", [0.0, 0.25, 1.0])
    def test_fraction_bounds_what_changes(self, labels, fraction):
        states = tasks(random_labels(spec(60), 8, 5, images=60, labels=labels, fraction=fraction), 4, arrays(60))
        changed = [int((a.change != b.change).sum()) for a, b in itertools.pairwise(states)]
        drawn = round(60 * fraction)
        assert all(c <= drawn for c in changed)
        # of those that are drawn anew two thirds change: 5 standard deviations of three such draws
        assert abs(sum(changed) - 2 * drawn) <= 5 * math.sqrt(3 * drawn * 2 / 9)
        first = tasks(random_labels(spec(60), 8, 5, images=60, labels=labels), 1, arrays(60))[0]
        assert (states[0].change == first.change).all()  # the first task draws all labels whatever the fraction

    def test_a_batch_is_the_images_with_their_labels(self):
        data, stream = arrays(), random_labels(spec(), 8, 5, images=18, mean=0.5, std=0.5)
        state = stream.init(KEY, data)
        batch = stream.sample(KEY, state, data, jnp.int32(2))
        index, _ = order.shuffled(state.order, jnp.int32(2), 18, 5)
        images = np.asarray(data["train"]["x"])[np.asarray(state.rows)[index]]
        np.testing.assert_allclose(batch["x"], (images / 255 - 0.5) / 0.5, atol=1e-6)
        assert (batch["y"] == state.change[index]).all()

    def test_evaluation_is_on_the_tasks_own_inputs_and_there_is_no_test_set(self):
        data, stream = arrays(), random_labels(spec(), 8, 5, images=18, evaluation=10)
        state = stream.init(KEY, data)
        batch = stream.evaluate(state, data, "train")
        index = order.mixed(18, 10)
        images = np.asarray(data["train"]["x"])[np.asarray(state.rows)[index]]
        np.testing.assert_allclose(batch["x"], images / 255, atol=1e-6)
        assert (batch["y"] == state.change[index]).all()
        assert stream.evaluate(state, data, "test")["weight"].sum() == 0


class TestPermutedPixels:
    def test_one_permutation_per_task_for_training_and_test(self):
        data = arrays()
        stream = permuted_pixels(spec(), 12, 5, images=0)
        for state in tasks(stream, 3, data):
            pixels = np.asarray(state.change)
            assert sorted(pixels) == list(range(SIDE * SIDE))
            for split in ("train", "test"):
                batch = stream.evaluate(state, data, split)
                index = order.mixed(*[len(data[split]["y"])] * 2)
                flat = np.asarray(data[split]["x"]).reshape(-1, SIDE * SIDE)[index][:, pixels] / 255
                np.testing.assert_allclose(batch["x"].reshape(flat.shape), flat, atol=1e-6)
                assert (batch["y"] == data[split]["y"][index]).all()

    def test_what_is_evaluated_is_a_sample_of_all_and_the_same_in_all_tasks(self):
        """Of 60 images and 20 test images 10 each: not the first ones, and the same at all times."""
        data, stream = arrays(), permuted_pixels(spec(), 12, 5, images=0, evaluation=10)
        for split in ("train", "test"):
            batches = [stream.evaluate(state, data, split) for state in tasks(stream, 2, data)]
            index = order.mixed(len(data[split]["y"]), 10)
            assert len(set(index.tolist())) == 10 and max(index) >= 10
            assert all((batch["y"] == data[split]["y"][index]).all() for batch in batches)

    def test_images_may_be_drawn_anew_for_each_task(self):
        data, stream = arrays(), permuted_pixels(spec(), 12, 5, images=18, redraw=True, first_identity=True)
        first, second = tasks(stream, 2, data)
        kept = set(first.rows.tolist()) & set(second.rows.tolist())
        assert len(set(second.rows.tolist())) == 18 and len(kept) < 14  # 5.4 of 18 are expected to come again
        batch = stream.sample(KEY, second, data, jnp.int32(0))
        rows = second.rows[order.shuffled(second.order, jnp.int32(0), 18, 5)[0]]
        assert (batch["y"] == data["train"]["y"][rows]).all()
        assert (first.rows == tasks(permuted_pixels(spec(), 12, 5, images=18), 1, data)[0].rows).all()

    def test_the_first_task_can_be_left_alone(self):
        states = tasks(permuted_pixels(spec(), 12, 5, images=0, first_identity=True), 2, arrays())
        assert (states[0].change == np.arange(SIDE * SIDE)).all() and (states[1].change != states[0].change).any()

    def test_online_permuted_mnist_shows_each_image_once(self):
        """Dohare et al. 2024: batch 1, as many steps as images."""
        data, stream = arrays(), permuted_pixels(spec(), 60, 1, images=0)
        state = stream.init(KEY, data)
        steps = jnp.arange(stream.steps(0))
        labels = jax.vmap(lambda i: order.shuffled(state.order, i, 60, 1)[0][0])(steps)
        assert sorted(labels.tolist()) == list(range(60))
        batches = jax.vmap(lambda i: stream.sample(KEY, state, data, i))(steps)
        assert (batches["y"][:, 0] == data["train"]["y"][labels]).all()


@pytest.mark.parametrize(
    ("factory", "settings", "words"),
    [
        (random_labels, {"images": 61}, "images=61.*60 training images"),
        (random_labels, {"images": 10, "batch": 11}, "batch=11.*10 examples"),
        (random_labels, {"images": 10, "batch": 0}, "batch=0"),
        (random_labels, {"images": 10, "batch": 2, "steps": 0}, "steps=0"),
        (random_labels, {"images": 10, "batch": 2, "labels": "permutd"}, "Did you mean 'permuted'"),
        (random_labels, {"images": 10, "batch": 2, "fraction": 1.5}, "fraction=1.5"),
        (random_labels, {"images": 10, "batch": 2, "order": "sorted"}, "order='sorted'"),
        (random_labels, {"images": 10, "batch": 2, "std": 0.0}, "std=0.0"),
        (random_labels, {"images": 10, "batch": 2, "mean": (0.1, 0.2)}, "2 entries.*1 channels"),
        (permuted_pixels, {"images": -1}, "images=-1"),
        (permuted_pixels, {"images": 10, "batch": 2, "evaluation": 0}, "evaluation=0"),
    ],
)
def test_bad_settings_are_refused(factory, settings, words):
    with pytest.raises(ValueError, match=words):
        factory(spec(), **settings)


@pytest.mark.parametrize("name", ["random_labels", "warm_start"])
def test_images_that_are_not_bytes_are_refused(name):
    data = {part: dict(split) for part, split in arrays().items()}
    data["test"]["x"] = data["test"]["x"].astype(np.float16) / 255
    with pytest.raises(ValueError, match="test images are float16, but they must be uint8, 0 to 255"):
        STREAMS[name](spec_of(data, 3))
