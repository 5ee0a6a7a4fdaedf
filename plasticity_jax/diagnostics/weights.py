"""How large and how flat the parameters are, and how far they have come.

Letters: I inputs and O outputs of a layer, H and W the extent of a filter, L layers.
"""

from plasticity_jax import check, tree
from plasticity_jax.diagnostics import spectra
from plasticity_jax.diagnostics.shared import kernels, stack, stateless, to_float32, weight_layers

__all__ = ["as_matrix", "weights"]


def weights(network, delta: float = 0.01):
    """Norms and ranks of the parameters.

      weight_norm         ||theta||_2 over all parameters, biases and gains included          []
      distance_from_init  ||theta - theta_0||_2 over all parameters                           []
      layer_weight_norm   ||W||_F of the layer's kernel                                       [L]
      spectral_norm       sigma_1(W)                                                          [L]
      weight_rank         srank of W: min{k : sum_{i<=k} sigma_i >= (1 - delta) sum_i sigma_i}  [L]

    W is the kernel as `as_matrix` sees it, theta_0 what the run began with, `snapshot.initial`. Norms and distance grow
    with the number n of parameters: others report sqrt(sum w^2 / n), or mean |w| (Dohare et al. 2024).

    Args:
      network: its layers are those with a parameter called "kernel", found from shapes alone.
      delta: share of the spectrum that weight_rank leaves out, 0 to 1.

    Returns:
      A Diagnostic with two scalar metrics and three of dimension layer, the output layer included.

    Raises:
      ValueError: delta out of its range.

    The global norm follows Lyle et al. 2023 (arXiv 2303.01486); srank Kumar et al. 2020 (arXiv 2010.14498).

    >>> import jax.numpy as jnp
    >>> from plasticity_jax.base import Network, Variables
    >>> network = Network(lambda key: Variables({"fc0": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)}}, {}), None)
    >>> weights(network).dims["spectral_norm"]
    {'layer': ('fc0',)}
    """
    check.between("weights.delta", delta, 0.0, 1.0)
    layers = weight_layers(network)

    def apply(key, state, learner, snapshot):
        params, initial = to_float32(learner.variables.params), to_float32(snapshot.initial.params)
        spectrum = [spectra.singular_values(as_matrix(kernel)) for kernel in kernels(params).values()]
        return state, {
            "weight_norm": tree.norm(params),
            "distance_from_init": tree.norm(tree.subtract(params, initial)),
            "layer_weight_norm": stack([tree.norm(kernel) for kernel in kernels(params).values()]),
            "spectral_norm": stack([sigma[0] for sigma in spectrum]),
            "weight_rank": stack([spectra.srank(sigma, delta) for sigma in spectrum]),
        }

    per_layer = {name: {"layer": layers} for name in ("layer_weight_norm", "spectral_norm", "weight_rank")}
    return stateless(apply, {"weight_norm": {}, "distance_from_init": {}, **per_layer})


def as_matrix(kernel):
    """A kernel as the matrix [fan_in, fan_out] whose singular values are reported.

    Dense kernels [I, O] are taken as they are. Filters [H, W, I, O] are flattened to [H*W*I, O], the map from one patch
    to one output pixel: its norm is not that of the whole convolution, which depends on the size of the image and can
    be up to sqrt(H*W) times as large (Singla & Feizi 2021, arXiv 1911.10258). Whatever else has more than two
    dimensions is flattened alike, the last one kept.

    >>> import jax.numpy as jnp
    >>> as_matrix(jnp.ones((3, 3, 8, 16))).shape
    (72, 16)
    """
    return kernel.reshape(-1, kernel.shape[-1])
