"""What a step of the plasticity probe costs beside a bare step of training. Both by turns in one process.

    .venv/bin/python benchmarks/probe.py [--quick] [--widths 512,512] [--batch 512] [--steps 500] [--rounds 5]

An MLP 784-512-512-10 with batch 512, on random images of MNIST's size, one run on one device. A turn trains 100 steps
and probes once, with one target: two fits, one from each optimizer state, with everything that belongs to them. The
ratio is that of seconds per step in the same turn; at most 1.3 is wanted. A probe of T targets does T times that.
"""

import argparse
import time

import jax
import timing
from ours import configuration, prepared

from plasticity_jax.base import Clock

TRAINED = 100  # bare steps of a turn


def measure(config, steps, rounds):
    """{"train", "probe": [rounds] seconds per step, "ratio": [rounds]}, warm."""
    job, states, memory = prepared(config)
    clock = Clock(*(jax.numpy.int32(number) for number in (TRAINED, 0, 0)))

    def trained(states):
        return job.programs.run_segment(job.settings, states, job.data, Clock(*(jax.numpy.int32(0),) * 3))

    def probed(states, names):
        return job.programs.measure(job.settings, states, memory, job.data, clock, names)

    def seconds(work, *arguments):
        begin = time.perf_counter()
        result = jax.block_until_ready(work(*arguments))
        return result, time.perf_counter() - begin

    for _ in range(3):  # the first states come from another program, and may lie otherwise
        states, _ = trained(states)
    probed(states, ("probe",)), probed(states, ())
    found = {"train": [], "probe": [], "ratio": []}
    for _ in range(rounds):
        (states, _), train = seconds(trained, states)
        _, snapshot = seconds(probed, states, ())  # what every diagnostic is given is no part of the probe
        _, probe = seconds(probed, states, ("probe",))
        found["train"].append(train / TRAINED)
        found["probe"].append((probe - snapshot) / (2 * steps))
        found["ratio"].append(found["probe"][-1] / found["train"][-1])
    return found


def options(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Cost of the plasticity probe.")
    parser.add_argument("--quick", action="store_true", help="few steps, one round: does it run, not how fast")
    parser.add_argument("--widths", default="512,512", help="units of the hidden layers")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=500, help="of a fit; 500 is that of the laptop presets")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args(arguments)
    if given.quick:
        given.steps, given.rounds = 20, 1
    return given


def main(arguments=None):
    """Measure and print."""
    given = options(arguments)
    widths = tuple(int(width) for width in given.widths.split(","))
    config = configuration(widths, given.batch, 2048, 1, TRAINED, devices=1)
    config["diagnostics"] = {"probe": {"every": 1, "targets": 1, "steps": given.steps, "batch": given.batch}}
    found = measure(config, given.steps, given.rounds)
    rows = [(f"{name}, ms a step", *(1e3 * seconds for seconds in found[name])) for name in ("train", "probe")]
    rows.append(("ratio, wanted <= 1.3", *found["ratio"]))
    header = ("", *(f"round {i + 1}" for i in range(given.rounds)))
    print(timing.table(f"Probe of {given.steps} steps, MLP {given.widths}, batch {given.batch}", header, rows))
    print(f"median ratio {timing.text_of(timing.spread(found['ratio']))}")


if __name__ == "__main__":
    main()
