import re
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from masking import assert_wired
from records import KEYED, assert_close, network

from plasticity_jax import tree
from plasticity_jax.build import complete
from plasticity_jax.networks.activations import ACTIVATIONS
from plasticity_jax.networks.cnn import PRESETS, cnn
from plasticity_jax.networks.convolution import average_pool, max_pool

IMAGES = jax.random.normal(KEYED, (3, 10, 9, 2))


def small(**settings):
    given = {"channels": (4, 3), "windows": (3, 2), "widths": (5,), "pool": ("max", "none"), "pool_window": 2}
    return cnn((10, 9, 2), 3, **{**given, **settings})


def disturbed(net, strength=0.3):
    """Initial variables with every parameter moved, so that no bias is 0 and no gain is 1."""

    def moved(key):
        variables = net.init(key)
        return variables._replace(params=jax.tree.map(lambda p: p + strength * jnp.cos(p + 1.0), variables.params))

    return jax.jit(moved)(KEYED)


def forward(net, variables, x=IMAGES):
    return jax.jit(lambda v: net.apply(KEYED, v, x, False)[0])(variables)


@pytest.mark.parametrize(
    ("preset", "shape", "outputs", "parameters"),
    [
        (
            "lyle",
            (28, 28, 1),
            10,
            25 * 64 + 9 * 64 * 64 + 22 * 22 * 64 * 256 + 256 * 256 + 2560 + 2 * 64 + 2 * 256 + 10,
        ),
        ("kumar", (32, 32, 3), 10, 76 * 16 + (25 * 16 + 1) * 16 + (25 * 16 + 1) * 100 + 101 * 100 + 1010),
        ("dohare", (32, 32, 3), 2, 177_218),  # of their ConvNet in torch
    ],
)
def test_presets_have_the_papers_parameters(preset, shape, outputs, parameters):
    variables = jax.eval_shape(cnn(shape, outputs, preset=preset).init, KEYED)
    assert tree.size(variables.params) == parameters and variables.stats == {}


def test_what_is_given_overrides_the_preset():
    assert set(PRESETS) == {"lyle", "kumar", "dohare"}
    net = cnn((16, 16, 1), 3, preset="kumar", channels=(2, 3), pool="none", strides=2, bias_init="zeros")
    params = jax.jit(net.init)(KEYED).params
    assert params["conv1"]["kernel"].shape == (5, 5, 2, 3)  # windows are still the preset's
    assert params["fc0"]["kernel"].shape == (1 * 1 * 3, 100)
    assert not params["conv0"]["bias"].any()
    assert float(jnp.abs(params["fc1"]["kernel"]).max()) <= 0.1  # torch's initialiser is, too


def test_a_configuration_may_leave_all_to_the_preset():
    block = complete({"network": {"name": "cnn", "preset": "dohare", "channels": [8, 8, 8], "windows": 3}})["network"]
    assert block["channels"] == (8, 8, 8) and block["windows"] == 3 and block["widths"] is None
    with pytest.raises(ValueError, match=r"network\.channels='8'"):
        complete({"network": {"name": "cnn", "channels": "8"}})


POOLS = {"max": max_pool, "average": average_pool, "none": lambda x, window: x}


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "crelu"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.slow
def test_each_layer_reads_the_pooled_acts_of_the_last(activation, pool):
    net = small(activation=activation, pool=pool)
    variables = disturbed(net)
    out, params = forward(net, variables), variables.params
    read = IMAGES
    for name in ("conv0", "conv1"):
        expected = jax.lax.conv_general_dilated(
            read, params[name]["kernel"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        assert_close(out.preacts[name], expected + params[name]["bias"], 1e-4)
        assert_close(out.acts[name], ACTIVATIONS[activation](out.preacts[name]))
        read = POOLS[pool](out.acts[name], (2, 2))
    read = read.reshape(3, -1)
    assert_close(out.preacts["fc0"], read @ params["fc0"]["kernel"] + params["fc0"]["bias"], 1e-4)
    assert_close(out.y, out.acts["fc0"] @ params["head"]["kernel"] + params["head"]["bias"], 1e-4)


def test_pooling_first_changes_no_gradient(monkeypatch):
    net = small(pool="max")
    variables = disturbed(net)

    def gradient():
        return jax.jit(jax.grad(lambda p: jnp.sum(forward(net, variables._replace(params=p)).y ** 2)))(variables.params)

    first = gradient()
    monkeypatch.setattr(sys.modules[cnn.__module__], "MONOTONE", ())
    assert_close(first, gradient(), 1e-6)


def test_copies_match_the_number_of_parameters():
    """Kumar et al. 2023 remove 0.27 of the units of their CReLU network on 32 x 32 images of three channels."""

    def shapes(activation, copies, **settings):
        params = jax.eval_shape(
            cnn((32, 32, 3), 10, activation=activation, copies=copies, **settings).init, KEYED
        ).params
        return tree.size(params), {name: layer["kernel"].shape[-1] for name, layer in params.items()}

    for settings in (
        {"preset": "kumar"},
        {"preset": "dohare", "widths": ()},
        {"channels": (), "windows": (), "pool": ()},
    ):
        plain, units = shapes("relu", "match", **settings)
        assert (plain, units) == shapes("relu", "keep", **settings)
        found, _ = shapes("crelu", "match", **settings)
        assert 0.96 * plain < found <= plain
    _, units = shapes("crelu", "match", preset="kumar")
    assert 1 - units["fc0"] / 100 == pytest.approx(0.27, abs=0.011)  # to whole units


def test_nobody_computes_acts_that_nobody_reads():
    net = small(activation="tanh")
    variables = jax.jit(net.init)(KEYED)
    compiled = jax.jit(lambda v: forward(net, v).y).lower(variables).compile().as_text()
    full = jax.jit(lambda v: forward(net, v)).lower(variables).compile().as_text()
    unread = r"f32\[3,8,7,4\]\S* tanh\("  # the act of the first convolution before the pool, which pools first
    assert re.search(unread, full) and not re.search(unread, compiled)


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "crelu"},
        {"activation": "fourier", "norm": "batch", "norm_place": "after"},
        {"norm": "batch", "pool": "average"},
        {"norm": "batch", "norm_place": "after", "weights": "scaled_standardised", "weights_on": ("conv0",)},
        {"padding": "SAME", "strides": (2, 1), "channels": (4, 3), "pool": "max", "pool_stride": 1},
        {"widths": ()},
        {"channels": (), "windows": (), "pool": ()},
    ],
)
@pytest.mark.slow
def test_wiring(settings):
    net = small(**settings)
    assert_wired(net, disturbed(net, 0.1), IMAGES, KEYED)


