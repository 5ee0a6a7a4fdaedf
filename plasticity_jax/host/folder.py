"""A results folder: who may write, what it holds, how far it is. JSON files are replaced whole, never in part."""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import re
import socket

__all__ = [
    "FolderError",
    "check_configuration",
    "check_sweep",
    "claim",
    "explained",
    "read_json",
    "same_configuration",
    "write_json",
]

FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM)


class FolderError(ValueError):
    """A results folder that cannot be used as asked."""


def read_json(path):
    """The JSON in a file, or None where there is no such file."""
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:  # no JSON, or no text at all
        raise FolderError(f"{path} is not valid JSON ({error}): mend it, or move the folder away.") from error


def write_json(path, content):
    """Replace a JSON file as a whole: a crash leaves either the old content or the new."""
    path = pathlib.Path(path)
    draft = path.with_name(f".{path.name}.draft")  # one name: what a killed process left is written over
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
        lock = open(folder / "lock", "a+b", buffering=0)  # noqa: SIM115, closed below
    except OSError as error:
        raise FolderError(f"{folder} cannot be written ({error.strerror}): choose another --workdir.") from error
    with lock:
        _lock(folder, lock)
        now = datetime.datetime.now().isoformat(timespec="seconds")
        with explained(folder):
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()} since {now}\n".encode())
        yield folder


def _lock(folder, lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().decode().strip() or "another process"
        raise FolderError(
            f"{folder} is being written by {owner}. Wait for it, stop it, or choose another --workdir."
        ) from error
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be locked ({error.strerror}): choose a --workdir on a file system that has locks."
        ) from error


@contextlib.contextmanager
def explained(folder):
    """Turn a full disk or a folder that refuses writes, met in the block, into a FolderError that says what to do.

    Libraries below report them as OSError, or as the text of a ValueError; everything else passes as it is.
    """
    try:
        yield
    except FolderError:
        raise
    except (OSError, ValueError) as error:
        number = _error_number(error)
        if number in FULL:
            raise FolderError(
                f"{folder}: the disk is full. What was saved before is whole: free some space and run the same command "
                "again, it goes on from there."
            ) from error
        if number in REFUSED:
            raise FolderError(
                f"{folder} can no longer be written ({os.strerror(number)}). What was saved before is whole: make it "
                "writable and run the same command again, it goes on from there."
            ) from error
        raise


def check_configuration(folder, content):
    """Check that a folder is empty or holds this very configuration; nothing is written.

    Args:
      folder: a results folder, which need not exist.
      content: {"hash": ..., "config": ...}.

    Raises:
      FolderError: the folder holds the results of another configuration, and the message names what differs; or it has
        lost its numbers.
    """
    folder = pathlib.Path(folder)
    found = read_json(folder / "config.json")
    if (folder / "sweep.json").exists():
        raise FolderError(f"{folder} holds a sweep, whose report would be lost: choose another --workdir.")
    if found is None:
        strangers = [name for name in ("metrics.zarr", "checkpoints") if (folder / name).exists()]
        if strangers:
            raise FolderError(f"{folder} holds {' and '.join(strangers)} but no config.json: choose another --workdir.")
    elif found.get("hash") != content["hash"]:
        differences = _differences(found.get("config"), json.loads(json.dumps(content["config"])))
        more = [f"and {len(differences) - 5} more"] if len(differences) > 5 else []
        raise FolderError(
            f"{folder} holds results of another configuration ({'; '.join(differences[:5] + more)}). "
            "Choose another --workdir, or give the settings of before to go on with them."
        )
    elif not (folder / "metrics.zarr").exists():
        ended = (read_json(folder / "status.json") or {}).get("task", 0)
        if ended or any((folder / "checkpoints").glob("[0-9]*")):
            raise FolderError(
                f"{folder} holds a run that had begun ({ended} tasks ended); its numbers, metrics.zarr, are missing: "
                "restore them from a backup, or choose another --workdir. Nothing was changed."
            )


def check_sweep(folder):
    """Check that a folder holds no variant of its own, whose report that of a sweep would replace."""
    if (pathlib.Path(folder) / "config.json").exists():
        raise FolderError(f"{folder} holds the results of a single variant: choose another --workdir for a sweep.")


def same_configuration(folder, content):
    """`check_configuration` of a claimed folder, and then write config.json if it is not there."""
    check_configuration(folder, content)
    path = pathlib.Path(folder) / "config.json"
    if not path.exists():
        with explained(folder):
            write_json(path, content)


def _differences(old, new, path=""):
    if isinstance(old, dict) and isinstance(new, dict):
        names = [*old, *(name for name in new if name not in old)]
        return [d for n in names for d in _differences(old.get(n), new.get(n), f"{path}.{n}" if path else n)]
    return [] if old == new else [f"{path}: {old!r} there, {new!r} asked"]


def _error_number(error):
    """The number of an error of the file system, also where a library only passes it on in its text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        told = re.search(r"os_error_code='(\d+)'", str(error))  # tensorstore, below orbax
        if told:
            return int(told[1])
        error = error.__cause__
    return None
