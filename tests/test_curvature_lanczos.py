"""The Lanczos process against matrices whose spectrum is known, breakdown first of all."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.curvature.lanczos import lanczos, ritz
from plasticity_jax.curvature.operators import operator

N = 120
STEPS = 40

# name -> (eigenvalues, number of distinct ones the start vector meets; None: more than STEPS)
SPECTRA = {
    "decaying": (10 * 0.9 ** np.arange(N), None),
    "outliers": (np.r_[np.linspace(1, 2, N - 5), 50, 60, 70, 80, 100], None),
    "tiny bulk": (np.r_[1e-5 * np.linspace(1, 2, N - 2), 50, 100], None),
    "negative": (-np.linspace(1, 3, N), None),
    "indefinite": (np.r_[np.linspace(-1, 1, N - 1), -5.0], None),
    "identity": (np.ones(N), 1),
    "zero": (np.zeros(N), 1),
    "scaled identity": (np.full(N, -3e-4), 1),
    "two values": (np.r_[np.ones(N // 2), 2 * np.ones(N // 2)], 2),
    "five values": (np.repeat([-1.0, 0.0, 1.0, 2.0, 7.0], N // 5), None),  # rounding of the matrix splits them
    "rank 1": (np.r_[np.zeros(N - 1), 8.0], 2),
    "rank 3": (np.r_[np.zeros(N - 3), 5.0, 6.0, 8.0], 4),
}


def product(v, matrix):
    flat = jnp.concatenate([v["kernel"].ravel(), v["bias"]])
    out = jnp.matmul(matrix, flat, precision="highest")
    return {"kernel": out[:-5].reshape(v["kernel"].shape), "bias": out[-5:]}


def matrix_of(eigenvalues, seed=0):
    """A symmetric matrix in general position: a diagonal one would hide errors of the probes."""
    n = len(eigenvalues)
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(n, n)))[0]
    matrix = (q * eigenvalues) @ q.T
    return jnp.asarray((matrix + matrix.T) / 2, jnp.float32)


def rotated(matrix):
    n = matrix.shape[-1]
    like = {"kernel": jnp.zeros(((n - 5) // 5, 5)), "bias": jnp.zeros(5)}
    return operator(product, like=like, args=(matrix,))


def flat(vectors):
    return np.concatenate([np.reshape(vectors["bias"], (-1, 5)), np.reshape(vectors["kernel"], (-1, N - 5))], axis=1)


@functools.cache
def run(name, mode):
    eigenvalues, _ = SPECTRA[name]
    t = lanczos(rotated(matrix_of(eigenvalues)), STEPS, key=jax.random.key(7), reorthogonalize=mode)
    return eigenvalues, t, ritz(t)


@pytest.mark.parametrize("mode", ["full", "partial"])
@pytest.mark.parametrize("name", SPECTRA)
def test_extremes_and_orthogonality(name, mode):
    eigenvalues, t, (nodes, weights, vectors) = run(name, mode)
    live, scale = int(t.live.sum()), np.abs(eigenvalues).max()
    distinct = SPECTRA[name][1]
    assert live <= (STEPS if distinct is None else distinct + 2)
    basis = flat(t.basis.stack())
    gram = basis[:live] @ basis[:live].T
    assert np.abs(gram - np.eye(live)).max() < (1e-5 if mode == "full" else 1e-3)
    assert np.all(basis[live:] == 0)
    converged = name not in ("negative", "indefinite")  # the ends of a long even bulk need more steps
    nodes = np.asarray(nodes)
    if converged:
        assert abs(nodes[:live].max() - eigenvalues.max()) <= 1e-5 * scale
        assert abs(nodes[:live].min() - eigenvalues.min()) <= 1e-2 * scale
    assert nodes.min() >= eigenvalues.min() - 1e-5 * scale and nodes.max() <= eigenvalues.max() + 1e-5 * scale
    assert np.all(weights[live:] == 0) and float(weights.sum()) == pytest.approx(1, abs=1e-5)
    # every Ritz value lies within its residual of an eigenvalue
    last = np.asarray(t.betas)[live - 1] * np.abs(np.asarray(vectors)[live - 1, :live])
    distance = np.abs(nodes[:live, None] - eigenvalues[None]).min(1)
    assert np.all(distance <= last + 1e-5 * scale)


def test_without_reorthogonalisation_copies_appear():
    """What the cure is for: this fails if "none" orthogonalizes in secret."""
    eigenvalues, _, (nodes, _, _) = run("outliers", "none")
    assert np.sum(np.abs(np.asarray(nodes) - eigenvalues.max()) < 1e-3) > 1
    _, t, _ = run("outliers", "none")
    assert np.abs(flat(t.basis.stack()) @ flat(t.basis.stack()).T - np.eye(STEPS)).max() > 0.1


def test_basis_diagonalises_the_operator():
    """V^T A V = T, with combine and project as the two halves."""
    eigenvalues, t, _ = run("outliers", "full")
    A = rotated(matrix_of(eigenvalues))
    columns = jax.vmap(lambda c: t.basis.project(A @ t.basis.combine(c)))(jnp.eye(STEPS))
    T = np.diag(t.alphas) + np.diag(t.betas[:-1], 1) + np.diag(t.betas[:-1], -1)
    np.testing.assert_allclose(columns, T, atol=2e-4)


def test_full_length_reproduces_the_matrix():
    eigenvalues = np.linspace(-1.0, 2.0, 10)
    matrix = matrix_of(eigenvalues)
    A = operator(lambda v, m: jnp.matmul(m, v, precision="highest"), like=jnp.zeros(10), args=(matrix,))
    t = lanczos(A, 10, key=jax.random.key(0))
    V = np.asarray(t.basis.stack())
    T = np.diag(t.alphas) + np.diag(t.betas[:-1], 1) + np.diag(t.betas[:-1], -1)
    np.testing.assert_allclose(V.T @ T @ V, matrix, atol=1e-4)
    assert lanczos(A, 99, key=jax.random.key(0)).alphas.shape == (10,)  # clamped to the dimension


def test_five_exact_values():
    """Rounding may restart the process in the degenerate spaces; it must then find the same values again."""
    diagonal = jnp.repeat(jnp.array([-1.0, 0.0, 1.0, 2.0, 7.0]), 100)
    A = operator(lambda v, d: d * v, like=jnp.zeros(500), args=(diagonal,))
    t = lanczos(A, STEPS, key=jax.random.key(0))
    nodes, weights, _ = ritz(t)
    heavy = np.asarray(nodes)[np.asarray(weights) > 1e-3]  # a value that was found again shares its weight
    assert sorted(set(np.round(heavy, 3) + 0.0)) == [-1, 0, 1, 2, 7]
    assert nodes.min() >= -1 - 1e-5 and nodes.max() <= 7 + 1e-4


def test_healthy_and_broken_lanes_share_a_vmap():
    names = ["decaying", "identity", "zero", "two values", "rank 3"]
    stack = jnp.stack([matrix_of(SPECTRA[name][0]) for name in names])

    def one(matrix):
        return lanczos(rotated(matrix), STEPS, key=jax.random.key(7), keep_basis=False)

    lanes = jax.jit(jax.vmap(one))(stack)
    for i, name in enumerate(names):
        eigenvalues, alone, _ = run(name, "full")
        lane = jax.tree.map(lambda x, i=i: x[i], lanes)
        live, scale = int(lane.live.sum()), max(np.abs(eigenvalues).max(), 1e-30)
        assert abs(live - int(alone.live.sum())) <= 2
        nodes = np.asarray(ritz(lane)[0])
        assert np.isfinite(nodes).all()
        assert abs(nodes.max() - eigenvalues.max()) <= 1e-5 * scale
    leading = np.asarray(run("decaying", "full")[1].alphas)[:10]
    np.testing.assert_allclose(lanes.alphas[0][:10], leading, rtol=1e-4)


@pytest.mark.slow
def test_host_loop_equals_the_compiled_one():
    import dataclasses

    A = rotated(matrix_of(SPECTRA["outliers"][0]))
    compiled = lanczos(A, 20, key=jax.random.key(1))
    looped = lanczos(dataclasses.replace(A, host=True), 20, key=jax.random.key(1))
    np.testing.assert_allclose(looped.alphas, compiled.alphas, rtol=1e-3)
    assert looped.live.all()


def test_nan_is_never_hidden():
    A = rotated(matrix_of(SPECTRA["decaying"][0]).at[3, 3].set(jnp.nan))
    nodes, _, _ = ritz(lanczos(A, 10, key=jax.random.key(0)))
    assert np.isnan(np.asarray(nodes)).all()


def test_dimension_one():
    t = lanczos(operator(lambda v: -2.0 * v, like=jnp.zeros(1)), 5, key=jax.random.key(0))
    assert t.alphas.tolist() == [-2.0] and t.live.tolist() == [True]


def test_double_precision():
    with jax.enable_x64(True):
        eigenvalues = SPECTRA["outliers"][0]
        q = np.linalg.qr(np.random.default_rng(0).normal(size=(N, N)))[0]
        A = operator(lambda v, m: m @ v, like=jnp.zeros(N), args=(jnp.asarray((q * eigenvalues) @ q.T),))
        t = lanczos(A, STEPS, key=jax.random.key(0))
        assert t.alphas.dtype == jnp.float64
        assert abs(float(ritz(t)[0].max()) - 100.0) < 1e-10


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"steps": 0}, "steps=0"),
        ({"key": None}, "needs key"),
        ({"reorthogonalize": "twice"}, "full, partial, none"),
        ({"v0": jnp.zeros(3)}, "length 0.0"),
        ({"v0": jnp.zeros(4)}, r"\(4,\)"),
        ({"v0": {"w": jnp.zeros(3)}}, "structure"),
    ],
)
def test_bad_input(kwargs, words):
    A = operator(lambda v: v, like=jnp.zeros(3))
    with pytest.raises(ValueError, match=words):
        lanczos(A, **{"steps": 2, "key": jax.random.key(0), **kwargs})
