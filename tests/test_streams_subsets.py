"""Streams whose tasks are subsets of the data, against straightforward statements of what they are."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.build import spec_of
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.streams import order
from plasticity_jax.streams.augment import augment
from plasticity_jax.streams.class_incremental import class_incremental
from plasticity_jax.streams.continual_pairs import continual_pairs
from plasticity_jax.streams.five_plus_one import five_plus_one
from plasticity_jax.streams.subsets import _spread
from plasticity_jax.streams.warm_start import warm_start

KEY = jax.random.key(7)
CLASSES = 7


def arrays(train=140, test=42, counts=None):
    """Images whose first two pixels say which they are, in random order; `counts` of each class where not balanced."""
    draw = np.random.default_rng(0)

    def part(n, y):
        x = np.zeros((n, 2, 2, 1), np.uint8)
        x[:, 0, 0, 0], x[:, 0, 1, 0] = np.arange(n) % 256, np.arange(n) // 256
        return {"x": jnp.asarray(x), "y": jnp.asarray(draw.permutation(y), jnp.int32)}

    y = np.arange(train) % CLASSES if counts is None else np.repeat(np.arange(CLASSES), counts)
    return {"train": part(len(y), y), "test": part(test, np.arange(test) % CLASSES)}


def spec(**sizes):
    return spec_of(arrays(**sizes), CLASSES)


def states(stream, count, data):
    advance = jax.jit(stream.advance)
    found = [jax.jit(stream.init)(KEY, data)]
    for task in range(1, count):
        found.append(advance(for_step(KEY, Purpose.TASK, task), found[-1], data))
    return found


def rows_of(batch):
    """Which images a batch shows: those of weight 1."""
    pixels = np.rint(np.asarray(batch["x"]) * 255).astype(int)
    return (pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 1, 0])[np.asarray(batch["weight"]) > 0]


def seen(stream, state, data, split="train"):
    """(rows, labels) of a task; all of them, if `evaluation` is large enough."""
    batch = stream.evaluate(state, data, split)
    return rows_of(batch), np.asarray(batch["y"])[np.asarray(batch["weight"]) > 0]


def epoch(stream, state, data, steps):
    """The images of so many steps of training."""
    sample = jax.jit(stream.sample)
    return np.concatenate([rows_of(sample(KEY, state, data, jnp.int32(i))) for i in range(steps)])


def class_order(stream, data, count):
    """The classes in the order in which they come, read off the labels."""
    order = []
    for state in states(stream, count, data):
        order += sorted(set(seen(stream, state, data)[1]) - set(order))
    return order


def always(jaxpr):
    """Names of the operations that are run whatever a condition says."""
    names = set()
    for equation in jaxpr.eqns:
        names.add(equation.primitive.name)
        if equation.primitive.name != "cond":
            names.update(*(always(inner) for inner in jax.extend.core.jaxprs_in_params(equation.params)))
    return names


class TestClassIncremental:
    def make(self, data=None, **settings):
        block = {"classes_per_task": 2, "validation": 5, "epochs": 2, "batch": 10, "augment": False, **settings}
        return class_incremental(spec_of(data or arrays(), CLASSES), **block)

    @pytest.mark.parametrize("cumulative", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_each_task_has_all_images_of_its_classes_and_no_others(self, cumulative):
        data, stream = arrays(), self.make(cumulative=cumulative)
        y, y_test = np.asarray(data["train"]["y"]), np.asarray(data["test"]["y"])
        known = []
        for task, state in enumerate(states(stream, 3, data)):
            rows, labels = seen(stream, state, data)
            new = set(labels) - set(known)
            known += sorted(new)
            assert len(new) == 2 and len(set(rows)) == len(rows) == 15 * (2 * (task + 1) if cumulative else 2)
            assert (y[rows] == labels).all() and set(labels) == (set(known) if cumulative else new)
            held, held_labels = seen(stream, state, data, "validation")
            assert not set(held) & set(rows) and (np.bincount(held_labels)[sorted(set(labels))] == 5).all()
            tests, test_labels = seen(stream, state, data, "test")
            assert sorted(tests) == np.flatnonzero(np.isin(y_test, known)).tolist()
            assert (y_test[tests] == test_labels).all()
            assert sorted(epoch(stream, state, data, len(rows) // 10)) == sorted(rows)
            assert stream.steps(task) == 2 * len(rows) // 10

    def test_batches_say_which_classes_exist_and_when_each_came(self):
        data, stream = arrays(), self.make()
        order = class_order(stream, data, 3)
        for task, state in enumerate(states(stream, 3, data)):
            for batch in (stream.sample(KEY, state, data, jnp.int32(0)), stream.evaluate(state, data, "test")):
                exist = np.isin(np.arange(CLASSES), order[: 2 * (task + 1)])
                assert batch["classes"].shape == (len(batch["y"]), CLASSES) and (batch["classes"] == exist).all()
                assert all(
                    order.index(y) // 2 == came
                    for y, came in zip(batch["y"].tolist(), batch["task"].tolist(), strict=True)
                )

    @pytest.mark.slow
    def test_images_of_a_class_stay_and_orders_differ_by_seed(self):
        data, stream = arrays(), self.make(per_class=6)
        first, second, _ = (set(seen(stream, state, data)[0]) for state in states(stream, 3, data))
        assert len(first) == 12 and first < second
        firsts = [frozenset(np.asarray(stream.evaluate(stream.init(key, data), data, "train")["y"]))
                  for key in jax.random.split(KEY, 8)]  # fmt: skip
        assert len(set(firsts)) > 2

    def test_classes_of_unequal_size(self):
        counts = (3, 30, 20, 27, 20, 20, 20)
        data = arrays(counts=counts)
        stream = class_incremental(spec(counts=counts), 7, validation=0, batch=2, augment=False)
        rows, labels = seen(stream, stream.init(KEY, data), data)
        assert np.bincount(labels).tolist() == [min(c, 20) for c in counts] and len(set(rows)) == len(rows)
        assert (np.asarray(data["train"]["y"])[rows] == labels).all()

    def test_a_task_without_images_has_batches_that_do_not_count(self):
        counts = (0, 23, 23, 24, 23, 23, 24)
        data, stream = arrays(counts=counts), class_incremental(
            spec(counts=counts), 1, cumulative=False, validation=0, batch=2, augment=False
        )  # fmt: skip
        counted = []
        for state in states(stream, CLASSES, data):
            batch = jax.jit(stream.sample)(KEY, state, data, jnp.int32(3))
            counted.append(float(batch["weight"].sum()))
        assert sorted(counted) == [0.0] + [2.0] * (CLASSES - 1)

    def test_evaluation_is_spread_over_all_classes(self):
        data, stream = arrays(), self.make(evaluation=24)
        state = states(stream, 3, data)[2]
        batch = stream.evaluate(state, data, "train")
        assert sorted(np.bincount(batch["y"], minlength=CLASSES)) == [0, 4, 4, 4, 4, 4, 4]
        assert (batch["weight"] == 1).all()
        assert len(set(batch["y"][:12].tolist())) >= 5  # the first few are of all classes too

    def test_steps_of_the_source(self):
        """CIFAR-100 by 5: 25 batches of 90 make an epoch of the first increment; 20 increments of 200 epochs."""
        shape = {
            "x": jax.ShapeDtypeStruct((50_000, 32, 32, 3), np.uint8),
            "y": jax.ShapeDtypeStruct((50_000,), np.int32),
        }
        stream = class_incremental({"train": shape, "test": shape, "classes": 100})
        assert [stream.steps(task) for task in (0, 1, 19)] == [5_000, 10_000, 100_000]
        with pytest.raises(ValueError, match=r"Task 20.*class number 105.*100 classes"):
            stream.steps(20)
        assert class_incremental({"train": shape, "test": shape, "classes": 100}, steps=7).steps(3) == 7

    @pytest.mark.slow
    def test_only_training_batches_are_augmented(self):
        data = arrays()
        data["train"]["x"] = jax.random.randint(KEY, (140, 6, 6, 1), 0, 256).astype(jnp.uint8)
        plain, stream = self.make(data=data), self.make(data=data, augment=True)
        state = stream.init(KEY, data)
        bare, one, two = (s.sample(k, state, data, jnp.int32(0))["x"] for s, k in
                          ((plain, KEY), (stream, KEY), (stream, jax.random.key(8))))  # fmt: skip
        assert (one != bare).any() and (one != two).any()
        np.testing.assert_allclose(one, augment(KEY, bare), atol=1e-6)
        for split in ("train", "validation"):
            assert (stream.evaluate(state, data, split)["x"] == plain.evaluate(state, data, split)["x"]).all()


class TestAugment:
    def test_each_image_is_flipped_cropped_and_rotated(self):
        """Against numpy.pad and a look at every pixel."""
        x = np.random.default_rng(1).normal(size=(40, 9, 8, 2)).astype(np.float32)
        got = np.asarray(augment(KEY, jnp.asarray(x), pad=3, degrees=20.0))
        flips = np.asarray(jax.random.bernoulli(jax.random.fold_in(KEY, 0), 0.5, (40,)))
        shifts = np.asarray(jax.random.randint(jax.random.fold_in(KEY, 1), (40, 2), -3, 4))
        angles = np.deg2rad(20.0) * np.asarray(jax.random.uniform(jax.random.fold_in(KEY, 2), (40,)))
        assert 0 < flips.sum() < 40 and set(shifts[:, 0]) == set(range(-3, 4))
        for image, flip, (down, right), angle, result in zip(x, flips, shifts, angles, got, strict=True):
            image = image[:, ::-1] if flip else image
            image = np.pad(image, ((3, 3), (3, 3), (0, 0)), "reflect")[3 + down : 12 + down, 3 + right : 11 + right]
            expected, unsure = np.zeros_like(image), 0
            for row, column in np.ndindex(9, 8):
                up, along = 4 - row, column - 3.5  # counterclockwise by `angle` takes (along, up) to this pixel
                from_along = along * np.cos(angle) + up * np.sin(angle)
                from_up = up * np.cos(angle) - along * np.sin(angle)
                r, c = 4 - from_up, 3.5 + from_along
                if min(abs(r % 1 - 0.5), abs(c % 1 - 0.5)) < 1e-4:
                    unsure, expected[row, column] = unsure + 1, result[row, column]  # a tie of rounding
                elif 0 <= round(r) < 9 and 0 <= round(c) < 8:
                    expected[row, column] = image[round(r), round(c)]
            np.testing.assert_array_equal(result, expected)
            assert unsure < 36

    def test_nothing_changes_a_constant_image_but_its_corners(self):
        out = np.asarray(augment(KEY, jnp.ones((50, 32, 32, 1)), degrees=15.0))
        assert set(np.unique(out)) == {0.0, 1.0} and (out[:, 8:24, 8:24] == 1).all()


class TestFivePlusOne:
    def test_hard_and_easy_tasks_alternate_and_no_class_comes_twice(self):
        data, stream = arrays(), five_plus_one(spec(), hard=2, easy=1, per_class=12, batch=6, steps=4)
        y, y_test, known = np.asarray(data["train"]["y"]), np.asarray(data["test"]["y"]), []
        for task, state in enumerate(states(stream, 4, data)):
            rows, labels = seen(stream, state, data)
            new = sorted(set(labels))
            assert len(new) == (1 if task % 2 else 2) and not set(new) & set(known)
            assert len(set(rows)) == len(rows) == 12 * len(new) and (y[rows] == labels).all()
            tests, _ = seen(stream, state, data, "test")
            assert sorted(tests) == np.flatnonzero(np.isin(y_test, new)).tolist()
            assert sorted(epoch(stream, state, data, len(rows) // 6)) == sorted(rows)
            known += new
        assert stream.outputs == CLASSES and stream.steps(3) == 4

    def test_more_classes_than_the_data_has(self):
        stream = five_plus_one(spec(), per_class=12, batch=6)
        assert [stream.steps(0), stream.steps(1)] == [780, 780]
        with pytest.raises(ValueError, match=r"Task 2.*class number 11.*7 classes"):
            stream.steps(2)
        with pytest.raises(ValueError, match="batch=13, but a task has 12"):
            five_plus_one(spec(), per_class=12, batch=13).steps(1)  # an easy one


class TestContinualPairs:
    def test_pairs_use_up_the_classes_before_a_new_permutation(self):
        data, stream = arrays(), continual_pairs(spec(), per_class=12, held_out=4, batch=6)
        y = np.asarray(data["train"]["y"])
        images, pairs = {}, []
        for state in states(stream, 9, data):
            rows, labels = seen(stream, state, data)
            pair = [set(y[rows[labels == k]]) for k in (0, 1)]
            assert all(len(p) == 1 for p in pair) and pair[0] != pair[1]
            pairs.append((*pair[0], *pair[1]))
            for c in pairs[-1]:
                mine = set(rows[y[rows] == c])
                assert len(mine) == 12 and images.setdefault(c, mine) == mine  # those of a class stay
            tests, test_labels = seen(stream, state, data, "test")
            assert not set(tests) & set(rows) and len(set(tests)) == 8
            assert all(y[row] == pairs[-1][label] for row, label in zip(tests, test_labels, strict=True))
            assert sorted(epoch(stream, state, data, 4)) == sorted(rows)
        rounds = [pairs[i : i + 3] for i in (0, 3, 6)]
        assert all(len({c for pair in r for c in pair}) == 6 for r in rounds)
        assert len({tuple(r) for r in rounds}) == 3
        assert stream.outputs == 2 and stream.steps(500) == 120

    def test_images_are_sorted_for_a_new_permutation_alone(self):
        stream = continual_pairs(spec(), per_class=12, held_out=4, batch=6)
        for members in (1, 2):  # and no less where runs are vmapped together
            keys = jax.random.split(KEY, members)
            many = jax.vmap(stream.init, in_axes=(0, None))(keys, arrays())
            advance = jax.vmap(stream.advance, in_axes=(0, 0, None))
            names = always(jax.make_jaxpr(advance)(keys, many, arrays()).jaxpr)
            assert "cond" in names and "sort" not in names

    def test_the_datas_own_test_set(self):
        data, stream = arrays(), continual_pairs(spec(), per_class=12, held_out=0, batch=6)
        y, y_test = np.asarray(data["train"]["y"]), np.asarray(data["test"]["y"])
        state = stream.init(KEY, data)
        rows, _ = seen(stream, state, data)
        tests, _ = seen(stream, state, data, "test")
        assert sorted(tests) == np.flatnonzero(np.isin(y_test, y[rows])).tolist()


class TestWarmStart:
    def test_data_grow_by_stages(self):
        data, stream = arrays(), warm_start(spec(), stages=3, images=100, epochs=2, batch=10)
        before = set()
        for task, state in enumerate(states(stream, 4, data)):
            rows, labels = seen(stream, state, data)
            assert len(rows) == (33, 66, 100, 100)[task] and len(set(rows)) == len(rows) and before <= set(rows)
            assert (labels == np.asarray(data["train"]["y"])[rows]).all()
            assert sorted(rows_of(stream.evaluate(state, data, "test")).tolist()) == list(range(42))
            assert stream.steps(task) == (8, 16, 24, 24)[task]
            before = set(rows)
        assert (np.sort(list(before)) != np.arange(100)).any()

    @pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
    def test_noisy_then_clean_labels(self, noise):
        data, stream = arrays(), warm_start(spec(), stages=1, noise=noise, clean_from=2, batch=10)
        y = np.asarray(data["train"]["y"])
        first, second, third = (
            (rows, labels != y[rows]) for rows, labels in (seen(stream, s, data) for s in states(stream, 3, data))
        )
        assert len(first[0]) == 140 and first[1].sum() <= 140 * noise and not third[1].any()
        assert abs(first[1].sum() - 140 * noise * 6 / 7) < 5 * np.sqrt(140 * noise * 6 / 49) + 1e-9
        assert (first[1] == second[1]).all()  # the noise is drawn once
        rows, labels = seen(stream, states(stream, 1, data)[0], data, "test")
        assert (labels == np.asarray(data["test"]["y"])[rows]).all()


def test_spread_is_at_equal_distances_without_overflow():
    for count, size in ((10, 4), (7, 7), (5, 8), (1_281_167, 2_048), (2_000_000_000, 65_535)):
        got = np.asarray(_spread(jnp.int32(count), size))
        expected = (
            [i * count // size for i in range(size)] if count > size else [min(i, count - 1) for i in range(size)]
        )
        assert got.tolist() == expected


def test_orders_take_the_examples_of_the_task_alone():
    """A ragged epoch of a small task ends where its data end."""
    data = arrays()
    stream = class_incremental(spec(), 2, validation=5, batch=8, augment=False, order="shuffled_ragged")
    for task, state in enumerate(states(stream, 2, data)):
        weights = [float(stream.sample(KEY, state, data, jnp.int32(i))["weight"].sum()) for i in range(8)]
        count = 30 * (task + 1)
        assert weights[: -(-count // 8)] == [8.0] * (count // 8) + [float(count % 8)]
    assert order.ORDERS.keys() >= {"shuffled_ragged"}


@pytest.mark.parametrize(
    ("factory", "settings", "words"),
    [
        (
            class_incremental,
            {"per_class": 16, "validation": 5},
            "per_class=16 and 5 images.*validation.*20 training images",
        ),
        (class_incremental, {"validation": 20}, "20 images of a class held out for validation.*20 training images"),
        (class_incremental, {"classes_per_task": 8, "validation": 5}, "Task 0.*class number 8.*7 classes"),
        (class_incremental, {"classes_per_task": 1, "validation": 5}, "batch=90, but a task has 15 examples"),
        (class_incremental, {"validation": 5, "epochs": 0}, "epochs=0"),
        (class_incremental, {"validation": 5, "batch": 10}, "augment=True shifts images by up to 4 pixels"),
        (class_incremental, {"classes_per_task": 6, "validation": 5, "order": "sorted"}, "order='sorted'"),
        (class_incremental, {"classes_per_task": 6, "validation": 5, "evaluation": 70_000}, "evaluation=70000"),
        (five_plus_one, {"per_class": 12, "batch": 61}, "batch=61, but a task has 60"),
        (five_plus_one, {"per_class": 12, "hard": 0}, "hard=0"),
        (five_plus_one, {"per_class": 21}, "per_class=21.*20 training images"),
        (continual_pairs, {"per_class": 12}, "100 images of a class held out for test"),
        (continual_pairs, {"per_class": 12, "held_out": 4, "batch": 25}, "batch=25, but a task has 24"),
        (warm_start, {"stages": 0}, "stages=0"),
        (warm_start, {"images": 5, "stages": 6}, "stages=6"),
        (warm_start, {"noise": 1.5}, "noise=1.5"),
        (warm_start, {"batch": 71}, "batch=71, but a task has 70"),
        (warm_start, {"clean_from": -1}, "clean_from=-1"),
        (five_plus_one, {"test": 6, "per_class": 12}, "6 test images for 7 classes.*data.test_images"),
        (continual_pairs, {"test": 6, "per_class": 12, "held_out": 0}, "6 test images for 7 classes"),
        (class_incremental, {"test": 6, "validation": 5}, "6 test images for 7 classes"),
    ],
)
def test_bad_settings_are_refused(factory, settings, words):
    with pytest.raises(ValueError, match=words):
        factory(spec(test=settings.get("test", 42)), **{k: v for k, v in settings.items() if k != "test"})


def test_few_test_images_do_where_others_are_held_out_for_it():
    data = arrays(test=6)
    stream = continual_pairs(spec(test=6), per_class=12, held_out=4, batch=6)
    assert len(seen(stream, stream.init(KEY, data), data, "test")[0]) == 8
