"""Curvature of any JAX loss: operators in, numbers with error bars out.

    from plasticity_jax import curvature as cv

    H = cv.hessian(loss, params, (x, y))                    # loss(params, batch): the mean over the batch
    H @ v                                                   # v a tree like params
    s = cv.slq(H, steps=64, probes=8, key=key)              # the whole spectrum
    cv.summary(s).largest, cv.density(s), cv.count(s, 1.0, jnp.inf)
    cv.eigenpairs(H, k=5, key=key)                          # with residuals

A training loop that watches the sharpness; the vectors of the last time are the start of the next:

>>> import jax, jax.numpy as jnp, optax
>>> from plasticity_jax import curvature as cv
>>> x = jax.random.normal(jax.random.key(0), (16, 3))
>>> loss = lambda p, x: jnp.mean((jnp.tanh(x @ p["w"]) - jnp.sin(x[:, 0])) ** 2)
>>> params, optimizer, vectors = {"w": jnp.zeros(3)}, optax.sgd(0.1), None
>>> state, watched = optimizer.init(params), []
>>> for i in range(201):
...     if i % 100 == 0:
...         top = cv.eigenpairs(cv.hessian(loss, params, x), k=1, warm_start=vectors)
...         vectors, watched = top.vectors, [*watched, float(top.values[0])]
...     updates, state = optimizer.update(jax.grad(loss)(params, x), state)
...     params = optax.apply_updates(params, updates)
>>> len(watched), watched[-1] > 0
(3, True)

Standalone: it imports jax alone and knows nothing of the rest of the package. "params" is any tree of floating arrays:
one differentiates with respect to the tree one passes.
"""

from plasticity_jax.curvature.check import Check, check_operator
from plasticity_jax.curvature.eigen import Eigenpairs, eigenpairs
from plasticity_jax.curvature.estimate import Estimate
from plasticity_jax.curvature.estimators import diagonal, frobenius_norm, logdet, trace
from plasticity_jax.curvature.gram import gradient_gram, ntk
from plasticity_jax.curvature.lanczos import Basis, Lanczos, lanczos, ritz
from plasticity_jax.curvature.matrices import fisher, ggn, gradient_covariance, hessian
from plasticity_jax.curvature.operators import Operator, operator
from plasticity_jax.curvature.slq import slq
from plasticity_jax.curvature.spectrum import (
    Density,
    Spectrum,
    cdf,
    count,
    density,
    kernel_polynomial_density,
    spectral_sum,
    statistical_dimension,
)
from plasticity_jax.curvature.summary import Summary, summary

__all__ = [
    "Basis",
    "Check",
    "Density",
    "Eigenpairs",
    "Estimate",
    "Lanczos",
    "Operator",
    "Spectrum",
    "Summary",
    "cdf",
    "check_operator",
    "count",
    "density",
    "diagonal",
    "eigenpairs",
    "fisher",
    "frobenius_norm",
    "ggn",
    "gradient_covariance",
    "gradient_gram",
    "hessian",
    "kernel_polynomial_density",
    "lanczos",
    "logdet",
    "ntk",
    "operator",
    "ritz",
    "slq",
    "spectral_sum",
    "statistical_dimension",
    "summary",
    "trace",
]
