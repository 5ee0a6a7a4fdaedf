"""Hessian, Gauss-Newton, Fishers, covariance: closed forms, dense autodiff, and every way to hand over the data."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.curvature.matrices import fisher, ggn, gradient_covariance, hessian

ROOT = pathlib.Path(__file__).parents[1]
EXAMPLES, INPUTS, CLASSES = 23, 6, 3
K = jax.random.split(jax.random.key(0), 8)
X = jax.random.normal(K[0], (EXAMPLES, INPUTS))
TARGETS = jax.random.normal(K[1], (EXAMPLES, CLASSES))
LABELS = jax.random.randint(K[2], (EXAMPLES,), 0, CLASSES)
WEIGHTS = jax.random.normal(K[3], (INPUTS, CLASSES))
XD, ZD = np.asarray(X, np.float64), np.asarray(X, np.float64) @ np.asarray(WEIGHTS, np.float64)


def close(found, expected, rtol=1e-5):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


def linear(w, x):
    return jnp.matmul(x, w, precision="highest")


def squared(z, y):
    return jnp.mean(jnp.sum((z - y) ** 2, -1))


def half_squared(z, y):
    return 0.5 * squared(z, y)


def cross_entropy(z, y):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[..., None], -1))


# ---- closed forms ----


def test_linear_regression():
    """H = (2/N) X^T X, once per output; the empirical Fisher weighs each example by its squared residual."""
    w, y, n = WEIGHTS[:, 0], TARGETS[:, 0], EXAMPLES
    loss = lambda w, batch: jnp.mean((linear(w, batch[0]) - batch[1]) ** 2)  # noqa: E731
    output_loss = lambda z, y: jnp.mean((z - y) ** 2)  # noqa: E731
    residual = np.asarray(XD @ np.asarray(w) - np.asarray(y))
    gradients = 2 * residual[:, None] * XD
    close(hessian(loss, w, (X, y)).dense(), 2 / n * XD.T @ XD)
    close(ggn(linear, output_loss, w, (X, y)).dense(), 2 / n * XD.T @ XD)
    close(fisher(linear, output_loss, w, (X, y), kind="empirical").dense(), 4 / n * (XD.T * residual**2) @ XD)
    close(gradient_covariance(loss, w, (X, y)).dense(), np.cov(gradients.T, bias=True))
    close(gradient_covariance(loss, w, (X, y), centred=False).dense(), gradients.T @ gradients / n)
    close(fisher(linear, None, w[:, None], (X, y), likelihood="gaussian").dense(), XD.T @ XD / n)


def test_softmax_regression():
    """H = mean over examples of (x x^T) kron (diag p - p p^T); shifting all logits of a class changes nothing."""
    p = np.exp(ZD - ZD.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    blocks = [np.kron(np.outer(x, x), np.diag(q) - np.outer(q, q)) for x, q in zip(XD, p, strict=True)]
    expected = np.mean(blocks, 0)
    H = hessian(lambda w, batch: cross_entropy(linear(w, batch[0]), batch[1]), WEIGHTS, (X, LABELS))
    for matrix in (H, ggn(linear, cross_entropy, WEIGHTS, (X, LABELS)), fisher(linear, None, WEIGHTS, (X, LABELS))):
        close(matrix.dense(), expected)
    shift = jnp.ones((1, CLASSES)) * jax.random.normal(K[4], (INPUTS, 1))
    assert float(jnp.abs(H @ shift).max()) < 1e-6
    assert np.linalg.matrix_rank(H.dense(), tol=1e-5) == INPUTS * (CLASSES - 1)


def test_logistic_regression():
    w, y = WEIGHTS[:, 0], (LABELS > 0).astype(jnp.float32)
    loss = lambda w, batch: jnp.mean(jnp.logaddexp(0.0, linear(w, batch[0])) - batch[1] * linear(w, batch[0]))  # noqa: E731
    p = 1 / (1 + np.exp(-ZD[:, 0]))
    close(hessian(loss, w, (X, y), microbatch=5).dense(), (XD.T * (p * (1 - p))) @ XD / EXAMPLES)


# ---- a network, against dense autodiff ----

HIDDEN = 7
PARAMS = {
    "fc0": {"w": jax.random.normal(K[5], (INPUTS, HIDDEN)), "b": jnp.full((HIDDEN,), 0.1)},
    "fc1": [jax.random.normal(K[6], (HIDDEN, CLASSES)), jnp.zeros(CLASSES)],
}
FLAT, UNRAVEL = jax.flatten_util.ravel_pytree(PARAMS)


def network(params, x):
    h = jnp.tanh(x @ params["fc0"]["w"] + params["fc0"]["b"])
    return h @ params["fc1"][0] + params["fc1"][1]


def loss(params, batch):
    return cross_entropy(network(params, batch[0]), batch[1])


def rows(losses):
    """The materialised gradients of single examples: [N, n]."""
    return np.asarray(jax.jacrev(lambda flat: losses(UNRAVEL(flat)))(FLAT), np.float64)


@functools.cache
def reference():
    jacobian = np.asarray(jax.jacrev(lambda flat: network(UNRAVEL(flat), X))(FLAT), np.float64)  # [N, C, n]
    z = np.asarray(network(PARAMS, X), np.float64)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    middle = np.einsum("nc,cd->ncd", p, np.eye(CLASSES)) - np.einsum("nc,nd->ncd", p, p)
    gauss_newton = np.einsum("nci,ncd,ndj->ij", jacobian, middle, jacobian) / EXAMPLES
    full = jax.hessian(lambda flat: loss(UNRAVEL(flat), (X, LABELS)))(FLAT)
    return np.asarray(full), gauss_newton, jacobian, p


def losses(params):
    return -jnp.take_along_axis(jax.nn.log_softmax(network(params, X)), LABELS[:, None], 1)[:, 0]


DATA = (X, LABELS)


@pytest.mark.parametrize("microbatch", [5, *(pytest.param(m, marks=pytest.mark.slow) for m in (None, 8, 22, 23, 100))])
def test_the_hessian_of_a_network_by_any_microbatch(microbatch):
    """Of 23 examples these leave 3, 7, 1 and no examples for the last one: a mean of means would be wrong."""
    close(hessian(loss, PARAMS, DATA, microbatch=microbatch).dense(), reference()[0])


@pytest.mark.parametrize("method", ["forward_over_reverse", "reverse_over_reverse", "finite_difference"])
@pytest.mark.parametrize("linearize", [None, True, False])
def test_all_ways_to_differentiate_agree(method, linearize):
    if method != "forward_over_reverse" and linearize is not None:
        pytest.skip("nothing to share")
    rtol = 3e-3 if method == "finite_difference" else 1e-5
    v = hessian(loss, PARAMS, DATA).random(jax.random.key(1))
    product = hessian(loss, PARAMS, DATA, method=method, linearize=linearize) @ v
    close(jax.flatten_util.ravel_pytree(product)[0], reference()[0] @ jax.flatten_util.ravel_pytree(v)[0], rtol)
    assert not any(
        np.asarray(x).any()
        for x in jax.tree.leaves(hessian(loss, PARAMS, DATA, method=method) @ jax.tree.map(jnp.zeros_like, PARAMS))
    )


def test_hessian_is_gauss_newton_plus_the_curvature_of_the_model():
    """H - G = mean over examples of sum_c dl/dz_c d^2 z_c."""
    G = ggn(network, cross_entropy, PARAMS, DATA)
    slopes = jax.grad(lambda z: cross_entropy(z, LABELS))(network(PARAMS, X))
    rest = jax.hessian(lambda flat: jnp.sum(jax.lax.stop_gradient(slopes) * network(UNRAVEL(flat), X)))(FLAT)
    assert np.abs(rest).max() > 0.01
    close(hessian(loss, PARAMS, DATA).dense(), np.asarray(G.dense()) + np.asarray(rest))
    close(G.dense(), reference()[1])
    assert G.psd and not hessian(loss, PARAMS, DATA).psd


@pytest.mark.parametrize("microbatch", [None, 8])
@pytest.mark.slow
def test_fishers_and_covariance_against_materialised_gradients(microbatch):
    _, gauss_newton, jacobian, _ = reference()
    gradients = rows(losses)
    second = gradients.T @ gradients / EXAMPLES
    for made, expected in (
        (fisher(network, cross_entropy, PARAMS, DATA, microbatch=microbatch), gauss_newton),
        (fisher(network, cross_entropy, PARAMS, DATA, "empirical", microbatch=microbatch), second),
        (gradient_covariance(loss, PARAMS, DATA, centred=False, microbatch=microbatch), second),
        (gradient_covariance(loss, PARAMS, DATA, microbatch=microbatch), np.cov(gradients.T, bias=True)),
        (
            fisher(network, None, PARAMS, DATA, likelihood="gaussian", microbatch=microbatch),
            np.einsum("nci,ncj->ij", jacobian, jacobian) / EXAMPLES,
        ),
        (
            ggn(network, half_squared, PARAMS, (X, TARGETS), microbatch=microbatch),
            np.einsum("nci,ncj->ij", jacobian, jacobian) / EXAMPLES,
        ),
    ):
        assert made.psd
        close(made.dense(), expected)


@pytest.mark.parametrize("likelihood", ["categorical", "gaussian"])
@pytest.mark.slow
def test_monte_carlo_fishers_average_to_type2_and_do_not_know_the_microbatch(likelihood):
    draw = functools.partial(fisher, network, None, PARAMS, DATA, kind="monte_carlo", likelihood=likelihood)
    v = hessian(loss, PARAMS, DATA).random(jax.random.key(2))
    first = jax.flatten_util.ravel_pytree(draw(key=jax.random.key(0)) @ v)[0]
    for microbatch in (5, 22):
        close(jax.flatten_util.ravel_pytree(draw(key=jax.random.key(0), microbatch=microbatch) @ v)[0], first)
    quadratics = jax.vmap(lambda key: jnp.vdot(*map(flat_of, (v, draw(key=key) @ v))))
    many = np.asarray(quadratics(jax.random.split(jax.random.key(1), 2000)))
    assert many.min() >= 0 and many.std() > 0.05 * many.mean()
    expected = jnp.vdot(flat_of(v), flat_of(fisher(network, None, PARAMS, DATA, likelihood=likelihood) @ v))
    assert abs(many.mean() - float(expected)) < 3.5 * many.std() / 2000**0.5 < 0.1 * float(expected)


def flat_of(v):
    return jax.flatten_util.ravel_pytree(v)[0]


@pytest.mark.slow
def test_a_sequence_is_one_example():
    """z: [B, T, C]. Gauss-Newton of the sum over T equals type2; monte_carlo squares the gradient of the sum."""
    xs, ys = X[:22].reshape(11, 2, INPUTS), LABELS[:22].reshape(11, 2)
    summed = lambda z, y: 2 * cross_entropy(z, y)  # noqa: E731
    close(fisher(network, None, PARAMS, (xs, ys)).dense(), ggn(network, summed, PARAMS, (xs, ys)).dense())
    gradients = rows(lambda p: jax.vmap(lambda x, y: summed(network(p, x[None]), y[None]))(xs, ys))
    close(fisher(network, summed, PARAMS, (xs, ys), "empirical").dense(), gradients.T @ gradients / 11)


# ---- data of any kind ----


@pytest.mark.slow
def test_products_with_an_iterator_compile_once():
    """One program for each shape of a batch, also for the next operator of the same loss, as in a training loop."""
    traced, x = [], jax.random.normal(jax.random.key(0), (6, 3))

    def loss(params, batch):
        traced.append(None)
        return jnp.mean(jnp.tanh(batch @ params) ** 2)

    def batches():
        return [x[:2], x[2:4], x[4:]]

    H = hessian(loss, jnp.ones(3), batches)
    H @ jnp.ones(3)
    first = len(traced)
    H @ jnp.ones(3)
    hessian(loss, 2 * jnp.ones(3), batches) @ jnp.ones(3)
    assert len(traced) == first > 0


def test_the_host_iterator_equals_memory_and_reports_progress():
    def batches():
        return [tuple(leaf[i : i + 9] for leaf in DATA) for i in range(0, EXAMPLES, 9)]

    def unmeasured():
        yield from batches()

    calls = []
    v = hessian(loss, PARAMS, DATA).random(jax.random.key(3))
    held = hessian(loss, PARAMS, batches, progress=lambda done, total: calls.append((done, total)))
    assert held.host
    close(flat_of(held @ v), reference()[0] @ flat_of(v))
    assert calls == [(1, 3), (2, 3), (3, 3)]
    calls.clear()
    hessian(loss, PARAMS, unmeasured, progress=lambda done, total: calls.append((done, total))) @ v
    assert calls == [(1, None), (2, None), (3, None)]
    for make in (
        lambda data: fisher(network, None, PARAMS, data, kind="monte_carlo", key=jax.random.key(0)),
        lambda data: gradient_covariance(loss, PARAMS, data),
        lambda data: ggn(network, cross_entropy, PARAMS, data).shift(0.5),
    ):
        close(flat_of(make(unmeasured) @ v), flat_of(make(DATA) @ v))
    once = iter(batches())
    with pytest.raises(ValueError, match="new pass at every call"):
        [hessian(loss, PARAMS, lambda: once) @ v for _ in range(2)]


def test_data_are_any_tree_and_leaves_may_be_missing():
    data = {"x": X, "y": LABELS, "weight": None}
    named = lambda p, batch: loss(p, (batch["x"], batch["y"]))  # noqa: E731
    close(hessian(named, PARAMS, data, microbatch=10).dense(), reference()[0])
    close(hessian(lambda p, _: loss(p, DATA), PARAMS).dense(), reference()[0])  # captured; no data at all
    numpy = jax.tree.map(np.asarray, DATA)
    close(hessian(loss, PARAMS, numpy, microbatch=10).dense(), reference()[0])


def test_one_array_twice_in_the_tree_counts_as_two_parameters():
    shared = {"a": X[0], "b": X[0]}
    H = hessian(lambda p, _: jnp.sum(p["a"] * p["b"]), shared)
    close(H.dense(), np.kron([[0, 1], [1, 0]], np.eye(INPUTS)))


def test_nan_is_not_hidden():
    broken = (X.at[3, 0].set(jnp.nan), LABELS)
    for microbatch in (None, 4):
        product = hessian(loss, PARAMS, broken, microbatch=microbatch) @ PARAMS
        assert np.isnan(flat_of(product)).any()


@pytest.mark.slow
def test_bfloat16_parameters_take_and_give_float32_vectors():
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS)
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    data = (X.astype(jnp.bfloat16), LABELS)
    wide = lambda p, b: loss(p, (b[0].astype(jnp.float32), b[1]))  # noqa: E731
    promoted = lambda p, b: wide(jax.tree.map(lambda x: x.astype(jnp.float32), p), b)  # noqa: E731
    reference = hessian(wide, exact, data).dense()
    found = hessian(promoted, half, data).dense()  # computes in float32, but its gradients are rounded to bfloat16
    assert found.dtype == jnp.float32
    top = np.linalg.eigvalsh(reference)[-1]
    assert np.linalg.eigvalsh((found + found.T) / 2)[-1] == pytest.approx(top, rel=5e-3)
    low = hessian(loss, half, data, microbatch=8).dense()
    assert low.dtype == jnp.float32 and np.linalg.eigvalsh((low + low.T) / 2)[-1] == pytest.approx(top, rel=2e-2)


# ---- what it costs ----


def test_microbatches_bound_memory():
    """Differentiated inside the loop; a loop that is differentiated keeps all activations."""
    x, y = jnp.zeros((4096, INPUTS)), jnp.zeros(4096, jnp.int32)

    def temporary(microbatch):
        product = jax.jit(lambda H, v: H @ v).lower(hessian(loss, PARAMS, (x, y), microbatch=microbatch), PARAMS)
        return product.compile().memory_analysis().temp_size_in_bytes

    assert temporary(64) < 0.1 * temporary(None)


# ---- other programs ----


def run(code, **environment):
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", **environment}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_double_precision():
    run("""
