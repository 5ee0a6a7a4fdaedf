"""metrics.zarr: full size from the start, aligned by name, and whole whatever is cut off."""

import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr
import zarr
from small_runs import environment

from plasticity_jax.host import results
from plasticity_jax.host.results import Results

RUNS, TASKS = 3, 4
DIMS = {
    "loss": {},
    "online": {"segment": 2},
    "norm": {"layer": ("conv0", "fc0", "head")},
    "dead": {"layer": ("fc0", "fc1")},
    "nodes": {"probe": 2, "node": range(10, 15)},
}
COORDINATES = {"seed": np.arange(5, 5 + RUNS), "optimizer.learning_rate": np.float32([0.1, 0.1, 0.01])}


@pytest.fixture
def store(tmp_path):
    return Results(tmp_path / "metrics.zarr", DIMS, COORDINATES, TASKS)


def read(store):
    with xr.open_zarr(store.path, consolidated=False) as dataset:
        return dataset.load()


def metrics(task, rng=None):
    """Other numbers for each run, task and place."""
    shapes = {"loss": (), "norm": (3,), "dead": (2,), "nodes": (2, 5)}
    rng = rng or np.random.default_rng(task)
    return {name: rng.normal(size=(RUNS, *shape)).astype(np.float32) for name, shape in shapes.items()}


def test_full_size_and_nan_from_the_start(store):
    dataset = read(store)
    layers = ["conv0", "fc0", "head", "fc1"]
    assert dataset.sizes == {"run": 3, "task": 4, "segment": 2, "layer": 4, "probe": 2, "node": 5}
    assert dict(dataset.data_vars) and all(np.isnan(dataset[name]).all() for name in DIMS)
    assert {name: dataset[name].dims for name in DIMS} == {
        "loss": ("run", "task"),
        "online": ("run", "task", "segment"),
        "norm": ("run", "task", "layer"),
        "dead": ("run", "task", "layer"),
        "nodes": ("run", "task", "probe", "node"),
    }
    assert list(dataset.layer.values) == layers and list(dataset.node.values) == list(range(10, 15))
    assert list(dataset.seed.values) == [5, 6, 7] and dataset.seed.dims == ("run",)
    assert list(dataset["optimizer.learning_rate"].values) == list(COORDINATES["optimizer.learning_rate"])
    assert dataset.loss.dtype == np.float32


def test_layers_are_aligned_by_name(store):
    written = metrics(1)
    store.write(1, written)
    dataset = read(store)
    for name in ("norm", "dead"):
        for place, layer in enumerate(DIMS[name]["layer"]):
            np.testing.assert_array_equal(dataset[name].sel(layer=layer, task=1), written[name][:, place])
    assert np.isnan(dataset.norm.sel(layer="fc1")).all()
    assert np.isnan(dataset.dead.sel(layer=["conv0", "head"])).all()
    np.testing.assert_array_equal(dataset.nodes.isel(task=1), written["nodes"])
    assert np.isnan(dataset.loss.isel(task=[0, 2, 3])).all()


def test_writing_twice_is_harmless(store):
    store.write(0, metrics(0))
    store.write(1, metrics(7))
    store.write(1, metrics(1))
    once = read(store)
    store.write(1, metrics(1))
    assert read(store).identical(once)
    np.testing.assert_array_equal(once.loss.isel(task=0), metrics(0)["loss"])


def test_segments(store):
    values = np.float32([1, 2, 3])
    store.write(2, {"online": values}, segment=1)
    online = read(store).online
    np.testing.assert_array_equal(online.isel(task=2, segment=1), values)
    assert int(np.isfinite(online).sum()) == RUNS


def fill(store):
    for task in range(TASKS):
        store.write(task, metrics(task))
        for segment in range(2):
            store.write(task, {"online": np.full(RUNS, 10 * task + segment, np.float32)}, segment)


