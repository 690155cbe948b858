"""Enrolment: whether a label is told by the nearest of its images, or by their mean, the prototype.

Both are tried on classes that training has not seen, and the one that names more people at the same rate of
strangers let in is kept with the model. Thresholds for galleries of prototypes are tabulated apart, since a
mean lies closer to everybody than an image does.

References:
    Snell, Swersky & Zemel, Prototypical Networks, NIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..metrics.comparisons import Distances, Floats, Ints
from .identification import (
    PROBES,
    Identification,
    table_of,
    tabulate,
)

_BLOCK_VALUES = 1 << 22  # distances formed at a time
_DRAWS = 10  # galleries drawn to choose on
_MOST_IMAGES = 4  # enrolled a label in them
_FPIR = 0.01
_SUPPORT = 5  # strangers let in for a threshold to be read off them


@dataclass(frozen=True)
class Enrolment:
    """How labels are told in a gallery.

    Args:
        prototype: By the mean of a label's images rather than by the nearest.
        named: For each way, the share of enrolled people's probes given their name in the galleries that it
            was chosen on; empty where there was nothing to choose by.
        identification: Thresholds for galleries of prototypes; None where the nearest image counts.
    """

    prototype: bool
    named: dict[str, float]
    identification: Identification | None


def choose_enrolment(
    embeddings: npt.ArrayLike, labels: npt.ArrayLike, distances: Distances, *, seed: int = 0
) -> Enrolment:
    """Try both ways on held-out classes.

    Half of the classes with three images or more are enrolled with half of their images, at most four; their
    other images are probes, and all images of the other classes strangers. The threshold lets in one stranger
    in a hundred. Means win only where they name more.

    Args:
        embeddings: Of classes that the encoder was not trained on, shape ``(n, d)``.
        labels: Shape ``(n,)``.
        distances: All pairs, ``(n, d), (m, d) -> (n, m)``.
        seed: Of galleries.

    Example:
        Images of one class scatter widely: their mean says more than any one of them.

        >>> random, label = np.random.default_rng(0), np.arange(200) // 10
        >>> vectors = random.normal(size=(20, 9))[label] + random.normal(size=(200, 9))
        >>> from twinned.distances import euclidean
        >>> choose_enrolment(vectors, label, lambda a, b: euclidean(a, b, pairwise=True)).prototype
        True
    """
    vectors = np.asarray(embeddings, np.float32)
    code = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)
    counts = np.bincount(code)
    several = np.flatnonzero(counts > 2)
    if len(several) < 4:
        return Enrolment(False, {}, None)
    random = np.random.default_rng(seed)
    labelled = np.sort(code)
    rank = np.arange(len(code)) - np.searchsorted(labelled, labelled)  # within the class
    images = np.minimum(counts // 2, _MOST_IMAGES)[labelled]
    named: dict[str, list[float]] = {"nearest": [], "prototype": []}
    for _ in range(_DRAWS):
        order = np.lexsort((random.random(len(code)), code))
        inside = np.isin(labelled, random.permutation(several)[: len(several) // 2])
        known = order[inside & (rank < images)]
        probes = random.permutation(order[inside & (rank >= images)])[:PROBES]
        strangers = random.permutation(order[~inside])[:PROBES]
        asked = vectors[np.concatenate([probes, strangers])]
        rate = max(_FPIR, _SUPPORT / len(strangers))
        for way, found in named.items():
            label, apart = nearest_label(
                asked, vectors[known], code[known], distances, prototype=way == "prototype"
            )
            within = apart <= np.quantile(apart[len(probes) :], min(rate, 1))
            found.append(float(np.mean((within & (label == code[[*probes, *strangers]]))[: len(probes)])))
    mean = {way: float(np.mean(found)) for way, found in named.items()}
    if mean["prototype"] <= mean["nearest"]:
        return Enrolment(False, mean, None)
    return Enrolment(True, mean, _fit_prototypes(vectors, code, distances, random))


def nearest_label(
    queries: Floats,
    enrolled: Floats,
    labels: npt.NDArray[np.generic],
    distances: Distances,
    *,
    prototype: bool,
) -> tuple[npt.NDArray[np.generic], Floats]:
    """The closest label of each query, and its distance, shape ``(n,)`` both.

    Args:
        queries: Embeddings, shape ``(n, d)``.
        enrolled: Embeddings of a gallery's images, shape ``(m, d)``.
        labels: Theirs, shape ``(m,)``.
        distances: All pairs, ``(n, d), (m, d) -> (n, m)``.
        prototype: By the mean of a label's embeddings rather than by the nearest.
    """
    if len(queries) > (rows := max(1, _BLOCK_VALUES // len(enrolled))):
        parts = [
            nearest_label(queries[i : i + rows], enrolled, labels, distances, prototype=prototype)
            for i in range(0, len(queries), rows)
        ]
        return tuple(np.concatenate(side) for side in zip(*parts, strict=True))  # type: ignore[return-value]
    names, code = np.unique(labels, return_inverse=True)
    order = np.argsort(code.reshape(-1), kind="stable")
    begin = np.searchsorted(code.reshape(-1)[order], np.arange(len(names)))
    if prototype:
        apart = distances(queries, _means(enrolled[order], begin))
    else:
        apart = np.minimum.reduceat(distances(queries, enrolled[order]), begin, axis=1)
    best = apart.argmin(axis=1)
    return names[best], apart[np.arange(len(best)), best]


def _means(vectors: Floats, begin: Ints) -> Floats:
    """The mean of each run of rows, runs beginning at these rows."""
    counts = np.diff(begin, append=len(vectors))
    found: Floats = (np.add.reduceat(vectors, begin, axis=0) / counts[:, None]).astype(np.float32)
    return found


def _fit_prototypes(
    vectors: Floats, code: Ints, distances: Distances, random: np.random.Generator
) -> Identification:
    """Thresholds for galleries of prototypes, from galleries drawn from these images."""
    order = np.argsort(code, kind="stable")
    vectors, code = vectors[order], code[order]
    probes = random.permutation(len(code))[:PROBES]

    def nearest(enrolled: Ints, begin: Ints) -> Floats:
        apart = np.array(distances(vectors[probes], _means(vectors[enrolled], begin)), np.float32)
        apart[np.arange(len(probes)), code[probes]] = np.inf
        return apart

    most = int(np.median(np.bincount(code)))
    return table_of(tabulate(nearest, code, most, strangers=len(probes), random=random))
