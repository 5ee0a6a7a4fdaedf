"""Streams that change labels, against straightforward statements of what they are."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records import arrays, spec
from test_streams import KEY, evaluated, tasks

from plasticity_jax.streams.label_permutation import label_permutation
from plasticity_jax.streams.random_labels import draw_labels, random_labels


class TestLabelPermutation:
    def test_one_permutation_per_task_for_training_and_test(self):
        data, stream = arrays(), label_permutation(spec(), 12, 5)
        states = tasks(stream, 8, data)
        for state in states:
            names = np.asarray(state.change)
            assert sorted(names) == [0, 1, 2]
            for split in ("train", "test"):
                batch = evaluated(stream, state, data, split)
                assert batch["y"].tolist() == [names[label] for label in np.asarray(data[split]["y"])]
                np.testing.assert_allclose(batch["x"], np.asarray(data[split]["x"]) / 255, atol=1e-6)
        assert len({tuple(np.asarray(state.change)) for state in states}) > 3  # of 6; alike only once in 10^4 keys

    def test_the_first_task_can_be_left_alone(self):
        state = tasks(label_permutation(spec(), 12, 5, first_identity=True), 1, arrays())[0]
        assert state.change.tolist() == [0, 1, 2]


class TestTransition:
    def test_labels_turn_one_by_one_in_the_order_of_their_ranks(self):
        """A loop over the images: at step s of T those have turned whose place in the order is below n s / T."""
        steps, images = 8, 18
        data, stream = arrays(), random_labels(spec(), 10, 5, images=images, transition=steps)
        state = tasks(stream, 2, data)[1]
        old, new, rank = (np.asarray(leaf) for leaf in state.change)
        assert sorted(rank) == list(range(images)) and (rank != np.arange(images)).any()
        for step in range(10):
            batch = stream.sample(KEY, state, data, jnp.int32(step))
            every = labels_at(state, step, steps)
            assert every == [new[i] if rank[i] * steps < images * step else old[i] for i in range(images)]
            shown = {image.tobytes(): label for image, label in zip(images_of(state, data), every, strict=True)}
            drawn = np.asarray(batch["x"] * 255).round().astype(np.uint8)
            assert [shown[image.tobytes()] for image in drawn] == batch["y"].tolist()
        assert evaluated(stream, state, data)["y"].tolist() == new.tolist()

    def test_it_begins_with_the_labels_of_the_task_before(self):
        stream = random_labels(spec(), 8, 5, images=18, transition=8)
        states = tasks(stream, 3, arrays())
        assert (states[0].change.old == states[0].change.new).all()
        for before, after in itertools.pairwise(states):
            assert (after.change.old == before.change.new).all()

    @pytest.mark.parametrize("labels", ["independent", "permuted"])
    def test_tasks_are_those_of_the_stream_without_a_transition(self, labels):
        smooth, abrupt = (
            tasks(random_labels(spec(), 8, 5, images=18, labels=labels, fraction=0.5, transition=t), 3, arrays())
            for t in (4, 0)
        )
        for a, b in zip(smooth, abrupt, strict=True):
            assert (a.change.new == b.change).all() and (a.order == b.order).all() and (a.rows == b.rows).all()

    @pytest.mark.parametrize(
        ("transition", "words"), [(9, "transition=9, but a task has 8 steps"), (-1, "transition=-1"), (2.0, "whole")]
    )
    def test_what_does_not_fit_a_task_is_refused(self, transition, words):
        with pytest.raises(ValueError, match=words):
            random_labels(spec(), 8, 5, images=18, transition=transition)


def labels_at(state, step, transition):
    """What the change makes of all images at a step."""
    count = len(state.change.rank)
    apply = jax.jit(draw_labels(spec(), 10, transition=transition).apply)
    return apply(state.change, None, None, jnp.arange(count), jnp.int32(step))[1].tolist()


def images_of(state, data):
    return np.asarray(data["train"]["x"])[np.asarray(state.rows)]
