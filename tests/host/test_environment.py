"""What a result was computed with."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import pytest
from small_runs import ROOT, environment

from plasticity_jax.host import environment as host_environment


def test_all_that_may_change_a_result():
    found = host_environment.describe()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["jax"] == jax.__version__ and set(found["versions"]) >= {"numpy", "optax", "zarr"}
    assert len(found["devices"]) == len(jax.devices()) and found["devices"][0].startswith("cpu:0")
    assert found["prng"] == "threefry2x32" and found["x64"] is False and found["matmul_precision"] == "default"


def test_the_precision_of_products_is_told():
    with jax.default_matmul_precision("highest"):
        assert host_environment.describe()["matmul_precision"] == "highest"


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A repository with a copy of environment.py that is not tracked yet."""
    shutil.copy(host_environment.__file__, tmp_path / "environment.py")
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "other things")
    monkeypatch.setattr(host_environment, "__file__", str(tmp_path / "environment.py"))
    return tmp_path


def test_commit(copy):
    git(copy, "add", ".")
    git(copy, "commit", "-q", "-m", "code")
    assert host_environment._commit() == git(copy, "rev-parse", "HEAD")
    (copy / "environment.py").write_text("changed")
    assert host_environment._commit() == git(copy, "rev-parse", "HEAD") + "+"


def test_no_commit_of_a_repository_that_only_surrounds_the_package(copy):
    assert host_environment._commit() == "unknown"


def test_no_commit_outside_a_repository(tmp_path, monkeypatch):
    monkeypatch.setattr(host_environment, "__file__", str(tmp_path / "environment.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert host_environment._commit() == "unknown"


CACHE = """
import jax
from plasticity_jax.host.environment import use_compilation_cache
use_compilation_cache()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.parametrize(("chosen", "used"), [(None, "cache/plasticity_jax/programs"), ("own", "own")])
def test_compilation_cache(tmp_path, chosen, used):
    variables = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    del variables["JAX_COMPILATION_CACHE_DIR"]
    if chosen:
        variables["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / chosen)
    done = subprocess.run([sys.executable, "-c", CACHE], env=variables, capture_output=True, text=True, check=True)
    assert pathlib.Path(done.stdout.strip()) == tmp_path / used


def test_this_repository():
    commit = host_environment._commit()
    assert commit == "unknown" or commit.rstrip("+") == git(ROOT, "rev-parse", "HEAD")
