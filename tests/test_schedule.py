import jax
import jax.numpy as jnp
import pytest
from records import assert_same, clock, learner_and_snapshot

from plasticity_jax.base import Intervention
from plasticity_jax.keys import Purpose, for_seeds, for_step
from plasticity_jax.schedule import at_boundary, chain, every, when, when_any

KEY = jax.random.key(0)


def count_conds(jaxpr):
    found = 0
    for equation in jaxpr.eqns:
        found += equation.primitive.name == "cond"
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    found += count_conds(inner)
    return found


def counter():
    return Intervention(
        init=lambda key, learner, snapshot: (jnp.int32(0), learner),
        update=lambda key, state, learner, snapshot: (state + 1, learner),
    )


@pytest.mark.parametrize("period", [1, 2, 7])
def test_every_counts_right_over_ten_periods(period):
    learner, snapshot = learner_and_snapshot(KEY)
    member = every(period, counter())

    def step(state, now):
        state, _ = member.update(KEY, state, learner, snapshot._replace(clock=clock()._replace(step=now)))
        return state, state

    _, counts = jax.lax.scan(step, jnp.int32(0), jnp.arange(10 * period + 1))
    assert counts.tolist() == [now // period for now in range(10 * period + 1)]  # none at step 0


@pytest.mark.parametrize("period", [0, -1, 2.0])
def test_every_refuses_other_periods(period):
    with pytest.raises(ValueError, match="whole number of steps"):
        every(period, counter())


def test_at_boundary_moves_the_hook():
    learner, snapshot = learner_and_snapshot(KEY)
    member = at_boundary(counter())
    assert int(member.update(KEY, jnp.int32(0), learner, snapshot)[0]) == 0
    assert int(member.boundary(KEY, jnp.int32(0), learner, snapshot)[0]) == 1


def test_at_boundary_counts_tasks():
    learner, snapshot = learner_and_snapshot(KEY)
    member, counts = at_boundary(counter(), 3), jnp.int32(0)
    for task in range(1, 8):
        now = snapshot._replace(clock=clock(10 * task, task, 10 * task))
        counts, _ = member.boundary(KEY, counts, learner, now)
    assert int(counts) == 2  # before tasks 3 and 6, counted from 0


def test_a_branch_on_the_clock_survives_vmap():
    def f(state, step):
        return when(step > 2, lambda s: jnp.sin(s), state)

    mapped = jax.make_jaxpr(jax.vmap(f, in_axes=(0, None)))(jnp.ones(4), jnp.int32(1))
    assert count_conds(mapped.jaxpr) == 1
    assert jax.vmap(f, in_axes=(0, None))(jnp.ones(2), jnp.int32(1)).tolist() == [1.0, 1.0]


def test_when_any_acts_only_where_due_and_keeps_its_branch_under_nested_vmap():
    def f(due, state):
        return when_any(due, lambda s: {"a": s["a"] + 1, "key": jax.random.fold_in(s["key"], 1)}, state)

    due = jnp.array([[True, False], [False, False]])
    state = {"a": jnp.zeros((2, 2)), "key": for_seeds([1, 2, 3, 4]).reshape(2, 2)}
    new = jax.jit(jax.vmap(jax.vmap(f)))(due, state)
    assert new["a"].tolist() == [[1.0, 0.0], [0.0, 0.0]]
    moved = jax.random.key_data(new["key"]) != jax.random.key_data(state["key"])
    assert moved.any(-1).tolist() == due.tolist()
    assert count_conds(jax.make_jaxpr(jax.vmap(jax.vmap(f)))(due, state).jaxpr) >= 1


def test_chain_gives_each_part_its_own_state_and_key():
    def noisy():
        return Intervention(
            init=lambda key, learner, snapshot: (jax.random.normal(key), learner),
            loss=lambda key, state, params, snapshot: state,
            gradients=lambda key, state, gradients, learner, snapshot: jax.tree.map(lambda g: g + state, gradients),
            update=lambda key, state, learner, snapshot: (jax.random.normal(key), learner),
        )

    learner, snapshot = learner_and_snapshot(KEY)
    both, alone = chain(a=noisy(), b=noisy()), chain(b=noisy())
    states, _ = both.init(KEY, learner, snapshot)
    assert states["a"] != states["b"]
    assert float(both.loss(KEY, states, None, snapshot)) == pytest.approx(float(states["a"] + states["b"]))
    later, _ = both.update(for_step(KEY, Purpose.UPDATE, 3), states, learner, snapshot)
    assert later["a"] != states["a"]
    assert alone.init(KEY, learner, snapshot)[0]["b"] == states["b"]  # another part changes no draw of this one
    shifted = both.gradients(KEY, states, snapshot.gradients, learner, snapshot)
    difference = jax.tree.leaves(shifted)[0] - jax.tree.leaves(snapshot.gradients)[0]
    assert difference.ravel()[0] == pytest.approx(float(states["a"] + states["b"]), abs=1e-5)


def test_no_part_at_all_does_nothing():
    learner, snapshot = learner_and_snapshot(KEY)
    nothing = chain()
    assert nothing.init(KEY, learner, snapshot) == ({}, learner)
    assert nothing.gradients(KEY, {}, snapshot.gradients, learner, snapshot) is snapshot.gradients
    assert_same(nothing.update(KEY, {}, learner, snapshot)[1], learner)


def test_keys_differ_by_purpose_step_and_seed():
    keys = [for_step(key, purpose, step) for key in for_seeds([0, 1]) for purpose in Purpose for step in range(3)]
    data = {tuple(jax.random.key_data(key).tolist()) for key in keys}
    assert len(data) == len(keys) == 2 * len(Purpose) * 3
    assert len({int(p) for p in Purpose}) == len(Purpose)


def test_the_implementation_of_keys_is_pinned():
    with jax.default_prng_impl("rbg"):
        assert str(jax.random.key_impl(for_seeds([0])[0])) == "threefry2x32"
