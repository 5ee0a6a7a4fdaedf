"""The empirical neural tangent kernel: in how many directions a step can still move the outputs apart."""

import jax.numpy as jnp

from plasticity_jax import check, curvature
from plasticity_jax.diagnostics import spectra
from plasticity_jax.diagnostics.shared import first, require_memory, stateless

__all__ = ["ntk"]

FLOOR = 1e-6  # of the largest eigenvalue: what lies below is rounding in float32


def ntk(network, memory_gb, inputs: int = 64):
    """Three numbers of the kernel K[i, j] = 1/C sum_c <d z_c(x_i) / d theta, d z_c(x_j) / d theta>.

      ntk_effective_rank  exp(-sum_i p_i ln p_i), p_i = lambda_i / sum lambda      1 to the number of inputs
      ntk_condition       lambda_1 / (smallest lambda above 1e-6 lambda_1)         1 to 1e6
      ntk_diagonal_share  sum_i K_ii^2 / sum_ij K_ij^2                             1 / inputs to 1

    z are the C outputs of the network before the head reads them: logits for classification, the logits of all bins for
    categorical values. Inputs of weight 0 do not count. All three are [] float32; for a kernel of zeros the rank is 0
    and the others are NaN.

    A diagonal share of 1 is a kernel that learns every input by itself, 1 / inputs one that moves all inputs alike. In
    a kernel that collapses to few directions, the small eigenvalues fall below the floor, and the condition falls with
    them: read it beside the rank.

    Args:
      network: Network, in evaluation mode.
      memory_gb: gigabytes for the Jacobians that are held at once; those of two inputs at least are.
      inputs: the first so many of the evaluation inputs.

    Returns:
      A Diagnostic with three scalar metrics. Off by default. It costs C gradients for each input.

    Raises:
      ValueError: fewer than 2 inputs; while tracing, gradients of two inputs that do not fit in memory_gb.

    Jacot et al. 2018 (arXiv 1806.07572). Lyle et al. 2024 (arXiv 2402.18762) take 64 inputs and split K into its
    diagonal and the rest, which becomes of low rank where plasticity is lost; they give no scalar for it.
    """
    check.whole("ntk.inputs", inputs, low=2)

    def apply(key, state, learner, snapshot):
        batch = first(snapshot.batch, inputs)

        outputs = snapshot.outputs.y[0].size
        require_memory("ntk", 2 * outputs, learner.variables.params, memory_gb)

        def model(params, x):
            return network.apply(key, learner.variables._replace(params=params), x, False)[0].y

        kernel = curvature.ntk(model, learner.variables.params, batch["x"], memory=memory_gb * 1e9)
        counted = batch["weight"] > 0
        return state, _describe(jnp.where(counted[:, None] & counted, kernel, 0.0))

    names = ("ntk_effective_rank", "ntk_condition", "ntk_diagonal_share")
    return stateless(apply, {name: {} for name in names})


def _describe(kernel):
    """The three metrics of a kernel whose rows are zero for inputs that do not count."""
    eigenvalues = jnp.maximum(jnp.linalg.eigvalsh(kernel), 0.0)
    largest = eigenvalues[-1]
    smallest = jnp.min(jnp.where(eigenvalues > FLOOR * largest, eigenvalues, jnp.inf))
    scaled = kernel / jnp.max(jnp.abs(kernel))  # squares of large kernels overflow
    return {
        "ntk_effective_rank": spectra.effective_rank(eigenvalues),
        "ntk_condition": jnp.where(largest > 0, largest / smallest, jnp.nan),
        "ntk_diagonal_share": jnp.sum(jnp.square(jnp.diagonal(scaled))) / jnp.sum(jnp.square(scaled)),
    }
