"""Permuted MNIST of Kumar et al. 2023 (arXiv 2308.11958, Table 1), and Online Permuted MNIST of Dohare et al. 2024.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns 10,000 MNIST images in
one epoch, batch 16, Adam at 1e-3; then all pixels are permuted, and again for each task. Each seed draws its own images
once, pixels are scaled to [0, 1]; the source does not say how it scales pixels or draws images. Test images share the
permutation of their task.

    python scripts/fetch_data.py mnist
    python scripts/sweep.py --config configs/permuted_pixels.py:laptop --workdir results/permuted_pixels
    python scripts/report.py results/permuted_pixels

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 40 tasks of 625 steps and takes
about 5 minutes on 2 cores that are busy with other work; `:paper` is Kumar's, the same with 500 tasks and 10 seeds;
`:paper_dohare` is Dohare's (Nature 632:768, arXiv 2306.13812): 800 tasks of 60,000 images, each seen once and alone, an
MLP of three layers of 2,000 and SGD at 3e-3 (of the grid 1e-2, 3e-3, 1e-3). Neither of the two has been run.

Variants: `plain`; `layer_norm` before each activation; `adamw` with decoupled weight decay 1e-2 (of Adam, whatever the
preset). Nothing was tuned on these numbers.

Expect of `:laptop`, real MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t):

    variant     final accuracy, task 1   task 40          change           online accuracy, all tasks
    plain       0.924 ± 0.014            0.926 ± 0.007    0.001 ± 0.016    0.847 ± 0.003
    layer_norm  0.945 ± 0.016            0.940 ± 0.018   -0.005 ± 0.029    0.865 ± 0.002
    adamw       0.925 ± 0.015            0.928 ± 0.009    0.003 ± 0.011    0.849 ± 0.003

What may look odd, and why. A task is one epoch, so what declines is the speed of learning, and slowly: the online
accuracy of plain rises from 0.840 in task 1 to 0.868 in task 2, then falls to 0.834 in task 40, of layer norm from
0.880 to 0.855 throughout; final accuracy does not change within its intervals. The sources have 500 and 800 tasks. 8%
of plain's first layer is dead after task 1 and 40% from task 10 on. Weight decay of 1e-2 slows the growth of the
weights (their norm is 41 after task 40, without it 48) and changes little else.
"""

from ml_collections import ConfigDict

KUMAR = {"steps": 625, "batch": 16, "images": 10_000}
DOHARE = {"steps": 60_000, "batch": 1, "images": 0}
MLP = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
WIDE = {"name": "mlp", "widths": (2_000, 2_000, 2_000), "kernel_init": "he_uniform", "head_init": "lecun_uniform"}
ADAM = {"name": "adam", "learning_rate": 1e-3}
SGD = {"name": "sgd", "learning_rate": 3e-3}
PRESETS = {  # seeds, tasks, data, stream, network, optimizer
    "smoke": (2, 2, "synthetic", {"steps": 40, "batch": 16, "images": 64}, MLP, ADAM),
    "laptop": (4, 40, "mnist", KUMAR, MLP, ADAM),
    "paper": (10, 500, "mnist", KUMAR, MLP, ADAM),
    "paper_dohare": (10, 800, "mnist", DOHARE, WIDE, SGD),
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
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "adamw": {"optimizer.name": "adamw", "optimizer.weight_decay": 1e-2},
    }
