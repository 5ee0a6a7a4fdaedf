"""The spectrum of the loss's Hessian on the task's own inputs, by stochastic Lanczos quadrature."""

import jax

from plasticity_jax import check, tree
from plasticity_jax.curvature.matrices import hessian
from plasticity_jax.curvature.slq import slq
from plasticity_jax.curvature.summary import summary
from plasticity_jax.diagnostics.shared import first, require_memory, stateless, task_loss
from plasticity_jax.parts import fitting

__all__ = ["spectrum"]


def spectrum(network, objective, memory_gb, steps: int = 64, probes: int = 4, inputs: int = 2048, microbatch: int = 0):
    """The Hessian of the mean training loss, without penalties and in evaluation mode.

      sharpness               largest eigenvalue, [] float32
      hessian_condition       largest |eigenvalue| over the smallest above 1e-6 of it
      hessian_effective_rank  exp of the entropy of |eigenvalue| / sum |eigenvalue|, above the same floor
      negative_curvature      share of sum |eigenvalue| that is negative, 0 to 1
      hessian_nodes           [probes, steps] Ritz values: with the weights, the whole spectrum
      hessian_weights         [probes, steps] each row sums to 1

    Each follows `plasticity_jax.curvature.summary`. Off by default (`every` is 0), for it costs more than short tasks.

    Args:
      network: Network.
      objective: Objective.
      memory_gb: gigabytes for activations, and as much for the `steps` vectors of the Lanczos process.
      steps: Lanczos steps, one Hessian product each; at most as many as there are parameters.
      probes: random start vectors.
      inputs: the first so many of the evaluation inputs, which the streams give in fixed order.
      microbatch: inputs processed at once; 0: as many as memory_gb allows.

    Returns:
      A Diagnostic. Its cost is steps * probes Hessian products, each about two gradients on all inputs.

    Raises:
      ValueError: a setting below 1, a microbatch below 0, more steps than memory_gb holds vectors.
    """
    for name, value in (("steps", steps), ("probes", probes), ("inputs", inputs)):
        check.at_least(name, value, 1)
    check.at_least("microbatch", microbatch, 0)
    params = jax.eval_shape(lambda: network.init(jax.random.key(0))).params
    steps = min(steps, tree.size(params))
    left_gb = require_memory("spectrum.steps", steps, params, memory_gb)

    def apply(key, state, learner, snapshot):
        batch = first(snapshot.batch, inputs)
        at_once = microbatch or fitting(snapshot.outputs, left_gb)
        loss = task_loss(network, objective, learner, batch, key)
        s = slq(hessian(loss, learner.variables.params, batch, at_once), steps, probes, key=key)
        found = summary(s)
        return state, {
            "sharpness": found.largest.value,
            "hessian_condition": found.condition_number.value,
            "hessian_effective_rank": found.effective_rank.value,
            "negative_curvature": found.negative_mass.value,
            "hessian_nodes": s.nodes,
            "hessian_weights": s.weights,
        }

    scalars = ("sharpness", "hessian_condition", "hessian_effective_rank", "negative_curvature")
    nodes = {"probe": range(probes), "node": range(steps)}
    dims = {name: {} for name in scalars} | {"hessian_nodes": nodes, "hessian_weights": nodes}
    return stateless(apply, dims)
