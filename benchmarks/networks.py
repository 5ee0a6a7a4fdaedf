"""A training step of every network beside its twin in PyTorch, channels last. All in one run.

    .venv/bin/python benchmarks/networks.py [--quick] [--only cnn28,resnet18] [--json FILE] [--peers PYTHON|none]

Contenders are warm and wait, and are measured by turns: medians and extremes of milliseconds per seed and step, and
ratios of the same turn. One step is forward pass, gradient and Adam. Ours are 8 seeds in one program, PyTorch (fused
Adam) is one process with a thread for every core. For the first two networks also ours with the convolution of XLA in
place of our own, which is what flax's Conv runs. Images are random: no contender's time depends on them.

The share of the peak counts the FLOPs of products and convolutions by their definition, whatever way they are computed;
the peak is the fastest matrix product of this machine (roofline.py). Bytes are those of the compiled program.
"""

import argparse
import json
import os
import pathlib
from typing import NamedTuple

import roofline
import timing
from train_step import at_least

SMALL = {"name": "cnn", "channels": (32, 64), "windows": 3, "padding": "SAME", "pool": "max", "widths": (256,)}
TWIN = {"name": "cnn", "channels": (32, 64), "windows": (3, 3), "padding": "same", "pool": True, "widths": (256,)}


class Case(NamedTuple):
    """Our network, PyTorch's, their batches; steps of one timing, ours, PyTorch's, with XLA's convolution (0: not)."""

    network: dict
    twin: dict
    shape: tuple = (32, 32, 3)
    batch: int = 32
    steps: int = 4
    torch_steps: int = 8
    xla_steps: int = 0


CASES = {
    "cnn28": Case(SMALL, TWIN, (28, 28, 1), 64, 10, 40, 1),
    "cnn32": Case(SMALL, TWIN, (32, 32, 3), 64, 10, 40, 1),
    "paper_cnn": Case({"name": "cnn", "preset": "lyle"}, {"name": "cnn"}),
    "resnet18_quarter": Case({"name": "resnet18", "width": 0.25}, {"name": "resnet18", "width": 0.25}, steps=8),
    "resnet18": Case({"name": "resnet18"}, {"name": "resnet18"}, steps=2, torch_steps=2),
    "vit": Case({"name": "vit"}, {"name": "vit"}),
}


def ours(case, what, runs, steps, *arguments):
    """The command of our worker."""
    network, shape = json.dumps(case.network), ",".join(map(str, case.shape))
    sizes = ("--batch", case.batch, "--images", 4 * case.batch, "--runs", runs, "--steps", steps)
    return ("ours.py", what, "--network", network, "--shape", shape, *sizes, *arguments)


def torch(given, case):
    """The worker of the twin, with all cores."""
    cores = sorted(os.sched_getaffinity(0))
    command = ("peers/torch_step.py", "--serve", "--network", json.dumps(case.twin), "--threads", len(cores))
    sizes = ("--shape", ",".join(map(str, case.shape)), "--batch", case.batch, "--steps", case.torch_steps)
    return timing.Worker(*command, *sizes, python=given.peers)


def compare(given, name, peak):
    """One network: (rows of the table, what is kept, targets)."""
    case, runs = CASES[name], 2 if given.quick else given.runs
    steps = 1 if given.quick else case.steps
    teams = {"ours": [timing.Worker(*ours(case, "speed", runs, steps, "--serve"))]}
    if given.peers:
        teams["PyTorch"] = [torch(given, case)]
    if case.xla_steps:
        command = ours(case, "speed", runs, case.xla_steps, "--serve", "--xla-convolution")
        teams["ours, XLA's convolution"] = [timing.Worker(*command)]
    rates = timing.race(teams, given.rounds)
    milliseconds = {team: timing.spread([1e3 / rate for rate in values]) for team, values in rates.items()}
    ratios = {team: timing.ratio(rates["ours"], values) for team, values in rates.items() if team != "ours"}
    flops = timing.answer_of(*ours(case, "flops", 1, 1))["flops"]
    memory = timing.answer_of(*ours(case, "memory", 1, 1))
    share = {team: 1e3 * flops / value["median"] / peak for team, value in milliseconds.items()}
    rows = [
        (name if team == "ours" else "", team, milliseconds[team], ratios.get(team, "-"), share[team], "-")
        for team in rates
    ]
    rows[0] = (*rows[0][:-1], memory["peak"])
    targets = []
    if "PyTorch" in ratios:
        targets.append(at_least(f"{name}: times as fast as PyTorch", 1.0, ratios["PyTorch"]["median"]))
    if case.xla_steps:
        factor = ratios["ours, XLA's convolution"]["median"]
        targets.append(at_least(f"{name}: times as fast as XLA's convolution", 15.0, factor))
    kept = {"milliseconds": milliseconds, "ratios": ratios, "flops": flops, "share_of_peak": share, "memory": memory}
    return rows, kept, targets


def options(arguments=None):
    """The command line, and the interpreter of the peers."""
    parser = argparse.ArgumentParser(description="Speed and memory of the networks.")
    parser.add_argument("--quick", action="store_true", help="2 seeds, one step, one round: does it run, not how fast")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join(CASES)}")
    parser.add_argument("--json", type=pathlib.Path, help="also write everything to this file")
    parser.add_argument("--peers", help="interpreter that has torch; default .venv-bench, `none` leaves it out")
    parser.add_argument("--runs", type=int, default=8, help="seeds of ours")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    for name in given.only or ():
        if name not in CASES:
            parser.error(f"--only {name}: there are {', '.join(CASES)}.")
    try:
        given.peers = timing.peers_python(given.peers)
    except ValueError as error:
        parser.error(str(error))
    if given.quick:
        given.rounds = 1
    return given


def main(arguments=None):
    """Measure network by network, print the table and the targets."""
    given = options(arguments)
    limits = roofline.measure(given.peers, given.quick)
    peak = limits["all_cores"]["flops_per_second"]
    results = {"environment": timing.answer_of("ours.py", "environment"), "limits": limits, "quick": given.quick}
    print(f"Fastest matrix product, all cores: {peak / 1e9:.0f} GFLOP/s\n")
    table, targets = [], []
    header = ("", "", "ms per seed and step", "ours is times as fast", "share of peak", "bytes of one run")
    for name in given.only or CASES:
        rows, results[name], reached = compare(given, name, peak)
        table += rows
        targets += reached
        if given.json:  # after each network: a later one may fail
            given.json.write_text(json.dumps({**results, "targets": targets}, indent=2) + "\n", encoding="utf-8")
    print(timing.table("Networks", header, table))
    print(timing.table("Targets", ("", "wanted", "found", "met"), [tuple(target.values()) for target in targets]))


if __name__ == "__main__":
    main()
