"""Every configuration that is shipped: all presets and variants build, and each runs under :smoke."""

import importlib.util
import pathlib
import subprocess
import sys

import jax
import pytest
from small_runs import ROOT, environment

from plasticity_jax import cli, sweep
from plasticity_jax.analysis.results import load
from plasticity_jax.build import build, spec_of
from plasticity_jax.host import data

FILES = sorted((ROOT / "configs").glob("*.py"))
SHAPES = {  # of data that a test may not need to have: images for training and testing, one image, classes
    "mnist": (60_000, 10_000, (28, 28, 1), 10),
    "fashion_mnist": (60_000, 10_000, (28, 28, 1), 10),
    "cifar10": (50_000, 10_000, (32, 32, 3), 10),
    "cifar100": (50_000, 10_000, (32, 32, 3), 100),
    "imagenet32": (1_281_167, 50_000, (32, 32, 3), 1_000),
}


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def spec_for(block):
    if block["name"] in SHAPES:
        train, test, image, classes = SHAPES[block["name"]]

        def part(n):
            return {"x": jax.ShapeDtypeStruct((n, *image), "uint8"), "y": jax.ShapeDtypeStruct((n,), "int32")}

        return {"train": part(train), "test": part(test), "classes": classes}
    found = data.load(block["name"], **{k: v for k, v in block.items() if k not in ("name", "dir")})
    return spec_of(found.arrays, found.classes)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if "cifar" in path.stem else (), id=path.stem) for path in FILES],
)
def test_every_preset_and_variant_builds(path):
    source = module(path)
    assert {"smoke", "laptop"} <= set(source.PRESETS)
    for preset in source.PRESETS:
        config = source.get_config(preset).to_dict()
        spec = spec_for(config["data"])
        for overrides in source.get_variants().values():
            plan = build(cli.override(config, overrides), spec)
            assert len(plan.lengths) == plan.config["tasks"]
            point = {setting: float(values[0]) for setting, values in plan.settings.items()}
            for name, every in plan.every.items():
                compares = name in ("overlap", "shift") and preset != "smoke"  # with the measurement before
                assert len(plan.lengths) // every >= 1 + compares, (overrides, name)
                # as on one accelerator, which would train all runs together
                sweep.as_many_as_fit(lambda n: plan.make(point, n).diagnostics[name], len(plan.seeds))  # noqa: B023
    with pytest.raises(ValueError, match="smoke"):
        source.get_config("lapptop")


@pytest.mark.parametrize(
    ("path", "variants"),
    [pytest.param(ROOT / "configs" / "demo.py", ["adam"], id="demo: one variant")]
    + [pytest.param(path, list(module(path).get_variants()), marks=pytest.mark.slow, id=path.stem) for path in FILES],
)
def test_smoke_runs_variants_and_ends_in_a_report(path, variants, tmp_path):
    def script(name, *arguments):
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, arguments)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
        return done.stdout

    script("sweep", "--config", f"{path}:smoke", "--workdir", tmp_path / "x", "--variants", ",".join(variants))
    assert list(load(tmp_path / "x")) == variants
    table = script("report", tmp_path / "x")
    assert all(name in table for name in variants)
    assert (tmp_path / "x" / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_headers_say_how_long_and_what_to_expect(path):
    header = pathlib.Path(path).read_text(encoding="utf-8").split('"""')[1]
    for word in ("python scripts/sweep.py", "Expect", "seeds", "minutes"):
        assert word in header, word
