"""More and more classes of one data set, some at every task.

Letters: K classes, B examples of a batch.
"""

import functools

import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.streams import subsets
from plasticity_jax.streams.augment import PAD
from plasticity_jax.streams.augment import augment as augmented

__all__ = ["class_incremental"]


def class_incremental(
    spec,
    classes_per_task: int = 5,
    cumulative: bool = True,
    per_class: int = 0,
    validation: int = 50,
    epochs: int = 200,
    steps: int = 0,
    batch: int = 90,
    augment: bool = True,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Class-incremental learning: at task t the first (t + 1) c classes of an order that each run draws.

    Defaults are the CIFAR-100 of Dohare et al. 2024 (Nature 632, and its code): 5 new classes a task, all images of the
    classes so far, 450 training and 50 validation images of each, 200 epochs a task, batch 90; flips, crops and
    rotations of training images (`streams/augment.py`). An epoch of task t has t + 1 times ceil(c m / B) steps, m
    training images of a class. The source's learning rate starts anew with each task: `schedule` "step" with decay 0.2
    and milestones (0.3, 0.6, 0.8); the best network on the validation images goes on: `early_stopping`.

    Batches also carry "classes" [B, K] bool, which classes have come so far, the same for all examples: the softmax
    head and accuracies leave the others out, as the source does. And "task" [B] int32: with which task the example's
    class came.

    Args:
      spec: shapes of the data, with K under "classes".
      classes_per_task: c.
      cumulative: train on all classes so far; False: on the new ones only. Tests are on all so far either way.
      per_class: m; 0: all that are not for validation, N // K - validation.
      validation: training images of each class held out as the split "validation".
      epochs: of a task, where `steps` is 0.
      steps: optimizer steps of each task; 0: as many as the epochs make.
      augment: change training images at random.
      batch, order, mean, std, evaluation: as for `subset_stream`; raises as it does.

    Returns:
      Stream.

    Raises:
      ValueError: more classes than the data has, more images of a class than it has.

    Deviations: the source's loader changes its test images at random too, here they stay as they are; its validation
    images are the first 50 of each class in all runs, here each run draws its own; its epochs end with a short batch
    where there is one, here only where `order` is "shuffled_ragged".
    """
    classes = spec["classes"]
    for name, value in (("classes_per_task", classes_per_task), ("epochs", epochs)):
        check.whole(name, value)
    check.whole("steps", steps, low=0)
    splits = subsets.shares(spec, per_class, validation, "validation")
    new = classes_per_task * (splits["train"].high - splits["train"].low)  # examples that come with a task

    def span(task, split):
        first = 0 if cumulative or split == "test" else task * classes_per_task
        return first, (task + 1) * classes_per_task

    def growth(task):
        return task + 1 if cumulative else 1

    def examples(task):
        return new * growth(task)

    def length(task):
        subsets.within_classes(task, span(task, "test")[1], classes)
        return steps or epochs * growth(task) * -(-new // batch)

    def label(place, task, y, index, split):
        seen = jnp.broadcast_to(place < span(task, "test")[1], (len(y), classes))
        return {"y": y, "task": place[y] // classes_per_task, "classes": seen}

    def most(split, share):
        return (share.high - share.low) * (classes_per_task if split == "train" and not cumulative else classes)

    kind = subsets.Subsets(
        init=functools.partial(subsets.draw_groups, classes=classes, splits=splits),
        advance=lambda key, place, groups, task, data: (place, groups),
        span=span,
        label=label,
        parts={split: (share.part, most(split, share)) for split, share in splits.items()},
    )
    change = augmented if augment else None
    stream = subsets.subset_stream(spec, kind, length, examples, batch, order, mean, std, evaluation, augment=change)
    if augment and min(spec["train"]["x"].shape[1:3]) <= PAD:
        raise ValueError(
            f"augment=True shifts images by up to {PAD} pixels: they must be larger, or set augment=False."
        )
    return stream
