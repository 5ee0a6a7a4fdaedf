import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import krylov
import numpy as np
import pytest

from plasticity_jax.curvature import spectrum as sp
from plasticity_jax.curvature.summary import summary

SUMMARY = jax.jit(summary)
SUM = jax.jit(sp.spectral_sum, static_argnums=1)


class Pairs(NamedTuple):
    values: jax.Array
    residuals: jax.Array
    converged: jax.Array


@functools.cache
def _bulk_with_outliers(sign=1.0):
    """Ten eigenvalues beyond a bulk of both signs, and 40% zeros, by 60 steps and 16 probes; and all eigenvalues."""
    rng = np.random.default_rng(3)
    bulk = [-np.linspace(1.0, 2.0, 80), np.zeros(160), np.linspace(1.0, 2.0, 150)]
    values = sign * np.concatenate([*bulk, np.linspace(20.0, 60.0, 10)])
    a, _ = krylov.rotated(rng, values)
    return krylov.spectrum_of(a, 60, 16), values


def _reference(values, floor=1e-6, delta=0.01):
    """The printed formulas in float64, one eigenvalue at a time."""
    values = np.asarray(values, np.float64)
    size = np.abs(values)
    zero = size <= floor * size.max()
    a = np.sort(np.where(zero, 0.0, size))[::-1]
    q = a[a > 0] / a.sum()
    return {
        "largest": values.max(),
        "smallest": values.min(),
        "condition_number": size.max() / size[~zero].min(),
        "negative_mass": size[(values < 0) & ~zero].sum() / a.sum(),
        "negative_fraction": np.mean((values < 0) & ~zero),
        "effective_rank": np.exp(-np.sum(q * np.log(q))),
        "numerical_rank": np.sum(~zero),
        "zero_mass": np.sum(zero),
        "participation_ratio": values.sum() ** 2 / np.sum(values**2),
        "trace": values.sum(),
        "frobenius_norm": np.sqrt(np.sum(values**2)),
    }, 1 + np.sum(np.cumsum(a) < (1 - delta) * a.sum())


RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    "values",
    [
        RNG.standard_normal(40),
        np.exp(-np.arange(40) / 4.0),
        np.concatenate([np.zeros(20), RNG.standard_normal(20) ** 2]),
        -np.linspace(1.0, 3.0, 40),
        np.full(40, 1e-12),
        np.full(40, 1e25),
        np.concatenate([[7.0], np.zeros(39)]),
    ],
    ids=["normal", "decay", "zeros", "negative", "tiny", "huge", "one"],
)
def test_known_eigenvalues_give_the_printed_formulas(values):
    report = SUMMARY(sp.exact(jnp.asarray(values, jnp.float32)))
    want, srank = _reference(values)
    for name, value in want.items():
        assert float(getattr(report, name).value) == pytest.approx(value, rel=2e-5), name
        assert float(getattr(report, name).sem) == 0.0, name
    assert srank - 1 <= float(report.srank.value) <= srank + 1e-3  # a fraction of the last eigenvalue that it needs
    assert float(report.floor) == pytest.approx(1e-6)


def test_srank_counts_fractions_of_an_eigenvalue():
    for values, delta, expected in [
        ([1.0] * 40, 0.01, 39.6),
        ([1.0] * 40, 0.5, 20.0),
        ([50.0, 49.5, 0.5], 0.01, 1 + 49 / 49.5),
        ([-1.0], 0.01, 0.99),
        ([-2.0, 1.0, 1.0], 0.0, 3.0),
    ]:
        s = sp.exact(jnp.zeros(40).at[: len(values)].set(jnp.asarray(values)))
        assert float(SUMMARY(s, delta=delta).srank.value) == pytest.approx(expected, rel=1e-4)


def test_the_zero_operator():
    for s in (krylov.spectrum_of(np.zeros((40, 40)), 12, 4), sp.exact(jnp.zeros(40))):
        report = SUMMARY(s)
        assert float(report.zero_mass.value) == pytest.approx(40.0) and np.isnan(report.condition_number.value)
        others = set(report._fields) - {"zero_mass", "condition_number", "floor"}
        assert all(float(getattr(report, name).value) == 0.0 for name in others)


