"""Fixed images, new random labels at every task: memorisation again and again.

Letters: n images of the run, B examples of a batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Array
from plasticity_jax.streams.images import Change, image_stream

__all__ = ["draw_labels", "random_labels"]

LABELS = ("independent", "permuted")
CHOICE, LABEL, RANK = 0, 1, 3  # what the key of a task is folded with


class Labels(NamedTuple):
    """What a change with a transition keeps: labels of two tasks, and when each image goes over to the new one."""

    old: Array  # [n] int32
    new: Array  # [n] int32
    rank: Array  # [n] int32 a permutation: images of a low rank go first


def random_labels(
    spec,
    steps: int = 30_000,
    batch: int = 16,
    images: int = 1_200,
    labels: str = "independent",
    fraction: float = 1.0,
    transition: int = 0,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """The random-label stream of Lyle et al. 2023 (section 4.1) and Kumar et al. 2023 (Table 1).

    Defaults are the sizes of Kumar's Random Label MNIST: 1,200 images, batch 16, 30,000 steps (400 epochs) a task; its
    code (github.com/skumar9876/L2_Init) has `labels="permuted"` and scales pixels by mean and std 0.5. There is no test
    set: random labels do not generalise.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      labels: "independent": each label uniform over the classes. "permuted": the data set's own labels, shuffled
        among the images, which keeps the class balance. The paper says both (sections 4.1 and A.1).
      fraction: share of the images whose label is drawn anew at a boundary; the first task draws all.
      transition: T optimizer steps, at most `steps`, in which the labels of the task before turn into the new ones: at
        step s of a task the first ceil(n s / T) images of an order that is drawn for the task have their new label
        (Lyle et al. 2024, arXiv 2402.18762, and others compare smooth shifts with abrupt ones). The first task has
        none. 0: all labels change at once.
      steps, batch, images, order, mean, std, evaluation: as for `image_stream`; raises as it does.

    Returns:
      Stream.

    Raises:
      ValueError: unknown labels, fraction outside [0, 1], a transition that is longer than a task.
    """
    change = draw_labels(spec, steps, labels, fraction, transition)
    return image_stream(spec, change, steps, batch, images, order, mean, std, evaluation)


def draw_labels(spec, steps, labels: str = "independent", fraction: float = 1.0, transition: int = 0):
    """Change whose state is the label [n] int32 of each image, or `Labels`; settings as for `random_labels`."""
    check.known("labels", labels, LABELS)
    check.between("fraction", fraction, 0.0, 1.0)
    check.whole("transition", transition, low=0)
    if transition > steps:
        raise ValueError(f"transition={transition}, but a task has {steps} steps: choose at most {steps}.")

    def relabel(key, old, share):
        images = len(old)
        fresh = jnp.arange(images) < jnp.round(share * images)
        chosen = jax.random.permutation(jax.random.fold_in(key, CHOICE), images)  # the fresh ones come first
        key = jax.random.fold_in(key, LABEL)
        if labels == "independent":
            new = jax.random.randint(key, (images,), 0, spec["classes"])
        else:  # sorting by these numbers shuffles the fresh ones and leaves the rest where they are
            place = jnp.where(fresh, jax.random.uniform(key, (images,)), 1.0 + jnp.arange(images))
            new = old[chosen[jnp.argsort(place)]]
        return old.at[chosen].set(jnp.where(fresh, new, old[chosen]))

    def init(key, y):
        first = relabel(key, y, 1.0)
        return Labels(first, first, jnp.arange(len(y), dtype=jnp.int32)) if transition else first

    def advance(key, state):
        if not transition:
            return relabel(key, state, fraction)
        rank = jax.random.permutation(jax.random.fold_in(key, RANK), len(state.rank)).astype(jnp.int32)
        return Labels(state.new, relabel(key, state.new, fraction), rank)

    def apply(state, x, y, index, step):
        if not transition:
            return x, state[index]
        turned = state.rank[index] < len(state.rank) * jnp.minimum(step / transition, 1.0)
        return x, jnp.where(turned, state.new[index], state.old[index])

    return Change(init, advance, apply, by_image=True)
