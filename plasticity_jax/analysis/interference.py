"""The figure of the gradient covariance C_k: which examples' gradients agree, and which undo each other.

Rows and columns are put in order by k-means on the rows of the matrix, so that examples whose gradients point alike
stand together (Lyle et al. 2023, arXiv 2303.01486, appendix A.1). Letters: k examples.
"""

import numpy as np

from plasticity_jax.analysis import style

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
    """A row of heat maps for each group: the first run's C_k after the first and the last task of which there is one.

    Each matrix is ordered by its own clusters: examples stand at other places in another task. Examples that do not
    count are left out. The colours reach from -1 to 1 in every figure.

    Args:
      groups: from `groups.split`.

    Returns:
      (matplotlib Figure, records: the example and the cluster at each place); None where nothing was measured.
    """
    rows = [(group, _matrices(group)) for group in groups if group.values(NAME) is not None]
    if not rows:
        return None
    figure, axes = style.grid(len(rows), max(len(found) for _, found in rows), height=3.2)
    records = []
    for row, (group, found) in zip(axes, rows, strict=True):
        for axis, (task, cosines) in zip(row, found.items(), strict=False):
            counted = np.flatnonzero(np.isfinite(np.diagonal(cosines)))
            places, clusters = order(cosines[np.ix_(counted, counted)])
            examples = counted[places]
            image = axis.imshow(cosines[np.ix_(examples, examples)], cmap="RdBu_r", vmin=-1, vmax=1)
            axis.set(title=f"{group.label}, task {task + 1}", xticks=[], yticks=[])
            records += [
                {"variant": group.variant, **group.settings, "task": task + 1, "place": i, "example": e, "cluster": c}
                for i, (e, c) in enumerate(zip(examples.tolist(), clusters.tolist(), strict=True))
            ]
        for axis in row[len(found) :]:
            axis.remove()
    figure.colorbar(image, ax=figure.axes, label="cosine of two examples' gradients", shrink=0.8)
    return figure, records


def _matrices(group):
    """{task: [k, k]} of the first run that counts, in the first and in the last task that was measured."""
    values = group.values(NAME).transpose("run", "task", "example", "other")
    values = values[int(np.flatnonzero(np.isfinite(values).any(("task", "example", "other")))[0])]
    tasks = np.flatnonzero(np.isfinite(values).any(("example", "other")))
    return {int(task): values.values[task] for task in sorted({*tasks[:1], *tasks[-1:]})}
