import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax.base import Clock, Learner, Network, Objective, Outputs, Snapshot, Variables
from plasticity_jax.diagnostics.gradients import gradients

PARAMS = {"fc": {"kernel": jnp.array([[3.0, 0.0], [0.0, 4.0]]), "bias": jnp.array([12.0, 0.0])}}  # norms 5 and 13
GRADIENT = {"fc": {"kernel": jnp.array([[0.0, 3.0], [4.0, 0.0]]), "bias": jnp.array([0.0, -12.0])}}
BATCH = {"x": jnp.array([[1.0, 0.0], [0.0, 8.0]]), "y": jnp.array([0, 1]), "weight": jnp.ones(2)}
OBJECTIVE = Objective(None, lambda outputs: outputs.y)


def _apply(key, variables, x, train):
    """Scores are the inputs plus the first bias."""
    return Outputs(x + jax.tree.leaves(variables.params)[0].reshape(-1)[:2], {}, {}), {}


def _gradients(params):
    return gradients(Network(lambda key: Variables(params, {}), _apply), OBJECTIVE, 1.0)


def _snapshot(params, gradient, update):
    variables = Variables(params, {})
    outputs, _ = _apply(None, variables, BATCH["x"], False)
    return Snapshot(Clock(0, 0, 0), variables, BATCH, outputs, gradients=gradient, updates=update)


MEASURE = jax.jit(_gradients(PARAMS).apply)


def _measure(params, gradient, update):
    snapshot = _snapshot(params, gradient, update)
    _, got = MEASURE(jax.random.key(0), (), Learner(Variables(params, {}), ()), snapshot)
    assert all(value.dtype == jnp.float32 and value.size == 1 for value in got.values())  # one layer
    assert got["layer_update_ratio"].shape == got["gradient_sparsity"].shape == (1,) and got["churn"].shape == ()
    return {name: float(value.reshape(())) for name, value in got.items()}


def test_closed_forms_for_gradient_descent():
    update, _ = optax.sgd(0.5).update(GRADIENT, optax.sgd(0.5).init(PARAMS))
    got = _measure(PARAMS, GRADIENT, update)
    # biases count in the first two, kernels alone in the others: learning rate / ||w||^2
    assert got == pytest.approx(
        {
            "gradient_norm": 13.0,
            "update_ratio": 0.5,
            "effective_learning_rate": 0.5 / 25,
            "layer_update_ratio": 0.5,  # both kernels have the norm 5
            "gradient_sparsity": 0.5,
            "churn": 0.5,  # the bias falls by (0, -6): the second score of both inputs rises by 6
            "churn_distance": 3.0,
        }
    )


def test_the_ratio_of_a_layer_is_that_of_its_kernel_alone():
    params = {"a": PARAMS["fc"], "b": {"kernel": jnp.zeros((2, 2))}}
    update = {"a": {"kernel": jnp.array([[0.0, 1.0], [0.0, 0.0]]), "bias": 100.0 * jnp.ones(2)}, "b": params["b"]}
    snapshot = _snapshot(params, update, update)
    got = _gradients(params).apply(None, (), Learner(Variables(params, {}), ()), snapshot)[1]["layer_update_ratio"]
    np.testing.assert_allclose(got, [0.2, np.nan], rtol=1e-6)  # without a kernel there is no ratio


def test_effective_learning_rate_is_the_step_on_the_sphere():
    """Of a loss that ignores the scale of w: two weights of one direction, two rates, the same effective rate."""
    goal = jnp.array([[0.6, 0.0], [0.0, 0.8]])

    def loss(params):
        w = params["fc"]["kernel"]
        return -jnp.sum(goal * w) / jnp.linalg.norm(w)

    turned, rates = [], []
    for scale, rate in ((1.0, 1e-2), (3.0, 9e-2)):
        params = {"fc": {"kernel": scale * jnp.array([[1.0, 2.0], [0.5, -1.0]])}}
        gradient = jax.grad(loss)(params)
        update = jax.tree.map(lambda g, rate=rate: -rate * g, gradient)
        w = params["fc"]["kernel"] + update["fc"]["kernel"]
        turned.append(w / jnp.linalg.norm(w))
        rates.append(_measure(params, gradient, update)["effective_learning_rate"])
    np.testing.assert_allclose(turned[0], turned[1], rtol=1e-5)
    assert rates[0] == pytest.approx(rates[1], rel=1e-5) == pytest.approx(1e-2 / 6.25, rel=1e-5)


def test_without_a_gradient_the_effective_rate_is_not_a_number():
    zero = jax.tree.map(jnp.zeros_like, GRADIENT)
    got = _measure(PARAMS, zero, GRADIENT)
    assert got["gradient_norm"] == 0.0 and got["update_ratio"] == 1.0 and np.isnan(got["effective_learning_rate"])
    assert np.isnan(_measure(zero, GRADIENT, GRADIENT)["effective_learning_rate"])
    assert np.isnan(_measure(PARAMS, jax.tree.map(lambda g: g * jnp.nan, GRADIENT), zero)["gradient_norm"])


def test_zeros_of_a_gradient_are_counted_exactly():
    gradient = {"fc": {"kernel": jnp.array([[0.0, 1e-30], [0.0, 0.0]]), "bias": jnp.zeros(2)}}
    assert _measure(PARAMS, gradient, gradient)["gradient_sparsity"] == 0.75
    broken = {"fc": {"kernel": jnp.array([[0.0, jnp.inf], [0.0, 0.0]]), "bias": jnp.zeros(2)}}
    assert np.isnan(_measure(PARAMS, broken, gradient)["gradient_sparsity"])
