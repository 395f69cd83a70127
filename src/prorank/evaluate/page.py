"""One self-contained HTML page: style and pictures inside, nothing fetched, text escaped by jinja2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from prorank._optional import require

__all__ = ["Section", "render_page"]


class Section(NamedTuple):
    """A part of the page; what is empty is left out."""

    title: str
    text: str = ""
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    pictures: Sequence[tuple[str, str]] = ()
    """(caption, SVG)."""
    note: str = ""


def render_page(title: str, summary: Sequence[str], sections: Sequence[Section], footer: str) -> str:
    """The page as HTML.

    Args:
        summary: lead sentences.
        footer: how it was made.
    """
    jinja2 = require("jinja2", extra="evaluate")
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_TEMPLATE)
    page: str = template.render(title=title, summary=summary, sections=sections, footer=footer, style=_STYLE)
    return page


_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --card: #ffffff; --ink: #1b1f24; --soft: #5b6470; --rule: #e3e6ea;
  --s0: #5b6470; --s1: #2463b8; --s2: #c2561a; --s3: #1f7a5c; --s4: #7a4fb5; --s5: #9aa3ad; --neg: #c2561a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --card: #1b1f24; --ink: #e8eaed; --soft: #a3acb7;
  --rule: #2f353c; --s0: #a3acb7; --s1: #6ba6f2; --s2: #f0955a; --s3: #5cc29d; --s4: #b592ea; --s5: #6d7680;
  --neg: #f0955a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .75rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.75rem 0 .5rem; }
p { margin: .35rem 0; max-width: 46rem; }
.lead { padding-left: 1.1rem; margin: 1rem 0; }
.lead li { margin: .3rem 0; }
.note, footer, figcaption { color: var(--soft); font-size: .875rem; }
.table, figure { border: 1px solid var(--rule); border-radius: 8px; background: var(--card); }
.table { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .75rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; }
th:first-child, td:first-child { text-align: left; }
td.words { text-align: left; white-space: normal; }
tr:last-child td { border-bottom: 0; }
figure { margin: 1rem 0 1.5rem; padding: 1rem; }
figcaption { margin-bottom: .5rem; }
figure.small { max-width: 26rem; }
svg { display: block; width: 100%; height: auto; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: 1rem; overflow-wrap: anywhere; }
svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .name { fill: var(--ink); } svg .value { fill: var(--ink); font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--rule); } svg .axis { stroke: var(--soft); }
svg .level { stroke-width: 1.5; stroke-dasharray: 5 4; }
svg .bar { stroke-width: 2.5; stroke-linecap: round; opacity: .55; }
svg .curve { fill: none; stroke-width: 1.5; opacity: .6; }
svg .dot { stroke: var(--card); stroke-width: 1.5; }
svg .pos { fill: var(--s1); } svg .neg { fill: var(--neg); }
svg .area { fill-opacity: .28; stroke-width: 1.5; }
svg .h0 { fill: var(--s1); stroke: var(--s1); } svg .h1 { fill: var(--s2); stroke: var(--s2); }
svg .h2 { fill: var(--s5); stroke: var(--s5); }
""" + "\n".join(
    f"svg .bar.s{i}, svg .level.s{i}, svg .curve.s{i} {{ stroke: var(--s{i}); }} svg .dot.s{i} {{ fill: var(--s{i}); }}"
    for i in range(6)
)

_TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>{{ style | safe }}</style>
</head>
<body>
<main>
<h1>{{ title }}</h1>
<ul class="lead">
{% for sentence in summary %}
<li>{{ sentence }}</li>
{% endfor %}
</ul>
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% if section.text %}
<p>{{ section.text }}</p>
{% endif %}
{% if section.rows %}
<div class="table"><table>
<thead><tr>{% for cell in section.headers %}<th>{{ cell }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in section.rows %}
<tr>{% for cell in row %}<td{% if cell | length > 48 %} class="words"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table></div>
{% endif %}
{% for caption, picture in section.pictures %}
<figure{% if 'viewBox="0 0 360' in picture %} class="small"{% endif %}>
<figcaption>{{ caption }}</figcaption>
{{ picture | safe }}
</figure>
{% endfor %}
{% if section.note %}
<p class="note">{{ section.note }}</p>
{% endif %}
{% endfor %}
<footer>{{ footer }}</footer>
</main>
</body>
</html>
"""
