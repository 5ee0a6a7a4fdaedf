"""Shared set-up: two CPU devices, threefry, and one compilation cache for all workers."""

import os
import pathlib

import jax
import pytest

CACHE = pathlib.Path(os.environ.get("JAX_COMPILATION_CACHE_DIR", pathlib.Path(__file__).parent.parent / ".jax_cache"))
jax.config.update("jax_num_cpu_devices", 2)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
jax.config.update("jax_numpy_rank_promotion", "allow")


@pytest.fixture
def key():
    return jax.random.key(0, impl="threefry2x32")
