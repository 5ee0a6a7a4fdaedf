import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records import KEYED, SIDE, assert_close, assert_same, batch, network
from wiring import check_wiring

from plasticity_jax import tree
from plasticity_jax.networks import activations
from plasticity_jax.networks.initialisers import KERNELS, bias_initialiser, kernel_initialiser
from plasticity_jax.networks.mlp import linear, mlp


def forward(net, variables, x):
    return net.apply(KEYED, variables, x, False)[0]


def plain_forward(params, x, activation, norm=None, place="before"):
    """The same network as a plain loop in float64."""
    x = np.asarray(x, np.float64).reshape(len(x), -1)

    def normalise(z, layer):
        if norm is None:
            return z
        gain = {k: np.asarray(v, np.float64) for k, v in layer.items()}
        if norm == "layer":
            z = z - z.mean(-1, keepdims=True)
        z = z / np.sqrt((z**2).mean(-1, keepdims=True) + 1e-5)
        return z * gain["scale"] + gain.get("bias", 0.0)

    for i in range(2):
        layer = {k: np.asarray(v, np.float64) for k, v in params[f"fc{i}"].items()}
        z = x @ layer["kernel"] + layer["bias"]
        if place == "before":
            z = normalise(z, params.get(f"norm{i}"))
        x = activation(z)
        if place == "after":
            x = normalise(x, params.get(f"norm{i}"))
    head = {k: np.asarray(v, np.float64) for k, v in params["head"].items()}
    return x @ head["kernel"] + head["bias"]


@pytest.mark.parametrize(("norm", "place"), [("none", "before"), ("layer", "before"), ("rms", "after")])
def test_mlp_is_the_formula(norm, place):
    net = network(norm=norm, norm_place=place, bias_init="torch")
    variables = net.init(KEYED)
    variables = variables._replace(params=jax.tree.map(lambda p: p + 0.1 * jnp.cos(p), variables.params))
    x = batch(KEYED)["x"]
    expected = plain_forward(variables.params, x, lambda z: np.maximum(z, 0), None if norm == "none" else norm, place)
    np.testing.assert_allclose(forward(net, variables, x).y, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", activations.ACTIVATIONS)
def test_activations(name):
    net = network(activation=name)
    outputs = forward(net, net.init(KEYED), batch(KEYED)["x"])
    for layer in ("fc0", "fc1"):
        np.testing.assert_allclose(
            outputs.acts[layer], activations.ACTIVATIONS[name](outputs.preacts[layer]), rtol=1e-6
        )
        if layer in net.bounds:
            low, high = net.bounds[layer]
            assert low <= float(outputs.acts[layer].min()) and float(outputs.acts[layer].max()) <= high
    assert (name in activations.BOUNDS) == bool(net.bounds)


@pytest.mark.parametrize("place", ["before", "after"])
def test_acts_are_post_activations_wherever_the_norm_stands(place):
    net = network(norm="layer", norm_place=place)
    variables = net.init(KEYED)
    outputs = forward(net, variables, batch(KEYED)["x"])
    assert (outputs.acts["fc0"] == jnp.maximum(outputs.preacts["fc0"], 0)).all()


def test_linear_is_one_product():
    net = linear((SIDE, SIDE, 1), 3)
    variables = net.init(KEYED)
    x = batch(KEYED)["x"]
    head = variables.params["head"]
    np.testing.assert_allclose(
        forward(net, variables, x).y, x.reshape(12, -1) @ head["kernel"] + head["bias"], rtol=1e-5
    )
    assert list(variables.params) == ["head"] and net.wiring == ()


SCALES = {  # variance of an entry times the fan-in, for a [200, 300] kernel
    "lecun_normal": 1.0,
    "lecun_uniform": 1.0,
    "he_normal": 2.0,
    "he_uniform": 2.0,
    "glorot_normal": 200 * 2 / 500,
    "glorot_uniform": 200 * 2 / 500,
    "normal": 200 * 1e-4,
    "truncated_normal": 200 * 0.7737e-4,  # what is left of the variance
    "uniform": 200 * 1e-4 / 12,
    "orthogonal": 200 / 300,
    "delta_orthogonal": 200 / 300,
    "torch": 1 / 3,
    "mup": 1.0,
    "mup_output": 1 / 200,
    "zeros": 0.0,
    "ones": 0.0,
}
ALIASES = {"kaiming_normal": "he_normal", "kaiming_uniform": "he_uniform", "dqn": "torch"}
ALIASES |= {"xavier_normal": "glorot_normal", "xavier_uniform": "glorot_uniform"}


@pytest.mark.parametrize("name", KERNELS)
def test_initialisers_have_the_variance_of_their_name(name):
    kernel = kernel_initialiser(name)(KEYED, (200, 300), jnp.float32)
    name = ALIASES.get(name, name)
    assert float(kernel.var()) * 200 == pytest.approx(SCALES[name], rel=0.03)
    if name in ("zeros", "ones"):
        assert (kernel == (name == "ones")).all()
    if name == "torch":
        assert float(jnp.abs(kernel).max()) <= 200**-0.5


def test_every_initialiser_of_jax_has_a_name():
    factories = {name for name in dir(jax.nn.initializers) if not name.startswith("_")}
    assert factories - {"Initializer", "constant", "variance_scaling"} <= set(
        KERNELS
    )  # "ones" with a gain; eight cases


def test_torch_biases_and_convolutions_use_the_fan_in():
    bias = bias_initialiser("torch", 25)(KEYED, (4_000,))
    assert 0.19 < float(jnp.abs(bias).max()) <= 0.2
    kernel = kernel_initialiser("torch")(KEYED, (5, 5, 4, 64), jnp.float32)
    assert 0.099 < float(jnp.abs(kernel).max()) <= 0.1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"activation": "reul"}, "Did you mean 'relu'"),
        ({"norm": "bach"}, "norm='bach'.*Did you mean 'batch'.*none, layer, rms, group, batch, hybrid"),
        ({"copies": "half"}, "copies='half'"),
        ({"weights": "spectrum"}, "Did you mean 'spectral'"),
        ({"weights": "spectral", "weights_on": ("fc2",)}, "weights_on='fc2'.*Allowed: fc0, fc1, head"),
        ({"weights_on": ("fc0",)}, "weights='free' on.*changes nothing"),
        ({"gain": float("nan")}, "gain=nan"),
        ({"head_init": "zeroes"}, "Did you mean 'zeros'"),
        ({"norm_place": "behind"}, "norm_place"),
        ({"kernel_init": "he"}, "kernel_init='he'"),
        ({"bias_init": "ones"}, "bias_init='ones'"),
    ],
)
def test_unknown_names_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        network(**settings)


