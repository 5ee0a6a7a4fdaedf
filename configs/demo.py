"""Loss of plasticity, seen in a minute or two, on images that need no download.

What: 500 of the 1,797 UCI digits of 8x8 pixels, with labels drawn at random and anew for each of 8 tasks; an MLP of
three hidden layers of 64 learns each task for 4,000 steps of batch 16 and goes on with what it has become. 8 seeds.
A small stand-in for the first experiment of Lyle et al. 2023 (section 4.1, Figure 1: 5,000 MNIST images, 2 x 1024).

    make demo
    python scripts/sweep.py --config configs/demo.py --workdir results/demo && python scripts/report.py results/demo

Variants: Adam as it comes; Adam tuned as in the paper's Figure 1 (b2=0.9, eps=1e-9, eps_root=1e-3); Adam with layer
norm before each activation. All share images, labels, order and, where the shapes agree, initial weights, seed by seed.
The learning rate, 2e-3, was chosen by hand for the plain variant, on these seeds.

Time: about 1 minute on 2 cores with compiled programs cached, 2 minutes the first time; `:smoke` takes half a minute.

Expect, seeds 0-7, mean ± half of the 95% interval over seeds (Student t):

    variant     final accuracy, task 1   task 8           change
    adam        1.000 ± 0.001            0.191 ± 0.075    -0.809 ± 0.075
    tuned_adam  0.962 ± 0.015            0.517 ± 0.283    -0.445 ± 0.277
    layer_norm  1.000 ± 0.000            1.000 ± 0.000     0.000 ± 0.000

Default Adam loses its hidden units: 61 to 79% of each layer are dead after task 8. Tuned Adam loses them later, at a
different task in each seed, hence the wide interval. Layer norm memorises all eight tasks, and would need more of them
to show a decline in the end; its online accuracy falls from 0.90 to 0.73 in task 2, and stays at 0.73 to 0.77.
"""

from ml_collections import ConfigDict

PRESETS = {"smoke": {"seeds": 2, "tasks": 2, "steps": 100}, "laptop": {"seeds": 8, "tasks": 8, "steps": 4_000}}


def get_config(preset="laptop"):
    """The configuration of the plain variant."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.segment_steps = size["steps"] // 4
    config.data = {"name": "digits"}
    config.stream = {"name": "random_labels", "images": 500, "batch": 16, "steps": size["steps"]}
    config.network = {"name": "mlp", "widths": (64, 64, 64)}
    config.optimizer = {"name": "adam", "learning_rate": 2e-3}
    return config


def get_variants():
    """Variant -> overrides, each of which could have been typed."""
    return {
        "adam": {},
        "tuned_adam": {"optimizer.b2": 0.9, "optimizer.eps": 1e-9, "optimizer.eps_root": 1e-3},
        "layer_norm": {"network.norm": "layer"},
    }
