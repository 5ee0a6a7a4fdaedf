"""Permuted classes: what a network knows of the images stays true, and only their names change.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns 2,000 Fashion-MNIST
images whose classes get new labels by a permutation that is drawn for each task; Adam at 1e-3, batch 16, shuffled
epochs. Each seed draws its own images once; test images share the permutation. One of the two kinds of label shift in
Lyle et al. 2024 (arXiv 2402.18762, Figure 2), who use networks with a last layer of 256 and name neither batch size,
learning rate nor depth.

    python scripts/fetch_data.py fashion_mnist
    python scripts/sweep.py --config configs/label_permutation.py:laptop --workdir results/label_permutation
    python scripts/report.py results/label_permutation

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 10 tasks of 3,000 steps (24
epochs) and takes 3 to 4 minutes on 2 cores; accuracies are measured after each task, the plasticity probe (3 targets,
500 steps of batch 16) after the last, all else after tasks 5 and 10. `:paper` has the task length and number of tasks
that the source gives for CIFAR-10, 100 tasks of 50,000 steps, with two layers of 256 in the place of its networks and
30 seeds, which is our choice; it has not been run. Its probe has the size of Lyle et al. 2023, 10 targets and 2,000
steps, on 2,048 inputs in batches of 512, at every tenth task.

Variants: `plain`; `layer_norm` before each activation; `gelu`, the activation of the source's Figure 2; `recurring`, in
which the first two tasks come back in turn. Nothing was tuned on these numbers.

Expect of `:laptop`, real Fashion-MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t); the change
is from tasks 1-5 to tasks 6-10, seed by seed:

    variant     final accuracy, task 1   task 10          online accuracy, all tasks   change
    plain       0.937 ± 0.040            0.946 ± 0.020    0.891 ± 0.026               -0.043 ± 0.037
    layer_norm  0.942 ± 0.065            0.993 ± 0.023    0.960 ± 0.003                0.023 ± 0.006
    gelu        0.939 ± 0.055            0.980 ± 0.035    0.936 ± 0.012               -0.003 ± 0.017
    recurring   0.937 ± 0.040            0.995 ± 0.015    0.958 ± 0.010                0.040 ± 0.008

    variant     probe loss, task 10   plasticity loss   from the run's optimizer state
    plain       4.088 ± 1.569         3.592 ± 1.569     0.285 ± 0.299
    layer_norm  0.545 ± 0.011         0.050 ± 0.011     0.017 ± 0.007
    gelu        2.130 ± 1.412         1.634 ± 1.413     0.421 ± 0.261
    recurring   7.226 ± 1.184         6.730 ± 1.185     1.026 ± 1.158

What may look odd, and why. Accuracy rises at first: the features of one task serve the next, so a later task begins
with more than the first one had (plain's online accuracy is 0.872 in task 1 and 0.928 to 0.930 in tasks 2 to 4). Then
plain's falls, while 86% of its first layer's units die by task 10; that of layer norm still rises, that of GELU is not
shown to do either. Tasks that recur are learned ever faster: `recurring` minus `plain` is 0.068 ± 0.022 in online
accuracy. The probe is too short to be learned (in 500 steps of batch 16 fresh networks reach 0.496, where the best
constant has 0.498): it says how fast a network unlearns its outputs, which are largest where tasks recur and smallest
with layer norm. Test accuracy, on 2,048 of the 10,000 test images, is 0.77 to 0.80 in task 10, for all variants.
"""

from ml_collections import ConfigDict

LATE = ("duplicates", "gradients", "overlap", "ranks", "shift", "sparsity", "units", "weights")
LAPTOP = {"every": 10, "targets": 3, "steps": 500, "inputs": 2_000, "batch": 16, "points": 6}
PAPER = {"every": 10, "targets": 10, "steps": 2_000, "inputs": 2_048, "batch": 512}
PROBES = {"smoke": {}, "laptop": {"probe": LAPTOP}, "paper": {"probe": PAPER}}
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
    config.diagnostics = PROBES[preset]
    if preset == "laptop":
        config.diagnostics.update({name: {"every": 5} for name in LATE})
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "gelu": {"network.activation": "gelu"},
        "recurring": {"stream.cycle": 2},
    }
