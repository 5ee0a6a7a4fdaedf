"""Linear operators on pytrees of parameters: one record, its algebra, its dense matrix.

An operator keeps its numbers (parameters, data) as leaves and its program as static metadata, so that it passes through
jit and vmap, nothing is baked into a compiled program, and the same loss at other parameters compiles nothing anew.
Letters: n entries of a vector, all leaves together.
"""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.flatten_util
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.curvature.data import precisely
from plasticity_jax.curvature.require import require_alike, require_floating, require_real

__all__ = ["Operator", "operator"]

DENSE_BATCH = 64  # columns that `dense` computes side by side


class Shapes:
    """The structure, shapes and dtypes of a vector: hashable, so that it can be static under jit.

    Vectors are float32, or float64 where x64 is on. `eps` is the rounding of products, which is that of the parameters:
    the larger one of float32 and float64 (bfloat16 counts as float32, for its products may be sums in float32).
    """

    def __init__(self, like, eps=None):
        leaves, self.structure = jax.tree.flatten(like)
        dtypes = [jax.dtypes.canonicalize_dtype(x.dtype) for x in leaves]
        wide = [jnp.promote_types(dtype, jnp.result_type(float)) for dtype in dtypes]
        self.leaves = tuple(jax.ShapeDtypeStruct(x.shape, dtype) for x, dtype in zip(leaves, wide, strict=True))
        self.eps = eps or max(float(jnp.finfo(jnp.promote_types(dtype, jnp.float32)).eps) for dtype in dtypes)

    def __hash__(self):
        return hash((self.structure, self.leaves, self.eps))

    def __eq__(self, other):
        return (self.structure, self.leaves, self.eps) == (other.structure, other.leaves, other.eps)


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["args", "mask"], meta_fields=["prepare", "shapes", "psd", "host"]
)
@dataclasses.dataclass(frozen=True)
class Operator:
    """A symmetric linear map from vectors to vectors; vectors are trees like the parameters.

    Made by `hessian`, `ggn`, `fisher`, `gradient_covariance` and `operator`. `A @ v` is a product, `A + B`, `2.0 * A`
    and the methods below make new operators. Vectors are float32, or float64 where x64 is on, whatever the parameters
    are; products are computed in the types of the parameters.

    Attributes:
      args: tree of arrays that the products need.
      mask: tree of 0 and 1 like a vector, or None: the operator is P A P with P the projection on the entries with 1.
      prepare: static; prepare(args) -> (v -> A v), does once what repeated products share.
      shapes: static; structure, shapes and dtypes of vectors.
      psd: static; whether it is known to have no negative eigenvalue.
      host: static; whether products run a Python loop (data from an iterator), so that nothing can be jitted.
    """

    args: Any
    mask: Any
    prepare: Callable
    shapes: Shapes
    psd: bool = False
    host: bool = False

    @property
    def like(self):
        """A tree of jax.ShapeDtypeStruct: what vectors look like."""
        return jax.tree.unflatten(self.shapes.structure, self.shapes.leaves)

    @property
    def size(self):
        """The dimension: a Python int, or [] int32 of the entries that a mask lets through."""
        if self.mask is None:
            return tree.size(self.like)
        return sum(jnp.count_nonzero(leaf).astype(jnp.int32) for leaf in jax.tree.leaves(self.mask))

    def product(self):
        """The function v -> A v for repeated use: what the products share is computed once, here."""
        apply = self.prepare(self.args)
        return lambda v: self.project(self._cast(apply(self.project(v))))

    def project(self, v):
        """The part of v in the space that the operator acts on: all of it but for a mask."""
        return v if self.mask is None else jax.tree.map(lambda x, m: jnp.where(m, x, 0), v, self.mask)

    def random(self, key, sampler=jax.random.normal):
        """A random vector with independent entries; sampler(key, shape, dtype)."""
        return self.project(self._cast(tree.random_like(key, self.like, sampler)))

    def __call__(self, v):
        """A v; raises ValueError where v has another structure or other shapes than the operator, or is complex."""
        return self.product()(self.vector("the vector", v))

    __matmul__ = __call__

    def vector(self, what, v):
        """`v` in the types of vectors; raises ValueError, which names `what`, where it cannot be one."""
        require_alike(what, v, self.like)
        require_real(what, v)
        return self._cast(jax.tree.map(jnp.asarray, v))

    def _cast(self, v):
        return jax.tree.map(lambda x, y: x.astype(y.dtype), v, self.like)

    def __add__(self, other):
        if not isinstance(other, Operator):
            return NotImplemented
        require_alike("the second operator", other.like, self.like)
        if not _same(self.mask, other.mask):
            raise ValueError("Operators with different masks cannot be added: add first, then restrict the sum.")
        return dataclasses.replace(
            self,
            args=(self.args, other.args),
            shapes=max(self.shapes, other.shapes, key=lambda shapes: shapes.eps),
            prepare=_Sum(self.prepare, other.prepare),
            psd=self.psd and other.psd,
            host=self.host or other.host,
        )

    def __mul__(self, factor):
        if isinstance(factor, Operator) or jnp.ndim(factor) != 0:
            return NotImplemented
        known = not isinstance(factor, jax.core.Tracer) and factor >= 0
        return dataclasses.replace(
            self, args=(self.args, factor), prepare=_Scaled(self.prepare), psd=self.psd and bool(known)
        )

    __rmul__ = __mul__

    def __truediv__(self, divisor):
        return self * (1.0 / divisor)

    def __neg__(self):
        return -1.0 * self

    def __sub__(self, other):
        return self + (-1.0) * other

    def shift(self, c):
        """A + c I; c: [] float."""
        known = not isinstance(c, jax.core.Tracer) and c >= 0
        return dataclasses.replace(
            self, args=(self.args, c), prepare=_Shifted(self.prepare), psd=self.psd and bool(known)
        )

    def restrict(self, where):
        """The block of A that belongs to some parameters.

        Args:
          where: a pattern of paths such as "fc0/*" or "*/kernel", or a tuple of them: vectors then have these leaves
            only (None elsewhere). Or a tree of 0 and 1 like the parameters: vectors keep their shape, entries with 0 do
            not count, and `size` is the number of ones: the curvature of a sparse network on its active weights.

        Raises:
          ValueError: a pattern that matches no path, a mask of other shapes or without a one.

        >>> A = operator(lambda v: jax.tree.map(lambda x: 2 * x, v), like={"w": jnp.ones(3), "b": jnp.ones(1)})
        >>> A.restrict("w").size, int(A.restrict({"w": jnp.array([1, 0, 1]), "b": jnp.array([0])}).size)
        (3, 2)
        """
        if isinstance(where, str) or (isinstance(where, tuple | list) and all(isinstance(p, str) for p in where)):
            return self._restrict_to_paths((where,) if isinstance(where, str) else where)
        require_alike("the mask", where, self.like)
        mask = jax.tree.map(lambda leaf: jnp.asarray(leaf) != 0, where)
        if self.mask is not None:
            mask = jax.tree.map(jnp.logical_and, mask, self.mask)
        if _known(mask) and not any(bool(leaf.any()) for leaf in jax.tree.leaves(mask)):
            raise ValueError("The mask lets no parameter through: it is 0 everywhere.")
        return dataclasses.replace(self, mask=mask)

    def _restrict_to_paths(self, patterns):
        names = [tree.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(self.like)]
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise ValueError(f"No parameter has a path like {pattern!r}. The paths are: {', '.join(names)}.")
        chosen = tuple(any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) for name in names)

        def keep(whole):
            leaves = [x if use else None for x, use in zip(jax.tree.leaves(whole), chosen, strict=True)]
            return jax.tree.unflatten(self.shapes.structure, leaves)

        return dataclasses.replace(
            self,
            mask=None if self.mask is None else keep(self.mask),
            prepare=_Block(self.prepare, self.shapes, chosen),
            shapes=Shapes(keep(self.like), self.shapes.eps),
        )

    def precondition(self, diagonal):
        """D^(-1/2) A D^(-1/2): the curvature that an optimizer sees which divides its steps by `diagonal`.

        For Adam, diagonal is sqrt(v_hat) + eps: its largest eigenvalue times the learning rate decides on stability
        (Cohen et al. 2022, arXiv 2207.14484).

        Args:
          diagonal: a tree like the parameters, all entries positive.

        Raises:
          ValueError: other shapes, or an entry that is not positive.
        """
        require_alike("the diagonal", diagonal, self.like)
        for path, leaf in jax.tree_util.tree_leaves_with_path(diagonal):
            if not isinstance(leaf, jax.core.Tracer) and not bool((jnp.asarray(leaf) > 0).all()):
                name = tree.path_name(path)
                raise ValueError(f"diagonal[{name}] is not positive everywhere, or is NaN: add a small number.")
        diagonal = self.vector("the diagonal", diagonal)
        return dataclasses.replace(self, args=(self.args, diagonal), prepare=_Preconditioned(self.prepare))

    def dense(self):
        """The matrix, rows and columns in the order of `jax.flatten_util.ravel_pytree`: [n, n].

        Masked entries keep their row and column, of zeros. In memory n^2 numbers: for small n.
        """
        flat, unravel = jax.flatten_util.ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.like))
        product = self.product()

        def column(i):
            return jax.flatten_util.ravel_pytree(product(unravel(flat.at[i].set(1))))[0]

        if self.host:
            return jnp.stack([column(i) for i in range(flat.size)], axis=1)
        return jax.lax.map(column, jnp.arange(flat.size), batch_size=DENSE_BATCH).T

    def as_scipy(self):
        """A scipy.sparse.linalg.LinearOperator on flat float64 vectors of the host: for `eigsh` and its kin."""
        from plasticity_jax.curvature import interop

        return interop.as_scipy(self)

    def as_lineax(self):
        """A lineax.FunctionLinearOperator, tagged symmetric (positive semidefinite where known): for its solvers."""
        from plasticity_jax.curvature import interop

        return interop.as_lineax(self)

    def as_matfree(self):
        """(matvec, args) with matvec(v, *args) on trees: call a matfree algorithm as algorithm(matvec, v0, *args)."""
        from plasticity_jax.curvature import interop

        return interop.as_matfree(self)


