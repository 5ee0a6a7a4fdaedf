"""Loss of plasticity in under three minutes, on images that need no download.

placeholder
"""

from ml_collections import ConfigDict


def get_config(preset="laptop"):
    """The configuration of one variant: default Adam."""
    config = ConfigDict()
    config.seeds = 8
    config.tasks = 8
    config.segment_steps = 1000
    config.data = {"name": "digits"}
    config.stream = {"name": "random_labels", "images": 1000, "batch": 16, "steps": 4000}
    config.network = {"name": "mlp", "widths": (64, 64, 64)}
    config.optimizer = {"name": "adam", "learning_rate": 3e-3}
    return config


def get_variants():
    """Name -> overrides, each of which could have been typed."""
    return {
        "adam": {},
        "tuned_adam": {"optimizer.b2": 0.9, "optimizer.eps": 1e-9, "optimizer.eps_root": 1e-3},
        "layer_norm": {"network.norm": "layer"},
    }
