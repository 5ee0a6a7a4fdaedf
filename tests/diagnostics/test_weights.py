import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.base import Clock, Learner, Network, Snapshot, Variables
from plasticity_jax.diagnostics.weights import as_matrix, weights


def _measure(params, initial, **settings):
    network = Network(lambda key: Variables(initial, {}), None)
    diagnostic = weights(network, **settings)
    snapshot = Snapshot(Clock(0, 0, 0), Variables(initial, {}), {})
    _, got = jax.jit(diagnostic.apply)(jax.random.key(0), (), Learner(Variables(params, {}), ()), snapshot)
    assert all(value.dtype == jnp.float32 for value in got.values())
    return diagnostic.dims["spectral_norm"]["layer"], {name: np.asarray(value) for name, value in got.items()}


def test_closed_forms():
    params = {
        "conv": {"kernel": jnp.zeros((2, 1, 2, 3)).at[0, 0, 1, 2].set(-5.0).at[1, 0, 0, 1].set(3.0)},
        "diagonal": {"kernel": jnp.diag(jnp.array([4.0, -2.0, 0.001])), "bias": jnp.array([6.0, 0.0, 0.0])},
        "norm": {"kernel": jnp.array([7.0])},
        "ones": {"kernel": jnp.ones((4, 9))},
        "zero": {"kernel": jnp.zeros((3, 2))},
    }
    initial = jax.tree.map(jnp.zeros_like, params)
    initial["diagonal"]["bias"] = jnp.array([0.0, 0.0, 8.0])
    layers, got = _measure(params, initial)
    assert layers == ("conv", "diagonal", "ones", "zero")
    np.testing.assert_allclose(got["layer_weight_norm"], [34**0.5, 20**0.5, 6.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(got["spectral_norm"], [5.0, 4.0, 6.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(got["weight_rank"], [2.0, 2.0, 1.0, 0.0])
    np.testing.assert_allclose(got["weight_norm"], (34 + 20 + 36 + 49 + 36) ** 0.5, rtol=1e-6)
    np.testing.assert_allclose(got["distance_from_init"], (34 + 20 + 36 + 49 + 36 + 64) ** 0.5, rtol=1e-6)


def test_nested_layers_are_named_by_their_path_and_delta_is_a_setting():
    params = {"block": {"fc": {"kernel": jnp.diag(jnp.array([8.0, 1.0]))}}}
    layers, got = _measure(params, params)
    assert layers == ("block/fc",) and got["weight_rank"] == 2.0 and got["distance_from_init"] == 0.0
    assert _measure(params, params, delta=0.2)[1]["weight_rank"] == 1.0
    with pytest.raises(ValueError, match=r"delta=-1.*between 0.0 and 1.0"):
        _measure(params, params, delta=-1)


def test_sums_over_half_precision_are_taken_in_float32():
    params = {"fc": {"kernel": jnp.full((64, 64), 100.0, jnp.float16)}}
    assert _measure(params, params)[1]["weight_norm"] == pytest.approx(6400.0)  # its square overflows float16


def test_filters_map_patches_to_channels():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 2, 4))
    patch = jax.random.normal(jax.random.key(1), (1, 3, 3, 2))
    out = jax.lax.conv_general_dilated(patch, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(out.reshape(-1), patch.reshape(-1) @ as_matrix(kernel), rtol=1e-4)


def test_layers_are_known_without_running_the_network():
    def init(key):
        kernel = jax.random.normal(key, (3, 2))
        assert isinstance(kernel, jax.core.Tracer)  # shapes alone: nothing is computed
        return Variables({"fc0": {"kernel": kernel}}, {})

    assert weights(Network(init, None)).dims["weight_rank"] == {"layer": ("fc0",)}
