import json

import pytest
from fake_results import SEEDS, TASKS, VARIANTS, metrics, write_variant

from plasticity_jax.analysis import results


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


def test_settings_come_in_the_order_of_the_configuration(tmp_path):
    grid = {"optimizer.learning_rate": (1e-2, 1e-3), "interventions.l2.strength": (0.0, 1e-4)}
    folder = write_variant(tmp_path / "adam", metrics(0.1, grid=grid))
    config = json.loads((folder / "config.json").read_text())
    config["config"]["grid"] = list(grid.items())
    (folder / "config.json").write_text(json.dumps(config))
    assert results.settings_of(results.load(folder)["adam"]) == tuple(grid)
