"""Draw pairs and triplets as index arrays.

Images are not copied, unlike in the slide deck's ``create_pairs``; the cost grows with the number of drawn
tuples, not with the number of possible ones (31 million pairs of 7,900 images).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..utils.groups import members as members_of

Index = NDArray[np.intp]


def make_pairs(
    labels: ArrayLike, *, pairs: int | None = None, same_fraction: float = 0.5, seed: int = 0
) -> tuple[Index, Index, NDArray[np.bool_]]:
    """Draw pairs of different images with a given fraction of same-class pairs.

    Each class is equally likely in same-class pairs, whatever its number of images. Pairs are drawn with
    replacement.

    Args:
        labels: Class of each image, shape ``(n,)``.
        pairs: Number of pairs; by default two per image.
        same_fraction: Fraction of same-class pairs, in [0, 1].
        seed: Random seed.

    Returns:
        ``left``, ``right`` (indices) and ``same`` (boolean), each of shape ``(pairs,)``. The indices select
        rows of arrays and tensors, and the losses on pairs accept ``same``.

    Raises:
        DataError: If there is only one class, or same-class pairs are requested and no class has two images.

    Example:
        >>> left, right, same = make_pairs(["a", "a", "b", "b"], pairs=6, seed=0)
        >>> int(same.sum())
        3
    """
    classes, members, rng = _classes(labels, seed)
    if not 0 <= same_fraction <= 1:
        raise DataError(f"same_fraction must be in [0, 1]; got {same_fraction}")
    count = 2 * len(classes) if pairs is None else pairs
    n_same = round(count * same_fraction)
    left_same, right_same = _positives(members, n_same, rng)
    left_different = rng.integers(len(classes), size=count - n_same)
    right_different = _others(classes, members, left_different, rng)
    left = np.concatenate([left_same, left_different])
    right = np.concatenate([right_same, right_different])
    order = rng.permutation(count)
    return left[order], right[order], order < n_same


def make_triplets(
    labels: ArrayLike, *, triplets: int | None = None, seed: int = 0
) -> tuple[Index, Index, Index]:
    """Draw triplets: an anchor, a positive of the same class and a negative of another class.

    Args:
        labels: Class of each image, shape ``(n,)``.
        triplets: Number of triplets; by default one per image.
        seed: Random seed.

    Returns:
        ``anchor``, ``positive``, ``negative``: indices, each of shape ``(triplets,)``.

    Raises:
        DataError: If no class has two images, or there is only one class.

    Example:
        >>> anchor, positive, negative = make_triplets(["a", "a", "b", "b"], seed=0)
        >>> len(anchor)
        4
    """
    classes, members, rng = _classes(labels, seed)
    anchor, positive = _positives(members, len(classes) if triplets is None else triplets, rng)
    return anchor, positive, _others(classes, members, anchor, rng)


def _classes(labels: ArrayLike, seed: int) -> tuple[NDArray[np.intp], list[Index], np.random.Generator]:
    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    members = members_of(classes)
    if len(members) < 2:
        raise DataError(f"at least two classes are needed; got {len(members)}")
    return classes, members, np.random.default_rng(seed)


def _positives(members: list[Index], count: int, rng: np.random.Generator) -> tuple[Index, Index]:
    usable = [m for m in members if len(m) > 1]
    if count == 0:
        return np.empty(0, np.intp), np.empty(0, np.intp)
    if not usable:
        raise DataError("no class has two images, so there are no same-class pairs")
    sizes = np.array([len(m) for m in usable])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    flat = np.concatenate(usable)
    chosen = rng.integers(len(usable), size=count)
    first = rng.integers(sizes[chosen])
    second = (first + rng.integers(1, sizes[chosen])) % sizes[chosen]
    return flat[starts[chosen] + first], flat[starts[chosen] + second]


def _others(
    classes: NDArray[np.intp], members: list[Index], anchors: NDArray[Any], rng: np.random.Generator
) -> Index:
    """Draw an image of another class for each anchor, uniformly.

    Images are sorted by class; draws at or above the start of the anchor's class are shifted past its end.
    """
    sizes = np.array([len(m) for m in members])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    own = classes[anchors]
    draw = rng.integers(len(classes) - sizes[own])
    others: Index = np.concatenate(members)[np.where(draw < starts[own], draw, draw + sizes[own])]
    return others
