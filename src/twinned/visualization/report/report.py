"""The report: one self-contained HTML file on how good a model is, how sure that is, and what it rests on.

No address outside the file; pictures are inside, and follow the reader's light or dark; prints well.

    figures   what was measured
    grounds   what that rests on
    page      how it looks
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
from .html import Html, page, tag

__all__ = ["render", "write_report"]


def write_report(model: Model, evaluation: Evaluation, path: str | os.PathLike[str], *, data: str) -> None:
    """Write the report of an evaluation, whole or not at all; a file that is there is replaced.

    Args:
        model: What was measured.
        evaluation: What was found; see `twinned.inference.model.Model.evaluate`.
        path: The HTML file.
        data: What to call the data it was measured on.

    Raises:
        OSError: If the file cannot be written.
    """
    write_text(Path(path), render(model, evaluation, data=data))


def render(model: Model, evaluation: Evaluation, *, data: str) -> str:
    """The report as text."""
    title = f"{model.folder.name} on {Path(data).name or data}"
    written = datetime.now(UTC).strftime("%d %B %Y")
    parts = [
        ("How well it tells them apart", figures.curves(model, evaluation)),
        ("How much is accepted, at what risk", figures.rates(evaluation)),
        ("The most confident mistakes", provenance.worst_pairs(model, evaluation)),
        ("The hardest classes", provenance.worst_classes(model, evaluation)),
        ("Recognition and search", figures.recognition(model, evaluation)),
        ("What it rests on", provenance.provenance(model, evaluation, data)),
        ("In plain words", provenance.glossary(evaluation.verification)),
    ]
    return page(
        title,
        tag(
            "header",
            tag("p", "Evaluation report", class_="over"),
            tag("h1", title),
            tag(
                "p",
                f"Protocol {evaluation.protocol}. Rates are fractions of 1. Written on {written}.",
                class_="quiet",
            ),
        ),
        *figures.glance(model, evaluation),
        *(_section(name, body) for name, body in parts if body),
        tag(
            "footer",
            f"Written by Twinned {__version__}. The figures as JSON: twinned evaluate MODEL DATA --json",
        ),
    )


def _section(name: str, body: list[Html]) -> Html:
    return tag("section", tag("h2", name), *body)
