"""Our programs, timed and weighed as the scripts run them. A process of its own; train_step.py starts it.

    python benchmarks/ours.py speed --runs 32 --steps 1000        seed-steps per second
    python benchmarks/ours.py memory --runs 8                     what the training program itself holds
    python benchmarks/ours.py diagnostics --runs 8 --steps 7500   a boundary's cheap diagnostics against its task
    python benchmarks/ours.py online --runs 8 --steps 1000        what the metrics inside a task cost
    python benchmarks/ours.py export                              does it lower for TPU and CUDA
    python benchmarks/ours.py flops                               of the matrix products of one step, by the definition

Each prints one JSON object. With --serve, `speed` waits for lines on stdin and times itself once for each.
"""

import argparse
import functools
import itertools
import json
import statistics
import time
from unittest import mock

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import timing

from plasticity_jax import cli, run, train
from plasticity_jax.base import Clock
from plasticity_jax.build import COSTLY, build, spec_of
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.flops import matrix_flops
from plasticity_jax.host import environment
from plasticity_jax.networks import layers
from plasticity_jax.networks.convolution import LAYOUT
from plasticity_jax.online import Online
from plasticity_jax.online import online as watched

__all__ = ["configuration", "diagnostics", "export", "memory", "online", "prepared", "speed"]

COPIES = 20  # of all that is measured online, since one costs less than two programs differ by


def configuration(
    widths, batch, images, runs, segment_steps, data=None, devices=0, runs_per_batch=0, network=None, shape=(28, 28, 1)
):
    """Random Label MNIST of Kumar et al. 2023 (Table 1), with these sizes; PyTorch's default initialisation.

    Args:
      widths: units of the hidden layers.
      batch, images, runs, segment_steps: ints.
      data: folder that holds MNIST; None for random images of the same shape.
      devices, runs_per_batch: as in the configuration's block `parallel`.
      network: block of the configuration; None: the MLP of these widths.
      shape: (height, width, channels) of random images.
    """
    sizes = dict(zip(("height", "width", "channels"), shape, strict=True))
    synthetic = {"name": "synthetic", "images": images, "test_images": 10, **sizes}
    mlp = {"name": "mlp", "widths": tuple(widths), "kernel_init": "torch", "bias_init": "torch"}
    return {
        "seeds": runs,
        "tasks": 1,
        "segment_steps": segment_steps,
        "data": {"name": "mnist", "dir": data} if data else synthetic,
        "stream": {"name": "random_labels", "steps": segment_steps, "batch": batch, "images": images},
        "network": network or mlp,
        "optimizer": {"name": "adam", "learning_rate": 1e-3},
        "diagnostics": {name: {} for name in DIAGNOSTICS if name not in COSTLY},
        "parallel": {"devices": devices, "runs_per_batch": runs_per_batch},
    }


def prepared(config):
    """The configuration on the devices: (job, states, diagnostics' states)."""
    dataset = run.load_data(config)
    plan = build(config, spec_of(dataset.arrays, dataset.classes))
    job = run.prepare(plan, dataset.arrays)
    states = job.programs.init(job.settings, job.keys, job.data)
    return job, states, job.programs.begin(job.settings, states, job.data)


def speed(config):
    """A function () -> {"seconds", "seed_steps", "devices", ...} that trains one segment after another, warm."""
    job, states, _ = prepared(config)
    held = [states, 0]

    def measure():
        begin = time.perf_counter()
        held[0], online = job.programs.run_segment(job.settings, held[0], job.data, _clock(held[1]))
        jax.block_until_ready((held[0], online))
        seconds = time.perf_counter() - begin
        held[1] += config["segment_steps"]
        seed_steps = config["segment_steps"] * config["seeds"]
        parallel = {"devices": job.mesh.size, "runs_per_batch": job.runs_per_batch}
        finite = bool(np.isfinite(online["online_loss"]).all())
        return {"seconds": seconds, "seed_steps": seed_steps, "finite": finite, **parallel}

    measure()
    return measure


def memory(config):
    """Bytes of the training program on one device, by its own memory analysis.

    Returns:
      {"arguments", "outputs", "aliased", "temporary", "peak": arguments + outputs - aliased + temporary - data,
      "state": bytes of one run's TrainState, "data", "runs"}, all in bytes but the last.
    """
    job, states, _ = prepared(config)
    found = job.programs.run_segment.lower(job.settings, states, job.data, _clock(0)).compile().memory_analysis()
    data, runs = _bytes(job.data), config["seeds"]
    arguments, outputs = found.argument_size_in_bytes, found.output_size_in_bytes
    aliased, temporary = found.alias_size_in_bytes, found.temp_size_in_bytes
    return {
        "runs": runs,
        "state": _bytes(states) // runs,
        "data": data,
        "arguments": arguments,
        "outputs": outputs,
        "aliased": aliased,
        "temporary": temporary,
        "peak": arguments + outputs - aliased + temporary - data,
    }


def diagnostics(config, repeats=5):
    """Seconds of each cheap diagnostic in a program of its own, and of the task before the boundary: medians, warm."""
    job, states, memory = prepared(config)
    names = tuple(job.plan.every)

    def measured(names):
        begin = time.perf_counter()
        end = _clock(config["segment_steps"])
        jax.block_until_ready(job.programs.measure(job.settings, states, memory, job.data, end, names))
        return time.perf_counter() - begin

    def warm_median(names):
        measured(names)
        return statistics.median(measured(names) for _ in range(repeats))

    def trained(states):
        begin = time.perf_counter()
        states, _ = jax.block_until_ready(job.programs.run_segment(job.settings, states, job.data, _clock(0)))
        return states, time.perf_counter() - begin

    states, _ = trained(states)  # compiles
    task = []
    for _ in range(min(repeats, 3)):
        states, seconds = trained(states)
        task.append(seconds)
    return {
        "each_seconds": {name: warm_median((name,)) for name in names},
        "task_seconds": statistics.median(task),
    }


