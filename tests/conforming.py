"""What is asked of every member of a registry, whatever its kind."""

import chex
import jax
import pytest
from records import assert_close, assert_same

from plasticity_jax.host.checkpoint import Checkpoints


def two_keys():
    return jax.random.split(jax.random.key(3), 2)


def lane(stacked, i):
    return jax.tree.map(lambda leaf: leaf[i], stacked)


def conforms(f, tolerance=1e-5, inputs=None):
    """jit equals eager, vmap equals a loop, and a second call does not trace again; inputs: two, stacked, or keys."""
    inputs, traces = two_keys() if inputs is None else inputs, []

    def counted(one):
        traces.append(1)
        return f(one)

    jitted = jax.jit(counted)
    a, b = (lane(inputs, i) for i in range(2))
    one, two = jitted(a), jitted(b)
    assert len(traces) == 1
    assert_close(one, f(a), tolerance)
    many = jax.jit(jax.vmap(f))(inputs)
    for i, single in enumerate((one, two)):
        assert_close(lane(many, i), single, tolerance)


def survives_a_checkpoint(tmp_path, tree):
    stacked = jax.tree.map(lambda a: a[None], {"tree": tree})
    checkpoints = Checkpoints(tmp_path / "checkpoints", "all", {})
    checkpoints.save(1, stacked)
    step, back = checkpoints.restore(jax.eval_shape(lambda: stacked))
    checkpoints.close()
    assert step == 1
    assert_same(stacked, back)


def keeps_structure(old, new):
    chex.assert_trees_all_equal_shapes_and_dtypes(old, new)
    weak = [[jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(tree)] for tree in (old, new)]
    assert weak[0] == weak[1]  # else a second program is traced
    assert jax.tree.structure(old) == jax.tree.structure(new)


def slowly(names, *slow):
    """The names, of which some take long to compile and are left to `make test-all`."""
    return [pytest.param(name, marks=pytest.mark.slow if name in slow else ()) for name in names]
