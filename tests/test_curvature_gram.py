import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.curvature import gram
from plasticity_jax.curvature.gram import gradient_gram, ntk

SIZES = (5, 7, 3)


def network(key, sizes=SIZES):
    keys = jax.random.split(key, len(sizes) - 1)
    shapes = zip(keys, sizes[:-1], sizes[1:], strict=True)
    return {f"fc{i}": {"w": jax.random.normal(k, (a, b)), "b": jnp.zeros(b)} for i, (k, a, b) in enumerate(shapes)}


def model(params, x):
    for i in range(len(params)):
        x = (jnp.tanh(x) if i else x) @ params[f"fc{i}"]["w"] + params[f"fc{i}"]["b"]
    return x


def loss(params, batch):
    return jnp.mean(jnp.sum((model(params, batch[0]) - batch[1]) ** 2, -1))


def problem(key, k=11):
    a, b, c = jax.random.split(key, 3)
    return network(a), (jax.random.normal(b, (k, SIZES[0])), jax.random.normal(c, (k, SIZES[-1])))


def gradients(params, data):
    """[k, n] float64 by one reverse pass per example."""
    singles = [jax.tree.map(lambda x, i=i: x[i : i + 1], data) for i in range(len(data[0]))]
    flat = [jax.flatten_util.ravel_pytree(jax.grad(loss)(params, one))[0] for one in singles]
    return np.stack(flat).astype(np.float64)


def cosines(g):
    length = np.linalg.norm(g, axis=1)
    return g @ g.T / np.outer(length, length)


def bytes_for(params, examples):
    return examples * 4.0 * sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("held", [1, 7, 1000])  # one example at a time, ragged, all at once
def test_the_gram_is_that_of_the_materialised_gradients(key, held):
    params, data = problem(key)
    g = gradients(params, data)
    memory = bytes_for(params, held)
    raw = gradient_gram(loss, params, data, cosine=False, memory=memory)
    assert raw.shape == (11, 11) and raw.dtype == jnp.float32
    np.testing.assert_allclose(raw, g @ g.T, atol=1e-5 * np.abs(g @ g.T).max())
    np.testing.assert_array_equal(raw, raw.T)


@pytest.mark.parametrize("k", [1, 2, 7, 64, 512])
@pytest.mark.parametrize("held", [0.1, 1, 3.5, 5, 13, 67.2, 1e4])
def test_every_plan_covers_all_examples_and_keeps_within_memory(k, held):
    step, steps, blocks = gram._plan(k, held)
    assert step * steps * blocks >= k > step * steps * (blocks - 1)
    assert step * (steps + 1) <= max(held, 2)


def test_cosines_stay_within_one_and_a_zero_gradient_gives_zeros(key):
    params, (x, y) = problem(key)
    y = y.at[4].set(model(params, x[4:5])[0])  # its residual, so its gradient, is exactly zero
    x, y = x.at[6].set(x[5]), y.at[6].set(y[5])
    c = np.asarray(gradient_gram(loss, params, (x, y), memory=bytes_for(params, 6)))
    others = np.delete(np.arange(len(x)), 4)
    np.testing.assert_allclose(c[np.ix_(others, others)], cosines(gradients(params, (x, y))[others]), atol=2e-6)
    assert np.abs(c).max() <= 1 and np.isfinite(c).all()
    assert not c[4].any() and not c[:, 4].any()
    np.testing.assert_allclose(np.delete(np.diag(c), 4), 1, atol=1e-6)
    assert c[5, 6] == pytest.approx(1, abs=1e-6)


def test_tiny_gradients_keep_their_cosines_and_nan_stays_in_its_row(key):
    params, data = problem(key)
    c = gradient_gram(lambda p, b: 1e-25 * loss(p, b), params, data)  # squares are below the smallest float32
    np.testing.assert_allclose(c, cosines(gradients(params, data)), atol=2e-6)
    c = np.asarray(gradient_gram(loss, params, (data[0].at[3].set(jnp.nan), data[1])))
    assert np.isnan(c[3]).all() and np.isnan(c[:, 3]).all()
    assert np.isfinite(np.delete(np.delete(c, 3, 0), 3, 1)).all()


