"""Extreme eigenpairs: closed forms, breakdown, multiplicity, masks, warm starts, host loops, bad input."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.sparse.linalg import eigsh

from plasticity_jax.curvature.eigen import WHICH, eigenpairs
from plasticity_jax.curvature.matrices import hessian
from plasticity_jax.curvature.operators import operator

N, K = 200, 10
LIKE = {"a": jnp.zeros((10, 15)), "b": [jnp.zeros(49), jnp.zeros(())]}  # several leaves, one of them a number
iterate = functools.partial(eigenpairs, k=K, dense=False, max_restarts=200)


def matvec(v, matrix):
    flat, unravel = jax.flatten_util.ravel_pytree(v)
    return unravel(jnp.matmul(matrix, flat, precision="highest"))


def matrix_operator(matrix, like=LIKE):
    dtype = jax.tree.leaves(like)[0].dtype
    return operator(matvec, like=like, args=(jnp.asarray(matrix, dtype),))


def flat(vectors):
    return np.concatenate([np.asarray(x, float).reshape(x.shape[0], -1) for x in jax.tree.leaves(vectors)], axis=1)


def rotated(values, seed=1):
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(values), len(values))))[0]
    return (q * np.asarray(values, float)) @ q.T


def path_laplacian(n=N):
    return 2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1)


def ring_laplacian(n=N):
    return 2 * np.eye(n) - np.roll(np.eye(n), 1, axis=0) - np.roll(np.eye(n), -1, axis=0)


def wanted(values, which, k=K):
    w = np.sort(np.asarray(values, float))
    by_magnitude = w[np.argsort(-np.abs(w), kind="stable")]
    return {"LA": w[::-1][:k], "SA": w[:k], "LM": by_magnitude[:k], "BE": np.r_[w[: k // 2], w[-(k - k // 2) :]]}[which]


def check(result, matrix, which="LA", tol=1e-4, rtol=1e-6, k=K):
    """Values, vectors, residuals, signs and flags against the matrix in float64."""
    matrix = np.asarray(matrix, result.values.dtype).astype(float)
    truth = np.linalg.eigvalsh(matrix)
    scale, values, x = np.abs(truth).max(), np.asarray(result.values, float), flat(result.vectors)
    atol = rtol * scale + np.finfo(result.values.dtype).tiny
    expected = wanted(truth, which, k)
    # +-lambda may come in either order
    np.testing.assert_allclose(*[np.abs(y) if which == "LM" else y for y in (values, expected)], rtol=0, atol=atol)
    np.testing.assert_allclose(x @ x.T, np.eye(k), atol=1e-5)
    residuals = np.linalg.norm(x @ matrix - values[:, None] * x, axis=1)
    assert (residuals <= result.residuals).all()
    assert (np.abs(values[:, None] - truth).min(axis=1) <= result.residuals).all()
    assert result.converged.all()
    assert (result.residuals <= np.maximum(tol * np.abs(values), 1e-5 * scale)).all()
    assert (x.max(axis=1) >= -x.min(axis=1)).all()
    assert result.matvecs.dtype == jnp.int32 and result.values.shape == (k,)


PRESCRIBED = rotated(np.r_[np.linspace(2, 6, 8), np.linspace(-1, 1, N - 12), [-7, -3.5, -3, -2.5]])


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("dense", [True, False])
def test_a_prescribed_spectrum(which, dense):
    result = iterate(matrix_operator(PRESCRIBED), which=which, dense=dense)
    check(result, PRESCRIBED, which)
    assert jax.tree.map(lambda x: x.shape[1:], result.vectors) == jax.tree.map(jnp.shape, LIKE)
    if dense:
        assert result.matvecs == N


@pytest.mark.parametrize("which", ["LA", "SA", "BE"])
def test_a_path_laplacian_has_its_cosines(which):
    result = iterate(matrix_operator(path_laplacian()), which=which)
    check(result, path_laplacian(), which)
    cosines = 2 - 2 * np.cos(np.pi * np.arange(1, N + 1) / (N + 1))
    np.testing.assert_allclose(result.values, wanted(cosines, which), atol=4e-6)


def test_scipy_agrees_and_needs_about_as_many_products():
    products = 0

    def count(v):
        nonlocal products
        products += 1
        return PRESCRIBED @ v

    from scipy.sparse.linalg import LinearOperator

    oracle = eigsh(LinearOperator(PRESCRIBED.shape, count, dtype=float), k=K, which="LA", ncv=40, tol=1e-4)[0]
    once = iterate(matrix_operator(PRESCRIBED), multiplicity=False)
    np.testing.assert_allclose(once.values, np.sort(oracle)[::-1], atol=7e-6)
    assert once.matvecs <= 1.2 * products + K


def test_the_largest_are_not_the_largest_in_magnitude():
    negative = rotated(-(np.linspace(1, 2, N) ** 3))
    for which in ("LA", "LM"):
        check(iterate(matrix_operator(negative), which=which), negative, which)
    signed = iterate(matrix_operator(PRESCRIBED), which="LM").values
    np.testing.assert_allclose(signed[:2], [-7, 6], atol=1e-5)


DEGENERATE = {
    "tenfold": np.r_[np.full(10, 5.0), np.linspace(0, 1, N - 10)],
    "threefold": np.r_[np.full(3, 5.0), np.full(3, 3.0), np.linspace(0, 1, N - 6)],
    "eleven": np.r_[5.0, np.full(10, 3.0), np.linspace(0, 1, N - 11)],
}


@pytest.mark.parametrize("spectrum", DEGENERATE)
def test_degenerate_eigenvalues_come_with_their_multiplicity(spectrum):
    matrix = rotated(DEGENERATE[spectrum])
    for seed in range(3):
        check(iterate(matrix_operator(matrix), key=jax.random.key(seed)), matrix)


def test_a_ring_needs_the_look_for_copies():
    ring = matrix_operator(ring_laplacian())
    check(iterate(ring), ring_laplacian())
    without = iterate(ring, multiplicity=False)
    true = wanted(2 - 2 * np.cos(2 * np.pi * np.arange(N) / N), "LA")
    assert np.abs(without.values - true).max() > 1e-3
    assert without.matvecs < iterate(ring).matvecs


def low_rank(rank):
    return rotated(np.r_[np.linspace(1, 8, rank), np.zeros(N - rank)])


BREAKDOWN = {
    "identity": np.eye(N),
    "zero": np.zeros((N, N)),
    "minus": -3.7 * np.eye(N),
    "two": np.diag(np.repeat([1.0, 2.0], N // 2)),
    "five": np.diag(np.repeat([1.0, 2.0, -3.0, 4.0, 5.0], N // 5)),
    "rank 1": low_rank(1),
    "rank 3": low_rank(3),
    "rank 8": low_rank(8),
    "tiny": 1e-25 * PRESCRIBED,
    "huge": 1e20 * PRESCRIBED,
    "dead": np.diag(np.r_[np.zeros(N - 5), 1, 2, 3, 4, 5]),
    "healthy": PRESCRIBED,
    "path": path_laplacian(),
}


@pytest.mark.parametrize("which", ["LA", "BE"])
@pytest.mark.parametrize("name", BREAKDOWN)
def test_breakdown(name, which):
    check(iterate(matrix_operator(BREAKDOWN[name]), which=which), BREAKDOWN[name], which)


@functools.partial(jax.jit, static_argnames="which")
def lanes(matrices, which):
    return jax.vmap(lambda m: iterate(matrix_operator(m), which=which))(matrices)


@pytest.mark.slow
def test_breakdown_with_healthy_and_broken_lanes_mixed():
    names = [name for name in BREAKDOWN if name != "huge"]
    matrices = np.stack([*(BREAKDOWN[name] for name in names), np.full((N, N), np.nan)]).astype(np.float32)
    results = lanes(matrices, "LA")
    for i, name in enumerate(names):
        lane = jax.tree.map(lambda x, i=i: x[i], results)
        check(lane, BREAKDOWN[name])
        alone = iterate(matrix_operator(BREAKDOWN[name]))
        scale = np.abs(BREAKDOWN[name]).sum(axis=1).max()
        np.testing.assert_allclose(lane.values, alone.values, rtol=0, atol=2e-6 * scale)
    assert results.matvecs[names.index("identity")] < 60 < results.matvecs[names.index("path")]
    assert np.isnan(results.values[-1]).all() and not results.converged[-1].any()


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_visible(bad, dense):
    matrix = PRESCRIBED.copy()
    matrix[3, 3] = bad
    result = iterate(matrix_operator(matrix), dense=dense)
    assert np.isnan(result.values).all() and np.isnan(result.residuals).all() and not result.converged.any()


@pytest.mark.parametrize("dense", [True, False])
def test_a_mask_brings_no_zeros(dense):
    matrix = rotated(np.linspace(1, 2, N))
    keep = np.arange(N) % 3 > 0
    mask = jax.flatten_util.ravel_pytree(LIKE)[1](jnp.asarray(keep, jnp.float32))
    block = matrix[np.ix_(keep, keep)]
    for which in ("LA", "SA"):
        result = iterate(matrix_operator(matrix).restrict(mask), which=which, dense=dense)
        np.testing.assert_allclose(result.values, wanted(np.linalg.eigvalsh(block), which), atol=2e-6)
        assert result.converged.all() and (flat(result.vectors)[:, ~keep] == 0).all()


@pytest.mark.parametrize("dense", [True, False])
def test_fewer_entries_than_pairs_are_padded(dense):
    keep = np.arange(N) % 67 == 0
    mask = jax.flatten_util.ravel_pytree(LIKE)[1](jnp.asarray(keep, jnp.float32))
    matrix = rotated(np.linspace(-2, 1, N))
    result = iterate(matrix_operator(matrix).restrict(mask), dense=dense)
    expected = np.linalg.eigvalsh(matrix[np.ix_(keep, keep)])[::-1]
    np.testing.assert_allclose(result.values[:3], expected, atol=1e-6)
    assert np.isnan(result.values[3:]).all() and np.isnan(result.residuals[3:]).all()
    assert result.converged.tolist() == [True] * 3 + [False] * 7
    assert (flat(result.vectors)[3:] == 0).all()


def test_all_pairs_that_there_are():
    keep = np.isin(np.arange(N), [0, 3, 20, 50, 77, 99, 120, 150, 188, 199])
    mask = jax.flatten_util.ravel_pytree(LIKE)[1](jnp.asarray(keep, jnp.float32))
    matrix = np.zeros((N, N))
    matrix[np.ix_(keep, keep)] = rotated([3, 3, -1, 0.5, 2, 2, 2, 0, 0, -4])
    result = iterate(matrix_operator(matrix).restrict(mask))
    np.testing.assert_allclose(result.values, [3, 3, 2, 2, 2, 0.5, 0, 0, -1, -4], atol=4e-6)
    one = eigenpairs(matrix_operator([[-2.5]], jnp.zeros(1)), k=1, dense=False)
    assert one.values.tolist() == [-2.5] and one.vectors.tolist() == [[1.0]] and one.converged.all()


def loss(params, batch):
    x, y = batch
    z = jnp.tanh(x @ params["first"]) @ params["second"]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))


def network(seed):
    a, b = jax.random.split(jax.random.key(seed))
    return {"first": jax.random.normal(a, (12, 8)) / 3, "second": jax.random.normal(b, (8, 5))}


DATA = (jax.random.normal(jax.random.key(7), (40, 12)), jnp.arange(40) % 5)


TRACES = []


def noted(params, batch):
    TRACES.append(1)
    return loss(params, batch)


def pairs(params):
    return eigenpairs(hessian(noted, params, DATA), k=4, which="BE", dense=False)


@pytest.mark.slow
def test_the_hessian_of_a_network_and_no_new_trace_for_other_parameters():
    counts = []
    for seed in range(3):
        matrix = np.asarray(hessian(loss, network(seed), DATA).dense())
        H = hessian(noted, network(seed), DATA)
        TRACES.clear()
        result = eigenpairs(H, k=4, which="BE", dense=False)
        counts.append(len(TRACES))
        check(result, (matrix + matrix.T) / 2, "BE", rtol=3e-6, k=4)
    assert counts[1:] == [0, 0]


@pytest.mark.slow
def test_stacked_parameters_under_jit_and_vmap():
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *[network(seed) for seed in range(3)])
    together = jax.jit(jax.vmap(pairs))(stacked)
    for seed in range(3):
        alone, lane = pairs(network(seed)), jax.tree.map(lambda x, i=seed: x[i], together)
        np.testing.assert_allclose(lane.values, alone.values, rtol=2e-5)
        np.testing.assert_allclose(flat(lane.vectors), flat(alone.vectors), atol=2e-3)
        assert lane.converged.all()


def test_a_warm_start_takes_fewer_products():
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(N, N))
    for matrix in (PRESCRIBED, path_laplacian()):
        near = matrix + 1e-3 * (noise + noise.T) / np.sqrt(2 * N)
        old = iterate(matrix_operator(matrix))
        cold = iterate(matrix_operator(near), key=jax.random.key(1), multiplicity=False)
        warm = iterate(matrix_operator(near), warm_start=old.vectors, multiplicity=False)
        check(warm, near)
        assert warm.matvecs < cold.matvecs


def test_a_warm_start_that_misses_the_new_top_is_corrected():
    old = iterate(matrix_operator(np.diag(np.r_[np.zeros(N // 2), np.linspace(0, 1, N // 2)])))
    new = np.diag(np.r_[3.0, np.zeros(N // 2 - 1), np.linspace(0, 1, N // 2)])
    check(iterate(matrix_operator(new), warm_start=old.vectors), new)
    nothing = jax.tree.map(jnp.zeros_like, old.vectors)
    check(iterate(matrix_operator(PRESCRIBED), warm_start=nothing), PRESCRIBED)


@pytest.mark.slow
def test_data_from_an_iterator():
    x, y = jax.random.normal(jax.random.key(7), (12, 3)), jnp.arange(12.0)

    def square(w, batch):
        return 0.5 * jnp.mean((batch[0] @ w - batch[1]) ** 2)

    H = hessian(square, jnp.zeros(3), lambda: iter([(x[:8], y[:8]), (x[8:], y[8:])]))
    with pytest.raises(ValueError, match="at least k"):
        eigenpairs(H, k=1, ncv=2)
    for dense in (None, True):
        check(eigenpairs(H, k=2, dense=dense), np.asarray(x.T @ x / 12), k=2)


def test_float64():
    with jax.enable_x64(True):
        for spectrum in ("threefold", "tenfold"):
            matrix = rotated(DEGENERATE[spectrum])
            result = iterate(matrix_operator(matrix, jnp.zeros(N, jnp.float64)), tol=1e-9)
            assert result.values.dtype == jnp.float64
            check(result, matrix, rtol=1e-13)
            assert (result.residuals <= 1e-9 * result.values).all()


def test_a_tolerance_that_is_not_reached_is_reported():
    result = iterate(matrix_operator(path_laplacian()), max_restarts=1)
    assert not result.converged.all()
    truth = np.linalg.eigvalsh(path_laplacian())
    assert (np.abs(np.asarray(result.values)[:, None] - truth).min(axis=1) <= result.residuals).all()
    assert result.matvecs < 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"which": "SM"}, "'SM' is unknown.*LA, SA, LM, BE"),
        ({"k": 0}, "k=0.*n=200"),
        ({"k": 201}, "k=201.*n=200"),
        ({"ncv": 11}, "ncv=11.*k=10"),
        ({"tol": -1.0}, "tol=-1.0"),
        ({"max_restarts": -1}, "max_restarts=-1"),
        ({"warm_start": jnp.zeros((3, N))}, "warm_start has the structure"),
        ({"warm_start": {"a": jnp.zeros((3, 10, 15)), "b": [jnp.zeros((3, 48)), jnp.zeros(3)]}}, r"\(3, 48\) at b/0"),
        ({"warm_start": {"a": jnp.zeros((3, 10, 15)), "b": [jnp.zeros((3, 49)), jnp.zeros(4)]}}, r"\(4,\) at b/1"),
    ],
)
def test_bad_input(arguments, message):
    def untouched(v, _):
        raise AssertionError("nothing may be traced")

    A = matrix_operator(np.eye(N))
    object.__setattr__(A, "prepare", untouched)
    with pytest.raises(ValueError, match=message):
        eigenpairs(A, **arguments)


def test_only_operators():
    with pytest.raises(ValueError, match="takes an Operator"):
        eigenpairs(lambda v: v)
