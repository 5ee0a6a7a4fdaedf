from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.base import Clock, Network, Outputs, Snapshot, Wire
from plasticity_jax.diagnostics.units import units

KINDS = ("dead", "dormant", "saturated", "linearised")


NETWORK = Network(None, None, (Wire("a", (), ()),))


@partial(jax.jit, static_argnames="bounds")
def _program(acts, preacts, weight, bounds, settings):
    """One layer, its float settings traced: one compilation for each shape."""
    snapshot = Snapshot(Clock(0, 0, 0), None, {"weight": weight}, Outputs(None, {"a": acts}, {"a": preacts}))
    network = NETWORK._replace(bounds={"a": bounds} if bounds else {})
    return units(network, 1.0, **settings).apply(None, (), None, snapshot)[1]


def _measure(acts, preacts=None, weight=None, bounds=(), **settings):
    """The four fractions of one layer, in the order of KINDS."""
    acts, preacts = (jnp.asarray(a, jnp.float32) for a in (acts, acts if preacts is None else preacts))
    weight = jnp.ones(len(acts)) if weight is None else jnp.asarray(weight, jnp.float32)
    got = _program(acts, preacts, weight, bounds, {"tau": 0.025, "share": 0.99, "margin": 0.01, **settings})
    assert all(value.shape == (1,) and value.dtype == jnp.float32 for value in got.values())
    return [float(got[f"{kind}_fraction"][0]) for kind in KINDS]


def test_relu_units():
    z = np.array([[-1.0, 1.0, 1.0, 0.01], [-2.0, -1.0, 3.0, -1.0]])  # dead, alive, linear, barely alive
    dead, dormant, saturated, linearised = _measure(np.maximum(z, 0), z)
    assert (dead, linearised) == (0.25, 0.25) and np.isnan(saturated)
    assert dormant == 0.5  # scores 0, 0.798, 3.19, 0.008 of a mean of 1.2525 / 2


def test_the_score_is_relative_to_the_mean_of_the_layer_and_not_to_its_sum():
    acts = np.array([[1.0, 3.0, 5.0, 7.0]])  # mean 4: scores 0.25, 0.75, 1.25, 1.75
    assert _measure(acts, tau=0.25)[1] == 0.25  # a score that equals tau is dormant
    assert _measure(acts, tau=0.2499)[1] == 0.0
    assert _measure(acts, tau=1.3)[1] == 0.75
    assert _measure(acts * 1e-20, tau=0.25)[1] == 0.25


def test_the_score_takes_magnitudes_before_the_mean():
    acts = np.array([[0.9, -0.1], [-0.9, 0.9]])  # a tanh unit that changes sign is not dormant
    assert _measure(acts, tau=0.1)[:2] == [0.0, 0.0]


def test_a_dead_layer_is_all_dead_and_all_dormant():
    for tau in (0.0, 0.025):
        assert _measure(np.zeros((3, 4)), -np.ones((3, 4)), tau=tau)[:2] == [1.0, 1.0]
    assert _measure(np.zeros((3, 4)), -np.ones((3, 4)))[3] == 0.0


def test_dead_means_exactly_zero_everywhere():
    acts = np.zeros((5, 4))
    acts[4, 1], acts[3, 2], acts[:2, 3] = 1e-30, -0.5, (0.5, -0.5)  # tanh may be negative, and its mean 0
    assert _measure(acts)[0] == 0.25


def test_tanh_saturates_at_both_bounds():
    h = np.stack(
        [np.full(100, 0.995), np.full(100, -0.995), np.full(100, 0.5), np.where(np.arange(100) % 2, 0.999, -0.999)]
    )
    assert _measure(h.T, bounds=(-1.0, 1.0))[2] == 0.75
    assert np.isnan(_measure(h.T)[2])


def test_the_sigmoid_saturates_in_proportion_to_its_range():
    h = np.array([[0.004, 0.006, 0.994, 0.996, 0.5]])
    assert _measure(h, bounds=(0.0, 1.0))[2] == pytest.approx(0.4)
    assert _measure(h, bounds=(0.0, 1.0), margin=0.02)[2] == pytest.approx(0.8)


@pytest.mark.parametrize(("exceptions", "expected"), [(2, 1.0), (3, 0.0)])
def test_99_percent_of_the_places_are_enough(exceptions, expected):
    z = np.ones((200, 1))
    z[:exceptions] = -0.5
    assert _measure(np.tanh(10 * z), z, bounds=(-1.0, 1.0))[3] == expected
    h = np.where(z > 0, 0.995, 0.0)
    assert _measure(h, bounds=(-1.0, 1.0))[2] == expected
    assert _measure(h, z, share=0.5)[3] == 1.0


