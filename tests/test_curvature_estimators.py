"""Trace, diagonal, Frobenius norm, log-determinant: closed forms, honest intervals, and every way of calling them."""

import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from krylov import rotated

from plasticity_jax.curvature.estimators import diagonal, frobenius_norm, logdet, trace
from plasticity_jax.curvature.matrices import ggn, hessian
from plasticity_jax.curvature.operators import operator

pytestmark = pytest.mark.slow  # half a minute of compilation and more: `make test-all`

N = 80
EIGENVALUES = np.linspace(-1.0, 4.0, N)


def multiply(v, m):
    return jnp.matmul(m, v, precision="highest")


def plain(matrix):
    return operator(multiply, like=jnp.zeros(len(matrix)), args=(jnp.asarray(matrix, jnp.float32),))


def dense(eigenvalues, seed=0):
    return rotated(np.random.default_rng(seed), eigenvalues)[0]


INDEFINITE = dense(EIGENVALUES)
A = plain(INDEFINITE)


def split(v, matrix):
    """The matrix on trees of three leaves."""
    flat = multiply(jnp.concatenate([v["a"].reshape(-1), v["b"][0], v["b"][1][None]]), matrix)
    return {"a": flat[:40].reshape(5, 8), "b": (flat[40:79], flat[79])}


TREE = {"a": jnp.zeros((5, 8)), "b": (jnp.zeros(39), jnp.zeros(()))}
SPLIT = operator(split, like=TREE, args=(jnp.asarray(INDEFINITE, jnp.float32),))


def flat(v):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(v)])


# ---- intervals cover what they claim ----


TRUTH = {
    "trace": (trace, np.trace(INDEFINITE)),
    "frobenius_norm": (frobenius_norm, np.linalg.norm(INDEFINITE)),
    "diagonal": (diagonal, np.diag(INDEFINITE)),
}


@pytest.mark.parametrize("name", TRUTH)
def test_intervals_cover_95_percent(name):
    """400 keys; one in 20 intervals may miss. With ddof 0 and the normal quantile 8 probes cover about 0.90."""
    estimator, truth = TRUTH[name]
    found = jax.vmap(lambda key: estimator(A, matvecs=8, key=key))(jax.random.split(jax.random.key(1), 400))
    covered = np.abs(np.asarray(found.value, np.float64) - truth) < found.margin
    assert 0.925 <= covered.mean() <= 0.985
    spread = np.std(np.asarray(found.value), axis=0)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(found.sem), axis=0)), spread, rtol=0.25)


def test_the_error_of_signs_is_that_of_the_closed_form():
    """The variance of v . A v is 2 (|A|_F^2 - |diag A|^2): a diagonal matrix would test nothing."""
    found = trace(A, matvecs=79, key=jax.random.key(2))
    expected = np.sqrt(2 * (np.sum(INDEFINITE**2) - np.sum(np.diag(INDEFINITE) ** 2)) / 79)
    assert float(found.sem) == pytest.approx(expected, rel=0.35)
    normal = trace(A, matvecs=79, key=jax.random.key(2), sampler=jax.random.normal)
    assert float(normal.sem) > float(found.sem)


# ---- exact for few parameters ----


@pytest.mark.parametrize("matvecs", [80, 200])
def test_products_enough_for_all_unit_vectors_are_exact(matvecs):
    expected = {"trace": np.trace(INDEFINITE), "norm": np.linalg.norm(INDEFINITE), "diagonal": np.diag(INDEFINITE)}
    found = {
        "trace": trace(SPLIT, matvecs=matvecs, key=jax.random.key(0)),
        "norm": frobenius_norm(SPLIT, matvecs=matvecs, key=jax.random.key(0), probe_batch=7),
        "diagonal": diagonal(SPLIT, matvecs=matvecs, key=jax.random.key(0)),
    }
    for name, estimate in found.items():
        np.testing.assert_allclose(flat(estimate.value), np.ravel(expected[name]), rtol=1e-5, atol=1e-5)
        assert not flat(estimate.sem).any() and not flat(estimate.margin).any() and int(estimate.matvecs) == 80
    assert int(trace(SPLIT, matvecs=79, key=jax.random.key(0)).matvecs) == 79


