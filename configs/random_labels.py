"""Random Label MNIST of Kumar, Marklund and Van Roy 2023 (arXiv 2308.11958, Table 1), with Adam at 1e-3.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns 1,200 MNIST images
whose own labels are shuffled among them at random and anew for each task; batch 16, shuffled epochs. Each seed draws
its own images once.

    python scripts/fetch_data.py mnist
    python scripts/sweep.py --config configs/random_labels.py:laptop --workdir results/random_labels
    python scripts/report.py results/random_labels

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 8 seeds and 15 tasks of 7,500 steps (100
epochs), and pixels in [0, 1]; `:paper` has the source's 50 tasks of 30,000 steps (400 epochs) and 10 seeds, and pixels
scaled by mean and std 0.5 as in its code (github.com/skumar9876/L2_Init). `:paper_lyle` stands for Lyle et al. 2023,
section 4.1 and Figure 1: 5,000 images, two layers of 1,024, accuracy on 4,096 images; the batch, 128, and the length of
a task, 15,000 steps, are not stated there and follow a reproduction, and pixels in [0, 1] and 10 seeds are our choice;
Adam's eps is its 1e-9. The two `:paper` presets have not been run here.

`:laptop` keeps pixels in [0, 1] because with the source's scaling most inputs are -1, and plain Adam has lost 90% of
its first layer's units before it has learned the first task: final accuracy 0.722 ± 0.137 after task 1 and 0.197 after
task 2 (8 seeds, otherwise the same). The source's total of online accuracy for plain Adam over its 50 tasks, read off a
figure, is 0.16; ours over 15 tasks is 0.139 ± 0.010 with its scaling and 0.211 with pixels in [0, 1].

The plasticity probe (Lyle et al. 2023; docs/metrics.md) uses all 1,200 images. Both `:paper` presets have 10 targets
and 2,000 steps as that paper has, with batch 512, and `:paper` has random labels to memorise as well. `:laptop` has 3
targets and 500 steps, at every fifth task and with batch 64, because a step of batch 512 costs as much as 10 steps of
training. Gradient covariance and tangent kernel are measured at every fifth task, the Hessian's spectrum and the loss
along directions after the last one.

Variants: `plain`; `tuned_adam` as in Lyle et al. 2023, Figure 1; `layer_norm` before each activation; `adamw` with
decoupled weight decay 1e-2. Nothing was tuned on these numbers.

Time of `:laptop`: 15 minutes on 2 cores, of which all that is measured takes a quarter.

Expect of `:laptop`, real MNIST, seeds 0-7, mean ± half of the 95% interval over seeds (Student t):

    variant     final accuracy, task 1   task 15          online accuracy, all tasks   tasks 1-5 to 11-15
    plain       1.000 ± 0.000            0.117 ± 0.005    0.211 ± 0.007               -0.298 ± 0.009
    tuned_adam  0.999 ± 0.001            0.117 ± 0.005    0.264 ± 0.004               -0.446 ± 0.012
    layer_norm  1.000 ± 0.000            0.999 ± 0.001    0.850 ± 0.003               -0.076 ± 0.008
    adamw       0.998 ± 0.005            0.127 ± 0.026    0.230 ± 0.035               -0.323 ± 0.048

    variant     plasticity loss after task 5   task 15          probe loss of fresh networks
    plain       0.330 ± 0.023                  0.302 ± 0.004    0.199 ± 0.006
    tuned_adam  0.002 ± 0.001                  0.004 ± 0.000    0.496 ± 0.001
    layer_norm  0.486 ± 0.009                  0.693 ± 0.060    0.089 ± 0.003
    adamw       0.381 ± 0.149                  0.312 ± 0.027    0.199 ± 0.005

What may look odd, and why. Plain Adam is at the level of the most frequent label from task 6 on: by task 8 99% of the
first layer's units are zero on all 1,200 images, by task 15 all of them, so only the biases still learn: the tangent
kernel has rank 1, and the probe ends where the best constant does (0.500). Weight decay of 1e-2 does not keep units
alive. Tuned Adam loses them later (77% of the first layer in task 8); its probe says nothing, because with its eps_root
of 1e-3 not even fresh networks fit the targets in 500 steps. Layer norm memorises every task, ever more slowly, and its
plasticity loss is the largest: its outputs have grown, so that a copy starts far from the targets, and 500 steps from a
fresh optimizer state leave it above the best constant. From the optimizer state of the run it is 0.450 ± 0.015.

The length of the probe decides that order. The checkpoints after task 15, measured again by `plasticity_jax.remeasure`
(probe: 3 targets, 5,000 steps of batch 64; probe_labels: 3 targets, 500 steps of batch 16; 8 seeds):

    variant     plasticity loss   probe loss, fresh   accuracy on random labels   of fresh networks
    plain       0.495 ± 0.001     0.006 ± 0.001       0.112 ± 0.003               0.349 ± 0.013
    layer_norm  0.410 ± 0.014     0.006 ± 0.001       0.180 ± 0.015               0.484 ± 0.014

Both have lost plasticity by either probe, layer norm less than `plain`, which no longer learns at all.
"""

