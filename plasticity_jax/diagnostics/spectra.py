r"""Singular values of tall matrices, and the five ranks that the field reads off them.

Letters: N rows, U columns, K = min(N, U) singular values, sigma_1 >= ... >= sigma_K >= 0, p_i = sigma_i / sum sigma.

How the singular values are found. The eigenvalues of the Gram matrix are the squares of the singular values, so in
float32 everything below about 3e-4 sigma_1 drowns in rounding: a matrix of rank 1 gets a tail of the size 4e-4, and
srank and effective rank rise with it, most of all on the collapsed features that one wants to detect. A QR
decomposition followed by the singular values of R errs by about 1e-7 sigma_1, like a direct decomposition.

Measured in float32 on one CPU core, one matrix at a time: milliseconds on half-normal entries, and the largest error
against float64, in units of sigma_1, on log-spaced spectra of six decades.

====================  ===========  ===========  ============  ===============
method                [1200, 100]  [2048, 512]  [2048, 1024]  error
====================  ===========  ===========  ============  ===============
QR, then SVD of R     1.2          42           203           2e-7 to 1e-6
SVD                   2.2          51           224           2e-7 to 1e-6
eigenvalues of Gram   0.9          30           166           8e-5 to 1e-4
====================  ===========  ===========  ============  ===============

All ranks differ by nothing but the formula, and give 0 for the zero matrix and NaN where an entry is NaN.
"""

import jax
import jax.numpy as jnp

__all__ = [
    "approximate_rank",
    "effective_rank",
    "feature_rank",
    "ranks_of",
    "singular_values",
    "srank",
    "stable_rank",
]


def singular_values(matrix):
    """Singular values of a matrix, largest first, at full float32 precision.

    Args:
      matrix: [N, U] floating; tall and wide ones cost the same.

    Returns:
      [K] non-negative, descending; NaN if an entry of the matrix is not finite.

    >>> singular_values(jnp.array([[0.0, 2.0], [3.0, 0.0], [0.0, 0.0]])).tolist()
    [3.0, 2.0]
    """
    rows, columns = matrix.shape
    tall = matrix if rows >= columns else matrix.T
    with jax.default_matmul_precision("highest"):
        square = jnp.linalg.qr(tall, mode="r") if rows != columns else tall  # [K, K]
        return jnp.linalg.svd(square, compute_uv=False)


def srank(sigma, delta=0.01):
    r"""Number of singular values that carry all but a share delta of their sum.

    srank = min{k : sum_{i<=k} sigma_i >= (1 - delta) sum_i sigma_i}, counted from the tail: it is the number of k >= 0
    with sum_{i>k} sigma_i > delta sum_i sigma_i, which keeps its precision where the head would round.

    Args:
      sigma: [K] singular values, largest first.
      delta: [] share that may be left out.

    Returns:
      [] float32, 0 to K.

    Kumar et al. 2020, "Implicit Under-Parameterization" (arXiv 2010.14498), section 3. Dohare et al. 2024 call it
    stable rank.

    >>> float(srank(jnp.array([50.0, 49.5, 0.5])))
    2.0
    """
    return _leading(_scaled(sigma), delta)


def approximate_rank(sigma, delta=0.01):
    """Number of singular values that carry all but a share delta of the sum of their squares.

    min{k : sum_{i<=k} sigma_i^2 >= (1 - delta) sum_i sigma_i^2}. Arguments and result as in `srank`.

    Yang et al. 2019, "Harnessing Structures for Value-Based Planning and Reinforcement Learning" (arXiv 1909.12255);
    Dohare et al. 2024 (arXiv 2306.13812).

    >>> float(approximate_rank(jnp.array([10.0, 1.0, 0.1])))
    1.0
    """
    return _leading(jnp.square(_scaled(sigma)), delta)


def effective_rank(sigma):
    """The exponential of the entropy of the normalised singular values: exp(-sum_i p_i ln p_i).

    Args:
      sigma: [K] singular values, in any order.

    Returns:
      [] float32, 1 to K, or 0 for the zero matrix.

    Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality", definition 1.

    >>> round(float(effective_rank(jnp.ones(8))), 4)
    8.0
    """
    scaled = _scaled(sigma)
    total = jnp.sum(scaled)
    entropy = jnp.sum(jax.scipy.special.entr(scaled / total))
    return jnp.where(total == 0, 0.0, jnp.exp(entropy)).astype(jnp.float32)


def stable_rank(sigma):
    """The squared Frobenius norm over the squared spectral norm: sum_i sigma_i^2 / sigma_1^2.

    Args:
      sigma: [K] singular values, largest first.

    Returns:
      [] float32, 1 to K, or 0 for the zero matrix.

    Rudelson & Vershynin 2007, "Sampling from large matrices" (arXiv math/0503442).

    >>> float(stable_rank(jnp.array([2.0, 1.0, 0.0])))
    1.25
    """
    squares = jnp.square(_scaled(sigma))
    largest = jnp.max(squares)
    return jnp.where(largest == 0, 0.0, jnp.sum(squares) / largest).astype(jnp.float32)


def feature_rank(sigma, rows, epsilon=0.01):
    """Number of singular values of Phi / sqrt(rows) above epsilon.

    Unlike the other four it depends on the scale of Phi.

    Args:
      sigma: [K] singular values of Phi, in any order.
      rows: [] number of inputs that Phi was measured on.
      epsilon: [] threshold, in units of an activation's root mean square.

    Returns:
      [] float32, 0 to K.

    Lyle et al. 2022, "Understanding and Preventing Capacity Loss in Reinforcement Learning" (arXiv 2204.09560).

    >>> float(feature_rank(jnp.array([4.0, 1.0]), rows=4, epsilon=0.5))
    1.0
    """
    scaled = sigma / jnp.sqrt(jnp.maximum(rows, 1))
    return _count(scaled > epsilon, sigma)


def ranks_of(sigma, rows, delta=0.01, epsilon=0.01):
    """All five ranks of one spectrum.

    Args:
      sigma: [K] singular values, largest first.
      rows: [] number of rows of the matrix, for `feature_rank`.
      delta: [] for `srank` and `approximate_rank`.
      epsilon: [] for `feature_rank`.

    Returns:
      {name: [] float32}.

    >>> {name: round(float(rank), 3) for name, rank in ranks_of(jnp.ones(3), rows=9).items()}
    {'srank': 3.0, 'effective_rank': 3.0, 'stable_rank': 3.0, 'approximate_rank': 3.0, 'feature_rank': 3.0}
    """
    return {
        "srank": srank(sigma, delta),
        "effective_rank": effective_rank(sigma),
        "stable_rank": stable_rank(sigma),
        "approximate_rank": approximate_rank(sigma, delta),
        "feature_rank": feature_rank(sigma, rows, epsilon),
    }


def _scaled(sigma):
    """Singular values over the power of 2 above the largest: exact, and squares neither overflow nor vanish."""
    _, exponent = jnp.frexp(jnp.max(sigma))
    return jnp.ldexp(sigma, -exponent)


def _leading(values, delta):
    """How many of the leading values it takes to leave out no more than a share delta of the sum."""
    tails = jnp.cumsum(values[::-1])[::-1]  # tails[k] = sum of the values after the first k
    return _count(tails > delta * tails[0], values)


def _count(flags, values):
    """Number of flags as [] float32, NaN where a value is NaN: comparisons would hide it."""
    return jnp.where(jnp.any(jnp.isnan(values)), jnp.nan, jnp.sum(flags)).astype(jnp.float32)
