"""Convolution against XLA's own, in value, gradient and Hessian product; pooling against reduce_window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from plasticity_jax.networks.convolution import average_pool, conv, max_pool

# image, window, C, U, strides, padding, B: each way of convolution_cpu.py, in one block and in several with a rest
CASES = {
    "winograd 3x3": ((9, 7), (3, 3), 8, 16, (1, 1), "SAME", 5),
    "winograd in blocks": ((16, 16), (3, 3), 8, 8, (1, 1), "SAME", 17),
    "winograd, odd padding": ((8, 8), (3, 3), 8, 8, (1, 1), ((0, 2), (3, 1)), 3),
    "winograd 5x5": ((8, 9), (5, 5), 16, 8, (1, 1), "VALID", 3),
    "summed taps": ((12, 12), (3, 3), 1, 6, (1, 1), "SAME", 4),
    "patches": ((8, 8), (3, 3), 4, 4, (1, 1), "SAME", 3),
    "patches in blocks": ((32, 32), (3, 3), 8, 4, (1, 1), "SAME", 9),
    "strides": ((9, 7), (3, 3), 8, 16, (2, 2), "SAME", 5),
    "strides in blocks": ((32, 32), (3, 3), 8, 4, (2, 2), ((1, 1), (1, 1)), 17),
    "strides beyond the window": ((12, 13), (1, 2), 3, 4, (2, 3), "SAME", 3),
    "all uneven": ((11, 10), (3, 2), 4, 4, (2, 3), ((1, 0), (2, 2)), 3),
    "atari": ((20, 20), (8, 8), 4, 4, (4, 4), "VALID", 2),
}
QUICK = ("winograd 3x3", "winograd 5x5", "summed taps", "patches in blocks", "all uneven")  # to compile


def native(x, kernel, strides, padding):
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def operands(name, dtype=jnp.float32):
    image, window, channels, units, *_, examples = CASES[name]
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((examples, *image, channels), (*window, channels, units))
    return [
        tuple(jax.random.normal(k, s, dtype) for k, s in zip(pair, shapes, strict=True))
        for pair in (keys[:2], keys[2:])
    ]


def everything(convolution, strides, padding):
    """Value, gradient and Hessian product of a loss that is curved in the outputs."""

    def loss(operands):
        return jnp.sum(jnp.sin(convolution(*operands, strides, padding) / 4))

    def all_of(operands, tangents):
        product = jax.jvp(jax.grad(loss), (operands,), (tangents,))[1]
        return convolution(*operands, strides, padding), jax.grad(loss)(operands), product

    return jax.jit(all_of)


def close(found, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in CASES])
def test_all_derivatives_are_those_of_xla(name):
    *_, strides, padding, _ = CASES[name]
    given = operands(name)
    close(everything(conv, strides, padding)(*given), everything(native, strides, padding)(*given))


def test_under_vmap_scan_and_both_orders_of_transformation():
    """Kernels per seed, as in a sweep; the gradient inside the map and around it."""
    x, kernel = operands("winograd 3x3")[0]
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])

    def loss(f, kernel):
        return jnp.sum(f(x, kernel, (1, 1), "SAME") ** 3) / 1e3

    inside = jax.jit(jax.vmap(jax.grad(lambda k: loss(conv, k))))(kernels)
    around = jax.jit(jax.grad(lambda ks: jax.vmap(lambda k: loss(conv, k))(ks).sum()))(kernels)
    expected = jax.jit(jax.vmap(jax.grad(lambda k: loss(native, k))))(kernels)
    close(inside, expected)
    close(around, expected)
    _, scanned = jax.jit(lambda ks: lax.scan(lambda c, k: (c, jax.grad(lambda k: loss(conv, k))(k)), 0, ks))(kernels)
    close(scanned, expected)


@pytest.mark.slow
def test_types():
    for name, dtype in (("winograd 3x3", jnp.bfloat16), ("summed taps", jnp.float16)):
        x, kernel = operands(name, dtype)[0]
        close(conv(x, kernel).astype(jnp.float32), native(x, kernel, (1, 1), "SAME").astype(jnp.float32), 0.008)
    assert conv(x.astype(jnp.float16), kernel.astype(jnp.float32)).dtype == jnp.float32


def test_gradients_of_16_bits_are_summed_over_blocks_in_32():
    """Rounded after each block, positive ones would come out smaller the more blocks there are."""
    x = jax.random.uniform(jax.random.key(0), (512, 16, 16, 2), jnp.bfloat16)

    def gradient(x):
        kernel = jnp.ones((3, 3, 2, 2), x.dtype)
        return jax.grad(lambda kernel: jnp.sum(conv(x, kernel)))(kernel).astype(jnp.float32)

    close(jax.jit(gradient)(x), jax.jit(gradient)(x.astype(jnp.float32)), 0.005)


def test_strange_operands():
    x, kernel = operands("patches")[0]
    with pytest.raises(ValueError, match=r"strides.*0"):
        conv(x, kernel, (0, 1))
    with pytest.raises(ValueError, match="int32"):
        conv(x.astype(jnp.int32), kernel.astype(jnp.int32))
    x, kernel = operands("winograd 3x3")[0]
    assert conv(x[:0], kernel).shape == (0, 9, 7, 16)


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_other_platforms_get_the_convolution_of_xla(platform):
    def gradient(x, kernel):
        return jax.grad(lambda k: jnp.sum(conv(x, k) ** 2))(kernel)

    text = jax.export.export(jax.jit(gradient), platforms=[platform])(*operands("winograd 3x3")[0]).mlir_module()
    assert "stablehlo.convolution" in text and "dot_general" not in text


def test_on_cpu_no_convolution_of_xla_is_left():
    *_, strides, padding, _ = CASES["strides"]
    text = everything(conv, strides, padding).lower(*operands("strides")).compile().as_text()
    assert "convolution(" not in text


def test_the_precision_of_products_is_that_of_the_context():
    def precisely(x, kernel):
        with jax.default_matmul_precision("highest"):  # over when the program is lowered
            return conv(x, kernel)

    text = jax.export.export(jax.jit(precisely), platforms=["tpu"])(*operands("patches")[0]).mlir_module()
    assert "precision HIGHEST" in text


@pytest.mark.parametrize(
    ("window", "strides", "padding"), [((2, 2), None, "VALID"), ((3, 3), (2, 2), "SAME"), ((2, 3), (1, 2), "VALID")]
)
def test_pools_are_those_of_reduce_window(window, strides, padding):
    x = jax.random.normal(jax.random.key(0), (2, 7, 9, 3))
    steps = strides or window
    largest = lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *steps, 1), padding)
    total = lax.reduce_window(x, 0.0, lax.add, (1, *window, 1), (1, *steps, 1), padding)
    close(max_pool(x, window, strides, padding), largest)
    close(average_pool(x, window, strides, padding), total / (window[0] * window[1]))
    slope = jax.grad(lambda x: jnp.sum(max_pool(x, window, strides, padding) ** 2))(x)
    expected = jax.grad(
        lambda x: jnp.sum(lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *steps, 1), padding) ** 2)
    )(x)
    close(slope, expected)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: conv(jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))), "reads 1 channels, but the images have 2"),
        (
            lambda: conv(jnp.ones((1, 4, 4, 1)), jnp.ones((5, 5, 1, 2)), padding="VALID"),
            "5 x 5 does not fit into images of 4 x 4",
        ),
        (lambda: conv(jnp.ones((1, 4, 4, 1)), jnp.ones((3, 3, 1, 2)), padding="SMAE"), "SAME"),
        (lambda: max_pool(jnp.ones((1, 2, 2, 1)), (3, 3)), "3 x 3 does not fit"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
