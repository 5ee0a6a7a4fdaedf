"""Lanczos with matfree, as a good user would write it: one compiled program that returns eigenvalues and no basis.

    .venv/bin/python benchmarks/peers/matfree_lanczos.py --case results/curvature [--steps 64] [--custom-vjp]

Weights and data are arguments of the program, the product is jax.jvp of jax.grad, whose forward pass XLA moves out of
the loop, and the gradients that matfree offers of the decomposition are off unless asked for. Prints one JSON object.
With --serve it waits for lines on stdin and measures itself once for each. Uses nothing of plasticity_jax.
"""

import argparse
import json
import pathlib
import sys
import time


def options(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Time Lanczos in matfree.")
    parser.add_argument("--case", type=pathlib.Path, required=True, help="folder of case.npz")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--custom-vjp", action="store_true", help="matfree's default, for gradients through it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help="measure once for each line of stdin")
    return parser.parse_args(arguments)


def loss(params, batch):
    """Mean cross-entropy of an MLP with ReLU."""
    import jax
    import jax.numpy as jnp

    z, y = batch
    last = len(params) // 2 - 1
    for i in range(last + 1):
        z = z @ params[f"w{i}"] + params[f"b{i}"]
        z = jax.nn.relu(z) if i < last else z
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(z), y[:, None], axis=1))


def program(given):
    """(compiled program, its arguments): (start vector, params, batch) -> eigenvalues [steps], ascending."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from matfree import decomp

    with np.load(given.case / "case.npz") as file:
        params = {name: jnp.asarray(file[name]) for name in file.files if name not in "xy"}
        batch = (jnp.asarray(file["x"]), jnp.asarray(file["y"]))
    keys = dict(zip(params, jax.random.split(jax.random.key(given.seed), len(params)), strict=True))
    start = {name: jax.random.normal(keys[name], leaf.shape) for name, leaf in params.items()}
    tridiagonal = decomp.tridiag_sym(given.steps, reortho="full", custom_vjp=given.custom_vjp)

    def product(v, params, batch):
        return jax.jvp(lambda p: jax.grad(loss)(p, batch), (params,), (v,))[1]

    def eigenvalues(start, params, batch):
        return jnp.linalg.eigvalsh(tridiagonal(product, start, params, batch).J_small)

    arguments = (start, params, batch)
    return jax.jit(eigenvalues).lower(*arguments).compile(), arguments


def measurer(given):
    """A function () -> {"seconds", "top", "bottom", "peak_bytes"}."""
    import jax

    compiled, arguments = program(given)
    memory = compiled.memory_analysis()
    peak = memory.temp_size_in_bytes + memory.output_size_in_bytes

    def measure():
        begin = time.perf_counter()
        values = jax.block_until_ready(compiled(*arguments))
        seconds = time.perf_counter() - begin
        values = values.tolist()
        return {"seconds": seconds, "top": values[:-6:-1], "bottom": values[0], "peak_bytes": peak}

    measure()
    return measure


def main():
    """Warm up, time, print JSON."""
    given = options()
    measure = measurer(given)
    if not given.serve:
        import jax

        print(json.dumps({"steps": given.steps, "custom_vjp": given.custom_vjp, "jax": jax.__version__, **measure()}))
        return
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    main()
