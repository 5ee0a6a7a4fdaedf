"""The reference problems of docs/curvature.md that need a network: oracles, devices, frameworks, breakdown."""

import functools

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from test_curvature_matrices import close, cross_entropy, flat_of, linear, run

from plasticity_jax import curvature as cv

pytestmark = pytest.mark.slow  # half a minute of compilation and more: `make test-all`

LANCZOS = jax.jit(cv.lanczos, static_argnames=("steps", "keep_basis"))

# ---- a network of 550 parameters ----

INPUTS, HIDDEN, CLASSES, EXAMPLES = 16, 20, 10, 64
DATA = (jax.random.normal(jax.random.key(1), (EXAMPLES, INPUTS)), jnp.arange(EXAMPLES) % CLASSES)


def parameters(key):
    a, b = jax.random.split(key)
    first, second = jax.random.normal(a, (INPUTS, HIDDEN)), jax.random.normal(b, (HIDDEN, CLASSES))
    return {"w0": first / 3, "b0": jnp.full(HIDDEN, 0.1), "w1": second / 2, "b1": jnp.zeros(CLASSES)}


def model(params, x):
    return linear(params["w1"], jnp.tanh(linear(params["w0"], x) + params["b0"])) + params["b1"]


def loss(params, batch):
    return cross_entropy(model(params, batch[0]), batch[1])


PARAMS = parameters(jax.random.key(0))
H = cv.hessian(loss, PARAMS, DATA)


@functools.cache
def dense64():
    """The Hessian in float64, by dense autodiff."""
    with jax.enable_x64(True):
        params, data = jax.tree.map(
            lambda x: jnp.asarray(np.asarray(x), jnp.float64 if x.dtype == jnp.float32 else x.dtype), (PARAMS, DATA)
        )
        flat, unravel = jax.flatten_util.ravel_pytree(params)
        return np.asarray(jax.jit(jax.hessian(lambda flat: loss(unravel(flat), data)))(flat))


def test_extremes_of_a_network_to_one_millionth():
    matrix = dense64()
    truth, scale = np.linalg.eigvalsh(matrix), np.abs(np.linalg.eigvalsh(matrix)).max()
    v = H.random(jax.random.key(2))
    close(flat_of(H @ v), matrix @ np.asarray(flat_of(v), np.float64))
    assert 450 <= len(truth) <= 900
    nodes = np.asarray(cv.ritz(LANCZOS(H, steps=80, key=jax.random.key(3), keep_basis=False))[0])
    for found, wanted in ((nodes[-4:], truth[-4:]), (nodes[:4], truth[:4])):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * scale)


def pairs(params, warm_start=None):
    A = cv.hessian(loss, params, DATA)
    return cv.eigenpairs(A, k=8, which="BE", tol=1e-5, ncv=60, dense=False, multiplicity=False, warm_start=warm_start)


def test_eigenpairs_of_a_network_agree_with_scipy_and_a_warm_start_saves_products():
    truth, found = np.linalg.eigvalsh(dense64()), pairs(PARAMS)
    scale = np.abs(truth).max()
    np.testing.assert_allclose(found.values, np.r_[truth[:4], truth[-4:]], rtol=0, atol=1e-6 * scale)
    assert found.converged.all()
    oracle = scipy.sparse.linalg.eigsh(H.as_scipy(), k=8, which="BE", tol=1e-5, ncv=60, return_eigenvectors=False)
    np.testing.assert_allclose(found.values, np.sort(oracle), rtol=0, atol=1e-5 * scale)
    moved = jax.tree.map(lambda x, y: x + 1e-3 * y, PARAMS, parameters(jax.random.key(9)))
    cold, warm = pairs(moved), pairs(moved, found.vectors)
    np.testing.assert_allclose(warm.values, cold.values, rtol=0, atol=2e-6 * scale)
    assert warm.converged.all() and int(warm.matvecs) < int(cold.matvecs)


