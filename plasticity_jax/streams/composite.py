"""Several kinds of non-stationarity at once: changes by name, applied one after the other.

Letters: n images of the run, B examples of a batch.
"""

import inspect

from plasticity_jax import check
from plasticity_jax.keys import named
from plasticity_jax.streams.images import Change, image_stream
from plasticity_jax.streams.input_drift import drift
from plasticity_jax.streams.label_permutation import permute_labels
from plasticity_jax.streams.permuted_pixels import permute_pixels
from plasticity_jax.streams.random_labels import draw_labels
from plasticity_jax.streams.target_offset import draw_targets

__all__ = ["CHANGES", "compose", "composite"]

CHANGES = {
    "draw_labels": draw_labels,
    "drift": drift,
    "permute_labels": permute_labels,
    "permute_pixels": permute_pixels,
    "targets": draw_targets,
}
EXAMPLE = {
    "drift": {"kind": "rotation", "growth": 0.2},
    "labels": {"name": "draw_labels", "fraction": 0.2},
    "targets": {"values": 0, "offset": 0.0, "growth": 1.0},
}


def composite(
    spec,
    changes: dict = EXAMPLE,
    steps: int = 5_000,
    batch: int = 16,
    images: int = 1_000,
    order: str = "shuffled",
    mean: float | tuple = 0.0,
    std: float | tuple = 1.0,
    evaluation: int = 2_048,
):
    """Tasks that differ in several ways: f_k(... f_2(f_1(x, y))), with one f for each change.

    By default what Lyle et al. 2024 (arXiv 2402.18762) name: inputs are transformed, labels are reset and targets grow.
    Here they rotate by 0.2 radians, draw a fifth of the labels anew and add 1 to all targets, task by task; the paper
    gives no numbers. That is a regression, onto y = c_t + onehot(label), and asks for a head such as `linear`.

    Args:
      spec: shapes of the data, with the number of classes under "classes".
      changes: name -> settings of the change "name" (by default that of the block), one of `CHANGES`: `drift` with the
        settings of `input_drift`, `draw_labels` (`random_labels`), `permute_labels` (`label_permutation`),
        `permute_pixels` (`permuted_pixels`), `targets` (`target_offset`). They are applied in the order of their names
        in the alphabet, whatever the order in which they are given. Each draws by its name, so the same whichever
        others there are. A float that is to be an axis of the grid must be given here.
      steps, batch, images, order, mean, std, evaluation: as for `image_stream`; raises as it does.

    Returns:
      Stream. It has no test set if one of its changes draws something for each image of the run.

    Raises:
      ValueError: no changes, unknown names or settings, values that a change refuses, targets that do not come last.
    """
    change = compose(spec, steps, changes)
    return image_stream(spec, change, steps, batch, images, order, mean, std, evaluation)


def compose(spec, steps, changes):
    """One Change of several: its state is a dict by name. Arguments and errors as for `composite`."""
    if not changes:
        raise ValueError(f"changes is empty: name one or more of {', '.join(CHANGES)}.")
    parts = {name: _part(name, changes[name], {"spec": spec, "steps": steps}) for name in sorted(changes)}
    kinds = [{"name": name, **changes[name]}["name"] for name in parts]
    if "draw_labels" in kinds and "permute_labels" in kinds[: kinds.index("draw_labels")]:
        raise ValueError("changes: draw_labels replaces the labels that permute_labels made before it, by name.")
    *before, last = parts
    for name in before:
        if parts[name].outputs:
            raise ValueError(f"changes.{name} makes values of labels, so it must be the last by name, after {last!r}.")

    def init(key, y):
        return {name: part.init(named(key, name), y) for name, part in parts.items()}

    def advance(key, state):
        return {name: part.advance(named(key, name), state[name]) for name, part in parts.items()}

    def apply(state, x, y, index, step):
        for name, part in parts.items():
            x, y = part.apply(state[name], x, y, index, step)
        return x, y

    return Change(init, advance, apply, any(part.by_image for part in parts.values()), parts[last].outputs)


def _part(name, block, offered):
    """The change that a block describes."""
    if not isinstance(block, dict):
        raise ValueError(f"changes.{name}={block!r}, but it must be a block of settings such as {{'name': 'drift'}}.")
    settings = {"name": name, **block}
    kind = settings.pop("name")
    check.known(f"changes.{name}.name", kind, CHANGES)
    parameters = inspect.signature(CHANGES[kind]).parameters
    allowed = [key for key in parameters if key not in offered]
    for key, value in settings.items():
        if key not in allowed:
            names = ", ".join(allowed)
            raise ValueError(f"changes.{name}.{key} is not a setting.{check.nearest(key, allowed)} Allowed: {names}.")
        kind_of = type(parameters[key].default)
        if kind_of in (bool, str) and not isinstance(value, kind_of):  # numbers are checked by the change
            raise ValueError(f"changes.{name}.{key}={value!r}, but it must be of type {kind_of.__name__}.")
    return CHANGES[kind](**{key: value for key, value in offered.items() if key in parameters}, **settings)
