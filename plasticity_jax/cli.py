"""What the scripts share: flags, overrides, exit codes, the set-up of JAX before it first looks for devices."""

import ast
import contextlib
import copy
import importlib.util
import math
import os
import pathlib
import re
import sys
from logging import Formatter

import jax
from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from plasticity_jax.host.environment import use_compilation_cache

__all__ = [
    "DONE",
    "FAILED",
    "PREEMPTED",
    "configuration",
    "define_flags",
    "exits",
    "override",
    "parse_flags",
    "set_up",
    "variants",
]

DONE, FAILED, PREEMPTED = 0, 1, 75
_ENDS = {
    "done": (DONE, "done"),
    "preempted": (PREEMPTED, "stopped by a signal; run the same command again to go on"),
}

flags.disclaim_key_flags()  # they are the script's: its --help shows them


def define_flags():
    """--config FILE[:preset] with --config.path=value overrides, --workdir, --grid path=v1,v2 (repeatable)."""
    what = "Configuration file, FILE or FILE:preset; --config.path=value changes a setting of it."
    config_flags.DEFINE_config_file("config", None, what, lock_config=False, accept_new_attributes=True)
    parser = flags.FLAGS["config"].parser
    load = parser.parse
    parser.parse = lambda path: _with_blocks(_loaded(load, path), sys.argv)
    flags.DEFINE_string("workdir", None, "Where results go. Resumed if it holds this configuration.")
    flags.DEFINE_multi_string("grid", [], "An axis of the grid, such as optimizer.learning_rate=1e-3,1e-4.")
    flags.mark_flags_as_required(["config", "workdir"])


def parse_flags(argv):
    """The arguments that are no flags; a flag that cannot be parsed ends the program with one line. For `app.run`."""
    try:
        return flags.FLAGS(argv)
    except (flags.Error, ValueError, OSError) as error:
        if _wants_traceback():
            raise
        block = re.match(r"flag (--config[.\w]+)=(\w+): Failed to parse .* as a ConfigDict", str(error))
        _fail(f"{block[1]} is a block of settings. Did you mean {block[1]}.name={block[2]}?" if block else error)


def _loaded(load, path):
    """The configuration that `load` of ml_collections reads, with errors of one line.

    It tells of a missing file only when the configuration is used, and puts a whole trace into its other messages.
    """
    file = str(path).partition(":")[0]
    if path is not None and not os.path.isfile(file):
        raise ValueError(f"There is no file {file!r}.")
    try:
        return load(path)
    except (TypeError, ValueError) as error:
        if _wants_traceback():
            raise
        raise (error.__context__ or error) from None


def _with_blocks(config, argv):
    """A block for each --config.block.setting that the file leaves out, so that its defaults can be overridden.

    ml_collections wants to find it in the file. A misspelt block is made too; `build` then names the nearest one.
    """
    for text in argv:
        path = re.match(r"--?(?:no)?config\.([\w.]+)", text)
        node, walked = config, []
        for part in path[1].split(".")[:-1] if path else ():
            walked.append(part)
            if part not in node:
                node[part] = ConfigDict()
            node = node[part]
            if not isinstance(node, ConfigDict):
                raise ValueError(f"{text}: {'.'.join(walked)} is {node!r}, and not a block of settings.")
    return config


def configuration():
    """The configuration that the flags describe, as a nested dict."""
    config = flags.FLAGS.config.to_dict()
    axes = []
    for text in flags.FLAGS.grid:
        path, equals, values = text.partition("=")
        if not equals:
            raise ValueError(f"--grid {text!r} is not of the form path=value,value.")
        axes.append((path, tuple(_number(path, value) for value in values.split(","))))
    if not axes:
        return config
    return {**config, "grid": (*config.get("grid", ()), *axes)}


def variants(names=None):
    """Variant -> overrides of the configuration file: all of them, or those named."""
    module = _module(config_flags.get_config_filename(flags.FLAGS["config"]).partition(":")[0])
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
            if not isinstance(node, dict):
                raise ValueError(f"{path} cannot be set: {part} is {node!r}, not a block of settings.")
        node[last] = value
    return config


def set_up(*configs):
    """Split CPUs into devices, one a core and at most one a run, and keep compiled programs. Call before any device."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    logging.set_verbosity(logging.WARNING)  # orbax tells every step of a save
    logging.get_absl_handler().setFormatter(Formatter("%(levelname)s: %(message)s"))
    # LAPACK is called on every device at once: with threads of its own, the devices wait for each other
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    jax.config.update("jax_num_cpu_devices", max(1, min(cores, max(map(_runs, configs)))))
    use_compilation_cache()


def exits(action):
    """Run action() -> "done" or "preempted" and leave with its exit code.

    A bad setting ends in one line and no trace, unless PLASTICITY_JAX_TRACEBACK is set: one's own code may fail too.
    """
    try:
        state = action()
    except (ValueError, OSError) as error:
        if _wants_traceback():
            raise
        _fail(error)
    code, told = _ENDS[state]
    with contextlib.suppress(OSError):  # a terminal that is gone
        print(f"{flags.FLAGS.workdir}: {told}", file=sys.stderr)
    sys.exit(code)


def _wants_traceback():
    return bool(os.environ.get("PLASTICITY_JAX_TRACEBACK"))


def _fail(error):
    print(f"Error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(FAILED)


def _runs(config):
    """How many runs a configuration has; 1 where it is not valid, which `build` will tell."""
    try:
        return config.get("seeds", 8) * math.prod(len(values) for _, values in config.get("grid", ()))
    except (TypeError, ValueError):
        return 1


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
