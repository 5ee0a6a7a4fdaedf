import json

import numpy as np
import pytest
from conftest import SEEDS, TASKS, VARIANTS, metrics, write_variant

from plasticity_jax.analysis import groups, results


def test_variants_come_in_the_order_of_the_sweep(sweep):
    variants = results.load(sweep)
    assert list(variants) == list(VARIANTS)
    for dataset in variants.values():
        assert dataset.sizes["run"] == SEEDS and dataset.sizes["task"] == TASKS
        assert dataset.attrs["missing"] == []
        assert dataset.attrs["config"]["stream"]["steps"] == 4000
        assert dataset.attrs["status"]["state"] == "done"
        assert dataset.attrs["environment"]["versions"]["jax"] == "0.10.2"


def test_without_a_list_variants_come_by_name(troubled):
    assert list(results.load(troubled)) == ["adam", "grid", "half", "waiting"]


def test_one_variant_is_accepted(sweep):
    (name,) = results.load(sweep / "layer_norm")
    assert name == "layer_norm"


def test_variants_that_have_not_begun_are_listed(tmp_path):
    write_variant(tmp_path / "b", metrics(0.1))
    (tmp_path / "sweep.json").write_text(json.dumps({"variants": ["b", "a"]}))
    variants = results.load(tmp_path)
    assert list(variants) == ["b", "a"]
    assert "metrics.zarr is absent" in variants["a"].attrs["missing"]


def test_a_folder_without_results_is_an_error_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path.name}: no results.*metrics.zarr.*status.json"):
        results.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        results.load(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["config.json", "environment.json", "status.json"])
@pytest.mark.parametrize(("content", "says"), [(None, "is absent"), ("{", "cannot be read"), ("[]", "no JSON object")])
def test_a_file_that_is_missing_or_damaged_is_listed(tmp_path, name, content, says):
    folder = write_variant(tmp_path / "adam", metrics(0.1))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    (missing,) = results.load(folder)["adam"].attrs["missing"]
    assert name in missing and says in missing


def test_a_store_that_was_cut_off_is_listed(tmp_path):
    folder = write_variant(tmp_path / "adam", metrics(0.1))
    (folder / "metrics.zarr" / "zarr.json").write_text('{"zarr_for')
    (missing,) = results.load(folder)["adam"].attrs["missing"]
    assert "metrics.zarr cannot be opened" in missing


def test_a_damaged_array_is_left_out_and_the_others_are_kept(tmp_path):
    folder = write_variant(tmp_path / "adam", metrics(0.1))
    chunk = next(p for p in (folder / "metrics.zarr" / "srank" / "c").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:7])
    dataset = results.load(folder)["adam"]
    assert "srank" not in dataset and "final_accuracy" in dataset
    assert "metrics.zarr: srank cannot be read" in dataset.attrs["missing"][0]


def test_groups_are_variants_times_grid_points(troubled):
    found = groups.split(results.load(troubled))
    assert [g.variant for g in found] == ["adam", *["grid"] * 6, "half", "waiting"]
    assert [g.seeds for g in found] == [7, *[8] * 6, 8, 0]
    assert [g.done for g in found] == [6, *[6] * 6, 4, 0]
    rate, strength = "optimizer.learning_rate", "interventions.l2.strength"
    assert {(g.settings[rate], g.settings[strength]) for g in found[1:7]} == {
        (r, s) for r in (1e-2, 1e-3) for s in (0.0, 1e-4, 1e-3)
    }
    assert "learning_rate 0.01" in found[1].label and "strength 0" in found[1].label


def test_settings_come_in_the_order_of_the_configuration(tmp_path):
    grid = {"optimizer.learning_rate": (1e-2, 1e-3), "interventions.l2.strength": (0.0, 1e-4)}
    folder = write_variant(tmp_path / "adam", metrics(0.1, grid=grid))
    config = json.loads((folder / "config.json").read_text())
    config["config"]["grid"] = list(grid.items())
    (folder / "config.json").write_text(json.dumps(config))
    assert results.settings_of(results.load(folder)["adam"]) == tuple(grid)


def test_runs_that_diverged_are_named_and_do_not_count(troubled):
    adam = groups.split(results.load(troubled))[0]
    assert adam.excluded == {"seed 3": "diverged in task 3"}
    assert 3 not in adam.data["seed"].values
    assert float(adam.values("final_accuracy").max()) < 0.98  # the run that diverged claims 0.99


def test_divergence_that_only_the_status_knows_counts(tmp_path):
    write_variant(tmp_path / "adam", metrics(0.1), diverged=[5])
    (group,) = groups.split(results.load(tmp_path))
    assert group.excluded == {"seed 5": "diverged"} and group.seeds == 7


def test_a_run_that_lacks_numbers_is_named_and_does_not_count(tmp_path):
    dataset = metrics(0.1)
    dataset["final_accuracy"][2, 4] = np.nan
    write_variant(tmp_path / "adam", dataset)
    (group,) = groups.split(results.load(tmp_path))
    assert group.excluded == {"seed 2": "no finite value in task 5"}


def test_the_best_grid_point_is_that_with_the_highest_online_accuracy(tmp_path):
    dataset = metrics(0.1, grid={"optimizer.learning_rate": (1e-2, 1e-3)})
    dataset["online_accuracy"][8:] += 0.1
    dataset["final_accuracy"][:8] += 0.5  # is not what is asked
    write_variant(tmp_path / "adam", dataset)
    (best,) = groups.best(groups.split(results.load(tmp_path)))
    assert best.settings == {"optimizer.learning_rate": 1e-3}


def test_the_reference_is_the_first_variant_at_the_same_grid_point(tmp_path):
    grid = {"optimizer.learning_rate": (1e-2, 1e-3)}
    for name in ("a", "b"):
        write_variant(tmp_path / name, metrics(0.1, grid=grid))
    write_variant(tmp_path / "c", metrics(0.1))
    found = groups.split(results.load(tmp_path))
    references = [groups.reference(g, found) for g in found]
    assert references == [None, None, found[0], found[1], None]  # c could be compared with either
    alone = found[:2]
    assert [groups.reference(g, alone) for g in alone] == [None, alone[0]]
