import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.base import Clock, DoesNotFit, Network, Outputs, Snapshot, Wire
from plasticity_jax.diagnostics.ranks import feature_matrix, ranks

NETWORK = Network(None, None, (Wire("a", (), ()),))


@jax.jit
def _program(acts, weight, settings):
    """One layer, its float settings traced: one compilation for each shape."""
    snapshot = Snapshot(Clock(0, 0, 0), None, {"weight": weight}, Outputs(None, {"a": acts}, {}))
    return ranks(NETWORK, 1.0, **settings).apply(None, (), None, snapshot)[1]


def _measure(acts, weight=None, **settings):
    acts = jnp.asarray(acts, jnp.float32)
    weight = jnp.ones(len(acts)) if weight is None else jnp.asarray(weight, jnp.float32)
    got = _program(acts, weight, {"delta": 0.01, "epsilon": 0.01, **settings})
    assert all(value.shape == (1,) and value.dtype == jnp.float32 for value in got.values())
    return {name: float(value[0]) for name, value in got.items()}


def test_identity_features_have_full_rank():
    got = _measure(np.eye(5, 4))
    assert got == pytest.approx(dict.fromkeys(got, 4.0), rel=1e-5)


def test_dead_features_have_rank_0():
    got = _measure(np.zeros((6, 4)))
    assert got == dict.fromkeys(got, 0.0)


def test_features_are_not_centred():
    got = _measure(np.ones((6, 4)))
    assert got == pytest.approx(dict.fromkeys(got, 1.0), rel=1e-4)


def test_inputs_of_weight_0_do_not_count():
    acts = np.diag([1.0, 1.0, 1.0, 1.0])
    got = _measure(acts, weight=[1, 0, 1, 0])
    assert got == pytest.approx(dict.fromkeys(got, 2.0), rel=1e-5)
    # nor in N: sigma / sqrt(N) is 0.5 for N = 4 and 0.7071 for N = 2
    assert _measure(acts, weight=[1, 1, 1, 1], epsilon=0.6)["feature_rank"] == 0.0
    assert _measure(acts, weight=[1, 0, 1, 0], epsilon=0.6)["feature_rank"] == 2.0


def test_padding_may_be_nan_and_the_rest_may_not():
    acts = np.diag([1.0, np.nan, 1.0, 1.0])
    assert _measure(acts, weight=[1, 0, 1, 1])["srank"] == 3.0
    assert all(np.isnan(value) for value in _measure(acts).values())


def test_settings_reach_their_ranks():
    acts = np.diag([8.0, 4.0, 2.0, 1.0])
    assert _measure(acts, delta=0.21)["srank"] == 2.0  # (8 + 4) / 15 = 0.8
    assert _measure(acts, delta=0.25)["approximate_rank"] == 1.0  # 64 / 85 = 0.753
    assert _measure(acts, epsilon=0.9)["feature_rank"] == 3.0  # halves of 8, 4, 2, 1


def test_positions_are_rows_of_a_convolution():
    acts = np.zeros((2, 2, 2, 3))
    acts[0, 0, 1, 0] = acts[1, 1, 0, 1] = acts[1, 0, 0, 2] = 1.0  # three places, three channels
    got = _measure(acts)
    assert got == pytest.approx(dict.fromkeys(got, 3.0), rel=1e-5)
    assert _measure(acts, weight=[0, 1])["srank"] == 2.0


@pytest.mark.parametrize(
    ("shape", "max_rows"), [((64, 6, 4, 2), 100), ((64, 6, 4, 2), 64), ((5, 3, 3, 2), 45), ((9, 2), 4)]
)
def test_thinning_meets_every_position_equally_often(shape, max_rows):
    places = int(np.prod(shape[1:-1]))
    index = np.broadcast_to(np.arange(places).reshape(*shape[1:-1], 1), shape)
    rows, count = feature_matrix(jnp.asarray(index, jnp.float32), jnp.ones(shape[0]), max_rows)
    met = np.bincount(np.asarray(rows[:, 0], int), minlength=places)
    assert rows.shape == (int(count), shape[-1]) and max_rows // 2 <= len(rows) <= max_rows
    assert met.max() - met.min() <= 1


def test_thinned_rows_keep_the_weights_of_their_inputs():
    acts = jnp.arange(1.0, 33.0).reshape(16, 2, 1)
    weight = jnp.arange(16) % 2
    rows, count = feature_matrix(acts, weight, 11)  # every third of 32 rows
    kept = np.arange(0, 32, 3)
    want = np.where((kept // 2) % 2, kept + 1.0, 0.0)
    assert np.array_equal(rows[:, 0], want) and int(count) == np.count_nonzero(want)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"delta": 1.5}, "delta=1.5.*between 0.0 and 1.0"),
        ({"epsilon": -1.0}, "epsilon=-1.0.*at least 0.0"),
        ({"max_rows": 0}, "max_rows=0.*1 or more"),
        ({"max_rows": 10.0}, "max_rows=10.0.*1 or more"),
    ],
)
def test_bad_settings_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        ranks(NETWORK, 1.0, **settings)


def test_features_that_do_not_fit_in_memory_are_refused():
    """Every 2nd of 2 * 9 positions, 3 units: 9 * 3 numbers, 3 times."""
    acts = jnp.ones((2, 3, 3, 3))
    snapshot = Snapshot(Clock(0, 0, 0), None, {"weight": jnp.ones(2)}, Outputs(None, {"a": acts}, {}))

    def measured(memory_gb):
        return jax.eval_shape(lambda: ranks(NETWORK, memory_gb, max_rows=9).apply(None, (), None, snapshot))

    measured(1e-6)
    with pytest.raises(
        DoesNotFit, match=r"features of 1 layers take 3\.2e-07 GB, but memory_gb=3\.2e-07: .*max_rows=9"
    ):
        measured(3 * 4 * 26.7e-9)
