import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.curvature.check import check_operator
from plasticity_jax.curvature.matrices import fisher, ggn, gradient_covariance, hessian
from plasticity_jax.curvature.operators import operator

K = jax.random.split(jax.random.key(7), 6)
PARAMS = {"w": jax.random.normal(K[0], (4, 3)), "b": jnp.ones(3)}
X, Y = jax.random.normal(K[1], (21, 4)), jax.random.normal(K[2], (21, 3))
DATA = (X, Y)


def model(p, x):
    return jnp.tanh(x @ p["w"] + p["b"])


def normalised(p, x):  # batch norm with the statistics of the batch
    z = x @ p["w"] + p["b"]
    return jnp.tanh((z - z.mean(0)) / jnp.sqrt(z.var(0) + 1e-5))


def squared(z, y):
    return jnp.mean((z - y) ** 2)


def loss(p, batch):
    return squared(model(p, batch[0]), batch[1])


def noisy(p, batch):
    return loss(p, batch) + np.random.default_rng().normal() * jnp.sum(p["w"] ** 2)


def dropped(p, batch):
    return loss(p, (batch[0] * jax.random.bernoulli(K[3], 0.5, batch[0].shape), batch[1]))


def batches():
    return [jax.tree.map(lambda x, i=i: x[i : i + 8], DATA) for i in range(0, 21, 8)]


