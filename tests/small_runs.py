"""A run that takes seconds, how to start it in a process of its own, and how to stop it."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
import xarray as xr

import plasticity_jax.run as main

ROOT = pathlib.Path(__file__).parent.parent
DATA = {"name": "synthetic", "images": 40, "test_images": 10, "height": 4, "width": 4, "classes": 4}
CONFIG = {
    "seeds": 3,
    "tasks": 3,
    "segment_steps": 10,
    "data": DATA,
    "stream": {"name": "random_labels", "images": 32, "batch": 8, "steps": 30},
    "network": {"name": "mlp", "widths": (8,)},
    "optimizer": {"name": "adam", "learning_rate": 1e-2},
    "diagnostics": {
        "performance": {},
        "weights": {},
        "units": {"every": 2},
        "gradients": {"every": 0},
        **{name: {"every": 0} for name in ("ranks", "overlap", "duplicates", "sparsity")},
    },
}


def config(**changes):
    """CONFIG with other settings; a block is merged."""
    new = {**CONFIG}
    for key, value in changes.items():
        new[key] = {**new[key], **value} if isinstance(value, dict) and key in new else value
    return new


def environment(**changes):
    """The environment of a subprocess that imports this source tree and shares the compiled programs."""
    cache = str(jax.config.jax_compilation_cache_dir)
    own = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    return {**os.environ, **own, **changes}


def start(code, *arguments, devices=1):
    """Python code in a new process; it finds `run`, `CONFIG` and `config` there, and `sys.argv[1:]`."""
    head = (
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        f"import jax; jax.config.update('jax_num_cpu_devices', {devices})\n"
        "jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)\n"
        "from plasticity_jax.run import run\nfrom small_runs import CONFIG, config\n"
    )
    command = [sys.executable, "-W", "error::UserWarning", "-c", head + code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process, timeout=240):
    """The exit code of a process; what it wrote is printed, so that a failing test shows it."""
    out, err = process.communicate(timeout=timeout)
    print(out, err)
    return process.returncode


def numbers(workdir):
    """Every array of metrics.zarr."""
    with xr.open_zarr(pathlib.Path(workdir) / "metrics.zarr", consolidated=False) as dataset:
        return dataset.load()


def states(workdir):
    """path -> array of the newest checkpoint, read by orbax alone."""
    import orbax.checkpoint as ocp

    folder = pathlib.Path(workdir).absolute() / "checkpoints"
    step = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        content = reader.restore(folder / str(step) / "default")
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(content)}


def assert_same_bits(workdir, other):
    """Two folders hold the same numbers and the same states, bit for bit."""
    one, two = numbers(workdir), numbers(other)
    assert set(one.variables) == set(two.variables)
    for name in one.variables:
        a, b = one[name].values, two[name].values
        assert a.dtype == b.dtype and a.shape == b.shape
        assert a.tobytes() == b.tobytes() if a.dtype.kind != "T" else list(a) == list(b), name
    one, two = states(workdir), states(other)
    assert list(one) == list(two)
    for name in one:
        assert one[name].dtype == two[name].dtype and one[name].tobytes() == two[name].tobytes(), name


@contextlib.contextmanager
def after(calls, action, owner=main._Session, name="_segment"):
    """Do `action` right after that many calls of a method; the calls go on as usual."""
    inner, count = getattr(owner, name), [0]

    def method(*arguments, **keywords):
        result = inner(*arguments, **keywords)
        count[0] += 1
        if count[0] == calls:
            action()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, method)
        yield


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