def test_cleared_after_a_boundary(store):
    fill(store)
    store.clear_after(2, 0)
    dataset = read(store)
    for name in DIMS:
        assert np.isnan(dataset[name].isel(task=[2, 3])).all()
    for task in (0, 1):
        np.testing.assert_array_equal(dataset.loss.isel(task=task), metrics(task)["loss"])
        np.testing.assert_array_equal(dataset.dead.sel(task=task, layer="fc1"), metrics(task)["dead"][:, 1])
        assert (dataset.online.isel(task=task) == [10 * task, 10 * task + 1]).all()


def test_a_write_that_was_cut_off_does_not_stop_clearing(store):
    fill(store)
    (store.path / "loss/c/0/0.ff00ff.partial").write_bytes(b"cut")  # so does zarr call what it has not finished
    store.clear_after(2, 0)
    assert np.isfinite(read(store).loss).sum() == 2 * RUNS


def test_cleared_inside_a_task(store):
    fill(store)
    store.clear_after(2, 1)
    dataset = read(store)
    assert (dataset.online.isel(task=2, segment=0) == 20).all()
    assert np.isnan(dataset.online.isel(task=2, segment=1)).all() and np.isnan(dataset.online.isel(task=3)).all()
    assert np.isnan(dataset.loss.isel(task=[2, 3])).all() and np.isfinite(dataset.loss.isel(task=[0, 1])).all()


def test_cleared_at_both_ends(store):
    fill(store)
    whole = read(store)
    store.clear_after(TASKS, 0)
    assert read(store).identical(whole)
    store.clear_after(0, 0)
    assert all(np.isnan(read(store)[name]).all() for name in DIMS)


def test_opening_again_keeps_the_numbers(store):
    fill(store)
    before = read(store)
    again = Results(store.path, DIMS, COORDINATES, TASKS)
    assert read(again).identical(before)


def test_a_draft_that_was_left_behind_is_replaced(tmp_path):
    left = tmp_path / ".metrics.zarr.draft"
    left.mkdir()
    (left / "zarr.json").write_text('{"zarr_fo')
    assert np.isnan(read(Results(tmp_path / "metrics.zarr", DIMS, COORDINATES, TASKS)).loss).all()
    assert not left.exists()


@pytest.mark.parametrize(
    ("dims", "coordinates", "tasks", "told"),
    [
        (DIMS, COORDINATES, 5, r"has loss of shape \(3, 4\), but this configuration writes \(3, 5\)"),
        ({**DIMS, "more": {}}, COORDINATES, 4, "has more of shape None"),
        ({**DIMS, "dead": {"layer": ("fc0", "fc7")}}, COORDINATES, 4, "has layer conv0, fc0, head, fc1, but .* fc7"),
        (DIMS, {**COORDINATES, "seed": np.arange(RUNS)}, 4, "has seed 5, 6, 7, but this configuration writes 0, 1, 2"),
    ],
)
def test_a_store_of_other_results_is_refused(store, dims, coordinates, tasks, told):
    with pytest.raises(ValueError, match=f"(?s){told}.*--workdir"):
        Results(store.path, dims, coordinates, tasks)


def test_a_damaged_store_is_refused(store):
    path = store.path / "zarr.json"
    path.write_text(path.read_text()[:20])
    with pytest.raises(ValueError, match=r"metrics.zarr is damaged .*--workdir"):
        Results(store.path, DIMS, COORDINATES, TASKS)


def test_long_streams_share_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "CHUNK_BYTES", 4 * RUNS * 10)
    store = Results(tmp_path / "metrics.zarr", {"loss": {}, "wide": {"node": 100}}, COORDINATES, 95)
    assert store._group["loss"].chunks == (RUNS, 10) and store._group["wide"].chunks == (RUNS, 1, 100)
    for task in range(95):
        store.write(task, {"loss": np.full(RUNS, task, np.float32)})
    assert len(list((store.path / "loss" / "c").rglob("[0-9]"))) == 1 + 10
    assert (read(store).loss == np.arange(95)).all()


