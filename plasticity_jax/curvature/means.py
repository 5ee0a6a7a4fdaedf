"""Products that are means over data: what the operators of `matrices` share, whatever their product on one batch is.

Such a product is `one(params, batch, start, extra, shared)`, which returns v -> tree of means over the batch. `start`
is the number of examples before the batch, `extra` what all batches need, `shared` whether the products of one call may
share a forward pass.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.interpreters.partial_eval import DynamicJaxprTracer

from plasticity_jax.curvature.data import average, count, host_average, is_iterator, precisely, widen
from plasticity_jax.curvature.operators import Operator, Shapes
from plasticity_jax.curvature.require import require_counts, require_floating

__all__ = ["HostMean", "Mean", "over_data", "pair", "require_scalar", "scalar"]


def over_data(one, params, data, microbatch, progress, psd=False, extra=()):
    """The operator whose products are the mean of `one` over data in memory, or from an iterator."""
    require_floating("params", params)
    shapes = Shapes(params)
    params = jax.tree.map(jnp.asarray, params)
    if is_iterator(data):
        prepare = HostMean(one, data, progress)
        return Operator(args=(params, extra), mask=None, prepare=prepare, shapes=shapes, psd=psd, host=True)
    count(data)
    if microbatch is not None:
        require_counts(microbatch=microbatch)
    args = (params, data, extra)
    return Operator(args=args, mask=None, prepare=Mean(one, microbatch), shapes=shapes, psd=psd)


@dataclasses.dataclass(frozen=True)
class Mean:
    """Products are means over data in memory."""

    one: Callable
    microbatch: int | None

    def __call__(self, args):
        """The function v -> mean of the products with v."""
        params, data, extra = args
        size = count(data)
        if self.microbatch is None or size is None or self.microbatch >= size:
            # here the derivatives are traced as well, so that this, too, must be precise
            product = precisely(precisely(self.one)(params, data, 0, extra, shared=True))
            return lambda v: widen(product(_like(v, params)))

        def product(v):
            def part(batch, start):
                return self.one(params, batch, start, extra, shared=False)(_like(v, params))

            return precisely(average)(part, data, self.microbatch)

        return product

    def gradient(self, args):
        """The mean of `one.gradient`."""
        params, data, _ = args
        return precisely(average)(lambda batch, start: self.one.gradient(params, batch), data, self.microbatch)


@dataclasses.dataclass(frozen=True)
class HostMean:
    """Products are means over the batches of an iterator; one batch is one compiled program."""

    one: Callable
    batches: Callable
    progress: Callable | None
    passes: list = dataclasses.field(default_factory=list, compare=False)  # examples of every pass so far

    def __call__(self, args):
        """The function v -> mean of the products with v."""
        _require_no_jit(args)
        params, extra = args

        def product(v):
            _require_no_jit(v)
            v = _like(v, params)
            return self._average(lambda batch, start: _product_of_batch(self.one, params, extra, v, batch, start))

        return product

    def gradient(self, args):
        """The mean of `one.gradient`."""
        return self._average(lambda batch, start: _gradient_of_batch(self.one, args[0], batch))

    def _average(self, f):
        mean, size = host_average(f, self.batches, self.progress)
        self.passes.append(size)
        if size != self.passes[0]:
            raise ValueError(
                f"The iterator gave {self.passes[0]} examples at first and {size} now. data= must be a function that "
                "starts the same pass at every call; a generator that exists already can be read only once."
            )
        return mean


# functions of the module, so that what is compiled for one operator serves the next one of the same loss


@functools.partial(jax.jit, static_argnums=0)
def _product_of_batch(one, params, extra, v, batch, start):
    return precisely(lambda: one(params, batch, start, extra, shared=False)(v))()


@functools.partial(jax.jit, static_argnums=0)
def _gradient_of_batch(one, params, batch):
    return precisely(one.gradient)(params, batch)


def _require_no_jit(args):
    """Raise ValueError inside jit, where the loop would unroll and the data become constants of the program."""
    if any(isinstance(leaf, DynamicJaxprTracer) for leaf in jax.tree.leaves(args)):
        raise ValueError(
            "An operator that reads its data from an iterator cannot be used inside jit, which would compile all of "
            "the data into the program: call it outside, or pass arrays and a microbatch."
        )


def pair(batch):
    """(x, y); raises ValueError where the batch is no pair."""
    if not (isinstance(batch, tuple | list) and len(batch) == 2):
        kind = "array" if hasattr(batch, "shape") else type(batch).__name__
        raise ValueError(f"data must be a pair (x, y), and is of the kind {kind}.")
    return batch


def scalar(value):
    """The loss; raises ValueError where it is no floating scalar."""
    if jax.tree.structure(value) != jax.tree.structure(0):
        raise ValueError(
            f"The loss returns a {type(value).__name__}: it must return a scalar alone, the mean over the batch."
        )
    if jnp.shape(value) != ():
        raise ValueError(f"The loss has the shape {jnp.shape(value)}: it must be a scalar, the mean over the batch.")
    if not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise ValueError(f"The loss has the type {jnp.result_type(value)}: it must be a real floating number.")
    return value


def require_scalar(loss, params, data):
    """Trace the loss once, so that a loss of another shape is refused before anything is compiled.

    A loss that cannot be called so gets a note on its error, which says how it is called.
    """
    if is_iterator(data):
        return
    try:
        jax.eval_shape(lambda p, batch: jnp.asarray(scalar(loss(p, batch))), params, data)
    except (TypeError, AttributeError, KeyError) as error:
        error.add_note(
            "The loss is called as loss(params, batch), where batch has the structure of data. For loss(params, x, y) "
            "pass lambda params, batch: loss(params, *batch); for a list of batches pass data=lambda: batches."
        )
        raise


def _like(a, b):
    return jax.tree.map(lambda x, y: x.astype(y.dtype), a, b)
