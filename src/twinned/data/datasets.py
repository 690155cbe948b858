"""What the readers return: labelled images, or pairs of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .images import ImageSource, source_name

Index = NDArray[np.intp]

_SIDES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with labels. Nothing is decoded yet: ``images`` holds paths or arrays.

    Args:
        images: Paths, arrays, bytes or Pillow images, one an entry.
        labels: The class of each image, shape ``(n,)``, strings.
        groups: The folder above the class (an alphabet, a site), shape ``(n,)``; "" where there is none.
        forgery: True where an image imitates the class that it is labelled with, shape ``(n,)``.
        split: What the CSV's ``split`` column says, shape ``(n,)``; "" where it says nothing.
        origin: Where the images came from, for messages.
        notes: What the reader left out and why, one sentence each.
    """

    images: Sequence[ImageSource]
    labels: NDArray[np.str_]
    groups: NDArray[np.str_]
    forgery: NDArray[np.bool_]
    split: NDArray[np.str_]
    origin: str = "arrays"
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def classes(self) -> list[str]:
        """The distinct labels, sorted."""
        return [str(label) for label in np.unique(self.labels)]

    @property
    def class_index(self) -> NDArray[np.int64]:
        """Each image's place in ``classes``, shape ``(n,)``."""
        return np.unique(self.labels, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @property
    def names(self) -> list[str]:
        """What to call each image in a message: its path, where it has one."""
        return [source_name(image) for image in self.images]

    def subset(self, chosen: Index | NDArray[np.bool_]) -> ImageSet:
        """The chosen images, by index or by mask, in the order given."""
        index = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        images: Any = self.images
        picked: Any = images[index] if isinstance(images, np.ndarray) else [images[i] for i in index]
        return replace(
            self,
            images=picked,
            labels=self.labels[index],
            groups=self.groups[index],
            forgery=self.forgery[index],
            split=self.split[index],
        )

    @property
    def side(self) -> NDArray[np.str_]:
        """What ``split`` comes to, shape ``(n,)``: ``train``, ``val``, ``test``, or any other word.

        Where it says nothing, "", or ``train`` beside images that are marked in one of these ways.
        """
        known = {word: side for side, words in _SIDES.items() for word in words}
        found = [known.get(word.lower(), word.lower()) for word in self.split.tolist()]
        blank = "" if set(found).isdisjoint(_SIDES) else "train"
        return np.array([side or blank for side in found], np.str_)

    def genuine(self) -> ImageSet:
        """The images that are no forgeries."""
        return self.subset(~self.forgery)

    def calibration_subset(self) -> tuple[ImageSet, list[str]]:
        """The images that a threshold may be chosen on by their ``side``, and what is to be said of it.

        Those marked ``val``; without any, all but those marked ``test``, which are to measure with.
        """
        side = self.side
        for chosen in (side == "val", side != "test"):
            if chosen.all():
                return self, []
            if chosen.any():
                said = (
                    f"the column split leaves {chosen.sum()} of {len(self)} images to choose the threshold on"
                )
                return self.subset(chosen), [said]
        return self, ["all images are marked test, and choose the threshold now: measure on others"]

    def with_classes(self, classes: Sequence[str]) -> ImageSet:
        """The images of these classes."""
        return self.subset(np.isin(self.labels, list(classes)))

    def split_classes(
        self, fraction: float, *, seed: int = 0, whole_groups: bool = False
    ) -> tuple[ImageSet, ImageSet]:
        """Part the classes at random, so that no class is on both sides.

        Args:
            fraction: Share of the classes that goes to the first set, above 0 and below 1.
            seed: The same seed parts the same classes in the same way.
            whole_groups: Keep every group on one side, for groups that must not be mixed (a writer, a site).

        Returns:
            Two sets with at least one class each.

        Raises:
            DataError: If the fraction is out of range or there are fewer than two classes (groups).
        """
        if not 0 < fraction < 1:
            raise DataError(f"fraction must be above 0 and below 1; got {fraction}")
        unit = self.groups if whole_groups else self.labels
        names = np.unique(unit)
        if len(names) < 2:
            raise DataError(
                f"{self.origin}: at least 2 {'groups' if whole_groups else 'classes'} are needed"
                f" to part them; there is {len(names)}"
            )
        order = np.random.default_rng(seed).permutation(len(names))
        count = min(max(round(fraction * len(names)), 1), len(names) - 1)
        first = np.isin(unit, names[order[:count]])
        return self.subset(first), self.subset(~first)


@dataclass(frozen=True, eq=False)
class PairSet:
    """Pairs of images and whether each shows one thing; no class labels.

    Args:
        images: The distinct images, each one once.
        left: Index into ``images``, shape ``(pairs,)``.
        right: Index into ``images``, shape ``(pairs,)``.
        same: True where both images are one class, shape ``(pairs,)``.
        relation: Name of the relation of each pair, or None where the list has no such column.
        origin: Where the pairs came from, for messages.
        notes: What the reader left out and why, one sentence each.
    """

    images: Sequence[ImageSource]
    left: Index
    right: Index
    same: NDArray[np.bool_]
    relation: NDArray[np.str_] | None = None
    origin: str = "arrays"
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.same)

    @property
    def names(self) -> list[str]:
        """What to call each image in a message: its path, where it has one."""
        return [source_name(image) for image in self.images]

    def subset(self, chosen: Index | NDArray[np.bool_]) -> PairSet:
        """The chosen pairs, by index or by mask; images that no pair uses are dropped."""
        index = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen
        ends = np.concatenate([self.left[index], self.right[index]])
        used, place = np.unique(ends, return_inverse=True)
        return PairSet(
            images=[self.images[i] for i in used],
            left=place[: len(index)],
            right=place[len(index) :],
            same=self.same[index],
            relation=None if self.relation is None else self.relation[index],
            origin=self.origin,
        )

    def relations(self) -> dict[str, bool]:
        """Each relation's name, sorted, and whether its pairs are same; empty without such a column.

        Raises:
            DataError: If a pair has no relation, or a relation has both same and different pairs.
        """
        if self.relation is None:
            return {}
        found: dict[str, bool] = {}
        for name in np.unique(self.relation):
            same = self.same[self.relation == name]
            if name == "":
                raise DataError(f"{self.origin}: {len(same)} pairs have no relation; each pair needs one")
            if same.any() and not same.all():
                raise DataError(
                    f"{self.origin}: relation {str(name)!r} has {same.sum()} same pairs and {(~same).sum()}"
                    " different ones; a relation is one or the other"
                )
            found[str(name)] = bool(same[0])
        return found

    def components(self) -> NDArray[np.int64]:
        """Number of the connected part that each image belongs to, shape ``(images,)``.

        Pairs of different parts share no image, so parts can be kept on one side of a split.
        """
        return connected(len(self.images), self.left, self.right)

    def identity_groups(self) -> NDArray[np.int64]:
        """Number of the thing that each image shows, as far as pairs that are the same tell, ``(images,)``.

        They stand for the classes of labelled images: the unit that is resampled for intervals.
        """
        return connected(len(self.images), self.left[self.same], self.right[self.same])


def connected(count: int, left: Index, right: Index) -> NDArray[np.int64]:
    """Number of the connected part that each of ``count`` things belongs to, given pairs of them."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in zip(left.tolist(), right.tolist(), strict=True):
        parent[root(a)] = root(b)
    roots = np.array([root(i) for i in range(count)], dtype=np.int64)
    return np.unique(roots, return_inverse=True)[1].reshape(-1).astype(np.int64)


def usable_classes(images: ImageSet) -> list[str]:
    """The classes with two genuine images or more."""
    names, counts = np.unique(images.labels[~images.forgery], return_counts=True)
    return [str(name) for name in names[counts > 1]]
