"""What is measured in parts is what is measured at once."""

import jax
import jax.numpy as jnp
import optax
import pytest
import records

from plasticity_jax.base import DoesNotFit, Intervention
from plasticity_jax.early_stopping import keep_best
from plasticity_jax.parts import evaluated, fitting, summed
from plasticity_jax.streams import STREAMS
from plasticity_jax.train import supervised

L2 = Intervention(loss=lambda key, state, params, snapshot: 0.1 * optax.tree.norm(params, squared=True))


@pytest.fixture(scope="module", params=["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def net(request):
    return records.network(request.param)


def _bytes_each(net):
    x = jnp.zeros((1, records.SIDE, records.SIDE, 1))
    outputs = jax.eval_shape(lambda: net.apply(None, net.init(jax.random.key(0)), x, False)[0])
    return 16 * sum(a.size for a in jax.tree.leaves(outputs))


def test_the_gradient_of_all_evaluation_inputs(net):
    """50 of 60 inputs count; 7 fit in memory: eight parts, the last of four inputs."""
    data = records.arrays()
    stream = STREAMS["random_labels"](records.spec(), images=50, batch=10, steps=5)

    def evaluate(state, data, split):
        batch = stream.evaluate(state, data, split)
        weight = jnp.where(jnp.arange(len(batch["weight"])) < 20, 0.0, batch["weight"])  # the first two parts are empty
        return {**batch, "weight": weight + jnp.arange(len(weight)) % 3}

    def snapshot(memory_gb):
        changed = stream._replace(evaluate=evaluate)
        trainer = supervised(net, records.objective(), changed, optax.adam(1e-2), 5, L2, memory_gb=memory_gb)
        state = trainer.init(jax.random.key(1), data)
        return trainer.snapshot(state, data, records.clock())

    whole, parts = (jax.jit(snapshot, static_argnums=0)(memory) for memory in (1.0, 7.5e-9 * _bytes_each(net)))
    assert float(whole.loss) > 0 and float(optax.tree.norm(whole.gradients)) > 0
    records.assert_close(parts.outputs, whole.outputs)
    records.assert_close((parts.loss, parts.gradients, parts.updates), (whole.loss, whole.gradients, whole.updates))


def test_outputs_and_sums(net):
    variables, batch = net.init(jax.random.key(0)), records.batch(jax.random.key(1), 12)
    whole = net.apply(None, variables, batch["x"], False)[0]
    parts = evaluated(net, None, variables, batch["x"], 5.5e-9 * _bytes_each(net))
    records.assert_close(parts.y, whole.y)
    assert fitting(whole, 5.5e-9 * _bytes_each(net)) == 5 and fitting(whole, 1.0) == 12
    with pytest.raises(DoesNotFit, match=r"one evaluation input take .* but memory_gb=1e-12: raise it"):
        fitting(whole, 1e-12)
    total = summed(lambda part: {"y": jnp.sum(part["y"]), "weight": jnp.sum(part["weight"])}, batch, 5)
    assert int(total["weight"]) == 12 and total["y"] >= jnp.sum(batch["y"])  # copies of the last row fill the last part


def test_early_stopping_scores_in_parts():
    stream = STREAMS["class_incremental"](
        records.spec(), classes_per_task=3, per_class=10, validation=3, epochs=1, batch=4, augment=False
    )
    data, net = records.arrays(), records.network()
    trainer = supervised(net, records.objective(), stream, optax.adam(1e-2), 1, early_stopping=True)
    state = trainer.init(jax.random.key(0), data)

    def score(memory_gb):
        return keep_best(net, records.objective(), stream, memory_gb).score(state, data).best

    whole, parts = score(1.0), score(1.5e-9 * _bytes_each(net))
    assert 0 < float(whole[0]) < 1
    records.assert_same(whole, parts)
