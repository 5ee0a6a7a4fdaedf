"""Matrix products counted in jaxprs, against counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from plasticity_jax.flops import matrix_flops
from plasticity_jax.networks.convolution import conv

A, B = jnp.ones((2, 4)), jnp.ones((4, 4))
PRODUCT = 2 * 2 * 4 * 4


def count(function, *args):
    return matrix_flops(jax.make_jaxpr(function)(*args))


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (lambda a, b: jnp.sin(a) @ b, 1),
        (lambda a, b: jax.lax.scan(lambda c, _: (c @ b, None), a, length=3)[0], 3),
        (lambda a, b: jax.jit(lambda a: a @ b)(a), 1),
        (lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda a: a @ b @ b, lambda a: a @ b, a), 2),
        (lambda a, b: jax.lax.while_loop(lambda c: c[0, 0] > 0, lambda c: c @ b, a), 1),
        (jax.grad(lambda a, b: jnp.sum(jnp.sin(a @ b)), argnums=1), 2),
        (lambda a, b: a + 1.0, 0),
    ],
)
def test_products_and_what_calls_them(function, products):
    assert count(function, A, B) == products * PRODUCT


def test_convolutions_of_ours_and_of_xla():
    x, kernel = jnp.ones((5, 6, 6, 3)), jnp.ones((3, 3, 3, 4))
    by_hand = 2 * (5 * 4 * 4 * 4) * (3 * 3 * 3)
    assert count(lambda x, k: conv(x, k, padding="VALID"), x, kernel) == by_hand
    xla = {"window_strides": (1, 1), "padding": "VALID", "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    assert count(lambda x, k: jax.lax.conv_general_dilated(x, k, **xla), x, kernel) == by_hand
    both = jax.grad(lambda x, k: jnp.sum(jnp.sin(conv(x, k, padding="VALID"))), argnums=(0, 1))
    assert count(both, x, kernel) == 3 * by_hand