@pytest.mark.slow
def test_one_product_has_no_error_bar():
    for estimator in (trace, frobenius_norm, diagonal):
        found = estimator(SPLIT, matvecs=1, key=jax.random.key(0))
        assert np.isfinite(flat(found.value)).all()
        assert np.isnan(flat(found.sem)).all() and np.isnan(flat(found.margin)).all()


# ---- XTrace ----


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
def test_xtrace_of_a_decaying_spectrum(scale):
    """Its own test for rank is absolute: without our scaling 1e-9 A loses everything below 1e-7."""
    eigenvalues = 0.7 ** np.arange(1000)
    q = np.linalg.qr(np.random.default_rng(0).standard_normal((1000, 40)))[0]  # the other eigenvalues are below 1e-6
    factor = jnp.asarray(q * np.sqrt(eigenvalues[:40]), jnp.float32)
    low_rank = operator(lambda v, f: f @ (f.T @ v), like=jnp.zeros(1000), args=(factor,), psd=True)
    found = trace(scale * low_rank, "xtrace", matvecs=64, key=jax.random.key(0))
    assert float(found.value) / scale == pytest.approx(eigenvalues[:40].sum(), rel=1e-4)
    assert 0 < float(found.sem) / scale < 1e-4 and int(found.matvecs) == 63


SPECIAL = {
    "zero": (np.zeros(N), 0.0),
    "identity": (np.full(N, 1e-9), N * 1e-9),
    "rank 3": (np.r_[1.0, 2.0, 3.0, np.zeros(N - 3)], 6.0),
    "nan": (np.full(N, np.nan), np.nan),
}


@pytest.mark.parametrize("name", SPECIAL)
def test_xtrace_where_it_breaks_down(name):
    eigenvalues, expected = SPECIAL[name]
    found = trace(plain(np.diag(eigenvalues)), "xtrace", matvecs=31, key=jax.random.key(0))
    assert float(found.value) == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_xtrace_has_less_error_than_signs_where_the_spectrum_decays_and_says_so():
    eigenvalues = 1.0 / np.arange(1, 101) ** 2
    B, key = plain(dense(eigenvalues)), jax.random.key(3)
    found = {method: trace(B, method, matvecs=41, key=key) for method in ("xtrace", "hutchinson")}
    for estimate in found.values():
        assert abs(float(estimate.value) - eigenvalues.sum()) < 2 * float(estimate.margin)
    assert float(found["xtrace"].sem) < 0.1 * float(found["hutchinson"].sem)


def test_xtrace_counts_masked_entries_only():
    """Resphering would take the masked entries for directions of the residual: twice too much of the rest here."""
    matrix = np.eye(N) + 0.3 * dense(np.linspace(0, 1, N))
    mask = np.arange(N) % 5 < 3
    found = trace(plain(matrix).restrict(jnp.asarray(mask)), "xtrace", matvecs=31, key=jax.random.key(0))
    assert abs(float(found.value) - np.diag(matrix)[mask].sum()) < 2 * float(found.margin) < 8.0
    few = jnp.arange(N) < 4  # fewer than the probes
    found = trace(plain(matrix).restrict(few), "xtrace", matvecs=31, key=jax.random.key(0))
    assert float(found.value) == pytest.approx(np.diag(matrix)[:4].sum(), rel=1e-5)


def test_xtrace_without_matfree_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matfree", None)
    monkeypatch.delitem(sys.modules, "matfree.stochtrace", raising=False)
    with pytest.raises(ImportError, match=r"plasticity_jax\[curvature\]"):
        trace(A, "xtrace", key=jax.random.key(0))


# ---- every way of calling ----


