"""What a run compiles, and how often; what it loads; what it holds in memory."""

import collections
import contextlib
import logging
import re

import jax
import pytest
from small_runs import DATA, after, config, terminate

import plasticity_jax.run as main
from plasticity_jax.build import build, spec_of
from plasticity_jax.diagnostics import DIAGNOSTICS

SHORT = {  # two tasks of two segments
    **config(seeds=3, tasks=2, stream={"steps": 20}),
    "diagnostics": {**{name: {"every": 0} for name in DIAGNOSTICS}, "weights": {"every": 1}},
}


@contextlib.contextmanager
def compiled():
    """How often each program is compiled in the block, by its name."""
    counts = collections.Counter()

    class Handler(logging.Handler):
        def emit(self, record):
            counts.update(re.findall(r"^Compiling jit\((\w+)\) with", record.getMessage()))

    logger, handler = logging.getLogger("jax"), Handler()
    logger.addHandler(handler)
    try:
        with jax.log_compiles():
            yield counts
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("devices", [1, 2], ids=["one device", "runs that do not divide evenly"])
@pytest.mark.slow
def test_each_program_is_compiled_once_a_process(tmp_path, devices):
    """As the first states are laid out, so are all later ones, those of a checkpoint included."""
    settings = {**SHORT, "parallel": {"devices": devices}}
    with compiled() as fresh:
        assert main.run(settings, tmp_path / "whole") == "done"
    with after(1, terminate):
        assert main.run(settings, tmp_path / "parts") == "preempted"
    with compiled() as resumed:
        assert main.run(settings, tmp_path / "parts") == "done"
    verbs = ("init", "begin", "run_segment", "advance", "measure")
    assert [fresh[verb] for verb in verbs] == [1, 1, 1, 1, 1]
    assert [resumed[verb] for verb in verbs] == [0, 0, 1, 1, 1]


def test_variants_share_the_data_that_were_loaded_last(tmp_path, monkeypatch):
    loaded, inner = [], main.host_data.load
    monkeypatch.setattr(main.host_data, "load", lambda *a, **k: loaded.append(k["images"]) or inner(*a, **k))
    monkeypatch.setattr(main, "_dims", lambda job: {})
    monkeypatch.setattr(main, "_run", lambda *arguments: "done")
    other = {**SHORT, "data": {**DATA, "images": 44}}
    main.sweep({"a": SHORT, "b": SHORT, "c": other}, tmp_path / "x")
    assert loaded == [40, 44, 40, 44]
    loaded.clear()
    main.sweep({"a": SHORT, "b": SHORT}, tmp_path / "y")
    assert loaded == [40]


def test_periods_that_never_come_are_warned_of_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(main, "_dims", lambda job: {})
    monkeypatch.setattr(main, "_run", lambda *arguments: "done")
    late = {**SHORT, "diagnostics": {**SHORT["diagnostics"], "weights": {"every": 3, "every_segments": 3}}}
    main.sweep({"a": late, "b": SHORT}, tmp_path / "x")
    assert [record.getMessage() for record in caplog.records] == [
        "diagnostics.weights.every=3 measures nothing in 2 tasks.",
        "diagnostics.weights.every_segments=3 measures nothing inside tasks of at most 2 segments.",
    ]


def test_memory_of_a_run_is_without_the_data_that_all_runs_share():
    def needed(images):
        data = main.load_data({"data": {**DATA, "images": images}})
        return main._bytes_per_run(build(SHORT, spec_of(data.arrays, data.classes)), data.arrays)

    few, many = needed(40), needed(4_000)
    assert few > 3 * 4 * 172  # parameters and moments
    assert abs(many - few) < 1_000  # a byte a pixel would be 63,360
