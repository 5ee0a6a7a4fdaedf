"""A results folder: who may write, what it holds, how far it is. JSON files are replaced whole, never in part."""

import contextlib
import datetime
import fcntl
import json
import os
import pathlib
import socket

__all__ = ["FolderError", "claim", "read_json", "same_configuration", "write_json"]


class FolderError(ValueError):
    """A results folder that cannot be used as asked."""


def read_json(path):
    """The JSON in a file, or None where there is no such file."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except json.JSONDecodeError as error:
        raise FolderError(f"{path} is not valid JSON ({error}): mend it, or move the folder away.") from error


def write_json(path, content):
    """Replace a JSON file as a whole: a crash leaves either the old content or the new."""
    path = pathlib.Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "w", encoding="utf-8") as stream:
            json.dump(content, stream, indent=2, sort_keys=False)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


@contextlib.contextmanager
def claim(folder):
    """Create `folder` if need be and hold its lock: one writer a folder.

    The lock belongs to the process: it is gone with it, however it ends. The file names its owner.

    Raises:
      FolderError: another process writes there, or the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "a+", encoding="utf-8")
    except OSError as error:
        raise FolderError(f"{folder} cannot be written ({error.strerror}): choose another --workdir.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise FolderError(
                f"{folder} is being written by {owner}. Wait for it, stop it, or choose another --workdir."
            ) from error
        lock.truncate(0)
        now = datetime.datetime.now().isoformat(timespec="seconds")
        lock.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n")
        lock.flush()
        yield folder


def same_configuration(folder, content):
    """Write config.json, or check that the folder already holds this very configuration.

    Args:
      folder: a claimed folder.
      content: {"hash": ..., "config": ...}.

    Raises:
      FolderError: the folder holds the results of another configuration; the message names what differs.
    """
    path = pathlib.Path(folder) / "config.json"
    found = read_json(path)
    if found is None:
        strangers = [p.name for p in folder.iterdir() if p.name in ("metrics.zarr", "checkpoints")]
        if strangers:
            raise FolderError(f"{folder} holds {' and '.join(strangers)} but no config.json: choose another --workdir.")
        write_json(path, content)
    elif found["hash"] != content["hash"]:
        differences = _differences(found["config"], json.loads(json.dumps(content["config"])))
        raise FolderError(
            f"{folder} holds results of another configuration ({'; '.join(differences[:5])}). "
            "Choose another --workdir, or give the settings of before to go on with them."
        )


def _differences(old, new, path=""):
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [d for n in names for d in _differences(old.get(n), new.get(n), f"{path}.{n}" if path else n)]
    return [] if old == new else [f"{path}: {old!r} there, {new!r} asked"]
