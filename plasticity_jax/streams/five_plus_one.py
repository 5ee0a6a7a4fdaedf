"""Hard tasks of five new classes and easy tasks of one new class, in turn."""

import functools

from plasticity_jax import check
from plasticity_jax.streams import subsets

__all__ = ["five_plus_one"]


def five_plus_one(
    spec,
    hard: int = 5,
    easy: int = 1,
    per_class: int = 500,
    steps: int = 780,
    batch: int = 32,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """5+1 CIFAR of Kumar et al. 2023 (arXiv 2308.11958, Table 1): tasks 0, 2, 4, ... are hard, the others easy.

    A hard task has 5 classes and an easy one has 1, 500 images of each, and no class comes twice in a run; each run
    draws the order of its classes. The network predicts all classes of the data. Every task has 780 steps of batch 32:
    10 epochs of a hard one, in which the source has 78 whole batches. The source scores the hard tasks alone.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      hard, easy: classes of a hard and of an easy task.
      per_class: training images of each class, drawn once per run; 0: all.
      steps, batch, order, mean, std, evaluation: as for `subset_stream`; raises as it does.

    Returns:
      Stream. Test images are those of the task's classes.

    Raises:
      ValueError: more images of a class than the data has; from `steps(task)`, more classes than the data has.
    """
    for name, value in (("hard", hard), ("easy", easy)):
        check.whole(name, value)
    splits = subsets.shares(spec, per_class)
    each = splits["train"].high - splits["train"].low

    def span(task, split="train"):
        first = (task // 2) * (hard + easy) + (task % 2) * hard
        return first, first + hard - (task % 2) * (hard - easy)

    def length(task):
        subsets.within_classes(task, span(task)[1], spec["classes"])
        return steps

    def examples(task):
        first, last = span(task)
        return each * (last - first)

    kind = subsets.Subsets(
        init=functools.partial(subsets.draw_groups, classes=spec["classes"], splits=splits),
        advance=lambda key, place, groups, task, data: (place, groups),
        span=span,
        label=lambda place, task, y, index, split: {"y": y},
        parts={s: (share.part, (share.high - share.low) * max(hard, easy)) for s, share in splits.items()},
    )
    return subsets.subset_stream(spec, kind, length, examples, batch, order, mean, std, evaluation)
