"""Comparisons: distances of image pairs, whether each pair is the same, and the classes behind them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from ..distances import all_pairs
from ..errors import DataError

if TYPE_CHECKING:
    from ..data.datasets import ImageSet, PairSet
    from ..data.preprocessing import ImageSpec

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Ints: TypeAlias = npt.NDArray[np.integer[Any]]
Bools: TypeAlias = npt.NDArray[np.bool_]

Distances: TypeAlias = Callable[[Floats, Floats], Floats]
"""All pairs: ``(n, d), (m, d) -> (n, m)``; at least 0, lower is closer."""

DistanceLike: TypeAlias = str | Distances
"""`Distances`, or the name of a distance: euclidean, squared_euclidean, manhattan or cosine."""

Labels: TypeAlias = Sequence[object] | npt.NDArray[Any]

_BLOCK_VALUES = 1 << 22  # distances computed at a time
_MUCH = 0.1  # share of all pairs above which computing all distances is faster than gathering pairs


def as_array(values: Any) -> npt.NDArray[Any]:
    """Convert values to a NumPy array; a torch tensor is copied to the CPU."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def as_vectors(embeddings: npt.ArrayLike) -> Floats:
    """Convert embeddings to finite floats of shape ``(n, d)``, half precision to float32."""
    vectors = as_array(embeddings)
    if vectors.ndim != 2:
        raise DataError(f"Embeddings must have shape (n, d); got {vectors.shape}")
    if vectors.dtype not in (np.float32, np.float64):
        vectors = vectors.astype(np.float32)
    if bad := np.count_nonzero(~np.isfinite(vectors).all(axis=1)):
        raise DataError(f"{bad} of {len(vectors)} embeddings have NaN or infinite values")
    return vectors


def class_numbers(labels: Labels) -> Ints:
    """Return the position of each label in ``np.unique(labels)``."""
    names = as_array(labels) if hasattr(labels, "dtype") else np.asarray(list(labels))
    numbers: Ints = np.unique(names, return_inverse=True)[1]
    return numbers


def labeled_vectors(embeddings: npt.ArrayLike, labels: Labels) -> tuple[Floats, Ints]:
    """Return embeddings as floats ``(n, d)`` and the numbers of their classes ``(n,)``."""
    vectors, label = as_vectors(embeddings), class_numbers(labels)
    if len(vectors) != len(label):
        raise DataError(f"Each embedding needs one label; got {len(vectors)} and {len(label)} labels")
    return vectors, label


class Comparator(Protocol):
    """Measures distances between embeddings: at least 0, lower is closer."""

    def distances(self, left: Floats, right: Floats, /) -> Floats:
        """All pairs: ``(n, d), (m, d) -> (n, m)``."""

    def paired_distances(self, left: Floats, right: Floats, /) -> Floats:
        """Row by row: ``(n, d), (n, d) -> (n,)``."""


