"""The figure of a Hessian spectrum: density on a logarithmic axis, outliers marked, the negative side visible."""

import numpy as np

from plasticity_jax.analysis import style

__all__ = ["density", "draw"]

POINTS = 2000
FLOOR = 1e-6  # of the density's peak, below which nothing is drawn
SEPARATION = 3.0  # widths between a Ritz value of the first probe and its neighbours that mark an outlier


def density(nodes, weights, grid, width):
    """Gaussian kernels on the nodes, averaged over probes.

    Args:
      nodes, weights: [probes, steps] of one run.
      grid: [G].
      width: standard deviation of a kernel, in units of the eigenvalue.

    Returns:
      [G], integrates to 1.
    """
    kernels = np.exp(-0.5 * ((grid[:, None] - nodes.reshape(-1)) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return kernels @ weights.reshape(-1) / len(nodes)


def draw(metrics, title):
    """One line per run, at most four.

    Args:
      metrics: {"hessian_nodes", "hessian_weights": [R, probes, steps], "sharpness": [R], ...}.
      title: text above.

    Returns:
      matplotlib Figure.
    """
    nodes, weights = (np.asarray(metrics[f"hessian_{name}"], np.float64) for name in ("nodes", "weights"))
    low, high = nodes.min(), nodes.max()
    width = max(high - low, np.finfo(float).tiny) / nodes.shape[-1]
    grid = np.linspace(low - 5 * width, high + 5 * width, POINTS)
    with style.context():
        figure, axes = style.grid(1, 1, height=3.2)
        axes, peak = axes[0, 0], 0.0
        for run in range(min(4, len(nodes))):
            value = density(nodes[run], weights[run], grid, width)
            peak = max(peak, value.max())
            colour = style.COLOURS[run]
            axes.plot(
                grid, np.where(value > 0, value, np.nan), color=colour, linestyle=style.DASHES[run], label=f"run {run}"
            )
            far = outliers(nodes[run], weights[run], width)
            axes.plot(far, np.full(len(far), FLOOR * peak * 2), "|", color=colour, markersize=8)
        axes.axvline(0, color="#888888", linewidth=0.8, zorder=1)
        axes.set_yscale("log")
        axes.set_ylim(FLOOR * peak, 3 * peak)
        axes.set(xlabel="eigenvalue of the Hessian (ticks: outliers)", ylabel="density", title=title)
        axes.legend(loc="upper right")
    return figure


def outliers(nodes, weights, width):
    """Ritz values of the first probe with weight that stand alone by several kernel widths, ascending."""
    real = np.sort(nodes[0][weights[0] > 0])
    gap = np.diff(real, prepend=-np.inf, append=np.inf)
    return real[np.minimum(gap[:-1], gap[1:]) > SEPARATION * width]
