import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from records import KEYED, assert_same, network

from plasticity_jax import tree
from plasticity_jax.base import Variables

A = {"w": jnp.array([[1.0, 2.0]]), "b": (jnp.array([3.0]),)}
B = {"w": jnp.array([[4.0, -1.0]]), "b": (jnp.array([0.5]),)}


def test_algebra():
    assert float(tree.dot(A, B)) == 4 - 2 + 1.5
    assert float(tree.norm(A)) == pytest.approx(14**0.5)
    assert_same(tree.axpy(2.0, A, B), {"w": jnp.array([[6.0, 3.0]]), "b": (jnp.array([6.5]),)})
    assert_same(tree.scale(2.0, A), tree.axpy(1.0, A, A))
    assert_same(tree.subtract(A, A), tree.scale(0.0, A))
    assert tree.size(A) == 3 and tree.size(jax.eval_shape(lambda: A)) == 3


def test_random_trees_have_independent_leaves():
    like = {"a": jnp.zeros(1000), "b": jnp.zeros(1000)}
    drawn = tree.random_like(KEYED, like)
    assert abs(np.corrcoef(drawn["a"], drawn["b"])[0, 1]) < 0.2
    assert 0.9 < float(drawn["a"].std()) < 1.1


def test_get_and_put_reach_through_records_dicts_and_tuples():
    variables = Variables({"fc0": {"kernel": 1}}, {"n": (2, 3)})
    assert tree.get(variables, ("params", "fc0", "kernel")) == 1
    assert tree.put(variables, ("stats", "n", 1), 9) == Variables({"fc0": {"kernel": 1}}, {"n": (2, 9)})
    assert variables.stats["n"] == (2, 3)  # the original is untouched


OPTIMIZERS = {
    "adam": (optax.adam(1e-2), 2),
    "momentum": (optax.sgd(1e-2, 0.9), 1),
    "rmsprop": (optax.rmsprop(1e-2), 1),
    "adamw": (optax.adamw(1e-2), 2),
    "chain": (optax.chain(optax.clip(1.0), optax.adam(1e-2)), 2),
    "injected": (optax.inject_hyperparams(optax.adam)(learning_rate=1e-2), 2),
    "masked": (optax.masked(optax.adam(1e-2), lambda p: jax.tree.map(lambda a: a.ndim > 1, p)), 2),
    "multi": (
        optax.multi_transform(
            {"a": optax.adam(1e-2), "b": optax.sgd(1e-2, 0.9)},
            lambda p: {k: jax.tree.map(lambda _: "a" if k == "head" else "b", v) for k, v in p.items()},  # noqa: B023
        ),
        None,
    ),
    "muon": (optax.contrib.muon(1e-2), None),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_are_reached_at_exactly_the_asked_entries(name):
    optimizer, copies = OPTIMIZERS[name]
    params = network().init(KEYED).params
    state = optimizer.init(params)
    _, state = optimizer.update(jax.tree.map(lambda p: jnp.ones_like(p), params), state, params)
    keep = jax.tree.map(jnp.ones_like, params)
    keep["head"]["kernel"] = keep["head"]["kernel"].at[2, 1].set(0.0)
    new = tree.moments(jnp.multiply, state, params, keep)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    changed = 0
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(new), strict=True):
        where = np.argwhere(np.asarray(a) != np.asarray(b)).tolist()
        assert where in ([], [[2, 1]])
        assert where == [] or float(b[2, 1]) == 0.0
        changed += bool(where)
    assert changed == copies if copies else changed >= 1
