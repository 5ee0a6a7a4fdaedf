"""How fast and how large training is, against PyTorch and against this machine's limits. All in one run.

    .venv/bin/python benchmarks/train_step.py [--quick] [--only small,large] [--json FILE] [--peers PYTHON|none]

Contenders are warm and wait, and are measured by turns, five times each: medians and extremes are reported. Ratios are
those of the same turn. On CPUs:

    small        Random Label MNIST (Kumar et al. 2023, Table 1): MLP 784-100-100-10, batch 16, 32 seeds of ours against
                 as many PyTorch processes of one thread as there are cores, each on its own core
    large        MLP 784-1024-1024-10, batch 512: 1 and 8 runs of ours against PyTorch with all cores, as one process
                 of as many threads, and for 8 runs also as processes of one thread
    memory       the training program's own peak at 1, 8 and 32 runs on one device
    diagnostics  cheap diagnostics at a boundary, as a share of a task of 7,500 steps of 8 runs
    online       metrics inside the task, as a share of training that reports its loss alone
    export       the training program lowers for TPU and CUDA
    start        from starting the demo to its first trained task, compilation cache cold and warm

On accelerators `accelerator` replaces small, large and start: both networks at 1, 8, 32 and 128 runs. Images are random
unless --data names a folder that holds MNIST: no contender's time depends on them. Time at the limit: see roofline.py.
"""

import argparse
import functools
import json
import os
import pathlib

import demo_start
import numpy as np
import roofline
import timing

ON_CPU = ("small", "large", "memory", "diagnostics", "online", "export", "start")
ELSEWHERE = ("accelerator", "memory", "diagnostics", "online", "export")
LARGE_ARGUMENTS = ("--widths", "1024,1024", "--batch", 512, "--images", 10_000)


def torch_workers(given, *arguments, shared):
    """Workers that run the PyTorch loop: one with a thread for every core if `shared`, else one thread on each core."""
    cores = sorted(os.sched_getaffinity(0))
    command = ("peers/torch_random_labels.py", "--serve", *given.data_arguments, *arguments)
    new = functools.partial(timing.Worker, python=given.peers)
    if shared:
        return [new(*command, "--threads", len(cores))]
    return [new(*command, "--threads", 1, "--core", core, environment=timing.ONE_THREAD) for core in cores]


def our_worker(given, *arguments):
    """The worker that trains with our programs; it uses what the scripts would use."""
    return timing.Worker("ours.py", "speed", "--serve", *given.data_arguments, *arguments)


def small(given, limits):
    """32 seeds of the small network against processes of one thread."""
    steps, torch_steps, runs = (20, 20, 4) if given.quick else (1000, 4000, 32)
    teams = {f"ours, {runs} seeds": [our_worker(given, "--runs", runs, "--steps", steps)]}
    if given.peers:
        kinds = {"default Adam": (), "fused Adam": ("--adam", "fused")}
        if given.compile:
            kinds["fused Adam, compiled"] = ("--adam", "fused", "--compile")
        for name, extra in kinds.items():
            teams[f"PyTorch, {name}"] = torch_workers(given, *extra, "--steps", torch_steps, shared=False)
    rates = timing.race(teams, given.rounds)
    limit = _limit_seconds(roofline.SMALL, limits, "small")
    found = timing.compared("MLP 784-100-100-10, batch 16", rates, limit)
    ours, *others = rates
    ratios = {name: timing.ratio(rates[ours], rates[name]) for name in others}
    wanted = {"PyTorch, default Adam": 4.0, "PyTorch, fused Adam": 3.0}
    targets = [
        at_least(f"small: times {name}", wanted[name], r["median"]) for name, r in ratios.items() if name in wanted
    ]
    targets.append(at_least("small: share of the roofline", 0.65, found[ours]["share_of_roofline"]))
    return {"teams": found, "ratios": ratios, "limit_microseconds": 1e6 * limit}, targets


