"""Loaders against files that are written here in the official formats, whole and damaged in every way we know."""

import gzip
import os
import pathlib
import pickle
import struct
from typing import ClassVar

import numpy as np
import pytest

from plasticity_jax.host import data
from plasticity_jax.host.data import DataError, load

TRAIN, TEST, RECORDS = 20, 10, 4  # images of the small look-alikes; records of one small CIFAR batch


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The official layouts with few images."""
    for name in ("mnist", "fashion_mnist"):
        small = data.LAYOUTS[name]._replace(train=TRAIN, test=TEST, counts=(2,) * 10)
        monkeypatch.setitem(data.LAYOUTS, name, small)
    for name in ("cifar10", "cifar100"):
        small = data.LAYOUTS[name]._replace(train_records=RECORDS, test_records=RECORDS)
        monkeypatch.setitem(data.LAYOUTS, name, small)
    monkeypatch.delenv("PLASTICITY_JAX_DATA", raising=False)


def idx(array):
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, zipped=True, seed=0):
    """The four files of a small MNIST; returns its arrays."""
    rng, arrays = np.random.default_rng(seed), {}
    folder.mkdir(parents=True, exist_ok=True)
    for split, prefix, n in (("train", "train", TRAIN), ("test", "t10k", TEST)):
        x = rng.integers(0, 256, (n, 28, 28), np.uint8)
        y = rng.permutation(np.arange(n) % 10).astype(np.uint8)
        arrays[split] = {"x": x, "y": y}
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            file = folder / f"{prefix}-{kind}-ubyte{'.gz' * zipped}"
            file.write_bytes(gzip.compress(idx(array)) if zipped else idx(array))
    return arrays


def batches(name):
    """(split, file, images [n, 32, 32, 3], labels [n, kinds]) of a small CIFAR."""
    layout, rng = data.LAYOUTS[name], np.random.default_rng(1)
    for split, files in (("train", layout.train), ("test", layout.test)):
        for file in files:
            y = np.stack([rng.integers(0, count, RECORDS) for count in layout.labels.values()], 1)
            yield split, file, rng.integers(0, 256, (RECORDS, 32, 32, 3), np.uint8), y


def write_binary(name, folder):
    folder = folder / data.LAYOUTS[name].folders[0]
    folder.mkdir(parents=True)
    for _, file, x, y in batches(name):
        planes = x.transpose(0, 3, 1, 2).reshape(RECORDS, -1)
        (folder / f"{file}.bin").write_bytes(np.concatenate([y.astype(np.uint8), planes], 1).tobytes())


class Python2Pickler(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, which is how the official batches are."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj):
        self.write(b"T" + struct.pack("<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch[bytes] = save_bytes


def dumps(thing):
    return pickle.dumps(thing, protocol=4)  # later ones rebuild arrays in a way that no published batch uses


def pickled(batch, path):
    with path.open("wb") as file:
        Python2Pickler(file, 2).dump(batch)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def write_pickles(name, folder):
    folder = folder / data.LAYOUTS[name].folders[1]
    folder.mkdir(parents=True)
    for _, file, x, y in batches(name):
        keys = (b"labels",) if name == "cifar10" else (b"coarse_labels", b"fine_labels")
        planes = x.transpose(0, 3, 1, 2).reshape(RECORDS, -1)
        batch = {b"batch_label": file.encode(), b"data": planes, b"filenames": [b"a.png"] * RECORDS}
        pickled(batch | {k: y[:, i].tolist() for i, k in enumerate(keys)}, folder / file)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "mnist"),
        ("mnist", "MNIST/raw"),
        ("mnist", "."),
        ("fashion_mnist", "fashion-mnist"),
        ("fashion_mnist", "fashion_mnist"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
def test_idx_is_read_wherever_and_however_it_lies(tmp_path, name, place, zipped):
    arrays = write_idx(tmp_path / place, zipped)
    dataset = load(name, tmp_path)
    assert dataset.classes == 10 and dataset.name == name and len(dataset.files) == 4
    for split, n in (("train", TRAIN), ("test", TEST)):
        got = dataset.arrays[split]
        assert got["x"].shape == (n, 28, 28, 1) and got["x"].dtype == np.uint8 and got["y"].dtype == np.int32
        np.testing.assert_array_equal(got["x"][..., 0], arrays[split]["x"])
        np.testing.assert_array_equal(got["y"], arrays[split]["y"])


def test_the_copy_that_fetch_writes_is_preferred_to_a_broken_one_elsewhere(tmp_path):
    write_idx(tmp_path / "MNIST/raw", zipped=False)
    (tmp_path / "MNIST/raw/train-images-idx3-ubyte").write_bytes(b"broken")
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist/train-images-idx3-ubyte").write_bytes(b"broken too")
    arrays = write_idx(tmp_path / "mnist")
    np.testing.assert_array_equal(load("mnist", tmp_path).arrays["train"]["x"][..., 0], arrays["train"]["x"])


@pytest.mark.parametrize("write", [write_binary, write_pickles])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("zipped", [True, False])
def test_cifar_is_read_in_both_formats(tmp_path, name, write, zipped):
    write(name, tmp_path)
    for file in list(tmp_path.rglob("*batch*")) + list(tmp_path.rglob("t*")) if zipped else ():
        if file.is_file():
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    expected = {"train": [], "test": []}
    for split, _, x, y in batches(name):
        expected[split].append((x, y[:, -1]))
    dataset = load(name, tmp_path)
    assert dataset.classes == (10 if name == "cifar10" else 100)
    for split, parts in expected.items():
        np.testing.assert_array_equal(dataset.arrays[split]["x"], np.concatenate([x for x, _ in parts]))
        np.testing.assert_array_equal(dataset.arrays[split]["y"], np.concatenate([y for _, y in parts]))
        assert dataset.arrays[split]["y"].dtype == np.int32 and dataset.arrays[split]["x"].flags.c_contiguous


@pytest.mark.parametrize("write", [write_binary, write_pickles])
def test_coarse_labels(tmp_path, write):
    write("cifar100", tmp_path)
    dataset = load("cifar100", tmp_path, labels="coarse")
    assert dataset.classes == 20
    np.testing.assert_array_equal(dataset.arrays["train"]["y"], next(batches("cifar100"))[3][:, 0])
    with pytest.raises(ValueError, match="'rough', cifar100 has coarse, fine"):
        load("cifar100", tmp_path, labels="rough")


def test_python_3_pickles_are_read_too(tmp_path):
    write_pickles("cifar10", tmp_path)
    file = tmp_path / "cifar-10-batches-py/test_batch"
    *_, (_, _, x, y) = batches("cifar10")
    planes = x.transpose(0, 3, 1, 2).reshape(RECORDS, -1)
    file.write_bytes(dumps({"data": planes, "labels": y[:, 0].tolist()}))
    np.testing.assert_array_equal(load("cifar10", tmp_path).arrays["test"]["x"], x)


def cut(raw):
    return raw[: len(raw) // 2]


def relabel(raw):
    return raw[:-1] + b"\x0a"


IMAGES, LABELS = "mnist/train-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz"


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        (IMAGES, cut, "gzip stream is cut short"),
        (IMAGES, lambda raw: raw[:5], "gzip stream is cut short"),
        (IMAGES, lambda raw: raw[:200] + bytes(50) + raw[250:], "gzip stream is cut short or broken"),
        (IMAGES, lambda raw: b"", "is empty, 0 bytes"),
        (IMAGES, lambda raw: gzip.compress(b""), "ends inside its header, 0 of 16"),
        (IMAGES, lambda raw: gzip.decompress(raw)[:-1], "cut short, 15,695 bytes .* where 15,696"),
        (IMAGES, lambda raw: gzip.decompress(raw) + b"x", "too long, 15,697 bytes .* where 15,696"),
        (IMAGES, lambda raw: b"<!DOCTYPE html><p>", "magic 0x3c21444f where 0x00000803"),
        (IMAGES, lambda raw: idx(np.zeros(TRAIN, np.uint8)) + bytes(99), "magic 0x00000801 where 0x00000803"),
        (IMAGES, lambda raw: idx(np.zeros((TRAIN, 14, 56), np.uint8)), r"\(20, 14, 56\) where \(20, 28, 28\)"),
        (LABELS, lambda raw: idx(np.zeros(TEST - 1, np.uint8)), r"\(9,\) where \(10,\)"),
        (LABELS, lambda raw: relabel(gzip.decompress(raw)), r"label 10 of record 9 is outside 0\.\.9"),
        (LABELS, None, "t10k-labels-idx1-ubyte .* is missing"),
    ],
)
def test_damaged_idx(tmp_path, file, damage, says):
    write_idx(tmp_path / "mnist")
    path = tmp_path / file
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(DataError, match=says) as caught:
        load("mnist", tmp_path)
    assert path.name.removesuffix(".gz") in str(caught.value) and "--config.data.dir" in str(caught.value)
    assert str(caught.value).endswith(f"python scripts/fetch_data.py mnist --folder {tmp_path}")


def pickle_without(key):
    return lambda raw: dumps({k: v for k, v in {"data": 0, "labels": 0}.items() if k != key})


BINARY, PICKLE = "cifar-10-batches-bin/data_batch_3.bin", "cifar-10-batches-py/data_batch_3"
WHOLE = {"data": np.zeros((RECORDS, 3072), np.uint8), "labels": [0] * RECORDS}


@pytest.mark.parametrize(
    ("file", "damage", "says"),
    [
        (BINARY, cut, "cut short, 6,146 bytes .* where 12,292"),
        (BINARY, lambda raw: raw + b"x", "too long, 12,293 bytes"),
        (BINARY, lambda raw: b"\x0a" + raw[1:], r"label 10 of record 0 is outside 0\.\.9"),
        (BINARY, lambda raw: b"", "is empty, 0 bytes"),
        (BINARY, lambda raw: cut(gzip.compress(raw)), "gzip stream is cut short"),
        (BINARY, None, "data_batch_3.bin .* is missing"),
        (PICKLE, cut, "no whole pickle"),
        (PICKLE, lambda raw: b"", "is empty, 0 bytes"),
        (PICKLE, lambda raw: b"<!DOCTYPE html>", "no whole pickle"),
        (PICKLE, lambda raw: cut(gzip.compress(raw)), "gzip stream is cut short"),
        (PICKLE, pickle_without("data"), "no 'data', it holds"),
        (PICKLE, pickle_without("labels"), "no 'labels', it holds"),
        (PICKLE, lambda raw: dumps([1]), "a list where a dict"),
        (PICKLE, lambda raw: dumps(WHOLE | {"data": np.zeros((2, 3072), np.uint8)}), r"uint8 \(2, 3072\)"),
        (PICKLE, lambda raw: dumps(WHOLE | {"data": np.zeros((RECORDS, 3072))}), "data is float64"),
        (PICKLE, lambda raw: dumps(WHOLE | {"labels": [0]}), r"labels is int64 \(1,\)"),
        (PICKLE, lambda raw: dumps(WHOLE | {"labels": [0, 1, -1, 2]}), "label -1 of record 2 is outside"),
        (PICKLE, None, "data_batch_3 .* is missing"),
    ],
)
def test_damaged_cifar(tmp_path, file, damage, says):
    (write_binary if file == BINARY else write_pickles)("cifar10", tmp_path)
    path = tmp_path / file
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(DataError, match=says) as caught:
        load("cifar10", tmp_path)
    assert path.name in str(caught.value)
    assert str(caught.value).endswith(f"python scripts/fetch_data.py cifar10 --folder {tmp_path}")


def imagenet(i, n=3):
    """One file's content: data [n, 3072] and labels from 1."""
    draw = np.random.default_rng(i)
    return {"data": draw.integers(0, 256, (n, 3072), np.uint8), "labels": draw.integers(1, 1001, n).tolist()}