def test_matfree_finds_the_same_coefficients():
    decomp = pytest.importorskip("matfree.decomp")
    matvec, args = H.as_matfree()
    v = H.random(jax.random.key(4))
    T = jax.jit(lambda v, *args: decomp.tridiag_sym(20, reortho="full")(matvec, v, *args).J_small)(v, *args)
    t = LANCZOS(H, steps=20, v0=v, keep_basis=False)
    scale = float(jnp.abs(t.alphas).max())
    np.testing.assert_allclose(t.alphas, np.diag(T), rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(t.betas[:-1], np.diag(T, 1), rtol=0, atol=1e-5 * scale)


def test_six_seeds_under_vmap_equal_a_loop():
    def one(params):
        t = cv.lanczos(cv.hessian(loss, params, DATA), 20, key=jax.random.key(0), keep_basis=False)
        return cv.ritz(t)[:2]

    stacked = jax.vmap(parameters)(jax.random.split(jax.random.key(5), 6))
    together, alone = jax.jit(jax.vmap(one))(stacked), jax.jit(one)
    for i in range(6):
        nodes, weights = alone(jax.tree.map(lambda x, i=i: x[i], stacked))
        scale = float(jnp.abs(nodes).max())
        np.testing.assert_allclose(together[0][i][jnp.array([0, -1])], nodes[jnp.array([0, -1])], atol=1e-5 * scale)
        for power in range(1, 6):
            moments = [
                float(jnp.sum(w * (x / scale) ** power))
                for x, w in ((together[0][i], together[1][i]), (nodes, weights))
            ]
            assert moments[0] == pytest.approx(moments[1], abs=1e-5)


def test_bfloat16_parameters_under_a_float32_recurrence():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)

    def widened(params, batch):
        return loss(jax.tree.map(lambda x: x.astype(jnp.float32), params), batch)

    exact = cv.hessian(loss, jax.tree.map(lambda x: x.astype(jnp.float32), half), DATA)
    low = LANCZOS(cv.hessian(widened, half, DATA), steps=40, key=jax.random.key(3), keep_basis=True)
    full = LANCZOS(exact, steps=40, key=jax.random.key(3), keep_basis=False)
    assert low.alphas.dtype == jnp.float32 and flat_of(low.basis).dtype == jnp.float32
    for found, wanted in zip(*(cv.ritz(t)[0][jnp.array([0, -1])] for t in (low, full)), strict=True):
        assert float(found) == pytest.approx(float(wanted), rel=5e-3)


def test_four_devices_hold_their_parts_of_the_basis():
    """Parameters split by columns or by rows: no step gathers a vector, and the numbers are those of one device."""
    run(
        """
import jax, numpy as np
import test_curvature_reference_networks as t
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from plasticity_jax.curvature import hessian
mesh = jax.make_mesh((4,), ("d",), axis_types=(AxisType.Auto,))
place = {"w0": P(None, "d"), "b0": P("d"), "w1": P("d", None), "b1": P()}
spread = lambda tree: {name: jax.device_put(x, NamedSharding(mesh, place[name])) for name, x in tree.items()}
v = t.H.random(jax.random.key(0))
A = hessian(t.loss, spread(t.PARAMS), jax.device_put(t.DATA, NamedSharding(mesh, P())))
program = t.LANCZOS.lower(A, steps=20, v0=spread(v), keep_basis=True).compile()
text = program.as_text()
assert "while(" in text and "all-reduce" in text and "all-gather" not in text
found, one = program(A, v0=spread(v)), t.LANCZOS(t.H, steps=20, v0=v, keep_basis=True)
for name, spec in place.items():
    leaf = found.basis.blocks[0][name]
    assert leaf.addressable_shards[0].data.size * (4 if "d" in spec else 1) == leaf.size
for a, b in ((found.alphas, one.alphas), (found.betas, one.betas)):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(one.alphas).max())
""",
        JAX_COMPILATION_CACHE_DIR=jax.config.jax_compilation_cache_dir,
        JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
        JAX_NUM_CPU_DEVICES="4",
        JAX_PLATFORMS="cpu",
    )


@pytest.mark.xfail(strict=True, reason="inner products name no out_sharding", raises=pytest.fail.Exception)
def test_a_mesh_of_explicit_axes():
    """What jax.make_mesh makes by default."""
    mesh = jax.make_mesh((2,), ("d",), devices=jax.devices()[:2])
    d = jax.device_put(jnp.arange(8.0), jax.NamedSharding(mesh, jax.P("d")))
    A = cv.operator(lambda v, d: d * v, like=d, args=(d,))
    try:
        alphas = cv.lanczos(A, 4, v0=jnp.ones_like(d)).alphas
    except Exception as error:
        if "out_sharding" in str(error):
            pytest.fail(str(error))
        raise
    assert np.isfinite(alphas).all()


# ---- frameworks ----


def of_linen():
    nn = pytest.importorskip("flax.linen")
    net = nn.Sequential([nn.Dense(5), nn.tanh, nn.Dense(3)])
    return net.init(jax.random.key(0), X), net.apply


def of_nnx(train):
    nnx = pytest.importorskip("flax.nnx")
    rngs = nnx.Rngs(0)
    net = nnx.Sequential(
        nnx.Linear(4, 5, rngs=rngs), nnx.BatchNorm(5, rngs=rngs), nnx.tanh, nnx.Linear(5, 3, rngs=rngs)
    )
    net.train() if train else net.eval()
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    return params, lambda params, x: nnx.merge(graph, params, rest, copy=True)(x)


