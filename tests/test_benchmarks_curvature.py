import importlib.util
import json
import math
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import curvature as driver  # noqa: E402
import curvature_case  # noqa: E402
import curvature_ours as ours  # noqa: E402

pytestmark = pytest.mark.slow  # minutes of compilation: `make test-all`

TINY = (12, 6, 4)  # 106 parameters


def peer(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / "peers" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(0)
    batch = {"x": rng.random((40, TINY[0]), np.float32), "y": rng.integers(0, TINY[-1], 40, dtype=np.int32)}
    np.savez(folder / "case.npz", **curvature_case.initial(jax.random.key(1), TINY), **batch)
    return folder


@pytest.fixture(scope="module")
def exact(case):
    """All eigenvalues, descending."""
    params, batch = curvature_case.load(case)
    flat, unravel = ravel_pytree(params)
    matrix = jax.hessian(lambda p: curvature_case.loss(unravel(p), batch))(flat)
    return np.linalg.eigvalsh(matrix)[::-1]


def given(case, what, steps=40):
    return ours.options([what, "--case", str(case), "--steps", str(steps)])


def test_the_network_is_the_one_that_is_named():
    shapes = jax.eval_shape(curvature_case.initial, jax.random.key(0))
    assert sum(leaf.size for leaf in shapes.values()) == 669_706


def test_one_epoch_of_adam_learns(case):
    params, (x, _) = curvature_case.load(case)
    x = np.tile(x, (64, 1))
    batch = (x, np.argmax(x[:, : TINY[-1]], axis=1))
    key = jax.random.key(0)
    before = curvature_case.initial(jax.random.split(key)[0], TINY)
    after = curvature_case.train(key, *batch, TINY)
    assert curvature_case.loss(after, batch) < curvature_case.loss(before, batch)
    assert curvature_case.digest(params) == curvature_case.digest(dict(reversed(params.items())))
    assert curvature_case.digest(after) != curvature_case.digest(before)


@pytest.mark.parametrize("what", ["gradients", "products", "lanczos"])
def test_our_programs_are_timed_and_finite(case, what):
    found = ours.measurer(given(case, what, steps=3))()
    assert found["seconds"] > 0 and found["finite"]


def test_bare_products_are_a_power_iteration(case, exact):
    v = ours.products(given(case, "products", steps=300))()
    A = ours.hessian(given(case, "products"))
    rayleigh = ours.tree.dot(v, A @ v)
    assert abs(float(rayleigh) - exact[0]) < 1e-4 * exact[0]


def test_ours_and_matfree_find_the_same_eigenvalues(case, exact):
    matfree = peer("matfree_lanczos")
    theirs = matfree.measurer(matfree.options(["--case", str(case), "--steps", "40"]))()
    found = ours.measurer(given(case, "lanczos"))()
    for answer in (theirs, found):
        assert driver.error(answer["top"], exact[:5].tolist()) < 1e-5
        assert abs(answer["bottom"] - exact[-1]) < 1e-5 * exact[0]
    assert theirs["peak_bytes"] >= 40 * 4 * exact.size


def test_hessian_eigenthings_finds_the_same_eigenvalues(case, exact):
    """On the same weights, in PyTorch; to what its float32 allows."""
    python = driver.timing.peers_python()
    assert python, "make .venv-bench/installed makes the interpreter of the peers"
    command = [python, str(BENCHMARKS / "peers" / "torch_eigenthings.py"), "--case", str(case), "--steps", "40"]
    theirs = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    found = ours.measurer(given(case, "lanczos"))()
    assert driver.error(theirs["top"], exact[:5].tolist()) < 1e-4
    assert driver.error(found["top"], theirs["top"]) < 1e-4


def test_reference_in_float64(case, exact):
    command = [sys.executable, str(BENCHMARKS / "curvature_case.py"), "reference", "--case", str(case)]
    environment = {**os.environ, "JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout)
    assert driver.error(found["top"], exact[:5].tolist()) < 1e-6
    assert max(found["residuals"]) < 1e-9
    with pytest.raises(ValueError, match="JAX_ENABLE_X64"):
        curvature_case.reference(case)


def test_memory_counts_the_basis(case):
    found = ours.memory(given(case, "memory"))
    assert found["basis"] == 40 * 106 * 4 <= found["lanczos"]
    assert min(found["product"], found["gradient"]) >= 106 * 4


def test_error_is_relative_to_the_largest():
    assert driver.error([4.0, 1.5], [4.0, 2.0]) == pytest.approx(0.125)
    assert math.isnan(driver.error([4.0], [4.0, 2.0]))


@pytest.mark.parametrize("arguments", [["--only", "rice"], ["--peers", "/nowhere/python"]])
def test_bad_options_end_with_what_is_allowed(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        driver.options(arguments)
    assert left.value.code == 2 and arguments[1] in capsys.readouterr().err


def test_quick_needs_no_data():
    found = driver.options(["--quick", "--peers", "none"])
    assert (found.rounds, found.peers, found.data_arguments) == (1, None, ("--data", "synthetic"))


def test_the_peer_parses_without_torch():
    found = peer("torch_eigenthings").options(["--case", "x", "--method", "density"])
    assert (found.method, found.steps, found.threads) == ("density", 64, 2)


def test_a_library_is_judged_by_its_fastest_way_with_full_reorthogonalisation():
    medians = {"hessian-eigenthings": 3.0, "hessian-eigenthings, density": 2.0, "hessian-eigenthings, its default": 1.0}
    rows = {name: {"seconds": {"median": median}} for name, median in medians.items()}
    assert driver._best(rows, driver.TORCH) == "hessian-eigenthings, density"
    assert driver._best(rows, driver.MATFREE) is None
