r"""The curvature matrices of a loss: Hessian, Gauss-Newton, the three Fishers, the covariance of gradients.

Letters: N examples of a data set, B of a microbatch, C outputs, n parameters. z = model(params, x), J = dz/dparams.

=========================  ===============================================================  ==========================
operator                   matrix, a mean over examples                                      always >= 0
=========================  ===============================================================  ==========================
hessian                    d^2 loss                                                          no
ggn                        J^T (d^2 output_loss / dz^2) J                                    if output_loss is convex
fisher type2               J^T F_z J, F_z the Fisher matrix of the likelihood in z           yes
fisher monte_carlo         g g^T, g = gradient of -log p(y | z), y drawn from the model      yes
fisher empirical           g g^T, g = gradient of output_loss at the label                   yes
gradient_covariance        g g^T of the loss, minus the square of its mean                   yes
=========================  ===============================================================  ==========================

For softmax with cross-entropy and for a Gaussian with unit variance, type2 is the Gauss-Newton matrix and the mean of
monte_carlo. The empirical one is neither (Kunstner et al. 2019, arXiv 1905.12558). No per-example gradient is ever
stored: g g^T v = J^T (dl/dz (dl/dz . J v)).

Cost in matrix products of one network pass (forward 1, backward 2): gradient 3, hessian 6, ggn and fisher 5; a
gradient's share less where repeated products share the forward pass (`linearize`).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.curvature.data import count, is_iterator
from plasticity_jax.curvature.means import over_data, pair, require_scalar, scalar

__all__ = ["fisher", "ggn", "gradient_covariance", "hessian"]

KINDS = ("type2", "monte_carlo", "empirical")
LIKELIHOODS = ("categorical", "gaussian")
METHODS = ("forward_over_reverse", "reverse_over_reverse", "finite_difference")


def hessian(loss, params, data=None, microbatch=None, method="forward_over_reverse", linearize=None, progress=None):
    """The Hessian of a mean loss.

    Args:
      loss: (params, batch) -> [], the mean over the examples of `batch`, deterministic: a sum, batch statistics or
        dropout without a frozen key give another matrix; `check_operator` finds out.
      params: tree of floating arrays, differentiated with respect to all of it.
      data: tree of [N, ...]; or a function () -> iterable of batches, for data that do not fit: products then run a
        Python loop, and nothing of it can be jitted. None: loss(params, None).
      microbatch: int, examples that are processed at once; None: all.
      method: "forward_over_reverse" (jvp of grad), "reverse_over_reverse", or "finite_difference", central differences
        of the gradient as a cross-check: about three digits in float32.
      linearize: whether repeated products share the forward pass, whose activations then stay in memory; None: where
        all data are processed at once.
      progress: (done, total) after every batch of an iterator.

    Returns:
      Operator.

    Raises:
      ValueError: no parameters, leaves that are not floating (with their path), empty data, a loss that is no scalar,
        an unknown method.

    A plain dict is as good as any framework's parameters, such as those of flax linen:

    >>> import flax.linen as nn
    >>> from plasticity_jax import curvature as cv
    >>> x, y = jnp.ones((8, 3)), jnp.zeros((8, 1))
    >>> model = nn.Sequential([nn.Dense(4), nn.tanh, nn.Dense(1)])
    >>> params = model.init(jax.random.key(0), x)
    >>> H = cv.hessian(lambda p, batch: jnp.mean((model.apply(p, batch[0]) - batch[1]) ** 2), params, (x, y))
    >>> cv.slq(H, steps=8, probes=2, key=jax.random.key(1)).nodes.shape
    (2, 8)

    flax nnx, whose parameters are split off first:

    >>> from flax import nnx
    >>> graph, params, rest = nnx.split(nnx.Linear(3, 1, rngs=nnx.Rngs(0)), nnx.Param, ...)
    >>> def loss(params, batch):
    ...     return jnp.mean((nnx.merge(graph, params, rest, copy=True)(batch[0]) - batch[1]) ** 2)
    >>> cv.hessian(loss, params, (x, y)).size
    4

    And a single array:

    >>> H = hessian(lambda w, x: 0.5 * jnp.mean((x @ w) ** 2), jnp.ones(2), jnp.array([[1.0, 0.0], [0.0, 2.0]]))
    >>> H.dense().tolist()
    [[0.5, 0.0], [0.0, 2.0]]
    """
    _require_one_of("method", method, METHODS)
    made = over_data(_Hessian(loss, method, linearize), params, data, microbatch, progress)
    require_scalar(loss, params, data)
    return made


def ggn(model, output_loss, params, data, microbatch=None, progress=None, psd=True):
    """The generalised Gauss-Newton matrix J^T H_z J: the part of the Hessian without the curvature of the model.

    Args:
      model: (params, x) -> z, a tree of [B, ...].
      output_loss: (z, y) -> [], the mean over the batch.
      params: tree of floating arrays.
      data: (x, y), trees of [N, ...], or a function () -> iterable of such pairs.
      microbatch, progress: as for `hessian`.
      psd: whether output_loss is convex in z, as cross-entropy and squared error are.

    Returns:
      Operator.

    Raises:
      ValueError: as `hessian`.

    With equinox:

    >>> import equinox as eqx
    >>> x, y = jnp.ones((8, 3)), jnp.zeros((8, 1))
    >>> params, static = eqx.partition(eqx.nn.MLP(3, 1, 4, 1, key=jax.random.key(0)), eqx.is_inexact_array)
    >>> def model(params, x):
    ...     return jax.vmap(eqx.combine(params, static))(x)
    >>> G = ggn(model, lambda z, y: jnp.mean((z - y) ** 2), params, (x, y))
    >>> G.size, G.psd
    (21, True)
    """
    if not is_iterator(data):
        pair(data)
    made = over_data(_GaussNewton(model, output_loss), params, data, microbatch, progress, psd)
    require_scalar(lambda p, batch: output_loss(model(p, batch[0]), batch[1]), params, data)
    return made


def fisher(
    model, output_loss, params, data, kind="type2", likelihood="categorical", key=None, microbatch=None, progress=None
):
    """The Fisher information matrix, in one of three readings that differ (see the table above).

    Args:
      model: (params, x) -> z: [B, ..., C] logits, or means of a Gaussian with unit variance.
      output_loss: (z, y) -> [], the mean over the batch; only "empirical" uses it.
      params, data, microbatch, progress: as for `ggn`.
      kind: "type2" | "monte_carlo" | "empirical".
      likelihood: "categorical" | "gaussian", for the first two; the last axis holds the classes, further axes are
        summed over (a sequence is one example).
      key: for "monte_carlo": one label is drawn per example, by its place in the data, so that it is the same in every
        product and for every microbatch. An iterator must then keep the order of its examples: no shuffling.

    Returns:
      Operator.

    Raises:
      ValueError: as `hessian`; an unknown kind or likelihood, "monte_carlo" without a key; outputs that are no array
        with the examples first, or a single logit per example.
    """
    _require_one_of("kind", kind, KINDS)
    _require_one_of("likelihood", likelihood, LIKELIHOODS)
    if kind == "monte_carlo" and key is None:
        raise ValueError('fisher(kind="monte_carlo") draws labels: pass key=jax.random.key(...).')
    if not is_iterator(data):
        pair(data)
    one = {
        "type2": _Type2(model, likelihood),
        "monte_carlo": _MonteCarlo(model, likelihood),
        "empirical": _Empirical(_PerExample(model, output_loss)),
    }[kind]
    made = over_data(one, params, data, microbatch, progress, True, extra=key if kind == "monte_carlo" else ())
    if not is_iterator(data):  # traced once, so that wrong outputs are refused before anything is compiled
        jax.eval_shape(lambda p, batch, key: one(p, batch, 0, key, True)(p), made.args[0], data, key)
    return made


def gradient_covariance(loss, params, data, centred=True, microbatch=None, progress=None):
    """The covariance of the gradients of single examples, E[g g^T] - E[g] E[g]^T.

    Args:
      loss: (params, batch) -> []; it is called with batches of one example.
      params, data, microbatch, progress: as for `hessian`.
      centred: False keeps the mean: the second moment E[g g^T].

    Returns:
      Operator; divided by N, not by N - 1.

    Raises:
      ValueError: as `hessian`; data without arrays.
    """
    if not is_iterator(data) and count(data) is None:
        raise ValueError("gradient_covariance needs data: it compares the gradients of single examples.")
    one = _Deviations(_OneByOne(loss)) if centred else _Empirical(_OneByOne(loss))
    made = over_data(one, params, data, microbatch, progress, True)
    require_scalar(loss, params, data)
    return dataclasses.replace(made, prepare=_Centred(made.prepare)) if centred else made


@dataclasses.dataclass(frozen=True)
class _Hessian:
    loss: Callable
    method: str
    linearize: bool | None

    def __call__(self, params, batch, start, extra, shared):
        del start, extra
        gradient = jax.grad(lambda p: scalar(self.loss(p, batch)))
        if self.method == "finite_difference":
            return lambda v: _central_difference(gradient, params, v)
        if self.method == "reverse_over_reverse":
            return lambda v: jax.grad(lambda p: tree.dot(gradient(p), v))(params)
        if shared and self.linearize is not False:
            return jax.linearize(gradient, params)[1]
        return lambda v: jax.jvp(gradient, (params,), (v,))[1]


def _central_difference(gradient, params, v):
    """(g(p + h v) - g(p - h v)) / 2h with h = eps^(1/3) / |v|."""
    eps = max(float(jnp.finfo(leaf.dtype).eps) for leaf in jax.tree.leaves(params))
    length = tree.norm(v)
    h = eps ** (1 / 3) / jnp.where(length > 0, length, 1.0)
    ahead, behind = gradient(tree.axpy(h, v, params)), gradient(tree.axpy(-h, v, params))
    return tree.scale(0.5 / h, tree.subtract(ahead, behind))


@dataclasses.dataclass(frozen=True)
class _GaussNewton:
    model: Callable
    output_loss: Callable

    def __call__(self, params, batch, start, extra, shared):
        del start, extra, shared
        x, y = pair(batch)

        def curve(z, dz):
            return jax.jvp(jax.grad(lambda z: scalar(self.output_loss(z, y))), (z,), (dz,))[1]

        return _sandwich(lambda p: self.model(p, x), params, curve)


def _sandwich(model, params, middle):
    """The product with J^T middle(z, J v); the forward pass is shared by all products."""
    z, push = jax.linearize(model, params)
    pull = jax.linear_transpose(push, params)
    return lambda v: pull(middle(z, push(v)))[0]


@dataclasses.dataclass(frozen=True)
class _Type2:
    model: Callable
    likelihood: str

    def __call__(self, params, batch, start, extra, shared):
        del start, extra, shared

        def curve(z, dz):
            _require_outputs(z, batch, self.likelihood)
            if self.likelihood == "gaussian":
                return dz / z.shape[0]
            p = jax.nn.softmax(z, -1)
            return p * (dz - jnp.sum(p * dz, -1, keepdims=True)) / z.shape[0]

        return _sandwich(lambda p: self.model(p, pair(batch)[0]), params, curve)


@dataclasses.dataclass(frozen=True)
class _MonteCarlo:
    model: Callable
    likelihood: str

    def __call__(self, params, batch, start, extra, shared):
        del shared

        def outer(z, dz):
            _require_outputs(z, batch, self.likelihood)
            keys = jax.vmap(lambda i: jax.random.fold_in(extra, i))(start + jnp.arange(z.shape[0]))
            if self.likelihood == "gaussian":
                g = jax.vmap(lambda k, z: jax.random.normal(k, z.shape, z.dtype))(keys, z)
            else:
                drawn = jax.vmap(jax.random.categorical)(keys, z)
                g = jax.nn.softmax(z, -1) - jax.nn.one_hot(drawn, z.shape[-1], dtype=z.dtype)
            axes = tuple(range(1, z.ndim))
            return g * jnp.sum(g * dz, axes, keepdims=True) / z.shape[0]

        return _sandwich(lambda p: self.model(p, pair(batch)[0]), params, outer)


def _require_outputs(z, batch, likelihood):
    """Raise ValueError unless z is one array with the examples first, and holds two classes where it holds classes."""
    if not isinstance(z, jax.Array) or z.ndim < 1 or z.shape[0] != count(batch):
        shapes = jax.tree.map(jnp.shape, z)
        raise ValueError(
            f"The model returns {shapes}: it must return one array [B, ..., C] for {count(batch)} examples."
        )
    if likelihood == "categorical" and (z.ndim < 2 or z.shape[-1] < 2):
        raise ValueError(
            f'The model returns {z.shape}: likelihood="categorical" needs two logits or more on the last axis. For one '
            "logit z return jnp.stack([jnp.zeros_like(z), z], -1)."
        )


@dataclasses.dataclass(frozen=True)
class _Empirical:
    """The second moment of the gradients of `losses`: (params, batch) -> [B], through J = d losses / d params."""

    losses: Callable

    def __call__(self, params, batch, start, extra, shared):
        del start, extra, shared
        return _sandwich(lambda p: self.losses(p, batch), params, lambda losses, dl: dl / losses.shape[0])


@dataclasses.dataclass(frozen=True)
class _Deviations:
    """Products with g (g - c)^T for a vector c, and the mean of (g - c) . v."""

    losses: Callable

    def __call__(self, params, batch, start, c, shared):
        del start, shared
        losses, push = jax.linearize(lambda p: self.losses(p, batch), params)
        pull = jax.linear_transpose(push, params)

        def product(v):
            u = push(v) - tree.dot(c, v)
            return pull((u / u.size).astype(losses.dtype))[0], jnp.mean(u)

        return product

    def gradient(self, params, batch):
        return jax.grad(lambda p: jnp.mean(self.losses(p, batch)))(params)


@dataclasses.dataclass(frozen=True)
class _OneByOne:
    loss: Callable

    def __call__(self, params, batch):
        return jax.vmap(lambda example: scalar(self.loss(params, jax.tree.map(lambda x: x[None], example))))(batch)


@dataclasses.dataclass(frozen=True)
class _PerExample:
    model: Callable
    output_loss: Callable

    def __call__(self, params, batch):
        z = self.model(params, batch[0])

        def one(z, y):
            return scalar(self.output_loss(*jax.tree.map(lambda x: x[None], (z, y))))

        return jax.vmap(one)(z, batch[1])


@dataclasses.dataclass(frozen=True)
class _Centred:
    """The covariance with c the mean gradient: gradients of small spread would cancel in E[g g^T] v - c (c . v).

    In exact arithmetic the mean of (g - c) . v is 0. What rounding leaves of it, times the large c, is taken off.
    """

    inner: Callable  # a Mean or HostMean of _Deviations

    def __call__(self, args):
        *rest, _ = args
        mean = self.inner.gradient(args)
        apply = self.inner((*rest, mean))

        def product(v):
            pulled, left = apply(v)
            return tree.axpy(-left, mean, pulled)

        return product

    def parts(self, args):
        return ((self.inner, args),)


def _require_one_of(name, value, allowed):
    if value not in allowed:
        raise ValueError(f"{name}={value!r} is unknown: choose one of {', '.join(allowed)}.")
