"""One pair of classes after the other."""

import functools

import jax
import jax.numpy as jnp

from plasticity_jax.schedule import when_any
from plasticity_jax.streams import subsets

__all__ = ["continual_pairs"]

PAIR = 2


def continual_pairs(
    spec,
    per_class: int = 600,
    held_out: int = 100,
    steps: int = 120,
    batch: int = 100,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Tasks of two classes, as in Continual ImageNet of Dohare et al. 2024 and Kumar et al. 2023 (Table 1).

    The classes are paired by a permutation that each run draws; when all are used up, a new one pairs them anew. The
    network has two outputs, and the labels of a task are 0 and 1. Defaults are Kumar's: 600 training and 100 test
    images of each class, batch 100, 120 steps (10 epochs) a task. Dohare's tasks have 250 epochs, `steps=3_000`, and
    the head's weights and bias are zeroed before each, which is for an intervention to do.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      per_class: training images of each class, the same throughout a run; 0: all that are not held out.
      held_out: training images of each class that are the test set instead of the data's own, as in the source, whose
        700 images of a class are all from ImageNet's training set; 0: test on the data's own test set.
      steps, batch, order, mean, std, evaluation: as for `subset_stream`; raises as it does.

    Returns:
      Stream.

    Raises:
      ValueError: more images of a class than the data has, a single class.

    Deviation: of an odd number of classes, each permutation leaves one out.
    """
    classes = spec["classes"]
    if classes < PAIR:
        raise ValueError(f"classes={classes}, but a pair needs at least 2: choose other data.")
    pairs = classes // PAIR
    splits = subsets.shares(spec, per_class, held_out, "test")

    def advance(key, place, groups, task, data):
        def pair_anew(state):  # sorts all images: not at every boundary
            key, _, groups = state
            place = jax.random.permutation(jax.random.fold_in(key, subsets.CLASSES), classes).astype(jnp.int32)
            found = {s: subsets.group(g.rows, data[splits[s].part]["y"], place) for s, g in groups.items()}
            return key, place, found

        return when_any(task % pairs == 0, pair_anew, (key, place, groups))[1:]

    def span(task, split):
        first = PAIR * (task % pairs)
        return first, first + PAIR

    kind = subsets.Subsets(
        init=functools.partial(subsets.draw_groups, classes=classes, splits=splits),
        advance=advance,
        span=span,
        label=lambda place, task, y, index, split: {"y": place[y] % PAIR},
        parts={split: (share.part, PAIR * (share.high - share.low)) for split, share in splits.items()},
    )
    examples = PAIR * (splits["train"].high - splits["train"].low)
    return subsets.subset_stream(
        spec, kind, lambda task: steps, lambda task: examples, batch, order, mean, std, evaluation, outputs=PAIR
    )
