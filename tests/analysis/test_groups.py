import numpy as np
import xarray as xr
from fake_results import metrics, write_variant

from plasticity_jax.analysis import groups, results


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


def test_without_other_variants_a_grid_point_goes_by_its_settings(troubled):
    (first, *_) = groups.split({"grid": results.load(troubled)["grid"]})
    assert first.label == "strength 0, learning_rate 0.01"
    assert groups.split({"adam": results.load(troubled)["adam"]})[0].label == "adam"


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


def test_what_was_measured_inside_tasks_is_taken_at_their_ends():
    nan, dims = np.nan, ("run", "task", "segment")
    inside = [[[1.0, 2.0, nan], [nan, nan, 5.0]]]  # a task of two segments, and one measured at its end only
    data = xr.Dataset({"dead_fraction": (dims, inside), "online_loss": (dims, inside)})
    group = groups.Group("adam", {}, data, {}, 2, 2)
    assert group.values("dead_fraction").values.tolist() == [[2.0, 5.0]]
    assert group.values("online_loss").dims == dims


def test_what_is_nan_at_the_end_of_a_task_is_not_replaced_by_what_was_before():
    nan, dims = np.nan, ("run", "task", "segment")
    lengths = [[3.0, 2.0, 1.0], [2.0, 1.0, nan], [2.0, nan, nan]]  # three segments, two, and a task under way
    online = [lengths, [[3.0, nan, nan]] * 3]  # the second run stands still
    rank = [[[0.2, 0.7, nan], [0.3, 0.6, nan], [0.5, nan, nan]]] * 2
    layered = np.stack([rank, [lengths] * 2], -1)
    layered[:, 1, 1, 1] = nan  # in one layer alone
    data = {"srank": (dims, rank), "ranks": ((*dims, "layer"), layered), "online_loss": (dims, online)}
    group = groups.Group("adam", {}, xr.Dataset(data), {}, 3, 3)
    np.testing.assert_array_equal(group.values("srank"), [[nan, 0.6, 0.5]] * 2)
    np.testing.assert_array_equal(group.values("ranks"), [[[nan, 1.0], [0.6, nan], [0.5, 2.0]]] * 2)
