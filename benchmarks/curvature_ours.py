"""Our curvature package, timed and weighed. A process of its own; curvature.py starts it.

    python benchmarks/curvature_ours.py lanczos --case results/curvature [--steps 64] [--serve]

    gradients   as many gradients as there are steps, one after another in one program: the unit of cost
    products    as many Hessian products, each of the one before, scaled to length 1
    lanczos     cv.lanczos with full reorthogonalisation, and its eigenvalues
    vmap, calls, map    8 seeds of MLP 784-60-32-10 (49,382 parameters): one program with a run axis, 8 calls, a lax.map
    memory      bytes of cv.lanczos, of one product and of one gradient, by the compiler's analysis
    export      does cv.slq lower for CUDA and TPU

With --images 60000 --microbatch 500 the data is all of MNIST, else that of the case. Each prints one JSON object. With
--serve, the timed ones wait for lines on stdin and measure themselves once for each.
"""

import argparse
import json
import time

import curvature_case
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import timing

from plasticity_jax import cli, tree
from plasticity_jax import curvature as cv
from plasticity_jax.curvature.data import average

__all__ = ["export", "gradients", "lanczos", "memory", "products", "seeds"]

LOSS = curvature_case.loss
SMALL = (784, 60, 32, 10)
SEEDS = 8


def problem(given):
    """(params, batch) on the device: the case's, or its weights and more images."""
    params, batch = curvature_case.load(given.case)
    if given.images:
        x, y = curvature_case.all_images(given.data)
        batch = (x[: given.images], y[: given.images])
    return jax.device_put((params, batch))


def hessian(given):
    """The operator of the case."""
    params, batch = problem(given)
    return cv.hessian(LOSS, params, batch, microbatch=given.microbatch)


def gradients(given):
    """A function () -> arrays: `steps` gradients in one program, each at weights that wait for the one before."""
    params, batch = problem(given)

    @jax.jit
    def program(params, batch):
        def body(_, params):
            g = average(lambda part, _: jax.grad(LOSS)(params, part), batch, given.microbatch)
            return tree.axpy(-1e-9, g, params)

        return jax.lax.fori_loop(0, given.steps, body, params)

    return lambda: program(params, batch)


def products(given):
    """A function () -> arrays: `steps` bare Hessian products in one program."""
    H = hessian(given)

    @jax.jit
    def program(H, v):
        product = H.product()

        def body(_, v):
            w = product(v)
            return tree.scale(1.0 / tree.norm(w), w)

        return jax.lax.fori_loop(0, given.steps, body, v)

    v = H.random(jax.random.key(given.seed))
    return lambda: program(H, v)


def lanczos(given):
    """A function () -> (alphas, betas, live, basis) of cv.lanczos."""
    H, key = hessian(given), jax.random.key(given.seed)
    return lambda: cv.lanczos(H, given.steps, key=key, reorthogonalize="full")


def eigenvalues(t):
    """{"top": five, "bottom", "live"}: of the live part of a Lanczos run."""
    live = int(t.live.sum())
    alphas, betas = np.asarray(t.alphas)[:live], np.asarray(t.betas)[: live - 1]
    values = np.linalg.eigvalsh(np.diag(alphas) + np.diag(betas, 1) + np.diag(betas, -1))
    return {"top": values[:-6:-1].tolist(), "bottom": float(values[0]), "live": live}


def seeds(given, how):
    """A function () -> nodes [8, k] of cv.slq for 8 trained small networks: by "vmap", "calls" or "map"."""
    _, batch = problem(given)
    keys = jax.random.split(jax.random.key(given.seed), SEEDS)
    params = jax.vmap(lambda key: curvature_case.train(key, *batch, SMALL))(keys)

    def one(params, key, batch):
        return cv.slq(cv.hessian(LOSS, params, batch), steps=given.steps, probes=1, key=key).nodes

    if how == "calls":
        program = jax.jit(one)
        runs = [jax.tree.map(lambda leaf, i=i: leaf[i], (params, keys)) for i in range(SEEDS)]
        return lambda: [jax.block_until_ready(program(*run, batch)) for run in runs]
    if how == "vmap":
        program = jax.jit(jax.vmap(one, (0, 0, None)))
    else:
        program = jax.jit(lambda params, keys, batch: jax.lax.map(lambda run: one(*run, batch), (params, keys)))
    return lambda: program(params, keys, batch)


