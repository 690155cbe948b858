"""Identification, 1:N: thresholds that bound the false positive identification rate of a gallery.

The closest of N impostors decides, so with one threshold for all sizes the rate would grow with the gallery.
In galleries drawn from held-out classes, the distance of unknown probes to the closest label is tabulated.
Beyond their sizes, a gallery m times as large counts as m independent ones. For lower rates, the share of
distances below t falls like a power of t, as it does near 0 for any smooth distribution of embeddings; the
power is Hill's estimate less one standard error, the stricter side.

A label is represented by the nearest of its images, or by their mean, the prototype. Prototypes have a table
of their own, since a mean is closer to all probes than a single image.

References:
    Grother, Ngan & Hanaoka, NIST FRVT part 2 (NISTIR 8271): FPIR and FNIR.
    Hill, Annals of Statistics 1975. ISO/IEC 5152:2024: extreme values for error rates from small sets.
    Snell, Swersky & Zemel, NIPS 2017: prototypes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..metrics.comparisons import Comparisons, Distances, Floats, Ints
from ..utils.groups import rank_within_group
from .calibration import Identification

_RATES = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
_IMAGES = (1, 2, 4, 8)  # per label
_SIZES = tuple(int(first * 10**power) for power in range(4) for first in (1, 2, 5))  # labels in the gallery
_GALLERIES = 10  # drawn for each number of images per label
_PROBES = 1000
_SUPPORT = 20  # unknown probes below a quantile that is read off without extrapolation
_TINY = 1e-12
_BLOCK_VALUES = 1 << 22  # distances computed at a time
# To choose between nearest images and prototypes:
_DRAWS = 10  # galleries
_MOST_IMAGES = 4  # maximum enrolled per label
_FPIR = 0.01
_LEAST = 5  # least number of unknown probes accepted at the threshold


def fit_identification(comparisons: Comparisons, *, seed: int = 0) -> Identification:
    """Tabulate the closest impostor of unknown probes in galleries drawn from the held-out classes.

    Comparisons with forgeries are left out, unless there are no others: an unknown probe is not a forgery.
    Without image numbers (a list of pairs) each impostor comparison is a probe of a gallery of one label.
    """
    impostors = comparisons.subset(~comparisons.same)
    if not impostors.forged.all():
        impostors = impostors.subset(~impostors.forged)
    if impostors.left_image is None or impostors.right_image is None:
        return _stored({1: {1: _quantiles(impostors.distance, len(impostors), len(impostors))}})
    random = np.random.default_rng(seed)
    sides = np.stack([impostors.left_image, impostors.right_image])
    return _fit_nearest(*_probes(impostors, sides, random), random)


def _stored(tables: dict[int, dict[int, Floats]]) -> Identification:
    """Convert distances at each rate, ``{images per label: {labels: (rates,)}}``, to the form of a model."""
    # Thresholds fall with the number of labels, except where some probes met too few labels.
    rows = [np.minimum.accumulate(list(by_size.values()), axis=0).tolist() for by_size in tables.values()]
    return Identification(
        images=tuple(tables),
        labels=tuple(tuple(by_size) for by_size in tables.values()),
        fpir=_RATES,
        threshold=tuple(tuple(map(tuple, by_size)) for by_size in rows),
    )


def _probes(impostors: Comparisons, sides: Ints, random: np.random.Generator) -> tuple[Floats, Ints]:
    """Return distances of some images to all, ``(probes, images)``, inf if not compared; and labels."""
    label = np.full(int(sides.max()) + 1, -1)
    label[sides] = impostors.left, impostors.right
    images = np.argsort(label, kind="stable")[np.count_nonzero(label < 0) :]
    column, row = np.full((2, len(label)), -1)
    column[images] = np.arange(len(images))
    probes = random.permutation(images)[:_PROBES]
    row[probes] = np.arange(len(probes))
    matrix = np.full((len(probes), len(images)), np.inf, dtype=np.float32)
    for one, other in (sides, sides[::-1]):
        known = np.flatnonzero(row[one] >= 0)
        matrix[row[one[known]], column[other[known]]] = impostors.distance[known]
    return matrix, label[images]


def _fit_nearest(matrix: Floats, label: Ints, random: np.random.Generator) -> Identification:
    """Tabulate thresholds for galleries of single images, given the result of `_probes`."""
    first = np.flatnonzero(np.diff(label, prepend=-1))
    counts = np.diff(first, append=len(label))
    known = np.add.reduceat(np.isfinite(matrix), first, axis=1, dtype=np.int64)
    # Galleries of several images per label need probes compared with all images of a label.
    most_images = np.median(counts) if np.isin(known / counts, (0, 1)).all() else 1

    def nearest(enrolled: Ints, begin: Ints) -> Floats:
        found: Floats = np.minimum.reduceat(matrix[:, enrolled], begin, axis=1)
        return found

    return _tabulate(nearest, label, int(most_images), len(matrix), random)


def _tabulate(
    nearest: Callable[[Ints, Ints], Floats],
    label: Ints,
    most_images: int,
    strangers: int,
    random: np.random.Generator,
) -> Identification:
    """Tabulate the distances at each rate in random galleries.

    ``nearest`` gets the enrolled images, label by label, and the first position of each label. It returns
    the distance of each probe to each label, ``(probes, labels)``, inf for its own. Labels are ascending.
    """
    first = np.flatnonzero(np.diff(label, prepend=-1))
    rank = rank_within_group(label)
    tables: dict[int, dict[int, Floats]] = {}
    for images in (k for k in _IMAGES if k <= most_images):
        closest: dict[int, list[Floats]] = {}
        for _ in range(_GALLERIES):
            shuffled = np.lexsort((random.random(len(label)), label))
            enrolled = shuffled[rank < images]
            begin = np.flatnonzero(np.diff(label[enrolled], prepend=-1))
            distance = nearest(enrolled, begin)[:, random.permutation(len(first))]
            compared = np.cumsum(np.isfinite(distance), axis=1)
            closest_so_far = np.minimum.accumulate(distance, axis=1)
            most = max(1, int(np.quantile(compared[:, -1], 0.05)))
            for size in (*(size for size in _SIZES if size < most), most):
                enough = compared[:, -1] >= size
                column = np.argmax(compared[enough] >= size, axis=1)
                closest.setdefault(size, []).append(closest_so_far[enough, column])
        tables[images] = {
            size: _quantiles(np.concatenate(closest[size]), strangers, len(first)) for size in sorted(closest)
        }
    return _stored(tables)


def _quantiles(closest: Floats, strangers: int, classes: int) -> Floats:
    """Return the distance at each rate, extrapolated by a power law below what ``strangers`` support."""
    support = max(1.0, min(_SUPPORT, strangers / 2))
    anchor, rates = support / strangers, np.asarray(_RATES)
    start = float(np.quantile(closest, anchor))
    tail = closest[closest <= start].astype(np.float64)
    # Hill: 1 / power is the mean log of how far the tail reaches below its start.
    reach = np.mean(np.log(start / np.maximum(tail, start * _TINY))) if start > 0 else 0.0
    reach /= max(1 - min(support, classes) ** -0.5, 0.1)
    found: Floats = np.where(rates >= anchor, np.quantile(closest, rates), start * (rates / anchor) ** reach)
    return found


@dataclass(frozen=True)
class Enrollment:
    """Representation of labels in a gallery."""

    prototype: bool  # by the mean of a label's images rather than by the nearest
    named: dict[str, float]  # share of probes identified correctly, for each way; empty with too few classes
    identification: Identification | None  # thresholds for galleries of prototypes; None for the nearest


def choose_enrollment(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, distances: Distances, *, seed: int = 0
) -> Enrollment:
    """Choose the nearest image or the mean of the images of a label, by the probes identified.

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
        probes = random.permutation(order[inside & (rank >= images)])[:_PROBES]
        unknown = random.permutation(order[~inside])[:_PROBES]
        queries = vectors[np.concatenate([probes, unknown])]
        rate = max(_FPIR, _LEAST / len(unknown))
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
    probes = random.permutation(len(code))[:_PROBES]

    def nearest(enrolled: Ints, begin: Ints) -> Floats:
        apart = np.array(distances(vectors[probes], _means(vectors[enrolled], begin)), np.float32)
        apart[np.arange(len(probes)), code[probes]] = np.inf
        return apart

    most = int(np.median(np.bincount(code)))
    return _tabulate(nearest, code, most, len(probes), random)