def test_segments_of_a_large_task_share_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "CHUNK_BYTES", 4 * RUNS * 5 * 3)  # three segments of wide, and one left over of seven
    dims = {"wide": {"segment": 7, "node": 5}, "loss": {"segment": 7}}
    store = Results(tmp_path / "metrics.zarr", dims, COORDINATES, TASKS)
    assert store._group["wide"].chunks == (RUNS, 1, 3, 5) and store._group["loss"].chunks == (RUNS, 2, 7)
    wide = np.random.default_rng(0).normal(size=(TASKS, 7, RUNS, 5)).astype(np.float32)
    for task, segment in np.ndindex(TASKS, 7):
        store.write(task, {"wide": wide[task, segment], "loss": wide[task, segment, :, 0]}, segment)
    for segment in (4, 3, 0):  # inside a chunk, at the start of one, and at the start of the task
        store.clear_after(2, segment)
        expected = np.where(np.arange(TASKS * 7).reshape(TASKS, 7, 1, 1) < 14 + segment, wide, np.nan)
        np.testing.assert_array_equal(read(store).wide.transpose("task", "segment", "run", "node"), expected)
        np.testing.assert_array_equal(read(store).loss.transpose("task", "segment", "run"), expected[..., 0])


def test_what_is_never_written_takes_no_memory_and_no_time(tmp_path):
    values = np.random.default_rng(0).normal(size=(RUNS, 1000, 1000)).astype(np.float32)
    start = time.process_time()
    dims = {"covariance": {"segment": 10, "node": 1000, "other": 1000}}  # 120 GB
    store = Results(tmp_path / "metrics.zarr", dims, COORDINATES, 1000)
    store.clear_after(0, 0)
    store.write(500, {"covariance": values}, segment=2)
    store.write(500, {"covariance": values}, segment=3)
    store.clear_after(500, 3)
    assert time.process_time() - start < 10  # a few tenths; a minute where all is looked at
    with xr.open_zarr(store.path, consolidated=False) as dataset:
        task = dataset.covariance.isel(task=500)
        np.testing.assert_array_equal(task.isel(segment=2), values)
        assert np.isnan(task.isel(segment=3)).all()
    files = [path for path in (store.path / "covariance" / "c").rglob("*") if path.is_file()]
    assert [path.relative_to(store.path).as_posix() for path in files] == ["covariance/c/0/500/2/0/0"]


CUT_OFF = """
import resource, signal, sys
import numpy as np
from plasticity_jax.host.results import Results
store = Results(sys.argv[1], {"wide": {"node": 1000}}, {"seed": np.arange(2)}, 4)
numbers = np.random.default_rng(0).normal(size=(4, 2, 1000)).astype(np.float32)
store.write(0, {"wide": numbers[0]})
store.write(1, {"wide": numbers[1]})
print("written", flush=True)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))  # the system kills us in the middle of the next write
store.write(2, {"wide": numbers[2]})
print("survived", flush=True)
"""


def test_a_write_that_is_cut_off_leaves_other_tasks_of_its_chunk(tmp_path):
    path = tmp_path / "metrics.zarr"
    command = [sys.executable, "-c", CUT_OFF, str(path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert done.stdout == "written\n" and done.returncode < 0, done.stderr
    numbers = np.random.default_rng(0).normal(size=(4, 2, 1000)).astype(np.float32)
    store = Results(path, {"wide": {"node": 1000}}, {"seed": np.arange(2)}, 4)
    wide = read(store).wide.values
    np.testing.assert_array_equal(wide[:, :2].transpose(1, 0, 2), numbers[:2])
    assert np.isnan(wide[:, 2:]).all()
    store.write(2, {"wide": numbers[2]})
    np.testing.assert_array_equal(read(store).wide.values[:, :3].transpose(1, 0, 2), numbers[:3])


def test_zarr_alone_can_read_it(store):
    store.write(0, metrics(0))
    group = zarr.open_group(str(store.path), mode="r")
    np.testing.assert_array_equal(group["loss"][:, 0], metrics(0)["loss"])
