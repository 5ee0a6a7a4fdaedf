"""Images for the streams: found on disk, judged, and handed over as uint8 arrays that stay uint8 on the device.

    folder = the argument, else $PLASTICITY_JAX_DATA, else the user's cache folder

    mnist          IDX files, gzipped or not, in folder/mnist, folder/MNIST/raw or folder itself
    fashion_mnist  the same in fashion-mnist, fashion_mnist, FashionMNIST/raw or folder itself
    cifar10        cifar-10-batches-bin or cifar-10-batches-py
    cifar100       cifar-100-binary or cifar-100-python
    imagenet32     train_data_batch_1 to _10 and val_data, pickles or npz, in imagenet32; not to be had without asking
    digits         8x8 UCI digits, which scikit-learn carries
    synthetic      made up here: one pattern per class, and noise
    none           one black pixel, for streams that make their own inputs
    module:loader  one's own: a function of its settings that returns the arrays of a `Dataset`

Of several copies the one that `scripts/fetch_data.py` writes, named first, is read. N images of H x W in C channels.
"""

import csv
import gzip
import importlib.util
import inspect
import os
import pathlib
import shlex
import sys
from typing import NamedTuple

import numpy as np

from plasticity_jax.check import imported, nearest
from plasticity_jax.host import formats
from plasticity_jax.host.formats import DataError

__all__ = ["NAMES", "DataError", "Dataset", "data_folder", "load"]


class Dataset(NamedTuple):
    """A data set in memory."""

    arrays: dict  # {"train": {"x": [N, H, W, C] uint8, "y": [N] int32}, "test": the same}
    classes: int  # labels are 0..classes-1
    name: str
    files: dict  # file -> bytes on disk; {} where nothing was read


class Idx(NamedTuple):
    """What the four files of MNIST or a look-alike must hold."""

    folders: tuple  # below the data folder, in the order of preference
    train: int  # images
    test: int
    side: int  # pixels
    counts: tuple  # training images per class: what tells MNIST from a look-alike with the same file names


class Batches(NamedTuple):
    """What the files of the downsampled ImageNet must hold together."""

    folder: str  # below the data folder
    train: tuple  # files, without .npz
    test: tuple
    train_records: int  # images of all files
    test_records: int
    classes: int


class Cifar(NamedTuple):
    """What the batches of CIFAR-10 or CIFAR-100 must hold, in either format."""

    folders: tuple  # binary, pickled
    train: tuple  # files, without .bin
    test: tuple
    train_records: int  # images per file
    test_records: int
    labels: dict  # kind of label -> number of classes, in the order of the binary format


_MNIST_COUNTS = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
LAYOUTS = {  # data set -> what its files must hold
    "mnist": Idx(("mnist", "MNIST/raw"), 60_000, 10_000, 28, _MNIST_COUNTS),
    "fashion_mnist": Idx(("fashion-mnist", "fashion_mnist", "FashionMNIST/raw"), 60_000, 10_000, 28, (6_000,) * 10),
    "cifar10": Cifar(
        ("cifar-10-batches-bin", "cifar-10-batches-py"), _BATCHES, ("test_batch",), 10_000, 10_000, {"fine": 10}
    ),
    "cifar100": Cifar(
        ("cifar-100-binary", "cifar-100-python"), ("train",), ("test",), 50_000, 10_000, {"coarse": 20, "fine": 100}
    ),
}
IMAGENET32 = Batches(
    "imagenet32", tuple(f"train_data_batch_{i}" for i in range(1, 11)), ("val_data",), 1_281_167, 50_000, 1_000
)


def load(name, folder=None, **options):
    """Read a data set.

    Args:
      name: one of `NAMES`, or `package.module:loader`.
      folder: where the data sets are; see the module's docstring for the default.
      **options: of `synthetic`: images, test_images, height, width, channels, classes, seed; of `cifar100`: labels,
        "fine" (the default) or "coarse".

    Returns:
      a `Dataset`.

    Raises:
      DataError: a file is missing or damaged; the message names it, what is wrong and the command that mends it. Or
        one's own loader returns something else than a `Dataset` holds.
      ValueError: an unknown name or option.

    Example:
      >>> tiny = load("synthetic", images=20, test_images=10, height=4, width=4, classes=2)
      >>> tiny.arrays["train"]["x"].shape, tiny.arrays["train"]["y"].dtype.name
      ((20, 4, 4, 1), 'int32')
    """
    if ":" in name:
        loader = imported("data.name", name)
        _check_options(name, options, list(inspect.signature(loader).parameters))
        return _judged(name, loader(**options))
    if name not in _LOADERS:
        raise ValueError(f"no data set is called {name!r}.{nearest(name, NAMES)} There are {', '.join(NAMES)}.")
    loader = _LOADERS[name]
    keyword_only = [p.name for p in inspect.signature(loader).parameters.values() if p.kind is p.KEYWORD_ONLY]
    _check_options(name, options, keyword_only)
    folder = data_folder(folder)
    try:
        return loader(name, folder, **options)
    except DataError as error:
        raise DataError(f"{error}. To mend it: {_remedy(name, folder)}") from error


