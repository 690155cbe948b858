"""Hooks of mkdocs: formulas, pictures, logo and version."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_FORMULA = re.compile(r'<(span|div) class="arithmatex">(?:\\\((.*?)\\\)|\\\[(.*?)\\\])</\1>', re.DOTALL)
_PICTURE = re.compile(r'<p>(<img [^>]*?src="([^"]+)"[^>]*>)</p>')


def on_config(config: Any) -> Any:
    """Show the version beside the link to the source."""
    source = (ROOT / "src" / "twinned" / "__init__.py").read_text("utf-8")
    version = re.search(r'^__version__ = "(.+)"', source, re.MULTILINE)
    assert version is not None
    config["repo_name"] = f"Twinned {version[1]}"
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the logo, which is the icon of the product's page."""
    icon = ROOT / "src" / "twinned" / "server" / "static" / "icon.svg"
    files.append(File.generated(config, "icon.svg", abs_src_path=str(icon)))
    return files


def on_page_content(content: str, **_: Any) -> str:
    """Convert TeX to MathML, which needs no script and no network; link pictures to their full size."""

    def mathml(found: re.Match[str]) -> str:
        tag, inline, block = found.groups()
        formula = convert(html.unescape(inline or block), display="block" if block else "inline")
        return f'<{tag} class="formula">{formula}</{tag}>'

    return _PICTURE.sub(r'<p><a class="picture" href="\2">\1</a></p>', _FORMULA.sub(mathml, content))
