"""HTML elements with escaped text, figures in the colors of the page, and the style sheet."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

from PIL import Image

from ...data.images import ImageSource
from ...evaluation.results import number
from ..style import svg, thumbnail

# Colors of the figures, and the variables of the page that replace them in light and dark mode.
_COLORS = {
    "#1a2029": "var(--ink)",
    "#66707c": "var(--gray)",
    "#d3d9e0": "var(--rule)",
    "#ffffff": "var(--paper)",
    "#0072b2": "var(--blue)",
    "#d55e00": "var(--orange)",
}


class Html(str):
    """Markup, as returned by `tag`; any other string is text and gets escaped."""


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """Return an element. ``class_`` sets ``class``; children and attributes that are None are omitted.

    Example:
        >>> tag("p", "1 < 2", class_="sum")
        '<p class="sum">1 &lt; 2</p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in ("img", "meta"):
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{join(inside)}</{name}>")


def join(parts: Iterable[object]) -> Html:
    """Concatenate parts; everything but markup is escaped."""
    return Html("".join(p if isinstance(p, Html) else html.escape(str(p)) for p in parts if p is not None))


def one_in(rate: float) -> str:
    """Format a rate as, for example, "1 in 40"."""
    if rate in (0, 1):
        return "all" if rate else "none"
    return f"1 in {1 / rate:,.0f}" if rate < 0.4 else number(rate)


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """Return a table; all columns but the first are numbers. On a phone each cell repeats its heading."""
    top = tag("tr", *(tag("th", name, scope="col") for name in head))
    body = [
        tag(
            "tr",
            tag("th", row[0], scope="row"),
            *(tag("td", value, data_head=name) for name, value in zip(head[1:], row[1:], strict=True)),
        )
        for row in rows
    ]
    return tag("div", tag("table", tag("thead", top), tag("tbody", *body)), class_="table")


def facts(rows: Iterable[tuple[object, object]]) -> Html:
    """Return a description list; rows whose value is None are omitted."""
    return tag(
        "dl", *(join([tag("dt", name), tag("dd", value)]) for name, value in rows if value is not None)
    )


def figure(drawn: Any, caption: object, *, name: str) -> Html:
    """Return a figure with a caption, which starts with the title of the axes, and a unique name."""
    title = drawn.get_title(loc="left")
    drawn.set_title("", loc="left")
    words = [tag("b", title, ". "), caption] if title else [caption]
    return tag("figure", inline(svg(drawn), name), tag("figcaption", *words))


def inline(picture: str, name: str) -> Html:
    """Prepare an SVG for inclusion in a page: without addresses, with unique ids and the page's colors."""
    body = picture[picture.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    opening, rest = body.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    rest = rest.replace("xlink:href", "href")
    rest = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", rest)
    rest = re.sub(r"#[0-9a-f]{6}", lambda m: _COLORS.get(m[0], m[0]), rest)
    return Html(f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(name)}">{rest}')


def photo(source: ImageSource, *, size: int = 144, alt: str = "") -> Html:
    """Return an image as an element with embedded data."""
    file = io.BytesIO()
    Image.fromarray(thumbnail(source, size)).convert("RGB").save(file, "JPEG", quality=86)
    address = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return tag("img", src=address, alt=alt)


def page(title: str, *sections: Html) -> str:
    """Return the document."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    body = tag("body", tag("main", *sections))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


STYLE = """
:root { --ink: #1a2029; --gray: #66707c; --rule: #d9dee4; --paper: #ffffff; --wash: #f4f6f8;
  --blue: #0072b2; --orange: #c65200; --green: #007f5c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebef; --gray: #98a2ae; --rule: #343c46; --paper: #14181e; --wash: #1c2229;
    --blue: #5db4ea; --orange: #ff9048; --green: #35c597; }
}
* { box-sizing: border-box }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "DejaVu Sans", sans-serif;
  font-variant-numeric: tabular-nums; -webkit-print-color-adjust: exact; print-color-adjust: exact }
main { max-width: 1040px; margin: 0 auto; padding: 56px 32px 80px }
header { border-bottom: 2px solid var(--ink); padding-bottom: 20px; margin-bottom: 28px }
.over { font-size: 13px; letter-spacing: .08em; text-transform: uppercase; color: var(--gray); margin: 0 }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -.02em; margin: 6px 0 8px; overflow-wrap: anywhere }
h2 { font-size: 21px; letter-spacing: -.01em; margin: 56px 0 6px; padding-top: 14px;
  border-top: 1px solid var(--rule) }
h3 { font-size: 15px; margin: 26px 0 8px }
h3::first-letter, .tile .name::first-letter { text-transform: uppercase }
p { margin: 8px 0 12px; max-width: 46em }
.lead { font-size: 19px; line-height: 1.45; max-width: 40em; margin: 0 0 22px }
.quiet, small { color: var(--gray); font-size: 14px }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(210px, 1fr)); gap: 14px }
.tile { background: var(--wash); border-radius: 10px; padding: 14px 16px 12px }
.tile .name { font-size: 13px; color: var(--gray); line-height: 1.3; min-height: 2.6em; display: block }
.tile .value { font-size: 30px; font-weight: 650; letter-spacing: -.02em; line-height: 1.2; display: block }
.tile .ends { font-size: 13px; color: var(--gray) }
.track { display: block; position: relative; height: 6px; border-radius: 3px; background: var(--rule);
  margin: 9px 0 6px }
