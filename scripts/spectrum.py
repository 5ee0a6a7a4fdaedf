"""The Hessian's spectrum of any checkpoints: a table, a figure and the numbers behind it.

python scripts/spectrum.py results/x/plain --task=-1 --task=5
"""

import pathlib
import sys

import numpy as np
from absl import app, flags

from plasticity_jax import cli
from plasticity_jax.host.folder import read_json

flags.DEFINE_multi_integer("task", None, "From 0, repeatable; -1: before training. By default the newest that is kept.")
flags.DEFINE_integer("steps", 64, "Lanczos steps.")
flags.DEFINE_integer("probes", 4, "Random start vectors.")
flags.DEFINE_integer("inputs", 2048, "Training inputs of the task.")


def main(argv):
    """Prints sharpness and the like for each run; writes figures/spectrum_task<t>.png, .svg and .npz."""
    if len(argv) != 2:
        raise app.UsageError("name the folder of one variant: python scripts/spectrum.py results/x/plain")
    values, folder = flags.FLAGS, pathlib.Path(argv[1])
    cli.set_up((read_json(folder / "config.json") or {"config": {"seeds": 1}})["config"])
    from plasticity_jax.analysis import spectrum, style
    from plasticity_jax.remeasure import remeasure

    settings = {"steps": values.steps, "probes": values.probes, "inputs": values.inputs}
    try:
        found = dict(remeasure(folder, {"spectrum": settings}, task) for task in values.task or [None])
        figure = spectrum.draw({f"{folder.name}, {_when(task)}": metrics for task, metrics in found.items()})
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    path = folder / "figures" / f"spectrum_task{'_'.join(map(str, found))}"
    path.parent.mkdir(exist_ok=True)
    path.with_suffix(".png").write_bytes(style.png(figure))
    path.with_suffix(".svg").write_bytes(style.svg(figure))
    names = [name for name, value in next(iter(found.values())).items() if value.ndim == 1]
    print("task", "run", *names, sep="\t")
    for task, metrics in found.items():
        np.savez(path.with_name(f"spectrum_task{task}.npz"), **metrics)
        for run in range(len(metrics["sharpness"])):
            print(task, run, *(f"{metrics[name][run]:.4g}" for name in names), sep="\t")
    print(path.with_suffix(".png"))


def _when(task):
    """A checkpoint in words."""
    return "before training" if task < 0 else f"after task {task + 1} (--task={task})"


if __name__ == "__main__":
    app.run(main)
