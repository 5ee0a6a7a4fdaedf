"""What the streams share whose tasks are subsets of the data: some of the classes, or some of the images.

The images of a run are sorted once into groups (classes in the order in which they come, or stages of growing data),
and a task is a span of groups that stand side by side. So a task has a traced number of examples in arrays of constant
shape, and nothing is searched or sorted while it is learned. Letters: N images of the data set, n of them in a split, K
classes, G groups, B examples of a batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Array, PyTree, Stream
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.streams import order as orders
from plasticity_jax.streams.images import check_images, scale

__all__ = ["Grouped", "Share", "Subsets", "draw_groups", "group", "shares", "subset_stream", "within_classes"]

TRAIN, TEST, CLASSES = range(3)  # what the key of a run is folded with for its images, and a task's for its classes
ORDER = 3  # and for the shuffles of a task


class Grouped(NamedTuple):
    """The images of one split, group after group."""

    rows: Array  # [n] int32 rows of the data; -1 fills up what is left over in the end
    bounds: Array  # [G + 1] int32 group g is rows[bounds[g]:bounds[g + 1]]


class Share(NamedTuple):
    """Which images of each class belong to a split, in an order of the class's images that is drawn once per run."""

    part: str  # of the data: "train" or "test"
    low: int  # the first of them
    high: int  # the last of them, exclusive


class Subsets(NamedTuple):
    """What the data of each task are: pure functions, written for one run."""

    init: Callable  # (key, data) -> (own state, {split: Grouped})
    advance: Callable  # (key, own, groups, task, data) -> (own, groups)   `task`: the one that begins
    span: Callable  # (task, split) -> (first group, the one after the last)   of ints or [] int32
    label: Callable  # (own, task, y, index, split) -> {"y": [B], ...}   index [B]: places in the split's rows
    parts: dict  # split -> (part of the data, examples of that split in the largest task)


class SubsetState(NamedTuple):
    """One task of one run."""

    task: Array  # [] int32
    own: PyTree  # what the kind of stream has drawn
    groups: dict  # split -> Grouped
    order: Array  # [16] uint32 what this task's shuffles are computed from


def subset_stream(spec, subsets, steps, examples, batch, order, mean, std, evaluation, outputs=0, augment=None):
    """A stream whose tasks are subsets of one data set.

    Args:
      spec: shapes of the data.
      subsets: Subsets.
      steps: (task) -> optimizer steps; it raises ValueError where the data have no such task.
      examples: (task) -> training examples, if all classes have equally many.
      batch, order, mean, std, evaluation, outputs: as for `image_stream`; where a task has more examples than
        `evaluation`, so many are taken at equal distances, which treats all groups alike.
      augment: (key, x) -> x, for training batches; None leaves them as they are.

    Returns:
      Stream. `evaluate` fills up with examples of weight 0 where a task has fewer than the largest one.

    Raises:
      ValueError: a batch that is larger than a task, unknown names, values out of range.
    """
    check_images(0, spec, evaluation, mean, std)
    check.between("evaluation", evaluation, 1, 65_535)  # so that `_spread` fits 32 bits
    check.known("order", order, orders.ORDERS)
    draw = orders.ORDERS[order]

    def init(key, data):
        own, groups = subsets.init(key, data)
        words = orders.words(jax.random.fold_in(for_step(key, Purpose.TASK, 0), ORDER))
        return SubsetState(jnp.int32(0), own, groups, words)

    def advance(key, state, data):
        task = state.task + 1
        own, groups = subsets.advance(key, state.own, state.groups, task, data)
        return SubsetState(task, own, groups, orders.words(jax.random.fold_in(key, ORDER)))

    def window(state, split):
        first, last = subsets.span(state.task, split)
        bounds = state.groups[split].bounds
        return bounds[first], bounds[last] - bounds[first]

    def show(state, data, split, index, weight):
        part, rows = data[subsets.parts[split][0]], state.groups[split].rows[index]
        labels = subsets.label(state.own, state.task, part["y"][rows].astype(jnp.int32), index, split)
        return {"x": scale(part["x"][rows], mean, std), "weight": weight, **labels}

    def sample(key, state, data, step):
        first, count = window(state, "train")
        index, weight = draw(state.order, step, jnp.maximum(count, 1), batch)
        weight = jnp.where(count > 0, weight, 0.0)  # data may have no image of some class
        batch_now = show(state, data, "train", first + index, weight)
        return batch_now if augment is None else {**batch_now, "x": augment(key, batch_now["x"])}

    def evaluate(state, data, split):
        first, count = window(state, split)
        size = min(subsets.parts[split][1], evaluation)
        weight = (jnp.arange(size) < count).astype(jnp.float32)
        # shuffled, always in the same way: whoever takes the first few of them meets all groups
        mixed = orders.mixed(jnp.minimum(count, size), size)
        return show(state, data, split, first + _spread(count, size)[mixed], weight)

    def checked_steps(task):
        length = steps(task)
        orders.check_order(order, examples(task), batch, length)
        return length

    checked_steps(0)
    outputs = outputs or spec["classes"]
    splits = tuple(subsets.parts)
    return Stream(init, advance, sample, evaluate, checked_steps, outputs, splits=splits, examples=examples(0))