def of_equinox():
    eqx = pytest.importorskip("equinox")
    params, static = eqx.partition(eqx.nn.MLP(4, 3, 5, 1, key=jax.random.key(0)), eqx.is_inexact_array)
    return params, lambda params, x: jax.vmap(eqx.combine(params, static))(x)


def of_haiku():
    hk = pytest.importorskip("haiku")
    net = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([5, 3], activation=jnp.tanh)(x)))
    return net.init(jax.random.key(0), X), net.apply


def of_a_list():
    params = [jax.random.normal(jax.random.key(0), (4, 5)), jnp.zeros(5), jnp.ones((5, 3))]
    return params, lambda p, x: jnp.tanh(x @ p[0] + p[1]) @ p[2]


X, Y = jax.random.normal(jax.random.key(8), (12, 4)), jnp.arange(12) % 3
FRAMEWORKS = {
    "linen": of_linen,
    "nnx in evaluation": functools.partial(of_nnx, False),
    "nnx in training": functools.partial(of_nnx, True),
    "equinox": of_equinox,
    "haiku": of_haiku,
    "a bare list": of_a_list,
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_frameworks_give_the_hessian_of_dense_autodiff(name):
    params, apply = FRAMEWORKS[name]()

    def loss(params, batch):
        return cross_entropy(apply(params, batch[0]), batch[1])

    flat, unravel = jax.flatten_util.ravel_pytree(params)
    expected = jax.jit(jax.hessian(lambda flat: loss(unravel(flat), (X, Y))))(flat)
    found = jax.jit(lambda params: cv.hessian(loss, params, (X, Y)).dense())(params)
    assert np.abs(expected).max() > 0.01
    close(found, np.asarray(expected))


# ---- breakdown ----


def relu(params, x):
    return jax.nn.relu(x @ params["w0"] + params["b0"]) @ params["w1"] + params["b1"]


def small(key, shift):
    a, b = jax.random.split(key)
    w1 = jax.random.normal(b, (10, 3))
    return {"w0": jax.random.normal(a, (6, 10)), "b0": jnp.asarray(shift, jnp.float32), "w1": w1, "b1": jnp.zeros(3)}


def gauss_newton(params, data):
    return cv.ggn(relu, cross_entropy, params, data)


def networks():
    """Gauss-Newton matrices of 103 parameters: of full rank 64, of rank 8, with half and with all of the units dead."""
    x, y = jax.random.normal(jax.random.key(3), (32, 6)), jnp.arange(32) % 3
    few = jnp.arange(32) % 4
    alive, half, dead = np.zeros(10), np.repeat([0.0, -100.0], 5), np.full(10, -100.0)
    cases = [(alive, x, y), (alive, x[few], y[few]), (half, x, y), (dead, x, y), (half, x[few], y[few])]
    stacked = [(small(jax.random.key(4), shift), (a, b)) for shift, a, b in cases]
    return stacked, jax.tree.map(lambda *leaves: jnp.stack(leaves), *stacked)


@pytest.mark.parametrize("way", ["slq", "eigenpairs"])
def test_breakdown_of_networks_with_healthy_and_broken_lanes(way):
    def extreme(params, data):
        A = gauss_newton(params, data)
        if way == "slq":
            s = cv.slq(A, steps=40, probes=2, key=jax.random.key(0))
            return jnp.array([s.nodes.min(), s.nodes.max()]), s.nodes, s.live.sum(1).max()
        e = cv.eigenpairs(A, k=2, which="BE", dense=False, multiplicity=False)
        return e.values, e.residuals, e.matvecs

    each, stacked = networks()
    values, others, _ = jax.jit(jax.vmap(extreme))(*stacked)
    matrices = jax.jit(jax.vmap(lambda *problem: gauss_newton(*problem).dense()))(*stacked)
    assert np.isfinite(others).all()
    ranks = []
    for i, (params, data) in enumerate(each):
        truth = np.linalg.eigvalsh(np.asarray(matrices[i], np.float64))
        ranks.append(int(np.sum(truth > 1e-5 * truth[-1])))
        np.testing.assert_allclose(values[i], truth[[0, -1]], rtol=0, atol=1e-5 * truth[-1])
        if i < 2:
            np.testing.assert_allclose(extreme(params, data)[0], truth[[0, -1]], rtol=0, atol=1e-5 * truth[-1])
    assert ranks[0] > 40 and ranks[1] == 8 and ranks[3] == 2 and ranks[4] <= 8
