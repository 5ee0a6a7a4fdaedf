"""Parts as a user would write them, named in configurations as own_parts:NAME."""

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.base import Intervention


def noisy(network, strength: float = 0.1):
    """Touches every hook: pulls towards the initial weights, shrinks gradients, adds noise, and counts its updates."""
    del network

    def init(key, learner, snapshot):
        return {"count": jnp.int32(0)}, learner

    def loss(key, state, params, snapshot):
        away = tree.subtract(params, snapshot.initial.params)
        return 0.5 * strength * tree.dot(away, away)

    def gradients(key, state, gradients, learner, snapshot):
        return jax.tree.map(lambda g: g - strength * g, gradients)

    def update(key, state, learner, snapshot):
        noise = tree.random_like(key, learner.variables.params)
        params = jax.tree.map(lambda p, e: p + strength * e, learner.variables.params, noise)
        return {"count": state["count"] + 1}, learner._replace(variables=learner.variables._replace(params=params))

    return Intervention(init, loss, gradients, update)
