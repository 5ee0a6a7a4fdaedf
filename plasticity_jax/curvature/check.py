"""Does an operator keep its promises? A function of its vector, linear, symmetric, finite, and a mean over examples."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.curvature.data import count
from plasticity_jax.curvature.means import HostMean, Mean

__all__ = ["Check", "check_operator"]

EXAMPLES = 512  # of the loss whose halves are compared, at most
LOSS_TOLERANCE = 1e-4
ROUNDING = 1e5  # eps of the loss: smaller ones are compared to this


class Check(NamedTuple):
    """What `check_operator` measured, with u and v random: floats.

    The factor sqrt(n) makes the figures of any dimension alike: two random vectors are almost orthogonal, so that
    without it a matrix of a million rows would pass for symmetric whatever it is.

    repeat: |A u - (A u computed again)| / |A u|.
    linearity: |A (2 u - 3 v) - 2 A u + 3 A v| / (2 |A u| + 3 |A v|).
    symmetry: sqrt(n) |u.A v - v.A u| / (|u| |A v|).
    lowest: the smaller of sqrt(n) u.A u / (|u| |A u|) and the same of v; an operator without negative eigenvalues has
      about 1 or more.
    loss_gap: |loss of a batch - weighted mean of the losses of its halves| / max(|loss|, weighted mean of the halves'
      |loss|, 1e5 eps), eps the rounding of the loss, 1.2e-7 in float32, and no bound above 1; None where no loss is
      known, as in `operator`, or where the data are a single example.
    """

    repeat: float
    linearity: float
    symmetry: float
    lowest: float
    loss_gap: float | None


def check_operator(A, key, tolerance=1e-4):
    """Check that an operator is what the algorithms here take it for; four products, not under jit.

    That `lowest` passes does not prove A.psd, it is measured on two vectors: eigenpairs(A, which="SA") decides. A loss
    whose random numbers or statistics are the same for every batch passes: they are a part of it.

    Args:
      A: Operator; the losses inside sums, multiples and blocks are found.
      key: for the two vectors.
      tolerance: on all figures but the gap of the loss, which may be 1e-4. Products of bfloat16 parameters need about
        3e-2, finite differences 1e-2.

    Returns:
      Check.

    Raises:
      ValueError: a figure out of bounds, with the figure and what can be done; or NaN or infinity in the parameters,
        the loss or a product.

    >>> from plasticity_jax.curvature.matrices import hessian
    >>> x = jnp.arange(6.0).reshape(3, 2)
    >>> check_operator(hessian(lambda w, x: jnp.mean((x @ w) ** 2), jnp.ones(2), x), jax.random.key(0)).repeat
    0.0
    >>> wrong = hessian(lambda w, x: jnp.sum((x @ w) ** 2), jnp.ones(2), x)
    >>> check_operator(wrong, jax.random.key(0))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ValueError: The loss of 3 examples is 107, but the weighted mean of its halves is 71: ...
    """
    gaps = [_loss_gap(*each) for each in _means(A.prepare, A.args)]
    u, v = (A.random(k) for k in jax.random.split(key))
    product = _compiled(A)
    Au, Av = product(u), product(v)
    for x in (Au, Av):
        _require_finite(
            "a product", x, "The loss is finite where it is known: look for sqrt, log or a norm at 0 in its derivatives"
        )
    Aw = product(tree.axpy(2.0, u, tree.scale(-3.0, v)))
    Aw_expected = tree.axpy(2.0, Au, tree.scale(-3.0, Av))
    root = float(A.size) ** 0.5
    found = Check(
        repeat=_ratio(tree.norm(tree.subtract(_compiled(A)(u), Au)), tree.norm(Au)),
        linearity=_ratio(tree.norm(tree.subtract(Aw, Aw_expected)), 2 * tree.norm(Au) + 3 * tree.norm(Av)),
        symmetry=root * _ratio(abs(tree.dot(u, Av) - tree.dot(v, Au)), tree.norm(u) * tree.norm(Av)),
        lowest=root * min(_ratio(tree.dot(x, Ax), tree.norm(x) * tree.norm(Ax)) for x, Ax in ((u, Au), (v, Av))),
        loss_gap=max((gap for gap in gaps if gap is not None), default=None),
    )
    _require_within(A, found, tolerance)
    return found


def _compiled(A):
    """The product as a program of its own, traced anew, so that what is drawn while tracing differs."""
    if A.host:
        return A.product()
    compiled = jax.jit(lambda A, v: A.product()(v))
    return lambda v: compiled(A, v)


def _require_within(A, found, tolerance):
    """Raise for the first figure that is out of bounds."""
    rounding = "If this is rounding (bfloat16, finite differences, matrix products of low precision), raise `tolerance`"
    faults = (
        (
            not found.repeat <= tolerance,
            f"Two products with one vector differ by {found.repeat:.1e} of their length: the loss depends on more than "
            "its arguments. Draw no numbers from numpy.random and keep no counters inside; pass a fixed jax key.",
        ),
        (
            not found.linearity <= tolerance,
            f"The product is not linear: A (2 u - 3 v) misses 2 A u - 3 A v by {found.linearity:.1e}. {rounding}; "
            "otherwise use the derivative of your function at a point (jax.linearize).",
        ),
        (
            not found.symmetry <= tolerance,
            f"The product is not symmetric: u.A v and v.A u differ by {found.symmetry:.1e} of |A v|. A custom "
            f"derivative such as a reversed gradient does that. {rounding}; otherwise pass (A + A^T) / 2.",
        ),
        (
            A.psd and not found.lowest >= -tolerance,
            f"The operator claims to have no negative eigenvalue, but v.A v is {found.lowest:.1e} of |A v|: pass "
            "psd=False, or an output_loss that is convex in the outputs of the model.",
        ),
    )
    for failed, text in faults:
        if failed:
            raise ValueError(text)


def _means(prepare, args):
    """Every mean over data that an operator is made of, with its arguments."""
    if isinstance(prepare, Mean | HostMean):
        yield prepare, args
    for part in getattr(prepare, "parts", lambda args: ())(args):
        yield from _means(*part)


def _loss_gap(mean, args):
    """The relative gap between the loss of a batch and that of its halves; raises where it is too large."""
    params = args[0]
    _require_finite("the parameters", params, "Take them from a run that has not diverged")
    batch = _some(mean, args)
    size = count(batch)
    with jax.default_matmul_precision("highest"):
        value = _loss(mean.one)
        whole = value(params, batch)
        _require_finite("the loss", whole, "Look at the data, and for log(0) and overflow")
        if size is None or size < 2:
            return None
        halves = [jax.tree.map(lambda x, at=at: x[at], batch) for at in (slice(size // 2), slice(size // 2, None))]
        parts = [float(value(params, half)) * count(half) / size for half in halves]
    split = sum(parts)
    # the logits behind a loss near 0 are rounded, and differently in batches of another size: an absolute error
    least = min(1.0, ROUNDING * float(jnp.finfo(whole.dtype).eps))
    gap = abs(float(whole) - split) / max(abs(float(whole)), sum(map(abs, parts)), least)
    if not gap <= LOSS_TOLERANCE:
        raise ValueError(
            f"The loss of {size} examples is {float(whole):.6g}, but the weighted mean of its halves is {split:.6g}: "
            "it is not a mean over examples, and the matrix would depend on the batch size. Divide a sum by the number "
            "of examples, evaluate batch norm with stored statistics and dropout switched off or with a mask that is "
            "part of the data."
        )
    return gap


def _some(mean, args):
    """One microbatch, of two examples at least and EXAMPLES at most."""
    if isinstance(mean, HostMean):
        batch, limit = next(iter(mean.batches()), None), EXAMPLES
    else:
        batch, limit = args[1], EXAMPLES if mean.microbatch is None else min(EXAMPLES, max(2, mean.microbatch))
    return jax.tree.map(lambda x: x[:limit], batch)


def _loss(one):
    """(params, batch) -> [] that should be a mean: the loss; a mean of the outputs where only a model is known."""
    one = getattr(one, "losses", one)
    if hasattr(one, "loss"):
        return one.loss
    if hasattr(one, "output_loss"):
        return lambda params, batch: one.output_loss(one.model(params, batch[0]), batch[1])
    return lambda params, batch: jnp.mean(jax.nn.softplus(one.model(params, batch[0])))


def _require_finite(what, value, remedy):
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        if not bool(jnp.isfinite(leaf).all()):
            at = f" at {tree.path_name(path)}" if path else ""
            raise ValueError(f"Not finite: {what}{at}. {remedy}.")


def _ratio(a, b):
    return float(a) / float(b) if float(b) > 0 else float(a)
