"""Operators: trees, algebra, blocks and masks against assembled matrices, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax.curvature.lanczos import lanczos
from plasticity_jax.curvature.matrices import fisher, ggn, gradient_covariance, hessian
from plasticity_jax.curvature.operators import Operator, operator

# ---- a quadratic on a nested tree, whose matrix is known ----

SHAPES = {"deep": [(np.zeros((3, 2)), np.zeros(4))], "scalar": np.zeros(()), "row": np.zeros((1, 3))}
SIZE = 14
RNG = np.random.default_rng(0)
MATRIX = (lambda m: (m + m.T) / 2)(RNG.standard_normal((SIZE, SIZE)))
OTHER = (lambda m: m @ m.T)(RNG.standard_normal((SIZE, SIZE)))
PARAMS = jax.tree.map(lambda x: jnp.asarray(RNG.standard_normal(x.shape), jnp.float32), SHAPES)
TREES = jax.tree.structure(PARAMS)


def flat(v):
    return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(v)])


def quadratic(params, matrix):
    x = flat(params)
    return 0.5 * jnp.dot(x, jnp.matmul(matrix[0], x, precision="highest"), precision="highest")


def of(matrix):
    """The Hessian of the quadratic: one example, the matrix itself."""
    return hessian(quadratic, PARAMS, jnp.asarray(matrix, jnp.float32)[None])


A, B = of(MATRIX), of(OTHER)


def vector(seed=1):
    return A.random(jax.random.key(seed))


def assert_matrix(operator, matrix, rtol=1e-5):
    np.testing.assert_allclose(operator.dense(), matrix, rtol=rtol, atol=rtol * np.abs(matrix).max())


def test_the_product_is_that_of_the_assembled_matrix():
    v = vector()
    for product in (A @ v, A(v), A.product()(v), jax.jit(lambda A, v: A @ v)(A, v)):
        assert jax.tree.structure(product) == TREES
        assert [(x.shape, x.dtype) for x in jax.tree.leaves(product)] == [
            (x.shape, jnp.float32) for x in jax.tree.leaves(PARAMS)
        ]
        np.testing.assert_allclose(flat(product), MATRIX @ np.asarray(flat(v)), rtol=1e-5, atol=1e-5)
    assert A.size == SIZE and isinstance(A.size, int) and jax.tree.structure(A.like) == TREES
    assert_matrix(A, MATRIX)


ALGEBRA = {
    "sum": (lambda c: A + B, lambda c: MATRIX + OTHER),
    "difference": (lambda c: A - B, lambda c: MATRIX - OTHER),
    "negative": (lambda c: -A, lambda c: -MATRIX),
    "scaled": (lambda c: c * A, lambda c: c * MATRIX),
    "scaled from the right": (lambda c: A * c, lambda c: c * MATRIX),
    "shifted": (lambda c: A.shift(c), lambda c: MATRIX + c * np.eye(SIZE)),
    "mixed": (lambda c: 2.0 * (A + c * B).shift(-c) - A, lambda c: MATRIX + 2 * c * OTHER - 2 * c * np.eye(SIZE)),
}


@pytest.mark.parametrize("name", ALGEBRA)
def test_algebra(name):
    made, expected = ALGEBRA[name]
    for c in (0.7, jnp.float32(-1.5), np.float64(0.3)):
        assert_matrix(made(c), expected(float(c)))
    v = vector()
    product = jax.jit(lambda c: made(c) @ v)(0.7)  # a traced factor
    np.testing.assert_allclose(flat(product), expected(0.7) @ np.asarray(flat(v)), rtol=1e-5, atol=2e-5)


def test_preconditioning():
    diagonal = jax.tree.map(lambda x: jnp.abs(x) + 0.5, PARAMS)
    root = 1 / np.sqrt(np.asarray(flat(diagonal)))
    assert_matrix(B.precondition(diagonal), root[:, None] * OTHER * root)
    assert_matrix(B.precondition(diagonal).shift(1.0), root[:, None] * OTHER * root + np.eye(SIZE))


ENDS = np.cumsum([x.size for x in jax.tree.leaves(PARAMS)])[:-1]
INDICES = jax.tree.unflatten(TREES, np.split(np.arange(SIZE), ENDS))


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("deep/0/0", lambda i: i["deep"][0][0]),
        ("deep/*", lambda i: np.r_[i["deep"][0][0], i["deep"][0][1]]),
        (("row", "scalar"), lambda i: np.r_[i["row"], i["scalar"]]),
        ("*", lambda i: np.arange(SIZE)),
    ],
)
def test_a_block_of_paths_is_the_sub_matrix(patterns, chosen):
    block, index = A.restrict(patterns), chosen(INDICES)
    assert block.size == len(index)
    assert_matrix(block, MATRIX[np.ix_(index, index)])
    assert_matrix(block.shift(2.0), MATRIX[np.ix_(index, index)] + 2 * np.eye(len(index)))


MASK = jax.tree.map(lambda x: jnp.asarray(RNG.integers(0, 2, x.shape)), SHAPES)


@pytest.mark.parametrize("kind", [jnp.int32, jnp.float32, bool])
def test_a_mask_keeps_the_sub_matrix_and_counts(kind):
    mask = np.asarray(flat(MASK)) > 0
    masked = A.restrict(jax.tree.map(lambda x: x.astype(kind), MASK))
    assert 0 < int(masked.size) == mask.sum() < SIZE
    assert_matrix(masked, MATRIX * np.outer(mask, mask))
    assert_matrix(masked.shift(1.0), (MATRIX + np.eye(SIZE)) * np.outer(mask, mask))
    assert not np.asarray(flat(masked.random(jax.random.key(0))))[~mask].any()
    assert_matrix(masked + 2.0 * masked, 3 * MATRIX * np.outer(mask, mask))


def test_masks_and_blocks_combine():
    mask = np.asarray(flat(MASK)) > 0
    index = np.r_[INDICES["deep"][0][0], INDICES["deep"][0][1]]
    expected = (MATRIX * np.outer(mask, mask))[np.ix_(index, index)]
    assert_matrix(A.restrict(MASK).restrict("deep/*"), expected)
    both = A.restrict(MASK).restrict(jax.tree.map(lambda x: x.at[..., 0].set(0) if x.ndim else x, MASK))
    first = np.asarray(flat(jax.tree.map(lambda x: x.at[..., 0].set(0) if x.ndim else x, MASK))) > 0
    assert_matrix(both, MATRIX * np.outer(first, first))
    with pytest.raises(ValueError, match="first, then restrict"):
        A.restrict(MASK) + A


def test_what_is_known_to_be_positive():
    G = operator(lambda v: v, like=jnp.zeros(3), psd=True)
    assert G.psd and (G + G).psd and (2.0 * G).psd and G.shift(0.0).psd and G.restrict(jnp.array([1, 0, 1])).psd
    assert G.precondition(jnp.ones(3)).psd
    assert not any(x.psd for x in (-G, -1.0 * G, G - G, G.shift(-0.1), A, G + operator(lambda v: v, like=jnp.zeros(3))))
    assert not jax.jit(lambda c: jnp.asarray((c * G).psd | G.shift(c).psd))(1.0)


# ---- small dimensions ----


def test_factorisation_has_the_blocks_of_its_closed_form():
    """0.5 |U V^T - M|^2: the block of U is V^T V, once per row, so their largest eigenvalues agree."""
    u, v, m = (jnp.asarray(RNG.standard_normal(s), jnp.float32) for s in ((4, 2), (5, 2), (4, 5)))
    H = hessian(lambda p, _: 0.5 * jnp.sum((p["u"] @ p["v"].T - m) ** 2), {"u": u, "v": v})
    assert_matrix(H.restrict("u"), np.kron(np.eye(4), np.asarray(v.T @ v)))
    assert_matrix(H.restrict("v"), np.kron(np.eye(5), np.asarray(u.T @ u)))
    top = np.linalg.eigvalsh(H.restrict("u").dense())[-1]
    assert top == pytest.approx(np.linalg.eigvalsh(np.asarray(v.T @ v))[-1], rel=1e-5)


def test_rosenbrock():
    x = jnp.array([-1.2, 1.0])
    H = hessian(lambda x, _: (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2, x)
    assert_matrix(H, np.array([[2 - 400 * (1.0 - 3 * 1.44), 480.0], [480.0, 200.0]]))


def test_a_full_run_of_lanczos_returns_the_matrix():
    t = lanczos(A, SIZE, key=jax.random.key(0))
    basis = np.stack([np.asarray(flat(jax.tree.map(lambda x, i=i: x[i], t.basis))) for i in range(SIZE)])
    tridiagonal = np.diag(t.alphas) + np.diag(t.betas[: SIZE - 1], 1) + np.diag(t.betas[: SIZE - 1], -1)
    np.testing.assert_allclose(basis.T @ tridiagonal @ basis, MATRIX, atol=1e-4 * np.abs(MATRIX).max())


def test_one_parameter_and_zero_operators():
    H = hessian(lambda p, _: p**3, jnp.float32(2.0))
    assert H.size == 1 and float(H.dense()[0, 0]) == 12.0 and float(H @ jnp.float32(1.0)) == 12.0
    zero = hessian(lambda p, _: jnp.sum(p["used"]), {"used": jnp.ones(3), "unused": jnp.ones(())})
    assert not np.asarray(zero.dense()).any() and zero.dense().shape == (4, 4)
    empty = operator(lambda v: v, like={"a": jnp.zeros(2), "b": jnp.zeros((0, 3))})
    assert empty.size == 2
    assert_matrix(empty, np.eye(2))


# ---- operators are trees ----


def test_operators_pass_through_jit_and_vmap_as_arguments():
    v = vector()
    stacked = jax.tree.map(lambda a, b: jnp.stack([a, b]), A, B)  # a pytree with the same program
    assert isinstance(stacked, Operator)
    products = jax.jit(jax.vmap(lambda operator: operator @ v))(stacked)
    for i, matrix in enumerate((MATRIX, OTHER)):
        lane = flat(jax.tree.map(lambda x, i=i: x[i], products))
        np.testing.assert_allclose(lane, matrix @ np.asarray(flat(v)), rtol=1e-5, atol=2e-5)
    masks = jax.tree.map(lambda m: jnp.stack([m, jnp.ones_like(m)]), MASK)
    sizes = jax.vmap(lambda mask: A.restrict(mask).size)(masks)
    assert sizes.tolist() == [int(flat(MASK).sum()), SIZE]


def test_other_parameters_compile_nothing_anew():
    traced = []

    def loss(p, x):
        traced.append(1)
        return jnp.mean((x @ p) ** 4)

    product = jax.jit(lambda H, v: H @ v)
    x = jnp.ones((3, 4))
    first = product(hessian(loss, jnp.ones(4), x, microbatch=2), jnp.ones(4))
    seen = len(traced)
    second = product(hessian(loss, 2 * jnp.ones(4), x, microbatch=2), jnp.ones(4))
    assert len(traced) == seen + 1  # building one looks at the shape of the loss
    np.testing.assert_allclose(second, 4 * first, rtol=1e-5)


def test_a_key_gives_independent_leaves_of_unit_variance():
    like = {"a": jnp.zeros(2000), "b": jnp.zeros(2000)}
    drawn = operator(lambda v: v, like=like).random(jax.random.key(0), jax.random.rademacher)
    assert set(np.unique(drawn["a"])) == {-1.0, 1.0} and drawn["a"].dtype == jnp.float32
    assert abs(np.mean(drawn["a"] * drawn["b"])) < 0.1


# ---- refusals ----


class Module:
    """A whole model instead of its parameters."""


IDENTITY = operator(lambda v: v, like={"w": jnp.zeros((2, 2)), "b": jnp.zeros(2)})
W, X = jnp.ones(2), jnp.ones((3, 2))


def square(p, x):
    return jnp.mean((x @ p) ** 2)


REFUSED = {
    "a vector of another structure": (lambda: IDENTITY @ {"w": jnp.zeros((2, 2))}, "structure"),
    "a vector of other shapes": (lambda: IDENTITY @ {"w": jnp.zeros((2, 3)), "b": jnp.zeros(2)}, r"\(2, 3\) at w"),
    "a sum of different spaces": (lambda: IDENTITY + A, "second operator"),
    "a pattern without a parameter": (lambda: IDENTITY.restrict("fc/*"), "The paths are: b, w"),
    "a mask of other shapes": (lambda: IDENTITY.restrict({"w": jnp.ones(2), "b": jnp.ones(2)}), "mask"),
    "a diagonal with a zero": (
        lambda: IDENTITY.precondition({"w": jnp.ones((2, 2)), "b": jnp.array([0.0, 1.0])}),
        r"diagonal\[b\]",
    ),
    "no like": (lambda: operator(lambda v: v), "like="),
    "a product of other shapes": (lambda: operator(lambda v: v[:1], like=jnp.zeros(2)), "returns"),
    "integer leaves": (lambda: hessian(square, {"a": {"step": jnp.zeros(2, int)}, "w": W}, X), "int32 at a/step"),
    "a whole module": (lambda: hessian(square, Module(), X), "a Module at its only leaf"),
    "a Python number": (lambda: hessian(lambda p, _: p["w"] ** 2, {"w": 2.0}), "a float at w"),
    "no parameters": (lambda: hessian(square, {}, X), "no parameters"),
    "only empty parameters": (lambda: hessian(square, jnp.zeros((0, 2)), X), "no parameters"),
    "a loss per example": (lambda: hessian(lambda p, x: (x @ p) ** 2, W, X), r"shape \(3,\)"),
    "no examples": (lambda: hessian(square, W, jnp.ones((0, 2))), "no examples"),
    "unequal leading axes": (
        lambda: ggn(lambda p, x: x @ p, lambda z, y: jnp.mean((z - y) ** 2), W, (X, jnp.ones(4))),
        "leading axis",
    ),
    "a scalar among the data": (lambda: hessian(lambda p, d: square(p, d["x"]), W, {"x": X, "c": 1.0}), "leading axis"),
    "microbatches of none": (lambda: hessian(square, W, X, microbatch=0), "microbatch=0"),
    "an unknown method": (lambda: hessian(square, W, X, method="forward"), "forward_over_reverse"),
    "data that are no pair": (lambda: fisher(lambda p, x: x @ p, None, W, X), r"pair \(x, y\)"),
    "an unknown Fisher": (lambda: fisher(lambda p, x: x @ p, None, W, (X, X), kind="mc"), "monte_carlo"),
    "an unknown likelihood": (
        lambda: fisher(lambda p, x: x @ p, None, W, (X, X), likelihood="poisson"),
        "categorical, gaussian",
    ),
    "labels without a key": (lambda: fisher(lambda p, x: x @ p, None, W, (X, X), kind="monte_carlo"), "key="),
    "an output loss per example": (
        lambda: ggn(lambda p, x: x @ p, lambda z, y: (z - y) ** 2, W, (X, jnp.ones(3))),
        r"shape \(3,\)",
    ),
    "gradients of a loss per example": (lambda: gradient_covariance(lambda p, x: (x @ p) ** 2, W, X), r"shape \(3,\)"),
    "a used-up iterator": (
        lambda: hessian(square, W, (lambda batches: lambda: batches)(iter([]))) @ W,
        "gave no batches",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input(name):
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        call()
