"""Checkpoints: what comes back is what was saved, and damage of any kind is noticed and gone around."""

import logging
import os
import pathlib
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from small_runs import environment

from plasticity_jax.host.checkpoint import CheckpointError, Checkpoints, parse_keep


class State(NamedTuple):
    key: jax.Array
    learner: dict
    flags: tuple


def content(value=0.0, size=3000):
    """Keys, named tuples, scalars, low precision and containers without a leaf; noise, so that nothing compresses."""
    rng = np.random.default_rng(int(value))
    weights = rng.normal(size=size).astype(np.float32)
    learner = {"w": jnp.asarray(weights), "half": jnp.ones((2, 3), jnp.bfloat16), "none": (), "empty": {}}
    keys = jax.vmap(lambda seed: jax.random.key(seed, impl="threefry2x32"))(jnp.arange(2, dtype=jnp.uint32))
    state = State(keys, learner, (np.bool_(True), jnp.int32(-7), np.zeros((2, 0), np.float32)))
    return {"train": state, "diagnostics": {"units": ()}, "clock": (np.int32(value), 5, True)}


def assert_same(found, wanted):
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if hasattr(b, "dtype") and jnp.issubdtype(b.dtype, jax.dtypes.prng_key):
            assert a.dtype == b.dtype
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype and np.shape(a) == np.shape(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.fixture
def opened():
    """A function that opens checkpoints; all are closed at the end."""
    managers = []

    def open_them(folder, keep="all", boundaries=()):
        managers.append(Checkpoints(folder, keep, dict(boundaries)))
        return managers[-1]

    yield open_them
    for manager in managers:
        manager.close()


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """A folder with checkpoints of steps 10, 20 and 30, to be copied and damaged."""
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    manager = Checkpoints(folder, "all", {})
    for step in (10, 20, 30):
        manager.save(step, content(step))
    manager.close()
    return folder


@pytest.fixture
def damaged(three, tmp_path):
    """A copy of `three`, to be damaged."""
    return shutil.copytree(three, tmp_path / "checkpoints")


def files(folder):
    return sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: (-p.stat().st_size, p))


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def flip(path):
    """One other bit in the middle."""
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 16
    path.write_bytes(raw)


def test_comes_back_as_it_was_saved(opened, tmp_path):
    saved = content(4)
    opened(tmp_path / "c").save(7, saved)
    step, found = opened(tmp_path / "c").restore({**content(1), "train": jax.eval_shape(lambda: content(1)["train"])})
    assert step == 7
    assert [leaf.item() for leaf in found["clock"]] == [4, 5, True]
    assert_same({**found, "clock": ()}, {**saved, "clock": ()})


def test_nothing_saved(opened, tmp_path):
    assert opened(tmp_path / "c").restore(content()) is None


def test_a_named_step(opened, three):
    step, found = opened(three).restore(content(), step=20)
    assert step == 20 and found["clock"][0] == 20
    with pytest.raises(CheckpointError, match="tried 25"):
        opened(three).restore(content(), step=25)


def test_saving_a_step_twice_keeps_the_first(opened, tmp_path):
    manager = opened(tmp_path / "c")
    manager.save(1, content(1))
    manager.save(1, content(2))
    assert manager.restore(content())[1]["clock"][0] == 1


@pytest.mark.parametrize(
    ("keep", "kept"),
    [
        ("all", [10, 15, 30, 60, 80, 90]),
        ("newest:1", [90]),
        ("newest:2", [80, 90]),
        ("newest:9", [10, 15, 30, 60, 80, 90]),
        ("every:1", [10, 30, 60, 90]),
        ("every:2", [30, 90]),
        ("every:3", [60, 90]),
    ],
)
def test_what_is_kept(opened, tmp_path, keep, kept):
    """Tasks end at 10, 30, 60 and 90; 15 and 80 were saved in the middle of one."""
    manager = opened(tmp_path / "c", keep, {10: 1, 30: 2, 60: 3, 90: 4})
    for step in (10, 15, 30, 60, 80, 90):
        manager.save(step, content(step, size=4))
        assert manager.steps()[-1] == step
    assert manager.steps() == kept == sorted(int(p.name) for p in (tmp_path / "c").iterdir())


