"""Results of a check: problems of eleven kinds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

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
    "faces",
]
Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


@dataclass(frozen=True)
class Issue:
    """Issue found in a dataset.

    Args:
        kind: One of eleven kinds.
        severity: ``error`` for problems that invalidate training or its metrics, ``warning`` for those that
            may, ``info`` for remarks.
        message: One line with the problem, its certainty and the remedy.
        files: Affected images; related images are adjacent.
    """

    kind: Kind
    severity: Severity
    message: str
    files: list[str]


@dataclass(frozen=True)
class Check:
    """Result of `twinned.data.checks.checker.check_data`.

    Args:
        images: Number of images, including unreadable ones.
        classes: Number of classes; None for a pair list.
        problems: Problems, most severe first.
    """

    images: int
    classes: int | None
    problems: list[Issue]

    def to_json(self) -> dict[str, Any]:
        """Return the result as `twinned check --json` prints it."""
        return asdict(self)
