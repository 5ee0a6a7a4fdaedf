"""Inputs that drift while their labels stay: images that turn a little further in each task.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns 5,000 Fashion-MNIST
images in their own classes; all images, test images too, turn by 0.2 radians more at each boundary. Adam at 1e-3, batch
16, shuffled epochs. Each seed draws its own images once. The problem is ours: Lyle et al. 2024 (arXiv 2402.18762) name
transformed inputs among their tasks and give no sizes.

    python scripts/fetch_data.py fashion_mnist
    python scripts/sweep.py --config configs/input_drift.py:laptop --workdir results/input_drift
    python scripts/report.py results/input_drift

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 8 tasks of 4,000 steps (13
epochs), at the end of which images have turned by 80 degrees, and takes 4 minutes on 2 cores; all but online metrics is
measured after tasks 4 and 8, or after task 8 alone, since turning the evaluation images takes long; `:paper` has the
task length and number of tasks that Lyle et al. give for their other problems on CIFAR-10, 100 tasks of 50,000 steps,
all images, with this MLP in the place of their networks and 30 seeds, which is our choice; it has not been run. It
drifts by 1.4 / 99 at each boundary, so that its last task is as far away as that of `:laptop`: 1.4 radians, a contrast
of exp(-1.4) = 0.25, or noise with a standard deviation of 1.4. By 0.2 at each, images would turn round three times, or
lose all contrast half-way.

Variants: `plain`; `layer_norm` before each activation; `inside`, where images turn evenly inside a task as well and
nothing jumps at a boundary; `contrast`, which falls by a factor of exp(-0.2) at each boundary; `noise`, of which each
image has its own, fixed, that grows by a standard deviation of 0.2 at each boundary, where pixels are in [0, 1] (both
of `:laptop`). Nothing was tuned on these numbers.

Expect of `:laptop`, real Fashion-MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t); the change
is from task 2 to task 8, seed by seed, and test accuracy that on 2,048 of the 10,000 test images:

    variant     online accuracy, task 1   task 8          change           final accuracy   test accuracy, task 8
    plain       0.851 ± 0.002             0.886 ± 0.006    0.012 ± 0.007    0.941 ± 0.007    0.819 ± 0.005
    layer_norm  0.868 ± 0.004             0.898 ± 0.004    0.017 ± 0.005    0.959 ± 0.006    0.828 ± 0.008
    inside      0.834 ± 0.003             0.911 ± 0.006    0.032 ± 0.007    0.923 ± 0.009    0.796 ± 0.014
    contrast    0.852 ± 0.003             0.934 ± 0.005    0.013 ± 0.003    0.917 ± 0.021    0.808 ± 0.015
    noise       0.851 ± 0.002             0.993 ± 0.000    0.036 ± 0.002    1.000 ± 0.000    0.543 ± 0.021

What may look odd, and why. Online accuracy rises: a slow drift lets a network carry over what it has learned, which
hides what it may have lost; that would take a fresh network beside it. That of `contrast` falls again by 0.015 ± 0.003
from task 5 to task 8, a window that was chosen after looking; images then have a quarter of their contrast. In the last
tenth of the first task online accuracy is 0.902 (`plain`). `noise` is learned to 1.000 while test accuracy falls from
0.707 in task 4 to 0.543: noise that is fixed tells the training images apart, so that they can be memorised, and test
images have noise of their own. Final accuracy of `inside` is measured where images stand at the end of a task, on which
it has had no step yet.
"""

from ml_collections import ConfigDict

TWICE = {name: {"every": 4} for name in ("overlap", "performance", "shift", "units", "weights")}
ONCE = {name: {"every": 8} for name in ("duplicates", "gradients", "ranks", "sparsity")}
PRESETS = {
    "smoke": {"seeds": 2, "tasks": 2, "steps": 40, "images": 64, "data": "synthetic", "growth": 0.2},
    "laptop": {"seeds": 4, "tasks": 8, "steps": 4_000, "images": 5_000, "data": "fashion_mnist", "growth": 0.2},
    "paper": {"seeds": 30, "tasks": 100, "steps": 50_000, "images": 0, "data": "cifar10", "growth": 1.4 / 99},
}


def get_config(preset="laptop"):
    """The plain variant: images turn a little at each boundary; Adam at 1e-3 with PyTorch's defaults."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = {"name": size["data"]}
    config.stream = {"name": "input_drift", "images": size["images"], "batch": 16, "steps": size["steps"]}
    config.stream.update({"kind": "rotation", "growth": size["growth"]})
    config.network = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    if preset == "laptop":
        config.diagnostics = {**TWICE, **ONCE}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "inside": {"stream.inside": True},
        "noise": {"stream.kind": "noise"},
        "contrast": {"stream.kind": "contrast"},
    }
