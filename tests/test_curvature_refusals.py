"""What is refused, and how: each error names the value and the remedy, before anything is compiled."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity_jax import curvature as cv

KEY = jax.random.key(0)
X, Y = jax.random.normal(KEY, (12, 4)), jax.random.normal(jax.random.key(1), (12, 3))
W = 0.5 * jax.random.normal(KEY, (4, 3))
D = jnp.arange(1.0, 9.0)


def model(w, x):
    return jnp.tanh(x @ w)


def squared(z, y):
    return jnp.mean((z - y) ** 2)


def loss(w, batch):
    return squared(model(w, batch[0]), batch[1])


def diagonal(d=D):
    return cv.operator(lambda v, d: d * v, like=jnp.zeros(d.shape), args=(d,))


def exactly(cause):
    return pytest.raises(ValueError, match=cause)


# ---- vectors and operators ----


def test_complex_vectors():
    for apply in (lambda v: diagonal() @ v, lambda v: cv.lanczos(diagonal(), 3, v0=v), diagonal().precondition):
        with exactly("complex64"):
            apply(D * (1 + 0j))


def test_products_that_are_not_real_floating():
    for factor in (1j, 2):
        with exactly("what matvec returns has the type"):
            cv.operator(lambda v: (v * factor).astype(jnp.result_type(factor)), like=jnp.zeros(3))  # noqa: B023


def test_arguments_of_an_operator_are_a_tuple():
    with exactly(r"args=\(array,\)"):
        cv.operator(lambda v, d: d * v, like=jnp.zeros(3), args=jnp.ones(3))


def test_a_lineax_operator_needs_a_tag_of_symmetry():
    lineax = pytest.importorskip("lineax")
    matrix = jnp.array([[0.0, 1.0], [0.0, 0.0]])
    with exactly("symmetric_tag"):
        cv.operator(lineax.MatrixLinearOperator(matrix))
    assert cv.operator(lineax.MatrixLinearOperator(matrix + matrix.T, lineax.symmetric_tag)).size == 2


def test_masks_that_are_equal_can_be_added():
    mask = jnp.arange(8) % 2
    found = (diagonal().restrict(mask) + diagonal().restrict(mask)) @ jnp.ones(8)
    np.testing.assert_allclose(found, 2 * D * mask)
    with exactly("different masks"):
        diagonal().restrict(mask) + diagonal().restrict(1 - mask)


@pytest.mark.parametrize(
    "call",
    [
        lambda: cv.hessian(loss, W, (X, Y), microbatch=2.5),
        lambda: cv.trace(diagonal(), matvecs=64.0, key=KEY),
        lambda: cv.slq(diagonal(), steps=4.0, key=KEY),
        lambda: cv.slq(diagonal(), probes=2.0, key=KEY),
        lambda: cv.lanczos(diagonal(), 2.5, key=KEY),
        lambda: cv.logdet(diagonal(), steps=8.0, key=KEY),
    ],
)
def test_numbers_that_are_counts(call):
    with exactly("whole number, at least 1"):
        call()


# ---- losses and models ----


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        (lambda w, batch: None, "NoneType"),
        (lambda w, batch: (loss(w, batch), 1.0), "a tuple: it must return a scalar alone"),
        (lambda w, batch: 1, "floating"),
    ],
)
def test_losses_that_are_no_floating_scalar(wrong, cause):
    for make in (cv.hessian, cv.gradient_covariance):
        with exactly(cause):
            make(wrong, W, (X, Y))


@pytest.mark.parametrize("kind", ["type2", "monte_carlo"])
@pytest.mark.parametrize(
    ("outputs", "cause"),
    [
        (lambda w, x: x @ w[:, 0], "two logits or more"),
        (lambda w, x: x @ w[:, :1], "one logit z return"),
        (lambda w, x: {"a": x @ w}, "must return one array"),
        (lambda w, x: (x @ w).sum(0), "for 12 examples"),
    ],
)
def test_outputs_without_a_categorical_fisher(kind, outputs, cause):
    """At once for arrays, at the first product for an iterator."""
    with exactly(cause):
        cv.fisher(outputs, None, W, (X, Y), kind=kind, key=KEY)
    with exactly(cause):
        cv.fisher(outputs, None, W, lambda: [(X, Y)], kind=kind, key=KEY) @ W


def test_one_gaussian_output_per_example_is_no_classes():
    found = cv.fisher(lambda w, x: x @ w, None, W[:, 0], (X, Y), likelihood="gaussian").dense()
    np.testing.assert_allclose(found, X.T @ X / 12, rtol=1e-5, atol=1e-6)


def test_the_empirical_fisher_needs_a_scalar_loss():
    with exactly("shape"):
        cv.fisher(model, lambda z, y: (z - y) ** 2, W, (X, Y), kind="empirical")


# ---- data ----


class Loader:
    """A loader as other libraries have them: no function, no array."""

    def __iter__(self):
        return iter([(X, Y)])


@pytest.mark.parametrize("loader", [Loader(), ((X, Y) for _ in range(2))])
def test_loaders_are_passed_as_functions(loader):
    with exactly("data=lambda: loader"):
        cv.hessian(loss, W, loader)


def test_covariances_need_data():
    with exactly("needs data"):
        cv.gradient_covariance(lambda w, _: jnp.sum(w**2), W, None)


def test_batches_of_an_iterator():
    with exactly("Batch 0 of the iterator holds no arrays"):
        cv.hessian(loss, W, lambda: [{}]) @ W
    for make in (cv.ggn, cv.fisher):
        with exactly("pair"):
            make(model, squared, W, lambda: [X]) @ W


def test_an_iterator_that_gives_less_later():
    passes = iter(([(X[:6], Y[:6]), (X[6:], Y[6:])], [(X[:6], Y[:6])], [(X, Y)]))
    H = cv.hessian(loss, W, lambda: next(passes))
    H @ W
    with exactly("12 examples at first and 6 now"):
        H @ W
    np.testing.assert_allclose(H @ W, cv.hessian(loss, W, (X, Y)) @ W, rtol=1e-5, atol=1e-6)


def test_iterators_under_jit():
    H = cv.hessian(loss, W, lambda: [(X, Y)])
    for call in (lambda v: H @ v, lambda v: cv.hessian(loss, v, lambda: [(X, Y)]) @ W):
        with exactly("inside jit"):
            jax.jit(call)(W)
    stacked = jnp.stack([W, 2 * W])
    np.testing.assert_allclose(jax.vmap(lambda v: H @ v)(stacked)[1], 2 * (H @ W), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("size", [1e-3, 1e-2, 1.0])
def test_sums_over_examples_are_found_where_the_loss_is_small(size):
    fitted = (X, model(W, X) + size * Y)
    with exactly("not a mean over examples"):
        cv.check_operator(cv.hessian(lambda w, b: jnp.sum((model(w, b[0]) - b[1]) ** 2), W, fitted), KEY)
    assert cv.check_operator(cv.hessian(loss, W, fitted), KEY).loss_gap < 1e-4


# ---- spectra ----


def test_pairs_to_deflate():
    A = diagonal()
    pairs = cv.eigenpairs(A, k=3)
    padded = cv.eigenpairs(A.restrict(D < 3), k=3)
    for bad, cause in (
        (pairs._replace(converged=jnp.array([True, False, True])), r"unconverged pairs, at \[1\]"),
        (padded, r"padded or unconverged pairs, at \[2\]"),
        (cv.eigenpairs(diagonal(D[:4]), k=1), "deflate has the shape"),
    ):
        with exactly(cause):
            cv.slq(A, 4, 2, key=KEY, deflate=bad)


def test_nothing_is_left_after_all_pairs():
    """Everything is deflated: no probe says anything, and no product but those of the pairs is counted."""
    A = diagonal()
    for spectrum in (cv.slq(A, 4, 2, key=KEY, deflate=cv.eigenpairs(A, k=8)), cv.slq(A, 4, 2, dense=True)):
        total = cv.spectral_sum(spectrum, lambda x: x)
        np.testing.assert_allclose([total.value, total.sem, total.matvecs], [36, 0, 8], rtol=1e-5)
    B = A.restrict(D < 3)
    rest = cv.slq(B, 4, 2, key=KEY, deflate=cv.eigenpairs(B, k=2))
    np.testing.assert_allclose(cv.spectral_sum(rest, lambda x: x).value, 3.0, rtol=1e-5)


def test_dense_spectra_of_masks_and_of_large_operators():
    with exactly("no masks"):
        cv.slq(diagonal().restrict(D < 3), dense=True)
    with exactly("3000"):
        cv.slq(diagonal(jnp.ones(3000)), dense=True)


def test_thresholds_and_widths():
    s = cv.slq(diagonal(), 4, 2, dense=True)
    assert np.isnan(cv.cdf(s, jnp.array([jnp.nan, 2.0])).value).tolist() == [True, False]
    assert np.isnan(cv.count(s, jnp.nan, jnp.inf).value)
    np.testing.assert_allclose(cv.count(s, [0.0, 3.0], jnp.inf).value, [8, 6])
    with exactly("width"):
        cv.density(s, width=jnp.array(-1.0))
    with exactly("c = 0"):
        cv.statistical_dimension(s, np.float32(0))


def test_pairs_from_elsewhere_need_no_flag():
    known = types.SimpleNamespace(values=D[-2:], vectors=jnp.eye(8)[-2:])
    np.testing.assert_allclose(
        cv.spectral_sum(cv.slq(diagonal(), 6, 2, key=KEY, deflate=known), jnp.abs).value, 36, rtol=1e-5
    )


def test_what_is_no_operator_or_no_spectrum_is_named():
    for call in (cv.slq, cv.trace, cv.diagonal, cv.frobenius_norm, cv.logdet, cv.eigenpairs):
        with pytest.raises(ValueError, match="takes an Operator, not a ndarray"):
            call(np.eye(4), key=KEY)
    with pytest.raises(ValueError, match="takes an Operator, not a function"):
        cv.lanczos(lambda v: v, 3, key=KEY)
    with pytest.raises(ValueError, match="summary takes a Spectrum, not a Operator: call slq first"):
        cv.summary(diagonal())


def test_keys_are_asked_for_at_every_size():
    """Also where all unit vectors are taken and the key is not needed: the same script runs on larger networks."""
    for call in (cv.slq, cv.trace, cv.diagonal, cv.frobenius_norm, cv.logdet, cv.eigenpairs):
        with pytest.raises(ValueError, match=r"key=0 is no key: pass key=jax.random.key\(0\)"):
            call(diagonal(jnp.arange(1.0, 13.0)), key=0)
    assert float(cv.trace(diagonal(), key=jax.random.PRNGKey(0)).value) == pytest.approx(36)


def test_a_loss_that_is_called_otherwise_is_told_how():
    x = jnp.ones((4, 2))
    for loss, data in (
        (lambda p, x, y: jnp.mean((x @ p - y) ** 2), (x, jnp.ones(4))),
        (lambda p, batch: jnp.mean((batch[0] @ p - batch[1]) ** 2), [(x, jnp.ones(4)), (x, jnp.ones(4))]),
    ):
        with pytest.raises(TypeError) as caught:
            cv.hessian(loss, jnp.ones(2), data)
        notes = " ".join(caught.value.__notes__)
        assert "loss(params, batch)" in notes and "data=lambda: batches" in notes


def test_lists_of_numbers_are_not_listed_one_by_one():
    with pytest.raises(ValueError, match=r"np.asarray") as caught:
        cv.hessian(lambda p, batch: jnp.sum(p), jnp.ones(2), (jnp.ones((24, 2)), list(range(24))))
    assert len(str(caught.value)) < 300


def test_several_patterns_and_a_divisor():
    A = cv.operator(lambda v: jax.tree.map(lambda x: 2 * x, v), like={"a": jnp.ones(2), "b": jnp.ones(1)})
    assert A.restrict(["a", "b"]).size == 3
    assert ((A / 4) @ {"a": jnp.ones(2), "b": jnp.ones(1)})["a"].tolist() == [0.5, 0.5]
