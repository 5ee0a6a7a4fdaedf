"""The training step of a network in plain PyTorch, channels last: forward pass, gradient, Adam.

    .venv-bench/bin/python benchmarks/peers/torch_step.py --network '{"name": "resnet18"}' [--threads 2]

Networks are those of torch_networks.py. Images are random float tensors, gradients are set to None instead of zero, and
nothing is read back inside a step. Prints one JSON object; with --serve it waits for lines on stdin and times itself
once for each.
"""

import argparse
import json
import sys
import time

import torch
import torch_networks
from torch import nn


def options(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Time the training step of a network in PyTorch.")
    parser.add_argument("--network", type=json.loads, required=True, help="name and settings as JSON")
    parser.add_argument("--shape", default="32,32,3", help="height, width and channels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=4, help="how many there are; they are used in turn")
    parser.add_argument("--steps", type=int, default=8, help="steps of one timing")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adam", choices=("default", "fused"), default="fused", help="which of its loops")
    parser.add_argument("--serve", action="store_true", help="time once for each line of stdin")
    return parser.parse_args(arguments)


def trainer(given):
    """A function (steps) that trains."""
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    height, width, channels = map(int, given.shape.split(","))
    model = torch_networks.build(image=(channels, height, width), outputs=10, **given.network)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **({"fused": True} if given.adam == "fused" else {}))
    x = torch.rand(given.batches, given.batch, channels, height, width)
    xs = [batch.contiguous(memory_format=torch.channels_last) for batch in x]
    ys = torch.randint(0, 10, (given.batches, given.batch))

    def train(steps):
        for i in range(steps):
            optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(model(xs[i % given.batches]), ys[i % given.batches]).backward()
            optimizer.step()

    return train


def main():
    """Warm up, time, print JSON."""
    given = options()
    train = trainer(given)
    train(2)

    def measure():
        begin = time.perf_counter()
        train(given.steps)
        return {"seconds": time.perf_counter() - begin, "seed_steps": given.steps}

    if not given.serve:
        print(json.dumps({**vars(given), "torch": torch.__version__, **measure()}))
        return
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    main()
