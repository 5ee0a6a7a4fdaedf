"""Networks: flax linen inside, a Network record outside; one registry of networks, one of heads."""

from plasticity_jax.networks.cnn import cnn
from plasticity_jax.networks.heads import HEADS
from plasticity_jax.networks.mlp import linear, mlp
from plasticity_jax.networks.resnet import resnet18
from plasticity_jax.networks.vit import vit

NETWORKS = {"cnn": cnn, "linear": linear, "mlp": mlp, "resnet18": resnet18, "vit": vit}

__all__ = ["HEADS", "NETWORKS"]