def stacked(call):
    """The same estimate eagerly, under jit, and in lanes of a vmap over stacked matrices."""
    matrices = jnp.stack([jnp.asarray(INDEFINITE, jnp.float32), jnp.asarray(dense(np.arange(80.0), 5), jnp.float32)])
    key = jax.random.key(4)
    lanes = jax.jit(jax.vmap(call, (0, None)))(matrices, key)
    for i, matrix in enumerate(matrices):
        for ways in zip(*(jax.tree.leaves(x) for x in (lanes, call(matrix, key))), strict=True):
            np.testing.assert_allclose(ways[0][i], ways[1], rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_vmap_over_stacked_parameters_equals_a_loop():
    stacked(lambda m, key: trace(plain(m), matvecs=5, key=key))
    stacked(lambda m, key: diagonal(plain(m), matvecs=5, key=key))
    stacked(lambda m, key: trace(plain(m), "xtrace", matvecs=9, key=key)._replace(sem=0.0, margin=0.0))


@pytest.mark.slow
def test_trees_and_batches_of_probes_change_nothing_but_rounding():
    key = jax.random.key(5)
    for estimator, batches in ((trace, (3,)), (diagonal, (3, 20))):
        one = estimator(SPLIT, matvecs=9, key=key)
        assert jax.tree.structure(one.value) == jax.tree.structure(TREE if estimator is diagonal else 0.0)
        for probe_batch in batches:  # 20 is more than all
            more = estimator(SPLIT, matvecs=9, key=key, probe_batch=probe_batch)
            np.testing.assert_allclose(flat(more), flat(one), rtol=1e-4, atol=1e-5)


def test_masked_entries_add_nothing():
    mask = np.arange(N) % 3 > 0
    block = INDEFINITE[np.ix_(mask, mask)]
    masked = A.restrict(jnp.asarray(mask))
    for estimator, truth in ((trace, np.trace(block)), (frobenius_norm, np.linalg.norm(block))):
        found = estimator(masked, matvecs=400, key=jax.random.key(6))
        assert abs(float(found.value) - truth) < 1.5 * float(found.margin) < 0.2 * truth
    found = diagonal(masked, matvecs=400, key=jax.random.key(6))
    assert not np.asarray(found.value)[~mask].any() and not np.asarray(found.sem)[~mask].any()
    inside = np.abs(np.asarray(found.value) - np.diag(INDEFINITE))[mask]
    assert (inside < 2 * np.asarray(found.margin)[mask]).all() and (found.margin[mask] < 0.4).all()


K = jax.random.split(jax.random.key(8), 4)
PARAMS = {"w": jax.random.normal(K[0], (6, 5)) / 2, "v": jax.random.normal(K[1], (5, 3))}
X, Y = jax.random.normal(K[2], (30, 6)), jax.random.randint(K[3], (30,), 0, 3)


def network(params, x):
    return jnp.tanh(x @ params["w"]) @ params["v"]


def cross_entropy(z, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z.astype(jnp.float32)), y[:, None], 1))


def loss(params, batch):
    return cross_entropy(network(params, batch[0]), batch[1])


@pytest.mark.slow
def test_an_iterator_of_batches_gives_the_same_numbers():
    def batches():
        return iter([(X[:16], Y[:16]), (X[16:], Y[16:])])

    memory, streamed, key = hessian(loss, PARAMS, (X, Y)), hessian(loss, PARAMS, batches), jax.random.key(9)
    for estimator, matvecs in ((trace, 3), (trace, 45), (diagonal, 3), (frobenius_norm, 3)):
        found, expected = (estimator(B, matvecs=matvecs, key=key) for B in (streamed, memory))
        np.testing.assert_allclose(flat(found), flat(expected), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="hutchinson"):
        trace(streamed, "xtrace", matvecs=7, key=key)


@pytest.mark.slow
def test_bfloat16_parameters_are_estimated_in_float32():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    G = ggn(network, cross_entropy, half, (X.astype(jnp.bfloat16), Y))
    reference = ggn(network, cross_entropy, PARAMS, (X, Y))
    for matvecs in (20, 60):
        found, expected = (trace(B, matvecs=matvecs, key=jax.random.key(1)) for B in (G, reference))
        assert found.value.dtype == jnp.float32
        assert float(found.value) == pytest.approx(float(expected.value), rel=1e-2)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(diagonal(G, matvecs=3, key=K[0]).value))