def _spread(count, size):
    """[size] int32 places in [0, count): at equal distances, or each once and then the last one again and again."""
    i, count = jnp.arange(size, dtype=jnp.uint32), count.astype(jnp.uint32)
    distant = i * (count // size) + i * (count % size) // size  # i * count // size, without its overflow
    return jnp.where(count > size, distant, jnp.minimum(i, count - 1)).astype(jnp.int32)


def shares(spec, per_class, held_out=0, held_out_as="test"):
    """{split: Share}: `per_class` training images of each class after `held_out` others, which are a split as well.

    Args:
      spec: shapes of the data.
      per_class: training images of each class; 0: all that are not held out.
      held_out: training images of each class that are kept for another purpose.
      held_out_as: the split that they make: "validation" or "test".

    A class has N // K images here, also where the data have more of it; of a class that has fewer, all are taken.

    Raises:
      ValueError: more images of a class than the data has, or no test image of each.
    """
    classes = spec["classes"]
    check.whole("per_class", per_class, low=0)
    check.whole("images held out", held_out, low=0)
    each = {part: spec[part]["x"].shape[0] // classes for part in ("train", "test")}
    most = each["train"] - held_out
    if per_class > most or most < 1:
        raise ValueError(
            f"per_class={per_class} and {held_out} images of a class held out for {held_out_as}, but the data set has "
            f"{each['train']} training images of each class: choose fewer."
        )
    found = {"train": Share("train", held_out, held_out + (per_class or most)), "test": Share("test", 0, each["test"])}
    found |= {held_out_as: Share("train", 0, held_out)} if held_out else {}
    if not found["test"].high:
        raise ValueError(
            f"The data set has {spec['test']['x'].shape[0]} test images for {classes} classes, but each needs one at "
            "least: choose data with more test images (data.test_images of synthetic) or fewer classes."
        )
    return found


def within_classes(task, last, classes):
    """Raise ValueError where a task needs more classes than the data set has."""
    if last > classes:
        raise ValueError(
            f"Task {task}, counted from 0, ends with class number {last} of the run, but the data set has {classes} "
            f"classes and none comes twice: choose fewer tasks, or fewer classes a task."
        )


def draw_groups(key, data, classes, splits):
    """(place [K] int32 of each class in the order of the run, {split: Grouped}), drawn from the key of the run.

    Args:
      key: of the run.
      data: the data set.
      classes: K.
      splits: {split: Share}.
    """
    key = for_step(key, Purpose.STREAM)
    place = jax.random.permutation(jax.random.fold_in(key, CLASSES), classes).astype(jnp.int32)
    groups = {}
    for split, share in splits.items():
        y = data[share.part]["y"].astype(jnp.int32)
        rows = _of_each_class(jax.random.fold_in(key, TEST if share.part == "test" else TRAIN), y, classes, share)
        groups[split] = group(rows, y, place)
    return place, groups


def group(rows, y, place):
    """Grouped by class, the classes in the order of their `place` [K]; rows of -1 go last."""
    where = jnp.where(rows < 0, len(place), place[y[rows]])  # [n]
    sort = jnp.argsort(where, stable=True)
    return Grouped(rows[sort], jnp.searchsorted(where[sort], jnp.arange(len(place) + 1)).astype(jnp.int32))


def _of_each_class(key, y, classes, share):
    """[n] int32 rows of the images that a Share takes, -1 beyond them; n = K (high - low), at most N."""
    shuffled = jax.random.permutation(key, len(y)).astype(jnp.int32)
    rows, bounds = group(shuffled, y, jnp.arange(classes))
    rank = jnp.arange(len(y)) - bounds[y[rows]]
    taken = (share.low <= rank) & (rank < share.high)
    return jnp.where(taken, rows, -1)[jnp.argsort(~taken, stable=True)][: classes * (share.high - share.low)]
