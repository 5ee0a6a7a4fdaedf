"""Fixed images, new random labels at every task: memorisation again and again.

Letters: n images of the run, B examples of a batch.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.streams.images import Change, image_stream

__all__ = ["draw_labels", "random_labels"]

LABELS = ("independent", "permuted")
CHOICE, LABEL = range(2)  # what the key of a task is folded with


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

    Defaults are Kumar's Random Label MNIST: 1,200 images, batch 16, 30,000 steps (400 epochs) a task. There is no test
    set: random labels do not generalise.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      labels: "independent": each label uniform over the classes. "permuted": the data set's own labels, shuffled
        among the images, which keeps the class balance. The paper says both (sections 4.1 and A.1).
      fraction: share of the images whose label is drawn anew at a boundary; the first task draws all.
      steps, batch, images, order, mean, std, evaluation: as for `image_stream`; raises as it does.

    Returns:
      Stream.

    Raises:
      ValueError: unknown labels, fraction outside [0, 1].
    """
    change = draw_labels(spec, labels, fraction)
    return image_stream(spec, change, steps, batch, images, order, mean, std, evaluation)


def draw_labels(spec, labels: str = "independent", fraction: float = 1.0):
    """Change whose state is the label [n] int32 of each image; the settings are those of `random_labels`."""
    check.known("labels", labels, LABELS)
    check.between("fraction", fraction, 0.0, 1.0)

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

    return Change(
        init=lambda key, y: relabel(key, y, 1.0),
        advance=lambda key, state: relabel(key, state, fraction),
        apply=lambda state, x, y, index, step: (x, state[index]),
        by_image=True,
    )
