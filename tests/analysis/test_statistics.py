import numpy as np
import pytest
import scipy.stats
import xarray as xr
from rliable import metrics as rliable_metrics

from plasticity_jax.analysis import statistics


def runs(values, seeds, **settings):
    coords = {"seed": ("run", list(seeds))} | {k: ("run", v) for k, v in settings.items()}
    return xr.DataArray(np.asarray(values, np.float32), dims=("run", "task")[: np.ndim(values)], coords=coords)


def test_student_interval_is_scipys():
    sample = np.random.default_rng(0).normal(size=(8, 5))
    got = statistics.interval(sample, method="student")
    low, high = scipy.stats.t.interval(0.95, 7, loc=sample.mean(0), scale=scipy.stats.sem(sample))
    np.testing.assert_allclose(got.mean, sample.mean(0))
    np.testing.assert_allclose(got.low, low)
    np.testing.assert_allclose(got.high, high)
    assert (got.n == 8).all()


def test_bootstrap_interval_is_scipys_percentile_interval_at_the_expanded_level():
    sample = np.random.default_rng(1).gamma(2.0, size=8)
    tail = scipy.stats.norm.cdf(-np.sqrt(8 / 7) * scipy.stats.t.ppf(0.975, 7))
    options = {"method": "percentile", "n_resamples": 200_000, "batch": 20_000}
    theirs = scipy.stats.bootstrap((sample,), np.mean, confidence_level=1 - 2 * tail, **options)
    ours = statistics.interval(sample, resamples=200_000)
    np.testing.assert_allclose([ours.low, ours.high], theirs.confidence_interval, rtol=0.02)


@pytest.mark.parametrize(("n", "draw"), [(8, "normal"), (8, "uniform"), (20, "exponential")])
def test_bootstrap_covers_the_mean_nearly_as_often_as_it_says(n, draw):
    truth = {"normal": 0.0, "uniform": 0.5, "exponential": 1.0}[draw]
    sample = getattr(np.random.default_rng(2), draw)(size=(n, 2000))
    got = statistics.interval(sample, resamples=2000)
    coverage = np.mean((got.low <= truth) & (truth <= got.high))
    plain = np.quantile(np.random.default_rng(3).multinomial(n, [1 / n] * n, 2000) @ sample / n, [0.025, 0.975], axis=0)
    narrow = np.mean((plain[0] <= truth) & (truth <= plain[1]))
    assert 0.915 < coverage < 0.97  # standard error 0.005
    assert coverage > narrow + 0.01


def test_bootstrap_keeps_the_tasks_of_a_run_together():
    level = np.random.default_rng(4).normal(size=(10, 1))
    values = np.repeat(level, 50, axis=1)  # tasks of a run agree: 50 of them say no more than one
    one, all_tasks = statistics.interval(values[:, 0]), statistics.interval(values.mean(1))
    np.testing.assert_allclose(all_tasks.high - all_tasks.low, one.high - one.low)


def test_intervals_repeat_and_bands_stay_within_the_data():
    sample = np.random.default_rng(5).random((6, 3))
    a, b = statistics.interval(sample), statistics.interval(sample)
    np.testing.assert_array_equal(a, b)
    assert (a.low >= sample.min(0)).all() and (a.high <= sample.max(0)).all()
    assert (a.low < a.mean).all() and (a.mean < a.high).all()


@pytest.mark.parametrize("n", [4, 7, 8, 13])
def test_iqm_is_rliables(n):
    sample = np.random.default_rng(n).normal(size=n)
    np.testing.assert_allclose(statistics.iqm(sample), rliable_metrics.aggregate_iqm(sample[:, None]))
    got = statistics.interval(sample, statistic="iqm", resamples=500)
    assert got.low < got.mean < got.high


def test_an_outlier_moves_the_mean_and_not_the_iqm():
    sample = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, -100.0])
    assert statistics.interval(sample, statistic="iqm").mean == 0.5
    assert statistics.interval(sample).mean < -10