@pytest.mark.parametrize("widths", [(0,), (8, -1), (3.5,)])
def test_widths_must_be_whole_and_positive(widths):
    with pytest.raises(ValueError, match="widths"):
        mlp((SIDE, SIDE, 1), 3, widths=widths)


# ---- wiring, for every option that decides who reads or writes a unit ----

OPTIONS = {
    "crelu": {"activation": "crelu"},
    "fourier, shared": {"activation": "fourier", "copies": "share"},
    # a reader of standardised weights reads rows of zeros too, less their mean: only the first layer has no such unit
    "rational": {"activation": "rational", "weights": "scaled_standardised", "weights_on": ("fc0",)},
    "residual": {"activation": "tanh", "residual": True},
    "residual, crelu, norm after": {"activation": "crelu", "residual": True, "norm": "batch", "norm_place": "after"},
    "layer norm": {"activation": "softplus", "norm": "layer"},
    "layer norm after": {"activation": "fourier", "norm": "layer", "norm_place": "after"},
    "rms norm": {"activation": "leaky_relu", "norm": "rms"},
    "group norm": {"activation": "elu", "norm": "group"},
    "batch norm": {"activation": "silu", "norm": "batch"},
    "hybrid norm": {"activation": "crelu", "norm": "hybrid"},
    "spectral": {"activation": "gelu", "weights": "spectral", "weights_on": ("fc0", "head")},
}


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.slow
def test_wiring_is_true(option):
    settings = OPTIONS[option]
    norm, place = settings.get("norm", "none"), settings.get("norm_place", "before")
    net = mlp((5,), 3, widths=(6, 6, 4), bias_init="torch", **settings)
    x = jax.random.normal(KEYED, (7, 5))
    part = "norm" if norm != "none" and place == "after" else "act"

    def mixes(path):
        of_dense_layer = norm not in ("none", "batch") and path[1].startswith("fc")
        is_spectral = path == ("params", "fc0", "kernel") and settings.get("weights") == "spectral"
        return of_dense_layer or is_spectral or (norm == "hybrid" and path[0] == "stats")

    check_wiring(net, x, lambda layer: layer.replace("fc", part), mixes)


def test_residual_layers_are_sums():
    net = mlp((5,), 3, widths=(6, 6, 4), activation="tanh", residual=True, bias_init="torch")
    variables, x = net.init(KEYED), jax.random.normal(KEYED, (7, 5))
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables.params)

    def f(x, name):
        return np.tanh(x @ p[name]["kernel"] + p[name]["bias"])

    h = f(np.asarray(x, np.float64), "fc0")
    h = h + f(h, "fc1")
    h = h @ p["skip2"]["kernel"] + f(h, "fc2")
    expected = h @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(forward(net, variables, x).y, expected, rtol=1e-4, atol=1e-5)
    assert list(p) == ["fc0", "fc1", "fc2", "head", "skip2"]


# ---- sizes, scales and places ----


