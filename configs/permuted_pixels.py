"""Permuted MNIST of Kumar et al. 2023 (arXiv 2308.11958, Table 1), and Online Permuted MNIST of Dohare et al. 2024.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns 10,000 MNIST images in
one epoch, batch 16, Adam at 1e-3; then all pixels are permuted, and again for each task. As in the source's code
(github.com/skumar9876/L2_Init) each task draws its own 10,000 images, the first one leaves pixels where they are, and
pixels are scaled by mean and std 0.5. Test images share the permutation of their task.

    python scripts/fetch_data.py mnist
    python scripts/sweep.py --config configs/permuted_pixels.py:laptop --workdir results/permuted_pixels
    python scripts/report.py results/permuted_pixels

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 40 tasks of 625 steps and takes 2
minutes on 2 cores; since a task is shorter than measuring it, all but online metrics is measured at every twentieth;
`:paper` is Kumar's, the same with 500 tasks and 10 seeds; `:paper_dohare` is Dohare's (Nature 632:768, arXiv
2306.13812): 800 tasks of 60,000 images, each seen once and alone, an MLP of three layers of 2,000 and SGD at 3e-3 (of
the grid 1e-2, 3e-3, 1e-3), with 30 seeds as in its Extended Data Figure 3 (its code's configuration has 10). Neither of
the two has been run.

Variants: `plain`; `layer_norm` before each activation; `adamw` with decoupled weight decay 1e-2 (of Adam, whatever the
preset). Nothing was tuned on these numbers.

Expect of `:laptop`, real MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t); the change is from
the first five tasks to the last five, seed by seed:

    variant     online accuracy, task 1   all tasks        change           test accuracy, task 40
    plain       0.801 ± 0.014             0.745 ± 0.025   -0.092 ± 0.035    0.833 ± 0.029
    layer_norm  0.826 ± 0.002             0.811 ± 0.001   -0.011 ± 0.013    0.891 ± 0.009
    adamw       0.801 ± 0.014             0.751 ± 0.005   -0.075 ± 0.030    0.853 ± 0.016

Online accuracy in the last tenth of the first task is 0.879 (`plain`). What may look odd, and why. With this scaling
most pixels are -1, and 90% of `plain`'s first layer is dead after task 20, 92% after task 40 (with layer norm 17 and
28%); weight decay of 1e-2 keeps the norm lower (19.7 after task 40, without it 23.2) and no units alive. With pixels in
[0, 1], the same images in all tasks and every task permuted, plain's online accuracy fell only from 0.868 in task 2 to
0.834 in task 40, and 40% of its first layer was dead. The sources have 500 and 800 tasks.
"""

from ml_collections import ConfigDict

KUMAR = {"steps": 625, "batch": 16, "images": 10_000, "redraw": True, "first_identity": True, "mean": 0.5, "std": 0.5}
DOHARE = {"steps": 60_000, "batch": 1, "images": 0}
MLP = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
WIDE = {"name": "mlp", "widths": (2_000, 2_000, 2_000), "kernel_init": "he_uniform", "head_init": "lecun_uniform"}
ADAM = {"name": "adam", "learning_rate": 1e-3}
SGD = {"name": "sgd", "learning_rate": 3e-3}
CHEAP = ("duplicates", "gradients", "overlap", "performance", "ranks", "shift", "sparsity", "units", "weights")
RARELY = {name: {"every": 20} for name in CHEAP}  # tasks are shorter than measuring
PRESETS = {  # seeds, tasks, data, stream, network, optimizer
    "smoke": (2, 2, "synthetic", {"steps": 40, "batch": 16, "images": 64}, MLP, ADAM),
    "laptop": (4, 40, "mnist", KUMAR, MLP, ADAM),
    "paper": (10, 500, "mnist", KUMAR, MLP, ADAM),
    "paper_dohare": (30, 800, "mnist", DOHARE, WIDE, SGD),
}


def get_config(preset="laptop"):
    """The plain variant of a preset."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds, config.tasks, data, stream, config.network, config.optimizer = size
    config.data = {"name": data}
    config.stream = {"name": "permuted_pixels", **stream}
    if preset == "laptop":
        config.diagnostics = RARELY
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 1e-2},
    }