@pytest.mark.parametrize("method", ["student", "bootstrap"])
def test_a_constant_sample_has_an_interval_without_width(method):
    got = statistics.interval(np.full((8, 2), 0.1), method=method)
    np.testing.assert_array_equal([got.mean, got.low, got.high], np.full((3, 2), 0.1))


@pytest.mark.parametrize("method", ["student", "bootstrap"])
def test_one_seed_has_a_mean_and_no_interval(method):
    got = statistics.interval(np.array([[0.25, 0.5]]), method=method)
    np.testing.assert_array_equal(got.mean, [0.25, 0.5])
    assert np.isnan(got.low).all() and np.isnan(got.high).all() and (got.n == 1).all()


@pytest.mark.parametrize("method", ["student", "bootstrap"])
def test_no_seed_has_nothing(method):
    got = statistics.interval(np.zeros((0, 3)), method=method)
    assert np.isnan(got.mean).all() and (got.n == 0).all()


def test_values_that_are_not_finite_are_left_out_and_not_counted():
    sample = np.array([[1.0, 1.0], [2.0, np.nan], [3.0, np.inf], [4.0, 3.0]])
    got = statistics.interval(sample, method="student")
    np.testing.assert_array_equal(got.n, [4, 2])
    np.testing.assert_array_equal(got.mean, [2.5, 2.0])
    alone = statistics.interval(np.array([1.0, 3.0]), method="student")
    assert got.low[1] == alone.low and got.high[1] == alone.high


def test_axis_by_name_and_by_index_agree():
    values = xr.DataArray(np.random.default_rng(6).random((3, 8)), dims=("task", "run"))
    np.testing.assert_array_equal(statistics.interval(values, "run"), statistics.interval(values.values, 1))


def test_pairs_are_matched_by_seed_not_by_position():
    a = runs([[3.0], [1.0], [2.0]], [3, 1, 2])
    b = runs([[1.5], [2.5], [3.5], [9.0]], [1, 2, 3, 4])
    got = statistics.paired_difference(a, b)
    assert got.n == 3
    np.testing.assert_array_equal([got.mean, got.low, got.high], np.full((3, 1), -0.5))


def test_pairs_are_matched_by_grid_point_too():
    rate = "optimizer.learning_rate"
    a = runs([1.0, 10.0, 2.0, 20.0], [0, 0, 1, 1], **{rate: [0.1, 0.01, 0.1, 0.01]})
    b = runs([20.0, 2.0, 10.0, 1.0], [1, 1, 0, 0], **{rate: np.float32([0.01, 0.1, 0.01, 0.1])})
    got = statistics.paired_difference(a, b)
    assert got.n == 4 and got.mean == got.low == got.high == 0
    with pytest.raises(ValueError, match="not told apart by seed"):
        statistics.paired_difference(a.drop_vars(rate), b)


def test_pairing_is_students_interval_of_the_differences_and_narrower_than_without():
    rng = np.random.default_rng(7)
    shared = rng.normal(size=8)
    a, b = runs(shared + 0.3 + 0.1 * rng.normal(size=8), range(8)), runs(shared, range(8))
    got = statistics.paired_difference(a, b)
    test = scipy.stats.ttest_rel(a, b).confidence_interval(0.95)
    np.testing.assert_allclose([got.low, got.high], test, rtol=1e-5)
    assert got.low > 0
    assert got.high - got.low < 0.5 * np.diff(statistics.interval(a, method="student")[1:3])[0]


def test_seeds_without_a_partner_leave_no_pairs():
    got = statistics.paired_difference(runs([1.0], [0]), runs([1.0], [1]))
    assert got.n == 0 and np.isnan(got.mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "bca"}, "bootstrap or student"),
        ({"statistic": "median"}, "choose mean, or iqm"),
        ({"statistic": "iqm", "method": "student"}, "iqm with the bootstrap"),
        ({"level": 95}, "between 0 and 1"),
    ],
)
def test_bad_settings_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        statistics.interval(np.zeros(3), **options)
