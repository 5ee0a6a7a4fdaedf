"""The order of events: run segments, measure at the boundary, write the numbers, save a checkpoint, next task."""

import contextlib
import functools
import json
import logging
import pathlib
import time
from typing import NamedTuple

import jax
import numpy as np

from plasticity_jax import check, tree
from plasticity_jax import sweep as runs
from plasticity_jax.base import Clock, Programs
from plasticity_jax.build import build, classes_of, complete, config_hash, spec_of
from plasticity_jax.host import data as host_data
from plasticity_jax.host import environment, folder, log
from plasticity_jax.host.checkpoint import Checkpoints, parse_keep
from plasticity_jax.host.interrupts import interrupts
from plasticity_jax.host.progress import Progress
from plasticity_jax.host.results import Results
from plasticity_jax.host.status import Status
from plasticity_jax.keys import for_seeds
from plasticity_jax.measuring import Measuring, check_declared
from plasticity_jax.online import online_dims

__all__ = ["Job", "first_states", "load_data", "prepare", "remembered", "run", "sweep"]


class Job(NamedTuple):
    """A plan on its devices, ready to run."""

    plan: tuple  # build.Plan
    programs: Programs
    mesh: jax.sharding.Mesh
    settings: dict  # dotted path -> [R], on the mesh
    keys: jax.Array  # [R]
    data: dict  # one copy on each device
    runs_per_batch: int


def run(config, workdir, name=None, progress_stream=None):
    """Train all runs of one variant, or go on where an earlier call stopped.

    Args:
      config: a configuration; see `build.DEFAULTS`.
      workdir: results folder of the variant. Created, or resumed if it holds this very configuration.
      name: what to call it on the progress bar; by default the folder's name.
      progress_stream: where progress is written; stderr by default.

    Returns:
      "done", or "preempted" if SIGTERM or SIGINT came: then everything is saved, and the same call goes on.

    Raises:
      ValueError: a bad configuration, missing or damaged data, a folder of other results or in use. Nothing was
        compiled or written then, but for the lock of a folder in use.
    """
    workdir, (plan, arrays) = pathlib.Path(workdir), _understood(config)
    with interrupts() as asked_to_stop:
        return _run(plan, lambda: _traced(plan, arrays, workdir), workdir, name, progress_stream, asked_to_stop)


def sweep(variants, workdir):
    """Train variants one after the other, each in its own folder.

    All are checked first, and training is traced: what is wrong with the last shows before the first is trained.

    Args:
      variants: name -> configuration.
      workdir: their folders are made in it, beside `sweep.json`, which names them in order.

    Returns:
      "done", or "preempted" where a signal came.
    """
    workdir, load, plans, first = pathlib.Path(workdir), _keeping(load_data), {}, {}
    folder.check_sweep(workdir)
    for name, config in variants.items():
        plan, arrays = _understood(config, load)
        plans[name] = plan
        folder.check_configuration(workdir / name, _identity(plan))
        if _status(workdir / name, plan).is_done:
            continue
        if first:
            _trace(_one_run(plan, arrays))
        else:  # as it will be run, so that it need not be traced twice
            first[name] = _traced(plan, arrays, workdir / name)
    with folder.claim(workdir), folder.explained(workdir), interrupts() as asked_to_stop:
        known = (folder.read_json(workdir / "sweep.json") or {"variants": []})["variants"]
        names = [*known, *(name for name in variants if name not in known)]
        folder.write_json(workdir / "sweep.json", {"variants": names})
        for name, config in variants.items():
            if asked_to_stop():
                return "preempted"
            place, plan = workdir / name, plans[name]
            anew = functools.partial(_traced, plan, load(config).arrays, place)
            traced = functools.partial(first.pop, name) if name in first else anew
            if _run(plan, traced, place, name, None, asked_to_stop) == "preempted":
                return "preempted"
    return "done"


def load_data(config):
    """The data set that a configuration names, or a ValueError for settings that its loader does not know."""
    block = complete({"data": config["data"]} if "data" in config else {})["data"]
    name, place = block.pop("name"), block.pop("dir")
    if ":" not in str(name):
        check.known("data.name", name, host_data.NAMES)
    if not isinstance(place, str):
        raise ValueError(f"data.dir={place!r}, but it must be the name of a folder.")
    return host_data.load(name, place or None, **block)