def large(given, limits):
    """1 and 8 runs of the large network against all cores."""
    steps = 2 if given.quick else 60
    teams = {
        f"ours, {runs} run{'s' * (runs > 1)}": [our_worker(given, *LARGE_ARGUMENTS, "--runs", runs, "--steps", steps)]
        for runs in (1, 8)
    }
    if given.peers:
        for name, extra in {"default Adam": (), "fused Adam": ("--adam", "fused")}.items():
            extra = (*LARGE_ARGUMENTS, *extra, "--steps", steps, "--warm-up", min(steps, 10))
            teams[f"PyTorch, {name}, one process"] = torch_workers(given, *extra, shared=True)
            teams[f"PyTorch, {name}, a process a core"] = torch_workers(given, *extra, shared=False)
    rates = timing.race(teams, given.rounds)
    limit = _limit_seconds(roofline.LARGE, limits, "large")
    found = timing.compared("MLP 784-1024-1024-10, batch 512", rates, limit)
    ratios, targets = {}, []
    for ours, rivals in (("ours, 1 run", "one process"), ("ours, 8 runs", "")):
        others = [n for n in rates if n.startswith("PyTorch") and n.endswith(rivals)]
        best = max(others, key=lambda n: timing.spread(rates[n])["median"], default=None)
        if best:
            ratios[f"{ours} / {best}"] = timing.ratio(rates[ours], rates[best])
            targets.append(
                at_least(f"large: {ours}, times the best PyTorch", 1.0, ratios[f"{ours} / {best}"]["median"])
            )
        targets.append(at_least(f"large: {ours}, share of the roofline", 0.8, found[ours]["share_of_roofline"]))
    return {"teams": found, "ratios": ratios, "limit_microseconds": 1e6 * limit}, targets


def memory(given, _):
    """Peak against 1.2 times the TrainState of every run plus the working set of one."""
    counts = (1, 8) if given.quick else (1, 8, 32)
    found = [_ours("memory", "--runs", runs, "--devices", 1, *given.data_arguments) for runs in counts]
    for row in found:
        row["allowed"] = int(1.2 * row["state"] * row["runs"]) + found[0]["temporary"]
    names = ("arguments", "outputs", "aliased", "temporary", "data", "peak", "allowed")
    rows = [(str(row["runs"]), *(row[name] for name in names)) for row in found]
    title = f"Memory of the training program, bytes; one run's TrainState is {found[0]['state']:,}"
    print(timing.table(title, ("runs", *names), rows))
    targets = [
        at_most(f"memory: share of what {row['runs']} runs may use", 1.0, row["peak"] / row["allowed"]) for row in found
    ]
    return found, targets


def diagnostics(given, _):
    """What a boundary costs."""
    sizes = ("--runs", 2, "--steps", 50) if given.quick else ("--runs", 8, "--steps", 7500)
    found = _ours("diagnostics", *sizes, *given.data_arguments)
    each = found["each_seconds"]
    rows = [(name, 1e3 * s, 100 * s / found["task_seconds"]) for name, s in {**each, "all": sum(each.values())}.items()]
    share = sum(each.values()) / found["task_seconds"]
    print(timing.table("Cheap diagnostics at a boundary", ("", "ms", "% of the task"), rows))
    return {**found, "share": share}, [at_most("diagnostics: share of a task", 0.05, share)]


def online(given, _):
    """What the metrics inside a task cost: medians of the ratios of all turns, with 95% intervals by bootstrap."""
    sizes = ("--runs", 2, "--steps", 50) if given.quick else ("--runs", 8, "--steps", 1000)
    found = _ours("online", *sizes, *given.data_arguments)
    bare, metrics, copies = (np.array(found[name]) for name in ("bare", "metrics", "copies"))
    ratios = {"one program against another": metrics / bare - 1, "one of 20 copies": (copies - metrics) / 20 / bare}
    draw, rows = np.random.default_rng(0), []
    for name, ratio in ratios.items():
        medians = np.median(draw.choice(ratio, (10_000, len(ratio))), -1)
        rows.append((name, *(100 * np.array([np.median(ratio), *np.percentile(medians, (2.5, 97.5))]))))
    title = "Online metrics, % of a segment that reports its loss alone"
    print(timing.table(title, ("", "median", "from", "to"), rows))
    share = float(np.median(ratios["one of 20 copies"]))
    return found, [at_most("online metrics: share of training", 0.01, share)]


def export(given, _):
    """Both platforms, alone and together."""
    found = _ours("export", "--runs", 8, *given.data_arguments)
    rows = [(name, result.get("bytes", "-"), result.get("error", "lowers")) for name, result in found.items()]
    print(timing.table("Export of the training program", ("platform", "bytes", "result"), rows))
    failed = sum("error" in result for result in found.values())
    return found, [at_most("export: platforms that fail", 0.0, float(failed))]