def memory(given):
    """Bytes of temporary buffers and outputs: of Lanczos, of one product, of one gradient; and of its basis."""
    H, key = hessian(given), jax.random.key(given.seed)
    params, batch = problem(given)
    v = H.random(key)
    programs = {
        "lanczos": (lambda H: cv.lanczos(H, given.steps, key=key, reorthogonalize="full"), (H,)),
        "product": (lambda H, v: H @ v, (H, v)),
        "gradient": (
            lambda p, batch: average(lambda part, _: jax.grad(LOSS)(p, part), batch, given.microbatch),
            (params, batch),
        ),
    }
    found = {name: _bytes(jax.jit(f).lower(*operands).compile()) for name, (f, operands) in programs.items()}
    arguments = sum(leaf.nbytes for leaf in jax.tree.leaves((params, batch)))
    return {**found, "basis": given.steps * H.size * 4, "arguments": arguments}


def _bytes(compiled):
    found = compiled.memory_analysis()
    return found.temp_size_in_bytes + found.output_size_in_bytes


def export(given, choices=(("cuda",), ("tpu",), ("cuda", "tpu"))):
    """Lower cv.slq with jax.export, for each platform and for both: its bytes, or what forbids it."""
    H, found = hessian(given), {}
    program = jax.jit(lambda H, key: cv.slq(H, steps=given.steps, probes=1, key=key).nodes)
    for platforms in choices:
        try:
            exported = jax.export.export(program, platforms=list(platforms))(H, jax.random.key(given.seed))
            result = {"bytes": len(exported.mlir_module_serialized)}
        except Exception as error:  # the reason is the result, a custom call's name included
            result = {"error": f"{type(error).__name__}: {error}"}
        found[" and ".join(platforms)] = result
    return found


def measurer(given):
    """A function () -> {"seconds", ...}, warm."""
    if given.what in ("vmap", "calls", "map"):
        run = seeds(given, given.what)
    else:
        run = {"gradients": gradients, "products": products, "lanczos": lanczos}[given.what](given)

    def measure():
        begin = time.perf_counter()
        found = jax.block_until_ready(run())
        more = eigenvalues(found) if given.what == "lanczos" else {}
        seconds = time.perf_counter() - begin
        finite = all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(found))
        return {"seconds": seconds, "finite": finite, **more}

    measure()
    return measure


def options(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Time our curvature package.")
    timed = ("gradients", "products", "lanczos", "vmap", "calls", "map")
    parser.add_argument("what", choices=(*timed, "memory", "export", "environment"))
    parser.add_argument("--case", help="folder of case.npz")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--images", type=int, help="images of MNIST instead of the case's")
    parser.add_argument("--microbatch", type=int)
    parser.add_argument("--data", help="folder that holds MNIST; default PLASTICITY_JAX_DATA")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help="measure once for each line of stdin")
    return parser.parse_args(arguments)


def main(arguments=None):
    """Do what the command line asks and print JSON."""
    given = options(arguments)
    cli.use_compilation_cache()
    if given.what == "environment":
        from plasticity_jax.host import environment

        print(json.dumps({**environment.describe(), "backend": jax.default_backend()}))
    elif given.what in ("memory", "export"):
        print(json.dumps({"memory": memory, "export": export}[given.what](given)))
    elif given.serve:
        timing.serve(measurer(given))
    else:
        print(json.dumps(measurer(given)()))


if __name__ == "__main__":
    main()
