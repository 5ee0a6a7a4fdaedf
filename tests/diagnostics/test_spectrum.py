"""The Hessian's spectrum as a diagnostic: what its settings may and may not change."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.diagnostics.spectrum import spectrum

KEY = jax.random.key(0)


@pytest.mark.slow
def test_microbatches_change_nothing(toy):
    """Also where one holds no weight at all, as padding does."""
    learner, snapshot = toy.case(KEY)
    weight = jnp.array([1.0, 2.0, 0.5, 1.0, 0.0, 0.0])
    snapshot = snapshot._replace(batch={**snapshot.batch, "weight": weight})

    def measured(microbatch, memory_gb=1.0):
        apply = spectrum(toy.network, toy.objective, memory_gb, steps=6, probes=2, microbatch=microbatch).apply
        return jax.jit(apply)(KEY, (), learner, snapshot)[1]

    whole, parts, few = measured(0), measured(2), measured(0, 1.6e-6)  # six vectors and one input fit
    for name in ("sharpness", "negative_curvature", "hessian_effective_rank"):
        np.testing.assert_allclose([parts[name], few[name]], [whole[name]] * 2, rtol=1e-4)


def test_a_negative_microbatch_is_refused(toy):
    with pytest.raises(ValueError, match="microbatch"):
        spectrum(toy.network, toy.objective, 1.0, microbatch=-1)
