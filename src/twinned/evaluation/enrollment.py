"""Enrollment: represent a label by the nearest of its images, or by their mean, the prototype.

The way that identifies more probes of held-out classes is stored with the model. Prototypes have a table of
thresholds for themselves, since a mean is closer to all probes than a single image.
Reference: Snell, Swersky & Zemel, Prototypical Networks, NIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..metrics.comparisons import Distances, Floats, Ints
from ..utils.groups import rank_within_group
from .calibration import Identification
from .identification import PROBES, table_of, tabulate

_BLOCK_VALUES = 1 << 22  # distances computed at a time
_DRAWS = 10  # galleries drawn to choose on
_MOST_IMAGES = 4  # maximum enrolled per label
_FPIR = 0.01
_SUPPORT = 5  # least number of unknown probes accepted at the threshold


@dataclass(frozen=True)
class Enrollment:
    """Representation of labels in a gallery."""

    prototype: bool  # by the mean of a label's images rather than by the nearest
    named: dict[str, float]  # share of probes identified correctly, for each way; empty with too few classes
    identification: Identification | None  # thresholds for galleries of prototypes; None for the nearest


def choose_enrollment(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, distances: Distances, *, seed: int = 0
) -> Enrollment:
    """Compare both ways on held-out classes.

    Half of the classes with three images or more are enrolled with half of their images, at most four. Their
    other images are probes, and so are all images of the other classes, which are unknown. The threshold
    accepts one unknown probe in a hundred. Prototypes are chosen only if they identify more probes.
    """
    vectors = np.asarray(embeddings, np.float32)
    code = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)
    counts = np.bincount(code)
    several = np.flatnonzero(counts > 2)
    if len(several) < 4:
        return Enrollment(False, {}, None)
    random = np.random.default_rng(seed)
    labelled = np.sort(code)
    rank = rank_within_group(labelled)
    images = np.minimum(counts // 2, _MOST_IMAGES)[labelled]
    named: dict[str, list[float]] = {"nearest": [], "prototype": []}
    for _ in range(_DRAWS):
        order = np.lexsort((random.random(len(code)), code))
        inside = np.isin(labelled, random.permutation(several)[: len(several) // 2])
        known = order[inside & (rank < images)]
        probes = random.permutation(order[inside & (rank >= images)])[:PROBES]
        unknown = random.permutation(order[~inside])[:PROBES]
        queries = vectors[np.concatenate([probes, unknown])]
        rate = max(_FPIR, _SUPPORT / len(unknown))
        for way, found in named.items():
            label, distance = nearest_label(
                queries, vectors[known], code[known], distances, prototype=way == "prototype"
            )
            within = distance <= np.quantile(distance[len(probes) :], min(rate, 1))
            found.append(float(np.mean((within & (label == code[[*probes, *unknown]]))[: len(probes)])))
    mean = {way: float(np.mean(found)) for way, found in named.items()}
    if mean["prototype"] <= mean["nearest"]:
        return Enrollment(False, mean, None)
    return Enrollment(True, mean, _fit_prototypes(vectors, code, distances, random))


def nearest_label(
    queries: Floats,
    enrolled: Floats,
    labels: npt.NDArray[np.generic],
    distances: Distances,
    *,
    prototype: bool,
) -> tuple[npt.NDArray[np.generic], Floats]:
    """Return the closest label of each query and its distance, both of shape ``(n,)``.

    ``labels`` are those of the enrolled images; with ``prototype`` their mean counts, not the nearest.
    """
    names, code = np.unique(labels, return_inverse=True)
    order = np.argsort(code, kind="stable")
    begin = np.searchsorted(code[order], np.arange(len(names)))
    rows = max(1, _BLOCK_VALUES // len(enrolled))
    enrolled = _means(enrolled[order], begin) if prototype else enrolled[order]
    best, least = [], []
    for start in range(0, len(queries), rows):
        distance = distances(queries[start : start + rows], enrolled)
        if not prototype:
            distance = np.minimum.reduceat(distance, begin, axis=1)
        best.append(distance.argmin(axis=1))
        least.append(distance.min(axis=1))
    return names[np.concatenate(best)], np.concatenate(least)


def _means(vectors: Floats, begin: Ints) -> Floats:
    """Return the mean of each run of rows, given the first row of each."""
    counts = np.diff(begin, append=len(vectors))
    found: Floats = (np.add.reduceat(vectors, begin, axis=0) / counts[:, None]).astype(np.float32)
    return found


def _fit_prototypes(
    vectors: Floats, code: Ints, distances: Distances, random: np.random.Generator
) -> Identification:
    """Tabulate thresholds for galleries of prototypes drawn from these images."""
    order = np.argsort(code, kind="stable")
    vectors, code = vectors[order], code[order]
    probes = random.permutation(len(code))[:PROBES]

    def nearest(enrolled: Ints, begin: Ints) -> Floats:
        apart = np.array(distances(vectors[probes], _means(vectors[enrolled], begin)), np.float32)
        apart[np.arange(len(probes)), code[probes]] = np.inf
        return apart

    most = int(np.median(np.bincount(code)))
    return table_of(tabulate(nearest, code, most, strangers=len(probes), random=random))
