"""Networks: flax linen inside, a Network record outside; one registry of networks, one of heads."""

from plasticity_jax.networks.heads import HEADS
from plasticity_jax.networks.mlp import linear, mlp

NETWORKS = {"linear": linear, "mlp": mlp}

__all__ = ["HEADS", "NETWORKS"]
