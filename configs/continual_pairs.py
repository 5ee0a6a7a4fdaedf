"""Continual ImageNet of Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958, Table 1), with Adam at 1e-3.

What: tasks of two classes, 600 training and 100 test images of each, batch 100, 120 steps (10 epochs) a task; the
classes are paired by a permutation, and paired anew when all are used up. `:paper` is that on the 1,000 classes of
ImageNet at 32x32, with the source's convolutional network (two times conv 5x5 with 16 channels and 2x2 max pooling,
dense 100, dense 100, ReLU, PyTorch's default initialisation) and two outputs. `:laptop` takes pairs of the 10 classes
of Fashion-MNIST and an MLP of two hidden layers of 100; every fifth task it pairs them anew, so that classes come back.
Pixels are scaled to [0, 1]; the source does not say how it scales them.

    python scripts/fetch_data.py fashion_mnist
    python scripts/sweep.py --config configs/continual_pairs.py:laptop --workdir results/continual_pairs
    python scripts/report.py results/continual_pairs

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 50 tasks; `:paper` has the
source's 500 tasks, with 30 seeds (the source reports 10), and has not been run on the real data: ImageNet has no open
download (`plasticity_jax/host/data.py` says which files are read). Dohare et al. 2024 have 250 epochs a task,
`--config.stream.steps=3000`, and the network `cnn` with `preset` "dohare".

Variants: `plain`; `layer_norm` before each activation. Nothing was tuned on these numbers.

Time of `:laptop`: 1.5 minutes of processor time, 4 minutes on 2 busy cores.

Expect of `:laptop`, real Fashion-MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t):

    variant     final accuracy, task 1   task 50          online accuracy, all tasks   tasks 1-5        tasks 46-50
    plain       0.998 ± 0.006            0.960 ± 0.089    0.908 ± 0.022                0.932 ± 0.018    0.933 ± 0.031
    layer_norm  1.000 ± 0.001            0.941 ± 0.149    0.879 ± 0.035                0.911 ± 0.026    0.899 ± 0.047

What may look odd, and why. Intervals are wide because seeds meet different pairs: shirts against T-shirts end at 0.8 to
0.9, most others near 1. No plasticity is lost in 50 tasks, though 89% of the first layer's units of `plain` are zero on
all images of the last pair: to tell two classes apart takes few. Layer norm is 0.029 ± 0.020 below `plain` in online
accuracy, seed by seed, and so from the first five tasks on, hence this is no loss either.
"""

from ml_collections import ConfigDict

MLP = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
CNN = {"name": "cnn", "preset": "kumar"}
PAIRS = {"per_class": 600, "held_out": 100, "batch": 100, "steps": 120}
PRESETS = {
    "smoke": {
        "seeds": 2,
        "tasks": 3,
        "data": {"name": "synthetic", "images": 400},
        "stream": {"per_class": 30, "held_out": 10, "batch": 10, "steps": 20},
        "network": MLP,
    },
    "laptop": {"seeds": 4, "tasks": 50, "data": {"name": "fashion_mnist"}, "stream": PAIRS, "network": MLP},
    "paper": {"seeds": 30, "tasks": 500, "data": {"name": "imagenet32"}, "stream": PAIRS, "network": CNN},
}


def get_config(preset="laptop"):
    """The plain variant: Adam at 1e-3 with PyTorch's defaults."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = size["data"]
    config.stream = {"name": "continual_pairs", **size["stream"]}
    config.network = size["network"]
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {"plain": {}, "layer_norm": {"network.norm": "layer"}}
