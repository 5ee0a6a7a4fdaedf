"""Checks of settings: a ValueError that names the value and what is allowed, before anything is compiled.

Checks skip tracers, because any float of a configuration may be an axis of the grid; `build` calls every factory with
plain floats at every point of the grid, so nothing escapes.
"""

import difflib
import importlib
import math
import types
import typing

import jax

__all__ = [
    "at_least",
    "between",
    "finite",
    "fixed",
    "fraction",
    "imported",
    "known",
    "nearest",
    "positive",
    "typed",
    "whole",
]


def at_least(name, value, low):
    """`value` must be a number >= low."""
    _require(value, lambda v: low <= v < math.inf, f"{name}={value!r}, but it must be finite and at least {low}.")


def positive(name, value):
    """`value` must be a number > 0."""
    _require(value, lambda v: 0 < v < math.inf, f"{name}={value!r}, but it must be finite and positive.")


def fraction(name, value):
    """`value` must be a number in [0, 1)."""
    _require(value, lambda v: 0 <= v < 1, f"{name}={value!r}, but it must be at least 0 and below 1.")


def finite(name, value):
    """`value` must be a number, neither infinite nor NaN."""
    _require(value, math.isfinite, f"{name}={value!r}, but it must be a finite number.")


def between(name, value, low, high):
    """`value` must be a number in [low, high]."""
    _require(value, lambda v: low <= v <= high, f"{name}={value!r}, but it must lie between {low} and {high}.")


def whole(name, value, low=1):
    """`value` must be a whole number >= low."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name}={value!r}, but it must be a whole number, {low} or more.")


def fixed(name, value):
    """`value` decides shapes or programs, so it may not differ by run: not an axis of the grid."""
    if isinstance(value, jax.core.Tracer):
        raise ValueError(f"{name} decides shapes, so it cannot be an axis of the grid. Use variants.")


def known(name, value, allowed):
    """`value` must be one of `allowed`; the message names the nearest one.

    >>> known("norm", "leyer", ("none", "layer"))
    Traceback (most recent call last):
    ...
    ValueError: norm='leyer' is unknown. Did you mean 'layer'? Allowed: none, layer.
    """
    if value not in allowed:
        names = ", ".join(map(str, allowed))
        raise ValueError(f"{name}={value!r} is unknown.{nearest(value, allowed)} Allowed: {names or 'nothing'}.")


def nearest(value, allowed):
    """The text " Did you mean 'x'?", or nothing where no allowed name is near."""
    hits = difflib.get_close_matches(str(value), [str(a) for a in allowed], n=1, cutoff=0.5)
    return f" Did you mean {hits[0]!r}?" if hits else ""


def _require(value, holds, message):
    if isinstance(value, jax.core.Tracer):
        return
    if isinstance(value, (bool, str)) or not holds(value):  # NaN fails every comparison, and so is refused
        raise ValueError(message)


def typed(path, value, hint):
    """`value` as the annotated type, or a ValueError that names both."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kinds = {typing.get_origin(kind) or kind for kind in allowed}
    if isinstance(value, bool):
        fits = bool in kinds
    elif isinstance(value, int) and float in kinds and int not in kinds:
        return float(value)
    else:
        fits = type(value) in kinds or typing.Any in kinds
    if not fits:
        names = " or ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"{path}={value!r} is of type {type(value).__name__}, but it must be of type {names}.")
    return value


def imported(path, name):
    """What `package.module:factory` names, or a ValueError that says which part of it there is not."""
    module, _, factory = name.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise ValueError(f"{path}={name!r} cannot be imported: {error}. Is the module on PYTHONPATH?") from error
    if not hasattr(found, factory):
        raise ValueError(f"{path}={name!r}, but {module} has no {factory!r}.{nearest(factory, vars(found))}")
    return getattr(found, factory)