def _keeping(load):
    """`load` of a configuration's data, which keeps what it loaded last: the variants of a sweep mostly share it."""
    kept = {}

    def load_or_take(config):
        block = json.dumps(complete({"data": config["data"]} if "data" in config else {})["data"], sort_keys=True)
        if block not in kept:
            kept.clear()  # before the next is loaded: there may not be room for both
            kept[block] = load(config)
        return kept[block]

    return load_or_take


def _understood(config, load=load_data):
    """(Plan, arrays of the data) of a configuration; whatever can be refused is refused here, with nothing written."""
    dataset = load(config)
    plan = build(config, spec_of(dataset.arrays, dataset.classes))
    parse_keep(plan.config["checkpoint"]["keep"])
    log.check(plan.config["log"])
    runs.runs_mesh(len(plan.seeds), plan.config["parallel"]["devices"])
    for name, period in plan.every.items():
        if period > len(plan.lengths):
            logging.warning("diagnostics.%s.every=%d measures nothing in %d tasks.", name, period, len(plan.lengths))
    segments = max(plan.lengths) // plan.segment_steps
    for name, period in plan.every_segments.items():
        if period > segments:
            told = "diagnostics.%s.every_segments=%d measures nothing inside tasks of at most %d segments."
            logging.warning(told, name, period, segments)
    return plan, dataset.arrays


def _identity(plan):
    return {"hash": config_hash(plan.config), "config": plan.config}


def _status(workdir, plan):
    return Status(workdir, len(plan.lengths), len(plan.seeds))


def _traced(plan, arrays, workdir):
    """(job, dimensions of its results), once its programs are traced: what is wrong with them shows before all else."""
    job = prepare(plan, arrays, remembered(workdir))
    return job, _dims(job)


def _run(plan, traced, workdir, name, progress_stream, asked_to_stop):
    """What `run` does with a configuration that is understood."""
    folder.check_configuration(workdir, _identity(plan))
    if _status(workdir, plan).is_done:
        return "done"
    job, dims = traced()
    with folder.claim(workdir):
        folder.same_configuration(workdir, _identity(plan))
        status = _status(workdir, plan)
        try:
            with folder.explained(workdir), contextlib.closing(_Session(job, dims, workdir, status)) as session:
                if not session.is_done:
                    _record_environment(workdir, job)
                    session.train(name or workdir.name, progress_stream, asked_to_stop)
                state = "done" if session.is_done else "preempted"
                session.report(state)
        except BaseException as error:
            with contextlib.suppress(OSError):  # a full disk must not hide what went wrong
                status.write("failed", error=f"{type(error).__name__}: {error}")
            raise
    return state


def prepare(plan, arrays, runs_per_batch=None):
    """Put a plan on the devices of this process.

    Args:
      plan: build.Plan.
      arrays: {"train": {"x", "y"}, "test": {...}} of numpy arrays.
      runs_per_batch: as resolved by an earlier session; by default resolved here.

    Returns:
      Job.
    """
    parallel = plan.config["parallel"]
    mesh = runs.runs_mesh(len(plan.seeds), parallel["devices"])
    settings = {path: values.astype(np.float32) for path, values in plan.settings.items()}
    settings, keys = runs.place(mesh, (settings, for_seeds(plan.seeds)))
    data = runs.replicate(mesh, arrays)

    if runs_per_batch and parallel["runs_per_batch"] not in (0, runs_per_batch):
        logging.warning("parallel.runs_per_batch stays %d, as it was when these results were begun.", runs_per_batch)
    bytes_per_run = functools.partial(_bytes_per_run, plan, arrays)
    size = runs_per_batch or runs.batch_size(parallel["runs_per_batch"], len(plan.seeds), mesh, bytes_per_run)
    return Job(plan, runs.programs(plan.make, mesh, size), mesh, settings, keys, data, size)


def _one_run(plan, arrays):
    """The job of a plan's first run alone, with the data where they are: to be traced."""
    mesh = runs.runs_mesh(1, 1)
    settings = {path: values[:1].astype(np.float32) for path, values in plan.settings.items()}
    return Job(plan, runs.programs(plan.make, mesh), mesh, settings, for_seeds(plan.seeds[:1]), arrays, 1)


