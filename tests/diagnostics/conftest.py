"""A network, an objective and a snapshot written out by hand: 5 inputs, two hidden layers of 4 units, 3 classes."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from plasticity_jax.base import Clock, Learner, Network, Objective, Outputs, Snapshot, Variables, Wire

SIZES = {"fc0": (5, 4), "fc1": (4, 4), "head": (4, 3)}


def _init(key):
    keys = jax.random.split(key, len(SIZES))
    layers = zip(SIZES.items(), keys, strict=True)
    return Variables(
        {name: {"kernel": jax.random.normal(k, size), "bias": jnp.full(size[1], 0.1)} for (name, size), k in layers}, {}
    )


def _apply(key, variables, x, train):
    acts, preacts = {}, {}
    for name, layer in variables.params.items():
        y = x @ layer["kernel"] + layer["bias"]
        if name != "head":
            preacts[name], acts[name] = y, jax.nn.relu(y)
            x = acts[name]
    return Outputs(y, acts, preacts), variables.stats


def _loss(outputs, batch):
    return -jnp.take_along_axis(jax.nn.log_softmax(outputs.y), batch["y"][:, None], 1)[:, 0]


NETWORK = Network(_init, _apply, (Wire("fc0", (), ()), Wire("fc1", (), ())))
OBJECTIVE = Objective(_loss, lambda outputs: outputs.y)


def _batch(key, examples=6):
    x, y = jax.random.normal(key, (examples, 5)), jnp.arange(examples, dtype=jnp.int32) % 3
    return {"x": x, "y": y, "weight": jnp.ones(examples).at[-1].set(0.0)}


def _case(key):
    """A learner some way from its initial variables, and its snapshot: ready to be mapped over keys."""
    clock = Clock(*[jnp.int32(0)] * 3)
    test = _batch(jax.random.fold_in(key, 1), 4)
    initial, batch = _init(key), {**_batch(key), "test": {**test, "task": test["y"]}}
    variables = initial._replace(params=jax.tree.map(lambda p: 1.5 * p + 0.1, initial.params))
    outputs = _apply(key, variables, batch["x"], False)[0]
    gradients = jax.tree.map(lambda p: jnp.sin(3.0 * p), variables.params)
    updates = jax.tree.map(lambda g: -0.01 * g, gradients)
    snapshot = Snapshot(clock, initial, batch, outputs, jnp.float32(0.0), gradients, updates)
    return Learner(variables, ()), snapshot


@pytest.fixture(scope="session")
def toy():
    return SimpleNamespace(network=NETWORK, objective=OBJECTIVE, case=_case)


@pytest.fixture(scope="session")
def case():
    return _case(jax.random.key(0))
