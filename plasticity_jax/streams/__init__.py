"""Sequences of tasks: one file per kind of non-stationarity, one registry."""

from plasticity_jax.streams.class_incremental import class_incremental
from plasticity_jax.streams.continual_pairs import continual_pairs
from plasticity_jax.streams.five_plus_one import five_plus_one
from plasticity_jax.streams.permuted_pixels import permuted_pixels
from plasticity_jax.streams.random_labels import random_labels
from plasticity_jax.streams.warm_start import warm_start

STREAMS = {
    "class_incremental": class_incremental,
    "continual_pairs": continual_pairs,
    "five_plus_one": five_plus_one,
    "permuted_pixels": permuted_pixels,
    "random_labels": random_labels,
    "warm_start": warm_start,
}
