"""Slowly-Changing Regression of Dohare et al. 2024 (Nature 632:768, arXiv 2306.13812): tasks that differ in one bit.

What: a network with one hidden layer of ReLU units learns a fixed function of 20 bits, online, one example at a time.
15 bits stay as they are for 10,000 steps, then one of them flips: a new task. The function is a network of 100
threshold units with weights of +1 and -1 (beta 0.7). Initial weights are the source's: uniform after He for the hidden
layer, uniform after LeCun for the output. No data are read.

    python scripts/sweep.py --config configs/slowly_changing_regression.py:laptop --workdir results/slowly_changing
    python scripts/report.py results/slowly_changing

Presets: `:smoke` takes under a minute; `:laptop` has 4 seeds and 30 tasks of 10,000 steps, a learner of 20 units and
Adam at 3e-3, and takes 2 minutes on 2 cores; `:paper` is the source's, with 5 units, SGD at 1e-2 (of its grid 1e-2,
3e-3, 1e-3), 300 tasks and 100 seeds, and has not been run.

Variants: `plain`; `layer_norm` before the activation; `five_units`, as many as the source's learner has; `redraw`,
which draws all slow bits anew at each boundary, as the source's other generator does (there with 100 tasks). The
learning rate was chosen by hand for the plain variant, on these seeds.

Expect of `:laptop`, explained variance, seeds 0-3, mean ± half of the 95% interval over seeds (Student t); the change
is from tasks 1 to 5 to tasks 26 to 30, seed by seed (`scripts/report.py results/slowly_changing
--metric=explained_variance --tasks=1-5 --tasks=26-30` prints it):

    variant     task 1           tasks 1-5        tasks 26-30      change           all tasks
    plain       0.956 ± 0.029    0.950 ± 0.051    0.880 ± 0.089   -0.070 ± 0.071    0.876 ± 0.070
    layer_norm  0.988 ± 0.015    0.989 ± 0.004    0.899 ± 0.122   -0.090 ± 0.122    0.952 ± 0.039
    five_units  0.436 ± 0.518    0.555 ± 0.232    0.652 ± 0.222    0.097 ± 0.037    0.608 ± 0.128
    redraw      0.956 ± 0.029    0.914 ± 0.094    0.637 ± 0.267   -0.277 ± 0.213    0.792 ± 0.111

What may look odd, and why. The variance is that of the 32 inputs of a task, so some tasks are harder than others, for
all variants alike: compare variants within a task, or means over many. Where all slow bits change at once, a learner of
20 units gets worse (`redraw`); where one does, four seeds and 30 tasks do not show it: both intervals hold 0. Units do
die: 68% of plain's are dead after task 10 and 59% after task 30, 48 and 70% of layer norm's. Five units are too few for
the function, which is the source's point: such a learner must track it. Half of them are dead from the start, and it
gets better at first; the source shows squared errors that rise over many more tasks.
"""

from ml_collections import ConfigDict

CHEAP = ("duplicates", "gradients", "overlap", "ranks", "shift", "sparsity", "units", "weights")
ADAM = {"name": "adam", "learning_rate": 3e-3}
SGD = {"name": "sgd", "learning_rate": 1e-2}
PRESETS = {
    "smoke": {"seeds": 2, "tasks": 2, "steps": 100, "units": 20, "optimizer": ADAM},
    "laptop": {"seeds": 4, "tasks": 30, "steps": 10_000, "units": 20, "optimizer": ADAM},
    "paper": {"seeds": 100, "tasks": 300, "steps": 10_000, "units": 5, "optimizer": SGD},
}


def get_config(preset="laptop"):
    """The plain variant: one hidden layer of ReLU units."""
    if preset not in PRESETS:
        raise ValueError(f"There is no preset {preset!r}. This file has: {', '.join(PRESETS)}.")
    size = PRESETS[preset]
    config = ConfigDict()
    config.seeds = size["seeds"]
    config.tasks = size["tasks"]
    config.data = {"name": "none"}
    config.stream = {"name": "slowly_changing_regression", "steps": size["steps"]}
    config.head = {"name": "linear"}
    config.network = {"name": "mlp", "widths": (size["units"],)}
    config.network.update({"kernel_init": "he_uniform", "head_init": "lecun_uniform"})
    config.optimizer = size["optimizer"]
    if preset == "laptop":  # its tasks take 40 ms a run
        config.diagnostics = {name: {"every": 5} for name in CHEAP}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "plain": {},
        "layer_norm": {"network.norm": "layer"},
        "five_units": {"network.widths": (5,)},
        "redraw": {"stream.change": "redraw"},
    }
