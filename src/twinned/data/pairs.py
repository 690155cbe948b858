"""Draw pairs and triplets as index arrays; only those that are drawn take time and memory."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..utils.groups import members as members_of
from .datasets import Index


def make_pairs(
    labels: ArrayLike,
    *,
    pairs: int | None = None,
    same_fraction: float = 0.5,
    scheme: Literal["random", "deck"] = "random",
    seed: int = 0,
) -> tuple[Index, Index, NDArray[np.bool_]]:
    """Draw pairs of different images with a given fraction of same-class pairs.

    Each class is equally likely in same-class pairs, whatever its number of images. Pairs are drawn with
    replacement.

    With scheme ``deck``, the pairs are those of the slide deck's ``create_pairs``: all pairs of each class,
    and for each image as many different pairs as its class has images, of a random other class each. They
    are sorted by class and by left image, so shuffle them.

    Args:
        labels: Class of each image, shape ``(n,)``.
        pairs: Number of pairs; by default two per image.
        same_fraction: Fraction of same-class pairs, in [0, 1].
        scheme: ``random``, or ``deck``, which determines the number of pairs and ignores ``same_fraction``.
        seed: Random seed.

    Returns:
        ``left``, ``right`` (indices) and ``same`` (boolean), each of shape ``(pairs,)``. The indices select
        rows of arrays and tensors, and the losses on pairs accept ``same``.

    Raises:
        DataError: If there is only one class, same-class pairs are requested and no class has two images, or
            ``pairs`` is given with scheme ``deck``.

    Example:
        >>> left, right, same = make_pairs(["a", "a", "b", "b"], pairs=6, seed=0)
        >>> int(same.sum())
        3
    """
    classes, members, rng = _classes(labels, seed)
    if scheme == "deck":
        if pairs is not None:
            raise DataError(f"Scheme deck determines the number of pairs; got {pairs}. Leave out pairs.")
        return _deck_pairs(members, rng)
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


def _deck_pairs(members: list[Index], rng: np.random.Generator) -> tuple[Index, Index, NDArray[np.bool_]]:
    """Return the pairs of the slide deck, in its order."""
    sizes = np.array([len(m) for m in members])
    left, right, same = [], [], []
    for number, inside in enumerate(members):
        for place, image in enumerate(inside):
            others = inside[place + 1 :]
            classes = (number + rng.integers(1, len(members), size=len(inside))) % len(members)
            draws = rng.integers(sizes[classes])
            different = np.array([members[k][i] for k, i in zip(classes, draws, strict=True)], np.intp)
            left.append(np.full(len(others) + len(inside), image))
            right.append(np.concatenate([others, different]))
            same.append(np.arange(len(others) + len(inside)) < len(others))
    return np.concatenate(left), np.concatenate(right), np.concatenate(same)


def _classes(labels: ArrayLike, seed: int) -> tuple[Index, list[Index], np.random.Generator]:
    classes = np.unique(np.asarray(labels), return_inverse=True)[1]
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
    chosen = rng.integers(len(usable), size=count)
    first = rng.integers(sizes[chosen])
    second = (first + rng.integers(1, sizes[chosen])) % sizes[chosen]
    starts, flat = (np.cumsum(sizes) - sizes)[chosen], np.concatenate(usable)
    return flat[starts + first], flat[starts + second]


def _others(classes: Index, members: list[Index], anchors: Index, rng: np.random.Generator) -> Index:
    """Draw an image of another class for each anchor, uniformly: in order of class, its own is skipped."""
    sizes = np.array([len(m) for m in members])
    own = classes[anchors]
    draw = rng.integers(len(classes) - sizes[own])
    starts = (np.cumsum(sizes) - sizes)[own]
    others: Index = np.concatenate(members)[np.where(draw < starts, draw, draw + sizes[own])]
    return others
