"""How the gradients of single examples point: the gradient covariance C_k and what it says of interference."""

import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.curvature.gram import gradient_gram
from plasticity_jax.diagnostics import spectra
from plasticity_jax.diagnostics.shared import first, stateless, task_loss

__all__ = ["gradient_covariance"]


def gradient_covariance(network, objective, memory_gb, examples: int = 512):
    """Cosines between the gradients g_i of the losses of single examples.

      gradient_covariance       C_k[i, j] = <g_i, g_j> / (||g_i|| ||g_j||)                        [k, k]
      gradient_covariance_rank  exp(-sum_i p_i ln p_i), p_i = lambda_i / sum lambda of C_k        []
      gradient_interference     mean of C_k[i, j] over pairs i != j                               []
      interference_sign         mean of sign C_k[i, j] over pairs i != j                          []

    The examples are the first k of the evaluation inputs, which the streams give in a fixed order; the loss is the
    task's, in evaluation mode and without penalties. Rows and columns of an example of weight 0 are NaN, as are those
    beyond the inputs that there are, and neither counts in the other three. A gradient of zero has cosine 0 with all,
    itself included. A rank of k means orthogonal gradients, 1 means that all are collinear.

    Args:
      network: Network.
      objective: Objective.
      memory_gb: gigabytes for the gradients that are held at once.
      examples: k. The results take 4 k^2 bytes for each run and task: 1 MB at 512.

    Returns:
      A Diagnostic with a matrix, whose second dimension is called "other", and three scalar metrics. Off by default.
      It costs k gradients of one example, and k^2 / 2m more where only m of them fit in memory.

    Raises:
      ValueError: fewer than 2 examples.

    Lyle et al. 2023 (arXiv 2303.01486), equation 3 and Figure 2. There the loss of the figure is a probe's, the squared
    distance to the current output plus noise; here it is that of the task. The rank and the two means are ours.
    """
    check.whole("gradient_covariance.examples", examples, low=2)

    def apply(key, state, learner, snapshot):
        batch = first(snapshot.batch, examples)
        loss = task_loss(network, objective, learner, batch, key)
        cosines = gradient_gram(loss, learner.variables.params, batch, memory=memory_gb * 1e9)
        return state, _describe(cosines, batch["weight"] > 0, examples)

    dims = {name: {} for name in ("gradient_covariance_rank", "gradient_interference", "interference_sign")}
    dims["gradient_covariance"] = {"example": range(examples), "other": range(examples)}
    return stateless(apply, dims)


def _describe(cosines, counted, examples):
    """The four metrics of C_k, of which the examples flagged in `counted` [k] count."""
    known = counted[:, None] & counted
    pairs = known & ~jnp.eye(len(counted), dtype=bool)
    eigenvalues = jnp.linalg.eigvalsh(jnp.where(known, cosines, 0.0))
    missing = examples - len(counted)
    return {
        "gradient_covariance": jnp.pad(jnp.where(known, cosines, jnp.nan), (0, missing), constant_values=jnp.nan),
        "gradient_covariance_rank": spectra.effective_rank(jnp.maximum(eigenvalues, 0.0)),
        "gradient_interference": jnp.mean(cosines, where=pairs),
        "interference_sign": jnp.mean(jnp.sign(cosines), where=pairs),
    }
