"""What measuring takes is what memory_gb says, by the compiler's own count."""

import jax
import pytest
from records import clock

from plasticity_jax import sweep
from plasticity_jax.build import build, spec_of
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.host import data
from plasticity_jax.keys import for_seeds

MEMORY_GB = 0.01  # the activations of 512 inputs, 12 MB, count four times: they are taken in parts
# Estimates count what is largest: copies of activations, or vectors like the parameters. What the compiler keeps beside
# them is most for the spectrum and the landscape, 1.5 times memory_gb.
FACTOR = 2
PROBE = {"targets": 2, "steps": 2, "inputs": 512, "batch": 64}
SETTINGS = {
    "gradient_covariance": {"examples": 64},
    "landscape": {"directions": 1, "points": 3},
    "probe": {**PROBE, "points": 2},
    "probe_labels": PROBE,
    "probe_offset": PROBE,
    "ranks": {"max_rows": 1024},
    "spectrum": {"steps": 16, "probes": 2},
}
CNN = {"channels": (16, 16), "windows": (3, 3), "pool": ("max", "none"), "padding": "SAME", "widths": (32,)}
CONFIG = {
    "seeds": 2,
    "tasks": 2,
    "memory_gb": MEMORY_GB,
    "stream": {"name": "random_labels", "images": 512, "batch": 32, "steps": 16},
    "network": {"name": "cnn", **CNN},
}
CLASSES = {"name": "class_incremental", "classes_per_task": 1, "epochs": 1, "batch": 16, "augment": False}


@pytest.mark.slow
@pytest.mark.parametrize("runs", [1, 2])
@pytest.mark.parametrize("name", DIAGNOSTICS)
def test_measuring_stays_within_memory(name, runs):
    """One run, and two that are vmapped together where the diagnostic takes two."""
    found = data.load("synthetic", images=512, test_images=512, height=12, width=12, classes=4)
    chosen = {**{other: {"every": 0} for other in DIAGNOSTICS}, name: {"every": 1, **SETTINGS.get(name, {})}}
    config = {**CONFIG, "diagnostics": chosen} | ({"stream": CLASSES} if name == "forgetting" else {})
    plan = build(config, spec_of(found.arrays, found.classes))
    programs = sweep.programs(plan.make, sweep.runs_mesh(runs, 1), runs)
    states = jax.eval_shape(programs.init, {}, for_seeds(range(runs)), found.arrays)
    memory = jax.eval_shape(programs.begin, {}, states, found.arrays)
    compiled = programs.measure.lower({}, states, memory, found.arrays, clock(), (name,)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < FACTOR * 1e9 * MEMORY_GB
