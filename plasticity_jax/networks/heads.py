"""Heads: how many outputs a problem asks of a network, and the objective that reads them. B examples, K classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity_jax.base import Objective

__all__ = ["HEADS", "Head", "linear_head", "softmax_head"]


class Head(NamedTuple):
    """What a network must output, and what is made of it."""

    outputs: int
    objective: Objective


def softmax_head(spec):
    """Classification: cross-entropy of K logits against an integer label, in nats."""

    def loss(outputs, batch):
        return optax.softmax_cross_entropy_with_integer_labels(outputs.y, batch["y"])  # [B]

    return Head(spec["classes"], Objective(loss, lambda outputs: outputs.y))


def linear_head(spec):
    """Regression onto the one-hot label, or onto labels [B, K]: squared error, mean over the K outputs."""
    classes = spec["classes"]

    def loss(outputs, batch):
        target = batch["y"] if batch["y"].ndim > 1 else jax.nn.one_hot(batch["y"], classes)
        return jnp.mean((outputs.y - target) ** 2, -1)  # [B]

    return Head(classes, Objective(loss, lambda outputs: outputs.y))


HEADS = {"linear": linear_head, "softmax": softmax_head}
