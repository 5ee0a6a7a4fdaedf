"""Every contract of the library, and nothing else.

All records are NamedTuples of pure functions or of arrays. A function takes the key first, the state second, and
is written for one run; only `sweep.py` maps it over the run axis.

Letters: B examples of a batch, U units of a layer, T tokens, H and W positions, R runs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

__all__ = [
    "Array",
    "Clock",
    "Diagnostic",
    "DoesNotFit",
    "Experiment",
    "Intervention",
    "Learner",
    "Network",
    "Objective",
    "Outputs",
    "Programs",
    "PyTree",
    "Snapshot",
    "Stream",
    "TrainState",
    "Trainer",
    "Variables",
    "Wire",
]

Array = jax.Array
PyTree = Any


class Variables(NamedTuple):
    """What a network owns."""

    params: PyTree  # trained
    stats: PyTree  # not trained: running statistics, power-iteration vectors, frozen heads; {} for most networks


class Outputs(NamedTuple):
    """What a network returns for a batch. Hidden layers keep their units on the last axis."""

    y: Array  # [B, ...] what the objective reads
    acts: dict[str, Array]  # layer -> post-activation: [B, U], [B, T, U] or [B, H, W, U]
    preacts: dict[str, Array]  # layer -> what the non-linearity reads; where it makes c copies of each unit, acts
    #                            has c*U channels, copy after copy


class Wire(NamedTuple):
    """How one hidden layer is wired: all that surgery on units may rely on. Never the order of names."""

    layer: str  # key into Outputs.acts
    writes: tuple  # paths in Variables with one slice per unit on the LAST axis: kernel, bias, gain, running mean
    reads: tuple  # (path in Variables, copies): axis -2 holds `copies` blocks of the units (flatten H*W, crelu 2)


class Network(NamedTuple):
    """A network: its initial variables and its forward pass."""

    init: Callable  # (key) -> Variables
    apply: Callable  # (key, variables, x, train) -> (Outputs, stats)      train: a Python bool; key None: no dropout
    wiring: tuple = ()  # of Wire
    bounds: dict = {}  # layer -> (low, high) of its activation, for those that are bounded; never written  # noqa: RUF012


class Objective(NamedTuple):
    """A head bound to a problem."""

    loss: Callable  # (outputs, batch) -> [B]     the batch carries all it needs, bootstrapped targets included
    predict: Callable  # (outputs) -> [B, ...]    class scores, or the mean of a categorical head


class Clock(NamedTuple):
    """Where a run stands. Owned by the host, the same for all runs, never batched: `cond` on it survives vmap."""

    step: Array  # [] int32 optimizer steps since the beginning
    task: Array  # [] int32
    start: Array  # [] int32 `step` at which this task began


class Stream(NamedTuple):
    """A sequence of tasks. `data` is an argument, one copy for all runs."""

    init: Callable  # (key, data) -> state                 the first task
    advance: Callable  # (key, state, data) -> state       the next task
    sample: Callable  # (key, state, data, step) -> batch  step: since the task began
    evaluate: Callable  # (state, data, split) -> batch    fixed inputs of this task; split: one of `splits`
    steps: Callable  # (task) -> int                       length of a task; plain Python, the same for all runs
    outputs: int = 0  # classes or values to predict; 0: the classes of the data
    input_shape: tuple = ()  # of one input; (): that of the data's images
    splits: tuple = ("train", "test")  # what can be evaluated; some have a "validation" as well
    examples: int = 0  # training examples of the first task, where `evaluate` may fill up; 0: as many as it returns


class Learner(NamedTuple):
    """All that an intervention may rewrite."""

    variables: Variables
    opt_state: PyTree
    target: PyTree = ()  # the target network's Variables in value-based RL, () elsewhere


class DoesNotFit(ValueError):
    """What a diagnostic raises, when it is made or traced, where what it needs exceeds the memory that it is given."""


class Snapshot(NamedTuple):
    """All that hooks and diagnostics may read; filled in as a step proceeds."""

    clock: Clock
    initial: Variables  # kept once per run, in TrainState
    batch: dict  # "x" [B, ...], "y", "weight" [B], and whatever else the objective needs
    outputs: Outputs | None = None  # before the update
    loss: Array | None = None  # [] weighted mean of objective.loss, without penalties
    gradients: PyTree = None  # of loss + penalties, dense, BEFORE any gradients hook
    updates: PyTree = None  # what the optimizer made of them
    interventions: PyTree = ()  # name -> state, for diagnostics; () inside hooks


def _init(key, learner, snapshot):
    return (), learner


def _loss(key, state, params, snapshot):
    return 0.0


def _gradients(key, state, gradients, learner, snapshot):
    return gradients


def _rewrite(key, state, learner, snapshot):
    return state, learner


class Intervention(NamedTuple):
    """Anything done to keep plasticity: five hooks, each of which does nothing by default."""

    init: Callable = _init  # (key, learner, snapshot) -> (state, learner)   snapshot of a first batch: shapes are known
    loss: Callable = _loss  # (key, state, params, snapshot) -> scalar added to the training loss
    gradients: Callable = _gradients  # (key, state, gradients, learner, snapshot) -> gradients   before the optimizer
    update: Callable = _rewrite  # (key, state, learner, snapshot) -> (state, learner)   after the optimizer
    boundary: Callable = _rewrite  # (key, state, learner, snapshot) -> (state, learner)   before a task's first step


class Diagnostic(NamedTuple):
    """Anything measured at a boundary. It may not write."""

    init: Callable  # (key, learner, snapshot) -> state    key: for what is drawn once per run; at step 0
    apply: Callable  # (key, state, learner, snapshot) -> (state, {name: array})
    dims: dict  # name -> {dimension: labels} after (run, task): {}, {"layer": ("fc0", "fc1")}, {"node": range(64)}


class TrainState(NamedTuple):
    """Everything that a run owns, in supervised training and RL alike."""

    key: Array  # [] typed key of the run, constant for ever
    learner: Learner
    initial: Variables
    interventions: PyTree
    source: PyTree  # the stream's state; or environment and replay
    diverged: Array  # [] bool
    best: PyTree = ()  # (validation accuracy, Variables) of the best network of this task, with early stopping


def _same(state):
    return state


class Trainer(NamedTuple):
    """All that sweep.py knows of training."""

    init: Callable  # (key, data) -> TrainState, in its first task
    advance: Callable  # (state, data, clock) -> state     the boundary: next task, then the boundary hooks
    run_segment: Callable  # (state, data, clock) -> (state, {name: array})   one scan; dims (run, task, segment)
    snapshot: Callable  # (state, data, clock) -> Snapshot   in evaluation mode, for diagnostics
    steps: Callable  # (task) -> int
    finish: Callable = _same  # (state) -> state           what is measured at a task's end, and goes on into the next


class Experiment(NamedTuple):
    """What build.make(settings) returns; it is called INSIDE the traced function."""

    trainer: Trainer
    diagnostics: dict  # name -> Diagnostic


class Programs(NamedTuple):
    """The verbs of an experiment over [R] runs, compiled: what run.py knows. sweep.py makes them of make()."""

    init: Callable  # (settings, keys, data) -> states
    begin: Callable  # (settings, states, data) -> diagnostics' states, before the first step
    advance: Callable  # (settings, states, data, clock) -> states
    run_segment: Callable  # (settings, states, data, clock) -> (states, {name: [R, ...]})
    measure: Callable  # (settings, states, diagnostics, data, clock, names, subject) -> (diagnostics, {name: [R, ...]})
