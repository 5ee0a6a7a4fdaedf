"""What a file may import: the contracts of pyproject.toml, and that importing the package imports nothing else."""

import subprocess
import sys

from small_runs import ROOT, environment


def test_every_file_keeps_to_its_room():
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0 and "0 broken" in done.stdout, done.stdout + done.stderr


def test_importing_the_package_imports_nothing_else():
    code = "import sys, plasticity_jax; print(sorted({'jax', 'flax', 'numpy', 'optax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_curvature_stands_alone():
    libraries = {
        "flax",
        "optax",
        "chex",
        "orbax",
        "ml_collections",
        "xarray",
        "matplotlib",
        "matfree",
        "lineax",
        "scipy.sparse",
    }
    code = f"import sys, plasticity_jax.curvature; print(sorted({libraries} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_public_name_resolves():
    import plasticity_jax

    for name in plasticity_jax.__all__:
        assert callable(getattr(plasticity_jax, name)), name