def test_quadrature_agrees_with_the_eigenvalues_within_its_errors():
    s, values = _bulk_with_outliers()
    report = SUMMARY(s)
    want, srank = _reference(values)
    # a node of little weight may stand in the gap around zero, so the condition number is not that of the matrix
    for name in set(want) - {"condition_number"}:
        e = getattr(report, name)
        assert abs(float(e.value) - want[name]) <= 4 * float(e.sem) + 0.005 * abs(want[name]), (name, e, want[name])
    assert abs(float(report.srank.value) - srank) <= 4 * float(report.srank.sem) + 1
    for name in ("trace", "effective_rank", "negative_mass", "zero_mass"):  # and the errors are worth having
        e = getattr(report, name)
        assert 0 < float(e.sem) < 0.2 * abs(float(e.value)), (name, e)
        np.testing.assert_allclose(e.margin / e.sem, 2.13145, rtol=1e-4)
        assert int(e.matvecs) == 960


def test_the_jackknife_of_linear_statistics_is_their_standard_error():
    s, _ = _bulk_with_outliers()
    report = SUMMARY(s)
    inside = sp.count(s, -1e-4, 1e-4)
    for got, want in [(report.trace, SUM(s, lambda x: x)), (report.zero_mass, inside)]:
        np.testing.assert_allclose(got.value, want.value, rtol=1e-4)
        np.testing.assert_allclose(got.sem, want.sem, rtol=1e-3)


def test_jackknife_errors_tell_the_spread():
    _, values = _bulk_with_outliers()
    a, _ = krylov.rotated(np.random.default_rng(9), values)
    spectra = [krylov.spectrum_of(a, 30, 8, seed=1000 + i) for i in range(24)]
    report = jax.jit(jax.vmap(summary))(jax.tree.map(lambda *x: jnp.stack(x), *spectra))
    for name in ("effective_rank", "srank", "negative_mass", "participation_ratio", "frobenius_norm"):
        e = getattr(report, name)
        spread, typical = np.std(e.value, ddof=1), np.sqrt(np.mean(np.square(e.sem)))
        assert 0.6 < typical / spread < 1.7, (name, spread, typical)  # 24 draws know a spread to 15%


def test_one_probe_has_values_and_no_errors():
    report = SUMMARY(krylov.spectrum_of(krylov.wigner(60), 12, 1))
    assert all(np.isfinite(x.value) and np.isnan(x.sem) for x in report[:-1])


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_outliers_are_counted_with_their_multiplicity(sign):
    s, _ = _bulk_with_outliers(sign)
    report = SUMMARY(s)
    beyond, none = report.outliers_above, report.outliers_below
    edge, other = report.bulk_high, report.bulk_low
    if sign < 0:
        beyond, none, edge, other = none, beyond, other, edge
    assert abs(float(beyond.value) - 10.0) <= 3 * float(beyond.sem) and float(beyond.sem) < 3.0
    assert float(none.value) == 0.0
    assert float(edge.value) == pytest.approx(2.0 * sign, abs=0.1)
    assert float(other.value) == pytest.approx(-2.0 * sign, abs=0.1)


def test_the_degenerate_top_counts_ten():
    values = np.concatenate([np.linspace(-1, 1, 490), np.full(10, 20.0)])
    s = krylov.spectrum_of(krylov.rotated(np.random.default_rng(1), values)[0], 60, 16)
    e = SUMMARY(s).outliers_above
    assert abs(float(e.value) - 10.0) <= 3 * float(e.sem) and float(e.sem) < 2.0


@pytest.mark.parametrize(
    "matrix",
    [krylov.wigner(300), krylov.marchenko_pastur(300, 600), np.eye(40), np.diag(np.repeat([0.0, 5.0], [90, 10]))],
    ids=["goe", "marchenko_pastur", "identity", "projection"],
)
def test_a_bulk_alone_has_no_outliers(matrix):
    report = SUMMARY(krylov.spectrum_of(matrix, 30, 4))
    assert float(report.outliers_above.value) == float(report.outliers_below.value) == 0.0
    values = np.linalg.eigvalsh(matrix)
    nonzero = values[np.abs(values) > 1e-6]
    np.testing.assert_allclose(report.bulk_high.value, nonzero.max(), rtol=0.02)


