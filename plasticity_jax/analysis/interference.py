"""The figure of the gradient covariance C_k: which examples' gradients agree, and which undo each other.

Rows and columns are put in order by k-means on the rows of the matrix, so that examples whose gradients point alike
stand together (Lyle et al. 2023, arXiv 2303.01486, appendix A.1). Letters: k examples.
"""

import math

import numpy as np

from plasticity_jax.analysis import drawing, style
from plasticity_jax.analysis import groups as grouping

__all__ = ["draw", "order"]

NAME = "gradient_covariance"


def order(cosines, clusters=10):
    """An order of the examples in which those of one cluster stand side by side, the largest cluster first.

    Args:
      cosines: [k, k], without NaN.
      clusters: how many; fewer where the matrix has fewer distinct rows.

    Returns:
      ([k] int the example at each place, [k] int its cluster).

    >>> examples, cluster = order(np.array([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]]), clusters=2)
    >>> examples.tolist(), cluster.tolist()
    ([0, 2, 1], [0, 0, 1])
    """
    from sklearn.cluster import KMeans

    clusters = min(clusters, len(np.unique(cosines, axis=0)))
    found = KMeans(clusters, n_init=4, random_state=0).fit_predict(cosines)
    by_size = np.argsort(-np.bincount(found, minlength=clusters), kind="stable")
    rank = np.argsort(by_size)[found]  # 0: in the largest cluster
    examples = np.argsort(rank, kind="stable")
    return examples, rank[examples]


def draw(groups):
    """Heat maps of each group: the first run's C_k after the first and the last task of which there is one.

    Each matrix is ordered by its own clusters: examples stand at other places in another task. Examples that do not
    count are left out. The colours reach from -1 to 1 in every figure.

    Args:
      groups: from `groups.split`.

    Returns:
      Drawing, whose records are the example and the cluster at each place; None where nothing was measured.
    """
    found = [(group, *_matrices(group)) for group in groups if group.values(NAME) is not None]
    if not found:
        return None
    width, beside = max(len(matrices) for _, _, matrices in found), min(2, len(found))  # groups side by side
    figure, axes = style.grid(math.ceil(len(found) / beside), width * beside, height=2.3 if beside > 1 else 3.2)
    free, records = axes.reshape(-1, width), []
    for row, (group, _, matrices) in zip(free, found, strict=False):
        for axis, (task, cosines) in zip(row, matrices.items(), strict=False):
            image, places = _map(axis, cosines)
            label = style.wrapped(group.label, axes.shape[1] + 1)  # beside the colour bar
            axis.set(title=f"{label},\ntask {task + 1}", xticks=[], yticks=[])
            records += [{"variant": group.variant, **group.settings, "task": task + 1, **place} for place in places]
    for axis in axes.flat:
        if not axis.images:
            axis.remove()
    figure.colorbar(image, ax=figure.axes, label="cosine of two examples' gradients", aspect=40, fraction=0.03)
    caption = f"Cosines between the gradients of single examples, of one run ({_named(found)}): its first and its "
    caption += "newest measurement. "
    caption += "Rows and columns are ordered by k-means with 10 clusters, anew in each panel."
    return drawing.Drawing(NAME, figure, caption, records)


def _map(axes, cosines):
    """Draws one matrix in its own order; returns the image, and the example and the cluster at each place."""
    counted = np.flatnonzero(np.isfinite(np.diagonal(cosines)))
    places, clusters = order(cosines[np.ix_(counted, counted)])
    examples = counted[places]
    image = axes.imshow(cosines[np.ix_(examples, examples)], cmap="RdBu_r", vmin=-1, vmax=1)
    pairs = enumerate(zip(examples.tolist(), clusters.tolist(), strict=True))
    return image, [{"place": i, "example": example, "cluster": cluster} for i, (example, cluster) in pairs]


def _matrices(group):
    """The seed of the first run that counts, and its {task: [k, k]} in the first and in the last task measured."""
    values = group.values(NAME).transpose("run", "task", "example", "other")
    values = values[grouping.measured(values, "run")[0]]
    tasks = grouping.measured(values)
    return int(values["seed"]), {task: values.values[task] for task in sorted({tasks[0], tasks[-1]})}


def _named(found):
    """The seeds of the runs that are shown: one if it is the same in all groups."""
    seeds = {group.label: seed for group, seed, _ in found}
    if len(set(seeds.values())) == 1:
        return f"seed {found[0][1]}"
    return "; ".join(f"{label}: seed {seed}" for label, seed in seeds.items())