def test_width_multiplies_every_layer_and_copies_share_or_match():
    def shapes(**settings):
        params = jax.eval_shape(mlp((20,), 3, widths=(40, 30), **settings).init, KEYED).params
        return tree.size(params), [params[name]["kernel"].shape for name in ("fc0", "fc1", "head")]

    plain, kernels = shapes()
    assert kernels == [(20, 40), (40, 30), (30, 3)]
    assert shapes(width=0.5)[1] == [(20, 20), (20, 15), (15, 3)]
    assert shapes(activation="crelu")[1] == [(20, 40), (80, 30), (60, 3)]
    assert shapes(activation="crelu", copies="share")[1] == [(20, 20), (40, 15), (30, 3)]
    for activation in ("crelu", "fourier"):
        matched, kernels = shapes(activation=activation, copies="match")
        assert 0.96 * plain < matched <= plain and kernels[0][1] < 40
    assert shapes(copies="match")[0] == plain


@pytest.mark.parametrize("place", ["before", "after"])
def test_there_is_no_bias_where_batch_norm_would_take_it_away(place):
    params = jax.eval_shape(network(norm="batch", norm_place=place).init, KEYED).params
    assert ("bias" in params["fc0"]) == (place == "after") and "bias" in params["head"]


def test_training_moves_statistics_and_evaluation_does_not():
    net = network(norm="batch", weights="spectral")
    variables, x = net.init(KEYED), batch(KEYED)["x"]
    assert {path[-1].key for path, _ in jax.tree_util.tree_leaves_with_path(variables.stats)} == {"mean", "var", "u"}
    _, after = jax.jit(net.apply, static_argnums=3)(KEYED, variables, x, True)
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(variables.stats), strict=True))
    assert_same(net.apply(KEYED, variables, x, False)[1], variables.stats)
    with pytest.raises(ValueError, match="batches of 2 or more"):
        jax.eval_shape(lambda v: net.apply(KEYED, v, x[:1], True), variables)


@pytest.mark.slow
def test_training_is_the_same_alone_and_side_by_side():
    net = network(norm="batch", weights="spectral", activation="crelu", residual=True)
    x, keys = batch(KEYED)["x"], jax.random.split(KEYED, 2)

    def two_passes(key):
        variables = net.init(key)
        gradient = jax.grad(lambda p: jnp.sum(net.apply(key, variables._replace(params=p), x, True)[0].y ** 2))
        _, stats = net.apply(key, variables, x, True)
        return gradient(variables.params), net.apply(key, variables._replace(stats=stats), x, True)

    many = jax.jit(jax.vmap(two_passes))(keys)
    for i, key in enumerate(keys):
        assert_close(jax.tree.map(lambda leaf, i=i: leaf[i], many), jax.jit(two_passes)(key), 1e-4)


def test_gains_scale_kernels_and_the_head_has_its_own():
    plain = network(kernel_init="orthogonal").init(KEYED).params
    scaled = network(kernel_init="orthogonal", gain=2.0, head_gain=0.5).init(KEYED).params
    for name, factor in (("fc0", 2.0), ("fc1", 2.0), ("head", 0.5)):
        np.testing.assert_allclose(scaled[name]["kernel"], factor * plain[name]["kernel"], rtol=1e-6)
    traced = jax.jit(lambda gain: network(kernel_init="orthogonal", gain=gain).init(KEYED).params)(2.0)
    np.testing.assert_allclose(traced["fc0"]["kernel"], scaled["fc0"]["kernel"], rtol=1e-5)
    silent = network(head_init="zeros").init(KEYED).params
    assert not silent["head"]["kernel"].any() and silent["fc1"]["kernel"].any()


@pytest.mark.slow
def test_mup_makes_the_outputs_of_wide_networks_small():
    x = jax.random.normal(KEYED, (32, 16))

    def rms_output(width):
        net = mlp((16,), 8, widths=(width, width), kernel_init="mup")
        return float(jnp.sqrt(jnp.mean(forward(net, net.init(KEYED), x).y ** 2)))

    assert rms_output(512) / rms_output(32) == pytest.approx((32 / 512) ** 0.5, rel=0.3)


def test_weights_of_no_layer_are_refused():
    with pytest.raises(ValueError, match="changes nothing with 0 hidden layers"):
        mlp((5,), 3, widths=(), weights="spectral")


def test_a_width_that_differs_by_run_is_refused():
    with pytest.raises(ValueError, match="width decides shapes, so it cannot be an axis"):
        jax.eval_shape(lambda width: network(width=width).init(KEYED), 0.5)
    with pytest.raises(ValueError, match="width=0"):
        network(width=0)


def test_delta_orthogonal_keeps_the_size_of_constant_images():
    kernel = kernel_initialiser("delta_orthogonal")(KEYED, (3, 3, 4, 6), jnp.float32)
    np.testing.assert_allclose(kernel[1, 1] @ kernel[1, 1].T, np.eye(4), atol=1e-5)
    assert float(jnp.abs(kernel).sum()) == pytest.approx(float(jnp.abs(kernel[1, 1]).sum()))
    with pytest.raises(ValueError, match="2 units of 4 channels"):
        kernel_initialiser("delta_orthogonal")(KEYED, (3, 3, 4, 2), jnp.float32)
