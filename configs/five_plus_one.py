"""5+1 CIFAR of Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958, Table 1), with Adam at 1e-3.

What: hard tasks of 5 new classes and easy tasks of 1 new class in turn, hard first, 500 images of each class, 100
outputs, batch 32, 780 steps (10 epochs of a hard task) each; tasks 1, 3, 5, ... of a report are the hard ones, and the
source scores these alone. `:paper` is that on CIFAR-100, with the source's convolutional network (two times conv 5x5
with 16 channels and 2x2 max pooling, dense 100, dense 100, ReLU, PyTorch's default initialisation). `:laptop` has the
same numbers of classes, images, steps and tasks on synthetic images of 8x8 pixels with 100 classes (a random pattern
for each class, and noise), in [0, 1], and an MLP of two hidden layers of 100. `:paper` scales pixels as the source's
code does (github.com/skumar9876/L2_Init).

    python scripts/sweep.py --config configs/five_plus_one.py:laptop --workdir results/five_plus_one
    python scripts/report.py results/five_plus_one

Presets: `:smoke` takes under a minute; `:laptop` has 4 seeds and 30 tasks; `:paper` has 10 seeds and 30 tasks, and has
not been run on the real data, CIFAR-100.

Variants: `plain`; `layer_norm` before each activation. Nothing was tuned on these numbers.

Time of `:laptop`: 1 to 2 minutes on 2 cores, most of it for compiling. Since a task is hardly longer than measuring it,
final accuracies are measured at tasks 9, 18 and 27, of which the first and the last are hard, and all else at tasks 15,
a hard one, and 30, an easy one.

Expect of `:laptop`, seeds 0-3, mean ± half of the 95% interval over seeds (Student t), online accuracy:

    variant     hard tasks, first   first three      last three       change           easy tasks, all 15
    plain       0.944 ± 0.012       0.915 ± 0.019    0.844 ± 0.103   -0.071 ± 0.117    0.959 ± 0.010
    layer_norm  0.985 ± 0.007       0.934 ± 0.015    0.870 ± 0.050   -0.064 ± 0.039    0.979 ± 0.002

The change is from the first three hard tasks to the last three, seed by seed; the columns in the middle are printed by

    python scripts/report.py results/five_plus_one --metric=online_accuracy --tasks=1-5:2 --tasks=25-29:2

The patterns are easy to tell apart: after tasks 9, 18 and 27 training and test accuracies of all seeds are 0.998 or
more, so that it is mostly speed that tells hard tasks apart. With layer norm they become slower; of `plain`, whose
seeds differ more, four seeds do not show it. After tasks 15 and 30 the norm of the head's weights is 59 and 116
(`plain`), 50 and 102 (`layer_norm`); those of the hidden layers stay below 24.
"""

from ml_collections import ConfigDict

MLP = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
CNN = {"name": "cnn", "preset": "kumar"}
SYNTHETIC = {"name": "synthetic", "images": 50_000, "test_images": 10_000, "classes": 100}
SMALL = {"name": "synthetic", "images": 600, "test_images": 60, "classes": 30}
SOURCE = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.243, 0.261)}
CHEAP = ("duplicates", "gradients", "overlap", "ranks", "shift", "sparsity", "units", "weights")
RARELY = {"performance": {"every": 9}, **{name: {"every": 15} for name in CHEAP}}  # tasks are shorter than measuring
PRESETS = {
    "smoke": {"seeds": 2, "tasks": 4, "data": SMALL, "stream": {"per_class": 20, "batch": 10}, "steps": 20},
    "laptop": {"seeds": 4, "tasks": 30, "data": SYNTHETIC, "stream": {}, "steps": 780},
    "paper": {"seeds": 10, "tasks": 30, "data": {"name": "cifar100"}, "stream": SOURCE, "steps": 780},
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
    config.stream = {"name": "five_plus_one", "steps": size["steps"], **size["stream"]}
    config.network = CNN if preset == "paper" else MLP
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    if preset == "laptop":
        config.diagnostics = RARELY
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {"plain": {}, "layer_norm": {"network.norm": "layer"}}
