r"""Trace, diagonal, Frobenius norm and log-determinant of an operator from random probes, each with its error.

Letters: n dimension of the operator, p probes, k Lanczos steps. v: a random vector of independent entries with mean 0
and variance 1, so that E[v v^T] = I.

| number | estimator | which operators |
|---|---|---|
| trace, "hutchinson" | mean of v . A v; error sqrt(2/p) |A - diag A|_F | any; flat or indefinite: Hessians |
| trace, "xtrace" | exact on the range of A V, Hutchinson on the rest | decaying: Gauss-Newton, Fisher, covariance |
| diagonal | mean of v * A v | where the diagonal stands out of its row |
| Frobenius norm | root of the mean of |A v|^2 | any |
| log-determinant | Lanczos quadrature of log | positive definite after the shift |

For 60 products with the Gauss-Newton matrix of an MLP (899 parameters) XTrace has a twentieth of Hutchinson's error,
with its Hessian the same. Where n <= matvecs the first four take unit vectors instead: exact, sem 0. A mask
(`Operator.restrict`) counts: what it removes adds nothing.
"""

import functools
import warnings

import jax
import jax.flatten_util
import jax.numpy as jnp

from plasticity_jax import tree
from plasticity_jax.curvature import rows
from plasticity_jax.curvature.estimate import Estimate, estimate, jackknife, length
from plasticity_jax.curvature.require import require_counts, require_key, require_operator

__all__ = ["diagonal", "frobenius_norm", "logdet", "trace"]

METHODS = ("hutchinson", "xtrace")
SINGULAR = 1e-5  # smallest over largest eigenvalue below which quadrature of the logarithm is not to be trusted


def trace(A, method="hutchinson", matvecs=64, *, key, sampler=None, probe_batch=1):
    r"""The trace of an operator.

    "hutchinson": tr A = E[v . A v]; sem from the p = matvecs probes. "xtrace": with Q an orthonormal basis of A V,
    tr(Q^T A Q) plus Hutchinson on the rest, averaged over leaving out each of the (matvecs - 1) // 2 columns of V; its
    sem treats these as independent, so that its intervals cover about 91% instead of 95%. It stores four matrices of
    n x matvecs / 2, and one product more sets the scale.

    Args:
      A: Operator of dimension n.
      method: "hutchinson" | "xtrace", see the table above; the latter needs `pip install "plasticity_jax[curvature]"`.
      matvecs: int >= 1 (xtrace: >= 5), products to spend at most. With n or more of them, and no mask, exact.
      key: random key.
      sampler: (key, shape, dtype) -> independent entries of mean 0 and variance 1. None: signs, which have the least
        variance, and for xtrace normal numbers, which alone allow its rescaling of probes ("resphering").
      probe_batch: products computed side by side; more than 1 pays on accelerators with small networks. Ignored by
        xtrace and for data from an iterator.

    Returns:
      Estimate of [].

    Raises:
      ValueError: an unknown method, too few products; xtrace of an operator with data from an iterator.
      ImportError: xtrace without matfree.

    Hutchinson 1990; Epperly, Tropp & Webber 2024, "XTrace" (arXiv 2301.07825), algorithm 1.2 and section 2.4. By
    matfree, with two deviations: the operator is scaled to eigenvalues of root mean square 1, because matfree's test
    for rank is absolute and returns a tenth of the trace of 1e-9 I; and the sem divides by p - 1.

    >>> from plasticity_jax.curvature.operators import operator
    >>> A = operator(lambda v: jnp.roll(v, 1) + jnp.roll(v, -1) + 3 * v, like=jnp.zeros(100))
    >>> r = trace(A, matvecs=64, key=jax.random.key(0))
    >>> bool(abs(r.value - 300) < r.margin), int(r.matvecs)
    (True, 64)
    """
    if method not in METHODS:
        raise ValueError(f"method={method!r} is unknown: choose one of {', '.join(METHODS)}.")
    _require(A, matvecs, key, probe_batch)
    if _small(A, matvecs):
        return _exactly(jnp.sum(_samples(A, None, _quadratic, None, probe_batch)), A.size)
    if method == "xtrace":
        return _xtrace(A, matvecs, key, sampler)
    keys = jax.random.split(key, matvecs)
    return estimate(_samples(A, keys, _quadratic, sampler or jax.random.rademacher, probe_batch), matvecs)


