"""Means over seeds with intervals that hold their level with few seeds.

Two intervals are offered, and the reports say which is used where.

student: mean ± t(n-1) s / sqrt(n). Exact for normal data and the default for differences paired by seed, which are
nearer to normal than the values themselves, and for the numbers of a table. It may leave [0, 1].

bootstrap: whole runs are drawn with replacement, so that all tasks of a run stay together; the interval lies between
quantiles of the resampled statistic. The plain percentile interval is too narrow, by sqrt((n-1)/n) z/t: with normal
data it covers 89% instead of 95% at 8 seeds, and 84% at 5. Its tails are therefore moved out to
Phi(-sqrt(n/(n-1)) t(n-1)): the expanded percentile interval of Hesterberg, "What teachers should know about the
bootstrap" (The American Statistician 69(4), 2015), which covers 95% at 8 seeds and 92% at 5. No such interval leaves
the range of the data, so with fewer than 5 seeds none can reach 95%.

rliable resamples every task on its own, because there a task is a training of its own. Here the tasks of a run follow
from one another, and resampling them apart would make averages over tasks look far more certain than they are.

Dimensions: n runs, K columns, B resamples.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import scipy.stats

__all__ = ["Interval", "bootstrap", "interval", "iqm", "paired_difference", "student"]

RESAMPLES = 10_000


class Interval(NamedTuple):
    """A statistic over runs, its interval, and how many runs it rests on."""

    mean: np.ndarray  # the statistic: mean unless asked otherwise
    low: np.ndarray  # NaN where fewer than two runs are there
    high: np.ndarray
    n: np.ndarray  # int: finite values that went in


def interval(values, axis=0, method="bootstrap", statistic="mean", level=0.95, resamples=RESAMPLES, seed=0):
    """Mean (or interquartile mean) over runs with its interval; values that are not finite are left out.

    Args:
      values: array or DataArray with runs along `axis` (an index, or the name of a dimension).
      method: "bootstrap" or "student"; see the module's docstring.
      statistic: "mean" or "iqm", the mean of the middle half; "iqm" needs the bootstrap.
      level: probability that the interval should cover the truth with.
      resamples: number of bootstrap resamples.
      seed: of the resampling, so that the same numbers give the same interval.

    Returns:
      Interval whose fields have the shape of `values` without `axis`.

    Raises:
      ValueError: unknown method or statistic, or a level outside (0, 1).

    >>> interval(np.array([0.1, 0.2, 0.3, 0.4]), method="student").mean
    array(0.25)
    """
    _check(method, statistic, level)
    if hasattr(values, "dims"):
        axis = values.dims.index(axis) if isinstance(axis, str) else axis
    values = np.moveaxis(np.asarray(values, dtype=np.float64), axis, 0)  # [n, ...]
    columns = values.reshape(values.shape[0], math.prod(values.shape[1:]))  # [n, K]
    out = np.full((3, columns.shape[1]), np.nan)
    finite = np.isfinite(columns)
    for mask, where in _patterns(finite):
        sample = columns[np.ix_(mask, where)]
        if len(sample) and method == "student":
            out[:, where] = student(sample, level)
        elif len(sample):
            out[:, where] = bootstrap(sample, statistic, level, resamples, seed)
    shape = values.shape[1:]
    return Interval(*(row.reshape(shape) for row in out), finite.sum(0).reshape(shape))


def student(sample, level=0.95):
    """Mean and Student t interval of each column of [n, K]: (mean, low, high), [K] each.

    >>> student(np.array([[1.0], [1.0]]))
    (array([1.]), array([1.]), array([1.]))
    """
    n, mean = len(sample), _mean(sample)
    if n < 2:
        return mean, np.full_like(mean, np.nan), np.full_like(mean, np.nan)
    half = scipy.stats.t.ppf((1 + level) / 2, n - 1) * sample.std(axis=0, ddof=1, mean=mean[None]) / math.sqrt(n)
    return mean, mean - half, mean + half


def bootstrap(sample, statistic="mean", level=0.95, resamples=RESAMPLES, seed=0):
    """Statistic and expanded percentile interval of each column of [n, K]: (statistic, low, high), [K] each."""
    n = len(sample)
    centre = _mean(sample) if statistic == "mean" else iqm(sample)
    if n < 2:
        return centre, np.full_like(centre, np.nan), np.full_like(centre, np.nan)
    chosen, counts = _resamples(n, resamples, seed)  # the same runs for all columns
    if statistic == "mean":
        drawn = sample[0] + counts @ (sample - sample[0]) / n  # [B, K]; the shift keeps constant columns exact
    else:
        drawn = np.stack([iqm(column[chosen], axis=1) for column in sample.T], axis=1)  # [B, K]
    tail = scipy.stats.norm.cdf(-math.sqrt(n / (n - 1)) * scipy.stats.t.ppf((1 + level) / 2, n - 1))
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return centre, low, high


def iqm(values, axis=0):
    """Interquartile mean: the mean without the lowest and the highest quarter, floor(n/4) values each.

    >>> float(iqm(np.array([0.0, 1.0, 3.0, 100.0])))
    2.0
    """
    return np.asarray(scipy.stats.trim_mean(values, 0.25, axis=axis))


def paired_difference(a, b, method="student", level=0.95):
    """Mean of a - b over runs matched by seed and by every grid setting that both have, with its interval.

    Args:
      a: DataArray with dimension run, coordinate `seed` and one per grid setting on run; other dimensions as in b.
      b: what is subtracted. Runs without a partner are left out; `n` says how many pairs there were.
      method: "student" (n - 1 degrees of freedom) or "bootstrap".
      level: as in `interval`.

    Raises:
      ValueError: a key (seed and shared settings) occurs twice in a or in b, so that pairs are not defined.

    >>> import xarray
    >>> a = xarray.DataArray([1.0, 2.0], dims="run", coords={"seed": ("run", [0, 1])})
    >>> b = xarray.DataArray([2.5, 0.5], dims="run", coords={"seed": ("run", [1, 0])})
    >>> paired_difference(a, b).mean, paired_difference(a, b).n
    (array(0.), array(2))
    """
    shared = [name for name in a.coords if name in b.coords and a[name].dims == b[name].dims == ("run",)]
    first, second = _keys(a, shared), _keys(b, shared)
    pairs = [(i, second[key]) for key, i in first.items() if key in second]
    left = a.isel(run=[i for i, _ in pairs]).transpose("run", ...)
    right = b.isel(run=[j for _, j in pairs]).transpose(*left.dims)
    return interval(left.values.astype(np.float64) - right.values, method=method, level=level)


@functools.lru_cache(maxsize=8)
def _resamples(n, resamples, seed):
    """Runs drawn with replacement, [B, n] int, and how often each was drawn, [B, n] float."""
    chosen = np.random.default_rng(seed).integers(n, size=(resamples, n))
    cells = (np.arange(resamples)[:, None] * n + chosen).reshape(-1)
    return chosen, np.bincount(cells, minlength=resamples * n).reshape(resamples, n).astype(np.float64)


def _keys(array, names):
    """{(seed, settings): index of the run}; floats are compared as float32, which is how runs see them."""
    columns = [np.asarray(array[name].values, np.float32 if name != "seed" else None).tolist() for name in names]
    keys = {key: i for i, key in enumerate(zip(*columns, strict=True))}
    if len(keys) < array.sizes["run"]:
        raise ValueError(f"runs are not told apart by {', '.join(names)}: select one grid point before pairing")
    return keys


def _mean(sample):
    """Mean over the first axis, exact for constant columns."""
    return sample[0] + (sample - sample[0]).mean(axis=0)


def _patterns(finite):
    """(rows that are finite, columns) for each pattern of finite rows among the columns of [n, K]."""
    patterns, which = np.unique(finite, axis=1, return_inverse=True)
    return [(patterns[:, i], np.flatnonzero(which.reshape(-1) == i)) for i in range(patterns.shape[1])]


def _check(method, statistic, level):
    """Refuses settings that no branch serves."""
    if method not in ("bootstrap", "student"):
        raise ValueError(f"method {method!r}: choose bootstrap or student")
    if statistic not in ("mean", "iqm") or (statistic, method) == ("iqm", "student"):
        raise ValueError(f"statistic {statistic!r} with method {method!r}: choose mean, or iqm with the bootstrap")
    if not 0 < level < 1:
        raise ValueError(f"level {level}: choose a number between 0 and 1")
