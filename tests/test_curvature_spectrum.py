import functools

import jax
import jax.numpy as jnp
import krylov
import numpy as np
import pytest

from plasticity_jax.curvature import spectrum as sp
from plasticity_jax.curvature.estimate import estimate, jackknife

DENSITY = jax.jit(sp.density, static_argnames=("points", "padding"))
POLYNOMIAL = jax.jit(sp.kernel_polynomial_density, static_argnames=("degree", "points"))
SUM = jax.jit(sp.spectral_sum, static_argnums=1)
CDF, COUNT, DIMENSION = jax.jit(sp.cdf), jax.jit(sp.count), jax.jit(sp.statistical_dimension)
BOTH = pytest.mark.parametrize("method", [DENSITY, POLYNOMIAL], ids=["gaussian", "polynomial"])
POINTS = np.array([-0.5, 0.5, 1.5], np.float32)
CASES = ["marchenko_pastur", "goe", "zero", "identity", "two values", "degenerate top", "deflated"]


@functools.cache
def _case(name):
    """The Spectrum of a matrix and its eigenvalues; k = 40 and 8 probes unless it breaks down."""
    if name == "deflated":
        return _deflated()
    if name == "marchenko_pastur":
        a = krylov.marchenko_pastur()
    elif name == "goe":
        a = krylov.wigner()
    elif name == "zero":
        a = np.zeros((50, 50))
    elif name == "identity":
        a = 3.0 * np.eye(50)
    elif name == "two values":
        a = krylov.rotated(np.random.default_rng(1), np.repeat([-1.0, 2.0], [30, 70]))[0]
    elif name == "degenerate top":
        a = krylov.rotated(np.random.default_rng(1), np.concatenate([np.linspace(-1, 1, 490), np.full(10, 5.0)]))[0]
    return krylov.spectrum_of(a, 40, 8), np.linalg.eigvalsh(a)


@functools.cache
def _deflated():
    """Ten outliers known exactly over an indefinite bulk, and all eigenvalues."""
    values = np.concatenate([np.linspace(-1, 1, 390), 3.0 + np.arange(10)])
    a, q = krylov.rotated(np.random.default_rng(2), values)
    return krylov.spectrum_of(a, 30, 8, known=q[:, 390:], deflated=values[390:]), values


def _integral(d):
    return float(np.trapezoid(np.asarray(d.value, np.float64), np.asarray(d.grid, np.float64)))


def _within(e, exact, errors=4.0, rounding=1e-5):
    return np.all(np.abs(np.asarray(e.value) - exact) <= errors * np.asarray(e.sem) + rounding * (1 + np.abs(exact)))


def test_the_interval_covers_what_it_claims():
    samples = np.random.default_rng(0).standard_normal((16, 20_000)) + 7.0
    e = estimate(jnp.asarray(samples, jnp.float32), 5)
    np.testing.assert_allclose(e.sem, samples.std(axis=0, ddof=1) / 4, rtol=1e-4)
    np.testing.assert_allclose(e.margin / e.sem, 2.13145, rtol=1e-4)  # Student's t with 15 degrees of freedom
    assert np.mean(np.abs(e.value - 7.0) <= e.margin) == pytest.approx(0.95, abs=0.006)
    assert e.matvecs.dtype == jnp.int32 and int(e.matvecs) == 5


def test_one_probe_has_no_error_bar():
    for e in (estimate(jnp.ones((1, 2)), 1), jackknife(jnp.ones(2), jnp.ones((0, 2)), 1)):
        assert e.value.tolist() == [1.0, 1.0] and np.isnan(e.sem).all() and np.isnan(e.margin).all()
    with pytest.raises(ValueError, match="at least one sample"):
        estimate(jnp.ones((0, 2)), 1)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 3)), jnp.float32)
    got, want = jackknife(x.mean(axis=0), (x.sum(axis=0) - x) / 5, 4), estimate(x, 4)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_sums_agree_with_the_eigenvalues(name):
    s, values = _case(name)
    for f, g in [
        (jnp.ones_like, np.ones_like),
        (jnp.positive, np.positive),
        (jnp.square, np.square),
        (jnp.exp, np.exp),
    ]:
        e = SUM(s, f)
        assert _within(e, g(values).sum()), (name, e, g(values).sum())
    assert int(e.matvecs) == s.nodes.size
    np.testing.assert_allclose(SUM(s, jnp.ones_like).value, len(values), rtol=1e-5)


def test_moments_of_marchenko_pastur():
    s, _ = _case("marchenko_pastur")
    for f, moment in [(jnp.positive, 1.0), (jnp.square, 1.5), (lambda x: x**3, 2.75)]:  # 1, 1 + g, 1 + 3 g + g^2
        assert float(SUM(s, f).value) / 1000 == pytest.approx(moment, rel=0.02)


def test_the_log_determinant_of_a_shifted_matrix():
    a, _ = krylov.rotated(np.random.default_rng(0), np.linspace(1.0, 30.0, 30))
    s = krylov.spectrum_of(a, 30, 4)
    for c in (1e-3, 1.0, 100.0):
        e = SUM(s, lambda x, c=c: jnp.log(x + c))
        assert _within(e, np.log(np.linspace(1.0, 30.0, 30) + c).sum())


