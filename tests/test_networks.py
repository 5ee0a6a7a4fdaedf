import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records import KEYED, SIDE, batch, network

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
        ({"weights_on": ("fc0",)}, "weights='free' does nothing"),
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
