"""What a check says: problems of ten kinds, and the words for them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..images import ImageSource

Kind = Literal[
    "unreadable",
    "mode",
    "size",
    "duplicate",
    "near_duplicate",
    "single_image_class",
    "imbalance",
    "group_straddles_split",
    "shortcut",
    "too_few",
]
Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, or worth knowing.

    Args:
        kind: Which of the ten kinds.
        severity: ``error`` makes training or its figures wrong, ``warning`` may, ``info`` is good to know.
        message: What it is, how sure that is, and what to do: one line.
        files: The images concerned; those that belong together stand side by side.
    """

    kind: Kind
    severity: Severity
    message: str
    files: list[str]


@dataclass(frozen=True)
class Check:
    """What `check_data` found.

    Args:
        images: How many images there are, unreadable ones included.
        classes: How many classes; None for a pair list, which has none.
        problems: The most severe first.
    """

    images: int
    classes: int | None
    problems: list[Problem]

    def to_json(self) -> dict[str, Any]:
        """As ``twinned check --json`` prints it."""
        return asdict(self)


def names_of(images: Sequence[ImageSource]) -> list[str]:
    """The path of each image, or its place among the images."""
    return [
        os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {place}"
        for place, image in enumerate(images)
    ]


def many(count: int, one: str) -> str:
    """A count with its noun: 1 class, 2,000 classes."""
    several = one + ("es" if one.endswith("s") else "s")
    return f"{count:,} {one if count == 1 else several}"
