"""Thresholds and probabilities that a model stores, and decisions by them; `fitting` and others fit them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from ..data.preprocessing import Box
from ..errors import SettingError

if TYPE_CHECKING:
    from ..metrics.comparisons import Bools, Floats

_TINY = 1e-12
# Smallest probability of each wording of a verdict.
_WORDS = (
    (0.95, "Same"),
    (0.8, "Probably the same"),
    (0.2, "Cannot tell"),
    (0.05, "Probably different"),
    (0.0, "Different"),
)


class _Stored(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Logistic(_Stored):
    """Straight line: ``llr = intercept + slope * distance``."""

    method: Literal["logistic"] = "logistic"
    intercept: float
    slope: float = Field(le=0)

    def llr(self, distance: npt.ArrayLike) -> Floats:
        """Return the log likelihood ratio at each distance; it falls with the distance."""
        return self.intercept + self.slope * np.asarray(distance, dtype=np.float64)


class Isotonic(_Stored):
    """Falling curve through knots, linear between them and constant beyond them."""

    method: Literal["isotonic"] = "isotonic"
    knots: tuple[float, ...] = Field(min_length=1)
    values: tuple[float, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _falls(self) -> Isotonic:
        if len(self.knots) != len(self.values):
            raise ValueError(f"{len(self.knots)} knots need as many values; got {len(self.values)}")
        if np.any(np.diff(self.knots) <= 0) or np.any(np.diff(self.values) > 0):
            raise ValueError("knots must rise and values must not")
        return self

    def llr(self, distance: npt.ArrayLike) -> Floats:
        """Return the log likelihood ratio at each distance; it falls with the distance."""
        return np.interp(np.asarray(distance, dtype=np.float64), self.knots, self.values)


Evidence = Annotated[Logistic | Isotonic, Field(discriminator="method")]


def _ordered(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"an interval must run from low to high; got {ends[0]} to {ends[1]}")
    return ends


_Ends = Annotated[tuple[float, float], AfterValidator(_ordered)]
_Rate = Annotated[float, Field(ge=0, le=1)]


def check_prior(prior: float) -> None:
    """Raise an error if a prior probability is not between 0 and 1."""
    if not 0 < prior < 1:
        raise SettingError(f"A prior must be between 0 and 1, such as 0.5; got {prior}")


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
        """The evidence in words, by the probability: five levels from ``Same`` to ``Different``.

        The limits are 0.95, 0.8, 0.2 and 0.05. The decision ``same`` follows the threshold.
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


class FittedThreshold(_Stored):
    """Threshold and probability, with the counts behind them; ``same = distance <= threshold``."""

    threshold: float  # in units of the distance
    threshold_ci: _Ends | None  # 95 % interval from resampling classes; None without replicates
    far: Annotated[float, Field(gt=0, lt=1)] | None  # target false accept rate; None for equal error
    supported: bool  # at least 30 false accepts are expected at that rate (at the EER for equal error)
    impostors_needed: int = Field(ge=1)  # comparisons needed for that
    n_genuine: int = Field(ge=1)  # comparisons
    n_impostor: int = Field(ge=1)  # only those with forgeries if there are any
    n_classes: int = Field(ge=1)
    evidence: Evidence  # log likelihood ratio as a function of the distance
    prior: float = Field(gt=0, lt=1)  # P(same) in use
    cllr: Annotated[float, Field(ge=0)] | None  # in bits, cross-validated; None with too few classes
    min_cllr: float = Field(ge=0)  # cost with the best possible calibration of the same comparisons
    eer: _Rate  # equal error rate of these comparisons
    eer_ci: _Ends | None  # 95 % interval

    def same(self, distance: npt.ArrayLike) -> Bools:
        """Return True for each distance within the threshold."""
        return np.asarray(np.asarray(distance, dtype=np.float64) <= self.threshold)

    def llr(self, distance: npt.ArrayLike) -> Floats:
        """Return the log likelihood ratio of same against different; above 0 favors same."""
        return np.asarray(self.evidence.llr(distance))

    def probability(self, distance: npt.ArrayLike, *, prior: float | None = None) -> Floats:
        """Return the calibrated P(same) at each distance, in [0, 1]; it never rises with the distance.

        Args:
            distance: Any shape, or one number.
            prior: Share of same pairs in use, between 0 and 1; the stored one (0.5) by default.

        Raises:
            SettingError: If the prior is not between 0 and 1.
        """
        prior = self.prior if prior is None else prior
        check_prior(prior)
        logit = self.llr(distance) + math.log(prior / (1 - prior))
        return np.asarray(0.5 * (1 + np.tanh(logit / 2)))

    def verdict(
        self, distance: float, threshold: float | None = None, relations: Mapping[str, float] | None = None
    ) -> Verdict:
        """Decide by a distance, at the stored threshold or another one; ``relations`` are probabilities."""
        limit = self.threshold if threshold is None else threshold
        if not math.isfinite(limit):
            raise SettingError(f"A threshold must be a finite number; got {limit}")
        likeliest = max(relations.items(), key=lambda item: item[1]) if relations else (None, None)
        return Verdict(distance <= limit, float(self.probability(distance)), distance, limit, *likeliest)


