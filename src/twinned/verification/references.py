"""Several references of one class: what a probe's distances to all of them say together.

One threshold for the nearest of K references lets in more impostors the larger K is, and takes no notice of
how much a person's signatures differ among themselves. Here sets of references are drawn from held-out
classes, probes are held up to them, and a threshold and a probability are fitted for each of a few K. The
distance to a set is either that to the nearest reference, or the mean distance measured by how far the
references lie from each other; whichever had the lower equal error rate on the held-out classes.

References:
    Hafemann, Sabourin & Oliveira, Offline handwritten signature verification: literature review, 2017:
    references of a writer, skilled forgeries apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from .comparisons import Comparisons, Floats, Ints
from .curves import eer
from .thresholds import FittedThreshold, fit_threshold

COUNTS = (2, 3, 5, 10)
_CLASSES = 60  # at most so many that sets are drawn from
_TO_CHOOSE = 4  # at least so many for the choice of a distance; with fewer, the nearest reference counts
_SETS = 4  # drawn of each class
_PROBES = 30  # held up to a set, at most: genuine ones, and as many impostors
_IMAGES = 4096  # compared all with all at a time


class ReferenceThreshold(FittedThreshold):
    """A threshold for the distance to a set of references.

    Args:
        images: References in a set.
        scaled: Whether the distance is the mean one, measured by the references' spread; else the nearest.
    """

    images: int = Field(ge=2)
    scaled: bool


class References(BaseModel):
    """Thresholds for sets of references.

    Args:
        typical: Mean distance of two held-out images of one class, in units of the distance.
        rows: One for each number of references, ascending.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    typical: float = Field(ge=0)
    rows: tuple[ReferenceThreshold, ...] = Field(min_length=1)

    def row(self, count: int) -> ReferenceThreshold:
        """What was fitted for so many references, or for the next larger number; the largest beyond that."""
        return next((row for row in self.rows if row.images >= count), self.rows[-1])

    def distance(self, to: Floats, among: Floats) -> Floats:
        """How far each probe is from a set of references, shape ``(n,)``, at least 0, lower is closer.

        Args:
            to: Distances of the references to the probes, shape ``(k, n)``, k at least 2.
            among: Distances of the references to each other, shape ``(k, k)``.
        """
        return set_distance(to, among, typical=self.typical, scaled=self.row(len(to)).scaled)


def set_distance(to: Floats, among: Floats, *, typical: float, scaled: bool) -> Floats:
    """The distance to the nearest reference, or the mean one measured by the references' spread.

    ``mean(d) * sqrt(typical / spread)``, where the spread is the references' mean distance from each other,
    with the typical one counted once among them. Where references differ as much as is typical it is the
    mean distance; a writer of steady hand is judged more strictly, one of unsteady hand more leniently.
    The square root stands between no scaling and dividing by the spread: a few references tell it poorly.

    Args:
        to: Shape ``(k, n)``.
        among: Shape ``(k, k)``.
        typical: Mean distance of two images of one class.
        scaled: Which of the two.

    Returns:
        Shape ``(n,)``, at least 0, lower is closer.

    Example:
        Two references that are alike, and two that are not, each 0.4 from the probe.

        >>> to = np.array([[0.4], [0.4]])
        >>> alike, unlike = np.array([[0, 0.1], [0.1, 0]]), np.array([[0, 0.3], [0.3, 0]])
        >>> [float(set_distance(to, a, typical=0.2, scaled=True)[0].round(3)) for a in (alike, unlike)]
        [0.462, 0.358]
    """
    if not scaled:
        return np.asarray(to.min(axis=0))
    pairs = among[np.triu_indices(len(among), 1)]
    spread = (pairs.sum() + typical) / (len(pairs) + 1)
    return np.asarray(to.mean(axis=0) * (np.sqrt(typical / spread) if spread > 0 else 1.0))


class _Drawn(NamedTuple):
    """Images of one class in random order, the first of them references, and impostors."""

    label: int
    among: Floats  # (n, n): of the class's images
    impostor: Floats  # (n, m): of those images to impostors
    who: Ints  # (m,): the impostors' classes