def _check_options(name, options, known):
    for option in options:
        if option not in known:
            allowed = ", ".join(known) or "none"
            raise ValueError(f"{name} has no option {option!r}.{nearest(option, known)} It takes {allowed}.")


def _judged(name, arrays):
    """The Dataset of arrays that come from elsewhere, or a DataError for what no stream could use."""
    parts = {}
    for part in ("train", "test"):
        try:
            x, y = (np.asarray(arrays[part][axis]) for axis in "xy")
        except (KeyError, TypeError, IndexError):
            raise DataError(f'{name} must return {{"train": {{"x": ..., "y": ...}}, "test": the same}}.') from None
        if x.dtype != np.uint8 or x.ndim != 4 or not len(x):
            raise DataError(f"{name}: {part} x is {x.dtype} {list(x.shape)}, but it must be uint8 [N, H, W, C].")
        if not np.issubdtype(y.dtype, np.integer) or y.shape != x.shape[:1] or y.min() < 0:
            raise DataError(f"{name}: {part} y is {y.dtype} {list(y.shape)}, but it must be a class from 0 for each x.")
        parts[part] = {"x": x, "y": y.astype(np.int32)}
    train, test = (list(parts[part]["x"].shape[1:]) for part in ("train", "test"))
    if train != test:
        raise DataError(f"{name}: images for training are {train}, those for test {test}.")
    return Dataset(parts, 1 + max(int(part["y"].max()) for part in parts.values()), name, {})


def data_folder(folder=None):
    """The folder that holds the data sets: the argument, else $PLASTICITY_JAX_DATA, else one in the user's cache."""
    folder = folder or os.environ.get("PLASTICITY_JAX_DATA")
    return pathlib.Path(folder).expanduser() if folder else _user_cache() / "plasticity_jax" / "data"


def _user_cache():
    """Where this operating system wants caches to be."""
    home = pathlib.Path.home()
    if sys.platform == "win32":
        return pathlib.Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    if sys.platform == "darwin":
        return home / "Library" / "Caches"
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")


def _load_idx(name, folder):
    layout, files, arrays = LAYOUTS[name], {}, {}
    places = [folder / place for place in layout.folders] + [folder]
    classes = len(layout.counts)
    for split, prefix, images in (("train", "train", layout.train), ("test", "t10k", layout.test)):
        x = _find(places, f"{prefix}-images-idx3-ubyte", files)
        y = _find(places, f"{prefix}-labels-idx1-ubyte", files)
        pixels = formats.read_idx(x, (images, layout.side, layout.side))
        arrays[split] = {"x": pixels[..., None], "y": formats.read_idx(y, (images,), classes).astype(np.int32)}
        counts = tuple(np.bincount(arrays[split]["y"], minlength=classes).tolist())
        if split == "train" and counts != layout.counts:
            raise DataError(
                f"{y}: labels of another data set, images per class are {counts}, of {name} {layout.counts}"
            )
    return Dataset(arrays, classes, name, files)


def _load_cifar(name, folder, labels="fine"):
    layout, files, arrays = LAYOUTS[name], {}, {}
    if labels not in layout.labels:
        raise ValueError(f"labels is {labels!r}, {name} has {', '.join(layout.labels)}")
    place, suffix, read = _cifar_format(layout, folder)
    column, classes = list(layout.labels).index(labels), tuple(layout.labels.values())
    for split, names, records in (
        ("train", layout.train, layout.train_records),
        ("test", layout.test, layout.test_records),
    ):
        parts = [read(_find([place], file + suffix, files), records, classes) for file in names]
        x = np.concatenate([images for images, _ in parts])  # [N, 32, 32, 3]
        arrays[split] = {"x": x, "y": np.concatenate([y[:, column] for _, y in parts])}
    return Dataset(arrays, layout.labels[labels], name, files)


def _load_cifar100(name, folder, *, labels="fine"):
    return _load_cifar(name, folder, labels)


def _load_imagenet32(name, folder):
    layout, files, arrays = IMAGENET32, {}, {}
    place = folder if folder.name == layout.folder else folder / layout.folder
    suffix = ".npz" if (place / f"{layout.train[0]}.npz").is_file() else ""
    for split, names, records in (
        ("train", layout.train, layout.train_records),
        ("test", layout.test, layout.test_records),
    ):
        parts = [formats.read_imagenet32(_find([place], file + suffix, files), layout.classes) for file in names]
        arrays[split] = {key: np.concatenate(part) for key, part in zip("xy", zip(*parts, strict=True), strict=True)}
        found = len(arrays[split]["y"])
        if found != records:
            raise DataError(f"{place}: {found:,} images for {split} where {records:,} are expected")
    return Dataset(arrays, layout.classes, name, files)


