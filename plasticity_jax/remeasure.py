"""Measure the states of a checkpoint again, with other diagnostics or other settings; nothing is trained or written."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import run
from plasticity_jax import sweep as runs
from plasticity_jax.base import Clock
from plasticity_jax.build import build, spec_of
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.host import folder
from plasticity_jax.host.checkpoint import Checkpoints

__all__ = ["remeasure"]


def remeasure(workdir, diagnostics, task=None):
    """Metrics of all runs at the end of a task, or before training.

    Args:
      workdir: folder of one variant, such as results/x/plain.
      diagnostics: {name: settings}, as in a configuration.
      task: number of the task from 0; None: the newest that is kept; -1: before training, on the data of task 0.

    Returns:
      (task, {metric: array [R, ...]}).

    Raises:
      FolderError: no results there, or no checkpoint of that task; the message names those that are kept.
      ValueError: an unknown diagnostic or setting.
    """
    workdir = pathlib.Path(workdir)
    found = folder.read_json(workdir / "config.json")
    if found is None:
        raise folder.FolderError(
            f"{workdir} holds no config.json: name the folder of one variant, such as results/x/plain."
        )
    given = dict(found["config"])
    dataset = run.load_data(given)
    spec = spec_of(dataset.arrays, dataset.classes)
    off = {name: {"every": 0} for name in DIAGNOSTICS}  # what is not named is a default, and some are on by default
    wanted = {name: {**settings, "every": 1} for name, settings in diagnostics.items()}
    trained = build({**given, "diagnostics": {**off, **given["diagnostics"]}}, spec)
    plan = build({**given, "diagnostics": {**off, **wanted}}, spec)
    job = run.prepare(plan, dataset.arrays, run.remembered(workdir))
    states = job.programs.init(job.settings, job.keys, job.data)
    memory = job.programs.begin(job.settings, states, job.data)
    clock = Clock(jnp.int32(0), jnp.int32(0), jnp.int32(0))
    if task != -1:
        programs = runs.programs(trained.make, job.mesh, job.runs_per_batch)
        task, states = _restored(workdir, job._replace(plan=trained, programs=programs), task)
        states = runs.place(job.mesh, states)
        end = sum(plan.lengths[: task + 1])
        clock = Clock(jnp.int32(end), jnp.int32(task), jnp.int32(end - plan.lengths[task]))
    _, metrics = job.programs.measure(job.settings, states, memory, job.data, clock, tuple(diagnostics))
    return task, jax.device_get(metrics)


def _restored(workdir, job, task):
    """(task, states of all runs at its end); the job is the one that was trained."""
    plan, ends = job.plan, np.cumsum(job.plan.lengths).tolist()
    boundaries = {end: index + 1 for index, end in enumerate(ends)}
    checkpoints = Checkpoints(workdir / "checkpoints", plan.config["checkpoint"]["keep"], boundaries)
    kept = [boundaries[step] - 1 for step in checkpoints.steps() if step in boundaries]
    if task is None and kept:
        task = max(kept)
    if task not in kept:
        raise folder.FolderError(
            f"{workdir} has no checkpoint at the end of task {task}, counted from 0; it has those of the tasks {kept}. "
            "To keep all, train with --config.checkpoint.keep=all."
        )
    states, memory = run.first_states(job)
    clock = Clock(jnp.int32(0), jnp.int32(0), jnp.int32(0))
    like = {"train": states, "diagnostics": memory, "clock": clock}
    _, content = checkpoints.restore(like, ends[task])
    checkpoints.close()
    return task, content["train"]
