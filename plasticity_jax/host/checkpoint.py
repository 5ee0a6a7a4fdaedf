"""Checkpoints by orbax: the states of all runs, of the diagnostics, and the clock; as host arrays, so that any number
of devices can read them.

    checkpoints/STEP/default/     what orbax writes
    checkpoints/STEP/files.json   dtype and shape of each leaf, size and checksum of each file
    checkpoints-damaged/STEP/     what was moved aside

A checkpoint is written under another name and renamed when it is complete. files.json is there because orbax alone
fills a structure of other shapes and dtypes without a word, reads some changed bytes without one, and raises much the
same errors for damage and for another structure: damage is gone around, states of another program are refused.
"""

import contextlib
import errno
import logging
import os
import pathlib
import shutil
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from plasticity_jax.host.folder import read_json, write_json
from plasticity_jax.keys import IMPLEMENTATION

__all__ = ["CheckpointError", "Checkpoints", "parse_keep"]


OVERHEAD_BYTES = 1 << 17  # of the small files of a checkpoint


class CheckpointError(ValueError):
    """No checkpoint of a folder can be read, or they hold states of another program."""


class _DamagedError(ValueError):
    """The files of a checkpoint are not what was written."""


def parse_keep(keep):
    """The setting `checkpoint.keep` as (kind, number).

    >>> parse_keep("newest:3"), parse_keep("every:5"), parse_keep("all")
    (('newest', 3), ('every', 5), ('all', 0))
    """
    kind, _, number = keep.partition(":")
    if kind == "all" and not number:
        return kind, 0
    if kind in ("newest", "every") and number.isdigit() and int(number) > 0:
        return kind, int(number)
    raise ValueError(f"checkpoint.keep={keep!r}, but it must be 'all', 'newest:N' or 'every:N' (tasks), N at least 1.")


