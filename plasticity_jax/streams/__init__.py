"""Sequences of tasks: one file per kind of non-stationarity, one registry."""

from plasticity_jax.streams.class_incremental import class_incremental
from plasticity_jax.streams.composite import composite
from plasticity_jax.streams.continual_pairs import continual_pairs
from plasticity_jax.streams.five_plus_one import five_plus_one
from plasticity_jax.streams.input_drift import input_drift
from plasticity_jax.streams.label_permutation import label_permutation
from plasticity_jax.streams.permuted_pixels import permuted_pixels
from plasticity_jax.streams.random_labels import random_labels
from plasticity_jax.streams.slowly_changing_regression import slowly_changing_regression
from plasticity_jax.streams.target_offset import target_offset
from plasticity_jax.streams.warm_start import warm_start

STREAMS = {
    "class_incremental": class_incremental,
    "composite": composite,
    "continual_pairs": continual_pairs,
    "five_plus_one": five_plus_one,
    "input_drift": input_drift,
    "label_permutation": label_permutation,
    "permuted_pixels": permuted_pixels,
    "random_labels": random_labels,
    "slowly_changing_regression": slowly_changing_regression,
    "target_offset": target_offset,
    "warm_start": warm_start,
}