from ml_collections import ConfigDict

KUMAR = {"batch": 16, "images": 1_200, "widths": (100, 100), "data": "mnist"}
LYLE = {"batch": 128, "images": 5_000, "widths": (1_024, 1_024), "data": "mnist"}
PRESETS = {
    "smoke": {**KUMAR, "seeds": 2, "tasks": 2, "steps": 40, "images": 64, "data": "synthetic"},
    "laptop": {**KUMAR, "seeds": 8, "tasks": 15, "steps": 7_500},
    "paper": {**KUMAR, "seeds": 10, "tasks": 50, "steps": 30_000},
    "paper_lyle": {**LYLE, "seeds": 10, "tasks": 6, "steps": 15_000},
}
LAPTOP = {
    "probe": {"every": 5, "targets": 3, "steps": 500, "inputs": 1_200, "batch": 64, "points": 6},
    "spectrum": {"every": 15, "probes": 1},
    "gradient_covariance": {"every": 5, "examples": 256},
    "ntk": {"every": 5, "inputs": 32},
    "landscape": {"every": 15},
}
PAPER = {
    "probe": {"every": 10, "targets": 10, "steps": 2_000, "inputs": 1_200, "batch": 512},
    "probe_labels": {"every": 10, "targets": 10, "steps": 2_000, "inputs": 1_200, "batch": 16},
    **{name: {"every": 10} for name in ("spectrum", "gradient_covariance", "ntk", "landscape")},
}
PAPER_LYLE = {
    "probe": {"every": 1, "targets": 10, "steps": 2_000, "inputs": 2_048, "batch": 512},
    **{name: {"every": 1} for name in ("spectrum", "gradient_covariance", "ntk", "landscape")},
}
DIAGNOSTICS = {"smoke": {}, "laptop": LAPTOP, "paper": PAPER, "paper_lyle": PAPER_LYLE}


def get_config(preset="laptop"):
    """The plain variant: Adam at 1e-3 with PyTorch's defaults."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = {"name": size["data"]}
    config.stream = {"name": "random_labels", "labels": "permuted"}
    if preset == "paper":
        config.stream.update({"mean": 0.5, "std": 0.5})
    config.stream.update({name: size[name] for name in ("images", "batch", "steps")})
    if preset == "paper_lyle":
        config.stream.evaluation = 4_096
        config.memory_gb = 4.0  # some 64 vectors of 1.9 million parameters
    config.network = {"name": "mlp", "widths": size["widths"], "kernel_init": "torch", "bias_init": "torch"}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    if preset == "paper_lyle":
        config.optimizer.eps = 1e-9
    config.diagnostics = DIAGNOSTICS[preset]
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "tuned_adam": {"optimizer.b2": 0.9, "optimizer.eps": 1e-9, "optimizer.eps_root": 1e-3},
        "layer_norm": {"network.norm": "layer"},
        "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 1e-2},
    }