def operator(matvec, like=None, args=(), psd=False):
    """An operator from any symmetric matrix-vector product.

    Args:
      matvec: (v, *args) -> A v on trees; or a lineax operator that is known to be symmetric, which brings its own
        `like` and its tag positive_semidefinite.
      like: a tree of arrays or shapes that a vector looks like; floating leaves.
      args: tuple of trees of arrays for `matvec`; arrays that it captures instead are baked into compiled programs.
      psd: whether no eigenvalue is negative.

    Returns:
      Operator.

    Raises:
      ValueError: no `like`, leaves that are not floating, `args` that are no tuple, a product of another structure,
        other shapes or that is not floating, a lineax operator without a tag of symmetry.

    >>> A = operator(lambda v, d: d * v, like=jnp.zeros(2), args=(jnp.array([1.0, 3.0]),))
    >>> (2.0 * A.shift(1.0) @ jnp.ones(2)).tolist()
    [4.0, 8.0]
    """
    if hasattr(matvec, "mv") and hasattr(matvec, "in_structure"):
        from plasticity_jax.curvature import interop

        interop.require_symmetric(matvec)
        like, psd = matvec.in_structure(), psd or interop.known_psd(matvec)
        matvec, args = interop.split_lineax(matvec)
    if like is None:
        raise ValueError("operator(matvec) needs like=: a tree of arrays or shapes that a vector looks like.")
    if not isinstance(args, tuple | list):
        raise ValueError(f"args must be a tuple, and is a {type(args).__name__}: pass args=(array,).")
    require_floating("like", like)
    made = Operator(args=tuple(args), mask=None, prepare=_Plain(matvec), shapes=Shapes(like), psd=psd)
    product = jax.eval_shape(lambda v: matvec(v, *args), made.like)
    require_alike("what matvec returns", product, made.like)
    require_real("what matvec returns", product, jnp.floating)
    return made


