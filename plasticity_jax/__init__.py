"""Loss of plasticity in neural networks: vmapped seed sweeps, curvature and rank diagnostics, in JAX.

Importing the package imports nothing else: public names are resolved when they are first used (PEP 562).
"""

import importlib

__version__ = "0.1.0"

_HOME = {
    "base": ["Clock", "Diagnostic", "Intervention", "Learner", "Network", "Objective", "Outputs", "Snapshot"],
    "schedule": ["at_boundary", "chain", "every"],
    "train": ["supervised"],
    "sweep": ["programs"],
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE)


def __getattr__(name):
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE[name]}"), name)


def __dir__():
    return __all__
