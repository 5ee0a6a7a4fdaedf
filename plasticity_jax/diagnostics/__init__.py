"""Everything measured at a boundary: one file per family of metrics, one registry.

A family is a factory that returns a `Diagnostic`; it may measure, never write. docs/metrics.md lists every metric.
"""

from plasticity_jax.diagnostics.gradients import gradients
from plasticity_jax.diagnostics.performance import performance
from plasticity_jax.diagnostics.probe import probe, probe_labels, probe_offset
from plasticity_jax.diagnostics.ranks import ranks
from plasticity_jax.diagnostics.spectrum import spectrum
from plasticity_jax.diagnostics.units import units
from plasticity_jax.diagnostics.weights import weights

__all__ = [
    "DIAGNOSTICS",
    "gradients",
    "performance",
    "probe",
    "probe_labels",
    "probe_offset",
    "ranks",
    "spectrum",
    "units",
    "weights",
]

DIAGNOSTICS = {
    "performance": performance,
    "weights": weights,
    "gradients": gradients,
    "units": units,
    "ranks": ranks,
    "spectrum": spectrum,
    "probe": probe,
    "probe_offset": probe_offset,
    "probe_labels": probe_labels,
}
