"""Small records that many tests share."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from plasticity_jax.base import Clock, Learner, Snapshot
from plasticity_jax.build import spec_of
from plasticity_jax.learn import learn
from plasticity_jax.networks import HEADS, NETWORKS

CLASSES, SIDE = 3, 4
SMALL = {  # settings that fit a network to images of SIDE x SIDE and to tests of a second
    "cnn": {"channels": (4, 6), "windows": (3, 2), "pool": ("max", "none"), "padding": "SAME", "widths": (8, 5)},
    "mlp": {"widths": (8, 6)},
    "resnet18": {"width": 1 / 32},
    "vit": {"patch": 2, "dim": 8, "feedforward": 12, "heads": 2},
}


def arrays(train=60, test=20):
    """Random images with labels: the data of most tests."""
    draw = np.random.default_rng(0)

    def part(n):
        return {
            "x": jnp.asarray(draw.integers(0, 256, (n, SIDE, SIDE, 1)), jnp.uint8),
            "y": jnp.asarray(draw.integers(0, CLASSES, n), jnp.int32),
        }

    return {"train": part(train), "test": part(test)}


def spec(train=60, test=20):
    return spec_of(arrays(train, test), CLASSES)


def clock(step=0, task=0, start=0):
    return Clock(jnp.int32(step), jnp.int32(task), jnp.int32(start))


def network(name="mlp", **settings):
    return NETWORKS[name]((SIDE, SIDE, 1), CLASSES, **{**SMALL.get(name, {}), **settings})


def objective():
    return HEADS["softmax"](spec()).objective


def batch(key, size=12):
    x, y = jax.random.split(key)
    return {
        "x": jax.random.uniform(x, (size, SIDE, SIDE, 1)),
        "y": jax.random.randint(y, (size,), 0, CLASSES),
        "weight": jnp.ones(size),
    }


def learner_and_snapshot(key, net=None, optimizer=None):
    """A learner after its initialisation, and everything a diagnostic may read."""
    net, optimizer = net or network(), optimizer or optax.adam(1e-2)
    variables = net.init(key)
    learner = Learner(variables, optimizer.init(variables.params))
    learning = learn(net, objective(), optimizer)
    both = {**batch(key), "test": batch(jax.random.fold_in(key, 1))}
    snapshot, _ = learning.gradient(key, (), learner, Snapshot(clock(), variables, both), train=False)
    return learner, learning.update(key, (), learner, snapshot)[0]


def raw(tree):
    """Leaves as numpy arrays, typed keys as their data."""

    def plain(leaf):
        is_key = jax.dtypes.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return [plain(leaf) for leaf in jax.tree.leaves(tree)]


def assert_same(a, b):
    """Equal to the last bit, NaN equal to NaN."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(raw(a), raw(b), strict=True):
        np.testing.assert_array_equal(x, y)


def assert_close(a, b, tolerance=1e-5):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(raw(a), raw(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance)


KEYED = jax.random.key(5, impl="threefry2x32")