def test_other_numbers_compile_nothing_anew():
    traced = []

    def count(v, m):
        traced.append(1)
        return multiply(v, m)

    def at(matrix):
        return operator(count, like=jnp.zeros(N), args=(jnp.asarray(matrix, jnp.float32),))

    first = [f(at(INDEFINITE), matvecs=9, key=jax.random.key(0)) for f in (trace, diagonal)]
    seen = len(traced)
    again = [f(at(2 * INDEFINITE), matvecs=9, key=jax.random.key(1)) for f in (trace, diagonal)]
    assert len(traced) == seen + 2  # `operator` itself looks at the shapes, once each
    assert float(again[0].value) != float(first[0].value)


# ---- log-determinant ----


@pytest.mark.slow
def test_logdet_of_a_full_run_is_exact():
    n = 12
    matrix = dense(np.linspace(1.0, n, n))
    found = logdet(plain(matrix), steps=n, probes=n, key=jax.random.key(0))
    assert abs(float(found.value) - np.linalg.slogdet(matrix)[1]) < 1.5 * float(found.margin)
    many = jax.vmap(lambda c, key: logdet(plain(matrix), c, steps=n - 1, probes=2, key=key))
    for c in (0.0, 1.0):
        values = many(jnp.full(400, c), jax.random.split(jax.random.key(1), 400)).value
        truth = np.linalg.slogdet(matrix + c * np.eye(n))[1]
        assert abs(np.mean(values) - truth) < 3 * np.std(values) / 20 < 0.02 * truth


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return logdet(*args, **kwargs)


def test_logdet_over_a_sweep_of_shifts():
    """A third of the eigenvalues are zero; the interval holds, and the smallest shifts warn."""
    eigenvalues = np.r_[np.zeros(100), np.geomspace(1e-4, 5.0, 200)]
    G = plain(dense(eigenvalues))
    for shift in (1.0, 1e-1, 1e-2):
        found = quiet(G, shift, steps=60, probes=8, key=jax.random.key(0))
        truth = np.log(eigenvalues + shift).sum()
        assert abs(float(found.value) - truth) < 1.5 * float(found.margin) < 60.0
    for shift in (1e-6, 1e-7):
        with pytest.warns(UserWarning, match="larger shift"):
            logdet(G, shift, steps=60, probes=8, key=jax.random.key(0))


@pytest.mark.slow
def test_logdet_of_an_indefinite_matrix_is_nan():
    with pytest.warns(UserWarning, match="not positive definite"):
        found = logdet(A, steps=20, probes=2, key=jax.random.key(0))
    assert np.isnan(found.value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shifts = jnp.array([0.0, 2.0])
        lanes = jax.jit(jax.vmap(lambda c: logdet(A, c, steps=40, probes=4, key=jax.random.key(0))))(shifts)
    assert np.isnan(lanes.value[0]) and np.isfinite(lanes.margin[1])
    assert abs(float(lanes.value[1]) - np.log(EIGENVALUES + 2).sum()) < 1.5 * float(lanes.margin[1])


@pytest.mark.slow
def test_logdet_knows_when_the_steps_are_too_few():
    B = plain(dense(np.geomspace(1e-3, 1.0, 300)))
    with pytest.warns(UserWarning, match="more steps"):
        few = logdet(B, steps=6, probes=32, key=jax.random.key(0))
    truth = np.log(np.geomspace(1e-3, 1.0, 300)).sum()
    assert abs(float(few.value) - truth) > 3 * float(few.sem)  # what sem does not know
    assert abs(float(few.value) - truth) < float(few.margin)


# ---- refusals ----


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda key: trace(A, "exact", key=key), "hutchinson, xtrace"),
        (lambda key: trace(A, matvecs=0, key=key), "matvecs=0"),
        (lambda key: diagonal(A, probe_batch=0, key=key), "probe_batch=0"),
        (lambda key: frobenius_norm(A, matvecs=-1, key=key), "matvecs=-1"),
        (lambda key: trace(A, "xtrace", matvecs=4, key=key), "at least 5"),
        (lambda key: logdet(A, steps=1, key=key), "steps=1"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(ValueError, match=words):
        call(jax.random.key(0))