def start(given, _):
    """The demo, twice."""
    found = demo_start.measure()
    print(timing.table("Seconds to the demo's first trained task", ("cache", "s"), list(found.items())))
    return found, [at_most("start: seconds to the first trained task, warm", 8.0, found["warm"])]


def accelerator(given, _):
    """Both networks at growing numbers of runs, one process after another."""
    jobs = {"784-100-100-10, batch 16": ((), 2000), "784-1024-1024-10, batch 512": (LARGE_ARGUMENTS, 500)}
    found, rows = {}, []
    for name, (arguments, steps) in jobs.items():
        for runs in (1, 8) if given.quick else (1, 8, 32, 128):
            steps = 5 if given.quick else steps
            worker = our_worker(given, *arguments, "--runs", runs, "--steps", steps)
            rates = timing.race({"ours": [worker]}, given.rounds)["ours"]
            found[f"{name}, {runs} runs"] = row = [timing.spread(rates), 1e6 * runs / timing.spread(rates)["median"]]
            rows.append((f"{name}, {runs} runs", *row))
    print(timing.table("On this accelerator", ("", "seed-steps/s", "us a step of all runs"), rows))
    times = [row[-1] for row in rows if "-100-" in row[0]]
    return found, [at_most("accelerator: small, most runs / one run", 3.0, times[-1] / times[0])]


MEASURES = {f.__name__: f for f in (small, large, memory, diagnostics, online, export, start, accelerator)}


def at_least(name, wanted, found):
    """A target, and whether it is met."""
    return {"name": name, "wanted": f">= {wanted:g}", "found": found, "met": found >= wanted}


def at_most(name, wanted, found):
    """A target, and whether it is met."""
    return {"name": name, "wanted": f"<= {wanted:g}", "found": found, "met": found <= wanted}


def _limit_seconds(job, limits, size):
    """Seconds per seed and step with all cores at their limit."""
    both = limits["all_cores"]
    return roofline.train_step_seconds(*job, both["flops_per_second"], both["bytes_per_second"][size])


def _ours(*arguments):
    """What ours.py answers."""
    return timing.answer_of("ours.py", *arguments)


def options(arguments=None):
    """The command line, and the interpreter of the peers."""
    parser = argparse.ArgumentParser(description="Speed and memory of training.")
    parser.add_argument("--quick", action="store_true", help="few steps, one round: does it run, not how fast")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"some of {','.join(MEASURES)}")
    parser.add_argument("--json", type=pathlib.Path, help="also write everything to this file")
    parser.add_argument("--peers", help="interpreter that has torch; default .venv-bench, `none` leaves it out")
    parser.add_argument("--compile", action="store_true", help="also race torch.compile; it needs a C++ compiler")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", help="folder that holds MNIST; by default images are random")
    given = parser.parse_args(arguments)
    for name in given.only or ():
        if name not in MEASURES:
            parser.error(f"--only {name}: there are {', '.join(MEASURES)}.")
    given.rounds = 1 if given.quick else given.rounds
    try:
        given.peers = timing.peers_python(given.peers)
    except ValueError as error:
        parser.error(str(error))
    given.data_arguments = ("--data", given.data) if given.data else ()
    return given


def main(arguments=None):
    """Measure the sections, print their tables and the targets."""
    given = options(arguments)
    machine = _ours("environment")
    names = given.only or (ON_CPU if machine["backend"] == "cpu" else ELSEWHERE)
    if not given.peers:
        print("No interpreter for the peers (make bench makes .venv-bench): ours only.\n")
    limits, results, targets = None, {"environment": machine, "quick": given.quick, "rounds": given.rounds}, []
    if {"small", "large"} & set(names):
        results["roofline"] = limits = roofline.measure(given.peers, given.quick)
        print(roofline.report(limits))
    for name in names:
        results[name], reached = MEASURES[name](given, limits)
        targets += reached
        if given.json:  # after each section: a later one may fail
            given.json.write_text(json.dumps({**results, "targets": targets}, indent=2) + "\n", encoding="utf-8")
    rows = [tuple(target.values()) for target in targets]
    print(timing.table("Targets", ("", "wanted", "found", "met"), rows))


if __name__ == "__main__":
    main()