HEALTHY = {
    "hessian": lambda: hessian(loss, PARAMS, DATA),
    "microbatches": lambda: hessian(loss, PARAMS, DATA, microbatch=5),
    "one example at a time": lambda: hessian(loss, PARAMS, DATA, microbatch=1),
    "one example": lambda: hessian(loss, PARAMS, (X[:1], Y[:1])),
    "no data": lambda: hessian(lambda p, _: jnp.sum(jnp.sin(p["w"])), PARAMS),
    "ggn": lambda: ggn(model, squared, PARAMS, DATA),
    "type2": lambda: fisher(model, squared, PARAMS, DATA),
    "monte_carlo": lambda: fisher(model, squared, PARAMS, DATA, kind="monte_carlo", key=K[4]),
    "empirical": lambda: fisher(model, squared, PARAMS, DATA, kind="empirical", microbatch=5),
    "covariance": lambda: gradient_covariance(loss, PARAMS, DATA),
    "iterator": lambda: hessian(loss, PARAMS, batches),
    "algebra": lambda: (2.0 * hessian(loss, PARAMS, DATA).shift(0.1) + ggn(model, squared, PARAMS, DATA)).restrict("w"),
    "mask": lambda: hessian(loss, PARAMS, DATA).restrict(jax.tree.map(lambda x: x > 0.5, PARAMS)),
    "zero": lambda: operator(lambda v: jax.tree.map(jnp.zeros_like, v), like=PARAMS, psd=True),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_operators_pass(name, key):
    found = check_operator(HEALTHY[name](), key)
    assert found.repeat <= 1e-6 and found.linearity < 1e-5 and found.symmetry < 1e-5
    if name in ("one example", "no data", "zero"):
        assert found.loss_gap is None
    else:
        assert found.loss_gap < 1e-5


STATISTICS = {
    "sum": lambda: hessian(lambda p, batch: len(batch[0]) * loss(p, batch), PARAMS, DATA),
    "batch norm": lambda: hessian(lambda p, batch: squared(normalised(p, batch[0]), batch[1]), PARAMS, DATA),
    "microbatches": lambda: ggn(normalised, squared, PARAMS, DATA, microbatch=8),
    "type2": lambda: fisher(normalised, squared, PARAMS, DATA),
    "empirical": lambda: fisher(normalised, squared, PARAMS, DATA, kind="empirical"),
    "covariance": lambda: gradient_covariance(
        lambda p, batch: squared(normalised(p, batch[0]), batch[1]), PARAMS, DATA
    ),
    "dropout with one key": lambda: hessian(dropped, PARAMS, DATA),
    "iterator": lambda: hessian(lambda p, batch: len(batch[0]) * loss(p, batch), PARAMS, batches),
    "hidden in a sum": lambda: (
        hessian(loss, PARAMS, DATA) + 0.5 * ggn(normalised, squared, PARAMS, DATA).precondition(PRECONDITION)
    ),
    "hidden in a block": lambda: gradient_covariance(dropped, PARAMS, DATA).restrict("b").shift(1.0),
}
PRECONDITION = jax.tree.map(jnp.ones_like, PARAMS)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_loss_that_is_no_mean_over_examples_is_found(name, key):
    with pytest.raises(ValueError, match="it is not a mean over examples"):
        check_operator(STATISTICS[name](), key)


@pytest.mark.parametrize("microbatch", [None, 6])
def test_a_loss_with_random_numbers_of_numpy_is_found(key, microbatch):
    with pytest.raises(ValueError, match=r"not a mean over examples|depends on more than its arguments"):
        check_operator(hessian(noisy, PARAMS, DATA, microbatch=microbatch), key)
    with pytest.raises(ValueError, match="depends on more than its arguments"):  # no data to be halved
        check_operator(hessian(lambda p, _: noisy(p, DATA), PARAMS), key)


def test_a_counter_inside_a_product_is_found(key):
    calls = []

    def product(v):
        calls.append(1)
        return jax.tree.map(lambda x: len(calls) * x, v)

    with pytest.raises(ValueError, match="Two products with one vector differ"):
        check_operator(operator(product, like=PARAMS), key)


def test_products_that_are_not_linear_symmetric_or_definite_are_found(key):
    M = jax.random.normal(K[5], (12, 12))
    like = jnp.zeros(12)
    with pytest.raises(ValueError, match="not linear"):
        check_operator(operator(lambda v: M @ v**2, like=like), key)
    with pytest.raises(ValueError, match="not symmetric"):
        check_operator(operator(lambda v: M @ v, like=like), key)
    check_operator(operator(lambda v: (M + M.T) @ v, like=like), key)
    with pytest.raises(ValueError, match="no negative eigenvalue"):
        check_operator(operator(lambda v: -v, like=like, psd=True), key)
    assert check_operator(operator(lambda v: -v, like=like), key).lowest == pytest.approx(-(12**0.5))


def test_asymmetry_is_found_in_any_dimension(key):
    like = jnp.zeros(400_000)  # a shift to the right: u.A v itself is only 1/600 of |u| |A v|
    with pytest.raises(ValueError, match="not symmetric"):
        check_operator(operator(lambda v: v + 1e-3 * jnp.roll(v, 1), like=like), key)
    assert check_operator(operator(lambda v: v + jnp.roll(v, 1) + jnp.roll(v, -1), like=like), key).symmetry < 1e-5


@jax.custom_vjp
def reverse(x):
    return x


reverse.defvjp(lambda x: (x, None), lambda _, g: (-g,))


def test_reversed_gradients_make_the_hessian_asymmetric(key):
    def adversarial(p, batch):
        return squared(reverse(jnp.tanh(batch[0] @ p["w"])) @ p["head"], batch[1])

    params = {"w": PARAMS["w"], "head": jax.random.normal(K[4], (3, 3))}
    with pytest.raises(ValueError, match="not symmetric"):
        check_operator(hessian(adversarial, params, DATA), key)


def test_what_is_not_finite_is_named(key):
    with pytest.raises(ValueError, match="Not finite: the parameters at b"):
        check_operator(hessian(loss, {**PARAMS, "b": jnp.array([1.0, jnp.nan, 1.0])}, DATA), key)
    with pytest.raises(ValueError, match="Not finite: the loss"):
        check_operator(hessian(loss, PARAMS, (X.at[3, 0].set(jnp.nan), Y)), key)
    with pytest.raises(ValueError, match="Not finite: a product"):  # the derivative of sqrt at 0
        check_operator(hessian(lambda p, b: jnp.mean(jnp.sqrt(b * jnp.sum(p**2))), jnp.zeros(3), jnp.ones(4)), key)


def test_the_tolerance_admits_what_is_rough(key):
    low = hessian(loss, jax.tree.map(lambda x: x.astype(jnp.bfloat16), PARAMS), DATA)
    with pytest.raises(ValueError, match="raise `tolerance`"):
        check_operator(low, key)
    check_operator(low, key, tolerance=3e-2)
    check_operator(hessian(loss, PARAMS, DATA, method="finite_difference"), key, tolerance=1e-2)
