"""What measuring cost, in words."""

import xarray as xr

from plasticity_jax.analysis import facts


def test_settings_of_diagnostics_stand_in_a_line_each():
    usual = {"every": 1, "every_segments": 0}
    probe = {"name": "probe", **usual, "every": 5, "targets": 3, "multiplier": 1e5}
    mine = {"name": "mine:largest", **usual, "every_segments": 2}
    diagnostics = {"weights": {"name": "weights", **usual}, "probe": {**probe, "steps": 500}, "largest": mine}
    first = xr.Dataset(attrs={"config": {"seeds": 8, "data": {"name": "digits"}, "diagnostics": diagnostics}})
    diagnostics = {**diagnostics, "probe": {**probe, "steps": 100}, "units": {"name": "units", **usual, "tau": 0.1}}
    second = xr.Dataset(attrs={"config": {"seeds": 8, "data": {"name": "digits"}, "diagnostics": diagnostics}})
    variants = {"a": first, "b": second}
    assert facts.constant_settings(variants) == {
        "data.name": "digits",
        "diagnostics.probe": "every 5 tasks, targets 3, multiplier 100000",
        "diagnostics.largest": "name mine:largest, every 2 segments",
    }
    differing = facts.differing_settings(variants)
    assert differing["diagnostics.probe.steps"] == ["500", "100"] and differing["diagnostics.units.tau"] == ["-", "0.1"]
    assert facts.constant_settings({"b": second})["diagnostics.units"] == "tau 0.1"


def test_costs_are_shares_of_all_that_was_trained():
    costs = {
        "training": {"seconds": 20.0, "timed": 4, "segments": 5},  # 25 s in all: the first segment compiled
        "ranks": {"seconds": 1.0, "measurements": 2, "gflop": 12.0},
        "spectrum": {"seconds": 5.0, "measurements": 1, "gflop": 1234.5},
    }
    variants = {"plain": xr.Dataset(attrs={"costs": costs}), "old": xr.Dataset()}
    assert facts.costs(variants) == {
        "plain: spectrum": ["1", "5 s", "1.23e+03", "20.00%"],
        "plain: ranks": ["2", "0.5 s", "12", "4.00%"],
    }
    only_compiled = {"training": {"seconds": 0.0, "timed": 0, "segments": 1}, "ranks": costs["ranks"]}
    assert facts.costs({"a": xr.Dataset(attrs={"costs": only_compiled})})["a: ranks"][-1] == "-"
