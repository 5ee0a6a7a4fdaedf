"""metrics.zarr: labelled arrays of every number, (run, task, ...), at full size and NaN from the start.

A boundary writes the region of its task, before its checkpoint. So the newest checkpoint is never ahead of the
numbers; what they are ahead of it is set back to NaN on resume and computed again. Tasks share chunks: zarr (from
3.1.3) replaces a chunk as a whole, so that a write that is cut off does not touch the tasks before it. A chunk that
was never written takes no space and reads as NaN.
"""

import json
import math
import pathlib

import numpy as np
import xarray as xr
import zarr

__all__ = ["Results"]

CHUNK_BYTES = 1 << 20  # tasks, or segments of a large one, share a chunk up to this size: few files, small rewrites


class Results:
    """The open store of one variant.

    Args:
      path: folder of the store.
      dims: name -> {dimension: labels} after (run, task); labels are names, numbers or a length. A `layer` that some
        metric lacks is NaN there: all metrics share one `layer` axis, aligned by name.
      coordinates: name -> [R] values along `run`, such as the seed and each grid setting.
      tasks: number of tasks.

    Raises:
      ValueError: the store on disk has other arrays or other sizes.
    """

    def __init__(self, path, dims, coordinates, tasks):
        self.path = pathlib.Path(path)
        self._labels = _shared_labels(dims)
        self._dims = dims
        self._shape = (len(next(iter(coordinates.values()))), tasks)
        if not self.path.exists():
            self._create(coordinates)
        try:
            self._group = zarr.open_group(str(self.path), mode="r+")
            self._check(coordinates)
        except (FileNotFoundError, KeyError, json.JSONDecodeError) as error:
            raise ValueError(
                f"{self.path} is damaged ({error}): restore it from a backup, or choose another --workdir."
            ) from error

    def write(self, task, metrics, segment=None):
        """Write metrics of one task: name -> [R, ...]; with `segment`, of that segment of it."""
        for name, values in metrics.items():
            index = [slice(None), task, *self._places(name)]
            if segment is not None:
                index[2] = segment
            values = np.asarray(values, np.float32)
            if values.size:  # a network without hidden layers has no units to write of
                self._group[name].set_orthogonal_selection(tuple(index), values)

    def clear_after(self, task, segment):
        """Set everything after the first `segment` segments of `task` back to NaN."""
        for name, own in self._dims.items():
            array, end = self._group[name], self._end(name)
            if task < end and "segment" in own:
                array[:, task, segment:] = np.nan
            elif task < end:
                array[:, task] = np.nan
            if task + 1 < end:
                array[:, task + 1 : end] = np.nan

    def _create(self, coordinates):
        labels = {name: _coordinate(values) for name, values in self._labels.items()}
        on_run = {name: ("run", np.asarray(values)) for name, values in coordinates.items()}
        dataset = xr.Dataset(coords={"task": np.arange(self._shape[1]), **labels, **on_run})
        draft = self.path.with_name(f".{self.path.name}.draft")
        dataset.to_zarr(draft, mode="w", consolidated=False, zarr_format=3)
        group = zarr.open_group(str(draft), mode="r+")
        for name, own in self._dims.items():  # by zarr, since xarray needs the numbers of what it creates
            group.create_array(
                name,
                shape=self._sizes(name),
                chunks=self._chunks(name),
                dtype=np.float32,
                fill_value=np.nan,
                dimension_names=("run", "task", *own),
            )
        draft.rename(self.path)  # the store is there as a whole, or not at all

    def _sizes(self, name):
        return (*self._shape, *(len(self._labels[dimension]) for dimension in self._dims[name]))

    def _chunks(self, name):
        """All runs of as many tasks as CHUNK_BYTES hold; of as many segments, where one task is larger."""
        sizes = self._sizes(name)
        chunks = [max(1, size) for size in sizes]
        for axis in (1, 2) if "segment" in self._dims[name] else (1,):
            each = 4 * sizes[0] * math.prod(chunks[axis + 1 :])
            chunks[axis] = max(1, min(sizes[axis], CHUNK_BYTES // each))
        return tuple(chunks)

    def _end(self, name):
        """The task at which the last chunk on disk ends: what was never written need not be cleared."""
        places = (self.path / name / "c" / "0").glob("*")  # zarr's default keys: c/run/task/...
        last = max((int(place.name) for place in places if place.name.isdigit()), default=-1)
        return min(self._shape[1], (last + 1) * self._group[name].chunks[1])

    def _check(self, coordinates):
        for name in self._dims:
            wanted = self._sizes(name)
            found = self._group[name].shape if name in self._group else None
            if found != wanted:
                raise ValueError(
                    f"{self.path} has {name} of shape {found}, but this configuration writes {wanted}: the results are "
                    "of another version of the program. Choose another --workdir."
                )
        for name, wanted in {**self._labels, **coordinates}.items():
            found = self._group[name][:]
            if list(found) != list(wanted):
                raise ValueError(
                    f"{self.path} has {name} {', '.join(map(str, found))}, but this configuration writes "
                    f"{', '.join(map(str, wanted))}: the results are of another version of the program. Choose another "
                    "--workdir."
                )

    def _places(self, name):
        """Where the labels of this metric stand on the shared axes."""
        places = []
        for dimension, labels in self._dims[name].items():
            shared = list(self._labels[dimension])
            labels = list(_listed(labels))
            places.append(slice(None) if labels == shared else np.array([shared.index(v) for v in labels], int))
        return places


def _shared_labels(dims):
    """The labels that all metrics share, by dimension, in the order in which they first appear."""
    shared = {}
    for own in dims.values():
        for dimension, labels in own.items():
            shared.setdefault(dimension, {}).update(dict.fromkeys(_listed(labels)))
    return {dimension: tuple(labels) for dimension, labels in shared.items()}


def _coordinate(labels):
    texts = any(isinstance(label, str) for label in labels)
    return np.array(labels, np.dtypes.StringDType() if texts else None)


def _listed(labels):
    return range(labels) if isinstance(labels, int) else labels
