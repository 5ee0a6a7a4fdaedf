"""The contract of a Wire, as one check: what a unit writes reaches its readers and nobody else."""

import jax
import jax.numpy as jnp
import numpy as np
from records import assert_close

from plasticity_jax import tree


def assert_wired(network, variables, x, key):
    """Cut unit 0 of each layer out of its readers: what writes it no longer matters; of each but one: it does."""
    order = []
    forward = jax.jit(lambda v: (order.append(outputs := network.apply(key, v, x, False)[0]), outputs)[1])
    shapes = forward(variables).preacts  # jit sorts names; `order` has them as they were made
    assert [wire.layer for wire in network.wiring] == list(order[0].acts) == list(order[0].preacts)
    for wire in network.wiring:
        units = shapes[wire.layer].shape[-1]
        assert all(tree.get(variables, path).shape[-1] == units for path in wire.writes)
        written = _written(variables, wire)
        a, b = (forward(_cut(v, wire.reads, units)) for v in (variables, written))
        assert_close(a.y, b.y)
        change = np.abs(a.preacts[wire.layer] - b.preacts[wire.layer]).reshape(-1, units)
        assert np.flatnonzero(change.max(0) > 1e-3).tolist() == [0], wire.layer
        for reader in wire.reads:
            others = [read for read in wire.reads if read is not reader]
            a, b = (forward(_cut(v, others, units)) for v in (variables, written))
            assert np.abs(a.y - b.y).max() > 1e-6, f"{wire.layer} is not read by {reader}"


def _cut(variables, reads, units):
    """The variables, in which these readers do not read unit 0."""
    for path, copies in reads:
        kernel = tree.get(variables, path)
        assert kernel.shape[-2] == copies * units
        rows = jnp.tile(jnp.arange(units) == 0, copies)[:, None]
        variables = tree.put(variables, path, jnp.where(rows, 0.0, kernel))
    return variables


def _written(variables, wire):
    """The variables, in which all that writes unit 0 has changed."""
    for path in wire.writes:
        leaf = tree.get(variables, path)
        variables = tree.put(variables, path, leaf.at[..., 0].add(1.0))
    return variables