@pytest.mark.parametrize("keep", ["", "newest", "newest:0", "newest:-1", "newest:x", "every:1.5", "all:3", "last:2"])
def test_bad_keep(keep):
    with pytest.raises(ValueError, match="must be 'all', 'newest:N' or 'every:N'"):
        parse_keep(keep)


@pytest.mark.parametrize("harm", [cut, zero, flip, os.unlink])
def test_a_damaged_newest_checkpoint_is_moved_aside(opened, damaged, harm, caplog):
    harm(files(damaged / "30")[0])
    manager = opened(damaged)
    with caplog.at_level(logging.WARNING):
        step, found = manager.restore(content())
    assert step == 20
    assert_same(found["train"], content(20)["train"])
    assert "30" in caplog.text and "damaged" in caplog.text
    assert manager.steps() == [10, 20]
    assert (damaged.with_name("checkpoints-damaged") / "30").is_dir()
    manager.save(30, content(30))
    assert opened(damaged).restore(content())[0] == 30


@pytest.mark.parametrize("harm", [cut, zero, flip, os.unlink])
def test_damage_to_any_file_is_noticed(opened, three, harm, tmp_path):
    for number, path in enumerate(files(three / "30")):
        copy = shutil.copytree(three, tmp_path / str(number) / "checkpoints")
        harm(copy / path.relative_to(three))
        step, found = opened(copy).restore(content())
        assert step == 20, path
        assert_same(found["train"], content(20)["train"])


def test_all_damaged(opened, damaged):
    for step in (10, 20, 30):
        cut(files(damaged / str(step))[0])
    before = sorted(damaged.rglob("*"))
    with pytest.raises(CheckpointError, match=r"checkpoints can be read.*30, 20, 10.*Nothing was deleted.*--workdir"):
        opened(damaged).restore(content())
    assert sorted(damaged.rglob("*")) == before
    assert not damaged.with_name("checkpoints-damaged").exists()


def other_structures():
    base = content()
    train = base["train"]
    yield "clock", {**base, "clock": base["clock"][:2]}
    yield "extra", {**base, "extra": np.zeros(2)}
    yield "train.learner.w", {**base, "train": train._replace(learner={**train.learner, "w": np.zeros(4, np.float32)})}
    yield "train.learner.w", {**base, "train": train._replace(learner={**train.learner, "w": np.zeros(3000, np.int32)})}


@pytest.mark.parametrize(("name", "like"), list(other_structures()))
def test_another_structure_is_no_damage(opened, three, name, like):
    with pytest.raises(CheckpointError, match=f"another version of the program: {name}"):
        opened(three).restore(like)
    assert opened(three).steps() == [10, 20, 30]
    assert not three.with_name("checkpoints-damaged").exists()


KILLED = """
import sys
sys.path[:0] = sys.argv[2:]
from plasticity_jax.host.checkpoint import Checkpoints
from test_checkpoint import content
manager = Checkpoints(sys.argv[1], "newest:1", {})
for step in range(10, 10_000):
    manager.save(step, content(step))
    print("saved", flush=True)
"""


def test_a_save_that_is_killed_leaves_the_one_before(opened, tmp_path):
    folder, here = tmp_path / "c", pathlib.Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(folder), str(here), str(here.parent)]
    for wait in (0.004, 0.012):
        process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE)
        assert process.stdout.readline() == b"saved\n"
        time.sleep(wait)
        process.kill()
        process.communicate()
        manager = opened(folder, "newest:1")
        newest = manager.steps()[-1]
        step, found = manager.restore(content())
        assert step == newest and found["clock"][0] == newest
    manager.save(newest + 1, content(newest + 1))
    assert [path.name for path in folder.iterdir()] == [str(newest + 1)]
    assert not (tmp_path / "c-damaged").exists()


def test_readers_write_nothing(opened, three):
    draft = three / ".draft"
    draft.mkdir()
    before = sorted(three.parent.rglob("*"))
    assert opened(three).restore(content())[0] == 30
    assert sorted(three.parent.rglob("*")) == before
    draft.rmdir()


def test_other_readers_of_orbax_read_it(three):
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
        found = reader.restore(three / "20" / "default")
    np.testing.assert_array_equal(found["train"]["learner"]["w"], content(20)["train"].learner["w"])
