"""The scripts as a user or a scheduler meets them: exit codes, one line for what is wrong, signals and kills."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest
from small_runs import DATA, ROOT, assert_same_bits, environment

from plasticity_jax import cli

CONFIG = f'''
"""Two tasks of a small network."""

from ml_collections import ConfigDict


def get_config(preset="short"):
    if preset not in ("short", "long"):
        raise ValueError(f"There is no preset {{preset!r}}.")
    config = ConfigDict()
    config.seeds = 2
    config.tasks = 2
    config.segment_steps = {{"short": 20, "long": 1000}}[preset]
    config.data = {DATA}
    config.stream = {{"name": "random_labels", "images": 32, "batch": 8, "steps": 2 * config.segment_steps}}
    config.network = {{"name": "mlp", "widths": (8,)}}
    config.optimizer = {{"name": "adam", "learning_rate": 1e-3}}
    config.diagnostics = {{name: {{"every": 0}} for name in ("gradients", "ranks", "units", "weights")}}
    if preset == "long":
        config.stream.steps = 40_000
        config.checkpoint = {{"minutes": 1e-9, "keep": "newest:2"}}
    return config


def get_variants():
    return {{"plain": {{}}, "fast": {{"optimizer.learning_rate": 1e-2}}, "wrong": {{"optimizer.learning_rat": 1e-2}}}}
'''


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(CONFIG)
    return path


def launch(*arguments, script="train"):
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, arguments)]
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def outcome(process):
    """(exit code, what it wrote on stderr)."""
    _, err = process.communicate(timeout=240)
    print(err)
    return process.returncode, err


def state(workdir):
    return json.loads((workdir / "status.json").read_text())["state"]


WRONG = {
    "misspelt block": (["--config.netwrk.widths=(4,)"], "netwrk is not a setting. Did you mean 'network'?"),
    "misspelt key": (["--config.optimizer.learning_rat=1"], "Did you mean 'learning_rate'?"),
    "misspelt data": (["--config.data.imags=4"], "Did you mean 'images'?"),
    "no block": (["--config.seeds.x=1"], "seeds is 2, and not a block"),
    "a name for a block": (["--config.optimizer=sgd"], "Did you mean --config.optimizer.name=sgd?"),
    "wrong type": (["--config.seeds=many"], "--config.seeds=many"),
    "wrong new type": (["--config.optimizer.b1=x"], "optimizer.b1='x' is of type str"),
    "negative rate": (["--config.optimizer.learning_rate=-1"], "learning_rate=-1.0"),
    "zero seeds": (["--config.seeds=0"], "seeds=0"),
    "grid over a tuple": (["--grid", "network.widths=1,2"], "only float settings can be an axis"),
    "grid of words": (["--grid", "optimizer.learning_rate=a,b"], "'a' is not a number"),
    "grid of nothing": (["--grid", "optimizer.learning_rate"], "not of the form path=value,value"),
    "misspelt grid": (["--grid", "optimizer.learning_rat=1,2"], "Did you mean 'learning_rate'?"),
    "missing block": (["--config.parallel.devices=64"], "parallel.devices=64, but there are"),
    "variant": (["--variant", "plaid"], "no variant 'plaid'. This file has: plain, fast, wrong"),
    "wrong variant": (["--variant", "wrong"], "learning_rat is not a setting of adam"),
    "unknown flag": (["--confg.seeds=2"], "Unknown command line flag 'confg.seeds'"),
}


QUICK = ("misspelt key", "no block", "misspelt data", "misspelt grid", "missing block", "wrong variant", "unknown flag")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in WRONG]
)
def test_one_line_says_what_is_wrong(file, tmp_path, name):
    arguments, told = WRONG[name]
    code, err = outcome(launch("--config", file, "--workdir", tmp_path / "x", *arguments))
    assert code == cli.FAILED == 1
    lines = err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("Error: ") and told in lines[0]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("script", ["train", "sweep"])
def test_help_names_the_flags_of_the_script(script):
    out, _ = launch("--help", script=script).communicate(timeout=240)
    assert all(f"\n  --{name}: " in out for name in ("config", "workdir", "grid"))


@pytest.mark.parametrize("script", ["train", "sweep"])
def test_missing_file(tmp_path, script):
    code, err = outcome(launch("--config", tmp_path / "no.py:laptop", "--workdir", tmp_path / "x", script=script))
    assert code == 1 and len(err.strip().splitlines()) == 1 and f"There is no file '{tmp_path}/no.py'" in err
    assert not (tmp_path / "x").exists()


def test_a_configuration_that_raises(file, tmp_path, monkeypatch):
    arguments = ("--config", f"{file}:shrt", "--workdir", tmp_path / "x")
    code, err = outcome(launch(*arguments))
    assert code == 1 and len(err.strip().splitlines()) == 1
    assert err.startswith("Error: ") and err.strip().endswith("There is no preset 'shrt'.") and "Traceback" not in err
    monkeypatch.setenv("PLASTICITY_JAX_TRACEBACK", "1")
    code, err = outcome(launch(*arguments))
    assert code == 1 and "Traceback" in err and f'File "{file}", line' in err


def test_sweep_checks_every_variant_first(file, tmp_path):
    code, err = outcome(launch("--config", file, "--workdir", tmp_path / "x", script="sweep"))
    assert code == 1 and len(err.strip().splitlines()) == 1 and "learning_rat is not a setting of adam" in err
    assert not (tmp_path / "x").exists()


def test_trained_and_refused(file, tmp_path):
    workdir = tmp_path / "x"
    arguments = ("--config", file, "--workdir", workdir, "--variants", "fast,plain", "--grid", "optimizer.b1=0.9,0.8")
    code, err = outcome(launch(*arguments, "--config.checkpoint.keep=all", script="sweep"))
    assert code == cli.DONE == 0 and "fast: 40 of 40 steps" not in err and "plain: 80 of 80 steps" in err
    assert json.loads((workdir / "sweep.json").read_text()) == {"variants": ["fast", "plain"]}
    assert state(workdir / "fast") == state(workdir / "plain") == "done"
    config = json.loads((workdir / "fast" / "config.json").read_text())["config"]
    assert config["grid"] == [["optimizer.b1", [0.9, 0.8]]] and config["optimizer"]["learning_rate"] == 1e-2
    assert config["checkpoint"]["keep"] == "all"
    before = (workdir / "plain" / "config.json").read_bytes()
    code, err = outcome(launch("--config", file, "--workdir", workdir / "plain"))
    assert code == 1 and len(err.strip().splitlines()) == 1
    assert "holds results of another configuration (grid: [['optimizer.b1', [0.9, 0.8]]] there, [] asked" in err
    assert (workdir / "plain" / "config.json").read_bytes() == before


@pytest.fixture(scope="module")
def undisturbed(file, tmp_path_factory):
    """A longer run, without interruption: 80 segments, saved after each."""
    workdir = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert outcome(launch("--config", f"{file}:long", "--workdir", workdir))[0] == 0
    return workdir


def wait_for_training(process, workdir):
    """Until the first checkpoint of this process is there."""
    before = newest(workdir)
    while process.poll() is None and newest(workdir) <= before:
        time.sleep(0.01)


def newest(workdir):
    folder = workdir / "checkpoints"
    return max((int(p.name) for p in folder.iterdir() if p.name.isdigit()), default=0) if folder.is_dir() else 0


@pytest.mark.slow  # tests/test_run.py stops runs of its own process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_preempted(file, tmp_path, undisturbed, number):
    for attempt in range(3):  # on a busy machine the run may be over before the signal is sent
        workdir = tmp_path / str(attempt)
        arguments = ("--config", f"{file}:long", "--workdir", workdir)
        process = launch(*arguments)
        wait_for_training(process, workdir)
        process.send_signal(number)
        code, err = outcome(process)
        if newest(workdir) < 80_000:
            break
    assert code == cli.PREEMPTED == 75 and "Traceback" not in err
    assert err.endswith(f"{workdir}: stopped by a signal; run the same command again to go on\n")
    assert ("Stopping at the end of the segment; Ctrl-C again stops at once." in err) == (number == signal.SIGINT)
    assert state(workdir) == "preempted" and 0 < newest(workdir) < 80_000
    assert outcome(launch(*arguments))[0] == 0
    assert_same_bits(workdir, undisturbed)
    assert outcome(launch(*arguments)) == (0, f"{workdir}: done\n")


@pytest.mark.slow
@pytest.mark.parametrize("kills", [2, 10])
def test_killed_at_random_moments(file, tmp_path, undisturbed, kills):
    seed = random.SystemRandom().randrange(10**6)
    print("the moments are drawn with seed", seed)
    moments = random.Random(seed)
    arguments = ("--config", f"{file}:long", "--workdir", tmp_path / "x")
    hit = 0
    for _ in range(3 * kills):  # on a busy machine the run may be over before it is killed; then it begins again
        process = launch(*arguments)
        wait_for_training(process, tmp_path / "x")
        time.sleep(moments.uniform(0, 4 / kills))
        process.kill()
        process.communicate()
        print("killed" if process.returncode < 0 else "over", "after step", newest(tmp_path / "x"))
        if process.returncode < 0:
            hit += 1
        else:
            shutil.rmtree(tmp_path / "x")
        if hit == kills:
            break
    assert hit == kills
    code, _ = outcome(launch(*arguments))
    assert code == 0 and state(tmp_path / "x") == "done"
    assert_same_bits(tmp_path / "x", undisturbed)


@pytest.mark.slow
def test_killed_at_the_start(file, tmp_path):
    """Whatever is there before the first checkpoint does not stand in the way."""
    arguments = ("--config", file, "--workdir", tmp_path / "x")
    process = launch(*arguments)
    while process.poll() is None and not (tmp_path / "x").exists():
        time.sleep(0.005)
    time.sleep(0.3)
    process.kill()
    process.communicate()
    assert outcome(launch(*arguments))[0] == 0


@pytest.mark.slow
def test_a_full_disk(file, tmp_path):
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", place]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
    try:
        code, err = outcome(launch("--config", file, "--workdir", place / "x"))
        assert code == 1 and "Traceback" not in err
        assert f"Error: {place}/x: the disk is full." in err.splitlines()[-1] and "run the same command again" in err
        subprocess.run(["mount", "-o", "remount,size=50m", place], check=True)
        assert outcome(launch("--config", file, "--workdir", place / "x"))[0] == 0
    finally:
        subprocess.run(["umount", place], check=True)


def test_overrides_of_a_variant_are_checked():
    assert cli.override({"a": {"b": 1}}, {"a.c": 2, "d.e": 3}) == {"a": {"b": 1, "c": 2}, "d": {"e": 3}}
    with pytest.raises(ValueError, match=r"a.b.c cannot be set: b is 1"):
        cli.override({"a": {"b": 1}}, {"a.b.c": 2})
