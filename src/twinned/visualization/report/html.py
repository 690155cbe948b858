"""HTML elements with escaped text, and figures in the colors of the page."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from importlib.resources import files
from typing import Any

from PIL import Image

from ...data.images import ImageSource
from ...errors import ImageError
from ...evaluation.results import number
from .. import colors
from ..style import svg, thumbnail

# Colors of the figures, and the variables of the page that replace them in light and dark mode.
_COLORS = {
    colors.INK: "var(--ink)",
    colors.GRAY: "var(--gray)",
    colors.RULE: "var(--rule)",
    colors.PAPER: "var(--paper)",
    colors.BLUE: "var(--blue)",
    colors.VERMILLION: "var(--orange)",
}


class Html(str):
    """Markup, as returned by `tag`; any other string is text and gets escaped."""


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """Return an element. ``class_`` sets ``class``; children and attributes that are None are omitted."""
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
    body = []
    for first, *rest in rows:
        cells = (tag("td", value, data_head=name) for name, value in zip(head[1:], rest, strict=True))
        body.append(tag("tr", tag("th", first, scope="row"), *cells))
    return tag("div", tag("table", tag("thead", top), tag("tbody", *body)), class_="table")


def facts(rows: Iterable[tuple[object, object]]) -> Html:
    """Return a description list; rows whose value is None are omitted."""
    known = (row for row in rows if row[1] is not None)
    return tag("dl", *(part for name, value in known for part in (tag("dt", name), tag("dd", value))))


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
    for color, variable in _COLORS.items():
        rest = rest.replace(color, variable)
    return Html(f'<svg {box[0] if box else ""} role="img" aria-label="{html.escape(name)}">{rest}')


def photo(source: ImageSource, alt: str, *, size: int = 288) -> Html:
    """Return an image as an element with embedded data, or a note if it was deleted after the evaluation."""
    file = io.BytesIO()
    try:
        Image.fromarray(thumbnail(source, size)).save(file, "JPEG", quality=86)
    except ImageError:
        return tag("span", "file not found", class_="gone")
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
        tag("style", Html("\n" + files(__package__).joinpath("style.css").read_text("utf-8"))),
    )
    body = tag("body", tag("main", *sections))
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"
