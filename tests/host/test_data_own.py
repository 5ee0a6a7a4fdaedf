"""Data from a loader of the user's."""

import numpy as np
import pytest

from plasticity_jax.host import data
from plasticity_jax.run import load_data, run


def test_arrays_and_classes():
    found = load_data({"data": {"name": "own_parts:images", "count": 3}})
    assert found.classes == 5 and found.arrays["train"]["y"].dtype == np.int32
    assert found.arrays["train"]["y"].tolist() == [0, 1, 2] and found.arrays["test"]["x"].shape == (2, 4, 4, 1)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("one part", "must return"),
        ("no dict", "must return"),
        ("floats", r"train x is float64 \[6, 4, 4, 1\], but it must be uint8 \[N, H, W, C\]"),
        ("flat", r"train x is uint8 \[6, 16\]"),
        ("labels", r"test y is int64 \[2\], but it must be a class from 0 for each x"),
        ("negative", "train y is int64"),
        ("shares", "train y is float64"),
        ("sizes", r"images for training are \[4, 4, 1\], those for test \[5, 4, 1\]"),
    ],
)
def test_what_no_stream_could_use_is_refused(kind, words):
    with pytest.raises(data.DataError, match=words):
        data.load("own_parts:images", kind=kind)


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"name": "own_parts:images", "knd": "right"}, "no option 'knd'. Did you mean 'kind'"),
        ({"name": "own_parts:image"}, "own_parts has no 'image'. Did you mean 'images'"),
        ({"name": "no_such_module:images"}, "cannot be imported"),
    ],
)
def test_a_loader_that_is_not_there_is_refused(tmp_path, block, words):
    with pytest.raises(ValueError, match=words):
        run({"data": block}, tmp_path / "x")
    assert not (tmp_path / "x").exists()
