import importlib

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg

from plasticity_jax import tree
from plasticity_jax.curvature.matrices import ggn, hessian
from plasticity_jax.curvature.operators import operator

K = jax.random.split(jax.random.key(3), 4)
PARAMS = {"b": jnp.full(3, 0.1), "w": jax.random.normal(K[0], (4, 3))}
DATA = jax.random.normal(K[1], (20, 4)), jax.random.normal(K[2], (20, 3))


def model(p, x):
    return jnp.tanh(x @ p["w"] + p["b"])


def squared(z, y):
    return jnp.mean(jnp.sum((z - y) ** 2, -1))


def loss(p, batch):
    return squared(model(p, batch[0]), batch[1])


def batches():
    return [jax.tree.map(lambda x, i=i: x[i : i + 8], DATA) for i in range(0, 20, 8)]


def flat(v):
    return np.asarray(jax.flatten_util.ravel_pytree(v)[0], np.float64)


def H():
    return hessian(loss, PARAMS, DATA)


def test_scipy_finds_the_eigenvalues_of_the_dense_matrix():
    dense = np.asarray(H().dense(), np.float64)
    A = H().as_scipy()
    assert A.shape == (15, 15) and A.dtype == np.float64
    found = scipy.sparse.linalg.eigsh(A, k=4, which="LA", tol=1e-6, return_eigenvectors=False)
    exact = np.linalg.eigvalsh(dense)
    np.testing.assert_allclose(np.sort(found), exact[-4:], atol=1e-5 * np.abs(exact).max())
    np.testing.assert_allclose(A @ np.eye(15), dense, atol=1e-5)
    np.testing.assert_allclose(A.T @ np.ones(15), dense.sum(0), atol=1e-4)


def test_scipy_gets_masked_restricted_and_streamed_operators():
    dense = np.asarray(H().dense())
    mask = jax.tree.map(lambda x: x > 0.2, PARAMS)
    m = flat(mask)
    np.testing.assert_allclose(
        H().restrict(mask).as_scipy() @ np.ones(15), m * (dense @ m), atol=1e-5
    )  # full space, with zeros
    block = H().restrict("b").as_scipy()
    assert block.shape == (3, 3)
    np.testing.assert_allclose(block @ np.eye(3), dense[:3, :3], atol=1e-5)
    streamed = hessian(loss, PARAMS, batches).as_scipy()
    np.testing.assert_allclose(streamed @ np.ones(15), dense.sum(1), atol=1e-4)


def test_scipy_compiles_the_product_once_for_all_parameters():
    traces = []

    def counted(p, batch):
        traces.append(1)
        return loss(p, batch)

    hessian(counted, PARAMS, DATA).as_scipy() @ np.ones((15, 2))
    seen = len(traces)
    other = hessian(counted, tree.scale(2.0, PARAMS), DATA)
    made = len(traces)  # `hessian` traces once itself
    other.as_scipy() @ np.ones((15, 2))
    assert len(traces) == made > seen


def test_lineax_solves_with_the_shifted_hessian():
    lx = pytest.importorskip("lineax")
    b = tree.random_like(K[3], PARAMS)
    c = 10.0
    A = H().shift(c).as_lineax()
    assert lx.is_symmetric(A) and not lx.is_positive_semidefinite(A)  # nothing is claimed that is not known
    A = lx.TaggedLinearOperator(A, lx.positive_semidefinite_tag)
    x = lx.linear_solve(A, b, lx.CG(rtol=1e-6, atol=1e-6)).value
    exact = np.linalg.solve(np.asarray(H().dense(), np.float64) + c * np.eye(15), flat(b))
    np.testing.assert_allclose(flat(x), exact, atol=1e-5)


def test_lineax_knows_what_is_positive_semidefinite_and_works_under_jit():
    lx = pytest.importorskip("lineax")
    b = tree.random_like(K[3], PARAMS)

    @jax.jit
    def solve(params):
        G = ggn(model, squared, params, DATA, microbatch=6).shift(0.5)
        return lx.linear_solve(G.as_lineax(), b, lx.CG(rtol=1e-6, atol=1e-6)).value

    G = ggn(model, squared, PARAMS, DATA)
    exact = np.linalg.solve(np.asarray(G.dense(), np.float64) + 0.5 * np.eye(15), flat(b))
    np.testing.assert_allclose(flat(solve(PARAMS)), exact, atol=1e-4)


