"""What a model answers: whether two images show the same thing, and which class an image shows."""

from __future__ import annotations

from typing import Any, NamedTuple


class Verdict(NamedTuple):
    """Whether two images show the same thing, and how sure that is.

    Args:
        same: Whether the distance is within the threshold.
        probability: Calibrated P(same), in [0, 1].
        distance: At least 0, lower is closer.
        threshold: ``same = distance <= threshold``.
        relation: The likeliest relation, where the model has a relation head.
        relation_probability: Of that relation, by the head, in [0, 1].
    """

    same: bool
    probability: float
    distance: float
    threshold: float
    relation: str | None = None
    relation_probability: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The verdict under its JSON keys; those of the relation only where there is one."""
        answer = self._asdict()
        return answer if self.relation else {key: answer[key] for key in answer if "relation" not in key}


class Prediction(NamedTuple):
    """Which class an image shows.

    Args:
        image: What the image is called.
        label: The class; None where no class is within the threshold: unknown.
        probability: Calibrated P(same) with the nearest class, in [0, 1].
        distance: To the nearest class, all its examples considered, at least 0, lower is closer.
        nearest: The nearest class, be it within the threshold or not.
    """

    image: str
    label: str | None
    probability: float
    distance: float
    nearest: str

    def to_json(self) -> dict[str, Any]:
        """The guess under its JSON keys."""
        return {k: v for k, v in self._asdict().items() if k != "nearest"}
