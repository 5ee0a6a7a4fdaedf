"""A results folder: one writer, one configuration, files that are whole, and errors that say what to do."""

import errno
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest
from small_runs import environment

from plasticity_jax.host import folder
from plasticity_jax.host.folder import FolderError

CONTENT = {"hash": "a1", "config": {"seeds": 3, "network": {"name": "mlp", "widths": (8, 8)}, "tasks": 2}}

HOLD = """
import sys, time
from plasticity_jax.host.folder import claim
with claim(sys.argv[1]):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.communicate()


def test_one_writer(holder, tmp_path):
    with pytest.raises(FolderError, match=rf"being written by process {holder.pid} on \S+ since 2.*--workdir"):
        folder.claim(tmp_path).__enter__()
    holder.kill()  # SIGKILL: the process has no chance to release anything
    holder.wait()
    with folder.claim(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / "lock").read_text()
    with folder.claim(tmp_path):
        pass


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(stream, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(folder.fcntl, "flock", refuse)
    with pytest.raises(FolderError, match=r"cannot be locked \(No locks available\).*--workdir"):
        folder.claim(tmp_path).__enter__()


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(FolderError, match=r"x cannot be written \(File exists\).*--workdir"):
        folder.claim(tmp_path / "x").__enter__()


def test_the_same_configuration(tmp_path):
    folder.same_configuration(tmp_path, CONTENT)
    folder.same_configuration(tmp_path, CONTENT)
    assert folder.read_json(tmp_path / "config.json") == json.loads(json.dumps(CONTENT))


def test_another_configuration(tmp_path):
    folder.same_configuration(tmp_path, CONTENT)
    before = (tmp_path / "config.json").read_bytes()
    config = {**CONTENT["config"], "network": {"name": "mlp", "widths": (4,), "norm": "layer"}}
    differences = "network.widths: [8, 8] there, [4] asked; network.norm: None there, 'layer' asked"
    told = re.escape(f"another configuration ({differences})")
    with pytest.raises(FolderError, match=told + ".*--workdir"):
        folder.same_configuration(tmp_path, {"hash": "b2", "config": config})
    with pytest.raises(FolderError, match=told):
        folder.check_configuration(tmp_path, {"hash": "b2", "config": config})
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("left", ["status.json", "checkpoints"])
def test_a_folder_that_has_lost_its_numbers(tmp_path, left):
    folder.same_configuration(tmp_path, {"hash": "a", "config": {}})
    folder.write_json(tmp_path / "status.json", {"state": "running", "task": 0})
    folder.check_configuration(tmp_path, {"hash": "a", "config": {}})  # nothing had been trained
    if left == "status.json":
        folder.write_json(tmp_path / "status.json", {"state": "done", "task": 2})
    else:
        (tmp_path / "checkpoints" / "30").mkdir(parents=True)
    with pytest.raises(folder.FolderError, match=r"metrics\.zarr, are missing: restore them from a backup, or choose"):
        folder.check_configuration(tmp_path, {"hash": "a", "config": {}})
    (tmp_path / "metrics.zarr").mkdir()
    folder.check_configuration(tmp_path, {"hash": "a", "config": {}})


def test_many_differences_are_counted(tmp_path):
    folder.same_configuration(tmp_path, {"hash": "a", "config": dict.fromkeys("abcdefgh", 1)})
    with pytest.raises(FolderError, match="e: 1 there, 2 asked; and 3 more"):
        folder.same_configuration(tmp_path, {"hash": "b", "config": dict.fromkeys("abcdefgh", 2)})


@pytest.mark.parametrize("name", ["metrics.zarr", "checkpoints"])
def test_results_of_an_unknown_configuration(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(FolderError, match=f"holds {name} but no config.json.*--workdir"):
        folder.same_configuration(tmp_path, CONTENT)
    assert not (tmp_path / "config.json").exists()


@pytest.mark.parametrize("text", ['{"hash": "a1", ', "\0\0\0", b"\xff\xfe\xfa"])
def test_damaged_json(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FolderError, match=f"{re.escape(str(path))} is not valid JSON"):
        folder.same_configuration(tmp_path, CONTENT)


def test_json_is_replaced_as_a_whole(tmp_path, monkeypatch):
    path = tmp_path / "status.json"
    folder.write_json(path, {"task": 1})

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for place in ("os.fsync", "os.replace", "json.dump"):
        with monkeypatch.context() as patch:
            patch.setattr(f"plasticity_jax.host.folder.{place}", full)
            with pytest.raises(OSError, match="No space"):
                folder.write_json(path, {"task": 2})
        assert folder.read_json(path) == {"task": 1}
        assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def test_a_draft_that_was_left_behind_is_written_over(tmp_path):
    (tmp_path / ".status.json.draft").write_text("{")
    folder.write_json(tmp_path / "status.json", {"task": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["status.json"]


def raised(number):
    return OSError(number, os.strerror(number))


def passed_on(number):
    return ValueError(f"RESOURCE_EXHAUSTED: Failed to write 446 bytes [os_error_code='{number}']")


@pytest.mark.parametrize("kind", [raised, passed_on])
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.ENOSPC, "the disk is full.*free some space and run the same command again"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, r"can no longer be written \(Read-only file system\).*run the same command again"),
        (errno.EACCES, r"can no longer be written \(Permission denied\)"),
    ],
)
def test_errors_of_the_file_system_say_what_to_do(tmp_path, kind, number, told):
    with pytest.raises(FolderError, match=f"{re.escape(str(tmp_path))}.*{told}"), folder.explained(tmp_path):
        raise kind(number)


def test_causes_are_looked_at_and_other_errors_pass(tmp_path):
    with pytest.raises(FolderError, match="disk is full"), folder.explained(tmp_path):
        raise ValueError("could not write a chunk") from raised(errno.ENOSPC)
    with pytest.raises(ValueError, match=r"^widths$"), folder.explained(tmp_path):
        raise ValueError("widths")
    with pytest.raises(FileNotFoundError), folder.explained(tmp_path):
        raise raised(errno.ENOENT)


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a small tmpfs; skips where that is not allowed."""
    places = []

    def mount(options):
        place = tmp_path / "mounted"
        place.mkdir(exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        places.append(place)
        return pathlib.Path(place)

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


def test_a_read_only_folder(mounted):
    place = mounted("size=200k")
    folder.same_configuration(place, CONTENT)
    (place / "lock").touch()
    subprocess.run(["mount", "-o", "remount,ro", place], check=True)
    told = r"cannot be written \(Read-only file system\): choose another --workdir"
    with pytest.raises(FolderError, match=told):
        folder.claim(place).__enter__()
    with pytest.raises(FolderError, match=told):
        folder.claim(place / "new").__enter__()


def test_a_folder_that_refuses(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise raised(errno.EROFS)

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(FolderError, match=r"cannot be written \(Read-only file system\): choose another --workdir"):
        folder.claim(tmp_path).__enter__()


def test_a_sweep_and_a_single_variant_are_kept_apart(tmp_path):
    """The report of one would replace that of the other."""
    folder.check_sweep(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FolderError, match="results of a single variant: choose another --workdir"):
        folder.check_sweep(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(FolderError, match=r"holds a sweep.*choose another --workdir"):
        folder.check_configuration(tmp_path, CONTENT)
