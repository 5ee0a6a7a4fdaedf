"""Image files as their makers publish them: IDX (MNIST), the batches of CIFAR and those of ImageNet at 32x32.

A file is judged by its header, its exact size and the range of its labels, never by a checksum: a copy that somebody
compressed again is as good as the original. Every reader takes a file that is gzipped or not, and goes by the content
and not by the name. N images of H x W pixels in C channels; images are uint8 [N, H, W, C], whatever the file's order.
"""

import gzip
import io
import pathlib
import pickle
import struct
import zlib

import numpy as np

__all__ = ["DataError", "read_cifar_binary", "read_cifar_pickle", "read_idx", "read_imagenet32"]

GZIP = b"\x1f\x8b"  # no IDX file, CIFAR record or pickle begins with these two bytes
ZIP = b"PK"  # nor with these, which an npz file begins with
PIXELS = 3 * 32 * 32  # of a CIFAR image, one channel after the other


class DataError(ValueError):
    """A data file that is missing or damaged; the message names the file and what is wrong with it."""


def read_idx(path, shape, classes=None):
    """One IDX file of unsigned bytes, http://yann.lecun.com/exdb/mnist/.

    Args:
      path: the file, gzipped or not.
      shape: what its header must say, (N, H, W) for images and (N,) for labels.
      classes: for labels, their number; a label outside 0..classes-1 is an error.

    Returns:
      the array, uint8 of `shape`.

    Raises:
      DataError: the file is cut short, too long, of another kind or of another shape.
    """
    raw = _read(path)
    header = 4 + 4 * len(shape)
    if len(raw) < header:
        raise DataError(f"{path}: ends inside its header, {len(raw):,} of {header} bytes")
    magic, *sides = struct.unpack(f">{1 + len(shape)}I", raw[:header])
    expected = 0x0800 + len(shape)
    if magic != expected:
        raise DataError(
            f"{path}: no IDX file of {len(shape)} dimensions, magic {magic:#010x} where {expected:#010x} is expected"
        )
    if tuple(sides) != tuple(shape):
        raise DataError(f"{path}: its header says {tuple(sides)} where {tuple(shape)} is expected")
    _check_size(path, len(raw), header + int(np.prod(shape)))
    array = np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()
    if classes is not None:
        _check_labels(path, array, classes)
    return array


def read_cifar_binary(path, records, classes):
    """One batch of the binary CIFAR format, https://www.cs.toronto.edu/~kriz/cifar.html.

    A record is one byte for each kind of label (CIFAR-10: one; CIFAR-100: coarse, then fine), then 1,024 bytes of red,
    green and blue each, row by row.

    Args:
      path: the file, gzipped or not.
      records: how many images it must hold.
      classes: the number of classes of each label byte: (10,) or (20, 100).

    Returns:
      images uint8 [N, 32, 32, 3] and labels int32 [N, len(classes)].

    Raises:
      DataError: the file is not exactly as long as it must be, or a label is out of range.
    """
    raw = _read(path)
    width = len(classes) + PIXELS
    _check_size(path, len(raw), records * width)
    rows = np.frombuffer(raw, np.uint8).reshape(records, width)
    labels = rows[:, : len(classes)].astype(np.int32)
    for column, count in enumerate(classes):
        _check_labels(path, labels[:, column], count)
    return _channels_last(rows[:, len(classes) :]), labels


def read_cifar_pickle(path, records, classes):
    """One batch of the Python CIFAR format: a pickled dict of "data" uint8 [N, 3072] and lists of labels.

    Arguments, results and errors are those of `read_cifar_binary`. Nothing but plain containers, numbers, strings and
    numpy arrays is unpickled, so a file from an unknown source can do no harm.
    """
    batch = _unpickle(path, _read(path))
    keys = ("labels",) if len(classes) == 1 else ("coarse_labels", "fine_labels")
    images = _images(path, batch, keys, records)
    labels = [_label_column(path, key, batch[key], records, count) for key, count in zip(keys, classes, strict=True)]
    return images, np.stack(labels, axis=1)


