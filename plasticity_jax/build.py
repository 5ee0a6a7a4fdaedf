"""From a configuration to records: the only reader of names.

A block of the configuration names a factory and its settings; the factory's signature is the schema. Parameters
without a default are records that build passes (network, objective, stream, ...), the others are settings, and their
annotations are their types.
"""

import collections
import copy
import hashlib
import inspect
import itertools
import json
import math
import typing
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np

from plasticity_jax import check
from plasticity_jax.base import Experiment
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.early_stopping import check_segments
from plasticity_jax.interventions import INTERVENTIONS
from plasticity_jax.networks import HEADS, NETWORKS
from plasticity_jax.optimizers import OPTIMIZERS, SCHEDULES, Horizon, scheduled
from plasticity_jax.schedule import at_boundary, chain, every
from plasticity_jax.streams import STREAMS
from plasticity_jax.streams.recurring import recurring
from plasticity_jax.train import supervised

__all__ = ["COSTLY", "DEFAULTS", "Plan", "build", "classes_of", "complete"]

# diagnostics that are measured only where a configuration asks for them; `forgetting` because few streams allow it
COSTLY = ("spectrum", "gradient_covariance", "ntk", "landscape", "probe", "probe_offset", "probe_labels", "forgetting")
DEFAULTS = {
    "seeds": 8,
    "first_seed": 0,
    "tasks": 10,
    "memory_gb": 1.0,  # what measuring may take on each device, beside the states: it works in parts for it
    "early_stopping": False,  # the best network of a task on its validation images goes on, scored every segment
    "segment_steps": 0,  # optimizer steps of one compiled segment; 0: the longest that divides every task, <= 10,000
    "data": {"name": "digits", "dir": ""},
    "stream": {"name": "random_labels"},
    "network": {"name": "mlp"},
    "head": {"name": "softmax"},
    "optimizer": {"name": "adam"},
    "schedule": {"name": "constant"},
    "interventions": {},
    "diagnostics": {name: {"every": 0} if name in COSTLY else {} for name in DIAGNOSTICS},
    "grid": (),
    "parallel": {"runs_per_batch": 0, "devices": 0},
    "online": {"parts": 10, "plasticity_every": 100},
    "checkpoint": {"keep": "newest:2", "minutes": 10.0},
    "log": {"tensorboard": False, "wandb": ""},
}
REGISTRIES = {
    "stream": STREAMS,
    "network": NETWORKS,
    "head": HEADS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "interventions": INTERVENTIONS,
    "diagnostics": DIAGNOSTICS,
}
NOT_DIAGNOSTICS = ("before training", "training")  # whose costs measuring.py writes
LONGEST_SEGMENT = 10_000
UNSWEPT = ("checkpoint", "data", "log", "memory_gb", "parallel")


class Plan(NamedTuple):
    """A configuration, understood."""

    config: dict  # resolved: every setting of every factory, as plain Python values
    make: Callable  # (settings, at_once=1) -> Experiment, which shares the memory with so many runs vmapped with it
    spec: dict  # shapes of the data, and the number of classes
    seeds: np.ndarray  # [R] int
    settings: dict  # dotted path -> [R] float64, one value per run; float32 on the device
    lengths: tuple  # optimizer steps of each task
    segment_steps: int
    every: dict  # diagnostic -> measured after each so many tasks
    every_segments: dict  # diagnostic -> and inside these tasks after each so many segments; 0: at their ends only