def _copied(network, objective, segment_steps, **settings):
    """`online.online`, and COPIES of it for outputs and inputs that differ a little, so that none can be left out."""
    once = watched(network, objective, segment_steps, **settings)

    def factors(seen):
        return [1 + 1e-3 * seen * (i + 1) for i in range(COPIES)]

    def step(snapshot):
        outputs = snapshot.outputs
        others = [snapshot._replace(outputs=outputs._replace(y=outputs.y * f)) for f in factors(snapshot.loss)]
        return {**once.step(snapshot), "copies": [once.step(other) for other in others]}

    def look(key, step, variables, batch, before):
        batches = [batch, *({**batch, "x": batch["x"] * f} for f in factors(before))]
        return jnp.stack([once.look(key, step, variables, batch, before) for batch in batches])

    def segment(diverged, found, gained):
        copies = found.pop("copies")
        pairs = zip([found, *copies], gained.T, strict=True)
        return jax.tree.map(lambda *a: jnp.stack(a).mean(0), *(once.segment(diverged, *pair) for pair in pairs))

    return Online(once.stretch, step, look, segment)


def online(config, turns=40):
    """Seconds of a segment whose scan reports the loss alone, all online metrics, and these with COPIES of them.

    Short segments and many turns, each in another order: the machine changes its pace from second to second.

    Returns:
      {"bare", "metrics", "copies": list of seconds, one of each in every turn}.
    """

    def bare(network, objective, segment_steps, **settings):
        def step(snapshot):
            return {"loss": snapshot.loss}

        def look(key, step, variables, batch, before):
            return ()

        def segment(diverged, found, gained):
            return {"online_loss": found["loss"].mean()}

        return Online(segment_steps, step, look, segment)

    programs = {"bare": bare, "metrics": train.online, "copies": _copied}
    kinds, found = {}, {name: [] for name in programs}
    for name, watch in programs.items():
        with mock.patch.object(train, "online", watch):
            kinds[name] = speed(config)
    for turn in range(turns):
        for name in list(itertools.permutations(kinds))[turn % 6]:
            found[name].append(kinds[name]()["seconds"])
    return found


def flops(config):
    """FLOPs of the matrix products and convolutions of one seed and step, whatever way they are computed."""
    job, states, _ = prepared({**config, "seeds": 1})
    jaxpr = jax.make_jaxpr(job.programs.run_segment)(job.settings, states, job.data, _clock(0))
    return {"flops": matrix_flops(jaxpr) / config["segment_steps"]}


def export(config, choices=(("tpu",), ("cuda",), ("tpu", "cuda"))):
    """Lower the training program with jax.export, for each platform and for both: its bytes, or what forbids it."""
    job, states, _ = prepared(config)
    operands = (job.settings, states, job.data, _clock(0))
    found = {}
    for platforms in choices:
        try:
            exported = jax.export.export(job.programs.run_segment, platforms=list(platforms))(*operands)
            result = {"bytes": len(exported.mlir_module_serialized), "devices": exported.nr_devices}
        except Exception as error:  # the reason is the result, a custom call's name included
            result = {"error": f"{type(error).__name__}: {error}"}
        found[" and ".join(platforms)] = result
    return found


def _bytes(arrays):
    """Bytes of a tree of arrays; typed keys count as the words they hold."""

    def one(leaf):
        leaf = jax.random.key_data(leaf) if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        return leaf.nbytes

    return sum(one(leaf) for leaf in jax.tree.leaves(arrays))


def _clock(step):
    return Clock(np.int32(step), np.int32(0), np.int32(0))


def block(text):
    """A block of the configuration from JSON, which has lists for tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()}


def options(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Time our training program.")
    parser.add_argument("what", choices=("speed", "memory", "diagnostics", "online", "export", "flops", "environment"))
    parser.add_argument("--widths", default="100,100", help="units of the hidden layers")
    parser.add_argument("--network", type=block, help="block of the configuration as JSON, instead of widths")
    parser.add_argument("--shape", default="28,28,1", help="height, width and channels of random images")
    parser.add_argument("--xla-convolution", action="store_true", help="the convolution of XLA instead of ours")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--data", help="folder that holds MNIST; by default images are random")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=1000, help="steps of one timing, a compiled segment")
    parser.add_argument("--devices", type=int, default=0)
    parser.add_argument("--runs-per-batch", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help="time once for each line of stdin")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Do what the command line asks and print JSON."""
    given = options(arguments)
    widths = tuple(int(width) for width in given.widths.split(","))
    sizes = (widths, given.batch, given.images, given.runs, given.steps)
    parallel, shape = (given.devices, given.runs_per_batch), tuple(map(int, given.shape.split(",")))
    config = configuration(*sizes, given.data, *parallel, given.network, shape)
    if given.xla_convolution:
        layers.conv = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=LAYOUT)
    cli.set_up(config)
    if given.what == "environment":
        print(json.dumps({**environment.describe(), "backend": jax.default_backend()}))
    elif given.serve:
        timing.serve(speed(config))
    else:
        does = {"speed": lambda c: speed(c)(), "memory": memory, "diagnostics": diagnostics, "export": export}
        does |= {"flops": flops, "online": online}
        print(json.dumps(does[given.what](config)))


if __name__ == "__main__":
    main()
