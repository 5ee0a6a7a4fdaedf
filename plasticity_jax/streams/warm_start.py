"""Data that grow, or whose labels are cleaned.

Letters: n images of the run, B examples of a batch.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.streams import subsets
from plasticity_jax.streams.images import check_images

__all__ = ["warm_start"]

ROWS, NOISY, LABELS = range(3)  # what the key of a run is folded with


def warm_start(
    spec,
    stages: int = 2,
    noise: float = 0.0,
    clean_from: int = 1,
    images: int = 0,
    epochs: int = 350,
    steps: int = 0,
    batch: int = 128,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Task t learns the first min(t + 1, stages) / stages of the run's images, in an order drawn once per run.

    Defaults are those of Ash and Adams 2020 (arXiv 1910.08475): half of CIFAR-10, then all of it, batch 128. The source
    trains until it has converged; 350 epochs are our reading of that. Its comparison, a network that sees all images
    from the start, is a run with `stages=1` and one task. The test set is the data's own throughout.

    With `noise`, a share of the images have labels drawn uniformly in all tasks before `clean_from` and their own from
    there on; `stages=1` keeps the images the same meanwhile.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      stages: tasks until all images are there.
      noise: share of the n images with a random label, 0 to 1; a random label may be the right one.
      clean_from: the first task, counted from 0, in which all labels are the data's.
      images: n, drawn once per run without replacement; 0: all.
      epochs: of a task, where `steps` is 0; an epoch has ceil(n / (stages B)) steps for each stage that is there.
      steps: optimizer steps of each task; 0: as many as the epochs make.
      batch, order, mean, std, evaluation: as for `subset_stream`; raises as it does.

    Returns:
      Stream.

    Raises:
      ValueError: noise outside 0 to 1, more stages than images.
    """
    images = check_images(images, spec, evaluation, mean, std)
    tests = spec["test"]["x"].shape[0]
    for name, value in (("stages", stages), ("epochs", epochs)):
        check.whole(name, value)
    for name, value in (("clean_from", clean_from), ("steps", steps)):
        check.whole(name, value, low=0)
    check.between("noise", noise, 0.0, 1.0)
    if stages > images:
        raise ValueError(f"stages={stages}, but there are {images} images: each stage needs one.")

    def init(key, data):
        key = for_step(key, Purpose.STREAM)
        rows = jax.random.permutation(jax.random.fold_in(key, ROWS), len(data["train"]["y"]))[:images]
        noisy = jax.random.permutation(jax.random.fold_in(key, NOISY), images) < jnp.round(noise * images)
        drawn = jax.random.randint(jax.random.fold_in(key, LABELS), (images,), 0, spec["classes"])
        split = {"train": (rows.astype(jnp.int32), images), "test": (jnp.arange(tests, dtype=jnp.int32), tests)}
        groups = {name: subsets.Grouped(rows, _stage_bounds(total)) for name, (rows, total) in split.items()}
        return jnp.where(noisy, drawn, -1), groups

    def _stage_bounds(total):
        return jnp.array([total * stage // stages for stage in range(stages + 1)], jnp.int32)

    def advance(key, own, groups, task, data):
        return own, groups

    def span(task, split):
        return 0, stages if split == "test" else jnp.minimum(task + 1, stages)

    def label(wrong, task, y, index, split):
        if split == "test":
            return {"y": y}
        return {"y": jnp.where((wrong[index] >= 0) & (task < clean_from), wrong[index], y)}

    def examples(task):
        return images * min(task + 1, stages) // stages

    def length(task):
        return steps or epochs * min(task + 1, stages) * -(-images // (stages * batch))

    parts = {"train": ("train", images), "test": ("test", tests)}
    kind = subsets.Subsets(init, advance, span, label, parts)
    return subsets.subset_stream(spec, kind, length, examples, batch, order, mean, std, evaluation)