def test_separation_and_gap_are_settings():
    values = jnp.asarray(np.concatenate([np.linspace(-1, 1, 200), [4.0, 5.2, 6.0, 30.0]]), jnp.float32)
    s = sp.exact(values)
    # median 0 and median distance 0.5; relative gaps of 3, 0.3, 0.15 and 4
    for separation, gap, number in [
        (2.0, 0.25, 4),
        (9.0, 0.25, 3),
        (11.0, 0.25, 1),
        (11.0, 0.1, 2),
        (2.0, 3.5, 1),
        (2.0, 6.0, 0),
        (100.0, 0.25, 0),
    ]:
        report = SUMMARY(s, separation=separation, gap=gap)
        assert float(report.outliers_above.value) == number, (separation, gap)
        assert float(report.bulk_high.value) == pytest.approx(float(values[-1 - number])), (separation, gap)
        assert float(report.outliers_below.value) == 0.0 and float(report.bulk_low.value) == pytest.approx(-1.0)


def test_better_eigenpairs_take_over():
    s = krylov.spectrum_of(krylov.wigner(200), 12, 4)
    alone = SUMMARY(s)
    e = Pairs(
        values=jnp.array([9.0, 2.5, 0.1, -1.0, jnp.nan]),
        residuals=jnp.array([5.0, 1e-3, 1e-4, 1e-3, jnp.nan]),
        converged=jnp.array([False, True, True, True, False]),
    )
    report = SUMMARY(s, e)
    assert [float(x) for x in report.largest[:3]] == pytest.approx([2.5, 1e-3, 1e-3])  # neither 9 nor NaN
    for got, want in zip(report.smallest, alone.smallest, strict=True):  # -1 is no better
        np.testing.assert_allclose(got, want, rtol=1e-5)
    assert float(report.condition_number.value) >= 25.0 * 0.999
    np.testing.assert_allclose(report.trace.value, alone.trace.value, rtol=1e-5)  # eigenpairs carry no mass
    none = SUMMARY(s, e._replace(converged=jnp.zeros(5, bool)))
    for got, want in zip(none[:-1], alone[:-1], strict=True):
        np.testing.assert_allclose(got.value, want.value, rtol=1e-5)


def test_deflated_eigenvalues_enter_exactly():
    values = np.concatenate([np.linspace(-1, 1, 190), 20.0 + np.arange(10)])
    a, q = krylov.rotated(np.random.default_rng(2), values)
    s = krylov.spectrum_of(a, 25, 6, known=q[:, 190:], deflated=values[190:])
    report = SUMMARY(s)
    assert [float(x) for x in report.outliers_above[:2]] == pytest.approx([10.0, 0.0], abs=1e-5)
    assert [float(x) for x in report.largest[:2]] == [29.0, 0.0]
    plain = SUMMARY(krylov.spectrum_of(a, 12, 4))
    assert float(report.trace.sem) < 0.1 * float(plain.trace.sem)
    assert abs(float(report.trace.value) - values.sum()) <= 4 * float(report.trace.sem)


def test_dead_nodes_never_matter_and_failed_probes_do():
    a, _ = krylov.rotated(np.random.default_rng(1), np.repeat([-1.0, 2.0], [30, 70]))
    want = SUMMARY(krylov.spectrum_of(a, 12, 4, garbage=0.5))
    for garbage in (np.nan, np.inf, 1e9):
        got = SUMMARY(krylov.spectrum_of(a, 12, 4, garbage=garbage))
        for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6)
    s = krylov.spectrum_of(a, 12, 4)
    failed = SUMMARY(s._replace(nodes=s.nodes.at[1, 0].set(jnp.nan)))
    assert all(np.isnan(x.value) for x in failed[:-1])


@pytest.mark.slow
def test_jit_and_vmap_change_nothing():
    matrices = [np.eye(60), krylov.wigner(60), np.zeros((60, 60))]
    spectra = [krylov.spectrum_of(a, 12, 4) for a in matrices]
    batched = jax.jit(jax.vmap(summary))(jax.tree.map(lambda *x: jnp.stack(x), *spectra))
    for i, s in enumerate(spectra):
        alone = SUMMARY(s)
        for name in alone._fields[:-1]:
            x, y = getattr(batched, name), getattr(alone, name)
            np.testing.assert_allclose(x.value[i], y.value, rtol=1e-4, atol=1e-5, err_msg=name)
            np.testing.assert_allclose(x.sem[i], y.sem, rtol=1e-2, atol=1e-4 * abs(float(y.value)) + 1e-5, err_msg=name)


@pytest.mark.parametrize("wrong", [{"floor": -1e-6}, {"floor": 1.0}, {"delta": 1.0}, {"gap": -0.1}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} = "):
        summary(sp.exact(jnp.ones(3)), **wrong)