class Embedder(Comparator, Protocol):
    """Turns images into embeddings and measures distances between them: a model, for example."""

    @property
    def spec(self) -> ImageSpec:
        """Image preprocessing."""

    def embed_pixels(self, pixels: Any, /) -> Floats:
        """Embed decoded images: uint8 ``(n, height, width, channels)`` to ``(n, d)``."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Distances of image pairs, whether each pair is the same, and the classes behind them.

    Args:
        distance: float32 ``(n,)``; at least 0, lower is closer.
        same: bool ``(n,)``; True for a genuine comparison, False for an impostor.
        left: int32 ``(n,)``: class number (person, writer) of the left image. Classes are the
            unit that is resampled for intervals.
        right: Class number of the right image. A forgery has the class of the writer that it imitates.
        skilled: bool ``(n,)``, True for an impostor comparison with a forgery; None without forgeries.
        left_image: int32 ``(n,)``: row of the left image in the embeddings; None for a list of pairs.
        right_image: Row of the right image.

    Raises:
        DataError: If the lengths differ or a distance is not finite.
    """

    distance: Floats
    same: Bools
    left: Ints
    right: Ints
    skilled: Bools | None = None
    left_image: Ints | None = None
    right_image: Ints | None = None

    def __post_init__(self) -> None:
        lengths = {name: len(array) for name, array in self._arrays().items()}
        if len(set(lengths.values())) != 1:
            raise DataError(f"Each array must have one value per comparison; got lengths {lengths}")
        if bad := np.count_nonzero(~np.isfinite(self.distance)):
            raise DataError(f"{bad} of {len(self)} distances are NaN or infinite. Distances must be finite")

    def __len__(self) -> int:
        return len(self.distance)

    @property
    def genuine(self) -> Floats:
        """Distances of the genuine comparisons."""
        return self.distance[self.same]

    @property
    def impostor(self) -> Floats:
        """Distances of the impostor comparisons."""
        return self.distance[~self.same]

    @property
    def forged(self) -> Bools:
        """``skilled``, or all False without forgeries."""
        return np.zeros(len(self), bool) if self.skilled is None else self.skilled

    @cached_property
    def classes(self) -> Ints:
        """Class numbers present, ascending."""
        present = np.zeros(_past(self.left, self.right), bool)
        present[self.left] = present[self.right] = True
        return np.flatnonzero(present)

    @property
    def n_classes(self) -> int:
        """Number of classes present."""
        return len(self.classes)

    def subset(self, keep: Bools | Ints) -> Comparisons:
        """Select comparisons by a mask or by positions."""
        return replace(self, **{name: array[keep] for name, array in self._arrays().items()})

    def ascending(self) -> Comparisons:
        """Sort by distance, ascending; return self where already sorted."""
        if np.all(self.distance[1:] >= self.distance[:-1]):
            return self
        return self.subset(np.argsort(self.distance))

    def against(self, impostors: Literal["random", "skilled"]) -> Comparisons:
        """Select genuine comparisons and those with another class (random) or with a forgery (skilled)."""
        return self.subset(self.same | (self.forged == (impostors == "skilled")))

    def hardest(self) -> Comparisons:
        """Select genuine comparisons against skilled forgeries if there are any; else return all.

        A threshold that rejects forgeries mostly rejects random impostors too (`unknown_probes_pass` finds
        the exceptions). The reverse does not hold, and a mixture of both would depend on their numbers.
        """
        return self.against("skilled") if self.forged.any() else self

    @staticmethod
    def concatenate(parts: Sequence[Comparisons]) -> Comparisons:
        """Concatenate comparisons of disjoint classes, such as those of cross-validation folds.

        Class and image numbers are shifted, so that parts never share a class or an image.

        Raises:
            DataError: If `parts` is empty, or only some parts mark forgeries.
        """
        if not parts or len({part.skilled is None for part in parts}) > 1:
            marked = sum(part.skilled is not None for part in parts)
            raise DataError(f"All parts must mark forgeries or none; got {len(parts)}, {marked} with marks")
        columns = [part._arrays() for part in parts]
        names = set.intersection(*(set(arrays) for arrays in columns))
        for sides in ({"left", "right"} & names, {"left_image", "right_image"} & names):
            past = 0
            for arrays in columns:
                arrays |= {name: arrays[name] + past for name in sides}
                past = max(past, _past(*(arrays[name] for name in sides)))
        return Comparisons(**{name: np.concatenate([one[name] for one in columns]) for name in names})

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return the arrays that are not None, by their names."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: array for name, array in values.items() if array is not None}


def _past(*arrays: Ints) -> int:
    """Return the lowest number above all values of these arrays."""
    return max((int(array.max(initial=-1)) for array in arrays), default=-1) + 1


