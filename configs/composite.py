"""Three changes at once: images turn, labels are drawn anew, targets grow (Lyle et al. 2024, arXiv 2402.18762).

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns values for 1,000 MNIST
images by squared error: y = c_t + onehot(label). From task to task the images turn by 0.2 radians, a fifth of them,
drawn at random, get a new random label, and c_t grows by 1. The first task shows upright images, random labels and c_0
= 0. Adam at 1e-3, batch 16, shuffled epochs. The source combines input transformations, label resets and growing
targets, and gives no sizes: all numbers are our choice.

    python scripts/fetch_data.py mnist
    python scripts/sweep.py --config configs/composite.py:laptop --workdir results/composite
    python scripts/report.py results/composite

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 6 tasks of 4,000 steps (64
epochs) and takes a few minutes on 2 cores; `:paper` stands for the source's 20 tasks on CIFAR-10,
with 50,000 steps each, and has not been run.

Variants: `plain`; `layer_norm` before each activation; `adamw` with decoupled weight decay 1e-2. Nothing was tuned on
these numbers.

Expect: not measured yet.
"""

from ml_collections import ConfigDict

PRESETS = {
    "smoke": {"seeds": 2, "tasks": 2, "steps": 40, "images": 64, "data": "synthetic"},
    "laptop": {"seeds": 4, "tasks": 6, "steps": 4_000, "images": 1_000, "data": "mnist"},
    "paper": {"seeds": 30, "tasks": 20, "steps": 50_000, "images": 0, "data": "cifar10"},
}
CHANGES = {
    "drift": {"kind": "rotation", "growth": 0.2},
    "labels": {"name": "draw_labels", "fraction": 0.2},
    "targets": {"values": 0, "offset": 0.0, "growth": 1.0},
}


def get_config(preset="laptop"):
    """The plain variant: all three changes; Adam at 1e-3 with PyTorch's defaults."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = {"name": size["data"]}
    config.stream = {"name": "composite", "images": size["images"], "batch": 16, "steps": size["steps"]}
    config.stream.changes = CHANGES
    config.head = {"name": "linear"}
    config.network = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 1e-2},
    }
