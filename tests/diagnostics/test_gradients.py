import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from plasticity_jax.base import Clock, Learner, Network, Snapshot, Variables
from plasticity_jax.diagnostics.gradients import gradients

PARAMS = {"fc": {"kernel": jnp.array([[3.0, 0.0], [0.0, 4.0]]), "bias": jnp.array([12.0, 0.0])}}  # norms 5 and 13
GRADIENT = {"fc": {"kernel": jnp.array([[0.0, 3.0], [4.0, 0.0]]), "bias": jnp.array([0.0, -12.0])}}
MEASURE = jax.jit(gradients(Network(lambda key: Variables(PARAMS, {}), None)).apply)


def _measure(params, gradient, update):
    snapshot = Snapshot(Clock(0, 0, 0), Variables(params, {}), {}, gradients=gradient, updates=update)
    _, got = MEASURE(jax.random.key(0), (), Learner(Variables(params, {}), ()), snapshot)
    layered = got.pop("layer_update_ratio")
    assert layered.shape == (1,)
    assert all(value.shape == () and value.dtype == jnp.float32 for value in (*got.values(), layered[0]))
    return {**{name: float(value) for name, value in got.items()}, "layer_update_ratio": float(layered[0])}


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
        }
    )


def test_the_ratio_of_a_layer_is_that_of_its_kernel_alone():
    params = {"a": PARAMS["fc"], "b": {"kernel": jnp.zeros((2, 2))}}
    update = {"a": {"kernel": jnp.array([[0.0, 1.0], [0.0, 0.0]]), "bias": 100.0 * jnp.ones(2)}, "b": params["b"]}
    network = Network(lambda key: Variables(params, {}), None)
    snapshot = Snapshot(Clock(0, 0, 0), None, {}, gradients=update, updates=update)
    got = gradients(network).apply(None, (), Learner(Variables(params, {}), ()), snapshot)[1]["layer_update_ratio"]
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
