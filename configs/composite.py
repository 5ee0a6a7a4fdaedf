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
epochs) and takes 3 to 4 minutes on 2 cores that are busy with other work; all but accuracies and the probe is measured
after tasks 3 and 6; `:paper` stands for the source's 20 tasks on CIFAR-10, with 50,000 steps each, this MLP in the
place of its networks, and 30 seeds, which is our choice; it has not been run. Its probe has the size of Lyle et al.
2023, 10 targets and 2,000 steps, on 2,048 inputs in batches of 512, at every second task.

Variants: `plain`; `layer_norm` before each activation; `adamw` with decoupled weight decay 1e-2. Nothing was tuned on
these numbers.

Expect of `:laptop`, real MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t):

    variant     explained variance, task 1   task 6           change           final loss, task 1   task 6
    plain       0.963 ± 0.008                0.240 ± 0.213   -0.723 ± 0.221    0.003 ± 0.001        0.068 ± 0.019
    layer_norm  0.967 ± 0.018                0.880 ± 0.016   -0.087 ± 0.012    0.003 ± 0.002        0.011 ± 0.001
    adamw       0.957 ± 0.008                0.191 ± 0.151   -0.766 ± 0.153    0.004 ± 0.001        0.073 ± 0.014

    variant     probe loss, task 6   plasticity loss   from the run's optimizer state   of fresh networks
    plain       0.461 ± 0.018        0.061 ± 0.014     0.070 ± 0.019                    0.402 ± 0.006
    layer_norm  0.392 ± 0.008        0.020 ± 0.022     0.006 ± 0.024                    0.371 ± 0.013
    adamw       0.463 ± 0.005        0.062 ± 0.007     0.076 ± 0.011                    0.402 ± 0.011

The plain variant loses three quarters of what it could fit, in five tasks of which each changes a fifth of the labels.
The probe (3 targets, 500 steps of batch 16) agrees, by whichever optimizer state: `plain` and `adamw` learn less of the
waves than before training, of layer norm a loss is not shown. Two things grow with it: dead units in the first layer
(32% after task 3, 61% in the end) and units in the second that are positive on all images, thus linear (7%, in the end
20%). Weight decay of 1e-2 changes neither. Layer norm, with 12% of linear units and hardly a dead one, declines slowly.
The variance of one-hot labels is small, 0.09 in each value, hence the small losses.
"""

from ml_collections import ConfigDict

CHEAP = ("duplicates", "gradients", "overlap", "ranks", "shift", "sparsity", "units", "weights")
LAPTOP = {"every": 6, "targets": 3, "steps": 500, "inputs": 1_000, "batch": 16, "points": 6}
PAPER = {"every": 2, "targets": 10, "steps": 2_000, "inputs": 2_048, "batch": 512}
PROBES = {"smoke": {}, "laptop": {"probe": LAPTOP}, "paper": {"probe": PAPER}}
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
    config.diagnostics = PROBES[preset]
    if preset == "laptop":
        config.diagnostics.update({name: {"every": 3} for name in CHEAP})
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 1e-2},
    }
