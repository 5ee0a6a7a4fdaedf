"""What measuring cost, in words."""

import xarray as xr

from plasticity_jax.analysis import facts


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
