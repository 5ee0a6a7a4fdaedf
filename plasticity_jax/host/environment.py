"""What a result was computed with: versions, devices, commit; and where compiled programs are kept."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess

import jax

__all__ = ["cache_folder", "describe", "use_compilation_cache"]

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "xarray", "zarr")


def describe():
    """A dictionary of all that may change a result: for environment.json."""
    return {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in ("plasticity_jax", *PACKAGES)},
        "commit": _commit(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "prng": "threefry2x32",
        "matmul_precision": str(jax.config.jax_default_matmul_precision or "default"),
        "x64": bool(jax.config.jax_enable_x64),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def cache_folder():
    """The user's cache folder of this project: XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(base) / "plasticity_jax"


def use_compilation_cache():
    """Keep compiled programs between processes, unless JAX_COMPILATION_CACHE_DIR already says where."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _version(name):
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _commit():
    """The commit of the source tree, with a + where it has changes; unknown where it is not tracked by git."""
    here = pathlib.Path(__file__).parent

    def git(*arguments):
        return subprocess.run(["git", "-C", here, *arguments], capture_output=True, text=True, check=True).stdout

    try:
        git("ls-files", "--error-unmatch", pathlib.Path(__file__).name)  # a virtual environment may lie in a repository
        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain", "-uno").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
