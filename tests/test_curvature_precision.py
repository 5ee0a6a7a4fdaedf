"""Precision, range and types: matrix products in full, numbers far from 1, vectors of any type."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from plasticity_jax import curvature as cv
from plasticity_jax.curvature import means, rows

pytestmark = pytest.mark.slow  # to compile

KEY = jax.random.key(0)
X, Y = jax.random.normal(KEY, (12, 4)), jax.random.normal(jax.random.key(1), (12, 3))
PARAMS = {"w": 0.5 * jax.random.normal(KEY, (4, 3)), "b": jnp.ones(3)}
ONES = jax.tree.map(jnp.ones_like, PARAMS)


def model(p, x):
    return jnp.tanh(x @ p["w"] + p["b"])


def squared(z, y):
    return jnp.mean((z - y) ** 2)


def loss(p, batch):
    return squared(model(p, batch[0]), batch[1])


def batches():
    return [(X[:6], Y[:6]), (X[6:], Y[6:])]


def diagonal(d):
    return cv.operator(lambda v, d: d * v, like=jnp.zeros(d.shape), args=(d,))


# ---- precision of matrix products ----


def precisions(f, *args):
    """How often each precision stands in the program of f, derivatives and loops included."""
    found = collections.Counter()

    def walk(jaxpr):
        for equation in jaxpr.eqns:
            if equation.primitive.name in ("dot_general", "conv_general_dilated"):
                found[str(equation.params["precision"])] += 1
            for inner in jaxprs_in_params(equation.params):
                walk(inner)

    walk(jax.make_jaxpr(f)(*args).jaxpr)
    return found


def require_highest(found):
    assert found and all("HIGHEST" in name for name in found), found


MAKERS = {
    "hessian": lambda data, **kwargs: cv.hessian(loss, PARAMS, data, **kwargs),
    "hessian by jvp": lambda data, **kwargs: cv.hessian(loss, PARAMS, data, linearize=False, **kwargs),
    "hessian by reverse": lambda data, **kwargs: cv.hessian(
        loss, PARAMS, data, method="reverse_over_reverse", **kwargs
    ),
    "ggn": lambda data, **kwargs: cv.ggn(model, squared, PARAMS, data, **kwargs),
    "type2": lambda data, **kwargs: cv.fisher(model, squared, PARAMS, data, **kwargs),
    "monte_carlo": lambda data, **kwargs: cv.fisher(model, None, PARAMS, data, kind="monte_carlo", key=KEY, **kwargs),
    "empirical": lambda data, **kwargs: cv.fisher(model, squared, PARAMS, data, kind="empirical", **kwargs),
    "covariance": lambda data, **kwargs: cv.gradient_covariance(loss, PARAMS, data, **kwargs),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_matrix_product_is_precise(name):
    """All at once, by microbatches, and the program of one batch of an iterator."""
    make = MAKERS[name]
    require_highest(precisions(lambda A, v: A @ v, make((X, Y)), ONES))
    require_highest(precisions(lambda A, v: A @ v, make((X, Y), microbatch=5), ONES))
    A = make(batches)
    host = getattr(A.prepare, "inner", A.prepare)
    params, extra = A.args
    extra = ONES if name == "covariance" else extra
    one_batch = functools.partial(means._product_of_batch, host.one)
    require_highest(precisions(one_batch, params, extra, ONES, (X, Y), 0))


def test_other_products_are_precise():
    require_highest(precisions(lambda p: cv.gradient_gram(loss, p, (X, Y)), PARAMS))
    require_highest(precisions(lambda p: cv.ntk(model, p, X), PARAMS))
    A = cv.operator(lambda v, m: m @ v, like=jnp.zeros(4), args=(jnp.eye(4),))
    require_highest(precisions(lambda A: cv.lanczos(A, 4, key=KEY).alphas, A))
    require_highest(precisions(lambda A: cv.eigenpairs(A, k=2, dense=False).values, A))


# ---- numbers far from 1 ----


def test_the_norm_neither_overflows_nor_vanishes():
    x = {"a": jnp.array([3.0]), "b": jnp.array([4.0]), "empty": jnp.zeros((0, 2))}
    for scale in (1e-30, 1e-20, 1.0, 1e20, 1e30):
        np.testing.assert_allclose(rows.norm(jax.tree.map(lambda leaf: scale * leaf, x)), 5 * scale, rtol=1e-6)  # noqa: B023
    many = jnp.full(200_000, 1e-22).at[0].set(1e-19)  # the squares of nearly all are 0 in float32
    np.testing.assert_allclose(rows.norm(many), np.sqrt(199_999 * 1e-44 + 1e-38), rtol=1e-5)
    assert float(rows.norm(jnp.zeros(3))) == 0 and np.isnan(rows.norm(jnp.array([1.0, jnp.nan])))


@pytest.mark.parametrize("scale", [1e-22, 1e20])
@pytest.mark.slow
def test_results_scale_with_the_operator(scale):
    """Lanczos, its sums, and the four estimators, with their errors."""
    d = jnp.linspace(1, 5, 40)
    rotation = jnp.linalg.qr(jax.random.normal(KEY, (40, 40)))[0]
    one = (rotation * d) @ rotation.T

    def results(matrix):
        A = cv.operator(lambda v, m: m @ v, like=jnp.zeros(40), args=(matrix,))
        t, total = cv.lanczos(A, 20, key=KEY), cv.spectral_sum(cv.slq(A, 20, 4, key=KEY), lambda x: x)
        assert int(t.live.sum()) == 20
        norm, trace = (f(A, matvecs=20, key=KEY) for f in (cv.frobenius_norm, cv.trace))
        entries = cv.diagonal(A, matvecs=20, key=KEY)
        numbers = [*t.alphas, *t.betas[:-1], total.value, total.sem]
        return jnp.stack([*numbers, norm.value, norm.sem, trace.value, trace.sem, *entries.value, *entries.sem])

    np.testing.assert_allclose(results(scale * one) / scale, results(one), rtol=2e-3)


def test_start_vectors_of_any_length():
    A = diagonal(jnp.linspace(1, 5, 8))
    expected = cv.lanczos(A, 4, v0=jnp.ones(8)).alphas
    for factor in (1e30, 1e-30, 1e37):
        np.testing.assert_allclose(cv.lanczos(A, 4, v0=factor * jnp.ones(8)).alphas, expected, rtol=1e-5)


@pytest.mark.parametrize("microbatch", [None, 70])
def test_covariance_of_large_gradients_with_a_small_spread(microbatch):
    """1000 with a spread of 0.01: in E[g g^T] - E[g] E[g]^T, float32 keeps nothing of it."""
    g = 1e3 + 1e-2 * jax.random.normal(KEY, (200, 10))
    exact = np.cov(np.asarray(g, np.float64).T, bias=True)
    C = cv.gradient_covariance(lambda w, batch: jnp.mean(batch @ w), jnp.ones(10), g, microbatch=microbatch)
    found = np.asarray(C.dense(), np.float64)
    np.testing.assert_allclose(found, exact, atol=0.02 * np.abs(exact).max())
    assert np.linalg.eigvalsh((found + found.T) / 2).min() > 0


# ---- types ----


@pytest.mark.parametrize("dtype", [jnp.int32, bool, jnp.bfloat16, np.int64, np.float64])
def test_vectors_of_any_real_type(dtype):
    H = cv.hessian(loss, PARAMS, (X, Y))
    ones = jax.tree.map(lambda x: np.ones(x.shape, dtype), PARAMS)
    for found, expected in zip(jax.tree.leaves(H @ ones), jax.tree.leaves(H @ ONES), strict=True):
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_scalars_integer_probes_and_integer_diagonals():
    A = cv.operator(lambda v, m: m @ v, like=jnp.zeros(40), args=(jnp.diag(jnp.linspace(1, 5, 40)) / 10 + 0.01,))
    integers = cv.trace(A, matvecs=20, key=KEY, sampler=lambda key, shape, dtype: jax.random.rademacher(key, shape))
    np.testing.assert_allclose(integers.value, cv.trace(A, matvecs=20, key=KEY).value, rtol=1e-5)
    quarter = A.precondition(np.full(40, 4)) @ jnp.ones(40)
    np.testing.assert_allclose(quarter, (A @ jnp.ones(40)) / 4, rtol=1e-6)
    assert float(cv.operator(lambda v: 2 * v, like=jnp.zeros(())) @ 1.5) == 3.0


def test_float64_parameters_from_numpy_without_x64():
    """They count as float32, without a warning, which here would be an error."""
    given = jax.tree.map(lambda x: np.asarray(x, np.float64), (PARAMS, (X, Y)))
    H = cv.hessian(loss, *given)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(H.like))
    np.testing.assert_allclose(H.dense(), cv.hessian(loss, PARAMS, (X, Y)).dense(), rtol=1e-5, atol=1e-6)
    assert cv.eigenpairs(H, k=1, key=KEY, dense=False).converged.all()


@pytest.mark.slow
def test_a_float64_recurrence_over_any_parameters_where_x64_is_on():
    """And strong float64 scalars, diagonals; a rank-deficient matrix of float32 still converges and breaks down."""
    with jax.enable_x64(True):
        for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
            params, data = jax.tree.map(lambda x: jnp.asarray(x, dtype), (PARAMS, (X, Y)))  # noqa: B023
            H = cv.hessian(loss, params, data, microbatch=5)
            assert H.shapes.eps == jnp.finfo(jnp.promote_types(dtype, jnp.float32)).eps
            assert (H @ ONES)["b"].dtype == jnp.float64
        strong, fours = jnp.sum(jnp.ones(2)), jax.tree.map(lambda x: np.full(x.shape, 4.0), PARAMS)
        H = cv.hessian(loss, PARAMS, (X, Y))
        found = cv.ritz(cv.lanczos((strong * H.shift(np.float64(1.0))).precondition(fours), 15, key=KEY))[0]
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found[-1], 0.5 * np.linalg.eigvalsh(H.dense())[-1] + 0.5, rtol=1e-6)
        x = jax.random.normal(KEY, (3, 30), jnp.float32)
        G = cv.hessian(lambda w, x: jnp.mean((x @ w) ** 2), jnp.ones(30, jnp.float32), x)
        assert cv.eigenpairs(G, k=1, which="SA", dense=False).converged.all()
        assert cv.lanczos(G, 15, key=KEY).live.sum() <= 5


def test_eps_survives_restriction_and_sums():
    small = cv.operator(lambda v: v, like={"a": jnp.zeros(2), "b": jnp.zeros(1)})
    assert (small + small).restrict("a").shapes.eps == small.shapes.eps == jnp.finfo(jnp.float32).eps


# ---- nothing there ----


def test_leaves_without_entries():
    params = {"a": jnp.ones(3), "empty": jnp.zeros((0, 3))}
    A = cv.hessian(lambda p, _: jnp.sum(jnp.array([1.0, 2.0, 3.0]) * p["a"] ** 2), params)
    for dense in (True, False):
        found = cv.eigenpairs(A, k=2, key=KEY, dense=dense)
        np.testing.assert_allclose(found.values, [6, 4], rtol=1e-5)
        assert found.vectors["empty"].shape == (2, 0, 3)


@pytest.mark.slow
def test_a_mask_that_lets_nothing_through():
    """Outside jit an error; in a lane of a vmap, an operator of dimension 0."""
    A = diagonal(jnp.arange(1.0, 6.0))
    masks = jnp.stack([jnp.array([1.0, 0, 1, 0, 1]), jnp.zeros(5)])
    with pytest.raises(ValueError, match="0 everywhere"):
        A.restrict(masks[1])

    def one(mask):
        total = cv.spectral_sum(cv.slq(A.restrict(mask), 5, 3, key=KEY), lambda x: x)
        pairs = cv.eigenpairs(A.restrict(mask), k=2, dense=False)
        return total.value, pairs.values, pairs.vectors

    trace, values, vectors = jax.jit(jax.vmap(one))(masks)
    np.testing.assert_allclose(trace, [9, 0], rtol=1e-5)
    np.testing.assert_allclose(values[0], [5, 3], rtol=1e-5)
    assert np.isnan(values[1]).all() and (vectors[1] == 0).all()