def test_a_unit_of_a_convolution_is_its_channel():
    z = -np.ones((2, 3, 3, 4))
    z[1, 2, 2, 1] = 9.0  # alive at one place
    z[..., 2] = 9.0  # positive everywhere
    z[..., 3] = 1e-3  # alive, positive, far below the others
    dead, dormant, _, linearised = _measure(np.maximum(z, 0), z)
    assert (dead, dormant, linearised) == (0.25, 0.5, 0.5)  # mean |h|: 0, 0.5, 9, 0.001
    assert _measure(np.maximum(z, 0), z, weight=[1, 0])[:2] == [0.5, 0.75]  # the second input held the live place


def test_inputs_of_weight_0_do_not_count():
    z = np.array([[-1.0, 2.0], [-1.0, 2.0], [3.0, -1.0]])
    for padding in (3.0, np.nan):
        z[2, 0] = padding
        assert _measure(np.maximum(z, 0), z, weight=[1, 1, 0])[:2] == [0.5, 0.5]
        assert _measure(np.maximum(z, 0), z, weight=[1, 1, 0])[3] == 0.5
    h = np.array([[1.0, 0.5], [0.0, 1.0]])
    assert _measure(h, weight=[1, 0], bounds=(0.0, 1.0))[2] == 0.5
    assert _measure(h, weight=[0, 1], bounds=(0.0, 1.0))[2] == 1.0


def test_weights_follow_their_inputs_through_positions_and_copies():
    z = np.zeros((3, 2, 2, 2))
    z[0, ..., 0] = 1.0  # the first unit works on the first input alone, the second on the second
    z[1, ..., 1] = 1.0
    crelu = np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1)
    for acts in (z, crelu):
        assert [_measure(acts, z, weight=w)[0] for w in ([1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1])] == [
            0.5,
            0.5,
            0,
            1,
        ]
        assert [_measure(acts, z, weight=w)[3] for w in ([1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 1])] == [
            0.5,
            0.5,
            0,
            0,
        ]


def test_copies_are_folded():
    z = np.array([[1.0, 0.0, 2.0], [-1.0, 0.0, 2.0], [1.0, 0.0, 2.0]])
    acts = np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], -1)  # crelu: half the channels are zero on each input
    dead, dormant, _, linearised = _measure(acts, z)
    assert dead == dormant == linearised == pytest.approx(1 / 3)
    # the unit's score is the mean over its copies: |z| = 1, 0, 2 of a mean of 1
    assert [_measure(acts, z, tau=tau)[1] for tau in (0.99, 1.0, 2.0)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    positions = np.broadcast_to(acts[:, None, None], (3, 2, 2, 6))
    assert _measure(positions, np.broadcast_to(z[:, None, None], (3, 2, 2, 3)))[0] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="6 activations of 4 units"):
        _measure(acts, np.zeros((3, 4)))


def test_what_is_not_known_is_nan():
    acts = np.array([[1.0, np.nan], [1.0, 0.0]])
    assert np.all(np.isnan(_measure(acts, bounds=(-1.0, 1.0))))
    assert np.all(np.isnan(_measure(np.ones((2, 2)), weight=[0, 0], bounds=(-1.0, 1.0))))


def test_the_defaults_are_those_of_the_documentation():
    z = jnp.asarray(np.random.default_rng(0).standard_normal((50, 8)) + np.linspace(-4, 4, 8), jnp.float32)
    acts = jax.nn.relu(z) * 10.0 ** -jnp.arange(8.0)
    acts = acts.at[:, :2].set(jnp.array([0.985, -0.995]))
    snapshot = Snapshot(Clock(0, 0, 0), None, {"weight": jnp.ones(50)}, Outputs(None, {"a": acts}, {"a": z}))
    plain = units(NETWORK._replace(bounds={"a": (-1.0, 1.0)}), 1.0).apply(None, (), None, snapshot)[1]
    assert [float(plain[f"{kind}_fraction"][0]) for kind in KINDS] == _measure(acts, z, bounds=(-1.0, 1.0))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tau": -0.1}, "tau=-0.1.*at least 0"),
        ({"tau": float("nan")}, "tau=nan.*at least 0"),
        ({"tau": "0.1"}, "tau='0.1'"),
        ({"share": 99.0}, "share=99.0.*between 0.0 and 1.0"),
        ({"margin": -1.0}, "margin=-1.0.*between 0.0 and 1.0"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        units(NETWORK, 1.0, **settings)
