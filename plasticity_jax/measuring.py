"""Measuring: which diagnostics are due, each in a compiled program of its own, and what they cost."""

import time

import jax

from plasticity_jax import sweep as runs
from plasticity_jax.flops import matrix_flops
from plasticity_jax.host import folder

__all__ = ["Measuring", "check_declared"]


def check_declared(name, dims, metrics):
    """ValueError where a diagnostic does not report the metrics that it declares, in the shapes that it declares.

    Args:
      name: of the diagnostic.
      dims: {metric: {dimension: labels, or their number}}.
      metrics: {metric: shape of [R, ...]}.
    """
    sizes = {m: tuple(n if isinstance(n, int) else len(n) for n in own.values()) for m, own in dims.items()}
    found = {metric: value.shape[1:] for metric, value in metrics.items()}
    if found != sizes:
        said = {m: (found.get(m, "nothing"), sizes.get(m, "nothing")) for m in sorted({*found, *sizes})}
        told = "; ".join(f"{m!r} is {is_} and declared {was}" for m, (is_, was) in said.items() if is_ != was)
        raise ValueError(
            f"diagnostics.{name} does not report what its dims declare: {told}. These are shapes of one run."
        )


class Measuring:
    """The diagnostics of one variant.

    Args:
      job: run.Job.
      path: costs.json, which is brought up to date by `save`:
        {diagnostic: {"seconds": of all its measurements, without compiling; "measurements": their number;
        "gflop": of matrix products, of one measurement of all runs; see flops.py}}, under "before training" the same
        of what diagnostics do once, such as the fits of a probe's fresh networks, and under "training" the number of
        "segments" and the "seconds" of those that were "timed".
    """

    def __init__(self, job, path):
        self._job, self._path, self._programs, self._compiled = job, path, {}, False
        self._costs = folder.read_json(path) or {}

    def due(self, task, segment):
        """Names of the diagnostics to measure after this segment of this task."""
        plan = self._job.plan
        last = segment == plan.lengths[task] // plan.segment_steps - 1
        names = [name for name, period in plan.every.items() if (task + 1) % period == 0]
        inside = plan.every_segments
        return [name for name in names if last or (inside[name] and (segment + 1) % inside[name] == 0)]

    def begin(self, states):
        """The first memories of all diagnostics."""
        job = self._job
        given = (job.settings, runs.place(job.mesh, states), job.data)
        return self._timed("before training", job.programs.begin.trace(*given), given)

    def measure(self, name, states, memory, clock):
        """(the diagnostic's new memory, {metric: [R, ...]}), both from the memories of all diagnostics."""
        job = self._job
        given = runs.place(job.mesh, (states, {name: memory[name]}))  # the same layout always: it is part of a program
        given = (job.settings, *given, job.data, clock)
        traced = None if name in self._programs else job.programs.measure.trace(*given, (name,))
        new, metrics = self._timed(name, traced, given)
        return new[name], jax.device_get(metrics)

    def _timed(self, name, traced, given):
        """Call a program, which is compiled the first time, and count what it costs."""
        if name not in self._programs:
            self._programs[name] = traced.lower().compile()
            cost = self._costs.setdefault(name, {"seconds": 0.0, "measurements": 0})
            cost["gflop"] = matrix_flops(traced.jaxpr) / 1e9
        jax.block_until_ready(given)  # the first states may still be under way
        began = time.perf_counter()
        found = jax.block_until_ready(self._programs[name](*given))
        self._costs[name]["seconds"] += time.perf_counter() - began
        self._costs[name]["measurements"] += 1
        return found

    def trained(self, seconds):
        """Count a segment of training; the time of a process's first one, which compiles, is left out."""
        training = self._costs.setdefault("training", {"seconds": 0.0, "timed": 0, "segments": 0})
        training["segments"] += 1
        if self._compiled:
            training["seconds"] += seconds
            training["timed"] += 1
        self._compiled = True

    def save(self):
        """Write costs.json."""
        folder.write_json(self._path, self._costs)
