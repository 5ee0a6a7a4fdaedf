"""The only file that knows the run axis: which device holds which runs, how many are vmapped, what is donated.

Runs are split evenly over a mesh of devices; on each device blocks of `runs_per_batch` runs are vmapped together and
the blocks follow one another. Measuring takes smaller blocks where it would not fit in memory otherwise. The state of
all runs stays in one buffer that each block updates in place.
"""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from plasticity_jax.base import Clock, DoesNotFit, Programs
from plasticity_jax.keys import Purpose, for_step, named

__all__ = ["as_many_as_fit", "batch_size", "place", "placed", "programs", "replicate", "runs_mesh"]

MEMORY_SHARE = 0.6  # of an accelerator's memory, for the runs that are trained at once


def runs_mesh(runs, devices=0):
    """A mesh of at most `devices` devices (0: all of them), and never of more devices than runs."""
    available = jax.devices()
    if devices > len(available):
        raise ValueError(f"parallel.devices={devices}, but there are {len(available)}: choose at most that, or 0.")
    count = min(devices or len(available), runs)
    return Mesh(np.array(available[:count]), ("run",))


def place(mesh, states):
    """Put [R, ...] leaves on the mesh, run by run where the runs divide evenly, else a copy on each device."""
    return jax.tree.map(lambda leaf: jax.device_put(leaf, _layout(mesh, leaf)), states)