class Identification(_Stored):
    """Thresholds by images per label, number of labels, and false positive identification rate."""

    images: tuple[int, ...] = Field(min_length=1)
    labels: tuple[tuple[int, ...], ...]  # for each number of images
    fpir: tuple[float, ...] = Field(min_length=2)
    threshold: tuple[tuple[tuple[float, ...], ...], ...]  # [images][labels][fpir]

    @model_validator(mode="after")
    def _fits(self) -> Identification:
        shape = [(len(row), {len(cells) for cells in row}) for row in self.threshold]
        margins, expected = (self.images, self.fpir, *self.labels), {len(self.fpir)}
        if len(shape) != len(self.images) or shape != [(len(sizes), expected) for sizes in self.labels]:
            raise ValueError("the table of identification thresholds does not have the shape of its margins")
        if any(np.any(np.diff(margin) <= 0) or margin[0] <= 0 for margin in margins):
            raise ValueError("the margins of the table of identification thresholds must be above 0 and rise")
        if any(sizes[0] != 1 for sizes in self.labels):
            raise ValueError("the table of identification thresholds begins with one label")
        return self

    def at(self, labels: int, fpir: float, images_per_label: float = 1.0) -> float:
        """Return the threshold for a gallery: above 0, and never higher for more labels."""
        if labels < 1 or images_per_label < 1 or not 0 < fpir < 1:
            raise SettingError(
                "A gallery needs at least 1 label with at least 1 image each, and a rate between 0 and 1; "
                f"got {labels} labels, {images_per_label} images per label and a rate of {fpir}"
            )
        row = int(np.searchsorted(self.images, images_per_label, side="right")) - 1
        sizes, table = self.labels[row], np.asarray(self.threshold[row])
        size = labels * images_per_label / self.images[row]  # images beyond the table count as labels
        known = min(size, sizes[-1])
        rate = -np.expm1(np.log1p(-fpir) * known / size)
        by_size = [_interpolated(rate, np.asarray(self.fpir), found) for found in table]
        return float(np.interp(np.log(known), np.log(sizes), by_size))


def _interpolated(rate: float, rates: Floats, thresholds: Floats) -> float:
    """Interpolate linearly in the logarithms of rate and threshold; extrapolate below the lowest rate."""
    x, y = np.log(rates), np.log(np.maximum(thresholds, _TINY))
    slope = (y[1] - y[0]) / (x[1] - x[0])
    return float(np.exp(np.interp(np.log(rate), x, y) + slope * min(np.log(rate) - x[0], 0.0)))


class ReferenceThreshold(FittedThreshold):
    """Threshold for the distance to a set of references."""

    images: int = Field(ge=2, le=1000)  # references in a set
    scaled: bool  # the mean distance scaled by the spread of the references, rather than the nearest


class ReferenceThresholds(_Stored):
    """Thresholds for sets of references, by number of references, ascending."""

    typical: float = Field(ge=0, le=1e30)  # mean distance of two held-out images of one class
    rows: tuple[ReferenceThreshold, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _ascending(self) -> ReferenceThresholds:
        if np.any(np.diff([row.images for row in self.rows]) <= 0):
            raise ValueError("the numbers of references must rise from row to row")
        return self

    def row(self, count: int) -> ReferenceThreshold:
        """Return the threshold for a number of references, or for the next smaller number."""
        return [row for row in self.rows if row.images <= count or row is self.rows[0]][-1]

    def distance(self, to: Floats, among: Floats) -> Floats:
        """Return the distance of each probe to a set of references, shape ``(n,)``; see `set_distance`."""
        row = self.row(len(to))
        return set_distance(to, among, typical=self.typical, scaled=row.scaled, images=row.images)


def set_distance(to: Floats, among: Floats, *, typical: float, scaled: bool, images: int) -> Floats:
    """Return the distance of probes to a set of references, shape ``(n,)``, at least 0, lower is closer.

    Nearest: the expected minimum over a random subset of ``images`` references, since the minimum over all
    falls with their number. Scaled: ``mean(d) * sqrt(typical / spread)``, where the spread is the references'
    mean distance from each other, with the typical distance counted once among them. The square root is a
    compromise between no scaling and division by the spread, which few references estimate poorly.
    """
    count = len(to)
    if not scaled:
        # Probability that the i-th nearest is the nearest of a random subset.
        share = np.ones(count)
        for i in range(1, count):
            share[i] = share[i - 1] * max(0, count - i + 1 - min(images, count)) / (count - i + 1)
        share -= np.append(share[1:], 0.0)
        return np.asarray(share @ np.sort(to, axis=0).astype(np.float64))
    pairs = among[np.triu_indices(count, 1)]
    spread = (pairs.sum(dtype=np.float64) + typical) / (len(pairs) + 1)
    return np.asarray(to.mean(axis=0, dtype=np.float64) * (np.sqrt(typical / spread) if spread > 0 else 1.0))


class Calibration(FittedThreshold):
    """Threshold and probability for two images, and the thresholds for galleries and reference sets.

    Args:
        unseen_classes: False if the encoder was trained on these classes; the threshold is then optimistic.
        identification: Thresholds for galleries.
        references: Thresholds for several references of one class; None if there were too few images.
    """

    unseen_classes: bool
    identification: Identification
    references: ReferenceThresholds | None = None

    def identification_threshold(
        self,
        labels_in_gallery: int,
        fpir: float = 0.01,
        *,
        images_per_label: float = 1.0,
        prototype: bool = False,
    ) -> float:
        """Return the threshold for 1:N search with a false positive identification rate of at most ``fpir``.

        It applies to the distance to the closest label and becomes stricter as the gallery grows.

        Args:
            labels_in_gallery: Number of labels a probe is compared with, at least 1.
            fpir: Target false positive identification rate, between 0 and 1.
            images_per_label: Mean number of images per label.
            prototype: Labels are represented by the mean of their images.

        Raises:
            SettingError: If a number is out of range.
        """
        if prototype:  # more images improve the mean; they do not act as further labels
            images_per_label = min(images_per_label, max(self.identification.images))
        return self.identification.at(labels_in_gallery, fpir, images_per_label)
