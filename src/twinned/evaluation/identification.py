"""Identification, 1:N: thresholds that bound the false positive identification rate of a gallery.

The closest of N impostors decides, so with one threshold for all sizes the rate would grow with the gallery.
In galleries drawn from held-out classes, the distance of unknown probes to the closest label is tabulated.
Beyond their sizes, a gallery m times as large counts as m independent ones. For lower rates, the share of
distances below t falls like a power of t, as it does near 0 for any smooth distribution of embeddings; the
power is Hill's estimate less one standard error, the stricter side.

References:
    Grother, Ngan & Hanaoka, NIST FRVT part 2 (NISTIR 8271): FPIR and FNIR.
    Hill, Annals of Statistics 1975. ISO/IEC 5152:2024: extreme values for error rates from small sets.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..metrics.comparisons import Comparisons, Floats, Ints
from ..utils.groups import rank_within_group
from .calibration import Identification

_RATES = (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
_IMAGES = (1, 2, 4, 8)  # per label
_SIZES = tuple(int(first * 10**power) for power in range(4) for first in (1, 2, 5))  # labels in the gallery
_GALLERIES = 10  # drawn for each number of images per label
PROBES = 1000
_SUPPORT = 20  # unknown probes below a quantile that is read off without extrapolation
_TINY = 1e-12


def fit_identification(comparisons: Comparisons, *, seed: int = 0) -> Identification:
    """Tabulate the closest impostor of unknown probes in galleries drawn from the held-out classes.

    Comparisons with forgeries are left out, unless there are no others: an unknown probe is not a forgery.
    Without image numbers (a list of pairs) each impostor comparison is a probe of a gallery of one label.
    """
    impostors = comparisons.subset(~comparisons.same)
    if not impostors.forged.all():
        impostors = impostors.subset(~impostors.forged)
    if impostors.left_image is None or impostors.right_image is None:
        tables = {1: {1: _quantiles(impostors.distance, len(impostors), len(impostors))}}
    else:
        random = np.random.default_rng(seed)
        sides = np.stack([impostors.left_image, impostors.right_image])
        tables = _tables(*_probes(impostors, sides, random), random)
    return table_of(tables)


def table_of(tables: dict[int, dict[int, Floats]]) -> Identification:
    """Convert the result of `tabulate` to the form that a model stores."""
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
    probes = random.permutation(images)[:PROBES]
    row[probes] = np.arange(len(probes))
    matrix = np.full((len(probes), len(images)), np.inf, dtype=np.float32)
    for one, other in (sides, sides[::-1]):
        known = np.flatnonzero(row[one] >= 0)
        matrix[row[one[known]], column[other[known]]] = impostors.distance[known]
    return matrix, label[images]


def _tables(matrix: Floats, label: Ints, random: np.random.Generator) -> dict[int, dict[int, Floats]]:
    """Return the distances at each rate: ``{images per label: {labels: (rates,)}}``."""
    first = np.flatnonzero(np.diff(label, prepend=-1))
    counts = np.diff(first, append=len(label))
    known = np.add.reduceat(np.isfinite(matrix), first, axis=1, dtype=np.int64)
    # Galleries of several images per label need probes compared with all images of a label.
    most_images = np.median(counts) if np.isin(known / counts, (0, 1)).all() else 1

    def nearest(enrolled: Ints, begin: Ints) -> Floats:
        found: Floats = np.minimum.reduceat(matrix[:, enrolled], begin, axis=1)
        return found

    return tabulate(nearest, label, int(most_images), strangers=len(matrix), random=random)


def tabulate(
    nearest: Callable[[Ints, Ints], Floats],
    label: Ints,
    most_images: int,
    *,
    strangers: int,
    random: np.random.Generator,
) -> dict[int, dict[int, Floats]]:
    """Tabulate the distances at each rate in random galleries: ``{images per label: {labels: (rates,)}}``.

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
    return tables


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
