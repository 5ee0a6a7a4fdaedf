"""Checkpoints by orbax: the states of all runs, of the diagnostics, and the clock; as host arrays, so that any number
of devices can read them.
"""

import logging
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from plasticity_jax.keys import IMPLEMENTATION

__all__ = ["CheckpointError", "Checkpoints", "parse_keep"]


class CheckpointError(ValueError):
    """No checkpoint of a folder can be read."""


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
      folder: where they are.
      keep: the setting `checkpoint.keep`.
      boundaries: step at which each task ends -> number of tasks done then, for "every".
    """

    def __init__(self, folder, keep, boundaries):
        self._keep = parse_keep(keep)
        self._boundaries = boundaries
        self._folder = pathlib.Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(create=True, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def save(self, step, content):
        """Write a checkpoint and then drop those that `keep` does not ask for. The newest always stays."""
        if step in self._manager.all_steps():
            return
        self._manager.save(step, args=ocp.args.StandardSave(jax.tree.map(_to_host, content)))
        self._manager.wait_until_finished()
        for old in self._obsolete(sorted(self._manager.all_steps())):
            self._manager.delete(old)

    def steps(self):
        """Steps of all checkpoints, oldest first."""
        return sorted(self._manager.all_steps())

    def restore(self, like, step=None):
        """The newest readable checkpoint, or the one of `step`.

        A checkpoint that cannot be read is moved aside, and the one before it is taken: the run goes on from there
        and comes to the same numbers.

        Args:
          like: tree of arrays or jax.ShapeDtypeStruct with the structure of what was saved.
          step: a step, or None for the newest.

        Returns:
          (step, tree of numpy arrays and keys), or None where there is no checkpoint at all.

        Raises:
          CheckpointError: there are checkpoints, but none can be read.
        """
        steps = [step] if step is not None else self.steps()[::-1]
        for candidate in steps:
            try:
                raw = self._manager.restore(candidate, args=ocp.args.StandardRestore(jax.tree.map(_blank, like)))
                return candidate, jax.tree.map(_from_host, raw, like)
            except Exception as error:  # orbax raises many kinds for a damaged file
                logging.warning("Checkpoint %s of %s cannot be read: %s", candidate, self._folder, error)
                if step is not None:
                    break
                self._set_aside(candidate)
        if not steps:
            return None
        raise CheckpointError(
            f"No checkpoint in {self._folder} can be read (tried {', '.join(map(str, steps))}). Nothing was deleted; "
            "restore the folder from a backup, or run the command again with another --workdir."
        )

    def close(self):
        """Wait for whatever is under way."""
        self._manager.close()

    def _set_aside(self, step):
        target = self._folder.with_name(f"{self._folder.name}-damaged")
        target.mkdir(exist_ok=True)
        place = target / str(step)
        number = 1
        while place.exists():
            place, number = target / f"{step}-{number}", number + 1
        (self._folder / str(step)).rename(place)
        self._manager.reload()

    def _obsolete(self, steps):
        kind, number = self._keep
        if kind == "all":
            return []
        if kind == "newest":
            return steps[:-number]
        return [s for s in steps[:-1] if s not in self._boundaries or self._boundaries[s] % number]


def _is_key(leaf):
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf):
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _blank(leaf):
    if _is_key(leaf):
        leaf = jax.eval_shape(jax.random.key_data, leaf)
    return np.zeros(leaf.shape, leaf.dtype)


def _from_host(raw, leaf):
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(raw), impl=IMPLEMENTATION)
    return raw
