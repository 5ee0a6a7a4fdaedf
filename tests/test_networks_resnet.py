import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from masking import assert_wired
from records import KEYED, SMALL, assert_close, network

from plasticity_jax import tree
from plasticity_jax.networks.resnet import resnet18

IMAGES = jax.random.normal(KEYED, (3, 9, 8, 2))


def small(**settings):
    return resnet18((9, 8, 2), 3, **{**SMALL["resnet18"], **settings})


def forward(net, variables):
    return jax.jit(lambda v: net.apply(KEYED, v, IMAGES, False)[0])(variables)


@pytest.mark.parametrize(
    ("shape", "outputs", "settings", "parameters"),
    [
        ((32, 32, 3), 10, {}, 11_173_962),
        ((32, 32, 3), 100, {"norm": "layer"}, 11_220_132),
        ((224, 224, 3), 1000, {"stem": "imagenet"}, 11_689_512),  # torchvision's resnet18
    ],
)
def test_parameter_counts_are_the_known_ones(shape, outputs, settings, parameters):
    variables = jax.eval_shape(resnet18(shape, outputs, **settings).init, KEYED)
    assert tree.size(variables.params) == parameters
    assert tree.size(variables.stats) == (9600 if "norm" not in settings else 0)  # mean and variance of 4,800 channels


def test_width_scales_every_stage():
    params = jax.eval_shape(resnet18((32, 32, 3), 10, width=0.25).init, KEYED).params
    assert params["stem"]["kernel"].shape == (3, 3, 3, 16)
    assert params["stage3_block0"]["shortcut"]["kernel"].shape == (1, 1, 64, 128)
    assert params["head"]["kernel"].shape == (128, 10)


@pytest.mark.parametrize(("stem", "sizes"), [("cifar", (32, 32, 16, 8, 4)), ("imagenet", (16, 8, 4, 2, 1))])
def test_shapes_of_the_stages(stem, sizes):
    net = resnet18((32, 32, 3), 10, stem=stem, width=1 / 32)
    variables = jax.eval_shape(net.init, KEYED)
    outputs = jax.eval_shape(lambda v: net.apply(KEYED, v, jnp.zeros((2, 32, 32, 3)), True)[0], variables)
    layers = ("stem", *(f"stage{i}_block1" for i in range(4)))
    shapes = [(2, size, size, units) for size, units in zip(sizes, (2, 2, 4, 8, 16), strict=True)]
    assert [outputs.acts[layer].shape for layer in layers] == shapes
    assert outputs.acts["stage3_block0/conv0"].shape == outputs.acts["stage3_block0"].shape
    assert outputs.y.shape == (2, 10)


@pytest.mark.slow
def test_a_block_is_its_formula():
    net = small(norm="none", bias_init="torch")
    variables = jax.jit(net.init)(KEYED)
    out, block = forward(net, variables), variables.params["stage1_block0"]

    def convolved(x, layer, stride, pad):
        y = jax.lax.conv_general_dilated(
            x, block[layer]["kernel"], (stride,) * 2, ((pad, pad),) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + block[layer]["bias"]

    read = out.acts["stage0_block1"]
    assert_close(out.preacts["stage1_block0/conv0"], convolved(read, "conv0", 2, 1), 1e-4)
    total = convolved(out.acts["stage1_block0/conv0"], "conv1", 1, 1) + convolved(read, "shortcut", 2, 0)
    assert_close(out.preacts["stage1_block0"], total, 1e-4)
    assert_close(out.acts["stage1_block0"], jnp.maximum(total, 0), 1e-4)
    head = variables.params["head"]
    assert_close(out.y, out.acts["stage3_block1"].mean((1, 2)) @ head["kernel"] + head["bias"], 1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"norm": "none", "stem": "imagenet"},
        {"activation": "leaky_relu", "width": 1 / 16},
        # readers with standardised weights read rows of zeros, and writers with spectral ones move all units
        {"weights": "scaled_standardised", "weights_on": ("stem",)},
        {"norm": "none", "weights": "spectral", "weights_on": ("head",)},
    ],
)
@pytest.mark.slow
def test_wiring(settings):
    net = small(**settings)
    assert_wired(net, jax.jit(net.init)(KEYED), IMAGES, KEYED)


@pytest.mark.slow
def test_a_wire_that_names_too_few_or_too_many_readers_is_found():
    net = small()
    variables, stage = jax.jit(net.init)(KEYED), net.wiring[4]
    assert stage.layer == "stage0_block1"
    foreign = (("params", "stage0_block1", "conv1", "kernel"), 1)
    for reads in (stage.reads[:-1], (*stage.reads, foreign)):
        wiring = (*net.wiring[:4], stage._replace(reads=reads), *net.wiring[5:])
        with pytest.raises(AssertionError):
            assert_wired(net._replace(wiring=wiring), variables, IMAGES, KEYED)


