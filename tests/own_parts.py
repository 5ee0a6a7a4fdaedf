"""Parts as a user would write them, named in configurations as own_parts:NAME."""

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import tree
from plasticity_jax.base import Intervention

X, Y = np.zeros((6, 4, 4, 1), np.uint8), np.array([0, 1, 2, 0, 1, 2], np.int64)


def images(kind="right", count=6):
    """A loader of six images of three classes, or of something that is wrong."""
    part = {"x": X[:count], "y": Y[:count]}
    return {
        "right": {"train": part, "test": {"x": X[:2], "y": [4, 0]}, "more": "that no stream asks for"},
        "one part": {"train": part},
        "no dict": [part],
        "floats": {"train": {**part, "x": part["x"] / 255}, "test": part},
        "flat": {"train": {**part, "x": X.reshape(6, 16)}, "test": part},
        "labels": {"train": part, "test": {**part, "y": Y[:2]}},
        "negative": {"train": {**part, "y": Y - 1}, "test": part},
        "shares": {"train": {**part, "y": Y / 2}, "test": part},
        "sizes": {"train": part, "test": {**part, "x": np.zeros((6, 5, 4, 1), np.uint8)}},
    }[kind]


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