def _bytes_per_run(plan, arrays):
    """What training takes for each run: its state and what a segment works with, without the data that all share."""
    job = _one_run(plan, arrays)
    states = jax.eval_shape(job.programs.init, job.settings, job.keys, job.data)
    compiled = job.programs.run_segment.lower(job.settings, states, job.data, _clock(0, 0, 0)).compile()
    memory = compiled.memory_analysis()
    return memory.temp_size_in_bytes + sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(states)) if memory else 0


class _Session:
    """One process's part of a run: the states on the devices, and where they are written."""

    def __init__(self, job, dims, workdir, status):
        self.job, self.plan, self.status = job, job.plan, status
        self.ends, self.online, self.measured = np.cumsum(job.plan.lengths), [], {}
        self.results = Results(
            workdir / "metrics.zarr", dims, {"seed": self.plan.seeds, **self.plan.settings}, len(self.ends)
        )
        boundaries = {int(end): task + 1 for task, end in enumerate(self.ends)}
        self.checkpoints = Checkpoints(workdir / "checkpoints", self.plan.config["checkpoint"]["keep"], boundaries)
        self.measuring = Measuring(job, workdir / "costs.json")
        self.saved_at = time.monotonic()
        self._restore()
        self.write_log, self.close_log = log.open_writers(self.plan.config["log"], workdir, self.plan.config)

    def _restore(self):
        """The newest checkpoint, or the beginning; numbers that are ahead of it are taken back."""
        job = self.job
        found = self.checkpoints.restore(_content(*first_states(job), _clock(0, 0, 0)))
        if found is None and self.status.task:
            raise folder.FolderError(
                f"{self.results.path.parent} has numbers of {self.status.task} tasks but no checkpoint to go on from: "
                "restore its checkpoints, or choose another --workdir. Nothing was changed."
            )
        if found is None:
            self.step = 0
            self.states = job.programs.init(job.settings, job.keys, job.data)
            self.diagnostics = self.measuring.begin(self.states)
        else:
            self.step, content = found
            self.states, self.diagnostics = runs.place(job.mesh, (content["train"], content["diagnostics"]))
        self.task = int(np.searchsorted(self.ends, self.step, side="right"))
        if self.task < len(self.ends):
            self.results.clear_after(self.task, (self.step - self.start) // self.plan.segment_steps)

    @property
    def is_done(self):
        return self.task == len(self.ends)

    @property
    def start(self):
        """The step at which the task under way began."""
        return int(self.ends[self.task - 1]) if self.task else 0

    @property
    def clock(self):
        return _clock(self.step, self.task, self.start)

    def train(self, name, progress_stream, asked_to_stop):
        """Train to the end, or until asked to stop; then everything is saved."""
        self.report("running")
        progress = Progress(name, int(self.ends[-1]), self.step, len(self.plan.seeds), progress_stream)
        with contextlib.closing(progress):
            self._train(progress, asked_to_stop)

    def _train(self, progress, asked_to_stop):
        while not self.is_done and not asked_to_stop():
            if self.step == self.start and self.task:
                self.states = self.job.programs.advance(self.job.settings, self.states, self.job.data, self.clock)
            while self.step < self.ends[self.task]:
                self._segment(progress)
                self._measure()
                stopping = asked_to_stop()  # asked once: a signal that comes now must find the next save
                if self.step < self.ends[self.task] and (stopping or self._is_late()):
                    self._save()
                    if stopping:
                        return
            self._boundary()

    def _segment(self, progress):
        job, began = self.job, time.perf_counter()
        self.states, online = job.programs.run_segment(job.settings, self.states, job.data, self.clock)
        online = jax.device_get(online)
        self.measuring.trained(time.perf_counter() - began)
        self.results.write(self.task, online, segment=(self.step - self.start) // self.plan.segment_steps)
        self.online.append(online)
        self.step += self.plan.segment_steps
        progress.advance(self.plan.segment_steps, f"task {self.task + 1} of {len(self.ends)}")

    def _measure(self):
        """What is due after the segment that has just been trained."""
        segment = (self.step - self.start) // self.plan.segment_steps - 1
        for name in self.measuring.due(self.task, segment):
            self.diagnostics[name], found = self.measuring.measure(name, self.states, self.diagnostics, self.clock)
            inside = self.plan.every_segments[name] > 0
            self.results.write(self.task, found, segment=segment if inside else None)
            self.measured |= found

    def _boundary(self):
        """Write the numbers of a task that has ended, then the checkpoint: it is never ahead of them."""
        metrics = {**self.measured, "diverged": jax.device_get(self.states.diverged)}
        self.results.write(self.task, {"diverged": metrics["diverged"]})
        self.write_log(self.step, {**jax.tree.map(_mean, *self.online), **metrics})
        self._save()
        self.task, self.online, self.measured = self.task + 1, [], {}
        self.report("running")

    def report(self, state):
        """Bring status.json up to date."""
        diverged = np.flatnonzero(jax.device_get(self.states.diverged)).tolist()
        self.status.write(state, task=self.task, diverged=diverged)

    def _is_late(self):
        return time.monotonic() - self.saved_at > 60 * self.plan.config["checkpoint"]["minutes"]

    def _save(self):
        self.checkpoints.save(self.step, _content(self.states, self.diagnostics, self.clock))
        self.measuring.save()
        self.saved_at = time.monotonic()

    def close(self):
        self.close_log()
        self.checkpoints.close()


def _mean(*segments):
    """The mean over segments, of those that have a number: nothing is looked at in some."""
    counts = np.isfinite(segments).sum(0)
    return np.where(counts, np.nansum(segments, 0) / np.maximum(counts, 1), np.nan)


def _content(states, diagnostics, clock):
    return {"train": states, "diagnostics": diagnostics, "clock": clock}


def _clock(step, task, start):
    return Clock(np.int32(step), np.int32(task), np.int32(start))


def _dims(job):
    """Name -> {dimension: labels} of every array of the results; shapes come from the programs themselves."""
    plan = job.plan
    segments = max(plan.lengths) // plan.segment_steps
    states, memory = _trace(job)
    dims = online_dims(segments, plan.config["online"]["parts"])
    point = {path: float(values[0]) for path, values in plan.settings.items()}
    for name, diagnostic in plan.make(point).diagnostics.items():
        given = (job.settings, states, {name: memory[name]}, job.data, _clock(0, 0, 0), (name,))
        check_declared(name, diagnostic.dims, job.programs.measure.trace(*given).out_info[1])
        inside = {"segment": segments} if plan.every_segments[name] else {}
        dims |= {metric: {**inside, **own} for metric, own in diagnostic.dims.items()}
    return {**dims, "diverged": {}}


def _trace(job):
    """`first_states`, once all of training is traced as it will be called, so that it need not be done again."""
    states, memory = first_states(job)
    job.programs.run_segment.trace(job.settings, states, job.data, _clock(0, 0, 0))
    if len(job.plan.lengths) > 1:
        job.programs.advance.trace(job.settings, states, job.data, _clock(0, 0, 0))
    return states, memory


def first_states(job):
    """Shapes of the first states of the runs, and of the diagnostics."""
    states = runs.placed(job.mesh, job.programs.init.trace(job.settings, job.keys, job.data).out_info)
    return states, runs.placed(job.mesh, job.programs.begin.trace(job.settings, states, job.data).out_info)


def remembered(workdir):
    """How many runs an earlier session vmapped together, which a later one must keep for the same bits; or None."""
    return (folder.read_json(workdir / "environment.json") or {}).get("runs_per_batch")


def _record_environment(workdir, job):
    """environment.json: the first session's, and a short line for each that resumed."""
    path, now = workdir / "environment.json", environment.describe()
    found = folder.read_json(path)
    if found is None:
        params = first_states(job)[0].learner.variables.params
        layers = {name: size // len(job.plan.seeds) for name, size in tree.size_by_layer(params).items()}
        facts = {"parameters": sum(layers.values()), "layers": layers, "classes": classes_of(job.plan)}
        found = {**now, "runs_per_batch": job.runs_per_batch, **facts, "resumed": []}
    else:
        found["resumed"].append({name: now[name] for name in ("time", "commit", "versions", "devices")})
    folder.write_json(path, found)