import jax; jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp, numpy as np
import test_curvature_matrices as t
w, x, y = (jnp.asarray(a, jnp.float64) for a in (t.WEIGHTS, t.X, t.TARGETS))
n = t.EXAMPLES
H = t.hessian(lambda w, b: t.squared(t.linear(w, b[0]), b[1]), w, (x, y), microbatch=5)
expected = np.kron(2 / n * np.asarray(x).T @ np.asarray(x), np.eye(t.CLASSES))
assert H.dense().dtype == np.float64
t.close(H.dense(), expected, 1e-10)
t.close(t.ggn(t.linear, t.squared, w, (x, y)).dense(), expected, 1e-10)
z = np.asarray(x @ w); p = np.exp(z); p /= p.sum(1, keepdims=True)
blocks = [np.kron(np.outer(a, a), np.diag(q) - np.outer(q, q)) for a, q in zip(np.asarray(x), p)]
t.close(t.fisher(t.linear, None, w, (x, y), microbatch=7).dense(), np.mean(blocks, 0), 1e-10)
mixed = {"a": w.astype(jnp.float32), "b": w}
H = t.hessian(lambda p, _: jnp.sum(p["a"] ** 2 * p["b"]), mixed)
product = H @ jax.tree.map(jnp.ones_like, mixed)
assert (product["a"].dtype, product["b"].dtype) == (np.float64, np.float64)
""")


@pytest.mark.slow
def test_four_devices_equal_one():
    run(
        """