def read_imagenet32(path, classes):
    """One file of the downsampled ImageNet of Chrabaszcz et al. 2017 (arXiv 1707.08819): a pickled dict, or an npz.

    It holds "data" uint8 [N, 3072], 1,024 bytes of red, green and blue each, and "labels", whole numbers from 1.

    Args:
      path: the file, gzipped or not; see `read_cifar_pickle` for what is unpickled.
      classes: their number; a label outside 1..classes is an error.

    Returns:
      images uint8 [N, 32, 32, 3] and labels int32 [N], counted from 0.

    Raises:
      DataError: the file is damaged or holds something else.
    """
    raw = _read(path)
    batch = _unzip(path, raw) if raw[:2] == ZIP else _unpickle(path, raw)
    images = _images(path, batch, ("labels",), np.size(batch.get("labels", ())))
    return images, _label_column(path, "labels", batch["labels"], len(images), classes, first=1)


def _read(path):
    """The bytes of a file, unpacked where it is gzipped."""
    try:
        raw = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if not raw:
        raise DataError(f"{path}: is empty, 0 bytes")
    if raw[:2] != GZIP:
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile, struct.error) as error:
        raise DataError(f"{path}: the gzip stream is cut short or broken after {len(raw):,} bytes ({error})") from error


def _check_size(path, found, expected):
    if found != expected:
        kind = "cut short" if found < expected else "too long"
        raise DataError(f"{path}: {kind}, {found:,} bytes (unpacked) where {expected:,} are expected")


def _check_labels(path, labels, classes):
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        first = wrong[0]
        raise DataError(f"{path}: label {labels[first]} of record {first} is outside 0..{classes - 1}")


def _images(path, batch, keys, records):
    """The images of a batch that must hold so many records, and labels under these keys."""
    missing = [key for key in ("data", *keys) if key not in batch]
    if missing:
        raise DataError(f"{path}: the file has no {missing[0]!r}, it holds {sorted(batch)}")
    data = np.asarray(batch["data"])
    if data.shape != (records, PIXELS) or data.dtype != np.uint8:
        raise DataError(f"{path}: data is {data.dtype} {data.shape} where uint8 {(records, PIXELS)} is expected")
    return _channels_last(data)


def _label_column(path, key, values, records, classes, first=0):
    """The labels [N] int32 that a batch holds, counted from `first`."""
    labels = np.asarray(values)
    if labels.shape != (records,) or labels.dtype.kind not in "iu":
        raise DataError(f"{path}: {key} is {labels.dtype} {labels.shape} where {records} integers are expected")
    labels = labels.astype(np.int32) - first
    _check_labels(path, labels, classes)
    return labels


def _channels_last(rows):
    return np.ascontiguousarray(rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))  # [N, 32, 32, 3] uint8


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that can make numpy arrays and nothing else."""

    def find_class(self, module, name):
        reconstruct = np.empty(0).__reduce__()[0]  # its module moved between numpy 1 and 2; the name did not
        allowed = {"_reconstruct": reconstruct, "ndarray": np.ndarray, "dtype": np.dtype}
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in allowed:
            return allowed[name]
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a data file")


def _unzip(path, raw):
    """The arrays of an npz file, by name."""
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except Exception as error:  # a damaged archive can raise nearly anything
        raise DataError(f"{path}: no whole npz file in its {len(raw):,} bytes ({error})") from error


def _unpickle(path, raw):
    """The dict of a batch that Python 2 wrote, with text for keys."""
    try:
        batch = _ArraysOnly(io.BytesIO(raw), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DataError(f"{path}: no whole pickle in its {len(raw):,} bytes ({error})") from error
    if not isinstance(batch, dict):
        raise DataError(f"{path}: the pickle holds a {type(batch).__name__} where a dict is expected")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in batch.items()}
