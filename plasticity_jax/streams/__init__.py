"""Sequences of tasks: one file per kind of non-stationarity, one registry."""

from plasticity_jax.streams.label_permutation import label_permutation
from plasticity_jax.streams.permuted_pixels import permuted_pixels
from plasticity_jax.streams.random_labels import random_labels

STREAMS = {
    "label_permutation": label_permutation,
    "permuted_pixels": permuted_pixels,
    "random_labels": random_labels,
}
