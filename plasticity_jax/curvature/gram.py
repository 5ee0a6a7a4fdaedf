"""Inner products of the gradients of single examples: the paper's C_k, and the empirical neural tangent kernel.

The k gradients of n entries rarely fit. So a block of m is held, the gradients of the examples before it are recomputed
s at a time, and their products fill the rows of the block below the diagonal; the rest is the mirror image. That takes
about k^2 / 2m gradients more than the k that are needed anyway.

Letters: k examples, C outputs, n parameters, R rows of one example (C for the full kernel, else 1), m examples of a
block, s of a step.
"""

import functools
import math

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.curvature.data import count, is_iterator
from plasticity_jax.curvature.means import scalar
from plasticity_jax.curvature.require import require_floating

__all__ = ["gradient_gram", "ntk"]

OUTPUTS = ("mean", "full")


def gradient_gram(loss, params, data, cosine=True, memory=0.5e9):
    """The inner products of the gradients of single examples, as cosines: the paper's gradient covariance C_k.

        C_k[i, j] = <g_i, g_j> / (|g_i| |g_j|),   g_i = d loss(params, example i) / d params

    Negative entries are interference, blocks of large ones collinear gradients. Nothing is centred, as in the paper.
    It runs under jit and under vmap over `params` or `data`, where every lane takes the memory of one.

    Args:
      loss: (params, batch) -> []; it is called with batches of one example.
      params: tree of floating arrays.
      data: tree of [k, ...].
      cosine: False leaves out the division. A gradient of zero has cosine 0 with every other and with itself.
      memory: bytes for gradients, about; the activations of some examples come on top.

    Returns:
      [k, k] at least float32, exactly symmetric.

    Raises:
      ValueError: parameters that are not floating, no examples, an iterator, a loss that is no scalar, memory <= 0.

    >>> x = jnp.array([[2.0, 0.0], [-3.0, 0.0], [0.0, 0.0]])
    >>> gradient_gram(lambda w, x: jnp.mean(x @ w), jnp.ones(2), x).tolist()
    [[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    >>> gradient_gram(lambda w, x: jnp.mean(x @ w), jnp.ones(2), x[:2], cosine=False).tolist()
    [[4.0, -6.0], [-6.0, 9.0]]

    With haiku:

    >>> import haiku as hk
    >>> x, y = jnp.ones((8, 3)), jnp.zeros((8, 1))
    >>> model = hk.without_apply_rng(hk.transform(lambda x: hk.nets.MLP([4, 1])(x)))
    >>> params = model.init(jax.random.key(0), x)
    >>> gradient_gram(lambda p, b: jnp.mean((model.apply(p, b[0]) - b[1]) ** 2), params, (x, y)).shape
    (8, 8)

    Lyle et al. 2023 (arXiv 2303.01486), equation 3.
    """
    _require(params, data, memory)
    jax.eval_shape(lambda p, batch: scalar(loss(p, batch)), params, jax.tree.map(lambda x: x[:1], data))
    return _gradient_gram(loss, params, data, bool(cosine), float(memory))


def ntk(model, params, data, outputs="mean", memory=0.5e9):
    """The empirical neural tangent kernel.

        mean: K[i, j] = 1/C sum_c <J_ic, J_jc>,   full: K[i, j, c, d] = <J_ic, J_jd>,   J_ic = d z_c(x_i) / d params

    Args:
      model: (params, x) -> z, a tree of [B, ...]; it is called with batches of one example, and all entries of z, in
        the order of `jax.flatten_util.ravel_pytree`, are its C outputs.
      params: tree of floating arrays.
      data: x, a tree of [k, ...].
      outputs: "mean" | "full".
      memory: as for `gradient_gram`; at least the Jacobians of two examples, 2 C n numbers, are held.

    Returns:
      [k, k] or [k, k, C, C], at least float32.

    Raises:
      ValueError: as `gradient_gram`; outputs that are not floating, an unknown `outputs`.

    >>> K = ntk(lambda w, x: x @ w, jnp.ones((2, 3)), jnp.array([[1.0, 1.0], [0.0, 2.0]]))
    >>> K.tolist()
    [[2.0, 2.0], [2.0, 4.0]]

    Jacot et al. 2018 (arXiv 1806.07572).
    """
    if outputs not in OUTPUTS:
        raise ValueError(f"outputs={outputs!r} is unknown: choose one of {', '.join(OUTPUTS)}.")
    _require(params, data, memory)
    require_floating("what the model returns", jax.eval_shape(model, params, jax.tree.map(lambda x: x[:1], data)))
    return _ntk(model, params, data, outputs, float(memory))


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _gradient_gram(loss, params, data, cosine, memory):
    def rows(example):
        g = jax.grad(loss)(params, jax.tree.map(lambda x: x[None], example))
        return jax.tree.map(lambda x: x[None], _unit_scale(g) if cosine else g)

    gram = _gram(rows, data, memory / _bytes(params))
    if not cosine:
        return gram
    length = jnp.sqrt(jnp.diagonal(gram))
    inverse = jnp.where(length == 0, 0.0, 1.0 / jnp.where(length == 0, 1.0, length))
    return jnp.clip(gram * (inverse[:, None] * inverse), -1.0, 1.0)


