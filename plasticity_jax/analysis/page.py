"""Pieces of a self-contained HTML page: escaping, tables of two columns, embedded figures, and the one style sheet."""

import base64
import html

__all__ = ["bullets", "details", "document", "figure", "pairs", "paragraph", "section"]

STYLE = """
body { font: .94rem/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; color: #1a1a1a; background: #fff;
       max-width: 66rem; margin: 2rem auto; padding: 0 1.25rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.lead { color: #555; margin: 0 0 1rem; }
table { border-collapse: collapse; font-size: .86rem; margin: .4rem 0 1.2rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: #555; padding-bottom: .4rem; }
th, td { padding: .28rem .8rem .28rem 0; text-align: right; vertical-align: top; }
th:first-child, table.pairs td, table.pairs th { text-align: left; }
thead th { border-bottom: 1.5px solid #1a1a1a; font-weight: 600; }
td { white-space: nowrap; } table.pairs td { white-space: normal; }
tbody th { font-weight: 500; } tbody tr { border-bottom: 1px solid #e4e4e4; }
tbody tr:last-child { border-bottom: 1.5px solid #1a1a1a; }
table.pairs td { overflow-wrap: anywhere; } table.pairs th { white-space: nowrap; } .scroll { overflow-x: auto; }
figure { margin: 1.4rem 0 2rem; break-inside: avoid; } figure img { max-width: 100%; height: auto; }
figcaption { font-size: .88rem; color: #333; max-width: 46rem; }
.warnings { border-left: 4px solid #d55e00; padding: .2rem 1rem; background: #fdf3ec; }
.warnings ul { margin: .4rem 0; padding-left: 1.1rem; }
pre { font-size: .8rem; white-space: pre-wrap; background: #f6f6f6; padding: .8rem; }
@media print { html { font-size: 11px; } body { max-width: none; margin: 0; padding: 0; } h2 { break-after: avoid; }
  figure img { max-width: 82%; } table { font-size: .78rem; } th, td { padding-right: .5rem; } @page { margin: 14mm; }
  tr { break-inside: avoid; } details { display: none; } .scroll { overflow: visible; } }
"""


def document(title, lead, body):
    """The whole page; it loads nothing from anywhere."""
    title, lead = html.escape(title), html.escape(lead)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n'
        f'<body><h1>{title}</h1><p class="lead">{lead}</p>\n{body}\n</body></html>\n'
    )


def section(title, *parts):
    """A heading and what follows, nothing at all where nothing follows."""
    parts = [part for part in parts if part]
    return "\n".join([f"<h2>{html.escape(title)}</h2>", *parts]) if parts else ""


def pairs(items, heading=("", "")):
    """A table of names and values from a dict; a value may be a list of cells.

    >>> pairs({"seeds": 8}).count("<tr>")
    1
    """
    if not items:
        return ""
    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in heading)
    head = f"<thead><tr>{head}</tr></thead>" if any(heading) else ""
    body = "\n".join(_row(name, value if isinstance(value, list) else [value]) for name, value in items.items())
    return f'<div class="scroll"><table class="pairs">{head}<tbody>\n{body}\n</tbody></table></div>'


def bullets(sentences, kind=""):
    """A list of sentences in a box of its own."""
    items = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in sentences)
    return f'<div class="{kind}"><ul>{items}</ul></div>' if sentences else ""


def figure(name, svg, caption):
    """A figure embedded as an SVG image; each is a document of its own, so that their identifiers cannot clash."""
    data = base64.b64encode(svg).decode("ascii")
    name, caption = html.escape(name), html.escape(caption)
    image = f'<img id="{name}" alt="{name}" src="data:image/svg+xml;base64,{data}">'
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def paragraph(text):
    """Sentences, nothing at all where there are none."""
    return f"<p>{html.escape(text)}</p>" if text else ""


def details(title, text):
    """Text that is folded away until asked for."""
    return f"<details><summary>{html.escape(title)}</summary><pre>{html.escape(text)}</pre></details>"


def _row(name, cells):
    """One row of `pairs`."""
    return (
        f"<tr><th>{html.escape(str(name))}</th>" + "".join(f"<td>{html.escape(str(c))}</td>" for c in cells) + "</tr>"
    )
