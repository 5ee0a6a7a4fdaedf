"""Everything measured at a boundary: one file per family of metrics, one registry.

A family is a factory that returns a `Diagnostic`; it may measure, never write. docs/metrics.md lists every metric.
"""

from plasticity_jax.diagnostics.duplicates import duplicates
from plasticity_jax.diagnostics.forgetting import forgetting
from plasticity_jax.diagnostics.gradient_covariance import gradient_covariance
from plasticity_jax.diagnostics.gradients import gradients
from plasticity_jax.diagnostics.landscape import landscape
from plasticity_jax.diagnostics.ntk import ntk
from plasticity_jax.diagnostics.overlap import overlap
from plasticity_jax.diagnostics.performance import performance
from plasticity_jax.diagnostics.probe import probe, probe_labels, probe_offset
from plasticity_jax.diagnostics.ranks import ranks
from plasticity_jax.diagnostics.shift import shift
from plasticity_jax.diagnostics.sparsity import sparsity
from plasticity_jax.diagnostics.spectrum import spectrum
from plasticity_jax.diagnostics.units import units
from plasticity_jax.diagnostics.weights import weights

__all__ = [
    "DIAGNOSTICS",
    "duplicates",
    "forgetting",
    "gradient_covariance",
    "gradients",
    "landscape",
    "ntk",
    "overlap",
    "performance",
    "probe",
    "probe_labels",
    "probe_offset",
    "ranks",
    "shift",
    "sparsity",
    "spectrum",
    "units",
    "weights",
]

DIAGNOSTICS = {
    "performance": performance,
    "weights": weights,
    "gradients": gradients,
    "units": units,
    "overlap": overlap,
    "shift": shift,
    "duplicates": duplicates,
    "sparsity": sparsity,
    "ranks": ranks,
    "spectrum": spectrum,
    "gradient_covariance": gradient_covariance,
    "ntk": ntk,
    "landscape": landscape,
    "forgetting": forgetting,
    "probe": probe,
    "probe_offset": probe_offset,
    "probe_labels": probe_labels,
}
