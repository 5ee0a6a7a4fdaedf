"""A number with its error: what every stochastic function of this package returns.

Letters: p independent probes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

__all__ = ["Estimate", "estimate", "jackknife", "length"]


class Estimate(NamedTuple):
    """A number, or an array of them, with its error and its price."""

    value: jax.Array  # [...]
    sem: jax.Array  # [...] standard error of the value over the probes; NaN for one probe
    margin: jax.Array  # [...] half the width of a 95% interval
    matvecs: jax.Array  # [] int32, matrix-vector products spent


def estimate(samples, matvecs):
    r"""Mean over independent probes, with its standard error and a 95% interval.

    sem = sqrt(sum_i (x_i - mean)^2 / (p - 1) / p) and margin = t_{p-1}(0.975) sem, Student's t: with 16 probes the
    variance over p and the normal quantile 1.96 would cover 91% where they claim 95%.

    Args:
      samples: [p, ...] one value per probe.
      matvecs: [] products spent on all of them.

    Returns:
      Estimate of [...] floating; sem and margin are NaN for p = 1.

    Raises:
      ValueError: without a sample.

    >>> print([round(float(x), 3) for x in estimate(jnp.array([1.0, 2.0, 3.0]), matvecs=3)])
    [2.0, 0.577, 2.484, 3.0]
    """
    samples = jnp.asarray(samples)
    probes = samples.shape[0]
    if probes < 1:
        raise ValueError("an estimate needs at least one sample")
    value = jnp.mean(samples, axis=0)
    sem = length(samples - value) / ((probes - 1) * probes) ** 0.5 if probes > 1 else jnp.full_like(value, jnp.nan)
    return _with_margin(value, sem, probes, matvecs)


def jackknife(value, replicates, matvecs):
    r"""A smooth function of a mean over probes, with the standard error that leaving out each probe in turn implies.

    sem = sqrt((p - 1) / p sum_i (r_i - mean r)^2) with r_i the value without probe i: for a mean it equals the sem of
    `estimate`. The value is kept as it is, not corrected for bias.

    Args:
      value: [...] from all probes.
      replicates: [p, ...] from all probes but one.
      matvecs: [] products spent.

    Returns:
      Estimate of [...]; sem and margin are NaN for p < 2.

    Efron & Stein 1981, "The jackknife estimate of variance".

    >>> x = jnp.array([1.0, 2.0, 3.0])
    >>> print(round(float(jackknife(jnp.mean(x), (jnp.sum(x) - x) / 2, matvecs=3).sem), 3))
    0.577
    """
    value, replicates = jnp.asarray(value), jnp.asarray(replicates)
    probes = replicates.shape[0]
    if probes < 2:
        return _with_margin(value, jnp.full_like(value, jnp.nan), 1, matvecs)
    sem = length(replicates - jnp.mean(replicates, axis=0)) * ((probes - 1) / probes) ** 0.5
    return _with_margin(value, sem, probes, matvecs)


def length(x):
    """Root of the sum of squares over the first axis, none of which leaves the range of its type."""
    top = jnp.max(jnp.abs(x), axis=0)
    unit = jnp.where((top > 0) & (top < jnp.inf), top, 1)
    return unit * jnp.sqrt(jnp.sum(jnp.square(x / unit), axis=0))


def _with_margin(value, sem, probes, matvecs):
    """The record; one probe has no degrees of freedom left and thus no interval."""
    from scipy.special import stdtrit  # the quantile of Student's t, without the weight of scipy.stats

    quantile = float(stdtrit(probes - 1, 0.975)) if probes > 1 else float("nan")
    return Estimate(value, sem, quantile * sem, jnp.asarray(matvecs, jnp.int32))
