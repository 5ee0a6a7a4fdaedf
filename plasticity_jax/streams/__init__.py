"""Sequences of tasks: one file per kind of non-stationarity, one registry."""

from plasticity_jax.streams.composite import composite
from plasticity_jax.streams.input_drift import input_drift
from plasticity_jax.streams.label_permutation import label_permutation
from plasticity_jax.streams.permuted_pixels import permuted_pixels
from plasticity_jax.streams.random_labels import random_labels
from plasticity_jax.streams.slowly_changing_regression import slowly_changing_regression
from plasticity_jax.streams.target_offset import target_offset

STREAMS = {
    "composite": composite,
    "input_drift": input_drift,
    "label_permutation": label_permutation,
    "permuted_pixels": permuted_pixels,
    "random_labels": random_labels,
    "slowly_changing_regression": slowly_changing_regression,
    "target_offset": target_offset,
}
