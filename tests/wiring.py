"""Whether a network's wiring tells the truth, by disturbing one unit at a time inside the forward pass."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from records import KEYED

from plasticity_jax import tree

UNIT = 1  # the one that is disturbed


def check_wiring(network, x, last_part, mixes=lambda path: False):
    """Every unit is read by its rows of the layers that its wire names, and written by its slices of the leaves there.

    Args:
      network: a Network made by flax.
      x: [B, ...].
      last_part: layer -> name of the module that touches the layer's units last, one by one: its activation, or the
        norm after it.
      mixes: path of a leaf that is written -> whether a norm carries its changes to other units of the layer, too.
    """
    variables = jax.jit(network.init)(KEYED)
    parts = [last_part(wire.layer) for wire in network.wiring]
    sizes = [tree.get(variables, wire.writes[0]).shape[-1] for wire in network.wiring]
    none = np.zeros(len(parts), np.float32)

    @jax.jit
    def forward(variables, amounts):
        """(outputs, what each last part returns) with this amount added to the unit in every layer."""
        captured = {}

        def interceptor(call, arguments, keywords, context):
            y, name = call(*arguments, **keywords), context.module.name
            if name in parts and context.method_name == "__call__":
                i = parts.index(name)
                captured[name] = y = y + amounts[i] * (jnp.arange(y.shape[-1]) % sizes[i] == UNIT)
            return y

        with nn.intercept_methods(interceptor):
            outputs = network.apply(KEYED, variables, x, False)[0]
        return outputs.y, [captured[part] for part in parts]

    for i, wire in enumerate(network.wiring):
        check_reads(forward, variables, wire, sizes[i], none, np.eye(len(parts), dtype=np.float32)[i])
        check_writes(lambda v, i=i: forward(v, none)[1][i], variables, wire, sizes[i], mixes)


def check_reads(forward, variables, wire, units, none, one):
    def is_noticed_without(reads):
        left = cut(variables, reads, units)
        return bool(jnp.abs(forward(left, none)[0] - forward(left, one)[0]).max() > 1e-4)

    assert is_noticed_without(()), wire.layer
    assert not is_noticed_without(wire.reads), f"{wire.layer}: somebody else reads it"
    for i, read in enumerate(wire.reads):
        assert is_noticed_without(wire.reads[:i] + wire.reads[i + 1 :]), f"{wire.layer}: {read} does not read it"


def check_writes(look, variables, wire, units, mixes):
    before = look(variables)
    for path in wire.writes:
        leaf = tree.get(variables, path)
        assert leaf.shape[-1] == units, path
        # not a constant: that would vanish in weights that are centred, and after inputs that are
        changed_leaf = leaf + 0.5 * jax.random.normal(KEYED, leaf.shape)
        after = look(tree.put(variables, path, jnp.where(jnp.arange(units) == UNIT, changed_leaf, leaf)))
        difference = np.abs(after - before).reshape(-1, units).max(0)
        changed = set(np.flatnonzero(difference > 1e-5).tolist())
        assert UNIT in changed if mixes(path) else changed == {UNIT}, (path, changed)


def cut(variables, reads, units):
    """Variables in which no reader of the unit has weights for it."""
    for path, copies in reads:
        kernel = tree.get(variables, path)
        assert kernel.shape[-2] == copies * units, path
        rows = jnp.tile(jnp.arange(units) == UNIT, copies)[:, None]
        variables = tree.put(variables, path, jnp.where(rows, 0.0, kernel))
    return variables