class Checkpoints:
    """The checkpoints of one variant, numbered by optimizer step.

    Args:
      folder: where they are; made by the first `save`.
      keep: the setting `checkpoint.keep`.
      boundaries: step at which each task ends -> number of tasks done then, for "every".
    """

    def __init__(self, folder, keep, boundaries):
        self._keep = parse_keep(keep)
        self._boundaries = boundaries
        self._folder = pathlib.Path(folder).absolute()
        self._orbax = ocp.Checkpointer(ocp.StandardCheckpointHandler())

    def save(self, step, content):
        """Write a checkpoint and then drop those that `keep` does not ask for. The newest always stays."""
        if step in self.steps():
            return
        draft = self._folder / ".draft"
        _remove(draft)
        draft.mkdir(parents=True)
        content = jax.tree.map(_to_host, content)
        try:
            _check_space(draft, sum(leaf.nbytes for leaf in jax.tree.leaves(content)))
            with _quiet():
                self._orbax.save(draft / "default", args=ocp.args.StandardSave(jax.tree.map(_not_empty, content)))
            write_json(draft / "files.json", {"leaves": _leaves(content), "files": _files(draft)})
            draft.rename(self._folder / str(step))
        except BaseException:
            _remove(draft)
            raise
        for old in self._obsolete(self.steps()):
            (self._folder / str(old)).rename(draft)
            _remove(draft)

    def steps(self):
        """Steps of all checkpoints, oldest first."""
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return sorted(int(name) for name in names if name.isdigit())

    def restore(self, like, step=None):
        """The newest undamaged checkpoint, or the one of `step`.

        A checkpoint that is damaged is moved aside, and the one before it is taken: the run goes on from there and
        comes to the same numbers. If all are damaged, all stay where they are.

        Args:
          like: tree of arrays or jax.ShapeDtypeStruct with the structure of what was saved.
          step: a step, or None for the newest.

        Returns:
          (step, tree of numpy arrays and keys), or None where there is no checkpoint at all.

        Raises:
          CheckpointError: there are checkpoints, but none can be read; or they hold other states than `like`.
        """
        steps = self.steps()[::-1] if step is None else [step]
        for tried, candidate in enumerate(steps):
            try:
                leaves = self._whole(candidate)
            except _DamagedError as error:
                logging.warning("Checkpoint %s of %s is damaged and passed over: %s.", candidate, self._folder, error)
                continue
            content = self._read(candidate, leaves, like)
            for damaged in steps[:tried]:
                self._set_aside(damaged)
            return candidate, content
        if not steps:
            return None
        raise CheckpointError(
            f"No checkpoint in {self._folder} can be read (tried {', '.join(map(str, steps))}). Nothing was deleted; "
            "restore the folder from a backup, or run the command again with another --workdir."
        )

    def close(self):
        """Wait for whatever is under way."""
        self._orbax.close()

    def _whole(self, step):
        """What files.json says of the leaves, if all files are as they were written."""
        folder = self._folder / str(step)
        try:
            written = read_json(folder / "files.json")
        except ValueError as error:
            raise _DamagedError(str(error)) from error
        if written is None:
            raise _DamagedError("its files.json is missing")
        for name, (size, checksum) in written["files"].items():
            path = folder / name
            if not path.is_file():
                raise _DamagedError(f"{name} is missing")
            if path.stat().st_size != size:
                raise _DamagedError(f"{name} has {path.stat().st_size} bytes instead of {size}")
            if _checksum(path) != checksum:
                raise _DamagedError(f"{name} has changed")
        return written["leaves"]

    def _read(self, step, leaves, like):
        blank = jax.tree.map(_blank, like)
        wanted = _leaves(blank)
        for name in [*wanted, *(name for name in leaves if name not in wanted)]:
            there, here = (found.get(name, ["nothing"]) for found in (leaves, wanted))
            if there != here:
                raise CheckpointError(
                    f"Checkpoint {step} of {self._folder} is of another version of the program: {name} is "
                    f"{' '.join(map(str, there))} there and {' '.join(map(str, here))} here. Go on with the version "
                    "that environment.json names, or choose another --workdir."
                )
        arguments = ocp.args.StandardRestore(jax.tree.map(_not_empty, blank))
        raw = self._orbax.restore(self._folder / str(step) / "default", args=arguments)
        return jax.tree.map(_from_host, raw, blank, like)

    def _set_aside(self, step):
        target = self._folder.with_name(f"{self._folder.name}-damaged")
        target.mkdir(exist_ok=True)
        place = target / str(step)
        number = 1
        while place.exists():
            place, number = target / f"{step}-{number}", number + 1
        (self._folder / str(step)).rename(place)

    def _obsolete(self, steps):
        kind, number = self._keep
        if kind == "all":
            return []
        if kind == "newest":
            return steps[:-number]
        return [s for s in steps[:-1] if s not in self._boundaries or self._boundaries[s] % number]


def _remove(folder):
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _check_space(folder, size):
    """Raise the error of a full disk before orbax meets it, which leaves a page of traces then."""
    if shutil.disk_usage(folder).free < size + OVERHEAD_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def _files(folder):
    """Size in bytes and checksum of all files in a folder, by path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): [path.stat().st_size, _checksum(path)] for path in paths}


def _checksum(path):
    value = 0
    with open(path, "rb") as stream:
        while block := stream.read(1 << 22):
            value = zlib.crc32(block, value)
    return value


def _leaves(content):
    """Dtype and shape of all leaves, by path, as JSON knows them."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): [str(leaf.dtype), list(leaf.shape)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(content)
    }


@contextlib.contextmanager
def _quiet():
    """Keep orbax from writing the traces of an error that it also raises."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _is_key(leaf):
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf):
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _not_empty(leaf):
    """Orbax cannot write arrays without elements: one element instead."""
    return leaf if leaf.size else np.zeros(1, leaf.dtype)


def _blank(leaf):
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return np.zeros(np.shape(leaf), getattr(leaf, "dtype", type(leaf)))


def _from_host(raw, blank, leaf):
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(raw), impl=IMPLEMENTATION)
    return np.asarray(raw) if blank.size else blank