def lineax_operators(lx):
    shapes = jax.eval_shape(lambda: PARAMS)
    return {
        "function": (lx.FunctionLinearOperator(lambda v: tree.scale(2.0, v), shapes, lx.symmetric_tag), False),
        "jacobian": (lx.JacobianLinearOperator(jax.grad(loss), PARAMS, DATA, lx.symmetric_tag), False),
        "hessian": (H().as_lineax(), False),
        "sum": (ggn(model, squared, PARAMS, DATA).as_lineax() + lx.IdentityLinearOperator(shapes), True),
        "matrix": (lx.MatrixLinearOperator(jnp.diag(jnp.arange(3.0)), lx.positive_semidefinite_tag), True),
    }


@pytest.mark.parametrize("name", ["function", "jacobian", "hessian", "sum", "matrix"])
def test_the_way_back_from_lineax(name):
    lx = pytest.importorskip("lineax")
    given, psd = lineax_operators(lx)[name]
    A = operator(given)
    assert A.psd == psd and jax.tree.structure(A.like) == jax.tree.structure(given.in_structure())
    v = A.random(K[3])
    np.testing.assert_allclose(flat(A @ v), flat(given.mv(v)), rtol=1e-6)
    through_jit = jax.jit(lambda A, v: (2.0 * A.shift(1.0)) @ v)(A, v)  # its functions are no arguments of a program
    np.testing.assert_allclose(flat(through_jit), 2 * flat(given.mv(v)) + 2 * flat(v), rtol=1e-5, atol=1e-5)


def test_plain_callables_go_round_through_scipy():
    d = jnp.arange(1.0, 6.0)
    A = operator(lambda v, d: {"x": d * v["x"]}, like={"x": d}, args=(d,), psd=True)
    found = scipy.sparse.linalg.eigsh(A.as_scipy(), k=2, return_eigenvectors=False)
    np.testing.assert_allclose(np.sort(found), [4, 5], rtol=1e-6)


def plain_lanczos(M, v, steps):
    """Alphas and betas in float64, orthogonalised twice against all vectors."""
    Q, alphas, betas = [v / np.linalg.norm(v)], [], []
    for _ in range(steps):
        w = M @ Q[-1]
        alphas.append(Q[-1] @ w)
        for _ in range(2):
            w = w - np.stack(Q, 1) @ (np.stack(Q) @ w)
        betas.append(np.linalg.norm(w))
        Q.append(w / betas[-1])
    return np.array(alphas), np.array(betas[:-1])


def test_matfree_finds_the_coefficients_of_a_plain_lanczos():
    decomp = pytest.importorskip("matfree.decomp")
    matvec, args = H().as_matfree()
    v = H().random(K[3])
    run = jax.jit(lambda v, *args: decomp.tridiag_sym(5, reortho="full")(matvec, v, *args))
    T = np.asarray(run(v, *args).J_small)
    alphas, betas = plain_lanczos(np.asarray(H().dense(), np.float64), flat(v), 5)
    np.testing.assert_allclose(np.diag(T), alphas, atol=1e-4 * np.abs(alphas).max())
    np.testing.assert_allclose(np.diag(T, 1), betas, atol=1e-4 * np.abs(alphas).max())
    assert H().as_matfree()[0] is matvec  # one program for all operators


@pytest.mark.parametrize("library", ["lineax", "matfree"])
def test_what_cannot_be_done_is_said(library, monkeypatch):
    with pytest.raises(ValueError, match="iterator"):
        getattr(hessian(loss, PARAMS, batches), f"as_{library}")()
    found = importlib.import_module

    def missing(name, *rest):
        if name == library:
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=rf"as_{library}\(\) needs {library}.*plasticity_jax\[curvature\]"):
        getattr(H(), f"as_{library}")()
