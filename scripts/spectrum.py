"""The Hessian's spectrum of any checkpoint: a table, a figure and the numbers behind it.

python scripts/spectrum.py results/x/plain --task 3
"""

import pathlib
import sys

import numpy as np
from absl import app, flags

from plasticity_jax import cli
from plasticity_jax.host.folder import read_json

flags.DEFINE_integer("task", None, "Number of the task, from 0; by default the newest that is kept.")
flags.DEFINE_integer("steps", 64, "Lanczos steps.")
flags.DEFINE_integer("probes", 4, "Random start vectors.")
flags.DEFINE_integer("inputs", 2048, "Training inputs of the task.")


def main(argv):
    """Prints sharpness and the like for each run; writes figures/spectrum_task<t>.png, .svg and .npz."""
    if len(argv) != 2:
        raise app.UsageError("name the folder of one variant: python scripts/spectrum.py results/x/plain")
    values, folder = flags.FLAGS, pathlib.Path(argv[1])
    cli.set_up((read_json(folder / "config.json") or {"config": {"seeds": 1}})["config"])
    from plasticity_jax.analysis import spectrum
    from plasticity_jax.remeasure import remeasure

    settings = {"steps": values.steps, "probes": values.probes, "inputs": values.inputs}
    try:
        task, metrics = remeasure(folder, {"spectrum": settings}, values.task)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    path = folder / "figures" / f"spectrum_task{task}"
    path.parent.mkdir(exist_ok=True)
    figure = spectrum.draw(metrics, f"{folder.name}, after task {task}")
    figure.savefig(path.with_suffix(".png"))
    figure.savefig(path.with_suffix(".svg"))
    np.savez(path.with_suffix(".npz"), **metrics)
    names = [name for name, value in metrics.items() if value.ndim == 1]
    print("run", *names, sep="\t")
    for run in range(len(metrics["sharpness"])):
        print(run, *(f"{metrics[name][run]:.4g}" for name in names), sep="\t")
    print(path.with_suffix(".png"))


if __name__ == "__main__":
    app.run(main)
