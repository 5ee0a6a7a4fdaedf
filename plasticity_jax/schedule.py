"""When something happens. The only file that writes `cond`.

`cond` on a predicate that differs by run becomes `select` under vmap: both branches run at every step. On the clock,
which is the same for all runs and never batched, it stays a branch. Events that differ by run go through `when_any`.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Intervention
from plasticity_jax.keys import named

__all__ = ["at_boundary", "chain", "every", "when", "when_any"]


def when(due, f, state, *args):
    """f(state, *args) where `due`, else `state`.

    Args:
      due: [] bool made of the clock alone, never of a run's state.
      f: (state, *args) -> state of the same structure, shapes and dtypes.
      state: any pytree.
      *args: what else f reads.
    """
    return jax.lax.cond(due, f, lambda state, *args: state, state, *args)


def when_any(due, f, state):
    """f(state) for the runs that are `due`; skipped altogether while no run of the block is.

    Args:
      due: [] bool that may differ by run.
      f: state -> state. It may close over nothing that differs by run: put that into `state`.
      state: any pytree.
    """

    @jax.custom_batching.custom_vmap
    def go(due, state):
        return jax.lax.cond(due, f, lambda state: state, state)

    @go.def_vmap
    def batched(size, axes, due, state):
        def spread(is_batched, leaf):
            return leaf if is_batched else jnp.broadcast_to(leaf, (size, *leaf.shape))

        due, state = spread(axes[0], due), jax.tree.map(spread, axes[1], state)

        def one(due, state):
            return due, jax.tree.map(lambda new, old: _select(due, new, old), f(state), state)

        # through when_any again, so that a second vmap keeps the branch as well
        _, state = when_any(jnp.any(due), lambda both: jax.vmap(one)(*both), (due, state))
        return state, jax.tree.map(lambda _: True, state)

    return go(due, state)


def _select(due, new, old):
    if jax.dtypes.issubdtype(old.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            jnp.where(due, jax.random.key_data(new), jax.random.key_data(old)), impl=jax.random.key_impl(old)
        )
    return jnp.where(due, new, old)


def every(period, inner):
    """`inner` with its update hook run at steps that are multiples of `period`, step 0 excepted."""
    if not isinstance(period, int) or period < 1:
        raise ValueError(f"every: period={period!r}, but it must be a whole number of steps, 1 or more.")

    def update(key, state, learner, snapshot):
        step = snapshot.clock.step

        def act(both, key, snapshot):
            return inner.update(key, *both, snapshot)

        return when((step > 0) & (step % period == 0), act, (state, learner), key, snapshot)

    return inner._replace(update=update)


def at_boundary(inner, period=1):
    """`inner` with its update hook moved to the boundary before every `period`-th task. No branch in the step."""
    check.whole("at_boundary: period", period)

    def boundary(key, state, learner, snapshot):
        def act(both, key, snapshot):
            return inner.update(key, *both, snapshot)

        return when(snapshot.clock.task % period == 0, act, (state, learner), key, snapshot)

    return inner._replace(update=Intervention().update, boundary=inner.update if period == 1 else boundary)


def chain(**parts):
    """Several interventions as one, in the order given; each has its own key and its own named state.

    Methods that mask parameters go last, so that nothing after them writes where the mask is 0.

    >>> chain().loss(None, {}, None, None)
    0.0
    """

    def each(key):
        return [(name, part, named(key, name)) for name, part in parts.items()]

    def init(key, learner, snapshot):
        states = {}
        for name, part, part_key in each(key):
            states[name], learner = part.init(part_key, learner, snapshot)
        return states, learner

    def loss(key, states, params, snapshot):
        if not parts:
            return 0.0
        return sum(part.loss(k, states[name], params, snapshot) for name, part, k in each(key))

    def gradients(key, states, gradients, learner, snapshot):
        for name, part, part_key in each(key) if parts else ():
            gradients = part.gradients(part_key, states[name], gradients, learner, snapshot)
        return gradients

    def walk(hook):
        def rewrite(key, states, learner, snapshot):
            new = {}
            for name, part, part_key in each(key) if parts else ():
                new[name], learner = getattr(part, hook)(part_key, states[name], learner, snapshot)
            return new, learner

        return rewrite

    return Intervention(init, loss, gradients, walk("update"), walk("boundary"))
