"""Our networks against their PyTorch twins, with the same weights."""

import jax
import numpy as np
import pytest
import torch_twins as twins
from records import KEYED

from plasticity_jax.networks import NETWORKS

PAPERS = {  # as large as in the papers, but for the width of the widest
    "mlp": twins.Case("mlp", (1, 28, 28), {"widths": (100, 100)}, batch=16),
    "cnn lyle": twins.Case("cnn", (1, 28, 28), {}, {}, (64, 22, 22), 16),
    "cnn kumar": twins.Case(
        "cnn",
        (3, 32, 32),
        {"channels": (16, 16), "windows": (5, 5), "pool": True, "widths": (100, 100)},
        {"preset": "kumar", "pool": "max"},
        (16, 5, 5),
        16,
    ),
    "resnet18": twins.Case("resnet18", (3, 32, 32), {}, batch=8),
    "resnet18 imagenet": twins.Case("resnet18", (3, 64, 64), {"stem": "imagenet", "width": 0.25}, batch=8),
    "vit": twins.Case("vit", (3, 32, 32), {"dropout": 0.0}, batch=8),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "resnet18" else ()) for name in twins.SMALL]
)
def test_values_and_gradients_are_those_that_torch_gave(name):
    case, path = twins.SMALL[name], twins.DATA / f"torch_{name}.npz"
    assert path.stat().st_size < 200_000
    with np.load(path) as stored:
        found = dict(stored)
    network = case.network()
    twins.assert_equal(case, network, jax.eval_shape(network.init, KEYED), found, found)


@pytest.mark.parametrize("name", twins.SMALL)
def test_weights_come_back_from_torch(name):
    case, draw = twins.SMALL[name], np.random.default_rng(1)
    shapes = jax.eval_shape(case.network().init, KEYED).params
    params = jax.tree.map(lambda shape: draw.normal(size=shape.shape), shapes)
    back = twins.from_torch(twins.to_torch(twins.flat(params), case), params, case)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(back), strict=True))


def test_every_deep_network_has_a_twin():
    assert {case.name for case in twins.SMALL.values()} == {case.name for case in PAPERS.values()}
    assert set(twins.SMALL) == set(NETWORKS) - {"linear"}


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("name", PAPERS)
def test_values_and_gradients_are_those_of_torch(name, train, tmp_path):
    python = twins.peers_python()
    assert python, "PyTorch is missing: `make test-all` installs it in .venv-bench."
    case, given = PAPERS[name], twins.inputs(PAPERS[name], train)
    network = case.network()
    variables = jax.jit(network.init)(KEYED)
    leaves = {**twins.flat(variables.params), **twins.flat(variables.stats)}
    moved = {  # no bias or mean is 0, and no gain or variance is 1
        path: np.asarray(leaf) + (0.1 * np.cos(np.arange(leaf.size)) if leaf.ndim == 1 else 0)
        for path, leaf in leaves.items()
    }
    state = twins.to_torch(moved, case)
    given |= {f"state/{key}": value.astype(np.float32) for key, value in state.items()}
    found = twins.run_torch(python, case, given, tmp_path)
    twins.assert_equal(case, network, variables, found, given)
