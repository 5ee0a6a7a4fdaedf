"""Shift of pre-activations, overlap of dormant units, duplicate units, sparsity: against their definitions in numpy."""

import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.base import Clock, Network, Outputs, Snapshot, Variables, Wire
from plasticity_jax.diagnostics.duplicates import duplicates
from plasticity_jax.diagnostics.overlap import overlap
from plasticity_jax.diagnostics.shift import shift
from plasticity_jax.diagnostics.sparsity import sparsity

RNG = np.random.default_rng(0)
NETWORK = Network(lambda key: Variables({"a": {"kernel": jnp.ones((2, 2))}}, {}), None, (Wire("a", (), ()),))


def snapshot(acts, preacts=None, weight=None, **fields):
    """What a diagnostic sees of a layer "a": post-activations [B, ..., c*U], pre-activations [B, ..., U]."""
    acts = jnp.asarray(acts, jnp.float32)
    preacts = acts if preacts is None else jnp.asarray(preacts, jnp.float32)
    weight = jnp.ones(len(acts)) if weight is None else jnp.asarray(weight, jnp.float32)
    outputs = Outputs(None, {"a": acts}, {"a": preacts})
    return Snapshot(Clock(0, 0, 0), None, {"weight": weight}, outputs, **fields)


def series(diagnostic, snapshots):
    """The metrics of layer "a" at each of several measurements, one after another: a list of {name: float or list}."""
    state, found = diagnostic.init(None, None, snapshots[0]), []
    for seen in snapshots:
        state, metrics = diagnostic.apply(None, state, None, seen)
        found.append({name: value[0].tolist() for name, value in metrics.items()})
    return found


def _shifts(*preacts, weight=None):
    found = series(shift(NETWORK, 1.0), [snapshot(z, weight=weight) for z in preacts])
    return [(f["preactivation_shift"], f["preactivation_shift_spread"]) for f in found]


def test_shift_is_in_units_of_the_deviation_before():
    before, after = RNG.normal(size=(50, 3)) * [1, 2, 3], RNG.normal(size=(50, 3)) + np.array([0, 1, -5])
    moved = (after.mean(0) - before.mean(0)) / before.std(0)
    first, second, third = _shifts(before, after, after)
    assert np.isnan(first).all()
    np.testing.assert_allclose(second, (moved.mean(), moved.std()), rtol=1e-4)
    assert third == (0.0, 0.0)  # each is compared with the one before it, not with the first


def test_means_of_units_are_given_as_quantiles_from_the_first_measurement_on():
    images, shares = RNG.normal(size=(4, 2, 2, 9)) * 3 + np.arange(9.0), [0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0]
    diagnostic = shift(NETWORK, 1.0)
    assert list(diagnostic.dims["preactivation_mean"]["quantile"]) == shares
    found = series(diagnostic, [snapshot(z, weight=[1, 1, 1, 0]) for z in (images, images - 2)])
    for got, z in zip(found, (images, images - 2), strict=True):
        expected = np.quantile(z[:3].mean((0, 1, 2)), shares)
        np.testing.assert_allclose(got["preactivation_mean"], expected, rtol=1e-4, atol=1e-5)
    images[0, 0, 0, 4] = np.nan
    assert np.isnan(series(diagnostic, [snapshot(images)])[0]["preactivation_mean"]).all()


def test_shift_counts_positions_and_leaves_out_padding_and_constant_units():
    images = RNG.normal(size=(4, 2, 2, 2))
    moved = images + np.array([1.0, 3.0])
    expected = np.array([1.0, 3.0]) / images[:3].std((0, 1, 2))
    moved[3] = 1e3
    np.testing.assert_allclose(
        _shifts(images, moved, weight=[1, 1, 1, 0])[1], (expected.mean(), expected.std()), rtol=1e-4
    )
    constant = np.stack([np.full(50, 0.3), np.linspace(-1, 1, 50)], 1)  # 0.3 is no float32: its deviation is rounding
    got, spread = _shifts(constant, constant + 1)[1]
    assert got == pytest.approx(1 / np.linspace(-1, 1, 50).std(), rel=1e-4) and spread == 0
    assert np.isnan(_shifts(constant[:, :1], constant[:, :1] + 1)[1]).all()


def test_shift_of_what_is_not_finite_is_not_known():
    z = RNG.normal(size=(5, 2))
    broken = z.copy()
    broken[0, 0] = np.nan
    assert np.isnan(_shifts(z, broken)[1]).all() and np.isnan(_shifts(broken, z)[1]).all()
    assert np.isnan(_shifts(z, z, weight=np.zeros(5))[1]).all()


def _overlaps(*acts, **settings):
    return [f["dormant_overlap"] for f in series(overlap(NETWORK, 1.0, **settings), [snapshot(h) for h in acts])]


