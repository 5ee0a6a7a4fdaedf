r"""The numbers that one reports of a spectrum, each with its standard error.

Letters: n dimension, p probes, k Lanczos steps, m deflated eigenvalues, j eigenpairs, N = p k + m + j atoms.

All are functions of one discrete measure, sum_a c_a delta(lambda_a): the nodes of all probes, each standing for
c = (n - m) w / p eigenvalues, and the deflated eigenvalues with c = 1. Where the printed formulas sum over eigenvalues,
these sum over atoms with multiplicity c, which need not be a whole number. Most are nonlinear in the measure, so their
errors come from the jackknife: every number is computed again p times, with one probe left out. The jackknife sees the
noise of the probes. It does not see what k steps fail to resolve; for that, compare with k / 2 steps.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax.curvature.estimate import Estimate, jackknife
from plasticity_jax.curvature.spectrum import eigenvalue_counts, matvecs

__all__ = ["Summary", "summary"]


class Summary(NamedTuple):
    """Statistics of a spectrum; formulas in `summary`. All are Estimates of [], but for the floor."""

    largest: Estimate
    smallest: Estimate
    condition_number: Estimate
    negative_mass: Estimate  # share, 0 to 1
    negative_fraction: Estimate  # share, 0 to 1
    effective_rank: Estimate
    srank: Estimate
    numerical_rank: Estimate  # number of eigenvalues
    zero_mass: Estimate  # number of eigenvalues
    participation_ratio: Estimate
    trace: Estimate
    frobenius_norm: Estimate
    outliers_above: Estimate  # number of eigenvalues
    outliers_below: Estimate
    bulk_high: Estimate  # edges of the bulk, in units of the eigenvalues
    bulk_low: Estimate
    floor: jax.Array  # [] what counts as zero, as a share of the largest |eigenvalue|


def summary(s, e=None, floor=1e-6, delta=0.01, separation=10.0, gap=0.25):
    r"""Extremes, condition number, negative curvature, ranks and outliers of a spectrum.

    With r = max |lambda|, z = floor r, a_i = |lambda_i| where that exceeds z and 0 elsewhere, and sums over all n
    eigenvalues:

    - largest, smallest: extremes over the live nodes, the deflated eigenvalues and the converged values of `e`. All of
      them lie inside the spectrum, so the outermost is the best. Where it comes from `e`, sem and margin are the
      residual of that pair: an eigenvalue lies that close. Elsewhere sem is about the distance to the next probe's
      extreme: it tells that k is too small, but it bounds nothing.
    - condition_number: r / min {a_i : a_i > 0}; NaN for A = 0. Small nodes in the midst of an indefinite spectrum are
      not eigenvalues, and there it is no more than the condition number of the quadrature.
    - negative_mass: sum_{lambda_i < 0} a_i / sum_i a_i. negative_fraction: share of eigenvalues with lambda_i < -z.
    - effective_rank: exp(-sum_i q_i ln q_i), q_i = a_i / sum_j a_j.
    - srank: min {x : the x largest a_i carry a share 1 - delta of sum_i a_i}, interpolated inside an atom: round up for
      the integer of the paper.
    - numerical_rank: number of a_i > 0. zero_mass: n less that. Zeros inside a bulk of both signs are resolved to a
      tenth of (largest - smallest) / k or so, and a finer floor misses them; apart from the bulk they are found to
      rounding.
    - trace, frobenius_norm: sum_i lambda_i and sqrt(sum_i lambda_i^2), without floor.
    - participation_ratio: tr(A)^2 / tr(A^2), 1 for rank one and n for c I; small if signs cancel.
    - outliers_above, outliers_below: number of eigenvalues beyond a gap. Of the eigenvalues with a_i > 0, let M be the
      median and D the median distance from it. Going outwards from M, the first eigenvalue that is further from M than
      max(separation D, z), and by a factor 1 + gap further than the one before it, is the first outlier. What is less
      far belongs to the bulk, which ends at bulk_high and bulk_low. A tail without gaps has no outliers.

    In float32 eigenvalues below about 1e-6 r are rounding noise, and millions of them would fill the entropy and the
    negative mass: hence the floor. floor=0 gives the formulas of the papers. A = 0 has ranks, shares and outliers 0.

    Args:
      s: Spectrum.
      e: eigenpairs with .values [j], .residuals [j] and .converged [j] bool, or None. Used for the extremes and the
        condition number; the weights of `s` know the multiplicities, and `e` does not.
      floor: [] share of the largest |eigenvalue| at or below which an eigenvalue counts as zero.
      delta: [] share that srank leaves out.
      separation: [] least distance of an outlier, in median distances D.
      gap: [] least relative gap below an outlier.

    Returns:
      Summary.

    Raises:
      ValueError: for a floor or delta outside [0, 1), or a negative gap.

    Roy & Vetterli 2007, "The effective rank"; Kumar et al. 2021 (arXiv 2010.14498), section 3, for srank; Lewandowski
    et al. 2023 (arXiv 2312.00246) take such ranks of |lambda| of the Hessian. Outliers as in Papyan 2018 (arXiv
    1811.07062), who reads them off a plot; the rule is ours.

    >>> from plasticity_jax.curvature.spectrum import exact
    >>> report = jax.jit(summary)(exact(jnp.array([-1.0, 0.0, 1.0, 1.0, 1.0])))
    >>> [round(float(x.value), 3) for x in (report.effective_rank, report.negative_mass, report.zero_mass)]
    [4.0, 0.25, 1.0]
    """
    if not hasattr(s, "nodes"):
        raise ValueError(f"summary takes a Spectrum, not a {type(s).__name__}: call slq first.")
    for name, value, top in (("floor", floor, 1.0), ("gap", gap, jnp.inf), ("delta", delta, 1.0)):
        if isinstance(value, int | float) and not 0 <= value < top:
            raise ValueError(f"{name} = {value} must lie in [0, {top:g})")
    known = None if e is None else _Pairs(e.values, e.residuals, e.converged)
    return _summary(s, known, floor, delta, separation, gap)


class _Pairs(NamedTuple):
    values: jax.Array
    residuals: jax.Array
    converged: jax.Array


@jax.jit  # outside of it some hundred small operations would be compiled one by one
def _summary(s, e, floor, delta, separation, gap):
    values, counts, certain = _atoms(s, e)
    order = jnp.argsort(jnp.abs(values))
    statistics = partial(_statistics, values[order], certain[order], floor, delta, separation, gap)
    everything = jax.vmap(statistics)(counts[:, order])
    report = {name: jackknife(x[0], x[1:], matvecs(s)) for name, x in everything.items()}
    if e is not None:
        report["largest"] = _with_residual(report["largest"], e, 1.0)
        report["smallest"] = _with_residual(report["smallest"], e, -1.0)
    return Summary(**report, floor=jnp.asarray(floor, values.dtype))


def _atoms(s, e):
    """Values [N], multiplicities [1 + p, N] with all probes and with each left out, and which exist for sure [N]."""
    nodes, counts = eigenvalue_counts(s)
    probes = nodes.shape[0]
    left_out = (1 - jnp.eye(probes)) / max(probes - 1, 1)
    share = jnp.concatenate([jnp.full((1, probes), 1 / probes), left_out]).astype(nodes.dtype)
    if probes == 1:
        share = share[:1]  # nothing is left without the only probe, and the jackknife says NaN
    counts = (share[:, :, None] * counts).reshape(share.shape[0], -1)
    ones = jnp.ones((counts.shape[0], s.deflated.shape[0]), nodes.dtype)
    found, converged = (s.deflated[:0], jnp.zeros(0, bool)) if e is None else (e.values, e.converged)
    found = jnp.where(converged, found, 0.0).astype(nodes.dtype)
    values = jnp.concatenate([nodes.reshape(-1), s.deflated, found])
    certain = jnp.concatenate([jnp.zeros(nodes.size + s.deflated.size, bool), converged])
    return values, jnp.concatenate([counts, ones, jnp.zeros((counts.shape[0], found.size))], axis=1), certain


def _statistics(values, certain, floor, delta, separation, gap, counts):
    """Every statistic of one measure; atoms in ascending order of |value|."""
    present = (counts != 0) | certain
    largest = jnp.max(jnp.where(present, values, -jnp.inf))
    smallest = jnp.min(jnp.where(present, values, jnp.inf))
    radius = jnp.maximum(jnp.abs(largest), jnp.abs(smallest))
    size = jnp.abs(values)
    above = size > floor * radius
    mass = above * size * counts
    total = jnp.sum(mass)
    entropy = jnp.sum(above * counts * jax.scipy.special.entr(size / total))
    u = values / jnp.where(radius == 0, 1.0, radius)  # squares neither overflow nor vanish
    squares = jnp.sum(counts * jnp.square(u))
    least = jnp.min(jnp.where(present & above, size, jnp.inf))
    nonzero = above * counts
    high, low, beyond_high, beyond_low = _outliers(values, nonzero, floor * radius, separation, gap)

    def unless_zero(x, otherwise=0.0):
        return jnp.where(radius == 0, otherwise, x)

    statistics = {
        "largest": largest,
        "smallest": smallest,
        "condition_number": unless_zero(radius / least, jnp.nan),
        "negative_mass": unless_zero(jnp.sum((values < 0) * mass) / total),
        "negative_fraction": unless_zero(jnp.sum((values < 0) * nonzero) / jnp.sum(counts)),
        "effective_rank": unless_zero(jnp.exp(entropy)),
        "srank": unless_zero(_leading(size, nonzero, mass, delta)),
        "numerical_rank": jnp.sum(nonzero),
        "zero_mass": jnp.sum(~above * counts),
        "participation_ratio": unless_zero(jnp.square(jnp.sum(counts * u)) / squares),
        "trace": jnp.sum(counts * values),
        "frobenius_norm": radius * jnp.sqrt(squares),
        "outliers_above": beyond_high,
        "outliers_below": beyond_low,
        "bulk_high": high,
        "bulk_low": low,
    }
    broken = jnp.isnan(jnp.sum(counts))  # comparisons and selections would hide it
    return {name: jnp.where(broken, jnp.nan, value) for name, value in statistics.items()}


def _leading(size, counts, mass, delta):
    """Eigenvalues that it takes to leave out a share delta of the mass, counted from the large end: [].

    The tail sums run from the small end, where they keep their precision. An atom whose tail reaches past delta stands
    for the part of its eigenvalues that is needed.
    """
    tails = jnp.cumsum(mass)
    needed = (tails - delta * tails[-1]) / jnp.where(size == 0, 1.0, size)
    return jnp.sum(jnp.clip(needed, 0.0, counts))


def _outliers(values, counts, zero, separation, gap):
    """Edges of the bulk, high and low, and the number of eigenvalues beyond each."""
    order = jnp.argsort(values)
    values, counts = values[order], counts[order]
    centre = _median(values, counts)
    distances = jnp.abs(values - centre)
    by_distance = jnp.argsort(distances)
    threshold = jnp.maximum(separation * _median(distances[by_distance], counts[by_distance]), zero)
    high, beyond_high = _beyond(values - centre, counts, threshold, gap)
    low, beyond_low = _beyond((centre - values)[::-1], counts[::-1], threshold, gap)
    return centre + high, centre - low, beyond_high, beyond_low


def _beyond(distances, counts, threshold, gap):
    """How far the bulk reaches, and the number of eigenvalues beyond; signed distances from its centre, ascending."""
    reached = jnp.where(counts == 0, 0.0, jnp.maximum(distances, 0.0))
    before = jnp.concatenate([jnp.zeros_like(reached[:1]), jax.lax.cummax(reached)[:-1]])
    separated = (reached > threshold) & (reached > (1 + gap) * before)
    first = jnp.min(jnp.where(separated, distances, jnp.inf))
    return jnp.max(jnp.where(distances < first, reached, 0.0)), jnp.sum((distances >= first) * counts)


def _median(values, counts):
    """Median of ascending values with multiplicities."""
    half = jnp.cumsum(counts)
    return values[jnp.argmax(half >= half[-1] / 2)]


def _with_residual(extreme, e, sign):
    """The error of an extreme eigenvalue that a converged pair knows best: its residual."""
    signed = jnp.where(e.converged, sign * e.values, -jnp.inf)
    best = jnp.argmax(signed)
    known = signed[best] >= sign * extreme.value
    sem = jnp.where(known, e.residuals[best], extreme.sem)
    return extreme._replace(sem=sem, margin=jnp.where(known, e.residuals[best], extreme.margin))
