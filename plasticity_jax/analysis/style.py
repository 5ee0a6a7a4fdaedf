"""How figures look: colours that colour-blind readers and grey printers tell apart, sizes, and files.

Nothing here touches matplotlib's global state: figures are made without pyplot, and settings hold inside a context.
"""

import io
import math
import textwrap

__all__ = [
    "context",
    "count",
    "grid",
    "legend",
    "line",
    "mark",
    "mark_chance",
    "png",
    "share",
    "spread",
    "svg",
    "wrapped",
]

# Okabe and Ito (2008) without yellow, ordered so that neighbours differ in lightness too.
COLOURS = ("#0072B2", "#E69F00", "#000000", "#56B4E9", "#D55E00", "#CC79A7", "#009E73")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (9, 2)))
TITLE_LENGTH = 90  # characters of all titles side by side
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")

SETTINGS = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.limits": (-4, 5),
    "grid.color": "#dddddd",
    "grid.linewidth": 0.5,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "savefig.dpi": 200,
    "svg.hashsalt": "plasticity_jax",
}


def context():
    """A context in which figures are drawn and saved."""
    import matplotlib

    return matplotlib.rc_context(SETTINGS)


def grid(rows, columns, height=2.3):
    """(figure, axes [rows, columns]) with room for a legend below; 3.4 inches a panel, less where there are more."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    width = {1: 4.2, 2: 6.8, 3: 7.6}.get(columns, 9.0)
    figure = Figure(figsize=(width, height * rows), layout="constrained")
    figure.get_layout_engine().set(wspace=0.06, hspace=0.08)
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def line(axes, i, x, interval, label):
    """The i-th line of a panel with its band; markers are thinned out on long series."""
    colour, every = COLOURS[i % len(COLOURS)], max(1, len(x) // 8)
    start = (i * every // 3) % every if len(x) > 8 else 0
    style = {"color": colour, "linestyle": DASHES[i % len(DASHES)], "marker": MARKERS[i % len(MARKERS)]}
    axes.plot(x, interval.mean, label=label, markevery=(start, every), zorder=3, **style)
    _band(axes, x, interval.low, interval.high, colour, 0.18)


def spread(axes, i, x, middle, bands):
    """The i-th line of a panel between bands (low, high, opacity)."""
    colour = COLOURS[i % len(COLOURS)]
    axes.plot(x, middle, color=colour, marker=MARKERS[i % len(MARKERS)], markevery=max(1, len(x) // 8), zorder=3)
    for low, high, opacity in bands:
        _band(axes, x, low, high, colour, opacity)


def count(axes, last, label):
    """The whole x axis of what is counted from 1 to `last`: 1 and multiples of a round number, or odd numbers."""
    step = next(s for s in (1, 2, 5, 10, 20, 25, 50, *(10**k for k in range(2, 10))) if last / s <= 8)
    axes.set_xticks(range(1, last + 1, 2) if step == 2 else sorted({1, *range(step, last + 1, step)}))
    axes.set_xlim(1 - 0.04 * last, 1.04 * last)
    axes.set_xlabel(label)


def mark(axes, y, label):
    """A thin grey line at a number that others are judged by."""
    axes.axhline(y, color="#777777", linewidth=0.9, linestyle=(0, (1, 2)), label=label)


def mark_chance(axes, classes):
    """A line at the accuracy of guessing."""
    mark(axes, 1 / classes, f"chance (1/{classes})")


def wrapped(title, columns):
    """A title in lines that fit a panel, where so many panels stand side by side."""
    return textwrap.fill(title, TITLE_LENGTH // max(2, columns))


def share(panels):
    """One y axis for some panels, once, when all is drawn: it has room for the numbers of all, and one scale."""
    for axes in panels[1:]:
        axes.sharey(panels[0])
    panels[0].autoscale_view(scalex=False)


def legend(figure):
    """One legend for all panels, below them, in as many columns as fit; the figure grows by its height."""
    entries = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    longest = max((len(label) for label in entries), default=1)
    room = int(figure.get_figwidth() * 72 / (longest * 5 + 45))
    rows = math.ceil(len(entries) / max(1, min(room, len(entries))))
    columns = max(1, math.ceil(len(entries) / max(1, rows)))  # rows of about one length
    figure.set_figheight(figure.get_figheight() + 0.2 * rows + 0.1)
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=columns, handlelength=3)


def png(figure):
    """The figure as PNG at 200 dots per inch."""
    return _saved(figure, "png")


def svg(figure):
    """The figure as SVG; equal figures give equal bytes."""
    return _saved(figure, "svg", metadata={"Date": None})


def _band(axes, x, low, high, colour, opacity):
    """A band, and where it has one point, and so no width, a bar."""
    axes.fill_between(x, low, high, color=colour, alpha=opacity, linewidth=0, zorder=2)
    if len(x) == 1:
        axes.vlines(x, low, high, color=colour, alpha=3 * opacity, linewidth=3, zorder=2)


def _saved(figure, kind, **options):
    """Bytes of a file."""
    out = io.BytesIO()
    with context():
        figure.savefig(out, format=kind, dpi=200, **options)
    return out.getvalue()
