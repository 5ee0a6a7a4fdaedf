"""The same images in the same classes, whose names are permuted at every task.

Letters: C classes, B examples of a batch.
"""

import jax
import jax.numpy as jnp

from plasticity_jax.streams.images import Change, image_stream

__all__ = ["label_permutation", "permute_labels"]

LABELS = 0  # what the key of a task is folded with


def label_permutation(
    spec,
    steps: int = 3_000,
    batch: int = 16,
    images: int = 0,
    first_identity: bool = False,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Permuted classes: task t shows an image of class c with the label p_t(c), p_t a new permutation of the classes.

    What a network has learned of the images stays useful; only its last layer must change. Lyle et al. 2024 (arXiv
    2402.18762, Figure 2) compare it with labels drawn anew for each image, and give no sizes: the defaults are our
    choice. Training and test images of a task share its permutation.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      first_identity: the first task has the labels of the data set.
      steps, batch, images, order, mean, std, evaluation: as for `image_stream`; raises as it does.

    Returns:
      Stream.
    """
    change = permute_labels(spec, first_identity)
    return image_stream(spec, change, steps, batch, images, order, mean, std, evaluation)


def permute_labels(spec, first_identity: bool = False):
    """Change whose state is a permutation [C] int32: which label each class of the data set has."""
    classes = spec["classes"]

    def permutation(key):
        return jax.random.permutation(jax.random.fold_in(key, LABELS), classes).astype(jnp.int32)

    def init(key, y):
        return jnp.arange(classes, dtype=jnp.int32) if first_identity else permutation(key)

    return Change(init, lambda key, state: permutation(key), lambda state, x, y, index, step: (x, state[y]))
