"""The limits of this machine, measured, and the shortest time that one training step can take within them.

    python benchmarks/roofline.py [--quick] [--json FILE]

    t = F / P + T / W

    F   FLOPs that are needed. B examples, a layer maps in -> out units:
        forward 2 B sum(in out), weight gradients the same, input gradients 2 B sum(in out) without the first layer
    P   FLOP/s, the best of square float32 products and of the very shapes of the job, in numpy, jax and torch
    T   bytes that Adam must move: it reads p, g, m, v and writes p, m, v, 7 floats a parameter. Writing g is not
        counted: it is part of the product that makes it
    W   bytes/s of the triad a = b + s c, 12 bytes an element, best of jax and torch, with a, b and c together as large
        as p, g, m and v together, so that both live in the same cache

P and W are measured for one thread on one core while the others are idle, and as the sum over all cores when each is
busy with a thread of its own. Activations, biases, the loss and the drawing of batches count as free.
"""

import argparse
import contextlib
import itertools
import json
import os

import timing

__all__ = [
    "LARGE",
    "SMALL",
    "adam_bytes",
    "measure",
    "needed_flops",
    "parameters",
    "train_step_seconds",
    "working_set_bytes",
]

SMALL, LARGE = ((784, 100, 100, 10), 16), ((784, 1024, 1024, 10), 512)  # units of each layer, batch
FLOAT_BYTES = 4
ADAM_FLOATS = 7


def layers(widths):
    """(inputs, outputs) of each layer."""
    return list(itertools.pairwise(widths))


def needed_flops(widths, batch):
    """FLOPs of the matrix products of one training step; the first layer needs no input gradient.

    >>> needed_flops((3, 5, 2), batch=4)  # 2 * 4 * (2 * (15 + 10) + 10)
    480
    """
    products = [fan_in * fan_out for fan_in, fan_out in layers(widths)]
    return 2 * batch * (2 * sum(products) + sum(products[1:]))


def parameters(widths):
    """Weights and biases.

    >>> parameters((3, 5, 2))
    32
    """
    return sum(fan_in * fan_out + fan_out for fan_in, fan_out in layers(widths))


def adam_bytes(widths):
    """Bytes that one step of Adam must move: 7 floats a parameter."""
    return ADAM_FLOATS * FLOAT_BYTES * parameters(widths)


def working_set_bytes(widths):
    """Bytes of the parameters, the gradient and the two moments of one run."""
    return 4 * FLOAT_BYTES * parameters(widths)


def train_step_seconds(widths, batch, flops_per_second, bytes_per_second):
    """The shortest time of one training step with Adam: needed FLOPs / peak + optimizer's bytes / bandwidth.

    Args:
      widths: units of each layer, inputs first and outputs last.
      batch: examples of a batch.
      flops_per_second: of all threads that share the step, or, for many runs at once, of all cores.
      bytes_per_second: likewise.
    """
    return needed_flops(widths, batch) / flops_per_second + adam_bytes(widths) / bytes_per_second


def triad_sets(cores):
    """Bytes of one core's working set, by network: a small run for each core; one large run shared by all."""
    return {"small": working_set_bytes(SMALL[0]), "large": working_set_bytes(LARGE[0]) // cores}


def measure(peers=None, quick=False):
    """Peaks and bandwidths of this machine.

    Args:
      peers: interpreter that has torch; None leaves torch out.
      quick: only a look, for tests.

    Returns:
      {"one_thread": limits, "all_cores": limits, "cores": int}, limits being {"flops_per_second", "product": which
      one was the fastest, "bytes_per_second": {"small", "large"}, "best": library -> [product, FLOP/s]}.
    """
    cores = sorted(os.sched_getaffinity(0))
    answers = {"one_thread": {}, "all_cores": {}}
    for library, python in {"numpy": None, "jax": None, **({"torch": peers} if peers else {})}.items():
        with contextlib.ExitStack() as stack:
            command = ["products.py", "--library", library, "--cores", len(cores)] + ["--quick"] * quick
            workers = [
                stack.enter_context(
                    timing.Worker(*command, "--core", core, python=python, environment=timing.ONE_THREAD)
                )
                for core in cores
            ]
            for worker in workers:
                worker.answer()
            answers["one_thread"][library] = timing.ask(workers[:1])
            answers["all_cores"][library] = timing.ask(workers)
    return {"cores": len(cores), **{name: _limits(found) for name, found in answers.items()}}


def _limits(answers):
    """Sums over the cores, then the best over libraries and products."""
    totals = {
        library: {kind: _sum([a[kind] for a in cores]) for kind in ("products", "triads")}
        for library, cores in answers.items()
    }
    best = {library: max(t["products"].items(), key=lambda item: item[1]) for library, t in totals.items()}
    library = max(best, key=lambda name: best[name][1])
    triads = [t["triads"] for t in totals.values() if t["triads"]]
    return {
        "flops_per_second": best[library][1],
        "product": f"{library}, {best[library][0]}",
        "bytes_per_second": {name: max(t[name] for t in triads) for name in triads[0]},
        "best": {name: list(item) for name, item in best.items()},
        "products": {name: t["products"] for name, t in totals.items()},
    }


def _sum(dictionaries):
    return {name: sum(d[name] for d in dictionaries) for name in dictionaries[0]}


def report(found):
    """The limits as text."""
    header = ("limit", "GFLOP/s", "by", "GB/s small", "GB/s large", "us a step small", "us a step large")
    rows = []
    for name in ("one_thread", "all_cores"):
        limits = found[name]
        peak, bandwidth = limits["flops_per_second"], limits["bytes_per_second"]
        steps = [
            1e6 * train_step_seconds(*job, peak, bandwidth[size]) for job, size in ((SMALL, "small"), (LARGE, "large"))
        ]
        row = (peak / 1e9, limits["product"], bandwidth["small"] / 1e9, bandwidth["large"] / 1e9, *steps)
        rows.append((name.replace("_", " "), *row))
    return timing.table(f"Roofline of {found['cores']} cores", header, rows)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Measure the machine's limits.")
    parser.add_argument("--quick", action="store_true", help="only a look, for tests")
    parser.add_argument("--json", help="also write what was found to this file")
    parser.add_argument("--peers", help="interpreter that has torch; default .venv-bench, `none` leaves it out")
    given = parser.parse_args()
    found = measure(timing.peers_python(given.peers), given.quick)
    print(report(found))
    if given.json:
        with open(given.json, "w", encoding="utf-8") as stream:
            json.dump(found, stream, indent=2)


if __name__ == "__main__":
    main()