def diagonal(A, matvecs=64, *, key, probe_batch=1):
    r"""The diagonal of an operator: A_ii = E[v_i (A v)_i] for random signs v.

    The variance of entry i is the sum of the squares of the other entries of its row, over p. Mean and variance are
    updated from probe to probe (Chan, Golub & LeVeque 1983), so that memory is that of four vectors.

    Args:
      A: Operator of dimension n.
      matvecs: int >= 1, products to spend at most; exact for n or more of them and no mask.
      key: random key.
      probe_batch: as for `trace`.

    Returns:
      Estimate whose value, sem and margin are trees like a vector; the interval holds entry by entry.

    Raises:
      ValueError: matvecs or probe_batch below 1.

    Bekas, Kokiopoulou & Saad 2007, "An estimator for the diagonal of a matrix".

    >>> from plasticity_jax.curvature.operators import operator
    >>> A = operator(lambda v, d: d * v + jnp.sum(v), like=jnp.zeros(3), args=(jnp.array([1.0, 2.0, 3.0]),))
    >>> diagonal(A, key=jax.random.key(0)).value.tolist()
    [2.0, 3.0, 4.0]
    """
    _require(A, matvecs, key, probe_batch)
    if _small(A, matvecs):
        return _exactly(_unravel(A)(_samples(A, None, _quadratic, None, probe_batch)), A.size)
    mean, deviation = _moments(A, jax.random.split(key, matvecs), probe_batch)
    unit = estimate(jnp.arange(matvecs), matvecs)  # any sample of this size: only its quantile is used
    scale = (matvecs * (matvecs - 1)) ** -0.5 if matvecs > 1 else jnp.nan
    sem = tree.scale(scale, deviation)
    return Estimate(mean, sem, tree.scale(unit.margin / unit.sem, sem), unit.matvecs)


def frobenius_norm(A, matvecs=64, *, key, sampler=None, probe_batch=1):
    r"""The Frobenius norm of an operator, the root of the sum of its squared eigenvalues: |A|_F = sqrt(E[|A v|^2]).

    The error is that of the root, by the jackknife. The square, tr(A^2), gives the participation ratio
    tr(A)^2 / tr(A^2).

    Args:
      A: Operator of dimension n.
      matvecs: int >= 1, products to spend at most; exact for n or more of them and no mask.
      key: random key.
      sampler, probe_batch: as for `trace`.

    Returns:
      Estimate of [].

    Raises:
      ValueError: matvecs or probe_batch below 1.

    >>> from plasticity_jax.curvature.operators import operator
    >>> A = operator(lambda v, d: d * v, like=jnp.zeros(2), args=(jnp.array([3.0, -4.0]),))
    >>> float(frobenius_norm(A, key=jax.random.key(0)).value)
    5.0
    """
    _require(A, matvecs, key, probe_batch)
    if _small(A, matvecs):
        return _exactly(length(_samples(A, None, _length, None, probe_batch)), A.size)
    keys = jax.random.split(key, matvecs)
    lengths = _samples(A, keys, _length, sampler or jax.random.rademacher, probe_batch)
    whole = length(lengths)
    shares = jnp.square(lengths / jnp.where(whole > 0, whole, 1))
    others = whole * jnp.sqrt(jnp.maximum(1 - shares, 0) / max(matvecs - 1, 1))
    return jackknife(whole / matvecs**0.5, others, matvecs)


def logdet(A, shift=0.0, steps=64, probes=8, *, key, probe_batch=1):
    r"""The logarithm of the determinant of A + shift I, by stochastic Lanczos quadrature.

    log det(A + c I) = sum_i log(lambda_i + c). Two errors: that of the probes, which `sem` measures; and that of the
    quadrature, of which it knows nothing and which grows without bound where lambda + c comes close to 0. For the
    latter, the change from steps / 2 to steps is added to `margin`. A nearly singular matrix is one for which no number
    of products helps: choose a larger shift.

    Args:
      A: Operator of dimension n.
      shift: [] float, c.
      steps: int >= 2, Lanczos steps.
      probes: int, random vectors; steps * probes products.
      key, probe_batch: as for `slq`.

    Returns:
      Estimate of []. The value is NaN where the spectrum of A + c I reaches 0 or below: under jit this is the flag.

    Warns:
      UserWarning: outside of jit and vmap, where the spectrum reaches 0, where the smallest eigenvalue is below 1e-5 of
        the largest, and where the change from steps / 2 to steps is larger than 3 sem.

    Raises:
      ValueError: fewer than 2 steps.

    Ubaru, Chen & Saad 2017, "Fast estimation of tr(f(A)) via stochastic Lanczos quadrature", section 4.
    """
    from plasticity_jax.curvature.slq import slq
    from plasticity_jax.curvature.spectrum import spectral_sum

    require_counts(steps=steps)
    if steps < 2:
        raise ValueError(f"steps={steps}: choose at least 2.")
    s = slq(A, steps=steps, probes=probes, key=key, probe_batch=probe_batch)
    whole = spectral_sum(s, lambda x: jnp.log(x + shift))
    bias = jnp.abs(whole.value - spectral_sum(_halved(s), lambda x: jnp.log(x + shift)).value)
    low, high = (x + shift for x in _extremes(s))
    whole = whole._replace(
        value=jnp.where(low > 0, whole.value, jnp.nan),
        margin=jnp.where(jnp.isfinite(bias), whole.margin + bias, jnp.inf),
    )
    if not isinstance(low, jax.core.Tracer):
        _warn(float(low), float(high), float(bias), max(3 * float(whole.sem), 1e-4 * float(s.size)), s.nodes.shape[1])
    return whole


