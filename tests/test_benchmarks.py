import doctest
import importlib.util
import json
import pathlib
import sys
import time

import pytest

from plasticity_jax import tree
from plasticity_jax.diagnostics import DIAGNOSTICS

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import demo_start  # noqa: E402
import ours  # noqa: E402
import probe  # noqa: E402
import products  # noqa: E402
import roofline  # noqa: E402
import timing  # noqa: E402
import train_step  # noqa: E402

TINY = {"widths": (8, 6), "batch": 4, "images": 24, "segment_steps": 3}
JOBS = [((3, 5, 2), 4), roofline.SMALL, roofline.LARGE]


def test_needed_flops_by_hand():
    forward, input_gradients = 2 * 4 * (3 * 5 + 5 * 2), 2 * 4 * (5 * 2)
    assert roofline.needed_flops((3, 5, 2), 4) == forward + forward + input_gradients == 480
    assert roofline.needed_flops((3, 2), 4) == 2 * 2 * 4 * 6  # one layer: no input gradient at all
    assert doctest.testmod(roofline).failed == 0


@pytest.mark.parametrize(("widths", "batch"), JOBS)
def test_the_products_that_are_timed_are_those_that_are_counted(widths, batch):
    flops = 0
    for a, b, transposed in products.job_products(widths, batch).values():
        a, b = (a[::-1] if transposed == "left" else a), (b[::-1] if transposed == "right" else b)
        assert a[1] == b[0]
        flops += 2 * a[0] * a[1] * b[1]
    assert flops == roofline.needed_flops(widths, batch)


def test_time_at_the_limit_adds_products_and_optimizer():
    assert roofline.adam_bytes((3, 5, 2)) == 7 * 4 * 32
    assert roofline.working_set_bytes((3, 5, 2)) == 4 * 4 * 32
    assert roofline.train_step_seconds((3, 5, 2), 4, 48.0, 8.96) == pytest.approx(10.0 + 100.0)


def test_parameters_are_those_of_the_network():
    _, states, _ = ours.prepared(ours.configuration(**TINY, runs=2))
    assert tree.size(states.learner.variables.params) == 2 * roofline.parameters((784, 8, 6, 10))


def test_the_best_of_several_products_summed_over_cores():
    cores = [
        {"products": {"a": 1.0, "b": 5.0}, "triads": {"small": 2.0}},
        {"products": {"a": 4.0, "b": 1.0}, "triads": {"small": 3.0}},
    ]
    other = [{"products": {"a": 2.0, "b": 2.0}, "triads": {}}] * 2
    found = roofline._limits({"jax": cores, "numpy": other})
    assert found["flops_per_second"] == 6.0 and found["product"] == "jax, b"
    assert found["bytes_per_second"] == {"small": 5.0}


def test_best_rate_is_work_per_second():
    rate = timing.best_rate(lambda count: time.sleep(0.002 * count), 10, seconds=0.02)
    assert 2000 < rate <= 5000  # sleep never returns early


def test_spread_ratio_and_table():
    assert timing.spread([3.0, 1.0, 2.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert timing.ratio([4.0, 9.0, 8.0], [2.0, 3.0, 8.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}
    text = timing.table("Title", ("", "rate", "met"), [("one", {"median": 1234.5, "low": 0.5, "high": 2.0}, False)])
    assert text.splitlines()[0] == "Title"
    assert text.splitlines()[-1].split() == ["one", "1,234", "[0.5,", "2]", "NO"]


@pytest.mark.slow
def test_our_programs_give_positive_numbers():
    config = {
        **ours.configuration(**TINY, runs=2),
        "diagnostics": {name: {"every": 0} for name in DIAGNOSTICS if name not in ("performance", "gradients")},
    }
    measure = ours.speed(config)
    found = [measure(), measure()]
    assert all(f["seconds"] > 0 and f["seed_steps"] == 6 and f["finite"] for f in found)
    boundary = ours.diagnostics(config, repeats=1)
    assert set(boundary["each_seconds"]) == {"performance", "gradients"}
    assert min(boundary["task_seconds"], *boundary["each_seconds"].values()) > 0
    inside = ours.online(config, turns=2)
    assert set(inside) == {"bare", "metrics", "copies"}
    assert all(seconds > 0 for kind in inside.values() for seconds in kind)


@pytest.mark.slow
def test_memory_counts_states_and_not_the_data():
    found = ours.memory(ours.configuration(**TINY, runs=2, devices=1))
    assert found["data"] == 24 * (784 + 4) + 10 * (784 + 4)
    moments_and_both_copies = 4 * 4 * roofline.parameters((784, 8, 6, 10))
    assert moments_and_both_copies < found["state"] < moments_and_both_copies + 1000
    assert (
        found["peak"] == found["arguments"] + found["outputs"] - found["aliased"] + found["temporary"] - found["data"]
    )
    assert found["aliased"] >= 2 * found["state"] - 100  # states are donated


def test_export_names_what_it_tried():
    found = ours.export(ours.configuration(**TINY, runs=1), choices=(("cuda",), ("abacus",)))
    assert found["cuda"]["bytes"] > 0
    assert "abacus" in found["abacus"]["error"]


@pytest.mark.slow
def test_the_probe_is_timed_beside_training(monkeypatch, capsys):
    monkeypatch.setattr(probe, "TRAINED", 3)
    probe.main(["--quick", "--widths", "8,6", "--batch", "16"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Probe of 20 steps, MLP 8,6, batch 16" and float(lines[3].split()[-1]) > 0


@pytest.mark.slow
def test_quick_race_of_ours_alone(monkeypatch, tmp_path, capsys):
    limits = {"flops_per_second": 1e11, "bytes_per_second": {"small": 1e11, "large": 1e11}, "product": "none"}
    found = {"cores": 1, "one_thread": limits, "all_cores": limits}
    monkeypatch.setattr(roofline, "measure", lambda peers, quick: found)
    train_step.main(["--quick", "--only", "small", "--peers", "none", "--json", str(tmp_path / "found.json")])
    result = json.loads((tmp_path / "found.json").read_text())
    row = result["small"]["teams"]["ours, 4 seeds"]
    rate = row["seed_steps_per_second"]["median"]
    assert rate > 0 and row["microseconds"] == pytest.approx(1e6 / rate)
    assert row["share_of_roofline"] == pytest.approx(result["small"]["limit_microseconds"] / row["microseconds"])
    assert [t["name"] for t in result["targets"]] == ["small: share of the roofline"]
    assert "MLP 784-100-100-10" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--only", "smal"], ["--peers", "/nowhere/python"]])
def test_bad_options_end_with_what_is_allowed(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        train_step.options(arguments)
    assert left.value.code == 2 and arguments[1] in capsys.readouterr().err


def test_the_peer_parses_without_torch():
    path = BENCHMARKS / "peers" / "torch_random_labels.py"
    spec = importlib.util.spec_from_file_location("torch_random_labels", path)
    peer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(peer)
    given = peer.options(["--adam", "fused", "--threads", "2"])
    assert (given.adam, given.threads, given.batch, given.images) == ("fused", 2, 16, 1200)


def test_tasks_are_counted_over_variants(tmp_path):
    assert demo_start._tasks_done(tmp_path) == 0
    for name, task in (("adam", 1), ("tuned", 0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(json.dumps({"state": "running", "task": task}))
    assert demo_start._tasks_done(tmp_path) == 1


def test_a_worker_that_fails_says_so():
    with timing.Worker("products.py") as worker, pytest.raises(RuntimeError, match="exit code 2"):
        worker.answer()
