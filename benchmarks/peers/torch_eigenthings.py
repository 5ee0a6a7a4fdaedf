"""Lanczos with hessian-eigenthings in eager PyTorch, as a good user would write it.

    .venv-bench/bin/python benchmarks/peers/torch_eigenthings.py --case results/curvature [--method tridiagonal]

    tridiagonal   lanczos_tridiagonal with full reorthogonalisation: just the steps, its cheapest way to the eigenvalues
    density       spectral_density with one probe and its defaults otherwise: the same, and a density on 10,000 points
    lanczos       lanczos(k=5) with full reorthogonalisation: also eigenvectors and residuals
    default       the same with its default, which is no reorthogonalisation above 50 steps

The data is one batch of tensors, the product its default (double backward). Prints one JSON object. With --serve it
waits for lines on stdin and measures itself once for each.
"""

import argparse
import json
import pathlib
import resource
import sys
import time

METHODS = ("tridiagonal", "density", "lanczos", "default")


def options(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Time Lanczos in hessian-eigenthings.")
    parser.add_argument("--case", type=pathlib.Path, required=True, help="folder of case.npz")
    parser.add_argument("--method", choices=METHODS, default="tridiagonal")
    parser.add_argument("--product", choices=("autograd", "finite_difference"), default="autograd")
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help="measure once for each line of stdin")
    return parser.parse_args(arguments)


def operator(given):
    """The Hessian of the mean cross-entropy."""
    import hessian_eigenthings as he
    import numpy as np
    import torch
    from torch import nn

    torch.set_num_threads(given.threads)
    with np.load(given.case / "case.npz") as file:
        count = sum(name.startswith("w") for name in file.files)
        kernels = [torch.from_numpy(file[f"w{i}"].T.copy()) for i in range(count)]
        biases = [torch.from_numpy(file[f"b{i}"]) for i in range(count)]
        batch = (torch.from_numpy(file["x"]), torch.from_numpy(file["y"]).long())
    layers = []
    for kernel, bias in zip(kernels, biases, strict=True):
        layer = nn.Linear(kernel.shape[1], kernel.shape[0])
        layer.weight, layer.bias = nn.Parameter(kernel), nn.Parameter(bias)
        layers += [layer, nn.ReLU()]
    model = nn.Sequential(*layers[:-1])

    def loss(model, batch):
        return nn.functional.cross_entropy(model(batch[0]), batch[1])

    return he.HessianOperator(model, [batch], loss, method=given.product)


def eigenvalues_of(given, H):
    """A function () -> eigenvalues, in any order; `default` and `lanczos` give five at the top."""
    import hessian_eigenthings as he
    import torch

    def tridiagonal():
        start = torch.randn(H.size, generator=torch.Generator().manual_seed(given.seed))
        t = he.lanczos_tridiagonal(H, start, given.steps, reorthogonalize=True)
        return torch.linalg.eigvalsh(torch.diag(t.alphas) + torch.diag(t.betas, 1) + torch.diag(t.betas, -1))

    def density():
        return he.spectral_density(H, num_runs=1, lanczos_steps=given.steps, seed=given.seed).raw_eigenvalues[0]

    def top(reorthogonalize):
        settings = {"k": 5, "max_iter": given.steps, "which": "LA", "seed": given.seed}
        return he.lanczos(H, reorthogonalize=reorthogonalize, **settings).eigenvalues

    ways = {"tridiagonal": tridiagonal, "density": density, "lanczos": lambda: top(True), "default": lambda: top(None)}
    return ways[given.method]


def peak_bytes():
    """The most memory that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # KiB on Linux


def measurer(given):
    """A function () -> {"seconds", "top", "bottom", "peak_bytes"}; the peak counts what a run adds to the process."""
    H = operator(given)
    eigenvalues, before = eigenvalues_of(given, H), peak_bytes()

    def measure():
        begin = time.perf_counter()
        values = sorted(eigenvalues().tolist(), reverse=True)
        seconds = time.perf_counter() - begin
        bottom = values[-1] if len(values) > 5 else None
        return {"seconds": seconds, "top": values[:5], "bottom": bottom, "peak_bytes": peak_bytes() - before}

    measure()
    return measure


def main():
    """Warm up, time, print JSON."""
    given = options()
    measure = measurer(given)
    if not given.serve:
        import torch

        print(json.dumps({**vars(given), "case": str(given.case), "torch": torch.__version__, **measure()}))
        return
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    main()
