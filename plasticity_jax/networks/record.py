"""From a flax module to the two functions of a Network."""

import jax.numpy as jnp

from plasticity_jax.base import Variables

__all__ = ["pure"]


def pure(module, input_shape):
    """(init, apply) of a Network whose forward pass is a flax module.

    Args:
      module: its `__call__(x, train)` returns Outputs. Collection "params" is trained; all else that it keeps (running
        statistics, vectors of a power iteration) is in "stats". It may draw from the random stream "dropout".
      input_shape: shape of one input.

    Returns:
      init(key) -> Variables; apply(key, variables, x, train) -> (Outputs, stats), with the stats as they were where
      `train` is False. With None for the key nothing is dropped in training.
    """

    def init(key):
        # the same parameters as for a whole batch, from one input: flax asks for an array of the input's shape
        made = module.init(key, jnp.zeros((1, *input_shape)), False)
        return Variables(made["params"], made.get("stats", {}))

    def apply(key, variables, x, train):
        collections = {"params": variables.params, "stats": variables.stats}
        if not train:
            return module.apply(collections, x, False), variables.stats
        rngs = {} if key is None else {"dropout": key}
        outputs, changed = module.apply(collections, x, True, rngs=rngs, mutable=["stats"])
        return outputs, changed.get("stats", variables.stats)

    return init, apply
