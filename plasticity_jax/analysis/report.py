"""The report of a result folder: one self-contained page, its figures and its tables.

    results/x/report.html
    results/x/figures/NAME.png and NAME.svg
    results/x/tables/variants.csv, differences.csv, and NAME.csv with the numbers behind each figure

A sweep that is still running gives a report that says how far it is.
"""

import json
import pathlib

from plasticity_jax.analysis import facts, figures, others, page, results, style, tables
from plasticity_jax.analysis import groups as grouping

__all__ = ["text", "write"]

METHOD = """
Seeds are the unit: n is their number, and every average over tasks or segments is taken inside a run first. Tables give
Student t intervals at 95% with n − 1 degrees of freedom. Changes, and differences between variants, are taken seed by
seed before they are averaged, since a seed has the same tasks and the same initial weights in every variant. Bands in
figures are bootstrap intervals at 95% for each point by itself: 10,000 resamples of whole runs, percentile intervals
whose tails are moved out for small n (Hesterberg, The American Statistician 69(4), 2015), because plain percentile
intervals of a mean are too narrow with few seeds. No interval is corrected for the number of comparisons. Runs that
diverged or lack numbers are left out as a whole and are named under warnings.
"""

COSTS = """
Times and products are of one measurement of all runs. Products are counted from the program before it runs: an upper
count, since padding, the costlier branch of a condition, and products that a run skips (blocks of a Gram matrix that
symmetry gives) are counted. A loop of unknown length counts one round, as those that find the eigenpairs of landscape
do: there the number is a lower bound. The row "before training" holds what diagnostics do once, such as the fits of a
probe's fresh networks.
"""


def write(folder):
    """Writes the report of a folder of results, replacing an earlier one; returns the path of the page.

    Raises:
      FileNotFoundError: the folder holds no results.
    """
    folder = pathlib.Path(folder)
    variants = results.load(folder)
    groups = grouping.split(variants)
    drawings = figures.draw(groups, facts.classes(variants))
    summary, differences = tables.summary(groups), tables.differences(groups)
    for drawing in drawings:
        _write(folder / "figures" / f"{drawing.name}.png", style.png(drawing.figure))
        _write(folder / "figures" / f"{drawing.name}.svg", style.svg(drawing.figure))
        _write(folder / "tables" / f"{drawing.name}.csv", tables.to_csv(drawing.curves))
    _write(folder / "tables" / "variants.csv", tables.to_csv(summary))
    _write(folder / "tables" / "differences.csv", tables.to_csv(differences))
    body = "\n".join(_sections(folder, variants, groups, summary, differences, drawings))
    _write(folder / "report.html", page.document(folder.resolve().name, _lead(variants, groups), body))
    return folder / "report.html"


def text(folder):
    """The tables for a terminal, with all warnings: what the scripts print."""
    variants = results.load(folder)
    groups = grouping.split(variants)
    kind = grouping.score(groups)
    summary, differences, unpaired = tables.summary(groups), tables.differences(groups), tables.unpaired(groups)
    parts = [f"final {kind}, mean ± half of the 95% interval over seeds", tables.to_text(summary)]
    parts += [tables.measured(summary)] if tables.measured(summary) else []
    parts += ["", "paired differences", tables.to_text(differences)] if differences else []
    parts += [note for note in (tables.measured(differences), unpaired) if note and note not in parts]
    warnings = facts.warnings(variants, groups)
    parts += ["", *(f"warning: {warning}" for warning in warnings)] if warnings else []
    return "\n".join(parts)


def _sections(folder, variants, groups, summary, differences, drawings):
    """The sections of the page, from top to bottom."""
    kind = grouping.score(groups)
    table = f"Final {kind} in the first and in the last task that have one, their difference, and online {kind} over "
    edges, paired_edges = tables.measured(summary), tables.measured(differences)
    table += f"all tasks. {edges}"
    paired = f"Differences, paired by seed. {paired_edges if paired_edges != edges else ''}"
    yield page.section("Warnings", page.bullets(facts.warnings(variants, groups), "warnings"))
    yield page.section(
        "Variants",
        f'<div class="scroll">{tables.to_html(summary, table)}</div>',
        f'<div class="scroll">{tables.to_html(differences, paired)}</div>' if differences else "",
        page.paragraph(tables.unpaired(groups)),
    )
    shown = [page.figure(d.name, (folder / "figures" / f"{d.name}.svg").read_bytes(), d.caption) for d in drawings]
    shown = [*shown, page.paragraph(others.undrawn(groups))] if shown else ["<p>Nothing to draw yet.</p>"]
    yield page.section("Figures", *shown)
    names = list(variants)
    yield page.section(
        "What was run",
        page.pairs(facts.status(variants, groups), ("variant", "state", "tasks done", "runs", "time")),
        page.pairs(facts.differing_settings(variants), ("setting that differs", *names)),
        page.pairs(facts.constant_settings(variants), ("setting of all variants", "value")),
        *(page.details(f"{n}: full configuration", _pretty(d)) for n, d in variants.items() if d.attrs["config"]),
    )
    heading = ("diagnostic", "measured", "time", "products (GFLOP)", "share of training's time")
    costs = page.pairs(facts.costs(variants), heading)
    yield page.section("What measuring cost", costs, page.paragraph(COSTS) if costs else "")
    yield page.section("How the intervals were made", page.paragraph(METHOD))
    yield page.section("Environment", page.pairs(facts.environment(variants)))


def _lead(variants, groups):
    """One sentence under the title."""
    runs = sum(d.sizes.get("run", 0) for d in variants.values())
    seeds = facts.spans(s for d in variants.values() if "seed" in d.coords for s in d["seed"].values.tolist())
    states = sorted({str(d.attrs["status"].get("state", "unknown")) for d in variants.values()})
    tasks = max(group.tasks for group in groups)
    counts = [_count(n, noun) for n, noun in ((len(variants), "variant"), (runs, "run"), (tasks, "task"))]
    return f"{', '.join(counts)}, seeds {seeds or '-'}; {', '.join(states)}."


def _count(n, noun):
    """A number with its noun."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _pretty(dataset):
    """A configuration for reading."""
    return json.dumps(dataset.attrs["config"], indent=2, ensure_ascii=False)


def _write(path, content):
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    partial.replace(path)
