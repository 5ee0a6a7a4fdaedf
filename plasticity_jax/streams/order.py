"""In which order examples are drawn: stateless shuffles of any length, at a cost that does not depend on it.

A shuffled epoch is a bijection of [0, n) that is computed position by position, so nothing is sorted or stored, n may
be traced, and the batch at any step can be drawn without those before it. Letters: B examples of a batch.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from plasticity_jax import check

__all__ = ["ORDERS", "check_order", "independent", "mixed", "scrambled", "shuffled", "shuffled_ragged", "words"]

_ROUNDS = 16  # 8 are enough from some 20 rows on, 16 pass tests of uniformity down to 5


def words(key):
    """What the order of one task is computed from: [16] uint32, drawn once when the task begins.

    Drawing from a key at every step costs a CPU more than the matrix products of a small network do.
    """
    return jax.random.bits(key, (_ROUNDS,))


def shuffled(words, step, n, batch):
    """Rows of an endless chain of permutations: every row once per epoch, batches run across epochs.

    Args:
      words: [16] uint32 from `words`.
      step: [] int32 steps since the task began.
      n: number of rows, an int or [] int32, at least 1.
      batch: B.

    Returns:
      (rows [B] int32, weight [B] float32 of ones).
    """
    position = step * batch + jnp.arange(batch)
    return _rows(words, position // n, position % n, n), jnp.ones(batch)


def shuffled_ragged(words, step, n, batch):
    """As `shuffled`, but an epoch ends with a short batch, as a data loader makes it: the rest has weight 0.

    >>> rows, weight = shuffled_ragged(words(jax.random.key(0)), jnp.int32(2), 5, 2)
    >>> weight.tolist()
    [1.0, 0.0]
    """
    per_epoch = -(-n // batch)
    position = (step % per_epoch) * batch + jnp.arange(batch)
    epoch = jnp.full(batch, step // per_epoch)
    return _rows(words, epoch, jnp.minimum(position, n - 1), n), (position < n).astype(jnp.float32)


def mixed(n, size):
    """One fixed shuffle, the same always: rows of a sample for evaluation.

    Data sets are often sorted, by class or by who wrote a digit: the first rows are no sample of all.

    Args:
      n: number of rows. An int, or [] int32 that is at most `size`.
      size: an int; at most n, where n is an int.

    Returns:
      [size] int32: `size` of the rows [0, n), or all n of them and then the last one again and again.

    >>> sorted(mixed(5, 5).tolist()), sorted(mixed(jnp.int32(3), 5).tolist())
    ([0, 1, 2, 3, 4], [0, 1, 2, 2, 2])
    """
    draw = np.random.default_rng(0)
    if isinstance(n, int):
        return draw.permutation(n)[:size].astype(np.int32)
    # a sort, though of known numbers, for it is quick to compile
    ranks = jnp.where(np.arange(size) < n, draw.random(size), 2.0)
    return jnp.minimum(jnp.argsort(ranks), n - 1).astype(jnp.int32)


def independent(words, step, n, batch):
    """Rows drawn independently and uniformly, with replacement."""
    position = (step * batch + jnp.arange(batch)).astype(jnp.uint32)
    return (scrambled(words, position) % jnp.uint32(n)).astype(jnp.int32), jnp.ones(batch)


ORDERS = {"shuffled": shuffled, "shuffled_ragged": shuffled_ragged, "independent": independent}


def check_order(order, n, batch, steps):
    """A known order, a batch that fits into the examples of a task, and no more draws than int32 can count."""
    check.known("order", order, ORDERS)
    check.whole("batch", batch)
    if batch > n:
        raise ValueError(f"batch={batch}, but a task has {n} examples: choose a batch of at most {n}.")
    check.whole("steps", steps)
    if steps * batch >= 2**31:
        raise ValueError(f"steps={steps} with batch={batch} draws 2^31 examples or more in a task: make it shorter.")


def _rows(words, epoch, position, n):
    """Bijections of [0, n), one per epoch, at `position` [B]."""
    epoch = epoch.astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    keys = [_mix(_mix(words[i] + epoch) ^ words[(i + 1) % _ROUNDS]) for i in range(_ROUNDS)]  # of [B]
    return _bijection(keys, position.astype(jnp.uint32), n).astype(jnp.int32)


def _bijection(keys, position, n):
    """A Feistel network on the grid [side, rows] that just covers [0, n), walked until it lands inside.

    Halves are added modulo their size, so the grid exceeds n by less than one side and the walk is almost always over
    after one round trip; a network on bits would leave up to three quarters of its range outside. Where n is known and
    is a product of two numbers of about one size, the grid is n itself and nothing is left to walk.
    """
    exact = _grid(n) if isinstance(n, int) else None
    n = jnp.asarray(n, jnp.uint32)
    side = jnp.uint32(exact) if exact else jnp.ceil(jnp.sqrt(n.astype(jnp.float32))).astype(jnp.uint32)
    rows = (n + side - 1) // side

    def once(value):
        low, high = value % side, value // side
        for i in range(0, _ROUNDS, 2):
            low = (low + _cut(_mix(high ^ keys[i]))) % side
            high = (high + _cut(_mix(low ^ keys[i + 1]))) % rows
        return high * side + low

    if exact:
        return once(position)

    def walk(value):
        return jnp.where(value >= n, once(value), value)

    return jax.lax.while_loop(lambda value: jnp.any(value >= n), walk, once(position))


def _grid(n):
    """The divisor of n that is nearest to its root from above, if the other one is at most 4 times smaller."""
    root = math.isqrt(n - 1) + 1
    return next((side for side in range(root, 2 * root + 1) if n % side == 0), None)


def _cut(value):
    """The upper 24 bits: sums with them cannot overflow."""
    return value >> 8


def scrambled(words, value):
    """Random bits [...] uint32, as fixed by the place `value` [...] uint32; two of the words [even] make a round."""
    for i in range(0, len(words), 2):
        value = _mix((value ^ words[i]) + words[i + 1])
    return value


def _mix(value):
    """A bijection of 32-bit words that spreads every bit over all others: the finaliser of MurmurHash3."""
    value = (value ^ (value >> 16)) * jnp.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * jnp.uint32(0xC2B2AE35)
    return value ^ (value >> 16)
