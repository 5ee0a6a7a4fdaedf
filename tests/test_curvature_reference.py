"""The reference problems of docs/curvature.md that the tests of the single modules leave open."""

import re

import jax
import jax.flatten_util
import jax.numpy as jnp
import krylov
import numpy as np
import pytest
from small_runs import ROOT
from test_curvature_matrices import close, cross_entropy, linear

from plasticity_jax import curvature as cv

pytestmark = pytest.mark.slow  # to compile

CDF, COUNT = jax.jit(cv.cdf), jax.jit(cv.count)
DENSITY = jax.jit(cv.density)


def multiply(v, matrix):
    return jnp.matmul(matrix, v, precision="highest")


def plain(matrix, dtype=jnp.float32):
    return cv.operator(multiply, like=jnp.zeros(matrix.shape[-1], dtype), args=(jnp.asarray(matrix, dtype),))


def rotated(values, seed=0):
    return krylov.rotated(np.random.default_rng(seed), values)[0]


def flat_of(v):
    return jax.flatten_util.ravel_pytree(v)[0]


def within(estimate, exact, errors=3.0):
    return abs(float(estimate.value) - exact) <= errors * float(estimate.sem)


# ---- breakdown ----

N = 60
DISTINCT = {  # name -> (eigenvalues, number of distinct ones)
    "identity": (np.ones(N), 1),
    "zero": (np.zeros(N), 1),
    "scaled": (np.full(N, -3e-4), 1),
    "two": (np.repeat([1.0, 2.0], N // 2), 2),
    "five": (np.repeat([-1.0, 0.0, 1.0, 2.0, 7.0], N // 5), 5),
    "rank 1": (np.r_[np.zeros(N - 1), 8.0], 2),
    "rank 3": (np.r_[np.zeros(N - 3), 5.0, 6.0, 8.0], 4),
    "rank 8": (np.r_[np.zeros(N - 8), np.arange(1.0, 9.0)], None),
    "healthy": (np.linspace(-1.0, 3.0, N) ** 3, None),
}


def spectrum_of(A):
    return cv.slq(A, steps=40, probes=2, key=jax.random.key(0))


def test_breakdown_of_slq_with_healthy_and_broken_lanes():
    """Those of few distinct values are diagonal: rounding of a rotated matrix would split them."""
    matrices = [np.diag(x) if d and d != 4 else rotated(x) for x, d in DISTINCT.values()]
    lanes = jax.jit(jax.vmap(lambda m: spectrum_of(plain(m))))(jnp.asarray(np.stack(matrices), jnp.float32))
    for i, (values, distinct) in enumerate(DISTINCT.values()):
        for s in (jax.tree.map(lambda x, i=i: x[i], lanes), spectrum_of(plain(matrices[i]))):
            nodes, scale = np.asarray(s.nodes), np.abs(values).max()
            assert np.isfinite(nodes).all() and np.isfinite(s.weights).all()
            np.testing.assert_allclose(s.weights.sum(1), 1, atol=1e-5)
            found = nodes[np.asarray(s.live)]
            np.testing.assert_allclose([found.min(), found.max()], [values.min(), values.max()], atol=1e-5 * scale)
            assert distinct is None or int(s.live.sum(1).max()) <= distinct + 2


@pytest.mark.parametrize("values", [[-2.5], [1.0, 2.0, 4.0]])
def test_more_steps_than_dimensions(values):
    s = spectrum_of(plain(rotated(values)))
    assert s.nodes.shape == (2, len(values))
    np.testing.assert_allclose(s.nodes, np.tile(values, (2, 1)), rtol=1e-5)
    e = cv.eigenpairs(plain(rotated(values)), k=len(values), dense=False)
    np.testing.assert_allclose(e.values, values[::-1], rtol=1e-5)
    assert e.converged.all()


# ---- closed forms ----


@pytest.mark.slow
def test_zero_mass_of_softmax_regression():
    """A common shift of the logits changes nothing: one C-th of the eigenvalues are exactly zero, at least."""
    w, x = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(16, 4), (64, 16)]))
    A = cv.hessian(lambda w, batch: cross_entropy(linear(w, batch[0]), batch[1]), w, (x, jnp.arange(64) % 4))
    truth = np.linalg.eigvalsh(np.asarray(jax.jit(lambda A: A.dense())(A), np.float64))
    zeros = int(np.sum(np.abs(truth) < 1e-6 * truth[-1]))
    assert zeros == 16
    s = cv.slq(A, steps=64, probes=16, key=jax.random.key(7))
    mass = COUNT(s, -1e-6 * truth[-1], 1e-6 * truth[-1])
    assert within(mass, zeros) and float(mass.sem) < 4.0
    assert within(cv.summary(s).zero_mass, zeros)


@pytest.mark.slow
def test_marchenko_pastur_at_any_number_of_steps():
    matrix = krylov.marchenko_pastur()
    values = np.linalg.eigvalsh(matrix)
    s, reach = cv.slq(plain(matrix), steps=80, probes=8, key=jax.random.key(0)), values[-1] - values[0]
    np.testing.assert_allclose([s.nodes.min(), s.nodes.max()], values[[0, -1]], atol=0.01 * reach)
    edges = (1 - np.sqrt(0.5)) ** 2, (1 + np.sqrt(0.5)) ** 2
    np.testing.assert_allclose([s.nodes.min(), s.nodes.max()], edges, atol=0.02 * reach)
    for power, moment in ((1, 1.0), (2, 1.5)):
        assert within(cv.spectral_sum(s, lambda x, p=power: x**p), np.sum(values**power), 4)
        assert np.mean(values**power) == pytest.approx(moment, rel=0.02)
    x = np.linspace(values[0] - 0.1 * reach, values[-1] + 0.1 * reach, 2000)
    for steps in (10, 20, 40, 80):
        difference = np.asarray(CDF(first(s, steps), x).value) - np.searchsorted(values, x, side="right") / 1000
        assert np.trapezoid(np.abs(difference), x) <= (0.35 / steps + 0.003) * reach
    d = DENSITY(first(s, 40), width=reach / 40)
    assert np.trapezoid(np.abs(d.value - krylov.marchenko_pastur_law(np.asarray(d.grid))), d.grid) <= 0.15


def first(s, steps):
    """The quadratures after fewer steps, from the same coefficients and in the same shapes."""
    a, b = np.asarray(s.alphas)[:, :steps], np.asarray(s.betas)[:, : steps - 1]
    matrices = [np.diag(x) + np.diag(y, 1) + np.diag(y, -1) for x, y in zip(a, b, strict=True)]
    nodes, vectors = np.linalg.eigh(np.stack(matrices))
    nodes, weights = (np.pad(x, ((0, 0), (0, 80 - steps))) for x in (nodes, vectors[:, 0] ** 2))
    return s._replace(nodes=jnp.asarray(nodes), weights=jnp.asarray(weights), live=jnp.asarray(weights > 0))


@pytest.mark.slow
def test_goe():
    """Its trace is nearly zero, so that only an absolute error makes sense."""
    matrix = krylov.wigner()
    s = cv.slq(plain(matrix), steps=40, probes=8, key=jax.random.key(0))
    trace = cv.spectral_sum(s, lambda x: x)
    assert abs(float(trace.value) - np.trace(matrix)) <= 3 * np.sqrt(2) * np.linalg.norm(matrix) / np.sqrt(8)
    d = DENSITY(s)
    semicircle = np.sqrt(np.maximum(4 - np.asarray(d.grid) ** 2, 0)) / (2 * np.pi)
    assert np.trapezoid(np.abs(d.value - semicircle), d.grid) <= 0.15


@pytest.mark.parametrize("ratio", [1e-2, 1e-4, 1e-6])
def test_ten_outliers_above_a_bulk(ratio):
    n, top = 300, np.arange(11.0, 21.0)
    bulk = ratio * 20.0 * np.linspace(0.5, 1.0, n - 10)
    s = outliers(np.r_[bulk, top])
    for nodes, live in zip(np.asarray(s.nodes), np.asarray(s.live), strict=True):
        np.testing.assert_allclose(nodes[live][-10:], top, rtol=0, atol=1e-5 * 20)
    assert within(COUNT(s, 10.0, 21.0), 10) and within(COUNT(s, 0.3 * ratio * 20, 1.2 * ratio * 20), n - 10)
    assert int(s.live.sum(1).min()) > 10
    mean = cv.spectral_sum(s, lambda x: jnp.where(x < 1.0, x, 0.0))  # the tiny bulk is not truncated
    assert within(mean, bulk.sum(), 4)


def outliers(values):
    return cv.slq(plain(rotated(values)), steps=40, probes=16, key=jax.random.key(1))


def test_a_tenfold_top_counts_ten():
    s = outliers(np.r_[np.linspace(-1, 1, 290), np.full(10, 5.0)])
    mass = COUNT(s, 4.9, 5.1)
    assert within(mass, 10) and float(mass.sem) < 2.0
    assert within(cv.summary(s, separation=2.0).outliers_above, 10)


def test_xtrace_of_a_step():
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((1000, 20)))[0]
    A = cv.operator(
        lambda v, f: 3e-5 * v + multiply(multiply(v, f.T), f), like=jnp.zeros(1000), args=(jnp.asarray(q, jnp.float32),)
    )
    found = cv.trace(A, "xtrace", matvecs=64, key=jax.random.key(0))
    assert float(found.value) == pytest.approx(20 + 1000 * 3e-5, rel=1e-4)


