"""Whether a network's wiring tells the truth, by disturbing one unit at a time inside the forward pass."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from records import KEYED

from plasticity_jax import tree


def check_reads(network, x, last_part, unit=1):
    """A unit is read by its rows of each layer that its wire names, and by nothing else.

    last_part: layer -> name of the module that touches the layer's units last, one by one: its activation, or the norm
    after it.
    """
    variables = network.init(KEYED)
    plain = network.apply(KEYED, variables, x, False)[0]
    for wire in network.wiring:
        units = plain.preacts[wire.layer].shape[-1]

        def without(paths, units=units):
            return cut(variables, paths, units, unit)

        def is_noticed(variables, wire=wire, units=units):
            a = network.apply(KEYED, variables, x, False)[0].y
            with nn.intercept_methods(disturb(last_part(wire.layer), units, unit)):
                b = network.apply(KEYED, variables, x, False)[0].y
            return bool(jnp.abs(a - b).max() > 1e-4)

        assert is_noticed(variables), wire.layer
        assert not is_noticed(without(wire.reads)), f"{wire.layer}: somebody else reads it"
        for i, read in enumerate(wire.reads):
            others = wire.reads[:i] + wire.reads[i + 1 :]
            assert is_noticed(without(others)), f"{wire.layer}: {read} does not read it"


def cut(variables, reads, units, unit):
    """Variables in which no reader of this unit has weights for it."""
    for path, copies in reads:
        kernel = tree.get(variables, path)
        assert kernel.shape[-2] == copies * units, path
        rows = jnp.tile(jnp.arange(units) == unit, copies)[:, None]
        variables = tree.put(variables, path, jnp.where(rows, 0.0, kernel))
    return variables


def disturb(name, units, unit):
    """An interceptor that adds 1 to every copy of a unit where the module `name` returns it."""

    def interceptor(call, arguments, keywords, context):
        y = call(*arguments, **keywords)
        if context.module.name != name or context.method_name != "__call__":
            return y
        return y + (jnp.arange(y.shape[-1]) % units == unit)

    return interceptor


def check_writes(network, x, seen, mixes=lambda path: False, unit=1):
    """A change in one unit's slice of whatever its wire names is a change of this unit, and of no other one.

    seen: (captured module outputs, layer) -> the array [B, ..., c U] to look at. Where `mixes(path)`, other units may
    change as well, through a norm over them.
    """
    variables = network.init(KEYED)
    for wire in network.wiring:
        a, units = look(network, variables, x, seen, wire.layer)
        for path in wire.writes:
            leaf = tree.get(variables, path)
            assert leaf.shape[-1] == units, path
            # not a constant: that would vanish in weights that are centred, and after inputs that are
            changed_leaf = leaf + 0.5 * jax.random.normal(KEYED, leaf.shape)
            other = tree.put(variables, path, jnp.where(jnp.arange(units) == unit, changed_leaf, leaf))
            b, _ = look(network, other, x, seen, wire.layer)
            changed = set(np.flatnonzero(np.abs(a - b).reshape(-1, units).max(0) > 1e-5).tolist())
            assert unit in changed if mixes(path) else changed == {unit}, (path, changed)


def look(network, variables, x, seen, layer):
    """(what `seen` picks, number of units)."""
    captured = {}

    def interceptor(call, arguments, keywords, context):
        y = call(*arguments, **keywords)
        captured[context.module.name] = y
        return y

    with nn.intercept_methods(interceptor):
        outputs = network.apply(KEYED, variables, x, False)[0]
    return np.asarray(seen(captured, layer)), outputs.preacts[layer].shape[-1]
