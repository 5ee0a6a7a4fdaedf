"""5+1 CIFAR of Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958, Table 1), with Adam at 1e-3.

What: hard tasks of 5 new classes and easy tasks of 1 new class in turn, hard first, 500 images of each class, 100
outputs, batch 32, 780 steps (10 epochs of a hard task) each; tasks 1, 3, 5, ... of a report are the hard ones, and the
source scores these alone. `:paper` is that on CIFAR-100, with the source's convolutional network (two times conv 5x5
with 16 channels and 2x2 max pooling, dense 100, dense 100, ReLU, PyTorch's default initialisation). `:laptop` has the
same numbers of classes, images, steps and tasks on synthetic images of 8x8 pixels with 100 classes (a random pattern
for each class, and noise) and an MLP of two hidden layers of 100. Pixels are scaled to [0, 1]; the source does not say
how it scales them.

    python scripts/sweep.py --config configs/five_plus_one.py:laptop --workdir results/five_plus_one
    python scripts/report.py results/five_plus_one

Presets: `:smoke` takes under a minute; `:laptop` has 4 seeds and 30 tasks; `:paper` has 30 seeds (the source reports
10) and 30 tasks, and has not been run on the real data, CIFAR-100.

Variants: `plain`; `layer_norm` before each activation. Nothing was tuned on these numbers.

Time of `:laptop`: 1 minute of processor time, 3 minutes on 2 busy cores.

Expect of `:laptop`, seeds 0-3, mean ± half of the 95% interval over seeds (Student t), online accuracy:

    variant     hard tasks, first   first three      last three       all 15           easy tasks, all 15
    plain       0.944 ± 0.012       0.915 ± 0.019    0.844 ± 0.103    0.878 ± 0.045    0.959 ± 0.010
    layer_norm  0.985 ± 0.007       0.934 ± 0.015    0.870 ± 0.050    0.912 ± 0.014    0.979 ± 0.002

The patterns are easy to tell apart: final and test accuracies of the first task are 1.000 in all seeds, and means over
seeds stay above 0.99 to the end, so that speed alone tells the variants apart. Both become slower, while the
norm of the head's weights grows from 7 to 111 and from 9 to 98, and those of the hidden layers stay below 24. 93% of
the first layer's units of `plain` are zero on all images of the last hard task, and 43% with layer norm.
"""

from ml_collections import ConfigDict

MLP = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
CNN = {"name": "cnn", "preset": "kumar"}
SYNTHETIC = {"name": "synthetic", "images": 50_000, "test_images": 10_000, "classes": 100}
SMALL = {"name": "synthetic", "images": 600, "test_images": 60, "classes": 30}
PRESETS = {
    "smoke": {"seeds": 2, "tasks": 4, "data": SMALL, "stream": {"per_class": 20, "batch": 10}, "steps": 20},
    "laptop": {"seeds": 4, "tasks": 30, "data": SYNTHETIC, "stream": {}, "steps": 780},
    "paper": {"seeds": 30, "tasks": 30, "data": {"name": "cifar100"}, "stream": {}, "steps": 780},
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
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {"plain": {}, "layer_norm": {"network.norm": "layer"}}