def fit_references(
    comparisons: Comparisons, *, far: float | None = None, prior: float = 0.5, seed: int = 0
) -> References | None:
    """Thresholds for as many references as held-out classes have images.

    Args:
        comparisons: Of classes that the encoder was not trained on, every image with every other one.
        far: The false accept rate to hold; equal error by default.
        prior: P(same) before looking.
        seed: Of the sets.

    Returns:
        None for a list of pairs, and where fewer than two classes have three images.
    """
    drawn = _draw(comparisons, seed)
    if not drawn:
        return None
    typical = float(np.mean(comparisons.genuine))
    rows = []
    for count in COUNTS:
        nearest = _held_up(drawn, count, typical, scaled=False)
        measured = _held_up(drawn, count, typical, scaled=True)
        if nearest is None or measured is None:
            break
        enough = len(np.unique(measured.left)) >= _TO_CHOOSE
        scaled = enough and eer(measured.distance, measured.same) < eer(nearest.distance, nearest.same)
        fitted = fit_threshold(measured if scaled else nearest, far=far, prior=prior, seed=seed)
        rows.append(ReferenceThreshold(**dict(fitted), images=count, scaled=scaled))
    return References(typical=typical, rows=tuple(rows)) if rows else None


def compare_references(
    comparisons: Comparisons, references: References, *, seed: int = 0
) -> dict[int, Comparisons]:
    """Probes held up to sets of references drawn from these classes, for each number of references.

    Numbers that the classes here are too few or too small for are left out.
    """
    drawn = _draw(comparisons, seed)
    found = {
        row.images: _held_up(drawn, row.images, references.typical, scaled=row.scaled)
        for row in references.rows
    }
    return {images: pairs for images, pairs in found.items() if pairs is not None}


def _draw(comparisons: Comparisons, seed: int) -> list[_Drawn]:
    """Several orders of each class's images, with impostors: forgeries where there are any."""
    pairs = comparisons.hardest()
    if pairs.left_image is None or pairs.right_image is None or not len(pairs):
        return []
    random = np.random.default_rng(seed)
    label = np.full(int(max(pairs.left_image.max(), pairs.right_image.max())) + 1, -1)
    label[pairs.left_image], label[pairs.right_image] = pairs.left, pairs.right
    genuine = np.zeros(len(label), bool)
    genuine[pairs.left_image[pairs.same]] = genuine[pairs.right_image[pairs.same]] = True
    counts = np.bincount(label[genuine], minlength=label.max() + 1)
    several = random.permutation(np.flatnonzero(counts >= 3))[:_CLASSES]
    if len(several) < 2:
        return []
    inside = np.isin(label, several)
    others = random.permutation(np.flatnonzero(~inside & (label >= 0)))[: max(0, _IMAGES - inside.sum())]
    kept = np.sort(np.concatenate([np.flatnonzero(inside)[:_IMAGES], others]))
    place = np.full(len(label), -1)
    place[kept] = np.arange(len(kept))
    matrix = np.full((len(kept), len(kept)), np.nan, np.float32)
    left, right = place[pairs.left_image], place[pairs.right_image]
    both = (left >= 0) & (right >= 0)
    matrix[left[both], right[both]] = matrix[right[both], left[both]] = pairs.distance[both]
    np.fill_diagonal(matrix, 0)
    label, genuine = label[kept], genuine[kept]
    drawn = []
    for name in several.tolist():
        own = np.flatnonzero(genuine & (label == name))
        for _ in range(_SETS):
            order = random.permutation(own)[: COUNTS[-1] + _PROBES]
            compared = np.isfinite(matrix[order]).all(axis=0)
            compared[own] = False
            strangers = random.permutation(np.flatnonzero(compared))[:_PROBES]
            if np.isfinite(matrix[np.ix_(order, order)]).all() and len(strangers):
                drawn.append(
                    _Drawn(
                        name, matrix[np.ix_(order, order)], matrix[np.ix_(order, strangers)], label[strangers]
                    )
                )
    return drawn


def _held_up(drawn: Sequence[_Drawn], count: int, typical: float, *, scaled: bool) -> Comparisons | None:
    """Every set's probes against its first ``count`` images; None with fewer than two classes."""
    enough = [one for one in drawn if len(one.among) > count]
    if len({one.label for one in enough}) < 2:
        return None
    distance, same, right = [], [], []
    for one in enough:
        probes = one.among[:count, count : count + _PROBES]
        to = np.concatenate([probes, one.impostor[:count]], axis=1)
        distance.append(set_distance(to, one.among[:count, :count], typical=typical, scaled=scaled))
        same.append(np.arange(to.shape[1]) < probes.shape[1])
        right.append(np.concatenate([np.full(probes.shape[1], one.label), one.who]))
    left = np.repeat([one.label for one in enough], [len(part) for part in distance])
    return Comparisons(
        np.concatenate(distance).astype(np.float32),
        np.concatenate(same),
        left.astype(np.int32),
        np.concatenate(right).astype(np.int32),
    )