def _warn(low, high, bias, allowed, steps):
    if low <= 0:
        reason = f"reaches {low:.3g}: the matrix is not positive definite and the result is NaN. Use a larger shift."
    elif low < SINGULAR * high:
        reason = f"reaches from {low:.3g} to {high:.3g}: the quadrature is biased by more than sem. Use a larger shift."
    elif bias > allowed:
        moves = f"from {steps // 2} to {steps} steps the result moves by {bias:.3g}"
        reason = f"is not resolved: {moves}. Use more steps or a larger shift."
    else:
        return
    warnings.warn(f"logdet: the spectrum of A + shift I {reason}", UserWarning, stacklevel=3)


def _halved(s):
    """The quadratures after half of the steps."""
    steps = max(s.alphas.shape[1] // 2, 1)
    alphas, betas = s.alphas[:, :steps], s.betas[:, : steps - 1]
    matrix = jax.vmap(lambda a, b: jnp.diag(a) + jnp.diag(b, 1) + jnp.diag(b, -1))(alphas, betas)
    nodes, vectors = jnp.linalg.eigh(matrix)
    weights = jnp.square(vectors[:, 0, :])
    return s._replace(nodes=nodes, weights=weights, live=weights > 0, alphas=alphas, betas=s.betas[:, :steps])


def _extremes(s):
    """The smallest and the largest eigenvalue that any probe has seen."""
    live = s.live & (s.weights > 0)
    low = jnp.min(jnp.where(live, s.nodes, jnp.inf), initial=jnp.min(s.deflated, initial=jnp.inf))
    high = jnp.max(jnp.where(live, s.nodes, -jnp.inf), initial=jnp.max(s.deflated, initial=-jnp.inf))
    return low, high


def _xtrace(A, matvecs, key, sampler):
    """The trace by matfree's XTrace."""
    pairs = (matvecs - 1) // 2
    if pairs < 2:
        raise ValueError(f'matvecs={matvecs}: "xtrace" needs at least 5.')
    if A.host:
        raise ValueError('"xtrace" needs data in memory: choose method="hutchinson" for data from an iterator.')
    try:
        import matfree.stochtrace  # noqa: F401
    except ImportError as error:
        raise ImportError('trace(method="xtrace") needs matfree: pip install "plasticity_jax[curvature]".') from error
    values = _leave_one_out(A, key, sampler or jax.random.normal, pairs)
    return estimate(values, 2 * pairs + 1)


@functools.partial(jax.jit, static_argnames=("sampler", "pairs"))
def _leave_one_out(A, key, sampler, pairs):
    """XTrace without each of the probes in turn: [pairs]. Under vmap one operator after another.

    Side by side they would need 4 n x pairs numbers each, and programs with many QR decompositions side by side hang on
    CPUs of two threads (jaxlib 0.10.2).
    """
    one = functools.partial(_xtrace_samples, sampler=sampler, pairs=pairs)
    return jax.custom_batching.sequential_vmap(one)(A, key)


def _xtrace_samples(A, key, sampler, pairs):
    from matfree import stochtrace

    first, rest = jax.random.split(key)
    product, v = A.product(), A.random(first)
    scale = rows.norm(product(v)) / rows.norm(v)
    scale = jnp.where(scale > 0, scale, 1.0)  # NaN compares false too, and comes back with the samples
    probes = jax.vmap(lambda k: A.random(k, sampler))(jax.random.split(rest, pairs))
    resphering = sampler is jax.random.normal and A.mask is None  # it counts masked entries as directions
    if sampler is jax.random.normal and A.mask is not None:  # so there the probes get one length beforehand
        probes = jax.vmap(lambda v: tree.scale(jnp.sqrt(A.size) / jnp.maximum(tree.norm(v), 1e-30), v))(probes)
    with jax.default_matmul_precision("highest"):
        samples = stochtrace.leave_one_out_xtrace(apply_resphering=resphering)
        return scale * samples(_one_at_a_time(lambda v: rows.unit(product(v), scale)), probes)


def _one_at_a_time(f):
    """The function f, whose vmap is a loop that shares all that f has computed beforehand."""
    sequential = jax.custom_batching.custom_vmap(f)
    sequential.def_vmap(lambda size, batched, v: (jax.lax.map(f, v), jax.tree.map(lambda _: True, v)))
    return sequential


def _samples(A, keys, statistic, sampler, probe_batch):
    """statistic(v, A v) for each probe: [p]. Without keys, for each unit vector: [n]."""
    draws = jnp.arange(A.size) if keys is None else keys
    if not A.host:
        return _mapped(A, draws, statistic, sampler, probe_batch)
    product = A.product()
    vectors = (_draw(A, draw, sampler) for draw in draws)
    return jnp.stack([statistic(v, product(v)) for v in vectors])


@functools.partial(jax.jit, static_argnames=("statistic", "sampler", "probe_batch"))
def _mapped(A, draws, statistic, sampler, probe_batch):
    product = A.product()

    def one(draw):
        v = _draw(A, draw, sampler)
        return statistic(v, product(v))

    return jax.lax.map(one, draws, batch_size=probe_batch if probe_batch > 1 else None)


def _moments(A, keys, probe_batch):
    """Mean of v * A v over random signs, and the root of the sum of squared deviations: trees like a vector."""
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), A.like)
    state = (jnp.int32(0), zeros, zeros)
    if not A.host:
        return _scanned(A, keys, state, probe_batch)[1:]
    product = A.product()
    for key in keys:
        state = _merge(state, _entries(A, product, key[None]))
    return state[1:]