def write_imagenet(folder, monkeypatch, zipped):
    """All files of a small ImageNet at 32x32, in the format of the originals."""
    monkeypatch.setattr(data, "IMAGENET32", data.IMAGENET32._replace(train_records=30, test_records=3))
    (folder / "imagenet32").mkdir(parents=True)
    for i in range(1, 12):
        path = folder / "imagenet32" / ("val_data" if i == 11 else f"train_data_batch_{i}")
        if zipped:
            np.savez(path, **imagenet(i), mean=np.zeros(3072))
        else:
            path.write_bytes(dumps({**imagenet(i), "mean": np.zeros(3072)}))


@pytest.mark.parametrize("zipped", [True, False])
def test_imagenet32_is_read_in_both_formats(tmp_path, monkeypatch, zipped):
    write_imagenet(tmp_path, monkeypatch, zipped)
    dataset = load("imagenet32", tmp_path)
    assert dataset.classes == 1_000 and len(dataset.files) == 11
    assert load("imagenet32", tmp_path / "imagenet32").files == dataset.files
    for split, numbers in (("train", range(1, 11)), ("test", [11])):
        x = np.concatenate([imagenet(i)["data"] for i in numbers])
        got = dataset.arrays[split]
        assert got["x"].dtype == np.uint8 and got["y"].dtype == np.int32
        for channel in range(3):  # one channel after the other, row by row
            plane = x[:, 1024 * channel : 1024 * (channel + 1)].reshape(-1, 32, 32)
            np.testing.assert_array_equal(got["x"][..., channel], plane)
        np.testing.assert_array_equal(got["y"] + 1, np.concatenate([imagenet(i)["labels"] for i in numbers]))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut, "no whole npz"),
        (lambda raw: dumps([1]), "a list where a dict"),
        (lambda raw: dumps({"data": 0}), "no 'labels', it holds"),
        (lambda raw: dumps(imagenet(3) | {"labels": [0, 1, 2]}), "label -1 of record 0 is outside"),
        (lambda raw: dumps(imagenet(3) | {"labels": [1, 2]}), r"uint8 \(3, 3072\) where uint8 \(2, 3072\)"),
        (lambda raw: dumps(imagenet(3, n=2)), "29 images for train where 30"),
        (None, "train_data_batch_3.npz .* is missing"),
    ],
)
def test_damaged_imagenet32(tmp_path, monkeypatch, damage, says):
    write_imagenet(tmp_path, monkeypatch, zipped=True)
    path = tmp_path / "imagenet32/train_data_batch_3.npz"
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    with pytest.raises(DataError, match=says) as caught:
        load("imagenet32", tmp_path)
    assert "no open download" in str(caught.value) and str(tmp_path / "imagenet32") in str(caught.value)


class Harm:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_a_pickle_cannot_run_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_pickles("cifar10", tmp_path)
    (tmp_path / PICKLE).write_bytes(dumps(WHOLE | {"filenames": Harm()}))
    with pytest.raises(DataError, match="mkdir is not allowed"):
        load("cifar10", tmp_path)
    assert not pathlib.Path("harm").exists()


def test_fashion_mnist_is_not_taken_for_mnist(tmp_path, monkeypatch):
    monkeypatch.setitem(data.LAYOUTS, "mnist", data.LAYOUTS["mnist"]._replace(counts=(1, 3) + (2,) * 8))
    write_idx(tmp_path)
    assert load("fashion_mnist", tmp_path).name == "fashion_mnist"
    with pytest.raises(DataError, match="labels of another data set"):
        load("mnist", tmp_path)


def test_a_folder_in_place_of_the_file_or_no_folder_at_all(tmp_path):
    (tmp_path / IMAGES).mkdir(parents=True)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte .* is missing in .*MNIST/raw"):
        load("mnist", tmp_path)
    with pytest.raises(DataError, match=r"cifar-100-binary.*--folder '.*no where'"):
        load("cifar100", tmp_path / "no where")