def _known(tree_):
    """Whether no leaf is traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree_))


def _same(a, b):
    """Whether two masks of one structure are the same, or known to be equal."""
    if a is None or b is None or not _known((a, b)):
        return a is b
    return all(bool(jnp.array_equal(x, y)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@dataclasses.dataclass(frozen=True)
class _Plain:
    matvec: Callable

    def __call__(self, args):
        matvec = precisely(self.matvec)
        return lambda v: jax.tree.map(lambda x, y: x.astype(y.dtype), matvec(v, *args), v)


@dataclasses.dataclass(frozen=True)
class _Sum:
    first: Callable
    second: Callable

    def __call__(self, args):
        first, second = self.first(args[0]), self.second(args[1])
        return lambda v: jax.tree.map(jnp.add, first(v), second(v))

    def parts(self, args):  # here and below: what it is made of, with their arguments
        return (self.first, args[0]), (self.second, args[1])


@dataclasses.dataclass(frozen=True)
class _Scaled:
    inner: Callable

    def __call__(self, args):
        apply = self.inner(args[0])
        return lambda v: tree.scale(args[1], apply(v))

    def parts(self, args):
        return ((self.inner, args[0]),)


@dataclasses.dataclass(frozen=True)
class _Shifted:
    inner: Callable

    def __call__(self, args):
        apply = self.inner(args[0])
        return lambda v: tree.axpy(args[1], v, apply(v))

    def parts(self, args):
        return ((self.inner, args[0]),)


@dataclasses.dataclass(frozen=True)
class _Preconditioned:
    inner: Callable

    def __call__(self, args):
        apply, root = self.inner(args[0]), jax.tree.map(jax.lax.rsqrt, args[1])
        return lambda v: jax.tree.map(jnp.multiply, root, apply(jax.tree.map(jnp.multiply, root, v)))

    def parts(self, args):
        return ((self.inner, args[0]),)


@dataclasses.dataclass(frozen=True)
class _Block:
    inner: Callable
    shapes: Shapes  # of the whole
    chosen: tuple  # of bool, one per leaf of the whole

    def __call__(self, args):
        apply = self.inner(args)

        def product(v):
            given = iter(jax.tree.leaves(v))
            whole = [
                next(given) if use else jnp.zeros(x.shape, x.dtype)
                for x, use in zip(self.shapes.leaves, self.chosen, strict=True)
            ]
            out = jax.tree.leaves(apply(jax.tree.unflatten(self.shapes.structure, whole)))
            return jax.tree.unflatten(
                jax.tree.structure(v), [x for x, use in zip(out, self.chosen, strict=True) if use]
            )

        return product

    def parts(self, args):
        return ((self.inner, args),)
