"""Weights between our networks and their PyTorch twins (benchmarks/peers/torch_networks.py), and one pass of a twin.

Ours are {path: array} with "/" between the names, kernels [..., F, U]; torch's are a state dict, weights [U, F, ...].
No torch is imported here: it runs in the peers' interpreter.
"""

import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

import jax
import numpy as np

from plasticity_jax.networks import NETWORKS
from plasticity_jax.tree import path_name

BENCHMARKS = pathlib.Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from timing import peers_python  # noqa: E402, F401

DATA = pathlib.Path(__file__).parent / "data"

NAMES = {  # ours, after the layer's name: torch's
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
ENCODER = {"out": "self_attn.out_proj", "up": "linear1", "down": "linear2", "norm0": "norm1", "norm1": "norm2"}
PACKED = ("query", "key", "value")


class Case(NamedTuple):
    """A network and its twin."""

    name: str
    image: tuple  # [C, H, W]
    settings: dict  # of both
    own: dict = {}  # settings of ours alone  # noqa: RUF012
    flattened: tuple = ()  # [C, H, W] of what the first dense layer reads, where that is not the image
    batch: int = 4

    def network(self):
        """Our network."""
        return NETWORKS[self.name]((*self.image[1:], self.image[0]), OUTPUTS, **{**self.settings, **self.own})


OUTPUTS = 5
SMALL = {  # stored in tests/data by tests/make_torch_data.py
    "mlp": Case("mlp", (1, 6, 5), {"widths": (12, 9)}),
    "cnn": Case(
        "cnn",
        (2, 16, 14),
        {"channels": (6, 8), "windows": (5, 3), "pool": True, "widths": (12, 9)},
        {"pool": "max"},
        (8, 2, 1),
    ),
    "resnet18": Case("resnet18", (3, 16, 16), {"width": 1 / 32}),
    "vit": Case("vit", (2, 10, 8), {"dim": 16, "feedforward": 24, "heads": 4, "depth": 2, "dropout": 0.0}),
}


def flat(tree):
    """{path: array} of a tree."""
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def to_torch(leaves, case):
    """A state dict, from our leaves of params and stats or of gradients."""
    state, packed = {}, {}
    for path, leaf in leaves.items():
        *layer, last = path.split("/")
        if layer and layer[-1] in PACKED:
            packed.setdefault((layer[0], NAMES[last]), {})[layer[-1]] = leaf.T
        else:
            state[_torch_name(layer, last)] = _to_torch_layout(path, leaf, case.flattened or case.image)
    for (block, kind), parts in packed.items():
        parts.setdefault("key", np.zeros_like(parts["query"]))  # our keys have no bias, and need none
        state[f"{block}.self_attn.in_proj_{kind}"] = np.concatenate([parts[name] for name in PACKED])
    return state


def from_torch(state, like, case):
    """Our leaves, in the structure of the tree `like`, from a state dict."""
    leaves = []
    for path, shape in flat(like).items():
        *layer, last = path.split("/")
        if layer and layer[-1] in PACKED:
            whole = state[f"{layer[0]}.self_attn.in_proj_{NAMES[last]}"]
            leaves.append(np.split(whole, 3)[PACKED.index(layer[-1])].T)
        else:
            leaf = state[_torch_name(layer, last)]
            leaves.append(_from_torch_layout(path, leaf, shape.shape, case.flattened or case.image))
    assert [leaf.shape for leaf in leaves] == [shape.shape for shape in jax.tree.leaves(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _torch_name(layer, last):
    if len(layer) == 2 and layer[0].startswith("block"):
        layer = [layer[0], ENCODER[layer[1]]]
    return ".".join([*layer, NAMES.get(last, last)])


def _to_torch_layout(path, leaf, read):
    """The kernel [H W C, U] of the first dense layer reads channels fastest, torch's weight [U, C H W] slowest."""
    leaf = np.asarray(leaf)
    if not path.endswith("kernel"):
        return leaf
    if leaf.ndim == 4:
        return leaf.transpose(3, 2, 0, 1)
    if path == "fc0/kernel":
        leaf = leaf.reshape(*read[1:], read[0], -1).transpose(2, 0, 1, 3).reshape(leaf.shape)
    return leaf.T


def _from_torch_layout(path, leaf, shape, read):
    """The inverse."""
    if not path.endswith("kernel"):
        return leaf
    if leaf.ndim == 4:
        return leaf.transpose(2, 3, 1, 0)
    if path == "fc0/kernel":
        return leaf.T.reshape(*read, -1).transpose(1, 2, 0, 3).reshape(shape)
    return leaf.T


def passed(case, network, variables, given):
    """Our side of a pass: (y, gradients, stats)."""
    x, target, train = given["x"].transpose(0, 2, 3, 1), given["target"], bool(given["train"])

    def loss(params):
        outputs, stats = network.apply(jax.random.key(0), variables._replace(params=params), x, train)
        return ((outputs.y - target) ** 2).sum() / (2 * len(x)), (outputs.y, stats)

    (_, (y, stats)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables.params)
    return y, gradients, stats


def inputs(case, train):
    """Random images, targets and the mode, as the twin reads them."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(case.batch, *case.image)).astype(np.float32)
    return {"x": x, "target": draw.normal(size=(case.batch, OUTPUTS)).astype(np.float32), "train": np.int32(train)}


def run_torch(python, case, given, folder):
    """A pass of the twin in the interpreter `python`: {name: array}, see benchmarks/peers/torch_networks.py."""
    network = {"name": case.name, "image": case.image, "outputs": OUTPUTS, **case.settings}
    path, result = folder / "case.npz", folder / "result.npz"
    np.savez(path, network=json.dumps(network), **given)
    script = BENCHMARKS / "peers" / "torch_networks.py"
    done = subprocess.run([python, str(script), str(path), str(result)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"The PyTorch twin of {case.name} failed:\n{done.stderr}")
    with np.load(result) as found:
        return dict(found)


def part(found, kind):
    """The arrays of one kind, "state", "before" or "gradient", by torch's name."""
    return {name.removeprefix(f"{kind}/"): value for name, value in found.items() if name.startswith(f"{kind}/")}


def assert_equal(case, network, like, found, given):
    """From torch's weights we get torch's values, gradients and statistics, to 1e-4 of the largest of a leaf."""
    weights = part(found, "before")
    variables = like._replace(
        params=from_torch(weights, like.params, case), stats=from_torch(weights, like.stats, case)
    )
    y, gradients, stats = passed(case, network, variables, given)
    expected = from_torch(part(found, "gradient"), like.params, case)
    new = from_torch(part(found, "state"), like.stats, case)
    for ours, theirs in ((y, found["y"]), (gradients, expected), (stats, new)):
        for (path, a), b in zip(flat(ours).items(), jax.tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4 * np.abs(b).max(), err_msg=path)