def compare(
    embeddings: Floats,
    dataset: ImageSet | PairSet,
    comparator: Comparator,
    *,
    limit: int = 10_000_000,
    seed: int = 0,
) -> Comparisons:
    """Compare the images of a data set: each with every other one, or the pairs of a pair list.

    Args:
        embeddings: Shape ``(n, d)``, one for each image of the data set.
        dataset: Labeled images or pairs.
        comparator: Distances between embeddings, for example a model.
        limit: Approximate maximum number of comparisons; see `compare_all`.
        seed: Seed of the sample where there are more.
    """
    if hasattr(dataset, "same"):  # data.PairSet, which this layer cannot import
        pairs = cast("PairSet", dataset)
        distance = comparator.paired_distances(embeddings[pairs.left], embeddings[pairs.right])
        group = pairs.identity_groups()
        return compare_pairs(distance, pairs.same, left=group[pairs.left], right=group[pairs.right])
    labels, forgery = dataset.labels, dataset.forgery
    return compare_all(embeddings, labels, comparator.distances, forgery=forgery, limit=limit, seed=seed)


def compare_all(
    embeddings: npt.ArrayLike,
    labels: Labels,
    distances: DistanceLike,
    *,
    forgery: npt.ArrayLike | None = None,
    limit: int = 10_000_000,
    seed: int = 0,
) -> Comparisons:
    """Compare every image with every other one, once, in blocks.

    A forgery is compared only with genuine images of the label that it imitates, as different. Two
    forgeries are never compared.

    Args:
        embeddings: Shape ``(n, d)``.
        labels: Shape ``(n,)``. Class numbers are positions in ``np.unique(labels)``.
        distances: Name of a distance, or a function that computes all pairs, ``(n, d), (m, d) -> (n, m)``.
        forgery: bool ``(n,)``, True where the image imitates its label.
        limit: Approximate maximum number of comparisons. Beyond it all comparisons within a label are kept
            (as long as they fill at most half), and a uniform sample of the others.
        seed: Seed of that sample.

    Raises:
        DataError: If the lengths differ, or there are fewer than two images.
        SettingError: If the name is not known.

    Example:
        >>> found = compare_all([[0.0], [1.0], [5.0]], "aab", "euclidean")
        >>> found.distance.tolist(), found.same.tolist()
        ([1.0, 5.0, 4.0], [True, False, False])
    """
    vectors, label, measure = as_vectors(embeddings), class_numbers(labels), all_pairs(distances)
    forged = np.zeros(len(label), bool) if forgery is None else np.asarray(forgery, dtype=bool)
    if not len(vectors) == len(label) == len(forged) or len(label) < 2:
        raise DataError(
            "At least two embeddings are needed, each with a label; "
            f"got {len(vectors)} embeddings, {len(label)} labels and {len(forged)} forgery marks"
        )
    within, across = count_pairs(label, forged)
    if within + across <= limit:
        pairs = _every_pair(vectors, label, forged, measure)
    else:
        share = min(1.0, max(limit // 2, limit - across) / within) if within else 0.0
        rest = (limit - share * within) / across if across else 0.0
        pairs = _some_pairs(vectors, label, forged, measure, share, rest, np.random.default_rng(seed))
    parts = list(pairs)
    left, right = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    distance = np.concatenate([part[2] for part in parts])
    one_label, with_forgery = label[left] == label[right], forged[left] | forged[right]
    return Comparisons(
        distance=distance,
        same=one_label & ~with_forgery,
        left=label[left].astype(np.int32),
        right=label[right].astype(np.int32),
        skilled=None if forgery is None else with_forgery,
        left_image=left,
        right_image=right,
    )


def count_pairs(labels: npt.NDArray[Any], forgery: Bools) -> tuple[int, int]:
    """Count comparisons within a label (forgeries included) and across labels."""
    _, label = np.unique(labels, return_inverse=True)
    real, fake = (np.bincount(label[chosen], minlength=label.max() + 1) for chosen in (~forgery, forgery))
    within = int((real * (real - 1)).sum()) // 2 + int((real * fake).sum())
    return within, (int(real.sum()) ** 2 - int((real**2).sum())) // 2


def compare_pairs(
    distance: npt.ArrayLike,
    same: npt.ArrayLike,
    *,
    left: Labels | None = None,
    right: Labels | None = None,
    skilled: npt.ArrayLike | None = None,
) -> Comparisons:
    """Build comparisons from pairs with known distances.

    Args:
        distance: Shape ``(n,)``.
        same: bool ``(n,)``.
        left: Class (person, writer) of each pair's left image. Without classes each pair is an independent
            unit, which makes intervals too narrow where pairs share people.
        right: Class of the right image.
        skilled: bool ``(n,)``, True where one image is a forgery.

    Raises:
        DataError: If the lengths differ, or only one of ``left`` and ``right`` is given.

    Example:
        >>> found = compare_pairs([0.1, 0.9], [True, False], left=["anna", "anna"], right=["anna", "ben"])
        >>> found.left.tolist(), found.right.tolist()
        ([0, 0], [0, 1])
    """
    values = np.asarray(distance, dtype=np.float32)
    if (left is None) != (right is None):
        raise DataError("Classes are needed for both images of each pair, or for neither; got one side")
    sides = np.tile(np.arange(len(values)), 2)
    if left is not None and right is not None:
        sides = np.unique(np.concatenate([np.asarray(left), np.asarray(right)]), return_inverse=True)[1]
    if len(sides) != 2 * len(values):
        raise DataError(f"Each pair must have two classes; got {len(values)} pairs and {len(sides)} classes")
    first, second = sides.reshape(2, -1).astype(np.int32)
    forged = None if skilled is None else np.asarray(skilled, dtype=bool)
    return Comparisons(values, np.asarray(same, dtype=bool), first, second, forged)


_Pairs: TypeAlias = Iterator[tuple[Ints, Ints, Floats]]  # rows of the left and right images, their distances


def _every_pair(vectors: Floats, label: Ints, forged: Bools, distances: Distances) -> _Pairs:
    n = len(label)
    rows = max(1, _BLOCK_VALUES // n)
    for start in range(0, n, rows):
        i, j = np.arange(start, min(start + rows, n))[:, None], np.arange(start, n)[None, :]
        comparable = ~(forged[i] | forged[j]) | ((label[i] == label[j]) & ~(forged[i] & forged[j]))
        left, right = np.nonzero((i < j) & comparable)
        block = distances(vectors[start : start + rows], vectors[start:])
        yield (
            (left + start).astype(np.int32),
            (right + start).astype(np.int32),
            block[left, right].astype(np.float32),
        )


def _some_pairs(
    vectors: Floats,
    label: Ints,
    forged: Bools,
    distances: Distances,
    within: float,
    across: float,
    random: np.random.Generator,
) -> _Pairs:
    """Sample shares of the pairs within a label and of those across, and compute only their distances."""
    n, rows, first = len(label), max(1, _BLOCK_VALUES // len(label)), 0
    block: Floats | None = None
    for i in range(n - 1):
        if across >= _MUCH and i % rows == 0:
            first, block = i, distances(vectors[i : i + rows], vectors[i:])
        later = np.arange(i + 1, n)
        one_label, either = label[later] == label[i], forged[later] | forged[i]
        chosen = [
            random.choice(some, random.binomial(len(some), share), replace=False, shuffle=False)
            for some, share in (
                (later[one_label & ~(forged[later] & forged[i])], within),
                (later[~one_label & ~either], across),
            )
        ]
        j = np.sort(np.concatenate(chosen))
        if len(j):
            if block is None:
                distance = distances(vectors[i : i + 1], vectors[j])[0]
            else:
                distance = block[i - first, j - first]
            yield np.full(len(j), i, np.int32), j.astype(np.int32), distance.astype(np.float32)
