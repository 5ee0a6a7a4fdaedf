"""Metadata of plasticity_jax; tools are configured in pyproject.toml."""

import pathlib

import setuptools

REPORT = ["matplotlib>=3.8", "rliable>=1.2", "scikit-learn>=1.4"]
LOG = ["tensorboardX>=2.6", "wandb>=0.17"]
CURVATURE = ["matfree>=0.6.3,<0.7", "lineax>=0.1"]
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "ruff>=0.6",
    "import-linter>=2.0",
    "pillow>=10",
    "equinox>=0.11",
    "dm-haiku>=0.0.13",
]

setuptools.setup(
    name="plasticity_jax",
    version="0.1.0",
    description="Loss of plasticity in neural networks: vmapped seed sweeps, curvature and rank diagnostics in JAX",
    long_description=pathlib.Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The plasticity_jax authors",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["plasticity_jax", "plasticity_jax.*"]),
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10",
        "flax>=0.12",
        "optax>=0.2.8",
        "chex>=0.1.90",
        "orbax-checkpoint>=0.11.20",
        "ml-collections>=1.0",
        "numpy>=2.0",
        "absl-py>=2.1",
        "xarray>=2025.1",
        "zarr>=3.1.3",
        "pooch>=1.8",
        "tqdm>=4.66",
    ],
    extras_require={
        "report": REPORT,
        "log": LOG,
        "curvature": CURVATURE,
        "rl": ["gymnax>=1.0", "flashbax>=0.1.3"],
        "atari": ["ale-py>=0.11", "gymnasium>=1.0"],
        "slurm": ["submitit>=1.5"],
        "docs": ["mkdocs-material>=9.5", "mkdocstrings[python]>=0.26"],
        "dev": [*REPORT, *CURVATURE, "tensorboardX>=2.6", *TEST],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
