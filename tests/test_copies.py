"""The order of the examples with which copies of a network are fitted."""

import jax
import numpy as np
import pytest

from plasticity_jax.diagnostics.copies import Size, _order


@pytest.mark.parametrize(("steps", "inputs", "batch"), [(9, 12, 4), (10, 7, 3), (4, 5, 5), (1, 9, 2)])
def test_batches_come_from_one_permutation_after_another(steps, inputs, batch):
    """They run across the ends of epochs, and each epoch has every input once."""
    rows = np.asarray(_order(jax.random.key(3), Size(targets=1, steps=steps, inputs=inputs, batch=batch)))
    assert rows.shape == (steps, batch)
    epochs = [rows.ravel()[i : i + inputs].tolist() for i in range(0, steps * batch, inputs)]
    for epoch in epochs[:-1] if steps * batch % inputs else epochs:
        assert sorted(epoch) == list(range(inputs))
    assert len(set(epochs[-1])) == len(epochs[-1])
    assert len({tuple(epoch) for epoch in epochs}) == len(epochs)
