"""Hook of mkdocs: TeX becomes MathML while the pages are built, so formulas need no script and no network."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(span|div) class="arithmatex">(?:\\\((.*?)\\\)|\\\[(.*?)\\\])</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Replace the formulas that pymdownx.arithmatex marked."""

    def mathml(found: re.Match[str]) -> str:
        tag, inline, block = found.groups()
        formula = convert(html.unescape(inline or block), display="block" if block else "inline")
        return f'<{tag} class="formula">{formula}</{tag}>'

    return _FORMULA.sub(mathml, content)