@functools.partial(jax.jit, static_argnames="probe_batch")
def _scanned(A, keys, state, probe_batch):
    product = A.product()
    full, rest = divmod(len(keys), probe_batch)
    groups = keys[: full * probe_batch].reshape(full, probe_batch, *keys.shape[1:])
    state, _ = jax.lax.scan(lambda state, keys: (_merge(state, _entries(A, product, keys)), None), state, groups)
    return _merge(state, _entries(A, product, keys[full * probe_batch :])) if rest else state


def _entries(A, product, keys):
    """The products v * A v for each key: trees of [b, ...]."""

    def one(key):
        v = A.random(key, jax.random.rademacher)
        return jax.tree.map(jnp.multiply, v, product(v))

    if len(keys) == 1:  # a vmap over one probe is slower than none
        return jax.tree.map(lambda x: x[None], one(keys[0]))
    return jax.vmap(one)(keys)


def _merge(state, samples):
    """Count, mean and root of the sum of squared deviations of the samples so far and of [b, ...] more."""
    count, mean, deviation = state
    more = jax.tree.leaves(samples)[0].shape[0]
    share = more / (count + more)
    centre = jax.tree.map(lambda x: jnp.mean(x, 0), samples)
    within = jax.tree.map(lambda x, m: length(x - m), samples, centre)
    step = tree.subtract(centre, mean)
    mean = jax.tree.map(lambda m, d: m + share.astype(m.dtype) * d, mean, step)
    root = jnp.sqrt(share * count)
    deviation = jax.tree.map(
        lambda s, w, d: jnp.hypot(jnp.hypot(s, w), root.astype(s.dtype) * d), deviation, within, step
    )
    return count + more, mean, deviation


def _draw(A, draw, sampler):
    """The random vector of a key; without a sampler, the unit vector of an index."""
    if sampler is not None:
        return A.random(draw, sampler)
    return _unravel(A)(jnp.zeros(A.size, _flat_dtype(A)).at[draw].set(1))


def _exactly(value, matvecs):
    """What all unit vectors give: no error."""
    zeros = jax.tree.map(jnp.zeros_like, value)
    return Estimate(value, zeros, zeros, jnp.asarray(matvecs, jnp.int32))


def _small(A, matvecs):
    """Whether there are products enough for all unit vectors."""
    return isinstance(A.size, int) and A.size <= matvecs


def _unravel(A):
    return jax.flatten_util.ravel_pytree(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), A.like))[1]


def _flat_dtype(A):
    return jnp.result_type(*jax.tree.leaves(A.like))


def _quadratic(v, product):
    return tree.dot(v, product)


def _length(v, product):
    return rows.norm(product)


def _require(A, matvecs, key, probe_batch):
    require_operator("An estimator", A)
    require_key("An estimator", key)
    require_counts(matvecs=matvecs, probe_batch=probe_batch)
