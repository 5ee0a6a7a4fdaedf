"""Sequences of tasks: one file per kind of non-stationarity, one registry."""

from plasticity_jax.streams.permuted_pixels import permuted_pixels
from plasticity_jax.streams.random_labels import random_labels

STREAMS = {"permuted_pixels": permuted_pixels, "random_labels": random_labels}
