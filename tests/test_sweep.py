"""Many runs against one: devices, blocks of vmapped runs, settings of the grid, and whom one measures."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from records import arrays, assert_same, clock, network, objective, raw, spec

from plasticity_jax import sweep
from plasticity_jax.base import Diagnostic, DoesNotFit, Experiment
from plasticity_jax.diagnostics import DIAGNOSTICS
from plasticity_jax.keys import for_seeds
from plasticity_jax.streams import STREAMS
from plasticity_jax.train import supervised

STEPS = 20


def make(settings, at_once):
    net, problem = network(), objective()
    stream = STREAMS["random_labels"](spec(), steps=STEPS, batch=5, images=18)
    member = supervised(net, problem, stream, optax.adam(settings.get("rate", 1e-2)), 10, parts=5, plasticity_every=4)
    return Experiment(member, {"performance": DIAGNOSTICS["performance"](net, problem, 1.0)})


@functools.cache
def run_programs(runs, devices, runs_per_batch, rate=False):
    """Two tasks of `runs` runs, trained and measured."""
    mesh = sweep.runs_mesh(runs, devices)
    settings = {"rate": jnp.asarray(np.linspace(1e-3, 1e-2, runs), jnp.float32)} if rate else {}
    programs = sweep.programs(make, mesh, runs_per_batch)
    settings, keys = sweep.place(mesh, (settings, for_seeds(range(runs))))
    data = sweep.replicate(mesh, arrays())
    states = programs.init(settings, keys, data)
    diagnostics = programs.begin(settings, states, data)
    metrics = []
    for number in range(2):
        if number:
            states = programs.advance(settings, states, data, clock(STEPS, 1, STEPS))
        for first in range(number * STEPS, (number + 1) * STEPS, 10):
            states, found = programs.run_segment(settings, states, data, clock(first, number, number * STEPS))
            metrics.append(jax.device_get(found))
    now = clock(2 * STEPS, 1, STEPS)
    _, measured = programs.measure(settings, states, diagnostics, data, now, ("performance",))
    return (
        jax.device_get(jax.tree.map(lambda a: a, jax.tree.leaves(raw(states)))),
        metrics,
        jax.device_get(measured),
    )


def lanes(result, chosen):
    states, metrics, measured = result
    return jax.tree.map(lambda a: np.asarray(a)[list(chosen)], (states, metrics, measured))


@pytest.mark.slow
def test_any_number_of_devices_gives_the_same_bits():
    assert_same(run_programs(4, 1, 1), run_programs(4, 2, 1))


def test_run_k_of_a_sweep_is_the_same_run_alone():
    many, one = run_programs(4, 2, 1), run_programs(1, 1, 1)
    assert_same(lanes(many, [0]), lanes(one, [0]))


@pytest.mark.slow
def test_runs_that_do_not_divide_the_devices():
    assert_same(lanes(run_programs(3, 2, 1), range(3)), lanes(run_programs(4, 2, 1), range(3)))


@pytest.mark.parametrize(("runs", "devices", "together"), [(4, 1, 4), (4, 2, 2), (3, 1, 2)])
@pytest.mark.slow
def test_vmapped_runs_agree_with_single_ones(runs, devices, together):
    for a, b in zip(jax.tree.leaves(lanes(run_programs(runs, devices, together), range(runs))),
                    jax.tree.leaves(lanes(run_programs(4, 2, 1), range(runs))), strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def traced(runs, together, most):
    """How many runs `begin` and `measure` take at once, where a diagnostic fits for `most`; nothing is compiled."""
    taken = []

    def picky(at_once):
        def apply(key, state, learner, snapshot):
            if at_once > most:
                raise DoesNotFit(f"{at_once} runs do not fit")
            taken.append(at_once)
            return state, {}

        return Diagnostic(lambda key, *rest: apply(key, (), *rest)[0], apply, {})

    def make_with(settings, at_once):
        return make(settings, at_once)._replace(diagnostics={"picky": picky(at_once)})

    programs = sweep.programs(make_with, sweep.runs_mesh(runs, 1), together)
    states = jax.eval_shape(programs.init, {}, for_seeds(range(runs)), arrays())
    memory = jax.eval_shape(programs.begin, {}, states, arrays())
    jax.eval_shape(programs.measure, {}, states, memory, arrays(), clock(), ("picky",))
    return taken


@pytest.mark.parametrize(("runs", "together", "most", "taken"), [(4, 4, 4, 4), (4, 4, 3, 2), (5, 3, 2, 1)])
def test_as_many_runs_are_measured_together_as_fit(runs, together, most, taken):
    assert set(traced(runs, together, most)) == {taken}


def test_what_does_not_fit_for_one_run_is_refused():
    with pytest.raises(DoesNotFit, match="1 runs do not fit"):
        traced(4, 4, 0)


def test_runs_differ():
    assert len({float(v) for v in run_programs(4, 2, 1)[2]["final_loss"]}) == 4


def test_one_program_of_each_serves_all_tasks():
    traces = []

    def counted(settings, at_once):
        traces.append(1)
        return make(settings, at_once)

    programs, keys = sweep.programs(counted, sweep.runs_mesh(1, 1)), for_seeds([0])
    states = programs.init({}, keys, arrays())
    for number in range(3):
        if number:
            states = programs.advance({}, states, arrays(), clock(number * STEPS, number, number * STEPS))
        states, _ = programs.run_segment({}, states, arrays(), clock(number * STEPS, number, number * STEPS))
    assert len(traces) == 3  # init, advance, run_segment


def test_all_diagnostics_share_one_trace_of_the_snapshot():
    traces = []

    def counted(settings, at_once):
        experiment = make(settings, at_once)
        trainer, diagnostic = experiment.trainer, experiment.diagnostics["performance"]

        def snapshot(*args):
            traces.append(1)
            return trainer.snapshot(*args)

        return Experiment(trainer._replace(snapshot=snapshot), {"a": diagnostic, "b": diagnostic})

    programs, keys = sweep.programs(counted, sweep.runs_mesh(3, 1), 3), for_seeds(range(3))
    states = jax.eval_shape(programs.init, {}, keys, arrays())
    memory = jax.eval_shape(programs.begin, {}, states, arrays())
    for name in memory:
        jax.eval_shape(programs.measure, {}, states, {name: memory[name]}, arrays(), clock(), (name,))
    assert len(traces) == 1


def test_a_setting_of_the_grid_acts_on_its_run():
    measured = run_programs(3, 1, 1, rate=True)[2]
    plain = run_programs(4, 2, 1)[2]
    assert measured["final_loss"][2] == pytest.approx(plain["final_loss"][2], rel=1e-4)  # rate 1e-2, traced
    assert abs(measured["final_loss"][0] - plain["final_loss"][0]) > 1e-3  # rate 1e-3


@pytest.mark.slow
def test_a_subject_is_measured_in_place_of_the_learner():
    mesh = sweep.runs_mesh(2, 1)
    programs = sweep.programs(make, mesh)
    states = programs.init({}, for_seeds([0, 1]), arrays())
    diagnostics = programs.begin({}, states, arrays())
    states, _ = programs.run_segment({}, states, arrays(), clock())
    before = jax.device_get(raw(states))

    def initial(state):
        return state._replace(learner=state.learner._replace(variables=state.initial))

    args = ({}, states, diagnostics, arrays(), clock(10), ("performance",))
    trained, untrained = programs.measure(*args)[1], programs.measure(*args, initial)[1]
    assert (trained["final_loss"] < untrained["final_loss"]).all()
    assert_same(before, jax.device_get(raw(states)))


def test_too_many_devices_are_refused():
    with pytest.raises(ValueError, match=r"parallel\.devices=99, but there are 2"):
        sweep.runs_mesh(4, 99)


def test_batch_size_on_cpu_is_one_run_at_a_time_unless_asked():
    mesh = sweep.runs_mesh(8, 2)
    assert sweep.batch_size(0, 8, mesh, None) == 1
    assert sweep.batch_size(3, 8, mesh, None) == 3
    assert sweep.batch_size(99, 8, mesh, None) == 4


def test_the_training_program_exports_for_other_backends():
    mesh = sweep.runs_mesh(2, 1)
    programs = sweep.programs(make, mesh, 2)
    keys = for_seeds([0, 1])
    states = jax.eval_shape(programs.init, {}, keys, arrays())
    exported = jax.export.export(programs.run_segment, platforms=["tpu", "cuda"])({}, states, arrays(), clock())
    assert exported.platforms == ("tpu", "cuda") and len(exported.mlir_module_serialized) > 1_000