def test_bfloat16_parameters_are_accumulated_in_float32(key):
    params, data = problem(key)
    low = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    c = gradient_gram(loss, low, data)
    assert c.dtype == jnp.float32
    np.testing.assert_allclose(c, cosines(gradients(low, data)), atol=2e-2)


@pytest.mark.slow
def test_gram_and_kernel_under_jit_and_vmap(key):
    params, data = problem(key)
    memory = bytes_for(params, 8)
    stacked = jax.vmap(network)(jax.random.split(key, 3))
    for f in (
        lambda p: gradient_gram(loss, p, data, memory=memory),
        lambda p: ntk(model, p, data[0], outputs="full", memory=3 * memory),
    ):
        together = jax.jit(jax.vmap(f))(stacked)
        for i in range(3):
            alone = f(jax.tree.map(lambda x, i=i: x[i], stacked))
            np.testing.assert_allclose(together[i], alone, rtol=1e-4, atol=1e-4)


def test_other_parameters_compile_nothing_anew(key):
    params, data = problem(key)
    traces = []

    def counted(params, batch):
        traces.append(1)
        return loss(params, batch)

    gradient_gram(counted, params, data)
    first = len(traces)
    gradient_gram(counted, jax.tree.map(lambda x: 2 * x, params), data)
    assert len(traces) - first <= 1  # the check of the loss's shape


@pytest.mark.parametrize("held", [2, 1000])
def test_the_kernel_is_that_of_the_materialised_jacobian(key, held):
    params, (x, _) = problem(key, k=7)
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    J = np.asarray(jax.jacfwd(lambda p: model(unravel(p), x))(flat), np.float64)
    full = np.einsum("icn,jdn->ijcd", J, J)
    memory = bytes_for(params, held) * SIZES[-1]
    got = ntk(model, params, x, outputs="full", memory=memory)
    np.testing.assert_allclose(got, full, atol=1e-5 * full.max())
    mean = np.trace(full, axis1=2, axis2=3) / SIZES[-1]
    np.testing.assert_allclose(ntk(model, params, x, memory=memory), mean, atol=1e-5 * full.max())


def test_the_kernel_of_a_linear_model_is_the_gram_of_its_inputs(key):
    x = jax.random.normal(key, (6, 4))
    np.testing.assert_allclose(ntk(lambda w, x: {"z": x @ w}, jnp.ones((4, 5)), x), x @ x.T, atol=1e-5)


def test_512_examples_of_a_large_network_stay_under_half_a_gigabyte():
    sizes = (784, 1024, 1024, 10)  # 1.86M parameters: all gradients at once are 3.8 GB
    params = jax.eval_shape(lambda: network(jax.random.key(0), sizes))
    data = jax.ShapeDtypeStruct((512, 784), jnp.float32), jax.ShapeDtypeStruct((512, 10), jnp.float32)
    compiled = gram._gradient_gram.lower(loss, params, data, True, 0.5e9).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.55e9
    compiled = gram._ntk.lower(model, params, data[0], "mean", 0.5e9).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.55e9


def test_bad_input_is_refused(key):
    params, data = problem(key)
    bad = [
        ("scalar", lambda p, b: model(p, b[0]), params, data, {}),
        ("fc0/b", loss, {**params, "fc0": {"w": params["fc0"]["w"], "b": jnp.zeros(7, int)}}, data, {}),
        ("iterator", loss, params, lambda: iter([data]), {}),
        ("no examples", loss, params, None, {}),
        ("no examples", loss, params, (data[0][:0], data[1][:0]), {}),
        ("share their leading axis", loss, params, (data[0], data[1][:3]), {}),
        ("memory=0", loss, params, data, {"memory": 0}),
    ]
    for text, f, p, d, settings in bad:
        with pytest.raises(ValueError, match=text):
            gradient_gram(f, p, d, **settings)
    with pytest.raises(ValueError, match="outputs='all' is unknown"):
        ntk(model, params, data[0], outputs="all")
    with pytest.raises(ValueError, match="what the model returns"):
        ntk(lambda p, x: jnp.argmax(model(p, x), -1), params, data[0])