def test_the_log_determinant_summed_over_all_unit_vectors():
    n = 12
    matrix = rotated(np.linspace(1.0, n, n))

    def quadratic_form(v):
        nodes, weights, _ = cv.ritz(cv.lanczos(plain(matrix), n - 1, v0=v, keep_basis=False))
        return jnp.sum(weights * jnp.log(nodes))

    found = jnp.sum(jax.jit(jax.vmap(quadratic_form))(jnp.eye(n)))
    assert float(found) == pytest.approx(np.linalg.slogdet(matrix)[1], rel=1e-3)


def test_double_precision():
    """Products to 1e-12, a full run to 1e-8, and quadrature to 1e-10."""
    rng = np.random.default_rng(0)
    matrix = rotated(np.linspace(-1.0, 2.0, 10))
    with jax.enable_x64(True):
        coupled = {"a": [jnp.asarray(rng.standard_normal((2, 3)))], "b": (jnp.asarray(rng.standard_normal(4)),)}
        A = cv.hessian(lambda p, m: 0.5 * flat_of(p) @ m[0] @ flat_of(p), coupled, jnp.asarray(matrix)[None])
        v = A.random(jax.random.key(0))
        product = A @ v
        assert jax.tree.structure(product) == jax.tree.structure(coupled) and flat_of(product).dtype == jnp.float64
        close(flat_of(product), matrix @ np.asarray(flat_of(v)), 1e-12)
        t = cv.lanczos(plain(matrix, jnp.float64), 10, key=jax.random.key(0))
        V, T = np.asarray(t.basis.stack()), np.diag(t.alphas) + np.diag(t.betas[:-1], 1) + np.diag(t.betas[:-1], -1)
        np.testing.assert_allclose(V.T @ T @ V, matrix, atol=1e-8)
        start = np.asarray(V[0])
        nodes, weights, _ = map(np.asarray, cv.ritz(cv.lanczos(plain(matrix, jnp.float64), 4, v0=start)))
    for power in range(8):
        assert weights @ nodes**power == pytest.approx(start @ np.linalg.matrix_power(matrix, power) @ start, abs=1e-10)


