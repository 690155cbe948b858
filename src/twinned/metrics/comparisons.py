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
    """Convert embeddings to floats of shape ``(n, d)``, half precision to float32.

    Raises:
        DataError: If they have another shape, or a value is not finite.
    """
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
    """Return embeddings as floats ``(n, d)`` and the numbers of their classes ``(n,)``.

    Raises:
        DataError: If the lengths differ, the shape is another, or a value is not finite.
    """
    vectors, label = as_vectors(embeddings), class_numbers(labels)
    if len(vectors) != len(label):
        raise DataError(
            f"Each embedding needs one label; got {len(vectors)} embeddings and {len(label)} labels"
        )
    return vectors, label


class Comparator(Protocol):
    """Measures distances between embeddings: at least 0, lower is closer."""

    def distances(self, left: Floats, right: Floats, /) -> Floats:
        """All pairs: ``(n, d), (m, d) -> (n, m)``."""

    def paired_distances(self, left: Floats, right: Floats, /) -> Floats:
        """Row by row: ``(n, d), (n, d) -> (n,)``."""


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
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        lengths = {name: len(array) for name, array in given.items() if array is not None}
        if len(set(lengths.values())) != 1:
            raise DataError(
                f"Each array of comparisons must have one value per comparison; got lengths {lengths}"
            )
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
        present = np.zeros(self._past("left", "right"), bool)
        present[self.left] = present[self.right] = True
        return np.flatnonzero(present)

    @property
    def n_classes(self) -> int:
        """Number of classes present."""
        return len(self.classes)

    def subset(self, keep: Bools | Ints) -> Comparisons:
        """Select comparisons by a mask or by positions."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: array[keep] for name, array in given.items() if array is not None})

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
            raise DataError(
                f"Either all parts must mark forgeries or none; got {len(parts)} parts, "
                f"{sum(part.skilled is not None for part in parts)} of them with marks"
            )
        shifted, classes, images = [], 0, 0
        for part in parts:
            shifted.append(last := part._renumbered(classes, images))
            classes, images = last._past("left", "right"), last._past("left_image", "right_image")

        def join(name: str) -> Any:
            arrays = [getattr(part, name) for part in shifted]
            return None if any(array is None for array in arrays) else np.concatenate(arrays)

        return Comparisons(**{field.name: join(field.name) for field in fields(Comparisons)})

    def _renumbered(self, classes: int, images: int) -> Comparisons:
        return replace(
            self,
            left=self.left + classes,
            right=self.right + classes,
            left_image=None if self.left_image is None else self.left_image + images,
            right_image=None if self.right_image is None else self.right_image + images,
        )

    def _past(self, *names: str) -> int:
        """Return the lowest number above all values of these arrays."""
        arrays = [array for name in names if (array := getattr(self, name)) is not None]
        return max((int(array.max(initial=-1)) for array in arrays), default=-1) + 1


def compare(
    embeddings: Floats,
    dataset: ImageSet | PairSet,
    comparator: Comparator,
    *,
    rows: Ints | None = None,
    limit: int = 10_000_000,
    seed: int = 0,
) -> Comparisons:
    """Compare the images of a data set: each with every other one, or the pairs of a pair list.

    Args:
        embeddings: Shape ``(n, d)``.
        dataset: Labeled images or pairs.
        comparator: Distances between embeddings, for example a model.
        rows: Images of the data set that the embeddings belong to, ascending, shape ``(n,)``; all by
            default. Pairs with another image are left out.
        limit: Approximate maximum number of comparisons; see `compare_all`.
        seed: Seed of the sample where there are more.
    """
    if hasattr(dataset, "same"):  # data.PairSet, which this layer cannot import
        pairs = cast("PairSet", dataset)
        left, right, whole = locate_pairs(pairs, rows)
        group = pairs.identity_groups()
        return compare_pairs(
            comparator.paired_distances(embeddings[left], embeddings[right]),
            pairs.same[whole],
            left=group[pairs.left[whole]],
            right=group[pairs.right[whole]],
        )
    images = dataset
    kept = slice(None) if rows is None else rows
    return compare_all(
        embeddings,
        images.labels[kept],
        comparator.distances,
        forgery=images.forgery[kept],
        limit=limit,
        seed=seed,
    )


def locate_pairs(pairs: PairSet, rows: Ints | None = None) -> tuple[Ints, Ints, Bools]:
    """Find the embeddings of pairs after some images have been left out.

    Args:
        pairs: Pair list.
        rows: Images that are left, ascending; all by default.

    Returns:
        Positions in ``rows`` of the left and the right image of each pair that is left, and a mask over all
        pairs, True for those that are left.
    """
    place = np.full(len(pairs.images), -1)
    kept = np.arange(len(pairs.images)) if rows is None else rows
    place[kept] = np.arange(len(kept))
    left, right = place[pairs.left], place[pairs.right]
    whole = (left >= 0) & (right >= 0)
    return left[whole], right[whole], whole


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
    if left is None or right is None:
        numbers = np.stack([np.arange(len(values))] * 2)
    else:
        sides = np.concatenate([np.asarray(left), np.asarray(right)])
        numbers = np.unique(sides, return_inverse=True)[1]
        if len(sides) != 2 * len(values):
            raise DataError(
                f"Each pair must have two classes; got {len(values)} pairs and {len(sides)} classes"
            )
        numbers = numbers.reshape(2, -1)
    return Comparisons(
        values,
        np.asarray(same, dtype=bool),
        numbers[0].astype(np.int32),
        numbers[1].astype(np.int32),
        None if skilled is None else np.asarray(skilled, dtype=bool),
    )


_Pairs: TypeAlias = Iterator[tuple[Ints, Ints, Floats]]  # rows of the left and right images, their distances


def _every_pair(vectors: Floats, label: Ints, forged: Bools, distances: Distances) -> _Pairs:
    n = len(label)
    rows = max(1, _BLOCK_VALUES // n)
    for start in range(0, n, rows):
        i, j = np.arange(start, min(start + rows, n))[:, None], np.arange(start, n)[None, :]
        comparable = ~(forged[i] | forged[j]) | ((label[i] == label[j]) & ~(forged[i] & forged[j]))
        left, right = np.nonzero((i < j) & comparable)
        block = distances(vectors[start : start + rows], vectors[start:])
        yield _int32(left + start), _int32(right + start), block[left, right].astype(np.float32)


def _some_pairs(
    vectors: Floats,
    label: Ints,
    forged: Bools,
    distances: Distances,
    within: float,
    across: float,
    random: np.random.Generator,
) -> _Pairs:
    """Sample shares of the pairs within a label and of those across.

    Only their distances are computed, unless the share across is large.
    """
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
            yield _int32(np.full(len(j), i)), _int32(j), distance.astype(np.float32)


def _int32(numbers: Ints) -> Ints:
    return numbers.astype(np.int32, copy=False)
