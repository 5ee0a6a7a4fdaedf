import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from masking import assert_wired
from records import KEYED, SMALL, assert_close

from plasticity_jax import tree
from plasticity_jax.networks.vit import attention, vit

IMAGES = jax.random.normal(KEYED, (3, 7, 6, 2))


def small(**settings):
    return vit((7, 6, 2), 3, **{**SMALL["vit"], "depth": 2, **settings})


def forward(net, variables, train=False, key=KEYED):
    return jax.jit(lambda v, k: net.apply(k, v, IMAGES, train)[0])(variables, key)


@pytest.mark.parametrize(("shape", "patches"), [((28, 28, 1), 81), ((32, 32, 3), 100)])
@pytest.mark.parametrize(("pool", "token"), [("class", 1), ("mean", 0)])
def test_parameters_of_the_papers_network(shape, patches, pool, token):
    params = jax.eval_shape(vit(shape, 10, pool=pool).init, KEYED).params
    d, f = 256, 1024
    block = 4 * (d + 1) * d - d + (d + 1) * f + (f + 1) * d + 4 * d
    expected = (9 * shape[2] + 1) * d + (patches + token) * d + token * d + block + 2 * d + (d + 1) * 10
    assert tree.size(params) == expected
    assert "bias" not in params["block0"]["key"]
    assert params["positions"].shape == (1, patches + token, d)


def test_attention_is_that_of_jax():
    query, key, value = (jax.random.normal(jax.random.fold_in(KEYED, i), (3, 5, 2, 4)) for i in range(3))
    assert_close(attention(query, key, value), jax.nn.dot_product_attention(query, key, value))


def test_heads_do_not_mix():
    query, key, value = (jax.random.normal(jax.random.fold_in(KEYED, i), (3, 5, 2, 4)) for i in range(3))
    one = attention(query[:, :, :1], key[:, :, :1], value[:, :, :1])
    assert_close(attention(query, key, value)[:, :, :1], one)


@pytest.mark.slow
def test_dropout_draws_from_the_key_in_training_only():
    net = small(dropout=0.5)
    variables, other = net.init(KEYED), jax.random.key(9)
    assert_close(forward(net, variables), forward(net, variables, key=other), 0)
    a, b, again = (forward(net, variables, True, key).y for key in (KEYED, other, KEYED))
    assert (a != b).any() and (a == again).all()
    off = small(dropout=0.0)
    assert_close(forward(off, variables, True), forward(off, variables), 1e-6)


@pytest.mark.slow
def test_dropout_keeps_the_mean():
    net = small(dropout=0.25, depth=1, norm="none", activation="identity", pool="mean")
    variables = jax.jit(net.init)(KEYED)
    zero = jax.tree.map(jnp.zeros_like, variables.params["block0"])  # all that is left of the block is its input
    variables = variables._replace(params={**variables.params, "block0": zero})
    outputs = jax.jit(jax.vmap(lambda k: net.apply(k, variables, IMAGES, True)[0].y))(jax.random.split(KEYED, 4000))
    error = outputs.std(0) / 4000**0.5
    assert (np.abs(outputs.mean(0) - forward(net, variables).y) < 5 * error).all()


@pytest.mark.slow
def test_the_rate_of_dropout_may_be_an_axis_of_the_grid():
    variables = jax.jit(small().init)(KEYED)

    def loss(rate):
        return small(dropout=rate).apply(KEYED, variables, IMAGES, True)[0].y

    assert_close(jax.jit(loss)(0.5), jax.jit(lambda: loss(0.5))(), 1e-6)
    assert_close(jax.jit(loss)(0.0), forward(small(), variables).y, 1e-5)


@pytest.mark.slow
def test_pooling():
    for pool, tokens in (("class", 10), ("mean", 9)):
        net = small(pool=pool)
        out = forward(net, jax.jit(net.init)(KEYED))
        assert out.acts["block0/up"].shape == (3, tokens, 12) and out.acts["block1/value"].shape == (3, tokens, 8)
        assert out.y.shape == (3, 3)


