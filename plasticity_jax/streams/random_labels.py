"""Fixed images, new random labels at every task: memorisation again and again.

Letters: N images of the data set, n images of the run, B examples of a batch, H, W, C height, width, channels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Array, Stream
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.streams import order as orders
from plasticity_jax.streams.images import batch_of, check_images, draw_rows, scale

__all__ = ["RandomLabelsState", "random_labels"]

LABELS = ("independent", "permuted")
CHOICE, LABEL, ORDER = range(3)  # what the key of a task is folded with


class RandomLabelsState(NamedTuple):
    """One task of one run."""

    rows: Array  # [n] int32 which images of the data set; constant for ever
    labels: Array  # [n] int32 the label of each
    order: Array  # [16] uint32 what this task's shuffles are computed from


def random_labels(
    spec,
    steps: int = 30_000,
    batch: int = 16,
    images: int = 1_200,
    labels: str = "independent",
    fraction: float = 1.0,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """The random-label stream of Lyle et al. 2023 (section 4.1) and Kumar et al. 2023 (Table 1).

    Each run draws its images once, without replacement, from the training set. Defaults are Kumar's Random Label MNIST:
    1,200 images, batch 16, 30,000 steps (400 epochs) a task. There is no test set: random labels do not generalise.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      steps: optimizer steps of a task.
      batch: B, at most `images`; 1 is fine.
      images: n; 0 takes the whole training set.
      labels: "independent": each label uniform over the classes. "permuted": the data set's own labels, shuffled
        among the images, which keeps the class balance. The paper says both (sections 4.1 and A.1).
      fraction: share of the images whose label is drawn anew at a boundary; the first task draws all.
      order: "shuffled", "shuffled_ragged" or "independent"; see streams/order.py.
      mean, std: pixels become (x / 255 - mean) / std; one number, or one per channel.
      evaluation: at most so many of the run's images are evaluated at a boundary.

    Returns:
      Stream over data {"train": {"x": [N, H, W, C] uint8, "y": [N] int32}, ...}.

    Raises:
      ValueError: more images than the data set has, a batch that is larger than a task, unknown names, fraction
        outside [0, 1].
    """
    images = check_images(images, spec, evaluation, mean, std)
    orders.check_order(order, images, batch, steps)
    check.known("labels", labels, LABELS)
    check.between("fraction", fraction, 0.0, 1.0)
    draw = orders.ORDERS[order]

    def init(key, data):
        rows = draw_rows(for_step(key, Purpose.STREAM), data, images)
        task_key = for_step(key, Purpose.TASK, 0)
        own = data["train"]["y"][rows].astype(jnp.int32)
        return RandomLabelsState(rows, relabel(task_key, own, 1.0), orders.words(jax.random.fold_in(task_key, ORDER)))

    def advance(key, state, data):
        return state._replace(
            labels=relabel(key, state.labels, fraction), order=orders.words(jax.random.fold_in(key, ORDER))
        )

    def relabel(key, old, share):
        fresh = jnp.arange(images) < jnp.round(share * images)
        chosen = jax.random.permutation(jax.random.fold_in(key, CHOICE), images)  # the fresh ones come first
        key = jax.random.fold_in(key, LABEL)
        if labels == "independent":
            new = jax.random.randint(key, (images,), 0, spec["classes"])
        else:  # sorting by these numbers shuffles the fresh ones and leaves the rest where they are
            place = jnp.where(fresh, jax.random.uniform(key, (images,)), 1.0 + jnp.arange(images))
            new = old[chosen[jnp.argsort(place)]]
        return old.at[chosen].set(jnp.where(fresh, new, old[chosen]))

    def sample(key, state, data, step):
        index, weight = draw(state.order, step, images, batch)
        x = scale(data["train"]["x"][state.rows[index]], mean, std)
        return batch_of(x, state.labels[index], weight)

    def evaluate(state, data, split):
        seen = min(images, evaluation) if split == "train" else 1
        x = scale(data["train"]["x"][state.rows[:seen]], mean, std)
        return batch_of(x, state.labels[:seen], jnp.full(seen, float(split == "train")))

    return Stream(init, advance, sample, evaluate, lambda task: steps)
