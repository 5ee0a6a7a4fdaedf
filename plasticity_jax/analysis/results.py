"""Reads a folder of results: every variant as one labelled dataset, with what is missing said instead of raised.

    results/x/VARIANT/{config.json, environment.json, status.json, metrics.zarr}

A sweep that is still running can be read: tasks not done yet are NaN. A file that is absent or cannot be read is listed
in `attrs["missing"]` of its variant; only a folder without any results is an error.
"""

import json
import pathlib

import xarray

__all__ = ["SETTINGS_FILES", "load", "settings_of"]

SETTINGS_FILES = ("config", "environment", "status")
STORE = "metrics.zarr"
LARGEST_BYTES = 2**28  # arrays above this stay on disk until they are used
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError)


def load(folder):
    """All variants of a sweep, as {name: dataset}.

    Datasets have the dimensions run, task, and per metric segment or layer; coordinates `seed` and one per grid setting
    lie on run. `attrs` hold the dicts `config`, `environment`, `status` and `costs` ({} where the file is absent),
    `folder`, and `missing`, a list of sentences. The order is that of `sweep.json` ({"variants": [names]}), else
    alphabetical.

    Args:
      folder: results of a sweep, or of one variant, which then stands alone under the name of its folder.

    Raises:
      FileNotFoundError: there is no such folder, or nothing in it is a result.

    >>> load("no/such/folder")
    Traceback (most recent call last):
      ...
    FileNotFoundError: no/such/folder: no such folder
    """
    folder = pathlib.Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    if _is_variant(folder):
        return {folder.resolve().name: _variant(folder)}
    names = _names(folder)
    if not names:
        wanted = ", ".join([STORE, *(f"{name}.json" for name in SETTINGS_FILES)])
        raise FileNotFoundError(f"{folder}: no results: neither it nor a folder in it holds any of {wanted}")
    return {name: _variant(folder / name) for name in names}


def settings_of(dataset):
    """Names of the grid settings of a dataset: its coordinates on run other than the seed, in the order of config.grid.

    >>> settings_of(xarray.Dataset(coords={"seed": ("run", [0, 1]), "optimizer.learning_rate": ("run", [0.1, 0.01])}))
    ('optimizer.learning_rate',)
    """
    names = sorted(n for n, c in dataset.coords.items() if c.dims == ("run",) and n not in ("seed", "run"))
    grid = dataset.attrs.get("config", {}).get("grid") or ()
    order = [axis[0] for axis in grid if isinstance(axis, (list, tuple)) and axis]  # a store keeps no order
    return tuple(sorted(names, key=lambda name: order.index(name) if name in order else len(order)))


def _is_variant(folder):
    """Whether a folder holds anything that a variant writes."""
    return any((folder / name).exists() for name in (STORE, *(f"{name}.json" for name in SETTINGS_FILES)))


def _names(folder):
    """Names of the variants: those that sweep.json lists, whether begun or not, then others found, by name."""
    found = sorted(path.name for path in folder.iterdir() if path.is_dir() and _is_variant(path))
    listed = _json(folder / "sweep.json")[0].get("variants", [])
    return [*listed, *(name for name in found if name not in listed)]


def _variant(folder):
    """The dataset of one variant, with its settings and a list of what could not be read."""
    missing, files = [], {}
    for name in SETTINGS_FILES:
        files[name], problem = _json(folder / f"{name}.json")
        missing += [problem] if problem else []
    files["costs"], _ = _json(folder / "costs.json")  # nothing is said of it where it is absent
    dataset, problems = _metrics(folder / STORE)
    config = files["config"].get("config", {})
    files["config"] = config if isinstance(config, dict) else {}
    return dataset.assign_attrs(folder=str(folder), missing=missing + problems, **files)


def _json(path):
    """A JSON object and what was wrong with it: ({}, sentence) where it cannot be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"{path.name} is absent"
    except (OSError, ValueError) as error:
        return {}, f"{path.name} cannot be read ({_first_line(error)})"
    return (value, None) if isinstance(value, dict) else ({}, f"{path.name} is no JSON object")


def _metrics(path):
    """The arrays of one variant, and what could not be read of them."""
    if not path.exists():
        return xarray.Dataset(), [f"{path.name} is absent"]
    try:
        stored = xarray.open_zarr(path, consolidated=False, chunks=None)
    except UNREADABLE as error:
        return xarray.Dataset(), [f"{path.name} cannot be opened ({_first_line(error)})"]
    if not {"run", "task"} <= set(stored.dims):
        return xarray.Dataset(), [f"{path.name} has no dimensions run and task yet"]
    if "seed" not in stored.coords:
        return xarray.Dataset(), [f"{path.name} has no coordinate seed"]
    return _readable(stored, path.name)


def _readable(stored, name):
    """The dataset without the arrays whose chunks are damaged, and a sentence for each of those."""
    problems = []
    for variable in list(stored.variables):
        try:
            if stored[variable].nbytes <= LARGEST_BYTES:
                stored[variable].load()
        except UNREADABLE as error:
            problems.append(f"{name}: {variable} cannot be read ({_first_line(error)})")
            stored = stored.drop_vars(variable)
    if "seed" not in stored.coords:
        return xarray.Dataset(), problems
    return stored, problems


def _first_line(error):
    """The first line of an exception's message, or its type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