.track i { position: absolute; top: 0; bottom: 0; border-radius: 3px; background: var(--blue); opacity: .45;
  min-width: 3px }
.track b { position: absolute; top: -3px; width: 3px; height: 12px; margin-left: -1px; background: var(--ink);
  border-radius: 1px }
ul.checks { list-style: none; padding: 0; margin: 22px 0 0; display: grid; gap: 8px }
ul.checks li { display: grid; grid-template-columns: 26px 1fr; font-size: 15px }
ul.checks li > b { font-size: 16px }
.good > b { color: var(--green) } .bad > b { color: var(--orange) } .open > b { color: var(--gray) }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(380px, 1fr)); gap: 28px 36px;
  margin-top: 18px }
figure { margin: 0; break-inside: avoid }
figure svg { width: 100%; height: auto; display: block; overflow: visible }
figure svg text { font-family: inherit !important }
figcaption { font-size: 14px; color: var(--gray); margin-top: 6px; line-height: 1.42 }
figcaption b { color: var(--ink) }
.table { overflow-x: auto; margin: 12px 0 }
table { border-collapse: collapse; width: 100%; font-size: 14.5px }
th, td { text-align: right; padding: 7px 12px; border-bottom: 1px solid var(--rule); vertical-align: middle }
th:first-child, td:first-child { text-align: left; padding-left: 0 }
thead th { font-size: 13px; font-weight: 600; color: var(--gray); border-bottom: 1px solid var(--ink) }
tbody th { font-weight: 500; overflow-wrap: anywhere }
.bar { display: inline-block; height: 9px; border-radius: 2px; background: var(--orange); margin-right: 8px;
  vertical-align: baseline; opacity: .8 }
.mark { font-size: 13px; color: var(--orange) }
ol.next { margin: 0 0 26px; padding-left: 1.3em; display: grid; gap: 6px; max-width: 52em }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 20px }
.pair { break-inside: avoid; font-size: 13.5px; line-height: 1.4 }
.pair div { display: flex; gap: 6px; margin-bottom: 6px }
.pair img, .pair .gone { width: calc(50% - 3px); height: 118px; object-fit: contain; background: var(--wash);
  border-radius: 6px }
.pair .gone { display: grid; place-items: center; color: var(--gray); font-size: 12px }
.pair summary { list-style: none; cursor: zoom-in } .pair summary::-webkit-details-marker { display: none }
.pair[open] { grid-column: 1 / -1 } .pair[open] summary { cursor: zoom-out }
.pair[open] img { height: auto; max-height: 70vh; image-rendering: auto }
.pair code { display: block; font-size: 12px } .pair b { font-weight: 600 }
.pair span { color: var(--gray); display: block; overflow-wrap: anywhere }
td img, th img { height: 44px; width: 44px; object-fit: contain; vertical-align: middle; border-radius: 4px;
  background: var(--wash); margin-right: 10px }
dl { display: grid; grid-template-columns: minmax(150px, 230px) 1fr; gap: 0 20px; font-size: 14.5px;
  margin: 12px 0 }
dt, dd { padding: 7px 0; margin: 0; border-bottom: 1px solid var(--rule); overflow-wrap: anywhere }
dt { color: var(--gray) }
code { font: 13px/1.4 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere }
footer { margin-top: 56px; padding-top: 14px; border-top: 2px solid var(--ink); font-size: 13.5px;
  color: var(--gray) }
@media (max-width: 560px) { main { padding: 32px 18px } .pictures { grid-template-columns: 1fr }
  dl { grid-template-columns: 1fr } dt { border: 0; padding-bottom: 0 } h1 { font-size: 27px }
  thead { display: none } tbody tr { display: grid; grid-template-columns: 1fr 1fr; gap: 2px 12px;
    padding: 9px 0; border-bottom: 1px solid var(--rule) }
  tbody th, tbody td { border: 0; padding: 0; text-align: left } tbody th { grid-column: 1 / -1 }
  td::before { content: attr(data-head) " "; color: var(--gray) } td:empty { display: none } }
@page { margin: 16mm 14mm }
@media print {
  :root { --ink: #000; --gray: #4a525c; --rule: #c9ced4; --paper: #fff; --wash: #f3f4f6;
    --blue: #0072b2; --orange: #c65200; --green: #007f5c }
  body { font-size: 10.5pt } main { max-width: none; padding: 0 } h1 { font-size: 24pt }
  h2 { break-after: avoid; margin-top: 28pt } .tile { border: 1px solid var(--rule); padding: 8px 12px }
  .tiles { grid-template-columns: repeat(3, 1fr) }
  .pictures { grid-template-columns: 1fr 1fr; gap: 14px 20px }
  .pairs { grid-template-columns: repeat(3, 1fr); gap: 10px 16px } h3 { break-after: avoid }
  dt, dd { break-inside: avoid } th, td { padding: 4px 8px } td { white-space: nowrap }
  tr, .pair, figure, .tile { break-inside: avoid }
  .table { overflow: visible }
}
"""
