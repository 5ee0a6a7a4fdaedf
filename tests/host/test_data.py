"""Where data sets are looked for and how they are asked for; those that need no files; and the real ones."""

import gzip
import os
import sys

import numpy as np
import pytest

from plasticity_jax.host import data
from plasticity_jax.host.data import DataError, load


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match=r"'fashion-mnist'\. Did you mean 'fashion_mnist'.*digits, mnist"):
        load("fashion-mnist")
    with pytest.raises(ValueError, match=r"no option 'image'\. Did you mean 'images'.*seed"):
        load("synthetic", image=3)
    with pytest.raises(ValueError, match=r"digits has no option 'seed'\. It takes none"):
        load("digits", seed=3)


@pytest.mark.parametrize(
    ("option", "bad", "low"),
    [("test_images", bad, 1) for bad in (0, -1, 2.0, True, "3")] + [("seed", bad, 0) for bad in (-1, 1.5, "a", None)],
)
def test_bad_values_of_options(option, bad, low):
    with pytest.raises(ValueError, match=f"^{option} is {bad!r}, it must be an integer of at least {low}$"):
        load("synthetic", **{option: bad})


def test_where_data_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.delenv("PLASTICITY_JAX_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "windows"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for platform, folder in (("linux", "cache"), ("darwin", "Library/Caches"), ("win32", "windows")):
        monkeypatch.setattr(sys, "platform", platform)
        assert data.data_folder() == tmp_path / folder / "plasticity_jax" / "data"
    monkeypatch.setenv("PLASTICITY_JAX_DATA", str(tmp_path / "set"))
    assert data.data_folder() == tmp_path / "set"
    assert data.data_folder("~/given") == tmp_path / "given"


def test_digits():
    datasets = pytest.importorskip("sklearn.datasets")
    official, dataset = datasets.load_digits(), load("digits")
    x = np.concatenate([dataset.arrays[split]["x"] for split in ("train", "test")])
    y = np.concatenate([dataset.arrays[split]["y"] for split in ("train", "test")])
    assert len(dataset.arrays["train"]["x"]) == 1_500 and x.shape == (1_797, 8, 8, 1)
    assert x.dtype == np.uint8 and x.min() == 0 and x.max() == 255
    np.testing.assert_array_equal(np.rint(x[..., 0] * (16 / 255)), official.images)
    np.testing.assert_array_equal(y, official.target)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"not installed.*pip install plasticity_jax\[report\]"):
        load("digits")


def test_damaged_digits(tmp_path, monkeypatch):
    package = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: package)
    path = tmp_path / "datasets/data/digits.csv.gz"
    path.parent.mkdir(parents=True)
    rows = b"\n".join([b"3," * 64 + b"9"] * 1_797)
    whole = gzip.compress(rows)
    for raw in (whole[: len(whole) // 2], gzip.compress(rows[:-200]), gzip.compress(rows + b"9"), b""):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=r"digits\.csv\.gz"):
            load("digits")
    path.write_bytes(whole)
    assert load("digits").arrays["test"]["x"].shape == (297, 8, 8, 1)


def test_synthetic_is_repeatable_balanced_and_learnable():
    one, again, other = load("synthetic"), load("synthetic"), load("synthetic", seed=1)
    np.testing.assert_array_equal(one.arrays["train"]["x"], again.arrays["train"]["x"])
    assert (one.arrays["train"]["x"] != other.arrays["train"]["x"]).any()
    train, test = one.arrays["train"], one.arrays["test"]
    assert train["x"].shape == (1_000, 8, 8, 1) and set(np.bincount(train["y"])) == {100}
    means = np.stack([train["x"][train["y"] == c].mean(0).ravel() for c in range(10)])
    distances = ((test["x"].reshape(200, 1, -1) - means) ** 2).sum(-1)
    assert (distances.argmin(1) == test["y"]).mean() > 0.99


REAL = {
    "mnist": ((28, 28, 1), 10, (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)),
    "fashion_mnist": ((28, 28, 1), 10, (6000,) * 10),
    "cifar10": ((32, 32, 3), 10, (5000,) * 10),
    "cifar100": ((32, 32, 3), 100, (500,) * 100),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_data(name, real_folder):
    try:
        dataset = load(name, real_folder)
    except DataError as error:
        if "is missing" not in str(error):
            raise
        pytest.skip(f"{name} is not in {real_folder}; scripts/fetch_data.py downloads it")
    shape, classes, counts = REAL[name]
    train, test = dataset.arrays["train"], dataset.arrays["test"]
    assert train["x"].shape == (sum(counts), *shape) and test["x"].shape == (10_000, *shape)
    assert dataset.classes == classes and tuple(np.bincount(train["y"])) == counts
    assert np.bincount(test["y"]).min() > 0 and len(np.bincount(test["y"])) == classes
    x = train["x"][:1_000].astype(np.float32)
    steps = [np.abs(np.diff(x, axis=axis)).mean() for axis in (1, 2)]
    shuffled = np.abs(np.diff(x.reshape(1_000, -1)[:, ::7], axis=1)).mean()
    assert max(steps) < 0.8 * shuffled  # neighbours are alike along both axes: no pixel is out of place
    if shape[2] == 3:
        halves = [x[:, :16].mean((0, 1, 2)) - x[:, 16:].mean((0, 1, 2)), x[:, :, :16].mean() - x[:, :, 16:].mean()]
        assert halves[0].argmax() == 2 and halves[0].min() > 3 * abs(halves[1])  # the sky is above, and blue


@pytest.fixture(scope="module")
def real_folder():
    folder = os.environ.get("PLASTICITY_JAX_DATA")
    if not folder:
        pytest.skip("PLASTICITY_JAX_DATA names no folder with the real data")
    return folder
