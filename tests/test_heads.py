"""Heads against their formulas, written out for single numbers or with scipy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from records import CLASSES, KEYED, spec
from scipy import special, stats

from plasticity_jax.base import Outputs
from plasticity_jax.networks.heads import HEADS, project

B = 6
LABELS = jnp.array([0, 2, 1, 1, 0, 2])
RANGE = {"bins": 11, "low": -1.0, "high": 2.0}
SUPPORT = np.linspace(-1.0, 2.0, 11)


def outputs(head, scale=1.0):
    return Outputs(scale * jax.random.normal(KEYED, (B, head.outputs)), {}, {})


def losses(head, y, target):
    return np.asarray(head.objective.loss(Outputs(jnp.asarray(y), {}, {}), {"y": jnp.asarray(target)}))


def sum_of_nearest(target):
    """Two-hot encodings as a loop: what the lower of two neighbours does not get, the upper one gets."""
    q = np.zeros((*target.shape, len(SUPPORT)))
    for at, t in np.ndenumerate(np.clip(target, SUPPORT[0], SUPPORT[-1])):
        lower = min(int(np.searchsorted(SUPPORT, t, side="right")) - 1, len(SUPPORT) - 2)
        share = (t - SUPPORT[lower]) / (SUPPORT[lower + 1] - SUPPORT[lower])
        q[at][lower], q[at][lower + 1] = 1 - share, share
    return q


def normal_masses(target, spread):
    edges = np.linspace(-1.0, 2.0, 12)
    f = stats.norm.cdf(edges, target[..., None], spread * (edges[1] - edges[0]))
    return np.diff(f) / (f[..., -1:] - f[..., :1])


def cross_entropy(q, y):
    y = np.asarray(y, np.float64).reshape(*q.shape)
    return -(q * special.log_softmax(y, -1)).sum(-1).mean(-1)


TARGETS = np.random.default_rng(0).uniform(-1.5, 2.5, (B, CLASSES))  # some outside the range


@pytest.mark.parametrize("name", ["two_hot", "c51", "hl_gauss"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_categorical_losses(name, smoothing):
    head = HEADS[name](spec(), **RANGE, smoothing=smoothing)
    y = outputs(head).y
    assert y.shape == (B, CLASSES * 11)

    def expected(target):
        inside = np.clip(target, -1.0, 2.0)
        q = normal_masses(inside, 0.75) if name == "hl_gauss" else sum_of_nearest(target)
        return cross_entropy((1 - smoothing) * q + smoothing / 11, y)

    np.testing.assert_allclose(losses(head, y, TARGETS), expected(TARGETS), rtol=1e-4)
    np.testing.assert_allclose(losses(head, y, LABELS), expected(np.eye(CLASSES)[LABELS]), rtol=1e-4)


@pytest.mark.parametrize("name", ["two_hot", "c51", "hl_gauss"])
def test_predictions_are_means(name):
    head = HEADS[name](spec(), **RANGE)
    found = outputs(head)
    p = special.softmax(np.asarray(found.y, np.float64).reshape(B, CLASSES, 11), -1)
    edges = np.linspace(-1.0, 2.0, 12)
    at = (edges[1:] + edges[:-1]) / 2 if name == "hl_gauss" else SUPPORT
    np.testing.assert_allclose(head.objective.predict(found), p @ at, rtol=1e-5, atol=1e-6)


def test_the_best_two_hot_prediction_is_the_target():
    target = TARGETS.clip(-1, 2)
    best = np.log(np.maximum(sum_of_nearest(target), 1e-30)).reshape(B, -1)
    head = HEADS["two_hot"](spec(), **RANGE)
    np.testing.assert_allclose(head.objective.predict(Outputs(jnp.asarray(best), {}, {})), target, atol=1e-5)


@pytest.mark.parametrize(("low", "high", "bins"), [(99.0, 101.0, 601), (1000.0, 1001.0, 101), (-10.0, 110.0, 601)])
def test_masses_sum_to_one_far_from_zero(low, high, bins):
    """Reward problems have targets with an offset (Lyle et al. 2024), where bins are not exact in float32."""
    targets = jnp.linspace(low, high, 97)
    q = project(targets[:, None], jnp.ones((97, 1)), bins, low, high)
    np.testing.assert_allclose(q.sum(-1), 1.0, atol=1e-6)
    np.testing.assert_allclose(q @ np.arange(bins), (np.float64(targets) - low) * (bins - 1) / (high - low), atol=0.02)


@pytest.mark.parametrize("name", ["linear", "dueling", "two_hot", "hl_gauss", "c51"])
@pytest.mark.parametrize("y", [jnp.array([0.3, 0.7]), jnp.array([[0], [1]])])
def test_targets_of_another_shape_are_refused(name, y):
    head = HEADS[name](spec())
    with pytest.raises(ValueError, match=r"y has the shape .*targets \[B, 3\]"):
        losses(head, jnp.zeros((2, head.outputs)), y)


def test_default_range_has_one_hot_targets_on_bins():
    head = HEADS["two_hot"](spec())
    target = np.eye(CLASSES)[LABELS]
    index = np.where(target == 1, 40, 20)  # 1 and 0 among 61 bins from -1 in steps of 0.05
    y = 100.0 * jax.nn.one_hot(index, 61).reshape(B, -1)
    assert losses(head, y, LABELS).max() < 1e-3
    np.testing.assert_allclose(head.objective.predict(Outputs(y, {}, {})), target, atol=1e-5)


def test_c51_projects_the_distribution_of_its_batch():
    head, draw = HEADS["c51"](spec(), **RANGE), np.random.default_rng(1)
    atoms = draw.uniform(-1.5, 2.5, (B, CLASSES, 4))
    p = special.softmax(draw.normal(size=atoms.shape), -1)
    q = (p[..., None] * sum_of_nearest(atoms)).sum(-2)
    np.testing.assert_allclose(project(jnp.asarray(atoms), jnp.asarray(p), 11, -1.0, 2.0), q, atol=1e-5)
    batch = {"y": LABELS, "atoms": jnp.asarray(atoms), "probabilities": jnp.asarray(p)}
    y = outputs(head)
    np.testing.assert_allclose(head.objective.loss(y, batch), cross_entropy(q, y.y), rtol=1e-4)
    inside = atoms.clip(-1, 2)
    np.testing.assert_allclose(q @ SUPPORT, (p * inside).sum(-1), atol=1e-9)  # the projection keeps the mean


def test_a_wider_spread_fills_the_range_evenly():
    head = HEADS["hl_gauss"](spec(), **RANGE, spread=1e3)
    zeros = np.zeros((B, head.outputs))
    np.testing.assert_allclose(losses(head, zeros, TARGETS), np.log(11), rtol=1e-5)
    grad = jax.grad(lambda y: jnp.sum(head.objective.loss(Outputs(y, {}, {}), {"y": jnp.asarray(TARGETS)})))
    np.testing.assert_allclose(grad(jnp.asarray(zeros)), 0.0, atol=1e-4)


def test_dueling():
    head = HEADS["dueling"](spec())
    y = np.asarray(outputs(head).y)
    assert y.shape == (B, CLASSES + 1)
    q = y[:, :1] + y[:, 1:] - y[:, 1:].mean(-1, keepdims=True)
    np.testing.assert_allclose(head.objective.predict(Outputs(jnp.asarray(y), {}, {})), q, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(losses(head, y, TARGETS), ((q - TARGETS) ** 2).mean(-1), rtol=1e-5)
    np.testing.assert_allclose(q.mean(-1), y[:, 0], atol=1e-6)  # the value is the mean


def test_linear_takes_labels_and_targets():
    head = HEADS["linear"](spec())
    y = np.asarray(outputs(head).y)
    np.testing.assert_allclose(losses(head, y, LABELS), ((y - np.eye(CLASSES)[LABELS]) ** 2).mean(-1), rtol=1e-5)
    np.testing.assert_allclose(losses(head, y, TARGETS), ((y - TARGETS) ** 2).mean(-1), rtol=1e-5)


@pytest.mark.parametrize("name", ["linear", "softmax", "dueling"])
def test_regression_by_least_squares(name):
    head = HEADS[name](spec())
    found = outputs(head)
    predicted = head.regression.predict(found)
    squares = ((np.asarray(predicted) - TARGETS) ** 2).mean(-1)
    np.testing.assert_allclose(head.regression.loss(found, {"y": jnp.asarray(TARGETS)}), squares, rtol=1e-5)
    np.testing.assert_allclose(predicted, head.objective.predict(found))
    assert head.span == np.inf


@pytest.mark.parametrize(("name", "span"), [("two_hot", 3.0), ("c51", 3.0), ("hl_gauss", 3.0 - 3.0 / 11)])
def test_regression_by_bins_is_the_job_without_smoothing(name, span):
    plain, smooth = (HEADS[name](spec(), **RANGE, smoothing=s) for s in (0.0, 0.3))
    found, target = outputs(plain), {"y": jnp.asarray(TARGETS)}
    expected = np.asarray(plain.objective.loss(found, target))
    np.testing.assert_allclose(smooth.regression.loss(found, target), expected, rtol=1e-6)
    assert abs(smooth.objective.loss(found, target) - expected).max() > 1e-3
    extremes = [HEADS[name](spec(), **RANGE).regression.predict(bin_of(at)) for at in (0, -1)]
    np.testing.assert_allclose(extremes[1] - extremes[0], span, rtol=1e-4)
    assert plain.span == pytest.approx(span)


def bin_of(at):
    """Outputs that put all mass on one of 11 bins."""
    return Outputs(100.0 * jax.nn.one_hot(jnp.full((1, CLASSES), at % 11), 11).reshape(1, -1), {}, {})


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing(smoothing):
    head = HEADS["softmax"](spec(), smoothing=smoothing)
    y = np.asarray(outputs(head, 3.0).y)
    q = (1 - smoothing) * np.eye(CLASSES)[LABELS] + smoothing / CLASSES
    expected = -(q * special.log_softmax(y.astype(np.float64), -1)).sum(-1)
    np.testing.assert_allclose(losses(head, y, LABELS), expected, rtol=1e-5)
    traced = jax.jit(lambda s: HEADS["softmax"](spec(), smoothing=s).objective.loss(Outputs(y, {}, {}), {"y": LABELS}))
    np.testing.assert_allclose(traced(smoothing), expected, rtol=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_classes_that_do_not_exist_yet_are_left_out(smoothing):
    """As if the head had the others alone, in value and in gradient."""
    exist, labels = np.array([True, False, True]), np.where(np.asarray(LABELS) == 1, 2, LABELS)
    y = jax.random.normal(KEYED, (B, CLASSES))
    everywhere = {"y": jnp.asarray(labels), "classes": jnp.broadcast_to(exist, (B, CLASSES))}
    head, two = HEADS["softmax"](spec(), smoothing=smoothing), {**spec(), "classes": 2}

    def both(y):
        alone = HEADS["softmax"](two, smoothing=smoothing).objective.loss(
            Outputs(y[:, exist], {}, {}), {"y": jnp.asarray(labels // 2)}
        )
        return head.objective.loss(Outputs(y, {}, {}), everywhere), alone

    (values, expected), (gradients, expected_gradients) = jax.jit(lambda y: (both(y), jax.jacrev(both)(y)))(y)
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(gradients, expected_gradients, atol=1e-6)


def test_the_range_may_be_traced():
    def at(low):
        head = HEADS["two_hot"](spec(), low=low)
        return head.objective.loss(outputs(head), {"y": LABELS})

    np.testing.assert_allclose(jax.jit(at)(-0.5), at(-0.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("softmax", {"smoothing": 1.0}, "smoothing=1.0"),
        ("two_hot", {"bins": 1}, "bins=1, but it must be a whole number, 2 or more"),
        ("c51", {"low": 2.5}, "high - low=-0.5"),
        ("hl_gauss", {"spread": 0.0}, "spread=0.0"),
        ("hl_gauss", {"high": float("nan")}, "high=nan"),
        ("two_hot", {"smoothing": -0.1}, "smoothing=-0.1"),
    ],
)
def test_bad_settings_are_named(name, settings, words):
    with pytest.raises(ValueError, match=words):
        HEADS[name](spec(), **settings)
