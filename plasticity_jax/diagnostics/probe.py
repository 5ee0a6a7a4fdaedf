"""What a network can still learn: copies of it are fitted to fresh targets, and thrown away.

Letters: T targets, n probe inputs, B examples of a batch, K predicted values, M moments of a fit.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Diagnostic
from plasticity_jax.diagnostics.copies import Size, exactly, fitted_copies, keys, moments, weighted_average
from plasticity_jax.learn import accuracy, weighted_mean

__all__ = ["probe", "probe_labels", "probe_offset"]

FLAT = 1e-3  # variance of a target that asks nothing, where others have 0.5: the network's initial outputs are constant


def probe(
    network,
    head,
    optimizer,
    intervention,
    stream,
    spec,
    memory_gb,
    targets: int = 10,
    steps: int = 2_000,
    inputs: int = 2_048,
    batch: int = 512,
    multiplier: float = 1e5,
    points: int = 21,
):
    """The plasticity of Lyle et al. 2023 (arXiv 2303.01486), equations 4 and 5: P(theta) = b - E_g[loss after a fit].

    A copy of the network fits g(x) = a + sin(multiplier f(x; w0)) for `steps` optimizer steps. f is the network with
    initial parameters w0, a [K] its mean prediction before the fit. With p the predictions of the copy at the end,

      probe_loss              mean over targets, inputs and outputs of (p - g)^2, from a fresh optimizer state
      probe_loss_carried      the same from the optimizer state of the run
      probe_loss_fresh        the same of freshly initialised networks, one for each target; constant for a run
      plasticity_loss         probe_loss - probe_loss of the run's own initial network: positive is worse
      plasticity_loss_carried  probe_loss_carried - the same
      probe_baseline          b, the same loss of the best constant for each output; about 0.5, constant for a run
      probe_curve             [T, M] loss after so many steps of the fit, from a fresh optimizer state (Figure 4)
      probe_curve_fresh       [T, M] the same of the freshly initialised networks

    All losses are over all n inputs, in evaluation mode. Inputs and waves sin(multiplier f(x; w0)) are drawn once per
    run, the waves computed once in float32 at the highest precision and kept: computed anew, f may differ in its last
    digits, which the multiplier makes into another target. All is NaN where initial networks say the same of all
    inputs, as with a head of zeros: their waves are constants, which any network fits. Batches come from permutations,
    and run across epochs.

    Args:
      network, head, optimizer, intervention, stream, spec: records and shapes of the job.
      memory_gb: targets are fitted side by side as far as this allows, by an estimate from sizes for one run; on CPUs
        one after another.
      targets: T.
      steps: optimizer steps of a fit.
      inputs: n, drawn without replacement from the evaluation inputs of the first task.
      batch: B.
      multiplier: of the waves' argument.
      points: M, moments at equal distances, before the first step and after the last included.

    Returns:
      A Diagnostic. A boundary costs 2 T fits, of so many training steps at batch B and M evaluations of n inputs each.
      The initial and the fresh networks cost as much again, once per run, before training.

    Raises:
      ValueError: a setting out of its range, more inputs than the stream evaluates, a batch larger than the inputs, a
        head that predicts a range of less than 2; while tracing, a batch whose training step exceeds memory_gb.

    The paper leaves open n and B, whose state the optimizer has (both are reported), whether all outputs are fitted and
    `a` is one number (all, and one for each), on what the final loss is taken, and dropout; its inputs are a sample of
    the replay buffer. Heads that predict by bins fit g by cross-entropy and report the squared error of the mean,
    softmax heads fit it with their logits: the paper says nothing of either. A head with bins moves targets outside its
    range to the ends. A network whose outputs vary much starts far above b: what it must unlearn is part of its loss.
    """
    size = _checked("probe", stream, spec, Size(targets, steps, inputs, batch, points))
    copies = _onto_waves("probe", network, head, optimizer, intervention, memory_gb, size, multiplier)

    def apply(key, state, learner, snapshot):
        curves = copies.apply(state, learner, snapshot)
        metrics, initial = _at_end("probe", curves, state), jnp.mean(state.initial["loss"][:, -1])
        return state, metrics | {
            "plasticity_loss": metrics["probe_loss"] - initial,
            "plasticity_loss_carried": metrics["probe_loss_carried"] - initial,
            "probe_baseline": _variance(state.targets, state.data["weight"]),
            "probe_curve": curves[""]["loss"],
            "probe_curve_fresh": state.fresh["loss"],
        }

    curve = {"target": range(targets), "probe_step": moments(size)}
    scalars = (*_names("probe", ("loss",)), "plasticity_loss", "plasticity_loss_carried", "probe_baseline")
    dims = {name: {} for name in scalars} | {"probe_curve": curve, "probe_curve_fresh": curve}
    return Diagnostic(copies.init, apply, dims)


def probe_offset(
    network,
    head,
    optimizer,
    intervention,
    stream,
    spec,
    memory_gb,
    offset: float = 10.0,
    targets: int = 10,
    steps: int = 2_000,
    inputs: int = 2_048,
    batch: int = 512,
    multiplier: float = 1e5,
):
    """`probe` with the targets a + offset + sin(multiplier f(x; w0)): the mean prediction has to move as well.

    After Lyle et al. 2024 (arXiv 2402.18762), whose networks fit random targets around a constant and are then fitted
    to others; there the constant is in what came before, here in what is learned next.

      probe_offset_loss, probe_offset_loss_carried, probe_offset_loss_fresh  as those of `probe`

    Args:
      offset: from the network's mean prediction to that of its targets. Heads that predict by classes need a range of
        2 + |offset| or more.
      the others: as for `probe`.

    Returns:
      A Diagnostic with three scalar metrics.

    Raises:
      ValueError: as `probe`.
    """
    check.finite("probe_offset.offset", offset)
    size = _checked("probe_offset", stream, spec, Size(targets, steps, inputs, batch))
    copies = _onto_waves("probe_offset", network, head, optimizer, intervention, memory_gb, size, multiplier, offset)
    return _ends("probe_offset", copies, ("loss",))


def probe_labels(
    network,
    head,
    optimizer,
    intervention,
    stream,
    spec,
    memory_gb,
    targets: int = 10,
    steps: int = 2_000,
    inputs: int = 2_048,
    batch: int = 512,
):
    """Copies of the network memorise random labels, uniform over the K classes, with the job's own objective.

      probe_labels_loss, probe_labels_loss_carried, probe_labels_loss_fresh              the objective at the end
      probe_labels_accuracy, probe_labels_accuracy_carried, probe_labels_accuracy_fresh  share of labels at the highest
                                                                                         score at the end

    Each is the mean over targets, over all probe inputs in evaluation mode, from a fresh optimizer state, from that of
    the run, and of freshly initialised networks, as for `probe`.

    Args:
      all: as for `probe`.

    Returns:
      A Diagnostic with six scalar metrics.

    Raises:
      ValueError: as `probe`; fewer than two classes.
    """
    classes = spec["classes"]
    if classes < 2:
        raise ValueError(f"probe_labels needs 2 classes or more, but the job predicts {classes} value: use probe.")
    size = _checked("probe_labels", stream, spec, Size(targets, steps, inputs, batch))

    def draw(key, data):
        return jax.random.randint(key, (targets, inputs), 0, classes)

    def wanted(target, outputs, weight):
        return target

    def measure(outputs, data):
        loss = weighted_mean(head.objective.loss(outputs, data), data["weight"])
        return {"loss": loss, "accuracy": accuracy(head.objective.predict(outputs), data)}

    records = ("probe_labels", network, head.objective, optimizer, intervention)
    return _ends("probe_labels", fitted_copies(*records, memory_gb, size, draw, wanted, measure), ("loss", "accuracy"))


def _checked(name, stream, spec, size):
    """The sizes of a probe, or a ValueError for those that do not go together."""
    for setting, value in size._asdict().items():
        check.whole(f"{name}.{setting}", value, low=2 if setting == "points" else 1)
    if size.steps % (size.points - 1):
        near = max(points for points in range(2, size.points + 1) if size.steps % (points - 1) == 0)
        raise ValueError(
            f"{name}.points={size.points} and {name}.steps={size.steps}, but moments are at equal distances, the first "
            f"step and the last included: points - 1 must divide steps, for example {name}.points={near}."
        )
    data = {split: spec[split] for split in ("train", "test")}
    seen = jax.eval_shape(lambda data: stream.evaluate(stream.init(jax.random.key(0), data), data, "train"), data)
    available = min(seen["weight"].shape[0], stream.examples or seen["weight"].shape[0])
    if size.inputs > available:
        raise ValueError(
            f"{name}.inputs={size.inputs}, but the stream evaluates {available} inputs of a task: choose "
            f"{name}.inputs={available} or less, or raise stream.evaluation where a task has more."
        )
    if size.batch > size.inputs:
        raise ValueError(f"{name}.batch={size.batch}, but {name}.inputs={size.inputs}: choose at most that.")
    return size


def _onto_waves(name, network, head, optimizer, intervention, memory_gb, size, multiplier, offset=0.0):
    """Copies that fit a + offset + sin(multiplier f(x; w0)), measured by the squared error of the prediction."""
    check.positive(f"{name}.multiplier", multiplier)
    missing = 2 + abs(offset) - head.span
    if not isinstance(missing, jax.core.Tracer) and missing > 0:
        raise ValueError(
            f"{name}: the head predicts a range of {head.span:.4g}, but the targets span {2 + abs(offset):.4g}: set "
            "head.low and head.high further apart."
        )
    predict = head.regression.predict

    def draw(key, data):
        def wave(key):
            outputs = exactly(network, network.init(key), data["x"], memory_gb / size.targets)
            with jax.default_matmul_precision("highest"):  # for the mean of a head with bins
                wave = jnp.sin(multiplier * predict(outputs))
            varies = jnp.var(wave, 0) > FLAT
            return jnp.where(varies, wave, jnp.nan)

        return jax.lax.map(wave, keys(key, size.targets))

    def wanted(wave, outputs, weight):
        return wave + offset + weighted_average(predict(outputs), weight)

    def measure(outputs, data):
        return {"loss": weighted_mean((predict(outputs) - data["y"]) ** 2, data["weight"])}

    records = (name, network, head.regression, optimizer, intervention)
    return fitted_copies(*records, memory_gb, size, draw, wanted, measure)


def _ends(prefix, copies, names):
    """A Diagnostic of what was measured at the end of the fits."""

    def apply(key, state, learner, snapshot):
        return state, _at_end(prefix, copies.apply(state, learner, snapshot), state)

    return Diagnostic(copies.init, apply, {name: {} for name in _names(prefix, names)})


def _names(prefix, names):
    return [f"{prefix}_{name}{whose}" for whose in ("", "_carried", "_fresh") for name in names]


def _at_end(prefix, curves, state):
    """{metric: []}: at the end of the fits, mean over targets."""
    every = {**curves, "_fresh": state.fresh}
    return {f"{prefix}_{name}{whose}": jnp.mean(c[:, -1]) for whose in every for name, c in every[whose].items()}


def _variance(targets, weight):
    """[] mean over targets [T, n, K] and outputs of the variance over inputs: the loss of the best constants."""
    average = jax.vmap(weighted_average, (0, None))
    return jnp.mean(average((targets - average(targets, weight)[:, None]) ** 2, weight))
