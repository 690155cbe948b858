"""Results of a model: `Verdict` and `Prediction`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from ..data.preprocessing import Box

# Smallest probability of each wording of a verdict.
_WORDS = (
    (0.95, "Same"),
    (0.8, "Probably the same"),
    (0.2, "Cannot tell"),
    (0.05, "Probably different"),
    (0.0, "Different"),
)


class Verdict(NamedTuple):
    """Decision whether two images show the same identity.

    Args:
        same: True if the distance is within the threshold.
        probability: Calibrated P(same), in [0, 1].
        distance: At least 0, lower is closer.
        threshold: ``same = distance <= threshold``.
        relation: Most likely relation, for models with a relation head.
        relation_probability: Probability of that relation, in [0, 1].
    """

    same: bool
    probability: float
    distance: float
    threshold: float
    relation: str | None = None
    relation_probability: float | None = None

    @property
    def verdict(self) -> str:
        """The evidence in words: five levels, from ``Same`` and ``Probably the same`` to ``Different``.

        The words follow the probability, with limits at 0.95, 0.8, 0.2 and 0.05. The decision ``same``
        follows the threshold.
        """
        return next(words for least, words in _WORDS if self.probability >= least)

    def to_json(self) -> dict[str, Any]:
        """Return the verdict under its JSON keys; those of the relation only with a relation head."""
        answer = self._asdict() | {"verdict": self.verdict}
        return answer if self.relation else {key: answer[key] for key in answer if "relation" not in key}


class Prediction(NamedTuple):
    """Class of an image.

    Args:
        image: Name of the image.
        label: Class; None where no class is within the threshold: unknown.
        probability: Calibrated P(same) for the nearest class, in [0, 1].
        distance: Distance to the nearest class, with all its examples, at least 0, lower is closer.
        nearest: Nearest class, within the threshold or not.
        threshold: Largest distance at which the class is named.
        box: Box of the face, if every face of the image has an answer: left, top, right, bottom in pixels of
            the upright image.
    """

    image: str
    label: str | None
    probability: float
    distance: float
    nearest: str
    threshold: float
    box: Box | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the prediction under its JSON keys; ``box`` only if there is one, no infinite threshold."""
        found = {"probability": self.probability, "distance": self.distance}
        answer: dict[str, Any] = {"image": self.image, "label": self.label, **found}
        answer |= {"nearest": {"label": self.nearest, **found}}
        answer |= {"threshold": self.threshold if math.isfinite(self.threshold) else None}
        return answer | ({"box": self.box} if self.box else {})
