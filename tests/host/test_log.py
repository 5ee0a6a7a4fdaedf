"""Optional writers: what they are handed, and a clear word where their package is missing."""

import importlib.util
import sys
import types

import numpy as np
import pytest

from plasticity_jax.host import log

OFF = {"tensorboard": False, "wandb": ""}


def tensorboard_scalars(folder):
    """(step, name) -> value, of every event file in a folder."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in folder.glob("events*"):
        raw, at = path.read_bytes(), 0
        while at < len(raw):  # length, its checksum, the event, its checksum
            size = int.from_bytes(raw[at : at + 8], "little")
            event = Event.FromString(raw[at + 12 : at + 12 + size])
            found |= {(event.step, value.tag): value.simple_value for value in event.summary.value}
            at += 16 + size
    return found


def test_nothing_asked_for(tmp_path):
    write, close = log.open_writers(OFF, tmp_path, {})
    write(1, {"loss": np.ones(3)})
    close()
    assert not list(tmp_path.iterdir())


def test_tensorboard(tmp_path):
    write, close = log.open_writers({**OFF, "tensorboard": True}, tmp_path, {})
    write(10, {"loss": np.float32([1, 2, np.nan]), "norm": np.float32([[1, 2], [3, 4], [5, np.inf]])})
    write(10, {"matrix": np.ones((3, 40, 40))})  # too many to watch
    write(20, {"loss": np.full(3, np.nan), "diverged": np.array([True, False, True])})
    close()
    found = tensorboard_scalars(tmp_path / "tensorboard")
    assert found == pytest.approx({(10, "loss"): 1.5, (10, "norm/0"): 3, (10, "norm/1"): 3, (20, "diverged"): 2 / 3})


def test_missing_package(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else real(name))
    settings = {"tensorboard": True, "wandb": "project"}
    with pytest.raises(ValueError, match=r"log.wandb needs wandb.*pip install 'plasticity_jax\[log\]'"):
        log.open_writers(settings, tmp_path, {})
    assert not list(tmp_path.iterdir())


def test_wandb_is_resumed_as_the_same_run(tmp_path, monkeypatch):
    calls, logged = [], []

    def init(**settings):
        calls.append(settings)
        put = types.SimpleNamespace(log=lambda scalars, step: logged.append((step, scalars)), finish=lambda: None)
        return put

    fake = types.ModuleType("wandb")
    fake.init, fake.__spec__ = init, importlib.util.spec_from_loader("wandb", None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for step in (1, 2):
        write, close = log.open_writers({**OFF, "wandb": "project"}, tmp_path, {"seeds": 3})
        write(step, {"loss": np.float32([1, 3])})
        close()
    assert calls[0] == calls[1] and calls[0]["id"] and calls[0]["project"] == "project"
    assert logged == [(1, {"loss": 2.0}), (2, {"loss": 2.0})]
