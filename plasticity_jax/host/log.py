"""Optional writers of scalars, behind one interface: TensorBoard and Weights & Biases. The results folder comes first,
and always holds everything; these are for watching.
"""

import importlib.util
import os
import uuid

import numpy as np

from plasticity_jax.host.folder import read_json, write_json

__all__ = ["check", "open_writers"]

LARGEST = 1000  # numbers of one metric: a matrix of examples is for the results, not for watching
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}


def check(settings):
    """A ValueError if the block `log` asks for a writer whose package is not installed."""
    for name, package in PACKAGES.items():
        if settings[name] and importlib.util.find_spec(package) is None:
            raise ValueError(
                f"log.{name} needs {package}, which is not installed: pip install 'plasticity_jax[log]', or leave out "
                f"log.{name}."
            )


def open_writers(settings, folder, config):
    """The writers that the configuration asks for, as one function (step, {name: [R, ...]}) -> None and a close().

    Args:
      settings: the block `log`: "tensorboard" (bool), "wandb" (a project's name, or "").
      folder: results folder of the variant.
      config: resolved configuration, recorded by W&B.

    Raises:
      ValueError: a writer is asked for whose package is not installed.
    """
    check(settings)
    writers = []
    if settings["tensorboard"]:
        writers.append(_tensorboard(folder))
    if settings["wandb"]:
        writers.append(_wandb(settings["wandb"], folder, config))

    def write(step, metrics):
        scalars = _scalars(metrics) if writers else {}
        for put, _ in writers:
            put(step, scalars)

    def close():
        for _, end in writers:
            end()

    return write, close


def _scalars(metrics):
    """Means over the runs that have not diverged and are finite, one number per metric and layer: name/index.

    Metrics of more than 1,000 numbers a run are left out.
    """
    scalars = {}
    standing = np.asarray(metrics.get("diverged", 0.0)) == 0
    for name, values in metrics.items():
        if np.prod(np.shape(values)[1:]) > LARGEST:
            continue
        values = np.asarray(values, np.float64)
        finite = np.isfinite(values)
        if name != "diverged" and standing.ndim:
            finite &= standing.reshape(-1, *[1] * (values.ndim - 1))
        counts = finite.sum(0)
        means = np.where(finite, values, 0.0).sum(0) / np.maximum(counts, 1)
        for index in np.ndindex(means.shape):
            if counts[index]:
                scalars["/".join([name, *map(str, index)])] = float(means[index])
    return scalars


def _tensorboard(folder):
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(os.path.join(folder, "tensorboard"))

    def put(step, scalars):
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return put, writer.close


def _wandb(project, folder, config):
    import wandb

    path = os.path.join(folder, "wandb.json")  # a resumed run goes on as the same run of W&B
    found = read_json(path) or {"id": uuid.uuid4().hex[:12]}
    write_json(path, found)
    name = os.path.basename(folder)
    run = wandb.init(project=project, dir=str(folder), config=config, name=name, id=found["id"], resume="allow")
    return (lambda step, scalars: run.log(scalars, step=step)), run.finish
