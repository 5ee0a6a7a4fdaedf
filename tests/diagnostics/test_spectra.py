import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.diagnostics import spectra

RANKS = jax.jit(lambda sigma, rows: spectra.ranks_of(sigma, rows))
SIGMA = jax.jit(spectra.singular_values)


def _ranks(sigma, rows=1):
    return {name: float(rank) for name, rank in RANKS(jnp.asarray(sigma, jnp.float32), rows).items()}


def _reference(sigma, rows, delta=0.01, epsilon=0.01):
    """The five formulas as the papers print them, in float64."""
    sigma = np.asarray(sigma, np.float64)
    p, square = sigma / sigma.sum(), sigma**2
    return {
        "srank": 1 + np.sum(np.cumsum(p) < 1 - delta),
        "effective_rank": np.exp(-np.sum(p[p > 0] * np.log(p[p > 0]))),
        "stable_rank": square.sum() / square.max(),
        "approximate_rank": 1 + np.sum(np.cumsum(square) / square.sum() < 1 - delta),
        "feature_rank": np.sum(sigma / np.sqrt(rows) > epsilon),
    }


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [
        # srank, effective, stable, approximate, feature with rows = 100, so that feature_rank counts sigma > 0.1
        ([0.0] * 8, (0, 0, 0, 0, 0)),
        ([2.0] + [0.0] * 7, (1, 1, 1, 1, 1)),
        ([3.0] * 8, (8, 8, 8, 8, 8)),
        ([1.0] * 128, (127, 128, 128, 127, 128)),  # 126 of 128 carry 98.4%, 127 carry 99.2%
        ([0.01] * 8, (8, 8, 8, 8, 0)),
        ([50.0, 49.5, 0.5], (2, None, 1.9802, 2, 3)),  # the last carries 0.5% < 1%
        ([50.0, 48.0, 2.0], (3, None, 1.9232, 2, 3)),  # it carries 2% of the sum, 0.08% of the squares
        ([4.0, 2.0, 1.0, 1.0], (4, 2.0 ** (0.5 + 0.5 + 0.375 + 0.375), 22 / 16, 4, 4)),
    ],
)
def test_ranks_of_known_spectra(sigma, expected):
    got = _ranks(sigma, rows=100)
    names = ("srank", "effective_rank", "stable_rank", "approximate_rank", "feature_rank")
    for name, value in zip(names, expected, strict=True):
        assert value is None or got[name] == pytest.approx(value, rel=1e-4), name


@pytest.mark.parametrize("decay", [0.0, 1.0, 5.0, 30.0])
def test_ranks_agree_with_the_printed_formulas(decay):
    sigma = 7.0 * np.exp(-decay * np.arange(64) / 64).astype(np.float32)
    got, want = _ranks(sigma, rows=50), _reference(sigma, rows=50)
    assert got == pytest.approx(want, rel=1e-5)


def test_srank_at_the_threshold_takes_the_smallest_k():
    assert float(spectra.srank(jnp.array([99.0, 1.0]))) == 1.0  # 99 of 100 is enough: >= and not >
    assert float(spectra.srank(jnp.ones(100))) == 99.0
    assert float(spectra.srank(jnp.ones(4), delta=0.5)) == 2.0
    assert float(spectra.srank(jnp.ones(4), delta=0.0)) == 4.0


def test_only_feature_rank_depends_on_the_scale():
    sigma = np.array([5.0, 3.0, 1.0, 0.2])
    small, one, large = (_ranks(s * sigma, rows=4) for s in (1e-30, 1.0, 1e30))  # squares leave the range of float32
    for name in ("srank", "effective_rank", "stable_rank", "approximate_rank"):
        assert small[name] == pytest.approx(one[name], rel=1e-5) == pytest.approx(large[name], rel=1e-5)
    assert (small["feature_rank"], one["feature_rank"], large["feature_rank"]) == (0.0, 4.0, 4.0)


def test_nan_stays_nan():
    assert all(np.isnan(rank) for rank in _ranks([1.0, np.nan, 0.0]).values())


@pytest.mark.parametrize("shape", [(40, 12), (12, 40), (12, 12)])
def test_singular_values_of_a_matrix_of_known_ones(shape):
    rng, count = np.random.default_rng(0), min(shape)
    left = np.linalg.qr(rng.standard_normal((shape[0], count)))[0]
    right = np.linalg.qr(rng.standard_normal((shape[1], count)))[0]
    sigma = 10.0 ** -np.linspace(0, 5, count)  # the Gram matrix loses the last third of these
    got = SIGMA(jnp.asarray(left * sigma @ right.T, jnp.float32))
    assert got.shape == (count,) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, sigma, rtol=0, atol=2e-6)


def test_a_matrix_of_rank_1_has_rank_1():
    rng = np.random.default_rng(1)
    sigma = SIGMA(jnp.asarray(np.outer(np.abs(rng.standard_normal(300)), np.abs(rng.standard_normal(40))), jnp.float32))
    got = _ranks(sigma, rows=300)
    assert got == pytest.approx(dict.fromkeys(got, 1.0), abs=1e-3)  # by the Gram matrix effective_rank is above 1.02


def test_singular_values_of_zeros_and_nan():
    assert np.all(np.asarray(SIGMA(jnp.zeros((40, 12)))) == 0.0)
    assert np.all(np.isnan(np.asarray(SIGMA(jnp.zeros((40, 12)).at[3, 4].set(jnp.nan)))))