def placed(mesh, shapes):
    """The shapes of what `place` returns, layout included, from shapes alone."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=_layout(mesh, x)), shapes)


def _layout(mesh, leaf):
    even = leaf.shape[0] % mesh.size == 0
    return NamedSharding(mesh, PartitionSpec("run") if even else PartitionSpec())


def replicate(mesh, data):
    """One copy of the data on each device."""
    return jax.device_put(data, NamedSharding(mesh, PartitionSpec()))


def programs(make, mesh, runs_per_batch=1):
    """The verbs of an experiment, compiled for [R] runs.

    Args:
      make: (settings, at_once) -> Experiment, called inside the traced functions; `at_once` runs share the memory.
      mesh: from `runs_mesh`.
      runs_per_batch: how many runs are vmapped together. Other numbers round differently. `begin` and `measure` take
        the largest divisor of it for which no diagnostic raises DoesNotFit; for one run it goes to the caller.

    Returns:
      Programs. `begin` is one of its own, so that the first states have the same bits whatever is measured. States are
      donated to `advance` and `run_segment`. `measure` takes the names of the diagnostics to apply and `subject`, a
      function TrainState -> TrainState that says whose learner is measured; both are static.
    """
    over = functools.partial(_over_runs, mesh=mesh, runs_per_batch=runs_per_batch)

    @jax.jit
    def init(settings, keys, data):
        def one(at_once, settings, _, key, data):
            return (), make(settings, at_once).trainer.init(key, data)

        return over(one)(settings, (), keys, data)[1]

    @functools.partial(jax.jit, donate_argnums=1)
    def advance(settings, states, data, clock):
        def one(at_once, settings, state, _, data, clock):
            return make(settings, at_once).trainer.advance(state, data, clock), ()

        return over(one)(settings, states, (), data, clock)[0]

    @functools.partial(jax.jit, donate_argnums=1)
    def run_segment(settings, states, data, clock):
        def one(at_once, settings, state, _, data, clock):
            return make(settings, at_once).trainer.run_segment(state, data, clock)

        return over(one)(settings, states, (), data, clock)

    begin, measure = _measuring(make, functools.partial(over, may_shrink=True))
    return Programs(init, begin, advance, run_segment, measure)


def _measuring(make, over):
    """`begin` and `measure` of `programs`."""

    @functools.partial(jax.jit, static_argnums=(0, 5))  # a program within theirs: it is traced once for all diagnostics
    def seen(at_once, settings, state, data, clock, subject):
        trainer = make(settings, at_once).trainer
        state = subject(trainer.finish(state))
        return state, trainer.snapshot(state, data, clock)

    @jax.jit
    def begin(settings, states, data):
        def one(at_once, settings, _, state, data):
            state, snapshot = seen(at_once, settings, state, data, _start(), _itself)
            key, memory = for_step(state.key, Purpose.DIAGNOSTIC_INIT), {}
            for name, diagnostic in make(settings, at_once).diagnostics.items():
                memory[name] = diagnostic.init(named(key, name), state.learner, snapshot)
            return (), memory

        return over(one)(settings, (), states, data)[1]

    @functools.partial(jax.jit, static_argnums=(5, 6))
    def measure(settings, states, diagnostics, data, clock, names, subject=_itself):
        def one(at_once, settings, memory, state, data, clock):
            state, snapshot = seen(at_once, settings, state, data, clock, subject)
            key, metrics = for_step(state.key, Purpose.DIAGNOSTIC, clock.step), {}
            for name in names:
                apply = make(settings, at_once).diagnostics[name].apply
                memory[name], found = apply(named(key, name), memory[name], state.learner, snapshot)
                metrics |= found
            return memory, metrics

        return over(one)(settings, diagnostics, states, data, clock)

    return begin, measure


def _itself(state):
    return state


def batch_size(wanted, runs, mesh, bytes_per_run):
    """How many runs to vmap together: `wanted`, or where it is 0 what suits the backend and its memory.

    On CPUs one run at a time: side by side, the runs push each other out of the cache. Elsewhere as many as memory
    holds, split evenly.

    Args:
      wanted: the setting `parallel.runs_per_batch`.
      runs: R.
      mesh: from `runs_mesh`.
      bytes_per_run: function () -> bytes that training one run needs; asked only where it matters.
    """
    local = -(-runs // mesh.size)
    device = mesh.devices.flat[0]
    if wanted or device.platform == "cpu":
        return min(wanted or 1, local)
    limit = (device.memory_stats() or {}).get("bytes_limit")
    most = local if limit is None else max(1, min(local, int(MEMORY_SHARE * limit / max(bytes_per_run(), 1))))
    return -(-local // -(-local // most))


def as_many_as_fit(attempt, most):
    """attempt(n) for the largest divisor n of `most` for which it does not raise DoesNotFit; n = 1 may raise.

    >>> as_many_as_fit(lambda n: n, most=6)
    6
    """
    for n in range(most, 1, -1):
        if most % n == 0:
            with contextlib.suppress(DoesNotFit):
                return attempt(n)
    return attempt(1)


def _start():
    return Clock(jnp.int32(0), jnp.int32(0), jnp.int32(0))


def _over_runs(one, *, mesh, runs_per_batch, may_shrink=False):
    """Map one(at_once, settings, state, extra, *rest) -> (state, out) over the runs; `rest` is the same for all.

    With `may_shrink`, fewer runs are vmapped together where more raise DoesNotFit.
    """

    def blocks_of(size, settings, states, extra, *rest):
        runs = jax.tree.leaves((states, extra))[0].shape[0]
        settings, states, extra = jax.tree.map(lambda a: _pad(a, mesh.size * size), (settings, states, extra))
        block = functools.partial(_blocks, functools.partial(one, size), size)
        split, whole = PartitionSpec("run"), PartitionSpec()
        sharded = jax.shard_map(
            block,
            mesh=mesh,
            in_specs=(split, split, split) + (whole,) * len(rest),
            out_specs=split,
            check_vma=False,  # with the check, shard_map refuses the first `cond`
        )
        results = sharded(settings, states, extra, *rest)
        return results if runs % (mesh.size * size) == 0 else jax.tree.map(lambda a: a[:runs], results)

    def mapped(settings, states, extra, *rest):
        runs = jax.tree.leaves((states, extra))[0].shape[0]
        most = min(runs_per_batch, -(-runs // mesh.size))

        def attempt(size):
            return blocks_of(size, settings, states, extra, *rest)

        return as_many_as_fit(attempt, most) if may_shrink else attempt(most)

    return mapped


def _pad(leaf, multiple):
    """Repeat the last run until the runs divide evenly; no copy where they already do."""
    missing = -leaf.shape[0] % multiple
    return leaf if not missing else jnp.concatenate([leaf, jnp.repeat(leaf[-1:], missing, axis=0)])


def _blocks(one, size, settings, states, extra, *rest):
    """Blocks of `size` runs, one after another, each updating its part of the states in place."""
    runs = jax.tree.leaves((states, extra))[0].shape[0]

    def step(settings, state, extra):
        return one(settings, state, extra, *rest)

    def body(states, block):
        if size == 1:
            read, write = jax.lax.dynamic_index_in_dim, jax.lax.dynamic_update_index_in_dim
            read = functools.partial(read, keepdims=False)
        else:
            read = functools.partial(jax.lax.dynamic_slice_in_dim, slice_size=size)
            write = jax.lax.dynamic_update_slice_in_dim
        inputs = jax.tree.map(lambda a: read(a, block * size, axis=0), (settings, states, extra))
        new, out = (step if size == 1 else jax.vmap(step))(*inputs)
        return jax.tree.map(lambda a, b: write(a, b, block * size, axis=0), states, new), out

    states, out = jax.lax.scan(body, states, jnp.arange(runs // size))
    return states, out if size == 1 else jax.tree.map(lambda a: a.reshape(runs, *a.shape[2:]), out)
