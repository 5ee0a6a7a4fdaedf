"""The case of curvature.py: trained weights, their images, and eigenvalues in float64. Two processes of their own.

    python benchmarks/curvature_case.py make --data FOLDER --case results/curvature        case.npz, case.json
    JAX_ENABLE_X64=1 python benchmarks/curvature_case.py reference --case results/curvature    reference.json

MLP 784-512-512-10 with ReLU, 669,706 parameters, after one epoch of Adam (learning rate 1e-3, batches of 128) on the
60,000 images of MNIST; mean cross-entropy on the first 2,000 of them. Weights are kernels [in, out] named w0, w1, w2
and biases b0, b1, b2. The reference uses nothing of plasticity_jax: jax.jvp of jax.grad, and scipy's eigsh.
"""

import argparse
import hashlib
import itertools
import json
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["IMAGES", "WIDTHS", "digest", "initial", "load", "loss", "make", "reference", "train"]

WIDTHS = (784, 512, 512, 10)
IMAGES = 2_000
SEED = 0
RATE, BATCH = 1e-3, 128
TOP = 5
TOLERANCE = 1e-10


def logits(params, x):
    """x: [B, 784] -> [B, 10]."""
    layers = len(params) // 2
    for i in range(layers):
        x = x @ params[f"w{i}"] + params[f"b{i}"]
        x = jax.nn.relu(x) if i < layers - 1 else x
    return x


def loss(params, batch):
    """Mean cross-entropy; batch: (x [B, 784], y [B] int32)."""
    x, y = batch
    z = jax.nn.log_softmax(logits(params, x))
    return -jnp.mean(jnp.take_along_axis(z, y[:, None], axis=1))


def initial(key, widths=WIDTHS):
    """PyTorch's default: kernels and biases uniform within 1 / sqrt(fan_in)."""
    params = {}
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        key_w, key_b = jax.random.split(jax.random.fold_in(key, i))
        bound = fan_in**-0.5
        params[f"w{i}"] = jax.random.uniform(key_w, (fan_in, fan_out), minval=-bound, maxval=bound)
        params[f"b{i}"] = jax.random.uniform(key_b, (fan_out,), minval=-bound, maxval=bound)
    return params


def train(key, x, y, widths=WIDTHS):
    """The weights after one epoch of Adam; what is left over from whole batches is not used."""
    import optax

    x, y = jnp.asarray(x), jnp.asarray(y)
    key_init, key_order = jax.random.split(key)
    params, adam = initial(key_init, widths), optax.adam(RATE)
    order = jax.random.permutation(key_order, len(y))[: len(y) // BATCH * BATCH].reshape(-1, BATCH)

    def step(carry, rows):
        params, state = carry
        updates, state = adam.update(jax.grad(loss)(params, (x[rows], y[rows])), state)
        return (optax.apply_updates(params, updates), state), None

    return jax.jit(lambda start: jax.lax.scan(step, start, order)[0][0])((params, adam.init(params)))


def digest(params):
    """SHA-256 of the weights' bytes, in the order of their names."""
    found = hashlib.sha256()
    for name in sorted(params):
        found.update(np.ascontiguousarray(params[name]).tobytes())
    return found.hexdigest()


def all_images(folder):
    """(x [N, 784] float32 in 0..1, y [N] int32): the 60,000 of MNIST in a folder, or 2,000 made up for "synthetic"."""
    from plasticity_jax.host import data

    made_up = {"images": IMAGES, "test_images": 10, "height": 28, "width": 28}
    found = data.load("synthetic", **made_up) if folder == "synthetic" else data.load("mnist", folder)
    train = found.arrays["train"]
    return (train["x"].reshape(len(train["y"]), -1) / np.float32(255)).astype(np.float32), train["y"]


def make(folder, case):
    """Train, and save case.npz: the weights, `x` and `y` of the images. Returns what case.json says of them."""
    x, y = all_images(folder)
    params = jax.device_get(train(jax.random.key(SEED), x, y))
    case.mkdir(parents=True, exist_ok=True)
    np.savez(case / "case.npz", **params, x=x[:IMAGES], y=y[:IMAGES])
    batch = (x[:IMAGES], y[:IMAGES])
    found = {
        "seed": SEED,
        "sha256": digest(params),
        "parameters": sum(leaf.size for leaf in params.values()),
        "loss": float(loss(params, batch)),
        "accuracy": float(np.mean(np.argmax(logits(params, batch[0]), 1) == batch[1])),
    }
    (case / "case.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def load(case):
    """(params, (x, y)) of case.npz."""
    with np.load(pathlib.Path(case) / "case.npz") as file:
        params = {name: file[name] for name in file.files if name not in "xy"}
        return params, (file["x"], file["y"])


def reference(case):
    """The largest eigenvalues in float64, descending, and their residuals relative to the largest."""
    from jax.flatten_util import ravel_pytree
    from scipy.sparse.linalg import LinearOperator, eigsh

    if not jax.config.jax_enable_x64:
        raise ValueError("The reference is computed in float64: set JAX_ENABLE_X64=1.")
    params, (x, y) = load(case)
    sha256 = digest(params)
    flat, unravel = ravel_pytree(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params))
    batch, count = (jnp.asarray(x, jnp.float64), jnp.asarray(y)), [0]
    gradient = jax.grad(lambda p, batch: loss(unravel(p), batch))
    compiled = jax.jit(lambda p, v, batch: jax.jvp(lambda p: gradient(p, batch), (p,), (v,))[1])

    def product(v):
        count[0] += 1
        return np.asarray(compiled(flat, v.reshape(-1), batch))

    begin = time.perf_counter()
    start = np.random.default_rng(SEED).standard_normal(flat.size)
    A = LinearOperator((flat.size, flat.size), matvec=product, dtype=np.float64)
    values, vectors = eigsh(A, k=TOP, which="LA", tol=TOLERANCE, v0=start)
    residuals = [
        np.linalg.norm(product(u) - value * u) / values[-1] for value, u in zip(values, vectors.T, strict=True)
    ]
    found = {
        "sha256": sha256,
        "top": values[::-1].tolist(),
        "residuals": residuals[::-1],
        "products": count[0],
        "seconds": time.perf_counter() - begin,
    }
    (pathlib.Path(case) / "reference.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def main():
    """Do what the command line asks and print JSON."""
    parser = argparse.ArgumentParser(description="Make the case of curvature.py.")
    parser.add_argument("what", choices=("make", "reference"))
    parser.add_argument("--case", type=pathlib.Path, required=True, help="folder of case.npz and reference.json")
    parser.add_argument("--data", help="folder that holds MNIST, or `synthetic`; default PLASTICITY_JAX_DATA")
    given = parser.parse_args()
    print(json.dumps(make(given.data, given.case) if given.what == "make" else reference(given.case)))


if __name__ == "__main__":
    main()
