"""Stochastic Lanczos quadrature: exactness of its rule, breakdown, deflation, masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_curvature_lanczos import SPECTRA, N, matrix_of, rotated

from plasticity_jax.curvature.operators import operator
from plasticity_jax.curvature.slq import slq
from plasticity_jax.curvature.spectrum import count, spectral_sum


class Pairs(NamedTuple):
    values: jax.Array
    vectors: jax.Array


def plain(matrix):
    return operator(lambda v, m: jnp.matmul(m, v, precision="highest"), like=jnp.zeros(len(matrix)), args=(matrix,))


def test_quadrature_is_exact_for_polynomials():
    """K nodes integrate x^j, j <= 2k - 1, as v^T A^j v: catches weights of the wrong row, and unnormalised ones."""
    steps, matrix = 5, matrix_of(np.linspace(-1.0, 1.0, 30))
    s = slq(plain(matrix), steps=steps, probes=3, key=jax.random.key(0))
    exact = np.asarray(matrix, np.float64)
    for key, nodes, weights in zip(jax.random.split(jax.random.key(0), 3), s.nodes, s.weights, strict=True):
        v = np.asarray(plain(matrix).random(key, jax.random.rademacher), np.float64)
        v /= np.linalg.norm(v)
        for power in range(2 * steps):
            want = v @ np.linalg.matrix_power(exact, power) @ v
            assert float(jnp.sum(weights * nodes**power)) == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("name", SPECTRA)
def test_sums_over_every_spectrum(name):
    eigenvalues = SPECTRA[name][0]
    s = slq(rotated(matrix_of(eigenvalues)), steps=30, probes=8, key=jax.random.key(3))
    assert np.isfinite(s.nodes).all() and np.all(s.weights >= 0)
    np.testing.assert_allclose(s.weights.sum(1), 1, atol=1e-5)
    got, scale = spectral_sum(s, lambda x: x), np.abs(eigenvalues).sum()
    assert abs(float(got.value) - eigenvalues.sum()) <= 4 * float(got.sem) + 1e-4 * scale
    assert int(got.matvecs) == 8 * 30


def test_probe_batches_change_nothing_but_rounding():
    A = rotated(matrix_of(SPECTRA["outliers"][0]))
    one = slq(A, steps=10, probes=4, key=jax.random.key(0))
    two = slq(A, steps=10, probes=4, key=jax.random.key(0), probe_batch=2)
    np.testing.assert_allclose(one.nodes, two.nodes, rtol=1e-3, atol=1e-3)


def test_vmap_over_operators_equals_a_loop():
    stack = jnp.stack([matrix_of(SPECTRA[name][0]) for name in ("outliers", "identity")])

    def one(m):
        return slq(rotated(m), steps=10, probes=2, key=jax.random.key(0))

    lanes = jax.vmap(one)(stack)
    for i in range(2):
        np.testing.assert_allclose(lanes.nodes[i], one(stack[i]).nodes, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_deflation_removes_the_variance_of_outliers():
    eigenvalues = np.r_[np.linspace(0.9, 1.1, N - 3), 300.0, 600.0, 1000.0]
    matrix = matrix_of(eigenvalues)
    values, vectors = np.linalg.eigh(np.asarray(matrix, np.float64))
    known = Pairs(jnp.asarray(values[-3:], jnp.float32), jnp.asarray(vectors[:, -3:].T, jnp.float32))
    bare = slq(plain(matrix), steps=20, probes=8, key=jax.random.key(0))
    deflated = slq(plain(matrix), steps=20, probes=8, key=jax.random.key(0), deflate=known)
    a, b = (spectral_sum(s, lambda x: x) for s in (bare, deflated))
    assert float(b.sem) < 0.01 * float(a.sem)
    assert abs(float(b.value) - eigenvalues.sum()) <= 4 * float(b.sem)
    assert float(count(deflated, 200.0, 2000.0).value) == pytest.approx(3, abs=0.05)


@pytest.mark.slow
def test_mask_and_dense():
    matrix = matrix_of(np.linspace(1.0, 5.0, 20))
    mask = jnp.arange(20) % 2
    s = slq(plain(matrix).restrict(mask), steps=20, probes=4, key=jax.random.key(0))
    block = np.asarray(matrix)[1::2, 1::2]
    assert int(s.size) == 10 and s.nodes.min() > 0.9  # no zeros from the masked half
    trace = spectral_sum(s, lambda x: x)
    assert abs(float(trace.value) - np.trace(block)) <= 4 * float(trace.sem) + 1e-4
    exact = slq(plain(matrix), dense=True)
    assert float(spectral_sum(exact, jnp.log).value) == pytest.approx(np.log(np.linspace(1, 5, 20)).sum(), rel=1e-4)


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [({"probes": 0}, "probes=0"), ({"key": None}, "key="), ({"steps": -1}, "steps=-1"), ({"probe_batch": 0}, "probe")],
)
def test_bad_input(kwargs, words):
    with pytest.raises(ValueError, match=words):
        slq(plain(jnp.eye(4)), **{"steps": 2, "probes": 2, "key": jax.random.key(0), **kwargs})


def test_probes_one_by_one_hold_one_basis():
    """Mapped as batches of one, both branches of each decision would run, with a basis each."""
    size, steps = 20_000, 32
    diagonal = operator(lambda v, d: d * v, like=jnp.zeros(size), args=(jnp.arange(1.0, size + 1),))
    program = jax.jit(lambda key: slq(diagonal, steps, probes=2, key=key, probe_batch=1, reorthogonalize="full"))
    held = program.lower(jax.random.key(0)).compile().memory_analysis().temp_size_in_bytes
    assert held < 2 * steps * 4 * size
