"""Class-incremental CIFAR-100 of Dohare et al. 2024 (Nature 632, problem "class-incremental CIFAR-100").

What: every task adds classes, and trains on all images of all classes so far; the loss and all accuracies are over the
outputs of these classes. `:paper` is the source's problem: 5 classes a task, 20 tasks, 450 training and 50 validation
images a class, ResNet-18 with batch norm, momentum 0.9, weight decay 5e-4, learning rate 0.1 that is divided by 5 after
30%, 60% and 80% of each task of 200 epochs, batch 90, random flips, crops and rotations, pixels normalised. The network
that is best on the validation images goes on, and is what is measured. The other presets have an MLP of two hidden
layers of 100, learning rate 0.03, 40 epochs a task, no weight decay, and the same batch, schedule and choice of the
best network: `:laptop` adds 5 of 100 classes in each of 20 tasks, as the source does, on synthetic images of 8x8 pixels
(a random pattern for each class, and noise), 100 for training and 50 for validation of each class, not augmented;
`:laptop_cifar10` adds 2 of the 10 classes of CIFAR-10 in each of 5 tasks, 300 and 50 images of each, augmented.

    python scripts/sweep.py --config configs/class_incremental.py:laptop --workdir results/class_incremental
    python scripts/report.py results/class_incremental
    python scripts/fetch_data.py cifar10    # for :laptop_cifar10

Presets: `:smoke` takes under a minute, on synthetic images; both laptops have 4 seeds; `:paper` has the source's 30
seeds. It has not been run on the real data, CIFAR-100.

The best network is one of those at the ends of segments, whose number grows with the task, where the source has 200 in
every task, one at the end of each epoch. `:paper` scores every 250 steps, which is every 10 epochs in task 1 and every
half epoch in task 20: it chooses among 20 networks and then among 400. (`--config.segment_steps=25` has the end of
every epoch among its choices: 200 of them in task 1, 4,000 in task 20.) `:laptop` chooses among 2 and then 40,
`:laptop_cifar10` among 10 and then 50. `:paper` scores all validation images; `:laptop` at most `evaluation` = 2,048 of
them, and so not all from task 9 on, where there are 2,250, to 5,000 in task 20; `:laptop_cifar10` has 500.

Variants: `plain`, which with ResNet-18 has its batch norm; `layer_norm` before each activation. Nothing was tuned on
these numbers.

Time of each laptop: 3 minutes on 2 cores.

Expect, seeds 0-3, mean ± half of the 95% interval over seeds (Student t), of the network that was best on the
validation images. `:laptop`: final and test accuracies are 1.000 in all tasks and seeds, nothing is forgotten, and all
that changes is that online accuracy rises, because old classes are known: 0.980 ± 0.003 in task 1, 1.000 ± 0.000 in
task 20 (`plain`). These patterns are too easy to lose anything on: the preset shows that 100 classes work.
`:laptop_cifar10`, real images:

    variant     final accuracy, 2 classes   10 classes       test accuracy, 2 classes   10 classes
    plain       0.920 ± 0.047               0.585 ± 0.016    0.872 ± 0.045              0.427 ± 0.013
    layer_norm  0.915 ± 0.021               0.600 ± 0.021    0.873 ± 0.032              0.451 ± 0.026

Accuracies fall because ten classes are harder to tell apart than two, and say nothing of plasticity: that would take a
network that learns all classes from the start beside it, as in the source. Practically no hidden units die.
"""

from ml_collections import ConfigDict

MLP = {"name": "mlp", "widths": (100, 100)}
CIFAR10 = {"mean": (0.491, 0.482, 0.447), "std": (0.247, 0.243, 0.262)}  # of the training images' pixels
CIFAR100 = {"mean": (0.5071, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2762)}  # the source's numbers
CHEAP = ("duplicates", "gradients", "overlap", "ranks", "shift", "sparsity", "units", "weights")
PRESETS = {
    "smoke": {
        "seeds": 2,
        "tasks": 3,
        "segment_steps": 4,
        "data": {"name": "synthetic", "images": 400},
        "stream": {"classes_per_task": 2, "validation": 10, "epochs": 2, "batch": 15},
        "network": MLP,
        "optimizer": {"learning_rate": 0.03},
    },
    "laptop": {
        "seeds": 4,
        "tasks": 20,
        "segment_steps": 120,
        "data": {"name": "synthetic", "images": 17_000, "test_images": 2_000, "classes": 100},
        "stream": {"per_class": 100, "epochs": 40, "augment": False},
        "network": MLP,
        "optimizer": {"learning_rate": 0.03},
    },
    "laptop_cifar10": {
        "seeds": 4,
        "tasks": 5,
        "segment_steps": 28,
        "data": {"name": "cifar10"},
        "stream": {"classes_per_task": 2, "per_class": 300, "epochs": 40, **CIFAR10},
        "network": MLP,
        "optimizer": {"learning_rate": 0.03},
    },
    "paper": {
        "seeds": 30,
        "tasks": 20,
        "segment_steps": 250,
        "data": {"name": "cifar100"},
        "stream": {**CIFAR100, "evaluation": 10_000},
        "network": {"name": "resnet18", "head_init": "lecun_normal"},
        "optimizer": {"learning_rate": 0.1, "weight_decay": 5e-4},
    },
}


def get_config(preset="laptop"):
    """The plain variant: gradient descent with momentum."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    for name in ("seeds", "tasks", "segment_steps", "data", "network"):
        config[name] = size[name]
    config.early_stopping = True
    config.stream = {"name": "class_incremental", **size["stream"]}
    config.optimizer = {"name": "momentum", "momentum": 0.9, **size["optimizer"]}
    config.diagnostics = {"forgetting": {"every": 1}}
    if preset.startswith("laptop"):  # the first tasks are short
        config.diagnostics.update({name: {"every": 5} for name in CHEAP})
    if preset == "laptop_cifar10":  # measured once: nothing to compare with
        config.diagnostics.update({name: {"every": 0} for name in ("overlap", "shift")})
    config.schedule = {"name": "step", "decay": 0.2, "milestones": (0.3, 0.6, 0.8)}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {"plain": {}, "layer_norm": {"network.norm": "layer"}}
