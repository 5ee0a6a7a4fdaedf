"""One core's rates: every product and triad of the roofline in one library. A worker; see roofline.py and timing.py.

Only the library that is asked for is imported, because the peers' interpreter has no jax and ours no torch.
"""

import argparse
import os

import timing
from roofline import FLOAT_BYTES, LARGE, SMALL, layers, triad_sets

__all__ = ["all_products", "job_products"]

SQUARES = (256, 512, 1024, 2048)


def job_products(widths, batch):
    """The products of one training step: name -> (shape, shape, transposed), as operands lie in memory."""
    found = {}
    for i, (fan_in, fan_out) in enumerate(layers(widths)):
        x, w, d = (batch, fan_in), (fan_in, fan_out), (batch, fan_out)
        label = f"{batch} x {fan_in} x {fan_out}"
        found[f"forward {label}"] = (x, w, "")
        found[f"weight gradient {label}"] = (x, d, "left")
        if i:
            found[f"input gradient {label}"] = (d, w, "right")
    return found


def all_products(quick=False):
    """The products that are tried: squares, and those of both networks."""
    squares = SQUARES[:2] if quick else SQUARES
    found = {f"square {n}": ((n, n), (n, n), "") for n in squares}
    return found | job_products(*SMALL) | job_products(*LARGE)


def _numpy():
    """(array of a shape, product maker, triad maker) of a library; a maker returns a function of the repetitions."""
    import numpy as np

    def product(a, b, transposed):
        a, b = (a.T if transposed == "left" else a), (b.T if transposed == "right" else b)
        out = np.empty((a.shape[0], b.shape[1]), np.float32)

        def repeat(count):
            for _ in range(count):
                np.matmul(a, b, out=out)

        return repeat

    random = np.random.default_rng(0)
    return lambda shape: random.standard_normal(shape, np.float32), product, None  # its triad takes two passes


def _jax():
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax

    def looped(once, *operands):
        @jax.jit
        def program(count, *operands):
            def body(_, carry):
                *operands, _ = jax.lax.optimization_barrier(carry)  # the product depends on the one before it
                return (*operands, once(*operands))

            first = jax.eval_shape(once, *operands)
            return jax.lax.fori_loop(0, count, body, (*operands, jax.numpy.zeros(first.shape)))[-1]

        return lambda count: program(count, *operands).block_until_ready()

    def product(a, b, transposed):
        dims = (((0 if transposed == "left" else 1,), (1 if transposed == "right" else 0,)), ((), ()))
        return looped(lambda a, b: jax.lax.dot_general(a, b, dims), a, b)

    def array(shape):
        return jax.random.normal(jax.random.key(0), shape)

    return array, product, lambda b, c: looped(lambda b, c: b + 3.0 * c, b, c)


def _torch():
    import torch

    torch.set_num_threads(1)

    def repeated(once):
        def repeat(count):
            for _ in range(count):
                once()

        return torch.inference_mode()(repeat)

    def product(a, b, transposed):
        a, b = (a.T if transposed == "left" else a), (b.T if transposed == "right" else b)
        out = torch.empty(a.shape[0], b.shape[1])
        return repeated(lambda: torch.mm(a, b, out=out))

    def triad(b, c):
        out = torch.empty_like(b)
        return repeated(lambda: torch.add(b, c, alpha=3.0, out=out))

    return torch.randn, product, triad


def _work(library, cores, quick):
    """Be a worker: one core's rates in one library."""
    array, product, triad = {"numpy": _numpy, "jax": _jax, "torch": _torch}[library]()
    seconds = 0.001 if quick else 0.2
    products = {
        name: (product(array(a), array(b), transposed), 2 * a[0] * a[1] * b[0 if transposed == "right" else 1])
        for name, (a, b, transposed) in all_products(quick).items()
    }
    lengths = {name: total // (3 * FLOAT_BYTES) for name, total in triad_sets(cores).items()} if triad else {}
    triads = {name: (triad(array((n,)), array((n,))), 3 * FLOAT_BYTES * n) for name, n in lengths.items()}
    for repeat, _ in [*products.values(), *triads.values()]:
        repeat(2)  # compiled before the first measurement

    def measure():
        return {
            "products": {name: timing.best_rate(*item, seconds) for name, item in products.items()},
            "triads": {name: timing.best_rate(*item, seconds) for name, item in triads.items()},
        }

    timing.serve(measure)


def main():
    """Be a worker."""
    parser = argparse.ArgumentParser(description="A worker of roofline.py.")
    parser.add_argument("--library", choices=("numpy", "jax", "torch"), required=True)
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--cores", type=int, required=True, help="how many are in use")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    timing.pin(given.core)
    _work(given.library, given.cores, given.quick)


if __name__ == "__main__":
    main()
