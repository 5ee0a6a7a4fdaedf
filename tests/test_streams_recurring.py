"""Tasks that come back: the same states and batches, bit for bit, cycle after cycle."""

import jax
import jax.numpy as jnp
import pytest
from records import arrays, assert_same, spec
from test_conformance import keeps_structure, survives_a_checkpoint
from test_streams import KEY, tasks

from plasticity_jax.build import build
from plasticity_jax.streams import STREAMS
from plasticity_jax.streams.recurring import recurring

SHORT = {"steps": 8, "batch": 5, "images": 18}
MEMBERS = {
    "random_labels": {**SHORT, "fraction": 0.5, "transition": 4},
    "input_drift": {**SHORT, "kind": "noise"},
    "composite": SHORT,
}


@pytest.mark.parametrize("name", MEMBERS)
def test_task_t_is_task_t_mod_cycle(name):
    data, stream = arrays(), STREAMS[name](spec(), **MEMBERS[name])
    again = recurring(stream, 3)
    once, states = tasks(stream, 3, data), tasks(again, 8, data)
    for task, state in enumerate(states):
        assert_same(state.now, once[task % 3])
    for split in ("train", "test"):
        assert_same(again.evaluate(states[5], data, split), stream.evaluate(once[2], data, split))
    assert_same(again.sample(KEY, states[7], data, jnp.int32(2)), stream.sample(KEY, once[1], data, jnp.int32(2)))
    assert again.outputs == stream.outputs


def test_it_runs_in_one_program_and_over_runs():
    data, stream = arrays(), recurring(STREAMS["random_labels"](spec(), **SHORT), 2)
    advance = jax.jit(jax.vmap(stream.advance, (0, 0, None)))
    first = state = jax.vmap(stream.init, (0, None))(jax.random.split(KEY, 2), data)
    for task in range(1, 5):
        state = advance(jax.random.split(jax.random.fold_in(KEY, task), 2), state, data)
        assert (task % 2 == 0) == bool((state.now.change == first.now.change).all())
    assert advance._cache_size() == 1


def test_state_keeps_its_structure_and_survives_a_checkpoint(tmp_path):
    stream = recurring(STREAMS["random_labels"](spec(), **SHORT), 3)
    first, second = tasks(stream, 2, arrays())
    keeps_structure(first, second)
    survives_a_checkpoint(tmp_path, second)


def test_lengths_come_back_too():
    stream = STREAMS["random_labels"](spec(), **SHORT)._replace(steps=lambda task: 10 + task)
    assert [recurring(stream, 2).steps(task) for task in range(5)] == [10, 11, 10, 11, 10]


def test_build_wraps_the_stream_by_its_setting():
    block = {"name": "random_labels", "images": 18, "batch": 5, "steps": 8}
    config = {"stream": {**block, "cycle": 2}, "seeds": 1, "tasks": 4}
    plan = build(config, spec())
    source = plan.make({}).trainer.init(KEY, arrays()).source
    assert source.keys.shape == (2,) and plan.config["stream"]["cycle"] == 2
    assert build({**config, "stream": block}, spec()).config["stream"]["cycle"] == 0
    for wrong in (-1, 2.0, True):
        with pytest.raises(ValueError, match=r"stream\.cycle"):
            build({**config, "stream": {**block, "cycle": wrong}}, spec())
