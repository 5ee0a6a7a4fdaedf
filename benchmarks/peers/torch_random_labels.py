"""Random Label MNIST in plain PyTorch, as a good user would write it: one seed, one process.

    .venv-bench/bin/python benchmarks/peers/torch_random_labels.py [--adam fused] [--compile] [--threads 2]

Images are float tensors from the start, each epoch is shuffled once and cut into views, gradients are set to None
instead of zero, and nothing is read back from the device inside a step: no loss, no accuracy. Prints one JSON object
with the seconds of a step after warming up. With --serve it waits for lines on stdin and times itself once for each.
"""

import argparse
import gzip
import itertools
import json
import os
import pathlib
import sys
import time


def options(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description="Time the training step of an MLP in PyTorch.")
    parser.add_argument("--widths", default="100,100", help="units of the hidden layers")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--images", type=int, default=1200)
    parser.add_argument("--data", help="folder that holds MNIST (IDX, gzipped or not); by default images are random")
    parser.add_argument("--steps", type=int, default=5000, help="steps of one timing")
    parser.add_argument("--warm-up", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--core", type=int, help="stay on this core")
    parser.add_argument("--adam", choices=("default", "foreach", "fused"), default="default", help="which of its loops")
    parser.add_argument("--compile", action="store_true", help="torch.compile for the loss and for the optimizer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help="time once for each line of stdin")
    return parser.parse_args(arguments)


def load_images(folder, count, generator):
    """[count, 784] float32 in 0..1: the first images of MNIST, or random ones."""
    import torch

    if folder is None:
        return torch.randint(0, 256, (count, 784), generator=generator, dtype=torch.uint8).float() / 255
    names = ("train-images-idx3-ubyte", "train-images-idx3-ubyte.gz")
    places = [pathlib.Path(folder) / below / name for below in ("mnist", "MNIST/raw", "") for name in names]
    found = [path for path in places if path.exists()]
    if not found:
        sys.exit(f"{folder} holds neither mnist/{names[0]} nor {names[0]}.")
    open_file = gzip.open if found[0].suffix == ".gz" else open
    with open_file(found[0], "rb") as stream:
        pixels = bytearray(stream.read(16 + 784 * count)[16:])
    return torch.frombuffer(pixels, dtype=torch.uint8).reshape(count, 784).float() / 255


def trainer(given):
    """A function (steps) that trains on where it stopped."""
    import torch
    from torch import nn

    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    generator = torch.Generator().manual_seed(given.seed)
    images = load_images(given.data, given.images, generator)
    labels = torch.randint(0, 10, (given.images,), generator=generator)
    sizes = [784, *map(int, given.widths.split(",")), 10]
    layers = [nn.Linear(fan_in, fan_out) for fan_in, fan_out in itertools.pairwise(sizes)]
    hidden = [module for layer in layers[:-1] for module in (layer, nn.ReLU())]
    model = nn.Sequential(*hidden, layers[-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, **({} if given.adam == "default" else {given.adam: True}))

    def loss_of(x, y):
        return nn.functional.cross_entropy(model(x), y)

    update = optimizer.step
    if given.compile:
        loss_of, update = torch.compile(loss_of), torch.compile(optimizer.step)

    def batches():
        while True:
            order = torch.randperm(given.images, generator=generator)
            x, y = images.index_select(0, order), labels.index_select(0, order)
            pairs = zip(x.split(given.batch), y.split(given.batch), strict=True)
            yield from (pair for pair in pairs if len(pair[1]) == given.batch)

    stream = batches()

    def train(steps):
        for _ in range(steps):
            x, y = next(stream)
            optimizer.zero_grad(set_to_none=True)
            loss_of(x, y).backward()
            update()

    return train


def main():
    """Warm up, time, print JSON."""
    given = options()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})  # before torch counts the cores
    train = trainer(given)
    train(given.warm_up)

    def measure():
        begin = time.perf_counter()
        train(given.steps)
        seconds = time.perf_counter() - begin
        return {"seconds": seconds, "seed_steps": given.steps, "seconds_per_step": seconds / given.steps}

    if not given.serve:
        import torch

        print(json.dumps({**vars(given), "torch": torch.__version__, **measure()}))
        return
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    main()
