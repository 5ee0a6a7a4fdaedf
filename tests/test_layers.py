"""Activations, weights and norms against their formulas in numpy, float64."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from records import KEYED, assert_same
from scipy import special

from plasticity_jax.networks.activations import ACTIVATIONS, BOUNDS, COPIES, Activation
from plasticity_jax.networks.layers import NORMS, WEIGHTS, Conv, Dense, Norm, units_of

POINTS = np.linspace(-4, 4, 41)
FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "crelu": lambda x: np.concatenate([np.maximum(x, 0), np.maximum(-x, 0)]),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "gelu": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "tanh": np.tanh,
    "sigmoid": special.expit,
    "sine": np.sin,
    "fourier": lambda x: np.concatenate([np.sin(x), np.cos(x)]),
    "identity": lambda x: x,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_activations_are_their_formulas(name):
    y = Activation(name).apply({}, jnp.asarray(POINTS))
    np.testing.assert_allclose(y, FORMULAS[name](POINTS), rtol=1e-5, atol=1e-6)
    assert y.shape == (41 * COPIES[name],)


def test_every_activation_is_tested():
    assert set(ACTIVATIONS) == {*FORMULAS, "rational"} and set(BOUNDS) == {"tanh", "sigmoid"}


def test_rational_begins_near_leaky_relu_and_is_the_ratio_of_its_coefficients():
    module = Activation("rational")
    params = module.init(KEYED, POINTS)["params"]
    y, inner = module.apply({"params": params}, POINTS), np.abs(POINTS) <= 3
    assert np.abs(y - FORMULAS["leaky_relu"](POINTS))[inner].max() < 0.034
    np.testing.assert_allclose(y, ACTIVATIONS["rational"](POINTS), rtol=1e-5)
    a, b = np.arange(6) / 7 - 0.3, np.array([0.5, -1.0, 0.2, 0.1])
    below = 1 + np.abs(sum(c * POINTS ** (k + 1) for k, c in enumerate(b)))
    expected = sum(c * POINTS**k for k, c in enumerate(a)) / below
    learned = {"params": {"numerator": jnp.asarray(a), "denominator": jnp.asarray(b)}}
    np.testing.assert_allclose(module.apply(learned, POINTS), expected, rtol=1e-4, atol=1e-5)
    gradient = jax.grad(lambda p: jnp.sum(module.apply({"params": p}, POINTS)))(params)
    assert all(np.isfinite(g).all() and (np.asarray(g) != 0).any() for g in jax.tree.leaves(gradient))


def test_units_of_shares_the_width_among_copies():
    assert [units_of(100, 0.25), units_of(100, 1, "crelu", "keep"), units_of(5, 1, "fourier", "share")] == [25, 100, 2]
    assert units_of(3, 0.01) == 1


# ---- weights ----


def effective(kernel, gain, weights):
    """What a layer multiplies with, in float64."""
    w = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    if weights == "spectral":
        w = w / np.linalg.svd(w, compute_uv=False)[0]
    if weights.endswith("standardised"):
        w = (w - w.mean(0)) / w.std(0)
    if weights == "scaled_standardised":
        w = w * np.asarray(gain) / math.sqrt(len(w))
    return w.reshape(kernel.shape)


def converged(module, x):
    """Variables after so many training passes that a power iteration has converged, with gains of all sizes."""
    variables = module.init(KEYED, x)
    params = jax.tree.map(lambda p: p + 0.1 * jnp.cos(jnp.arange(p.size, dtype=p.dtype)).reshape(p.shape), variables)
    params, stats = params["params"], variables.get("stats", {})

    def step(stats, _):
        return module.apply({"params": params, "stats": stats}, x, True, mutable=["stats"])[1].get("stats", {}), None

    return params, jax.jit(lambda s: lax.scan(step, s, length=200)[0])(stats)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_dense(weights):
    x = jax.random.normal(KEYED, (5, 12))
    module = Dense(7, "he_normal", "torch", weights=weights)
    params, stats = converged(module, x)
    y, after = module.apply({"params": params, "stats": stats}, x, mutable=["stats"])
    w = effective(params["kernel"], params.get("gain"), weights)
    np.testing.assert_allclose(y, x @ w + params["bias"], rtol=1e-4, atol=1e-5)
    assert_same(after.get("stats", {}), stats)  # nothing moves outside training
    bare = Dense(7, "he_normal", use_bias=False)
    assert list(bare.init(KEYED, x)["params"]) == ["kernel"]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_conv(weights):
    x = jax.random.normal(KEYED, (2, 6, 5, 3))
    module = Conv(4, (3, 2), "torch", strides=(2, 1), padding="VALID", bias_init="torch", weights=weights)
    params, stats = converged(module, x)
    y = module.apply({"params": params, "stats": stats}, x)
    w = jnp.asarray(effective(params["kernel"], params.get("gain"), weights), jnp.float32)
    expected = lax.conv_general_dilated(x, w, (2, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(y, expected + params["bias"], rtol=1e-4, atol=1e-5)


def test_spectral_norm_takes_one_step_in_training_and_its_gradient_knows_the_norm():
    x = jnp.eye(9)
    module = Dense(6, "normal", use_bias=False, weights="spectral")
    first = module.init(KEYED, x)
    w, u = (np.asarray(a, np.float64) for a in (first["params"]["kernel"], first["stats"]["u"]))
    _, after = module.apply(first, x, True, mutable=["stats"])
    u = w.T @ (w @ u)
    np.testing.assert_allclose(after["stats"]["u"], u / np.linalg.norm(u), rtol=1e-4, atol=1e-6)

    params, stats = converged(module, x)
    assert np.linalg.svd(module.apply({"params": params, "stats": stats}, x))[1][0] == pytest.approx(1.0, abs=1e-5)
    given = jax.random.normal(KEYED, (9, 6))  # the gradient of a function of the normalised weights
    found = jax.grad(lambda p: jnp.vdot(given, module.apply({"params": p, "stats": stats}, x)))(params)["kernel"]
    w, g = np.asarray(params["kernel"], np.float64), np.asarray(given, np.float64)
    left, s, right = np.linalg.svd(w)
    expected = g / s[0] - (g * w).sum() / s[0] ** 2 * np.outer(left[:, 0], right[0])
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_units_without_weights_have_a_finite_gradient():
    module = Dense(3, "zeros", weights="standardised")
    variables = module.init(KEYED, jnp.ones((2, 4)))
    gradient = jax.grad(lambda v: jnp.sum(module.apply(v, jnp.ones((2, 4)))))(variables)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# ---- norms ----

DENSE, IMAGES = (6, 64), (3, 4, 5, 48)
EPSILON = 1e-5


def normalised(x, kind, over):
    """Statistics of the batch at hand; x in float64."""
    features = tuple(range(1, x.ndim)) if over == "all" else -1
    units = tuple(range(x.ndim - 1))
    if kind == "rms":
        return x / np.sqrt((x**2).mean(features, keepdims=True) + EPSILON)
    if kind == "group":  # 4 groups of 16 units; 24 groups of 2 channels at 20 positions
        groups = 4 if x.ndim == 2 else 24
        parts = np.split(x, groups, -1)
        axes = tuple(range(1, x.ndim))
        parts = [(p - p.mean(axes, keepdims=True)) / np.sqrt(p.var(axes, keepdims=True) + EPSILON) for p in parts]
        return np.concatenate(parts, -1)
    if kind == "batch":
        return (x - x.mean(units)) / np.sqrt(x.var(units) + EPSILON)
    if kind == "hybrid":
        x = x - x.mean(units)
        return x / np.sqrt(x.var(features, keepdims=True) + EPSILON)
    return (x - x.mean(features, keepdims=True)) / np.sqrt(x.var(features, keepdims=True) + EPSILON)


@pytest.mark.parametrize("kind", NORMS[1:])
@pytest.mark.parametrize(("shape", "over"), [(DENSE, "channels"), (IMAGES, "channels"), (IMAGES, "all")])
def test_norms(kind, shape, over):
    x = 2.0 + 3.0 * jax.random.normal(KEYED, shape)
    module = Norm(kind, over)
    variables = module.init(KEYED, x)
    gains = {name: 1.0 + jnp.arange(shape[-1]) / 10 for name in variables["params"]}
    y, _ = module.apply({**variables, "params": gains}, x, True, mutable=["stats"])
    scale = np.asarray(gains["scale"], np.float64)
    expected = normalised(np.asarray(x, np.float64), kind, over) * scale + (0 if kind == "rms" else scale)
    np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-3)
    assert set(gains) == ({"scale"} if kind == "rms" else {"scale", "bias"})


@pytest.mark.parametrize("shape", [DENSE, IMAGES])
def test_batch_norm_outside_training_uses_running_statistics(shape):
    module, x = Norm("batch"), 2.0 + 3.0 * jax.random.normal(KEYED, shape)
    variables, means, variances = module.init(KEYED, x), 0.0, 1.0
    for i in range(3):
        _, changed = module.apply(variables, (i + 1) * x, True, mutable=["stats"])
        variables |= changed
        rows = np.asarray((i + 1) * x, np.float64).reshape(-1, shape[-1])
        means = 0.9 * means + 0.1 * rows.mean(0)
        variances = 0.9 * variances + 0.1 * rows.var(0, ddof=1)
    np.testing.assert_allclose(variables["stats"]["mean"], means, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(variables["stats"]["var"], variances, rtol=1e-4)
    y = module.apply(variables, x)
    np.testing.assert_allclose(y, (x - means) / np.sqrt(variances + EPSILON), rtol=1e-3, atol=1e-4)


def test_hybrid_norm_outside_training_uses_the_running_mean():
    module, x = Norm("hybrid"), 2.0 + 3.0 * jax.random.normal(KEYED, DENSE)
    variables = module.init(KEYED, x)
    variables |= module.apply(variables, x, True, mutable=["stats"])[1]
    centred = np.asarray(x, np.float64) - 0.1 * np.asarray(x, np.float64).mean(0)
    expected = centred / np.sqrt(centred.var(-1, keepdims=True) + EPSILON)
    np.testing.assert_allclose(module.apply(variables, x), expected, rtol=1e-4, atol=1e-4)


def test_a_norm_over_copies_keeps_one_row_for_each_copy():
    module, x = Norm("batch", copies=2), jax.random.normal(KEYED, DENSE)
    variables = module.init(KEYED, x)
    assert {leaf.shape for leaf in jax.tree.leaves(variables)} == {(2, 32)}
    y, stats = module.apply(variables, x, True, mutable=["stats"])
    plain, plain_stats = Norm("batch").apply(Norm("batch").init(KEYED, x), x, True, mutable=["stats"])
    np.testing.assert_array_equal(y, plain)
    assert_same(jax.tree.map(jnp.ravel, stats), plain_stats)


def test_group_norm_leaves_16_numbers_to_a_group():
    x = jax.random.normal(KEYED, (4, 24))  # two groups of 12 would be too small
    y = Norm("group").apply(Norm("group").init(KEYED, x), x)
    np.testing.assert_allclose(y, normalised(np.asarray(x, np.float64), "layer", "channels"), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["batch", "hybrid"])
def test_a_mean_over_one_number_is_refused_before_anything_runs(kind):
    module = Norm(kind)
    variables = module.init(KEYED, jnp.ones((1, 8)))  # not in training: running statistics suffice
    train = functools.partial(module.apply, variables, train=True, mutable=["stats"])
    with pytest.raises(ValueError, match=f"norm='{kind}'.*batches of 2 or more"):
        jax.eval_shape(train, jnp.ones((1, 8)))
    with pytest.raises(ValueError, match="batch of 1"):
        jax.eval_shape(train, jnp.ones((1, 2, 2, 8)))  # positions alone are one example's statistics


def test_spectral_weights_of_zeros_stay_zeros_and_can_leave_them():
    """A head that starts at 0, or is put there at a boundary."""
    module, x = Dense(3, "zeros", weights="spectral"), jax.random.normal(KEYED, (5, 4))
    variables = module.init(KEYED, x)

    def loss(params):
        y, stats = module.apply({**variables, "params": params}, x, True, mutable=["stats"])
        return jnp.sum((y - 1) ** 2), stats

    gradient, stats = jax.grad(loss, has_aux=True)(variables["params"])
    assert 0.1 < float(jnp.abs(gradient["kernel"]).max()) < 100
    moved = {"params": {**variables["params"], "kernel": 5.0 * jnp.eye(4, 3)}, **stats}
    for _ in range(30):
        _, stats = module.apply(moved, x, True, mutable=["stats"])
        moved = {**moved, **stats}
    np.testing.assert_allclose(module.apply(moved, x), x[:, :3], rtol=1e-4)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Norm("none"), "norm='none'"),
        (Norm("lyer"), "Did you mean 'layer'"),
        (Norm("layer", "axes"), "norm over='axes'"),
        (Activation("rlu"), "Did you mean 'relu'"),
        (Dense(3, "torch", weights="spectre"), "Did you mean 'spectral'"),
        (Dense(3, "lecun"), "kernel_init='lecun'"),
    ],
)
def test_unknown_names_are_refused(module, words):
    with pytest.raises(ValueError, match=words):
        module.init(KEYED, jnp.ones((2, 4)))
