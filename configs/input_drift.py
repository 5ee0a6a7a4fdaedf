"""Inputs that drift while their labels stay: images that turn a little further in each task.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns 5,000 Fashion-MNIST
images in their own classes; all images, test images too, turn by 0.2 radians more at each boundary. Adam at 1e-3, batch
16, shuffled epochs. Each seed draws its own images once. `--config.stream.kind` takes contrast and noise as well.
The problem is ours: Lyle et al. 2024 (arXiv 2402.18762) name transformed inputs among their tasks and give no sizes.

    python scripts/fetch_data.py fashion_mnist
    python scripts/sweep.py --config configs/input_drift.py:laptop --workdir results/input_drift
    python scripts/report.py results/input_drift

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 9 tasks of 2,000 steps (6
epochs), at the end of which images have turned by 92 degrees, and takes 9 minutes on 2 cores that are busy with other
work; `:paper` has the task length and number of tasks that the source gives for its other problems on CIFAR-10, 100
tasks of 50,000 steps, all images, and has not been run.

Variants: `plain`; `layer_norm` before each activation; `inside`, where images turn evenly inside a task as well and
nothing jumps at a boundary. Nothing was tuned on these numbers.

Expect of `:laptop`, real Fashion-MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t):

    variant     final accuracy, task 1   task 9          change           online accuracy, all tasks
    plain       0.874 ± 0.016            0.912 ± 0.015    0.038 ± 0.020    0.847 ± 0.002
    layer_norm  0.884 ± 0.028            0.911 ± 0.013    0.026 ± 0.034    0.857 ± 0.005
    inside      0.842 ± 0.009            0.884 ± 0.018    0.042 ± 0.011    0.853 ± 0.004

What may look odd, and why. Nothing is lost here: a slow drift lets a network carry over what it has learned, accuracy
on training images rises from task to task, test accuracy stays at 0.83 to 0.84 (0.81 to 0.82 with `inside`), and the
share of dead units stays at 27 to 30% of the first layer. Final accuracy of `inside` is measured where images stand at
the end of a task, on which it has had no step yet.
"""

from ml_collections import ConfigDict

PRESETS = {
    "smoke": {"seeds": 2, "tasks": 2, "steps": 40, "images": 64, "data": "synthetic"},
    "laptop": {"seeds": 4, "tasks": 9, "steps": 2_000, "images": 5_000, "data": "fashion_mnist"},
    "paper": {"seeds": 30, "tasks": 100, "steps": 50_000, "images": 0, "data": "cifar10"},
}


def get_config(preset="laptop"):
    """The plain variant: images turn by 0.2 radians at each boundary; Adam at 1e-3 with PyTorch's defaults."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = {"name": size["data"]}
    config.stream = {"name": "input_drift", "images": size["images"], "batch": 16, "steps": size["steps"]}
    config.stream.update({"kind": "rotation", "growth": 0.2})
    config.network = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "inside": {"stream.inside": True},
    }
