"""Report of an evaluation: one self-contained HTML file with metrics, intervals and data provenance.

The file loads nothing from outside, follows the reader's light or dark mode, and prints well.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from ... import __version__
from ...evaluation.results import Evaluation
from ...inference.model import Model
from ...utils.files import write_text
from . import figures, provenance
from .html import page, tag

__all__ = ["render", "write_report"]


def write_report(model: Model, evaluation: Evaluation, path: str | os.PathLike[str], *, data: str) -> None:
    """Write the report of an evaluation to an HTML file, atomically; an existing file is replaced.

    Raises:
        OSError: If the file cannot be written.
    """
    write_text(Path(path), render(model, evaluation, data=data))


def render(model: Model, evaluation: Evaluation, *, data: str) -> str:
    """Return the report as HTML."""
    title = f"{model.folder.name} on {Path(data).name or data}"
    written = datetime.now(UTC).strftime("%d %B %Y")
    parts = [
        ("What to do next", figures.advice(model, evaluation)),
        ("Verification", figures.curves(model, evaluation)),
        ("Metrics", figures.metrics(evaluation)),
        ("Most confident errors", provenance.worst_pairs(model, evaluation)),
        ("Hardest classes", provenance.worst_classes(model, evaluation)),
        ("Data and model", provenance.provenance(model, evaluation, data)),
        ("Glossary", provenance.glossary(evaluation.verification)),
    ]
    text = f"Protocol {evaluation.protocol}. Rates are fractions of 1. Written on {written}."
    foot = f"Written by Twinned {__version__}. Figures as JSON: twinned evaluate MODEL DATA --json"
    head = (tag("p", "Evaluation report", class_="over"), tag("h1", title), tag("p", text, class_="quiet"))
    return page(
        title,
        tag("header", *head),
        *figures.glance(model, evaluation),
        *(tag("section", tag("h2", name), *body) for name, body in parts if body),
        tag("footer", foot),
    )