@pytest.mark.slow
def test_positions_tell_patches_apart():
    net = small(pool="mean")
    variables = jax.jit(net.init)(KEYED)
    blind = tree.put(variables, ("params", "positions"), jnp.zeros((1, 9, 8)))
    # rows of patches in reverse; the last row of pixels is unread
    rows = IMAGES[:, :6].reshape(3, 3, 2, 6, 2)[:, ::-1].reshape(3, 6, 6, 2)
    rows = jnp.concatenate([rows, 100 + IMAGES[:, 6:]], 1)
    a, b = (net.apply(KEYED, blind, x, False)[0].y for x in (IMAGES, rows))
    assert_close(a, b, 1e-5)
    a, b = (net.apply(KEYED, variables, x, False)[0].y for x in (IMAGES, rows))
    assert np.abs(a - b).max() > 1e-4


@pytest.mark.parametrize(
    "settings",
    [
        {"activation": "crelu", "pool": "mean"},
        pytest.param({"norm": "none", "heads": 4}, marks=pytest.mark.slow),
        # readers with standardised weights read rows of zeros, and writers with spectral ones move all units
        {"weights": "scaled_standardised", "weights_on": ("patches", "block0/value", "block1/up")},
        pytest.param(
            {"weights": "spectral", "weights_on": ("block0/query", "block0/out", "block1/down", "head")},
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.slow
def test_wiring(settings):
    net = small(**settings)
    assert_wired(net, jax.jit(net.init)(KEYED), IMAGES, KEYED)


@pytest.mark.parametrize(("weights", "leaf"), [("scaled_standardised", "/gain"), ("spectral", "/u")])
@pytest.mark.parametrize("named", [(), ("patches", "block0/value", "block1/down", "head")])
def test_weights_are_of_their_kind_in_the_layers_that_are_named(weights, leaf, named):
    net = small(weights=weights, weights_on=named)
    variables = jax.eval_shape(net.init, KEYED)
    paths = (*flatten_dict(variables.params, sep="/"), *flatten_dict(variables.stats, sep="/"))
    found = {path.removesuffix(leaf) for path in paths if path.endswith(leaf)}
    hidden = {path.removesuffix("/kernel") for path in paths if path.endswith("/kernel")} - {"head"}
    assert found == (set(named) or hidden)
    gains = {"/".join(path[1:-1]) for wire in net.wiring for path in wire.writes if path[-1] == "gain"}
    assert gains == ({path for path in found if path.endswith(("/value", "/up"))} if leaf == "/gain" else set())


@pytest.mark.slow
def test_gain_multiplies_the_kernels_of_hidden_layers():
    made = (jax.jit(small(gain=gain, depth=1).init)(KEYED).params for gain in (2.0, 1.0))
    double, plain = (flatten_dict(params, sep="/") for params in made)
    for path, leaf in plain.items():
        factor = 2 if path.endswith("/kernel") and path != "head/kernel" else 1
        assert_close(double[path], factor * leaf, 1e-6)


def test_width_scales_dimensions_and_units():
    params = jax.eval_shape(vit((28, 28, 1), 10, width=0.5).init, KEYED).params
    assert params["block0"]["up"]["kernel"].shape == (128, 512)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patch": 8}, "patches: A window of 8 x 8 does not fit into images of 7 x 6"),
        ({"heads": 3}, "heads=3 does not divide the 8 model dimensions"),
        ({"heads": 0}, "heads=0"),
        ({"dim": 0}, "dim=0"),
        ({"feedforward": 0}, "feedforward=0"),
        ({"depth": 0}, "depth=0"),
        ({"stride": -1}, "stride=-1"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"pool": "cls"}, "pool='cls'"),
        ({"norm": "batch"}, "norm='batch'"),
        ({"weights": "spectral", "weights_on": ("block2/up",)}, "weights_on='block2/up'"),
        ({"weights_on": ("patches",)}, "weights='free'"),
        ({"gain": float("nan")}, "gain=nan"),
        ({"activation": "gellu"}, "Did you mean 'gelu'"),
    ],
)
def test_bad_settings_are_refused_at_once(settings, words):
    with pytest.raises(ValueError, match=words):
        small(**settings)
