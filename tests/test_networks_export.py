"""A train step of every network is a program for TPUs and GPUs, too."""

import jax
import jax.numpy as jnp
import optax
import pytest
from records import KEYED, batch, network, objective

from plasticity_jax.networks import NETWORKS

pytestmark = pytest.mark.slow  # half a minute of compilation and more: `make test-all`


@pytest.mark.parametrize("name", NETWORKS)
def test_a_train_step_exports(name):
    net, optimizer, goal = network(name), optax.adam(1e-3), objective()

    def step(key, variables, state, examples):
        def loss(params):
            outputs, stats = net.apply(key, variables._replace(params=params), examples["x"], True)
            return jnp.mean(goal.loss(outputs, examples)), stats

        gradients, stats = jax.grad(loss, has_aux=True)(variables.params)
        updates, state = optimizer.update(gradients, state, variables.params)
        return variables._replace(params=optax.apply_updates(variables.params, updates), stats=stats), state

    variables = jax.eval_shape(net.init, KEYED)
    state = jax.eval_shape(optimizer.init, variables.params)
    arguments = jax.random.key_data(KEYED), variables, state, jax.eval_shape(lambda: batch(KEYED))
    by_data = jax.jit(lambda data, *rest: step(jax.random.wrap_key_data(data), *rest))
    exported = jax.export.export(by_data, platforms=("tpu", "cuda"))(*arguments)
    assert exported.platforms == ("tpu", "cuda")
    assert jax.tree.structure(exported.out_tree.unflatten(exported.out_avals)) == jax.tree.structure((variables, state))
    if name in ("cnn", "resnet18"):
        assert "stablehlo.convolution" in exported.mlir_module()  # the backend's own, not the products for CPUs
