"""Small result folders made by hand: what run.py would have written."""

import json
import warnings

import numpy as np
import xarray as xr

SEEDS, TASKS, SEGMENTS, LAYERS = 8, 6, 4, ("fc0", "fc1", "head")
VARIANTS = {"adam": 0.12, "tuned_adam": 0.02, "layer_norm": 0.0}  # loss of accuracy per task


def metrics(slope, seeds=range(SEEDS), tasks=TASKS, grid=None, seed=0, small=False):
    """Metrics of one variant, with noise that its seeds share with every other variant."""
    grid = grid or {}
    points = [dict(zip(grid, values, strict=True)) for values in _product(*grid.values())]
    runs = [(point, s) for point in points for s in seeds]
    shared = np.stack([np.random.default_rng(s).normal(0, 0.02, TASKS)[:tasks] for _, s in runs])
    rng = np.random.default_rng(seed)
    final = 0.9 - slope * np.arange(tasks) + shared + rng.normal(0, 0.005, shared.shape)
    ramp = np.linspace(0.4, 0.95, SEGMENTS)
    online = final[:, :, None] * ramp
    layered = np.full((len(runs), tasks, len(LAYERS)), np.nan)
    layered[..., :2] = np.clip(slope * np.arange(tasks), 0, 1)[:, None] * [0.8, 0.5] + 0.01 * np.abs(shared)[..., None]
    data = {
        "final_accuracy": (("run", "task"), final),
        "test_accuracy": (("run", "task"), np.full_like(final, np.nan)),
        "final_loss": (("run", "task"), 1 - final),
        "online_accuracy": (("run", "task", "segment"), online),
        "online_loss": (("run", "task", "segment"), 1 - online),
        "weight_norm": (("run", "task"), 10 + np.arange(tasks) + shared * 20),
        "distance_from_init": (("run", "task"), 5 + np.arange(tasks) + shared * 20),
        "diverged": (("run", "task"), np.zeros_like(final)),
        "dead_fraction": (("run", "task", "layer"), layered),
        "dormant_fraction": (("run", "task", "layer"), layered * 1.2),
        "srank": (("run", "task", "layer"), 60 * (1 - layered)),
        "effective_rank": (("run", "task", "layer"), 40 * (1 - layered)),
    }
    if small:  # one figure instead of five
        data = {name: data[name] for name in ("final_accuracy", "final_loss", "diverged")}
    coords = {"seed": ("run", [s for _, s in runs]), "task": np.arange(tasks), "layer": list(LAYERS)}
    coords |= {path: ("run", [point[path] for point, _ in runs]) for path in grid}
    return xr.Dataset({k: (d, np.asarray(v, np.float32)) for k, (d, v) in data.items()}, coords)


def _product(*values):
    """Cartesian product; one empty point without values."""
    out = [()]
    for choices in values:
        out = [(*point, value) for point in out for value in choices]
    return out


def write_variant(folder, dataset, state="done", diverged=(), **overrides):
    """One variant's folder as run.py writes it."""
    folder.mkdir(parents=True)
    config = {
        "seeds": len(set(dataset["seed"].values.tolist())),
        "stream": {"name": "random_labels", "tasks": dataset.sizes["task"], "steps": 4000},
        "network": {"name": "mlp", "widths": [64, 64]},
        "optimizer": {"name": "adam", "learning_rate": 3e-3},
        "interventions": {},
        "data": {"name": "digits"},
    }
    for path, value in overrides.items():
        block, name = path.split("__")
        config[block][name] = value
    done = int(np.isfinite(dataset["final_accuracy"].values).any(0).sum())
    status = {"state": state, "task": done, "tasks": dataset.sizes["task"], "seconds": 12.5, "diverged": list(diverged)}
    environment = {
        "devices": ["cpu:0", "cpu:1"],
        "versions": {"jax": "0.10.2", "numpy": "2.4.0"},
        "parameters": 13066,
        "commit": "0123abc",
        "classes": 10,
    }
    write = {"config": {"config": config, "hash": "f00", "runs_per_batch": 1}, "status": status}
    for name, value in (write | {"environment": environment}).items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    store(dataset, folder / "metrics.zarr")
    return folder


def store(dataset, path):
    """Writes a store; zarr warns of string labels in some versions, which is not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.to_zarr(path, consolidated=False, zarr_format=3, mode="w")