def test_norms_stand_where_they_are_said_to():
    for norm, has_bias in (("layer", True), ("batch", False), ("hybrid", False)):
        before, after = (jax.eval_shape(small(norm=norm, norm_place=p).init, KEYED).params for p in ("before", "after"))
        assert ("bias" in before["conv0"]) == ("bias" in before["fc0"]) == has_bias
        assert "bias" in after["conv0"] and "bias" in before["head"]
    net = small(norm="layer", norm_over="all")
    preacts = forward(net, jax.jit(net.init)(KEYED)).preacts
    np.testing.assert_allclose(preacts["conv0"].reshape(3, -1).std(1), 1.0, rtol=1e-3)
    assert not np.allclose(preacts["conv0"].std(-1), 1.0, rtol=0.1)


def test_running_statistics_are_kept_in_training_only():
    net = small(norm="batch")
    variables = jax.jit(net.init)(KEYED)
    assert set(variables.stats) == {"conv0_norm", "conv1_norm", "fc0_norm"}
    _, same = net.apply(KEYED, variables, IMAGES, False)
    _, new = jax.jit(lambda v: net.apply(KEYED, v, IMAGES, True))(variables)
    assert_close(same, variables.stats, 0)
    z = nn.Conv(4, (3, 3), use_bias=False, padding="VALID").apply({"params": variables.params["conv0"]}, IMAGES)
    assert_close(new["conv0_norm"]["mean"], 0.1 * z.mean((0, 1, 2)))


def test_spectral_layers_do_not_know_the_scale_of_their_kernel():
    net = small(weights="spectral", weights_on=("conv0",))
    variables = jax.jit(net.init)(KEYED)
    assert set(variables.stats) == {"conv0"}
    path = ("params", "conv0", "kernel")
    other = tree.put(variables, path, 7.0 * tree.get(variables, path))
    assert_close(forward(net, variables).y, forward(net, other).y)


def test_width_multiplies_channels_and_widths():
    params = jax.eval_shape(cnn((28, 28, 1), 10, width=0.25).init, KEYED).params
    assert params["conv1"]["kernel"].shape == (3, 3, 16, 16) and params["fc1"]["kernel"].shape == (64, 64)
    shared = jax.eval_shape(cnn((28, 28, 1), 10, activation="crelu", copies="share").init, KEYED).params
    assert shared["conv1"]["kernel"].shape == (3, 3, 64, 32)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"preset": "lile"}, "Did you mean 'lyle'"),
        ({"channels": (4, 0)}, "channels=0"),
        ({"widths": (0,)}, "widths=0"),
        ({"width": 0.0}, "width=0.0"),
        ({"windows": (3, 3, 3)}, "windows=.* has 3 entries, but channels"),
        ({"windows": 11}, "conv0: A window of 11 x 11 does not fit into images of 10 x 9"),
        ({"strides": (3, 1), "windows": 3}, "conv1: A window of 3 x 3"),
        ({"pool": "max", "pool_window": 9}, "pool of conv0"),
        ({"pool": "maximum"}, "pool='maximum'"),
        ({"pool_stride": 0}, "pool_stride=0"),
        ({"padding": "SAM"}, "Did you mean 'SAME'"),
        ({"norm": "bach"}, "Did you mean 'batch'"),
        ({"norm_over": "channel"}, "Did you mean 'channels'"),
        ({"weights": "spectral", "weights_on": ("conv2",)}, "weights_on='conv2'"),
        ({"weights_on": ("conv1",)}, "weights='free'"),
        ({"head_init": "he"}, "kernel_init='he'"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, words):
    with pytest.raises(ValueError, match=words):
        small(**settings)


def test_inputs_that_are_no_images_are_refused():
    with pytest.raises(ValueError, match=r"input_shape=\(64,\)"):
        cnn((64,), 3)


def test_batch_norm_of_one_example_is_refused_before_compiling():
    net = network("cnn", norm="batch")
    variables = jax.jit(net.init)(KEYED)
    with pytest.raises(ValueError, match="batch of 1"):
        jax.eval_shape(lambda v: net.apply(KEYED, v, jnp.zeros((1, 4, 4, 1)), True), variables)