def test_layers_of_one_stream_share_their_wire():
    wires = {wire.layer: wire for wire in small().wiring}
    assert wires["stem"][1:] == wires["stage0_block0"][1:] == wires["stage0_block1"][1:]
    assert wires["stage2_block0"][1:] == wires["stage2_block1"][1:] != wires["stage3_block1"][1:]
    writers = {path[1:-1] for path in wires["stage2_block0"].writes if path[-1] == "kernel"}
    assert writers == {("stage2_block0", "shortcut"), ("stage2_block0", "conv1"), ("stage2_block1", "conv1")}
    readers = {path[1:-1] for path, _ in wires["stage2_block0"].reads}
    assert readers == {("stage2_block1", "conv0"), ("stage3_block0", "conv0"), ("stage3_block0", "shortcut")}


@pytest.mark.parametrize(("weights", "leaf"), [("scaled_standardised", "/gain"), ("spectral", "/u")])
@pytest.mark.parametrize("named", [(), ("stem", "stage1_block0/shortcut", "stage2_block1/conv1", "head")])
def test_weights_are_of_their_kind_in_the_layers_that_are_named(weights, leaf, named):
    net = small(weights=weights, weights_on=named)
    variables = jax.eval_shape(net.init, KEYED)
    paths = (*flatten_dict(variables.params, sep="/"), *flatten_dict(variables.stats, sep="/"))
    found = {path.removesuffix(leaf) for path in paths if path.endswith(leaf)}
    hidden = {path.removesuffix("/kernel") for path in paths if path.endswith("/kernel")} - {"head"}
    assert found == (set(named) or hidden)
    gains = {"/".join(path[1:-1]) for wire in net.wiring for path in wire.writes if path[-1] == "gain"}
    assert gains == (found - {"head"} if leaf == "/gain" else set())


@pytest.mark.slow
def test_gain_multiplies_the_kernels_of_hidden_layers():
    made = (jax.jit(small(gain=gain).init)(KEYED).params for gain in (2.0, 1.0))
    double, plain = (flatten_dict(params, sep="/") for params in made)
    for path, leaf in plain.items():
        factor = 2 if path.endswith("/kernel") and path != "head/kernel" else 1
        assert_close(double[path], factor * leaf, 1e-6)


@pytest.mark.slow
def test_zero_init_makes_each_block_the_identity():
    net = small(zero_init=True)
    zeroed, plain = jax.jit(net.init)(KEYED), jax.jit(small().init)(KEYED)
    out = forward(net, zeroed)
    assert_close(out.acts["stage0_block1"], out.acts["stem"], 0)
    assert_close(out.acts["stage3_block1"], out.acts["stage3_block0"], 0)
    changed = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(zeroed), jax.tree.leaves(plain), strict=True)
        if (a != b).any()
    ]
    assert len(changed) == 8 and all(name.endswith("conv1_norm/scale") for name in changed)


@pytest.mark.parametrize("norm", ["none", "layer", "group", "batch"])
def test_no_bias_before_a_norm(norm):
    variables = jax.eval_shape(small(norm=norm).init, KEYED)
    biases = {path for path in ("stem", "head") if "bias" in variables.params[path]}
    assert biases == ({"stem", "head"} if norm == "none" else {"head"})
    assert bool(variables.stats) == (norm == "batch")


@pytest.mark.slow
def test_training_reads_the_batch_and_evaluation_the_averages():
    net = small()
    variables = jax.jit(net.init)(KEYED)
    trained, stats = jax.jit(lambda v: net.apply(KEYED, v, IMAGES, True))(variables)
    assert (np.abs(trained.preacts["stem"].mean((0, 1, 2))) < 1e-5).all()
    assert np.abs(forward(net, variables).preacts["stem"].mean((0, 1, 2))).max() > 1e-3
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(stats), jax.tree.leaves(variables.stats), strict=True))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stem": "cifar10"}, "Did you mean 'cifar'"),
        ({"norm": "bath"}, "Did you mean 'batch'"),
        ({"activation": "crelu"}, "activation='crelu' makes 2 channels"),
        ({"width": 0}, "width=0"),
        ({"zero_init": True, "norm": "none"}, "zero_init=True"),
        ({"weights": "spectral", "weights_on": ("stage0_block0/shortcut",)}, "weights_on='stage0_block0/shortcut'"),
        ({"weights_on": ("stem",)}, "weights='free'"),
        ({"gain": float("nan")}, "gain=nan"),
        ({"kernel_init": "he"}, "kernel_init='he'"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, words):
    with pytest.raises(ValueError, match=words):
        small(**settings)


def test_batch_norm_of_one_example_is_refused_before_compiling():
    net = network("resnet18")
    variables = jax.eval_shape(net.init, KEYED)
    with pytest.raises(ValueError, match="batch of 1"):
        jax.eval_shape(lambda v: net.apply(KEYED, v, jnp.zeros((1, 4, 4, 1)), True), variables)