def _cifar_format(layout, folder):
    """The first folder that holds a batch, the suffix of its files, and their reader; binary where there is none."""
    readers = ((".bin", formats.read_cifar_binary), ("", formats.read_cifar_pickle))
    choices = [(folder / place, *reader) for place, reader in zip(layout.folders, readers, strict=True)]
    choices += [(folder, *reader) for reader in readers if folder.name in layout.folders]
    for place, suffix, read in choices:
        if any((place / f"{file}{suffix}{zipped}").is_file() for file in layout.train for zipped in ("", ".gz")):
            return place, suffix, read
    return choices[0]


def _find(places, name, files):
    """The path of a file, gzipped or not, in the first place that has it; noted in `files` with its size."""
    for path in (place / file for place in places for file in (f"{name}.gz", name)):
        if path.is_file():
            files[str(path)] = path.stat().st_size
            return path
    raise DataError(f"{name} (or {name}.gz) is missing in {', '.join(str(place) for place in places)}")


def _load_digits(name, folder):
    """The first 1,500 of the 1,797 digits train, the last 297 test; grey levels 0..16 become round(v * 255 / 16)."""
    package = importlib.util.find_spec("sklearn")  # the file is read without importing the package, which is slow
    if package is None:
        raise DataError("the digits come with scikit-learn, which is not installed")
    path = pathlib.Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(path, "rt") as file:
            table = np.array(list(csv.reader(file)), np.float64)  # [1797, 65]: 64 pixels and the label
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if table.shape != (1_797, 65) or table.min() < 0 or table[:, :64].max() > 16 or table[:, 64].max() > 9:
        raise DataError(f"{path}: no table of 1,797 digits with levels 0..16 and labels 0..9, found {table.shape}")
    x = np.rint(table[:, :64] * 255 / 16).astype(np.uint8).reshape(-1, 8, 8, 1)
    y = table[:, 64].astype(np.int32)
    arrays = {"train": {"x": x[:1_500], "y": y[:1_500]}, "test": {"x": x[1_500:], "y": y[1_500:]}}
    return Dataset(arrays, 10, name, {str(path): path.stat().st_size})


def _load_synthetic(name, folder, *, images=1_000, test_images=200, height=8, width=8, channels=1, classes=10, seed=0):
    """One random pattern per class plus noise, classes equally frequent; the same for the same settings."""
    sizes = {"images": images, "test_images": test_images, "height": height, "width": width}
    for option, value in (sizes | {"channels": channels, "classes": classes, "seed": seed}).items():
        low = 0 if option == "seed" else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < low:
            raise ValueError(f"{option} is {value!r}, it must be an integer of at least {low}")
    rng = np.random.default_rng(seed)
    patterns = rng.uniform(48, 208, (classes, height, width, channels))  # room for noise on both sides

    def split(n):
        y = rng.permutation(np.arange(n) % classes).astype(np.int32)
        x = np.rint(patterns[y] + rng.normal(0, 24, (n, height, width, channels)))
        return {"x": np.clip(x, 0, 255).astype(np.uint8), "y": y}

    return Dataset({"train": split(images), "test": split(test_images)}, classes, name, {})


def _load_none(name, folder):
    """One black pixel of the only class: for streams that read no data."""
    pixel = {"x": np.zeros((1, 1, 1, 1), np.uint8), "y": np.zeros(1, np.int32)}
    return Dataset({"train": pixel, "test": pixel}, 1, name, {})


def _remedy(name, folder):
    """What puts a data set right."""
    if name == "digits":
        return "pip install plasticity_jax[report]"
    if name == "imagenet32":
        return (
            'there is no open download: ask for "Downsampled ImageNet 32x32" on image-net.org, put its files into '
            f"{folder / IMAGENET32.folder}, or name another folder with --config.data.dir or $PLASTICITY_JAX_DATA"
        )
    fetch = f"python scripts/fetch_data.py {name} --folder {shlex.quote(str(folder))}"
    return f"name the folder that has it with --config.data.dir or $PLASTICITY_JAX_DATA, or run {fetch}"


_LOADERS = {
    "digits": _load_digits,
    "mnist": _load_idx,
    "fashion_mnist": _load_idx,
    "cifar10": _load_cifar,
    "cifar100": _load_cifar100,
    "imagenet32": _load_imagenet32,
    "synthetic": _load_synthetic,
    "none": _load_none,
}
NAMES = tuple(_LOADERS)