def test_the_statistical_dimension_of_known_eigenvalues():
    s, values = _deflated()
    for c in (0.1, 2.0):
        positive = np.maximum(values, 0.0)
        assert _within(DIMENSION(s, c), np.sum(positive / (positive + c)))
    with pytest.raises(ValueError, match="c = 0"):
        sp.statistical_dimension(s, 0)


def test_cdf_and_count_agree_with_the_eigenvalues():
    s, values = _case("degenerate top")
    x = jnp.array([[-2.0, -0.5, 0.0], [0.7, 3.0, 6.0]])
    e = CDF(s, x)
    # a quadrature with k nodes places a threshold inside the bulk to about one node's share
    np.testing.assert_allclose(e.value, np.mean(values[:, None, None] <= np.asarray(x), axis=0), atol=0.03)
    np.testing.assert_allclose(e.value[0, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(e.value[1, 2], 1.0, atol=1e-6)
    both = COUNT(s, jnp.array([4.5, -9.0]), jnp.array([5.5, 4.5]))
    assert _within(both, np.array([10.0, 490.0]), errors=3.0) and float(both.sem[0]) < 3.0
    np.testing.assert_allclose(both.value.sum(), 500.0, rtol=1e-5)
    assert COUNT(s, 4.5, 5.5).value.shape == ()


@pytest.mark.parametrize("name", ["marchenko_pastur", "goe"])
def test_the_distribution_is_as_near_as_the_steps_allow(name):
    s, values = _case(name)
    reach = values[-1] - values[0]
    x = np.linspace(values[0] - 0.1 * reach, values[-1] + 0.1 * reach, 2000)
    difference = np.asarray(CDF(s, x).value) - np.searchsorted(values, x, side="right") / len(values)
    distance = np.trapezoid(np.abs(difference), x)  # Wasserstein-1
    assert distance <= (0.35 / 40 + 0.003) * reach


@BOTH
@pytest.mark.parametrize("name", CASES)
def test_densities_integrate_to_one(method, name):
    s, values = _case(name)
    d = method(s)
    assert _integral(d) == pytest.approx(1.0, abs=1e-3)
    assert np.isfinite(d.value).all() and float(d.value.min()) >= -1e-3 * float(d.value.max())
    assert d.grid[0] < values[0] and d.grid[-1] > values[-1] and bool((jnp.diff(d.grid) > 0).all())
    assert d.grid.shape == d.value.shape == d.sem.shape == d.margin.shape == (1000,)


@BOTH
def test_the_density_of_marchenko_pastur(method):
    s, values = _case("marchenko_pastur")
    d = method(s)
    law = krylov.marchenko_pastur_law(np.asarray(d.grid))
    assert np.trapezoid(np.abs(d.value - law), d.grid) <= 0.15
    reach = values[-1] - values[0]
    expected = reach / 40 if method is DENSITY else np.pi * reach / 2 / 79
    assert float(d.width) == pytest.approx(expected, rel=0.08)


def test_polynomials_keep_edges_sharper():
    s, _ = _case("marchenko_pastur")
    outside = []
    for method in (DENSITY, POLYNOMIAL):
        d = method(s)
        law = krylov.marchenko_pastur_law(np.asarray(d.grid))
        outside.append(np.trapezoid(np.where(law == 0, np.asarray(d.value), 0.0), np.asarray(d.grid)))
    assert outside[1] < 0.5 * outside[0]


@BOTH
def test_densities_agree_with_those_of_the_eigenvalues(method):
    s, values = _deflated()
    grid = jnp.linspace(-2.0, 13.0, 300)
    got, want = method(s, grid), method(sp.exact(jnp.asarray(values, jnp.float32), steps=30), grid)
    error = np.abs(got.value - want.value)
    assert np.mean(error <= 5 * got.sem + 1e-3) > 0.95
    assert float(want.sem.max()) < 1e-6 and float(got.sem.max()) > 0.0
    np.testing.assert_allclose(got.value[150:], want.value[150:], atol=2e-3)  # the deflated ones carry no noise


def test_the_width_and_grid_are_settings():
    s, _ = _case("goe")
    d = DENSITY(s, grid=np.linspace(-0.5, 0.5, 7), width=0.2)
    assert d.value.shape == (7,) and float(d.width) == pytest.approx(0.2)
    np.testing.assert_allclose(d.value, 1 / np.pi, rtol=0.1)  # the semicircle in its middle, not renormalised
    assert DENSITY(s, points=200, padding=8.0).grid.shape == (200,)
    for wrong, message in [({"width": 0.0}, "width = 0"), ({"padding": -1}, "padding = -1"), ({"points": 39}, "39")]:
        with pytest.raises(ValueError, match=message):
            sp.density(s, **wrong)
    assert POLYNOMIAL(s, degree=1, points=50).grid.shape == (50,)
    for wrong in ({"degree": 0}, {"degree": 80}, {"points": 1}):
        with pytest.raises(ValueError):
            sp.kernel_polynomial_density(s, **wrong)


def test_the_range_is_that_of_all_probes_and_deflated_values():
    s, _ = _case("goe")
    wide = s._replace(nodes=s.nodes.at[3, -1].set(50.0), deflated=jnp.array([-70.0]))
    for method in (DENSITY, POLYNOMIAL):
        d = method(wide)
        assert float(d.grid[0]) < -70.0 and float(d.grid[-1]) > 50.0


@BOTH
def test_shift_and_scale_carry_over(method):
    s, _ = _case("goe")
    d = method(s)
    moved = method(s._replace(nodes=2.0 * s.nodes + 5.0))
    np.testing.assert_allclose(moved.grid, 2.0 * d.grid + 5.0, atol=1e-4)
    np.testing.assert_allclose(moved.value, d.value / 2.0, atol=2e-4)
    np.testing.assert_allclose(moved.width, 2.0 * d.width, rtol=1e-4)


def test_a_constant_spectrum_keeps_its_scale():
    for c in (1e-6, 3.0, -4e5):
        for method in (DENSITY, POLYNOMIAL):
            d = method(_case("identity")[0]._replace(nodes=jnp.full((8, 40), c, jnp.float32)))
            assert _integral(d) == pytest.approx(1.0, abs=1e-3)
            assert float(d.width) < 1e-2 * abs(c)
            assert float(d.grid[jnp.argmax(d.value)]) == pytest.approx(c, rel=1e-3)


def _everything(s):
    """All that one can ask of a Spectrum, as one tree."""
    return {
        "log": sp.spectral_sum(s, lambda x: jnp.log(jnp.abs(x) + 0.1)),
        "cdf": sp.cdf(s, POINTS),
        "count": sp.count(s, POINTS, POINTS + 1),
        "dimension": sp.statistical_dimension(s, 0.5),
        "density": sp.density(s),
        "polynomial": sp.kernel_polynomial_density(s),
    }


EVERYTHING = jax.jit(_everything)


def _assert_same(got, want, tolerance=0.0):
    """Field by field, in units of the largest value of each record."""
    for name, record in want.items():
        for field, b in record._asdict().items():
            scale = np.max(np.abs(record.value if field in ("sem", "margin") else b))
            a = getattr(got[name], field)
            np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale, err_msg=f"{name}.{field}")


def test_dead_nodes_never_matter():
    s, _ = _case("two values")
    assert bool(jnp.isnan(s.nodes).any()) and int(s.live.sum()) == 16
    tame = s._replace(nodes=jnp.where(s.live, s.nodes, 0.5))
    wild = s._replace(nodes=jnp.where(s.live, s.nodes, jnp.inf))
    want = EVERYTHING(tame)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(want))
    _assert_same(EVERYTHING(s), want)
    _assert_same(EVERYTHING(wild), want)
    # a function with a pole where the garbage stands
    pole = s._replace(nodes=jnp.where(s.live, s.nodes, 0.0))
    assert np.isfinite(SUM(pole, lambda x: 1 / x).value)


