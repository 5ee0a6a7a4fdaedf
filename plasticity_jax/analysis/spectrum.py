"""The figure of Hessian spectra: density on a logarithmic axis, outliers marked, the negative side visible."""

import math

import numpy as np

from plasticity_jax.analysis import style

__all__ = ["density", "draw", "outliers"]

POINTS = 2000
FLOOR = 1e-6  # of the density's peak, below which nothing is drawn
SEPARATION = 3.0  # widths between a Ritz value of the first probe and its neighbours that mark an outlier
NEAR_ZERO = 1e-4  # of the largest |eigenvalue|: where the second panel's axis turns from logarithmic to linear
FOLD = 0.25  # width of the second panel's kernels, in units of asinh
RUNS = 4  # lines in a panel


def density(nodes, weights, grid, width):
    """Gaussian kernels on the nodes, averaged over probes.

    Args:
      nodes, weights: [probes, steps] of one run.
      grid: [G].
      width: standard deviation of a kernel, in units of the nodes.

    Returns:
      [G], integrates to 1.
    """
    kernels = np.exp(-0.5 * ((grid[:, None] - nodes.reshape(-1)) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return kernels @ weights.reshape(-1) / len(nodes)


def outliers(nodes, weights, width):
    """Ritz values of the first probe with weight that stand alone by several kernel widths, ascending."""
    real = np.sort(nodes[0][weights[0] > 0])
    gap = np.diff(real, prepend=-np.inf, append=np.inf)
    return real[np.minimum(gap[:-1], gap[1:]) > SEPARATION * width]


def draw(spectra):
    """A row of two panels for each checkpoint, and in them a line for each run, at most four.

    The left panel is the density over the eigenvalue. Its kernels are as wide as the range over the steps, so that the
    zero eigenvalues of the bulk cover what is near them. The right panel spreads both sides out: its axis, the same in
    all rows, is asinh of the eigenvalue, logarithmic beyond 1e-4 of the largest; the density is per unit of that axis.

    Args:
      spectra: {title: {"hessian_nodes", "hessian_weights": [R, probes, steps], ...}}.

    Returns:
      matplotlib Figure.
    """
    spectra = {
        title: [np.asarray(metrics[f"hessian_{name}"], np.float64)[:RUNS] for name in ("nodes", "weights")]
        for title, metrics in spectra.items()
    }
    every = np.concatenate([nodes.ravel() for nodes, _ in spectra.values()])
    if not np.isfinite(every).all():
        raise ValueError("The spectrum is not finite: the loss or its Hessian was NaN or infinite in one of the runs.")
    linear = NEAR_ZERO * (np.abs(every).max() or 1)
    with style.context():
        figure, axes = style.grid(len(spectra), 2, height=2.6)
        for row, (title, runs) in zip(axes, spectra.items(), strict=True):
            width = (np.ptp(runs[0]) or 1) / runs[0].shape[-1]
            row[0].set(title=title, ylabel="density")
            row[1].set(title="both sides spread out", ylabel="density per unit of asinh")
            for run, (nodes, weights) in enumerate(zip(*runs, strict=True)):
                far = outliers(nodes, weights, width)
                for panel in row:
                    panel.plot(far, np.full(len(far), 0.02), "|", transform=panel.get_xaxis_transform(), **_look(run))
                _line(row[0], run, nodes, weights, width)
                _line(row[1], run, np.arcsinh(nodes / linear), weights, FOLD, lambda x: linear * np.sinh(x))
            row[1].set_xscale("asinh", linear_width=linear)
            row[1].set_xticks(_decades(linear, np.abs(every).max()))
            row[1].minorticks_off()
            for panel in row:
                _finish(panel)
        lefts, rights = zip(*(panel.get_xlim() for panel in axes[:, 1]), strict=True)
        for panel in axes[:, 1]:
            panel.set_xlim(min(lefts), max(rights))
        for panel in axes[-1]:
            panel.set_xlabel("eigenvalue of the Hessian (ticks: outliers)")
        style.legend(figure)
    return figure


def _decades(linear, largest):
    """Zero and every other power of ten on both sides, down to where the axis turns linear."""
    high = math.floor(math.log10(max(largest, linear)))
    powers = [10.0**k for k in range(high, math.ceil(math.log10(linear)), -2)]
    return [*(-x for x in powers), 0, *reversed(powers)]


def _look(run):
    """Colour of a run."""
    return {"color": style.COLOURS[run], "markersize": 8}


def _line(axes, run, nodes, weights, width, back=lambda x: x):
    """The density of one run; `back` takes the nodes' coordinate to the eigenvalue."""
    grid = np.linspace(nodes.min() - 5 * width, nodes.max() + 5 * width, POINTS)
    value = density(nodes, weights, grid, width)
    axes.plot(back(grid), value, linestyle=style.DASHES[run], label=f"run {run}", **_look(run))


def _finish(axes):
    """Zero is marked; the density is logarithmic, from a fraction of its peak upwards."""
    peak = max(line.get_ydata().max() for line in axes.lines if line.get_label().startswith("run"))
    axes.axvline(0, color="#888888", linewidth=0.8, zorder=1)
    axes.set_yscale("log")
    axes.set_ylim(FLOOR * peak, 3 * peak)
