"""Permuted classes: what a network knows of the images stays true, and only their names change.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns 2,000 Fashion-MNIST
images whose classes get new labels by a permutation that is drawn for each task; Adam at 1e-3, batch 16, shuffled
epochs. Each seed draws its own images once; test images share the permutation. One of the two kinds of label shift in
Lyle et al. 2024 (arXiv 2402.18762, Figure 2), who use networks with a last layer of 256 and name neither batch size,
learning rate nor depth.

    python scripts/fetch_data.py fashion_mnist
    python scripts/sweep.py --config configs/label_permutation.py:laptop --workdir results/label_permutation
    python scripts/report.py results/label_permutation

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 10 tasks of 2,000 steps (16
epochs) and takes 2 minutes on 2 cores; accuracies are measured after each task, units after every fifth and all else
after the last. `:paper` has the task length and number of tasks that the source gives for CIFAR-10, 100 tasks of 50,000
steps, with two layers of 256 in the place of its networks, and has not been run.

Variants: `plain`; `layer_norm` before each activation; `gelu`, the activation of the source's Figure 2; `recurring`, in
which the first two tasks come back in turn. Nothing was tuned on these numbers.

Expect of `:laptop`, real Fashion-MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t); the change
is from task 4 to task 10, seed by seed:

    variant     final accuracy, task 1   task 10          online accuracy, all tasks   change
    plain       0.919 ± 0.042            0.918 ± 0.072    0.877 ± 0.020               -0.070 ± 0.093
    layer_norm  0.930 ± 0.026            0.997 ± 0.008    0.942 ± 0.004                0.006 ± 0.019
    gelu        0.925 ± 0.041            0.976 ± 0.020    0.925 ± 0.004               -0.008 ± 0.034
    recurring   0.919 ± 0.042            0.973 ± 0.054    0.944 ± 0.013                0.024 ± 0.015

What may look odd, and why. Accuracy rises at first: the features of one task serve the next, so a later task begins
with more than the first one had. From task 4 on plain's mean falls, in online accuracy from 0.915 to 0.845, by very
different amounts from seed to seed, so that four seeds do not show that it is a loss; the share of dead units in its
first layer is 80% after task 10. Layer norm and GELU keep what they gain. Tasks that recur are learned ever faster:
`recurring` minus `plain` is 0.067 ± 0.022 in online accuracy. Test accuracy, on 2,048 of the 10,000 test images, is
0.77 to 0.80 in task 10, for all variants.
"""

from ml_collections import ConfigDict

LATE = ("duplicates", "gradients", "overlap", "ranks", "shift", "sparsity", "units", "weights")
PROBE = {"every": 10, "targets": 3, "steps": 500, "inputs": 2_000, "batch": 16, "points": 6}
LAPTOP = {"probe": PROBE, **{name: {"every": 5} for name in LATE}}
PRESETS = {
    "smoke": {"seeds": 2, "tasks": 2, "steps": 40, "images": 64, "data": "synthetic", "widths": (100, 100)},
    "laptop": {"seeds": 4, "tasks": 10, "steps": 3_000, "images": 2_000, "data": "fashion_mnist", "widths": (100, 100)},
    "paper": {"seeds": 30, "tasks": 100, "steps": 50_000, "images": 0, "data": "cifar10", "widths": (256, 256)},
}


def get_config(preset="laptop"):
    """The plain variant: Adam at 1e-3 with PyTorch's defaults."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = {"name": size["data"]}
    config.stream = {"name": "label_permutation", "images": size["images"], "batch": 16, "steps": size["steps"]}
    config.network = {"name": "mlp", "widths": size["widths"], "kernel_init": "torch", "bias_init": "torch"}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    if preset == "laptop":
        config.diagnostics = LAPTOP
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "gelu": {"network.activation": "gelu"},
        "recurring": {"stream.cycle": 2},
    }