def test_a_probe_that_failed_is_not_hidden():
    s, _ = _case("goe")
    failed = s._replace(nodes=s.nodes.at[2, 5].set(jnp.nan))
    nothing = s._replace(live=s.live.at[2].set(False))
    for broken in (failed, nothing):
        e = COUNT(broken, -1.0, 1.0)
        assert np.isnan(e.value) and np.isnan(DENSITY(broken).value).all()


@pytest.mark.slow
def test_jit_and_vmap_change_nothing():
    rng = np.random.default_rng(4)
    matrices = [
        np.eye(60),
        np.zeros((60, 60)),
        krylov.wigner(60),
        krylov.rotated(rng, np.repeat([1.0, 2.0, 3.0], 20))[0],
    ]
    spectra = [krylov.spectrum_of(a, 12, 3) for a in matrices]  # healthy lanes and broken ones
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *spectra)
    batched = jax.jit(jax.vmap(_everything))(stacked)
    for i, s in enumerate(spectra):
        alone = EVERYTHING(s)
        _assert_same(jax.tree.map(lambda x, i=i: x[i], batched), alone, 2e-3)
    eager = {"cdf": sp.cdf(spectra[2], POINTS), "density": sp.density(spectra[2])}
    compiled = EVERYTHING(spectra[2])
    _assert_same(eager, {name: compiled[name] for name in eager}, 1e-4)


def test_exact_spectra_are_exact():
    values = np.random.default_rng(0).standard_normal(300)
    s = sp.exact(jnp.asarray(values, jnp.float32))
    e = COUNT(s, -0.5, 1.0)
    assert float(e.value) == np.sum((values >= -0.5) & (values <= 1.0)) and float(e.sem) == float(e.margin) == 0.0
    assert np.isnan(SUM(s, jnp.log).value)  # what f says of a real eigenvalue is not masked
    np.testing.assert_allclose(SUM(s, jnp.exp).value, np.exp(values).sum(), rtol=1e-5)
    idle = SUM(sp.exact(jnp.array([1.0, 2.0])), jnp.log)  # log is infinite at the idle nodes
    np.testing.assert_allclose(idle.value, np.log(2.0), rtol=1e-6)
