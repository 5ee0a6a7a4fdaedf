"""The loss along straight lines through the parameters: along the gradient and the top eigenvectors of the Hessian.

Letters: k eigenvectors, P points of a line.
"""

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import check, tree
from plasticity_jax.curvature.data import average
from plasticity_jax.curvature.eigen import eigenpairs
from plasticity_jax.curvature.matrices import hessian
from plasticity_jax.diagnostics.shared import first, require_memory, stateless, task_loss
from plasticity_jax.parts import fitting

__all__ = ["landscape"]

TOLERANCE = 1e-2  # residual of an eigenvector, relative to its eigenvalue: a line needs no more


def landscape(
    network, objective, memory_gb, directions: int = 2, radius: float = 0.1, points: int = 21, inputs: int = 2048
):
    """The mean loss at theta + r ||theta|| v for unit vectors v and distances r between -radius and radius.

      loss_along_gradient      v the gradient over its length: positive r is uphill, negative r is descent     [P]
      loss_along_eigenvectors  v the eigenvectors of the k largest eigenvalues of the Hessian                  [k, P]

    Loss, gradient and Hessian are those of the task on the first inputs, in evaluation mode and without penalties.
    Distances are relative to the norm of all parameters, since that is the scale on which a step changes a network
    whose norm has grown. An eigenvector's sign, which is free, is the one that does not point downhill. NaN where the
    gradient is 0, and for an eigenvector that did not converge.

    Args:
      network: Network.
      objective: Objective.
      memory_gb: gigabytes for activations, and as much for some 6 k + 60 vectors like the parameters.
      directions: k.
      radius: largest distance, in units of ||theta||.
      points: P, odd, so that r = 0 is among them.
      inputs: the first so many of the evaluation inputs.

    Returns:
      A Diagnostic with one metric of dimension distance and one of direction and distance, whose labels are r. Off by
      default. It costs one gradient, (1 + k) P forward passes, and the Hessian products of k eigenpairs, 20 to 100.

    Raises:
      ValueError: a setting below 1, an even number of points, a radius that is not positive or an axis of the grid,
        more directions than memory_gb holds vectors.

    Lines along random directions, scaled filter by filter: Li et al. 2018 (arXiv 1712.09913).
    """
    for name, value in (("directions", directions), ("points", points), ("inputs", inputs)):
        check.whole(f"landscape.{name}", value)
    check.fixed("landscape.radius", radius)
    check.positive("landscape.radius", radius)
    if points % 2 == 0:
        raise ValueError(f"landscape.points={points}, but it must be odd, so that distance 0 is one of them.")
    params = jax.eval_shape(lambda: network.init(jax.random.key(0))).params
    left_gb = require_memory("landscape.directions", 3 * (2 * directions + 20), params, memory_gb)
    distances = tuple(np.linspace(-radius, radius, points).round(9).tolist())

    def apply(key, state, learner, snapshot):
        params, batch = learner.variables.params, first(snapshot.batch, inputs)
        loss = task_loss(network, objective, learner, batch, key)
        at_once = fitting(snapshot.outputs, left_gb)
        gradient = average(lambda part, start: jax.grad(loss)(params, part), batch, at_once)
        curved = hessian(loss, params, batch, at_once)
        found = eigenpairs(curved, directions, tol=TOLERANCE, key=key, ncv=2 * directions + 20, multiplicity=False)
        vectors = jax.vmap(lambda v: tree.scale(jnp.where(tree.dot(v, gradient) < 0, -1.0, 1.0), v))(found.vectors)

        def along(direction):
            step = tree.norm(params) / tree.norm(direction)

            def at(distance):
                moved = tree.axpy(distance * step, direction, params)
                return average(lambda part, start: loss(moved, part), batch, at_once)

            return jax.lax.map(at, jnp.array(distances))

        lines = jax.lax.map(along, jax.tree.map(lambda g, v: jnp.concatenate([g[None], v]), gradient, vectors))
        return state, {
            "loss_along_gradient": lines[0],
            "loss_along_eigenvectors": jnp.where(found.converged[:, None], lines[1:], jnp.nan),
        }

    dims = {"loss_along_gradient": {"distance": distances}}
    dims["loss_along_eigenvectors"] = {"direction": range(directions), "distance": distances}
    return stateless(apply, dims)
