"""Operators for the solvers of other libraries: scipy, lineax and matfree. `operator` is the way back.

Vectors keep their full shape everywhere: a masked operator takes any vector and returns zeros where its mask is 0.
"""

import dataclasses
import importlib
import math
from typing import Any

import jax
import numpy as np

__all__ = ["as_lineax", "as_matfree", "as_scipy"]


def as_scipy(A):
    """A as a linear operator of scipy, on flat float64 vectors of the host.

    Entries are in the order of `Operator.dense`. Products are compiled once for all operators of one program, and have
    the precision of A's vectors: float32 unless x64 is on, so ask `eigsh` for no more than tol=1e-6.

    Args:
      A: Operator; one whose data come from an iterator will do.

    Returns:
      scipy.sparse.linalg.LinearOperator: [n, n] float64.

    >>> from plasticity_jax.curvature.operators import operator
    >>> A = operator(lambda v, d: d * v, like=jax.numpy.zeros(2), args=(jax.numpy.array([1.0, 3.0]),))
    >>> (as_scipy(A) @ np.ones(2)).tolist()
    [1.0, 3.0]
    """
    linalg = _import("scipy.sparse.linalg", "as_scipy")
    leaves, structure = jax.tree.flatten(A.like)
    ends = np.cumsum([math.prod(x.shape) for x in leaves])
    apply = A.product() if A.host else lambda v: _product(A, v)

    def matvec(flat):
        parts = np.split(np.asarray(flat).reshape(-1), ends[:-1])
        v = [part.reshape(x.shape).astype(x.dtype) for part, x in zip(parts, leaves, strict=True)]
        out = apply(jax.tree.unflatten(structure, v))
        return np.concatenate([np.asarray(x, np.float64).reshape(-1) for x in jax.tree.leaves(out)])

    return linalg.LinearOperator((int(ends[-1]),) * 2, matvec=matvec, rmatvec=matvec, dtype=np.float64)


def as_lineax(A):
    """A as a linear operator of lineax, on trees: for `lineax.linear_solve` and differentiable solves.

    It is tagged symmetric, and positive semidefinite where A.psd. `lineax.CG` asks for that tag: where you know more
    than A does, wrap it, lineax.TaggedLinearOperator(as_lineax(A.shift(c)), lineax.positive_semidefinite_tag).

    Args:
      A: Operator.

    Returns:
      lineax.FunctionLinearOperator; what products share, such as the forward pass, is computed here, once.

    Raises:
      ImportError: without lineax.
      ValueError: the operator's data come from an iterator.
    """
    lineax = _import("lineax", "as_lineax")
    _require_traceable(A, "lineax")
    tags = {lineax.symmetric_tag} | ({lineax.positive_semidefinite_tag} if A.psd else set())
    return lineax.FunctionLinearOperator(A.product(), A.like, tags=tags)


def as_matfree(A):
    """A as matfree's algorithms take it: algorithm(matvec, v0, *args).

    Args:
      A: Operator.

    Returns:
      (matvec, args): matvec(v, *args) = A v on trees, one function for all operators; args hold all arrays, so that
      nothing is baked into a compiled program.

    Raises:
      ImportError: without matfree.
      ValueError: the operator's data come from an iterator.
    """
    _import("matfree", "as_matfree")
    _require_traceable(A, "matfree")
    return _matvec, (A,)


def split_lineax(lineax_operator):
    """(matvec, args): its arrays as arguments, the functions among its leaves as part of a hashable program."""
    leaves, structure = jax.tree.flatten(lineax_operator)
    is_array = [isinstance(leaf, jax.Array | np.ndarray) for leaf in leaves]
    arrays = tuple(leaf for leaf, use in zip(leaves, is_array, strict=True) if use)
    rest = tuple(None if use else leaf for leaf, use in zip(leaves, is_array, strict=True))
    return _Lineax(structure, rest), arrays


def require_symmetric(lineax_operator):
    """Raise ValueError unless its tags or its type say that it is symmetric."""
    if not _import("lineax", "operator").is_symmetric(lineax_operator):
        raise ValueError(
            "The lineax operator is not known to be symmetric. If it is, say so: "
            "lineax.TaggedLinearOperator(A, lineax.symmetric_tag)."
        )


def known_psd(lineax_operator):
    """Whether its tags say that it is positive semidefinite."""
    return bool(_import("lineax", "operator").is_positive_semidefinite(lineax_operator))


@dataclasses.dataclass(frozen=True)
class _Lineax:
    structure: Any  # of the lineax operator
    rest: tuple  # its leaves, with None for every array

    def __call__(self, v, *arrays):
        given = iter(arrays)
        leaves = [next(given) if leaf is None else leaf for leaf in self.rest]
        return jax.tree.unflatten(self.structure, leaves).mv(v)


def _matvec(v, A):
    return A.product()(v)


@jax.jit
def _product(A, v):
    return A.product()(v)


def _require_traceable(A, library):
    if A.host:
        raise ValueError(
            f"{library} traces its products, but this operator reads data from an iterator: pass arrays and a "
            "microbatch, or use as_scipy()."
        )


def _import(name, method):
    try:
        return importlib.import_module(name)
    except ImportError as error:
        extra = "pip install 'plasticity_jax[curvature]'"
        raise ImportError(f"{method}() needs {name.partition('.')[0]}, which is not installed: {extra}.") from error