def build(config, spec):
    """Turn a configuration into a Plan, and check all of it before anything is compiled.

    Args:
      config: nested dict or ConfigDict; what it leaves out is taken from DEFAULTS and the factories' signatures.
      spec: shapes of the data: {"train": {"x", "y"}, "test": {...}} of jax.ShapeDtypeStruct, and "classes".

    Returns:
      Plan.

    Raises:
      ValueError: an unknown, misspelt or unused key, a wrong type, a value out of range, at any point of the grid.
    """
    config = complete(config)
    axes = _grid(config)
    points = [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
    runs = [(seed, point) for point in points for seed in range(config["seeds"])]

    def make(settings, at_once=1):
        return _experiment(_with_settings(config, settings), spec, config["memory_gb"] / at_once)

    for point in points:
        experiment = make(point)
        _check_names(dict(experiment.diagnostics))  # which makes them
    lengths = tuple(experiment.trainer.steps(task) for task in range(config["tasks"]))
    segment_steps = _segment_steps(config["segment_steps"], lengths)
    if config["early_stopping"]:
        check_segments(lengths, segment_steps)
    return Plan(
        config,
        make,
        spec,
        np.array([config["first_seed"] + seed for seed, _ in runs]),
        {path: np.array([point[path] for _, point in runs]) for path in axes},
        lengths,
        segment_steps,
        *({name: block[key] for name, block in config["diagnostics"].items()} for key in ("every", "every_segments")),
    )


def complete(config):
    """The configuration with every default filled in and every key and type checked, as a plain nested dict."""
    given = _plain(config)
    _same_keys("", given, DEFAULTS)
    full = {key: copy.deepcopy(default) for key, default in DEFAULTS.items()} | given
    for key, default in DEFAULTS.items():
        if isinstance(default, dict) and not isinstance(full[key], dict):
            raise ValueError(f"{key}={full[key]!r}, but it must be a block of settings such as {default}.")
        if key in ("interventions", "diagnostics"):
            blocks = {**default, **full[key]}  # what is given is added to the defaults; `every: 0` takes one out
            blocks = {name: _component(f"{key}.{name}", key, block, name) for name, block in blocks.items()}
            full[key] = {name: block for name, block in blocks.items() if block["every"]}
        elif key in REGISTRIES:
            full[key] = _component(key, key, full[key], default["name"])
        elif key == "data":
            full[key] = {**default, **full[key]}
        elif isinstance(default, dict):
            _same_keys(key, full[key], default)
            full[key] = {**default, **full[key]}
            for name, value in full[key].items():
                full[key][name] = check.typed(f"{key}.{name}", value, type(default[name]))
        else:
            full[key] = check.typed(key, full[key], type(default))
    _check_counts(full)
    return full


def _check_counts(config):
    for key in ("seeds", "tasks"):
        check.whole(key, config[key])
    for key in ("first_seed", "segment_steps"):
        check.whole(key, config[key], low=0)
    check.between("first_seed + seeds", config["first_seed"] + config["seeds"], 1, 2**32)
    check.whole("online.parts", config["online"]["parts"])
    check.whole("online.plasticity_every", config["online"]["plasticity_every"], low=0)
    for key in ("runs_per_batch", "devices"):
        check.whole(f"parallel.{key}", config["parallel"][key], low=0)
    check.positive("memory_gb", config["memory_gb"])
    check.positive("checkpoint.minutes", config["checkpoint"]["minutes"])


def _plain(value):
    """A ConfigDict (which refuses tracers) or a dict as a plain nested dict; lists become tuples."""
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return tuple(_plain(item) for item in value) if isinstance(value, (list, tuple)) else value


def _same_keys(path, given, allowed, owner=""):
    for key in given:
        if key not in allowed:
            name, of = f"{path}.{key}" if path else key, f" of {owner}" if owner else ""
            near = check.nearest(key, allowed)
            raise ValueError(f"{name} is not a setting{of}.{near} Allowed: {', '.join(allowed)}.")


def _component(path, kind, block, default_name):
    """One block: its factory's settings filled in and checked. `every`, `at`, `cycle` belong to build, not to it."""
    if not isinstance(block, dict):
        raise ValueError(f"{path}={block!r}, but it must be a block of settings such as {{'name': {default_name!r}}}.")
    own = {"name": default_name}
    if kind == "stream":
        own["cycle"] = 0  # after so many tasks the first one comes back; 0: never
    if kind == "diagnostics":
        own |= {"every": 1, "every_segments": 0}
    if kind == "interventions":
        own |= {"every": 1, "at": "step"}
    block = {**own, **block}
    factory = resolve(f"{path}.name", block["name"], REGISTRIES[kind])
    hints = typing.get_type_hints(factory)
    settings = {
        name: parameter.default
        for name, parameter in inspect.signature(factory).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    _same_keys(path, block, {**own, **settings}, block["name"])
    full = {**own, **settings, **block}
    for name in settings:
        full[name] = check.typed(f"{path}.{name}", full[name], hints.get(name, type(settings[name])))
    if "every" in own:
        check.whole(f"{path}.every", full["every"], low=0 if kind == "diagnostics" else 1)
    if "every_segments" in own:
        check.whole(f"{path}.every_segments", full["every_segments"], low=0)
    if "cycle" in own:
        check.whole(f"{path}.cycle", full["cycle"], low=0)
    if "at" in own:
        check.known(f"{path}.at", full["at"], ("step", "boundary"))
    return full


def resolve(path, name, registry):
    """A factory by its name in a registry, or by `package.module:factory`."""
    if not isinstance(name, str):
        raise ValueError(f"{path}={name!r}, but it must be a name.")
    if ":" not in name:
        check.known(path, name, registry)
        return registry[name]
    return check.imported(path, name)


def _grid(config):
    """The axes of the grid: dotted path -> tuple of floats."""
    axes = {}
    for axis in config["grid"]:
        if not isinstance(axis, tuple) or len(axis) != 2 or not isinstance(axis[0], str):
            raise ValueError(f"grid: {axis!r} is not a pair of a dotted path and its values.")
        path, values = axis[0], axis[1] if isinstance(axis[1], tuple) else (axis[1],)
        if path.partition(".")[0] in UNSWEPT:
            raise ValueError(f"grid: {path} changes no number of a run, so it cannot be an axis.")
        current = _at(config, path)
        if not isinstance(current, float):
            kind = type(current).__name__
            raise ValueError(f"grid: {path} is of type {kind}; only float settings can be an axis. Use variants.")
        if path in axes or not values:
            raise ValueError(f"grid: {path} is given {'twice' if path in axes else 'no values'}.")
        axes[path] = tuple(check.typed(f"grid: {path}", value, float) for value in values)
        if len(set(np.float32(axes[path]))) < len(values):
            raise ValueError(f"grid: {path} repeats a value in {values}; every run must differ.")
    return axes


def _at(config, path):
    node, walked = config, []
    for part in path.split("."):
        if not isinstance(node, dict) or part not in node:
            here = ".".join(walked) or "the configuration"
            allowed = node if isinstance(node, dict) else ()
            raise ValueError(f"grid: {path} is not a setting: {here} has no {part!r}.{check.nearest(part, allowed)}")
        node = node[part]
        walked.append(part)
    return node


def _with_settings(config, settings):
    """A copy of the configuration with these values at these paths; they may be tracers."""
    config = copy.deepcopy(config)
    for path, value in settings.items():
        *parents, last = path.split(".")
        node = config
        for part in parents:
            node = node[part]
        node[last] = value
    return config


def _experiment(config, spec, memory_gb):
    """All records of one run, each made from its block and from the records before it."""
    stream = _stream(config, spec)
    spec = {**spec, "classes": stream.outputs or spec["classes"]}  # what is predicted is for the stream to say
    input_shape = stream.input_shape or spec["train"]["x"].shape[1:]
    offered = {"spec": spec, "stream": stream, "input_shape": input_shape, "memory_gb": memory_gb}
    offered["horizon"] = Horizon(config["tasks"], stream.steps)
    head = _call("head", config["head"], offered)
    offered |= {"head": head, "outputs": head.outputs, "objective": head.objective}
    offered["network"] = _call("network", config["network"], offered)
    factor = _call("schedule", config["schedule"], offered)
    offered["optimizer"] = scheduled(_call("optimizer", config["optimizer"], offered), factor)
    parts = {name: _intervention(block, offered) for name, block in config["interventions"].items()}
    offered["intervention"] = chain(**parts)
    lengths = tuple(stream.steps(task) for task in range(config["tasks"]))
    trainer = supervised(
        offered["network"],
        offered["objective"],
        stream,
        offered["optimizer"],
        _segment_steps(config["segment_steps"], lengths),
        offered["intervention"],
        early_stopping=config["early_stopping"],
        memory_gb=memory_gb,
        **config["online"],
    )
    return Experiment(trainer, _Diagnostics(config["diagnostics"], offered))


def _stream(config, spec):
    stream, cycle = _call("stream", config["stream"], {"spec": spec}), config["stream"]["cycle"]
    return recurring(stream, cycle) if cycle else stream


def classes_of(plan):
    """How many classes a guess has, or None where tasks differ in that: their batches say which classes exist."""
    stream, data = _stream(plan.config, plan.spec), {part: plan.spec[part] for part in ("train", "test")}
    state = jax.eval_shape(stream.init, jax.random.key(0), data)
    batch = jax.eval_shape(lambda state, data: stream.evaluate(state, data, "train"), state, data)
    return None if "classes" in batch else stream.outputs or plan.spec["classes"]


class _Diagnostics(Mapping):
    """Name -> Diagnostic, each made when it is asked for: the program of one does not need the others."""

    def __init__(self, blocks, offered):
        self._blocks, self._offered = blocks, offered

    def __getitem__(self, name):
        return _call("diagnostics", self._blocks[name], self._offered)

    def __iter__(self):
        return iter(self._blocks)

    def __len__(self):
        return len(self._blocks)


def _intervention(block, offered):
    inner = _call("interventions", block, offered)
    if block["at"] == "boundary":
        return at_boundary(inner, block["every"])
    return inner if block["every"] == 1 else every(block["every"], inner)


def _call(kind, block, offered):
    factory = resolve(kind, block["name"], REGISTRIES[kind])
    arguments = {}
    for name, parameter in inspect.signature(factory).parameters.items():
        if parameter.default is not inspect.Parameter.empty:
            arguments[name] = block[name]
        elif name in offered:
            arguments[name] = offered[name]
        else:
            raise ValueError(f"{kind} {block['name']!r} asks for {name!r}, but build offers {', '.join(offered)}.")
    try:
        return factory(**arguments)
    except ValueError as error:  # which may not say whose setting it is about
        raise type(error)(f"{kind} {block['name']}: {error}") from error


def _check_names(diagnostics):
    for name in set(NOT_DIAGNOSTICS) & set(diagnostics):
        raise ValueError(f"diagnostics.{name}: costs.json names the costs of something else so. Choose another name.")
    owners = collections.defaultdict(list)
    for name, diagnostic in diagnostics.items():
        for metric in diagnostic.dims:
            owners[metric].append(name)
    for metric, names in owners.items():
        if len(names) > 1:
            raise ValueError(f"The metric {metric!r} is reported by {' and '.join(names)}: leave out one of them.")


def _segment_steps(wanted, lengths):
    common = math.gcd(*lengths)
    if wanted:
        if common % wanted:
            raise ValueError(f"segment_steps={wanted} does not divide every task; use a divisor of {common}.")
        return wanted
    longest = max(d for d in range(1, min(common, LONGEST_SEGMENT) + 1) if common % d == 0)
    return longest if 20 * longest >= common else common  # a task of 10,007 steps is one segment, not 10,007


def config_hash(config):
    """The identity of a configuration: 12 hex digits of the SHA-256 of all that may change a number.

    What is saved, shown, and on how many devices, and where the data lie, may differ on resume.
    """
    identity = {key: value for key, value in config.items() if key not in UNSWEPT or key == "data"}
    identity["data"] = {key: value for key, value in config["data"].items() if key != "dir"}
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def spec_of(arrays, classes):
    """Shapes of a data set: what factories may know of it."""
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), arrays)
    return {**shapes, "classes": classes}