def test_overlap_is_the_share_of_dormant_units_that_stay():
    four = np.array([[0, 0, 0, 0, 1.0, 1.0]])
    one_back = np.array([[1.0, 0, 0, 0, 0, 1.0]])
    all_alive = np.ones((1, 6))
    got = _overlaps(four, one_back, all_alive, four)
    # first: nothing to compare with; of four, three stay; of four, none; before the last, none was dormant
    np.testing.assert_array_equal(got, [np.nan, 0.75, 0.0, np.nan])


def test_overlap_follows_tau():
    first, second = np.array([[0.1, 1.0, 1.9]]), np.array([[0.2, 1.0, 1.8]])
    assert _overlaps(first, second, tau=0.2)[1] == 1.0
    assert _overlaps(first, second, tau=0.15)[1] == 0.0
    assert np.isnan(_overlaps(first, second, tau=0.05)[1])
    assert np.isnan(_overlaps(first, np.array([[np.nan, 1.0, 1.8]]), tau=0.2)[1])
    with pytest.raises(ValueError, match=r"overlap\.tau"):
        overlap(NETWORK, 1.0, tau=-1.0)


def _duplicates(acts, preacts=None, weight=None, threshold=0.95):
    diagnostic = duplicates(NETWORK, 1.0, threshold)
    return series(diagnostic, [snapshot(acts, preacts, weight)])[0]["duplicate_fraction"]


def test_duplicates_are_scaled_and_shifted_copies_of_earlier_units():
    a, b, c = RNG.normal(size=(3, 200))
    assert _duplicates(np.stack([a, b, c], 1)) == 0.0
    assert _duplicates(np.stack([a, 2 * a + 7, -a, b], 1)) == 0.5  # of three equal ones, two
    assert _duplicates(np.stack([a, b, a, b], 1)) == 0.5


def test_duplicates_have_a_threshold():
    a = RNG.normal(size=4000)
    near = a + 0.5 * RNG.normal(size=4000)
    exact = abs(np.corrcoef(a, near)[0, 1])
    both = np.stack([a, near], 1)
    assert (_duplicates(both, threshold=exact - 1e-3), _duplicates(both, threshold=exact + 1e-3)) == (0.5, 0.0)


def test_units_that_do_not_vary_are_no_duplicates():
    a = RNG.normal(size=100)
    assert _duplicates(np.stack([np.zeros(100), np.zeros(100), np.full(100, 0.3), np.full(100, 0.3), a], 1)) == 0.0
    relu = np.maximum(RNG.normal(size=(500, 8)), 0) + 3.0  # far from the origin, all point the same way
    assert _duplicates(relu) == 0.0


def test_duplicates_see_positions_but_no_padding():
    images = RNG.normal(size=(3, 4, 4, 2))
    images[:2, ..., 1] = images[:2, ..., 0]
    assert _duplicates(images) == 0.0 and _duplicates(images, weight=[1, 1, 0]) == 0.5
    z = RNG.normal(size=(300, 2))
    crelu = np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], 1)
    assert _duplicates(crelu, z) == 0.0
    z[:, 1] = z[:, 0]
    assert _duplicates(np.concatenate([np.maximum(z, 0), np.maximum(-z, 0)], 1), z) == 0.5
    assert np.isnan(_duplicates(np.array([[1.0, np.nan], [2.0, 3.0]])))


def _sparsity(acts, weight=None):
    return series(sparsity(NETWORK, 1.0), [snapshot(acts, weight=weight)])[0]


def test_sparsity_counts_entries():
    acts = np.array([[0.0, 3.0, 4.0], [0.0, 0.0, 6.0], [1.0, 1.0, 1.0]])
    assert _sparsity(acts, weight=[1, 2, 0]) == {"activation_sparsity": 0.5, "feature_norm": 5.5}
    assert _sparsity(acts)["activation_sparsity"] == pytest.approx(1 / 3)


def test_sparsity_of_images():
    acts = np.zeros((2, 2, 2, 3))
    acts[0, 0, 0, 0], acts[0, 1, 1, 2] = 3.0, 4.0
    got = _sparsity(acts)
    assert got["activation_sparsity"] == pytest.approx(22 / 24) and got["feature_norm"] == 2.5  # mean of 5 and 0
    assert _sparsity(acts, weight=[1, 0])["activation_sparsity"] == pytest.approx(10 / 12)


def test_sparsity_of_what_is_not_finite_is_not_known():
    assert np.isnan(list(_sparsity(np.array([[np.nan, 0.0]])).values())).all()
    padded = _sparsity(np.array([[1.0, 0.0], [np.nan, 0.0]]), weight=[1, 0])
    assert padded == {"activation_sparsity": 0.5, "feature_norm": 1.0}