def _unit_scale(g):
    """G divided by its largest entry, so that the squares of tiny gradients do not vanish in float32."""
    g = _widen(g)
    largest = functools.reduce(jnp.maximum, [jnp.max(jnp.abs(x)) for x in jax.tree.leaves(g) if x.size])
    return jax.tree.map(lambda x: x / jnp.where(largest > 0, largest, 1.0), g)


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _ntk(model, params, data, outputs, memory):
    def rows(x):
        def flat(p):
            return jax.flatten_util.ravel_pytree(model(p, jax.tree.map(lambda x: x[None], x)))[0]

        jacobian = jax.jacrev(flat)(params)  # leaves [C, ...]
        return jacobian if outputs == "full" else jax.tree.map(lambda x: x[None], jacobian)

    k = count(data)
    z = jax.eval_shape(model, params, jax.tree.map(lambda x: x[:1], data))
    C = tree.size(z)
    gram = _gram(rows, data, memory / (C * _bytes(params)))
    return gram / C if outputs == "mean" else gram.reshape(k, C, k, C).transpose(0, 2, 1, 3)


def _gram(rows, data, held):
    """The inner products of all rows: [k R, k R].

    Args:
      rows: example -> tree of [R, ...].
      data: tree of [k, ...].
      held: examples whose rows fit in memory.
    """
    k = count(data)
    step, steps, blocks = _plan(k, held)

    def compute(start, size):
        i = jnp.minimum(start + jnp.arange(size), k - 1)  # the last block repeats the last example
        some = jax.vmap(rows)(jax.tree.map(lambda x: x[i], data))
        return [x.reshape(-1, math.prod(x.shape[2:])) for x in jax.tree.leaves(_widen(some)) if x.size]  # [s R, ...]

    def block(b, gram):
        first = b * steps * step
        with jax.default_matmul_precision("highest"):
            held = jax.lax.map(lambda t: compute(first + t * step, step), jnp.arange(steps))
        held = [x.reshape(-1, x.shape[-1]) for x in held]  # [m R, ...]
        R = held[0].shape[0] // (steps * step)

        def earlier(t, gram):
            with jax.default_matmul_precision("highest"):
                return jax.lax.dynamic_update_slice(
                    gram, _products(held, compute(t * step, step)), (first * R, t * step * R)
                )

        gram = jax.lax.dynamic_update_slice(gram, _products(held, held), (first * R, first * R))
        # a loop of known length, so that its products can be counted: those that are skipped are counted, too
        return jax.lax.fori_loop(
            0, (blocks - 1) * steps, lambda t, g: jax.lax.cond(t < b * steps, earlier, lambda t, g: g, t, g), gram
        )

    shape = jax.eval_shape(lambda: compute(0, 1))[0]
    size = shape.shape[0] * blocks * steps * step
    gram = jax.lax.fori_loop(0, blocks, block, jnp.zeros((size, size), shape.dtype))
    gram = jnp.tril(gram[: shape.shape[0] * k, : shape.shape[0] * k])
    return gram + jnp.tril(gram, -1).T


def _plan(k, held):
    """Examples of a step, steps of a block, blocks. A step's gradients count twice: they are made, and copied."""
    if 2 * k <= held:
        return k, 1, 1
    step = max(1, min(k, int(held / 5)))
    steps = max(1, min(-(-k // step), int(held / step) - 2))
    blocks = -(-k // (steps * step))
    return -(-k // (blocks * steps)), steps, blocks


def _products(a, b):
    return sum(jnp.einsum("in,jn->ij", x, y, precision="highest") for x, y in zip(a, b, strict=True))


def _widen(a):
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), a)


def _bytes(params):
    return sum(x.size * jnp.promote_types(x.dtype, jnp.float32).itemsize for x in jax.tree.leaves(params))


def _require(params, data, memory):
    require_floating("params", params)
    if is_iterator(data):
        raise ValueError("data must be arrays: every pair of examples is needed, so an iterator will not do.")
    if count(data) is None:
        raise ValueError("data holds no arrays, so that there are no examples to compare.")
    if not memory > 0:
        raise ValueError(f"memory={memory}: give the bytes that gradients may take, such as 0.5e9.")