import jax, jax.numpy as jnp, numpy as np
assert len(jax.devices()) == 4
from jax.sharding import NamedSharding, PartitionSpec as P
import test_curvature_matrices as t
mesh = jax.make_mesh((4,), ("data",))
x, y = t.X[:20], t.LABELS[:20]
v = t.hessian(t.loss, t.PARAMS, (x, y)).random(jax.random.key(0))
spread = jax.device_put((x, y), NamedSharding(mesh, P("data")))
everywhere = jax.device_put((t.PARAMS, v), NamedSharding(mesh, P()))
for make in (t.hessian, lambda *a: t.gradient_covariance(*a)):
    one = t.flat_of(jax.jit(lambda A, v: A @ v)(make(t.loss, t.PARAMS, (x, y)), v))
    A = make(t.loss, everywhere[0], spread)
    program = jax.jit(lambda A, v: A @ v).lower(A, everywhere[1]).compile()
    assert "all-reduce" in program.as_text() and "all-gather" not in program.as_text()
    t.close(t.flat_of(program(A, everywhere[1])), one)
""",
        JAX_NUM_CPU_DEVICES="4",
        JAX_PLATFORMS="cpu",
    )


@pytest.mark.slow
def test_vmap_over_networks_equals_a_loop():
    stacked = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x, -x]), PARAMS)
    v = hessian(loss, PARAMS, DATA).random(jax.random.key(4))
    for make in (
        functools.partial(hessian, loss, microbatch=8),
        lambda params, data: fisher(network, None, params, data, kind="monte_carlo", key=jax.random.key(5)),
        functools.partial(gradient_covariance, loss),
    ):
        lanes = jax.jit(jax.vmap(lambda params: make(params, data=DATA) @ v))(stacked)  # noqa: B023
        for i in range(3):
            params = jax.tree.map(lambda x: x[i], stacked)  # noqa: B023
            close(flat_of(jax.tree.map(lambda x: x[i], lanes)), flat_of(make(params, data=DATA) @ v))  # noqa: B023
