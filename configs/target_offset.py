"""Regression onto random targets that lie ever farther from zero: the third mechanism of Lyle et al. 2024.

What: an MLP of two hidden layers of 100 ReLU units, in PyTorch's default initialisation, learns one random number for
each of 500 MNIST images, y_i = c_t + e_i with e_i ~ N(0, 1) drawn anew for each task; Adam at 1e-3, batch 16, shuffled
epochs, squared error. The offset is c_t = 10 + 20 t: 10 in the first task, 90 in the fifth. Each seed draws its own
images once. Lyle et al. 2024 (arXiv 2402.18762) train on f(x) = c + e(x) with c up to 100, then on new targets; they do
not name number of images, steps, batch size or learning rate; growth is our choice.

    python scripts/fetch_data.py mnist
    python scripts/sweep.py --config configs/target_offset.py:laptop --workdir results/target_offset
    python scripts/report.py results/target_offset

Presets: `:smoke` takes under a minute, on synthetic images; `:laptop` has 4 seeds and 5 tasks of 6,000 steps (192
epochs) and takes 2 minutes on 2 cores; `:paper` stands for the source, which names its data, CIFAR-10, and c = 100: all
images, 2 tasks of 50,000 steps with that offset (the task length of its other experiments), with this MLP in the place
of its networks and 30 seeds, which is our choice; it has not been run. Its two probes, with an offset of 10 and without
one, have the size of Lyle et al. 2023, 10 targets and 2,000 steps, on 2,048 inputs in batches of 512, after every
10,000 steps: more than 800,000 steps in all, where training has 100,000.

Variants: `plain`; `layer_norm` before each activation; `no_offset`, the same targets around zero; `stationary`, all
around 10 (under `:paper`, whose offset does not grow, the same as `plain`). Nothing was tuned on these numbers.

Expect of `:laptop`, real MNIST, seeds 0-3, mean ± half of the 95% interval over seeds (Student t):

    variant     explained variance, task 1   task 5           change           final loss, task 1   task 5
    plain       0.977 ± 0.034                0.665 ± 0.411   -0.312 ± 0.429    0.021 ± 0.031        0.336 ± 0.395
    layer_norm  0.976 ± 0.041                0.992 ± 0.007    0.015 ± 0.044    0.022 ± 0.037        0.009 ± 0.007
    no_offset   0.998 ± 0.002                0.979 ± 0.027   -0.018 ± 0.029    0.002 ± 0.002        0.022 ± 0.030
    stationary  0.977 ± 0.034                0.975 ± 0.064   -0.003 ± 0.084    0.021 ± 0.031        0.025 ± 0.063

    variant     probe_offset_loss, task 5   from the run's optimizer state   of fresh networks
    plain       0.163 ± 0.055               0.092 ± 0.011                    0.899 ± 0.250
    layer_norm  0.469 ± 0.011               0.357 ± 0.030                    0.471 ± 0.013
    no_offset   1.369 ± 0.119               0.363 ± 0.123                    0.899 ± 0.250
    stationary  0.562 ± 0.153               0.215 ± 0.042                    0.899 ± 0.250

The plain variant's mean falls from task to task (0.977, 0.913, 0.820, 0.750, 0.665), by such different amounts from
seed to seed that four seeds do not show the change by itself. After the first task half the units of its second layer
are zero on all images and the other half are positive on all of them, so that the layer is linear, and it stays so;
where the targets stay around 10 it is no different, and a loss is not shown. Around zero no unit is linear. Layer norm
has a third of such linearised units and half of dead ones after task 2, and still fits every task. The online loss says
little here: it is ruled by the first steps of a task, in which outputs move from one offset to the next. The probe (3
targets, 500 steps, batch 16, after the last task) asks for waves around a mean that lies 10 away: `plain`, whose
outputs have moved far before, comes nearer to them than fresh networks do, `no_offset` less near.
"""

from ml_collections import ConfigDict

LAPTOP = {"every": 5, "targets": 3, "steps": 500, "inputs": 500, "batch": 16}
PAPER = {"every": 1, "every_segments": 1, "targets": 10, "steps": 2_000, "inputs": 2_048, "batch": 512}
PROBES = {"smoke": {}, "laptop": {"probe_offset": LAPTOP}, "paper": {"probe": PAPER, "probe_offset": PAPER}}
PRESETS = {
    "smoke": {"seeds": 2, "tasks": 2, "steps": 40, "images": 64, "data": "synthetic", "offset": 10.0, "growth": 20.0},
    "laptop": {"seeds": 4, "tasks": 5, "steps": 6_000, "images": 500, "data": "mnist", "offset": 10.0, "growth": 20.0},
    "paper": {"seeds": 30, "tasks": 2, "steps": 50_000, "images": 0, "data": "cifar10", "offset": 100.0, "growth": 0.0},
}


def get_config(preset="laptop"):
    """The plain variant of a preset: Adam at 1e-3 with PyTorch's defaults."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = {"name": size["data"]}
    stream = {name: size[name] for name in ("steps", "images", "offset", "growth")}
    config.stream = {"name": "target_offset", "batch": 16, **stream}
    config.head = {"name": "linear"}
    config.network = {"name": "mlp", "widths": (100, 100), "kernel_init": "torch", "bias_init": "torch"}
    config.optimizer = {"name": "adam", "learning_rate": 1e-3}
    config.diagnostics = PROBES[preset]
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "no_offset": {"stream.offset": 0.0, "stream.growth": 0.0},
        "layer_norm": {"network.norm": "layer"},
        "stationary": {"stream.growth": 0.0},
    }
