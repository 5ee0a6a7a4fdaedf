"""In which order examples are drawn: stateless shuffles of any length, at a cost that does not depend on it.

A shuffled epoch is a bijection of [0, n) that is computed position by position, so nothing is sorted or stored, n may
be traced, and the batch at any step can be drawn without those before it. Letters: B examples of a batch.
"""

import jax
import jax.numpy as jnp

from plasticity_jax import check

__all__ = ["ORDERS", "independent", "shuffled", "shuffled_ragged"]

_ROUNDS = 8  # 4 fail tests of uniformity


def shuffled(key, fixed_key, step, n, batch):
    """Rows of an endless chain of permutations: every row once per epoch, batches run across epochs.

    Args:
      key: [] key of this step; not used, the order is a function of `fixed_key` alone.
      fixed_key: [] key of this task.
      step: [] int32 steps since the task began.
      n: number of rows, an int or [] int32, at least `batch`.
      batch: B.

    Returns:
      (rows [B] int32, weight [B] float32 of ones).
    """
    del key
    position = step * batch + jnp.arange(batch)
    return _rows(fixed_key, position // n, position % n, n), jnp.ones(batch)


def shuffled_ragged(key, fixed_key, step, n, batch):
    """As `shuffled`, but an epoch ends with a short batch, as a data loader makes it: the rest has weight 0.

    >>> rows, weight = shuffled_ragged(None, jax.random.key(0), jnp.int32(2), 5, 2)
    >>> weight.tolist()
    [1.0, 0.0]
    """
    del key
    per_epoch = -(-n // batch)
    position = (step % per_epoch) * batch + jnp.arange(batch)
    epoch = jnp.full(batch, step // per_epoch)
    return _rows(fixed_key, epoch, jnp.minimum(position, n - 1), n), (position < n).astype(jnp.float32)


def independent(key, fixed_key, step, n, batch):
    """Rows drawn independently and uniformly, with replacement."""
    del fixed_key, step
    return jax.random.randint(key, (batch,), 0, n), jnp.ones(batch)


ORDERS = {"shuffled": shuffled, "shuffled_ragged": shuffled_ragged, "independent": independent}


def check_order(order, n, batch):
    """A known order, and a batch that fits into the examples of a task."""
    check.known("order", order, ORDERS)
    check.whole("batch", batch)
    if batch > n:
        raise ValueError(f"batch={batch}, but a task has {n} examples: choose a batch of at most {n}.")


def _rows(key, epoch, position, n):
    """Bijections of [0, n), one per epoch, at `position` [B]; a batch reaches into at most two epochs."""
    first = epoch[0]
    words = jax.vmap(lambda e: jax.random.bits(jax.random.fold_in(key, e), (_ROUNDS,)))(first + jnp.arange(2))
    words = jnp.where((epoch == first)[:, None], words[0], words[1])  # [B, rounds] uint32
    return _bijection(words, position.astype(jnp.uint32), jnp.asarray(n, jnp.uint32)).astype(jnp.int32)


def _bijection(words, position, n):
    """A Feistel network on the grid [side, rows] that just covers [0, n), walked until it lands inside.

    Halves are added modulo their size, so the grid exceeds n by less than one side and the walk is almost always over
    after one round trip; a network on bits would leave up to three quarters of its range outside.
    """
    side = jnp.ceil(jnp.sqrt(n.astype(jnp.float32))).astype(jnp.uint32)
    rows = (n + side - 1) // side

    def once(value):
        low, high = value % side, value // side
        for i in range(0, _ROUNDS, 2):
            low = (low + _hash(high, words[:, i])) % side
            high = (high + _hash(low, words[:, i + 1])) % rows
        return high * side + low

    def walk(value):
        return jnp.where(value >= n, once(value), value)

    return jax.lax.while_loop(lambda value: jnp.any(value >= n), walk, once(position))


def _hash(value, word):
    """A 32-bit mixer (the finaliser of MurmurHash3, keyed), cut to 24 bits so that sums cannot overflow."""
    value = (value ^ word) * jnp.uint32(0x85EBCA6B)
    value = (value ^ (value >> 13)) * jnp.uint32(0xC2B2AE35)
    return (value ^ (value >> 16)) & jnp.uint32(0xFFFFFF)
