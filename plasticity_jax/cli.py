"""What the scripts share: flags, overrides, exit codes, the set-up of JAX before it first looks for devices."""

import ast
import copy
import importlib.util
import os
import pathlib
import sys

import jax
from absl import flags, logging
from ml_collections import config_flags

from plasticity_jax.host.environment import use_compilation_cache

__all__ = ["DONE", "FAILED", "PREEMPTED", "configuration", "define_flags", "exits", "override", "set_up", "variants"]

DONE, FAILED, PREEMPTED = 0, 1, 75


def define_flags():
    """--config FILE[:preset] with --config.path=value overrides, --workdir, --grid path=v1,v2 (repeatable)."""
    config_flags.DEFINE_config_file(
        "config", None, "Configuration file, FILE or FILE:preset.", lock_config=False, accept_new_attributes=True
    )
    flags.DEFINE_string("workdir", None, "Where results go. Resumed if it holds this configuration.")
    flags.DEFINE_multi_string("grid", [], "An axis of the grid, such as optimizer.learning_rate=1e-3,1e-4.")
    flags.mark_flags_as_required(["config", "workdir"])


def configuration():
    """The configuration that the flags describe, as a nested dict."""
    config = flags.FLAGS.config.to_dict()
    axes = [tuple(axis) for axis in config.get("grid", ())]
    for text in flags.FLAGS.grid:
        path, equals, values = text.partition("=")
        if not equals:
            raise ValueError(f"--grid {text!r} is not of the form path=value,value.")
        axes.append((path, tuple(_number(path, value) for value in values.split(","))))
    return {**config, "grid": tuple(axes)}


def variants(names=None):
    """Name -> overrides of the configuration file: all of them, or those named."""
    module = _module(config_flags.get_config_filename(flags.FLAGS["config"]))
    found = module.get_variants() if hasattr(module, "get_variants") else {"default": {}}
    for name in names or ():
        if name not in found:
            raise ValueError(f"There is no variant {name!r}. This file has: {', '.join(found)}.")
    return {name: found[name] for name in names or found}


def override(config, overrides):
    """A copy of a nested dict with {dotted path: value} set."""
    config = copy.deepcopy(dict(config))
    for path, value in overrides.items():
        *parents, last = path.split(".")
        node = config
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return config


def set_up(config):
    """Split CPUs into devices, one a core and at most one a run, and keep compiled programs. Call before any device."""
    runs = config.get("seeds", 8)
    for _, values in config.get("grid", ()):
        runs *= len(values)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    logging.set_verbosity(logging.WARNING)  # orbax tells every step of a save
    jax.config.update("jax_num_cpu_devices", max(1, min(cores, runs)))
    use_compilation_cache()


def exits(action):
    """Run action() -> "done" or "preempted" and leave with its exit code; a bad setting ends in one line, not a trace."""
    try:
        state = action()
    except (ValueError, OSError) as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(FAILED)
    sys.exit({"done": DONE, "preempted": PREEMPTED}[state])


def _number(path, text):
    try:
        return float(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError) as error:
        raise ValueError(f"--grid {path}: {text!r} is not a number.") from error


def _module(path):
    spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
