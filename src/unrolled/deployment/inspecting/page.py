"""Writes figures as one HTML page that needs no other file."""

from collections.abc import Iterable, Mapping
from html import escape

from unrolled.deployment.inspecting import svg
from unrolled.inspection.panels import Figure, Heatmaps, Lines, Panel, Points, Symbols, Table

_STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#5a6472;--line:#d4d9e0;--shade:20,60,140;
--c0:#0b5cad;--c1:#b3500b;--c2:#0d7a55;--c3:#8a2d83;--c4:#5a6472;--c5:#a3283c}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--ink:#e8eaed;--soft:#a5aeba;--line:#3a414b;
--shade:120,170,255;
--c0:#7fb8f5;--c1:#f0a060;--c2:#66cfa4;--c3:#dd9ad8;--c4:#a5aeba;--c5:#f08c9a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:62rem;padding:1rem;background:var(--paper);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif}
h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}h2{font-size:1.1rem;margin:0 0 .25rem}
p{margin:0 0 .75rem}figure{margin:0}figcaption{color:var(--soft);font-size:.9rem;margin-bottom:.5rem}
main{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:2rem 1.5rem}
.all{grid-column:1/-1}dl{display:grid;grid-template-columns:auto 1fr;gap:.1rem 1rem;margin:0 0 1.5rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
svg{display:block;width:100%;max-width:36rem;height:auto}svg text{font:11px system-ui,sans-serif;fill:var(--ink)}
svg .tick,svg .small{font-size:10px;fill:var(--soft)}svg .small{font-size:8px}svg .name{font-weight:600}
.axis{fill:none;stroke:var(--soft)}
.grid{fill:none;stroke:var(--line);stroke-width:.6}.frame{fill:none;stroke:var(--line)}
.curve{fill:none;stroke-width:1.8}.mark{fill:none;stroke-width:1.2}image{image-rendering:pixelated}
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}
.c3{stroke:var(--c3)}.c4{stroke:var(--c4)}.c5{stroke:var(--c5)}
.symbols{font:1rem/2 ui-monospace,monospace;overflow-wrap:anywhere}
.symbols span{background:rgba(var(--shade),calc(var(--s)*.6));white-space:pre-wrap}
.symbols .minus{border-bottom:2px solid rgba(var(--shade),calc(var(--s)*1));background:none}
.wide{overflow-x:auto}table{border-collapse:collapse;font-size:.9rem}
th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--line)}
"""


def page(title: str, facts: Mapping[str, str], figures: Iterable[Figure]) -> str:
    """Return an HTML document with all figures, which can be read in light and dark, on a phone and without color.

    Args:
        title: its title.
        facts: names and values at the beginning.
        figures: the figures, in their order.
    """
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    body = "".join(map(_figure, figures))
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><h1>{escape(title)}</h1>\n<dl>{terms}</dl>\n'
        f"<main>\n{body}</main></body></html>\n"
    )


def _figure(figure: Figure) -> str:
    kind = ' class="all"' if isinstance(figure.panel, Symbols | Table) else ""
    caption = f"<h2>{escape(figure.title)}</h2><figcaption>{escape(figure.sentence)}</figcaption>"
    return f"<figure{kind}>{caption}{_drawn(figure.panel)}</figure>\n"


def _drawn(panel: Panel) -> str:
    if isinstance(panel, Lines):
        return svg.lines(panel)
    if isinstance(panel, Points):
        return svg.points(panel)
    if isinstance(panel, Heatmaps):
        return svg.heatmaps(panel)
    if isinstance(panel, Symbols):
        return svg.symbols(panel)
    return svg.table(panel)
