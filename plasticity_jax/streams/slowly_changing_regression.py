"""Slowly-Changing Regression of Dohare et al. 2024: a fixed function of bits, of which most change only between tasks.

Letters: m inputs, f slow ones, H units of the target network, B examples of a batch.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from plasticity_jax import check
from plasticity_jax.base import Array, Stream
from plasticity_jax.keys import Purpose, for_step
from plasticity_jax.streams import order as orders
from plasticity_jax.streams.images import batch_of

__all__ = ["slowly_changing_regression", "target"]

CHANGES = ("flip", "redraw")
WEIGHTS, BIASES, READOUT, OFFSET = range(4)  # what the key of a run is folded with
SLOW, ORDER = range(2)  # what the key of a task is folded with
MOST_FAST = 30  # bits whose combinations an int32 can count


class BitsState(NamedTuple):
    """One task of one run."""

    slow: Array  # [f] float32 of 0 and 1
    order: Array  # [16] uint32 what the fast bits are computed from
    weights: Array  # [m, H] of the target network, +1 or -1; these and the following are constant for ever
    biases: Array  # [H]
    readout: Array  # [H]
    offset: Array  # []


def slowly_changing_regression(
    steps: int = 10_000,
    batch: int = 1,
    inputs: int = 20,
    slow: int = 15,
    units: int = 100,
    beta: float = 0.7,
    change: str = "flip",
    evaluation: int = 2_048,
):
    """Regression onto a fixed network with threshold units, at inputs whose first f bits change from task to task.

    x [m] has f slow bits, the same for a whole task, and m - f fast ones, drawn uniformly for every example. The target
    is `target`(x). Dohare et al. 2024 (Nature 632:768, arXiv 2306.13812): m = 20, f = 15, tasks of 10,000 steps of one
    example, 100 units, beta = 0.7; there a learner with 5 hidden units learns by squared error. It has biases of its
    own: the inputs have no constant bit. The data set is not read: `none` will do.

    Args:
      steps: optimizer steps of a task.
      batch: B.
      inputs: m.
      slow: f, from 1 to m - 1.
      units: H.
      beta: how rarely a unit fires: it must have a share beta of its m + 1 inputs as it wants them.
      change: what a new task does to the slow bits: "flip" one of them, as the text says and their flip_one_prob.json,
        or "redraw" all, as their prob.json.
      evaluation: at most so many inputs of a task are evaluated at a boundary: all 2^(m - f) where that is enough,
        else some, each at most once. There is no test set.

    Returns:
      Stream whose batches have "x" [B, m] of 0 and 1 and "y" [B, 1], both float32.

    Raises:
      ValueError: no slow or no fast bits, more than 30 fast ones, an unknown change, a batch or task below 1.
    """
    check.known("change", change, CHANGES)
    check.finite("beta", beta)
    for name, value in (("inputs", inputs), ("slow", slow), ("units", units), ("evaluation", evaluation)):
        check.whole(name, value)
    fast = inputs - slow
    if not 1 <= fast <= MOST_FAST:
        raise ValueError(
            f"slow={slow} of inputs={inputs} leaves {fast} fast bits: there must be 1 to {MOST_FAST} of them."
        )
    orders.check_order("independent", batch, batch, steps)  # inputs are drawn with replacement: any batch fits

    def init(key, data):
        run_key, task_key = for_step(key, Purpose.STREAM), for_step(key, Purpose.TASK)

        def signs(part, *shape):
            return 2 * _bits(jax.random.fold_in(run_key, part), *shape) - 1

        return BitsState(
            _bits(jax.random.fold_in(task_key, SLOW), slow),
            orders.words(jax.random.fold_in(task_key, ORDER)),
            signs(WEIGHTS, inputs, units),
            signs(BIASES, units),
            signs(READOUT, units),
            signs(OFFSET),
        )

    def advance(key, state, data):
        slow_key = jax.random.fold_in(key, SLOW)
        if change == "redraw":
            bits = _bits(slow_key, slow)
        else:
            place = jax.random.randint(slow_key, (), 0, slow)
            bits = state.slow.at[place].set(1 - state.slow[place])
        return state._replace(slow=bits, order=orders.words(jax.random.fold_in(key, ORDER)))

    def show(state, combination, weight):
        bits = (combination[:, None] >> jnp.arange(fast)) & 1  # [B, m - f]
        x = jnp.concatenate([jnp.broadcast_to(state.slow, (len(bits), slow)), bits], -1)
        return batch_of(x, target(state, x, beta)[:, None], weight)

    def sample(key, state, data, step):
        return show(state, *orders.independent(state.order, step, 2**fast, batch))

    def evaluate(state, data, split):
        size = min(2**fast, evaluation)
        every, weight = orders.shuffled(state.order, jnp.int32(0), 2**fast, size)
        return show(state, every, weight) if split == "train" else show(state, every[:1], jnp.zeros(1))

    return Stream(init, advance, sample, evaluate, lambda task: steps, outputs=1, input_shape=(inputs,))


def target(state, x, beta):
    """The fixed network: y = r . [W^T x + b > tau] + r_0 with tau = beta (m + 1) - S, all weights +1 or -1.

    S is the number of -1 in a unit's column of W, plus half its bias, as in the source's code; the text counts the -1.

    Args:
      state: BitsState.
      x: [B, m] of 0 and 1.
      beta: number.

    Returns:
      [B] float32.
    """
    inputs = state.weights.shape[0]
    negative = (inputs - jnp.sum(state.weights, 0) + state.biases) / 2  # [H] S
    fires = x @ state.weights + state.biases > beta * (inputs + 1) - negative
    return fires @ state.readout + state.offset


def _bits(key, *shape):
    return jax.random.bernoulli(key, shape=shape).astype(jnp.float32)
