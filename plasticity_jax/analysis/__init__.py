"""Reads result folders: statistics, figures, reports. Runs no JAX program and trains nothing."""
