"""status.json: how far a run is, for people and schedulers that look from outside."""

import time

from plasticity_jax.host import folder

__all__ = ["Status"]


class Status:
    """status.json: how far a run is, for people and schedulers that look from outside."""

    def __init__(self, workdir, tasks, runs):
        self._path, self._begun = workdir / "status.json", time.monotonic()
        before = folder.read_json(self._path) or {}
        self.is_done, self.task = before.get("state") == "done", before.get("task", 0)
        self._before_s = before.get("seconds", 0.0)
        self._content = {"task": before.get("task", 0), "tasks": tasks, "runs": runs}
        self._content["diverged"] = before.get("diverged", [])

    def write(self, state, **changes):
        """Replace status.json."""
        seconds = round(self._before_s + time.monotonic() - self._begun, 1)
        self._content |= changes
        folder.write_json(self._path, {"state": state, "seconds": seconds, **self._content})
