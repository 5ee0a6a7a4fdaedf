"""Random Label MNIST of Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958, Table 1), with Adam at 1e-3.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns 1,200 MNIST images
whose labels are drawn at random and anew for each task; batch 16, shuffled epochs. Each seed draws its own images once,
pixels are scaled to [0, 1]. The source does not say how it scales pixels or draws images; both are our choice.

    python scripts/fetch_data.py mnist
    python scripts/sweep.py --config configs/random_labels.py:laptop --workdir results/random_labels
    python scripts/report.py results/random_labels

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 8 seeds and 15 tasks of 7,500 steps (100
epochs) and takes about 7 minutes on 2 cores without its probe; `:paper` is the source's size, 50 tasks of 30,000 steps
(400 epochs), with 30 seeds (the source reports 10), and has not been run here.

The plasticity probe (Lyle et al. 2023; docs/metrics.md) uses all 1,200 images. `:paper` has the 10 targets and 2,000
steps of that paper, with batch 512, at every tenth task. `:laptop` has 3 targets and 500 steps, at every fifth task and
with batch 64, because a step of batch 512 costs as much as 10 steps of training. Loss of fresh networks by then, on
real MNIST: 0.20 with batch 64 (seeds 0-1) and 0.05 with batch 512 (seeds 0-3), where the best constant has 0.50.

Variants: `plain`; `tuned_adam` as in Lyle et al. 2023, Figure 1; `layer_norm` before each activation; `adamw` with
decoupled weight decay 1e-2. Nothing was tuned on these numbers.

Expect of `:laptop`, real MNIST, seeds 0-7, mean ± half of the 95% interval over seeds (Student t):

    variant     final accuracy, task 1   task 15          online accuracy, all tasks
    plain       1.000 ± 0.000            0.114 ± 0.003    0.211 ± 0.005
    tuned_adam  1.000 ± 0.000            0.114 ± 0.005    0.266 ± 0.005
    layer_norm  1.000 ± 0.000            1.000 ± 0.000    0.846 ± 0.003
    adamw       0.987 ± 0.032            0.118 ± 0.008    0.228 ± 0.024

What may look odd, and why. Plain Adam is at the level of the most frequent label from task 6 on: by then 96% of the
first layer's units are zero on all 1,200 images, by task 10 all of them, so only the biases still learn, and the ranks
of the features fall to 0 with the last unit. Weight decay of 1e-2 shrinks the norm but does not keep units alive. Tuned
Adam loses its units later, not never (17% of the first layer in task 4, 48% in task 6, 99% in task 15); in its first
task it learns more slowly, since eps_root bounds the steps of small gradients. Layer norm memorises every task to the
end, but ever more slowly: its online accuracy falls from 0.91 to 0.79 while its weight norm grows from 28 to 122. The
source's total for plain Adam over its 50 longer tasks, read off a figure, is 0.16.
"""

from ml_collections import ConfigDict

PRESETS = {
    "smoke": {"seeds": 2, "tasks": 2, "steps": 40, "images": 64, "data": "synthetic"},
    "laptop": {"seeds": 8, "tasks": 15, "steps": 7_500, "images": 1_200, "data": "mnist"},
    "paper": {"seeds": 30, "tasks": 50, "steps": 30_000, "images": 1_200, "data": "mnist"},
}
PROBES = {
    "smoke": {"every": 0},
    "laptop": {"every": 5, "targets": 3, "steps": 500, "inputs": 1_200, "batch": 64},
    "paper": {"every": 10, "targets": 10, "steps": 2_000, "inputs": 1_200, "batch": 512},
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
    config.stream = {"name": "random_labels", "images": size["images"], "batch": 16, "steps": size["steps"]}
    config.network = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.diagnostics = {"probe": PROBES[preset]}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "tuned_adam": {"optimizer.b2": 0.9, "optimizer.eps": 1e-9, "optimizer.eps_root": 1e-3},
        "layer_norm": {"network.norm": "layer"},
        "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 1e-2},
    }