# ---- properties of random cases ----


@pytest.mark.parametrize("seed", range(4))
def test_properties(seed):
    rng = np.random.default_rng(seed)
    values, c, a = rng.standard_normal(24), float(rng.normal()), float(rng.uniform(-3, 3))
    if seed % 2:
        values = values**2
    A = plain(rotated(values, seed))
    u, v = A.random(jax.random.key(seed)), A.random(jax.random.key(seed + 100))
    Au, Av = A @ u, A @ v
    assert abs(float(u @ Av - v @ Au)) <= 1e-4 * float(jnp.linalg.norm(u) * jnp.linalg.norm(Av))
    close(A @ (2.0 * u + a * v), 2.0 * Au + a * Av, 1e-4)
    nodes, shifted, scaled = (few(B) for B in (A, A.shift(c), a * A))
    scale = float(np.abs(values).max() + abs(c))
    np.testing.assert_allclose(shifted.nodes, nodes.nodes + c, atol=1e-4 * scale)
    np.testing.assert_allclose(scaled.nodes, jnp.sort(a * nodes.nodes, axis=1), atol=1e-4 * scale * abs(a))
    for s in (nodes, shifted, scaled):
        assert (np.asarray(s.weights) >= 0).all()
        np.testing.assert_allclose(s.weights.sum(1), 1, atol=1e-5)
    if seed % 2:
        assert float(nodes.nodes.min()) >= -1e-5 * values.max()


def few(A):
    return cv.slq(A, steps=8, probes=3, key=jax.random.key(0))


# ---- the table ----


def test_every_test_of_the_table_exists():
    table = (ROOT / "docs" / "curvature.md").read_text(encoding="utf-8").split("## Reference problems")[1]
    rows = re.findall(r"^\| (\d+) \|.*$", table, re.M)
    assert [int(row) for row in rows] == list(range(1, 25))
    for line in table.splitlines():
        if re.match(r"\| \d", line):
            names = re.findall(r"`(\w+)::(\w+)`", line)
            assert names, line
            for file, function in names:
                text = (ROOT / "tests" / f"{file}.py").read_text(encoding="utf-8")
                assert f"def {function}(" in text, (file, function)
