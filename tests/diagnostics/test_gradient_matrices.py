"""Gradient covariance, tangent kernel and loss along lines: on linear models, whose matrices are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.base import Clock, Learner, Network, Objective, Outputs, Snapshot, Variables
from plasticity_jax.diagnostics.gradient_covariance import gradient_covariance
from plasticity_jax.diagnostics.landscape import landscape
from plasticity_jax.diagnostics.ntk import ntk

KEY = jax.random.key(0)


def _apply(key, variables, x, train):
    return Outputs(x @ variables.params + 100.0 * train, {}, {}), {}


# the loss of an example is y (w . x): its gradient y x does not depend on w
LINEAR = Network(None, _apply)
OBJECTIVE = Objective(lambda outputs, batch: outputs.y * batch["y"], lambda outputs: outputs.y)


def _measured(diagnostic, x, y=None, weight=None, params=None):
    x = jnp.asarray(x, jnp.float32)
    y = jnp.ones(len(x)) if y is None else jnp.asarray(y, jnp.float32)
    weight = jnp.ones(len(x)) if weight is None else jnp.asarray(weight, jnp.float32)
    params = jnp.ones(x.shape[1]) if params is None else jnp.asarray(params, jnp.float32)
    batch = {"x": x, "y": y, "weight": weight, "test": {"x": x[:1]}}
    seen = Snapshot(Clock(0, 0, 0), None, batch, Outputs(x, {}, {}))
    got = jax.jit(diagnostic.apply)(KEY, (), Learner(Variables(params, {}), ()), seen)[1]
    return {name: np.asarray(value) for name, value in got.items()}


def _covariance(x, examples=None, **batch):
    return _measured(gradient_covariance(LINEAR, OBJECTIVE, 1.0, examples=examples or len(x)), x, **batch)


def test_orthogonal_gradients_have_full_rank_and_no_interference():
    got = _covariance(np.diag([1.0, 5.0, 1e-3, 7.0]))
    np.testing.assert_allclose(got["gradient_covariance"], np.eye(4), atol=1e-6)
    assert got["gradient_covariance_rank"] == pytest.approx(4.0, rel=1e-5)
    assert got["gradient_interference"] == 0.0 and got["interference_sign"] == 0.0


def test_collinear_gradients_have_rank_1():
    got = _covariance([[1.0, 2.0]] * 3, y=[1.0, -2.0, 3.0])
    expected = np.array([[1, -1, 1], [-1, 1, -1], [1, -1, 1]])
    np.testing.assert_allclose(got["gradient_covariance"], expected, atol=1e-6)
    assert got["gradient_covariance_rank"] == pytest.approx(1.0, abs=1e-3)
    assert got["gradient_interference"] == pytest.approx(-1 / 3)  # of six pairs, four at -1 and two at 1
    assert got["interference_sign"] == pytest.approx(-1 / 3)


def test_the_matrix_agrees_with_its_definition_and_its_rank_with_the_eigenvalues():
    x = np.random.default_rng(0).normal(size=(12, 5))
    got = _covariance(x)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(got["gradient_covariance"], unit @ unit.T, atol=1e-5)
    p = np.linalg.eigvalsh(unit @ unit.T)[-5:] / 12
    assert got["gradient_covariance_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-3)
    off = (unit @ unit.T)[~np.eye(12, dtype=bool)]
    assert got["gradient_interference"] == pytest.approx(off.mean(), abs=1e-5)
    assert got["interference_sign"] == pytest.approx(np.sign(off).mean())


def test_examples_that_do_not_count_are_nan_and_left_out():
    x, y = np.eye(3)[[0, 0, 1, 0]], [1.0, 1.0, 1.0, -1.0]
    got = _covariance(x, y=y, weight=[1, 2, 1, 0], examples=6)
    assert got["gradient_covariance"].shape == (6, 6)
    known = np.isfinite(got["gradient_covariance"])
    np.testing.assert_array_equal(known, np.outer([1, 1, 1, 0, 0, 0], [1, 1, 1, 0, 0, 0]))
    assert got["gradient_interference"] == got["interference_sign"] == pytest.approx(1 / 3)
    p = np.array([2 / 3, 1 / 3])
    assert got["gradient_covariance_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-4)


def test_only_the_first_examples_are_compared():
    got = _covariance(np.diag([1.0, 2.0, 3.0]), examples=2)
    assert got["gradient_covariance"].shape == (2, 2) and got["gradient_covariance_rank"] == pytest.approx(2.0)
    with pytest.raises(ValueError, match=r"gradient_covariance\.examples=1"):
        gradient_covariance(LINEAR, OBJECTIVE, 1.0, examples=1)


def test_gradients_that_are_not_finite_are_not_hidden():
    got = _covariance(np.eye(3), y=[1.0, np.nan, 1.0])
    for name in ("gradient_covariance_rank", "gradient_interference", "interference_sign"):
        assert np.isnan(got[name]), name


def _kernel(x, inputs=None, **batch):
    """The kernel of a linear model is x x^T."""
    return _measured(ntk(LINEAR, 1.0, inputs=inputs or len(x)), x, **batch)


def test_ntk_of_orthogonal_inputs_is_diagonal():
    got = _kernel(np.diag([1.0, 2.0, 4.0]))
    p = np.array([1.0, 4.0, 16.0]) / 21
    assert got["ntk_effective_rank"] == pytest.approx(np.exp(-np.sum(p * np.log(p))), rel=1e-5)
    assert got["ntk_condition"] == pytest.approx(16.0, rel=1e-5) and got["ntk_diagonal_share"] == pytest.approx(1.0)


def test_ntk_of_equal_inputs_is_constant():
    got = _kernel([[1e15, 0.0]] * 4)  # squares of its entries overflow
    assert got["ntk_effective_rank"] == pytest.approx(1.0, abs=1e-4)
    assert got["ntk_condition"] == pytest.approx(1.0, abs=1e-4)  # the other eigenvalues are below the floor
    assert got["ntk_diagonal_share"] == pytest.approx(0.25)


def test_ntk_of_what_does_not_count():
    x = np.diag([1.0, 2.0, 4.0])
    got = _kernel(x, weight=[1, 1, 0])
    assert got["ntk_condition"] == pytest.approx(4.0, rel=1e-5)
    assert _kernel(x, inputs=2)["ntk_condition"] == pytest.approx(4.0, rel=1e-5)
    zero = _kernel(np.zeros((3, 2)))
    assert zero["ntk_effective_rank"] == 0.0 and np.isnan([zero["ntk_condition"], zero["ntk_diagonal_share"]]).all()
    with pytest.raises(ValueError, match=r"ntk\.inputs=1"):
        ntk(LINEAR, 1.0, inputs=1)


# 1/2 sum_d h_d (w_d - m_d)^2 for every example: the Hessian is diagonal
CURVES, CENTRE = jnp.array([4.0, 2.0, -1.0]), jnp.array([1.0, 1.0, 0.0])
BOWL = Network(
    lambda key: Variables(jnp.zeros(3), {}),
    lambda key, variables, x, train: (Outputs(x * 0 + variables.params, {}, {}), {}),
)
SQUARE = Objective(lambda outputs, batch: 0.5 * jnp.sum(CURVES * (outputs.y - CENTRE) ** 2, -1), None)


def _lines(params, **settings):
    return _measured(landscape(BOWL, SQUARE, 1.0, **settings), np.zeros((3, 3)), params=params)


def test_lines_through_a_bowl():
    theta = np.array([3.0, 0.0, 4.0])  # of norm 5; the gradient is (8, -2, -4)
    got = _lines(theta, radius=0.5, points=5)
    distances = 5 * np.linspace(-0.5, 0.5, 5)
    gradient = np.array([8.0, -2.0, -4.0])

    def loss(w):
        return 0.5 * np.sum(np.array(CURVES) * (w - np.array(CENTRE)) ** 2, -1)

    def line(v):
        return loss(theta + distances[:, None] * v)

    np.testing.assert_allclose(got["loss_along_gradient"], line(gradient / np.linalg.norm(gradient)), rtol=1e-5)
    # the two largest eigenvalues, each vector turned uphill
    expected = [line(np.array([1.0, 0.0, 0.0])), line(np.array([0.0, -1.0, 0.0]))]
    np.testing.assert_allclose(got["loss_along_eigenvectors"], expected, rtol=1e-4)


def test_labels_of_lines():
    dims = landscape(BOWL, SQUARE, 1.0, directions=3, radius=0.1, points=3).dims
    assert dims["loss_along_eigenvectors"] == {"direction": range(3), "distance": (-0.1, 0.0, 0.1)}
    assert dims["loss_along_gradient"] == {"distance": (-0.1, 0.0, 0.1)}


def test_where_the_gradient_is_zero_there_is_no_line_along_it():
    got = _lines(np.array(CENTRE), points=3)
    assert np.isnan(got["loss_along_gradient"]).all() and np.isfinite(got["loss_along_eigenvectors"]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"points": 4}, r"landscape\.points=4, but it must be odd"),
        ({"directions": 0}, r"landscape\.directions=0"),
        ({"radius": 0.0}, r"landscape\.radius=0\.0"),
    ],
)
def test_bad_settings_of_lines_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        landscape(BOWL, SQUARE, 1.0, **settings)
