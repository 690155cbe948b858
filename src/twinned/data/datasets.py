"""Datasets of images that are not decoded yet: labeled images, or pairs of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError, MissingExtra
from .images import ImageSource, open_image, source_name

if TYPE_CHECKING:
    from .torch_data import ImageDataset

Index = NDArray[np.intp]

SPLIT_NAMES = {"training": "train", "valid": "val", "validation": "val", "dev": "val", "testing": "test"}


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Labeled images. ``images`` holds paths or arrays; they are decoded later.

    Args:
        images: Paths, arrays, bytes or Pillow images.
        labels: Class of each image, shape ``(n,)``, strings.
        groups: Group of each image, such as the folder above the class folder (an alphabet, a site); "" for
            no group, shape ``(n,)``.
        forgery: True for images that imitate the class in ``labels``, shape ``(n,)``.
        split: Value of the CSV column ``split``; "" if empty, shape ``(n,)``.
        origin: Source of the images, for messages.
        notes: Sentences about what the reader left out.
    """

    images: Sequence[ImageSource]
    labels: NDArray[np.str_]
    groups: NDArray[np.str_]
    forgery: NDArray[np.bool_]
    split: NDArray[np.str_]
    origin: str = "arrays"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, chosen: int) -> tuple[Image.Image, str]: ...
    @overload
    def __getitem__(self, chosen: slice | Index | NDArray[np.bool_]) -> ImageSet: ...
    def __getitem__(
        self, chosen: int | slice | Index | NDArray[np.bool_]
    ) -> tuple[Image.Image, str] | ImageSet:
        """Return an image, decoded, and its label; or the chosen images, as `subset` does."""
        rows = np.arange(len(self))[chosen]
        if rows.ndim:
            return self.subset(rows)
        return open_image(self.images[int(rows)]), str(self.labels[rows])

    def __repr__(self) -> str:
        return f"ImageSet({len(self)} images, {len(self.classes)} classes, {self.origin})"

    @property
    def classes(self) -> list[str]:
        """Distinct labels, sorted."""
        return list(map(str, np.unique(self.labels)))

    @property
    def class_index(self) -> NDArray[np.int64]:
        """Index of the class of each image in ``classes``, shape ``(n,)``."""
        return np.unique(self.labels, return_inverse=True)[1].reshape(-1).astype(np.int64)

    @property
    def names(self) -> list[str]:
        """Name of each image for messages: its path, or its type."""
        return [source_name(image) for image in self.images]

    @property
    def has_both_kinds(self) -> bool:
        """True if the images give both same-class and different-class pairs."""
        return len(self.classes) > 1 and len(self.usable_classes()) > 0

    @property
    def split_name(self) -> NDArray[np.str_]:
        """Normalized ``split`` of each image: ``train``, ``val``, ``test`` or another word, shape ``(n,)``.

        An empty value is ``train`` if any image has one of these three splits, otherwise "".
        """
        found = [SPLIT_NAMES.get(word, word) for word in map(str.lower, self.split.tolist())]
        blank = "" if {"train", "val", "test"}.isdisjoint(found) else "train"
        return np.array([name or blank for name in found], np.str_)

    def usable_classes(self) -> list[str]:
        """Return the sorted classes with at least two genuine images."""
        names, counts = np.unique(self.labels[~self.forgery], return_counts=True)
        return [str(name) for name in names[counts > 1]]

    def as_dataset(self, transform: Callable[[Any], Any] | None = None) -> ImageDataset:
        """Return a PyTorch ``Dataset`` of the images and the indices of their classes.

        Args:
            transform: Function of a Pillow image, such as a torchvision transform; None for the image itself.

        Raises:
            MissingExtra: If PyTorch is not installed.
        """
        from .. import data

        try:
            return data.ImageDataset(self, transform)
        except ModuleNotFoundError:
            raise MissingExtra("train", "ImageSet.as_dataset") from None

    def subset(self, chosen: Index | NDArray[np.bool_]) -> ImageSet:
        """Return the images at some indices, in their order, or inside a mask."""
        index = np.arange(len(self))[chosen]
        images: Any = self.images
        picked: Any = images[index] if isinstance(images, np.ndarray) else [images[i] for i in index]
        columns = {name: getattr(self, name)[index] for name in ("labels", "groups", "forgery", "split")}
        return replace(self, images=picked, **columns)

    def genuine(self) -> ImageSet:
        """Return the images that are not forgeries."""
        return self.subset(~self.forgery)

    def calibration_subset(self) -> tuple[ImageSet, list[str]]:
        """Return the images for choosing a threshold, with at most one note.

        They are those with ``split_name`` ``val``, else all except ``test``, else all.
        """
        split = self.split_name
        for chosen in (split == "val", split != "test"):
            if chosen.all():
                return self, []
            if chosen.any():
                note = f"the column split leaves {chosen.sum()} of {len(self)} images for the threshold"
                return self.subset(chosen), [note]
        return self, ["all images are marked test, but choose the threshold: measure on other images"]

    def with_classes(self, classes: Sequence[str]) -> ImageSet:
        """Return the images of the given classes."""
        return self.subset(np.isin(self.labels, list(classes)))

    def split_classes(
        self, fraction: float, *, seed: int = 0, whole_groups: bool = False
    ) -> tuple[ImageSet, ImageSet]:
        """Split the classes at random into two sets without a common class, neither of them empty.

        Args:
            fraction: Fraction of the classes in the first set, in (0, 1).
            seed: Random seed.
            whole_groups: Split groups instead of classes, such as writers or sites.

        Raises:
            DataError: If the fraction is out of range or there are fewer than two classes (groups).
        """
        if not 0 < fraction < 1:
            raise DataError(f"fraction must be above 0 and below 1; got {fraction}")
        unit = self.groups if whole_groups else self.labels
        names = np.unique(unit)
        if len(names) < 2:
            kind = "groups" if whole_groups else "classes"
            raise DataError(f"{self.origin}: a split needs at least 2 {kind}; got {len(names)}")
        order = np.random.default_rng(seed).permutation(len(names))
        count = min(max(round(fraction * len(names)), 1), len(names) - 1)
        first = np.isin(unit, names[order[:count]])
        return self.subset(first), self.subset(~first)


@dataclass(frozen=True, eq=False, repr=False)
class PairSet:
    """Pairs of images, each marked as same or different; no class labels.

    Args:
        images: Distinct images.
        left: Index into ``images``, shape ``(pairs,)``.
        right: Index into ``images``, shape ``(pairs,)``.
        same: True if both images belong to one class, shape ``(pairs,)``.
        relation: Name of the relation of each pair, shape ``(pairs,)``; None without a column ``relation``.
        origin: Source of the pairs, for messages.
        notes: Sentences about what the reader left out.
    """

    images: Sequence[ImageSource]
    left: Index
    right: Index
    same: NDArray[np.bool_]
    relation: NDArray[np.str_] | None = None
    origin: str = "arrays"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.same)

    def __repr__(self) -> str:
        return f"PairSet({len(self)} pairs, {len(self.images)} images, {self.origin})"

    @property
    def names(self) -> list[str]:
        """Name of each image for messages: its path, or its type."""
        return [source_name(image) for image in self.images]

    @property
    def has_both_kinds(self) -> bool:
        """True if there are both same and different pairs."""
        return bool(self.same.any() and not self.same.all())

    def subset(self, chosen: Index | NDArray[np.bool_]) -> PairSet:
        """Return the pairs at some indices or inside a mask, and only the images that they use."""
        index = np.arange(len(self))[chosen]
        return self._of(index, np.unique([self.left[index], self.right[index]]))

    def keep_images(self, kept: Index) -> PairSet:
        """Return the images at some distinct indices, and the pairs of which both images are kept."""
        return self._of(np.flatnonzero(np.isin(self.left, kept) & np.isin(self.right, kept)), kept)

    def _of(self, pairs: NDArray[Any], images: NDArray[Any]) -> PairSet:
        """Return these pairs with these images, which must include those of the pairs."""
        place = np.empty(len(self.images), np.intp)
        place[images] = np.arange(len(images))
        chosen = [self.images[i] for i in images]
        left, right, same = place[self.left[pairs]], place[self.right[pairs]], self.same[pairs]
        relation = None if self.relation is None else self.relation[pairs]
        return PairSet(chosen, left, right, same, relation, self.origin)

    def relations(self) -> dict[str, bool]:
        """Return the sorted names of the relations, and for each True if its pairs are same.

        Raises:
            DataError: If a pair has no relation, or a relation has both same and different pairs.
        """
        if self.relation is None:
            return {}
        found: dict[str, bool] = {}
        for name in np.unique(self.relation):
            same = self.same[self.relation == name]
            if name == "":
                raise DataError(f"{self.origin}: {len(same)} pairs have no relation. Each pair needs one.")
            if same.any() and not same.all():
                kinds = f"{same.sum()} same pairs and {(~same).sum()} different ones"
                raise DataError(f"{self.origin}: relation {str(name)!r} has {kinds}; it must have one kind.")
            found[str(name)] = bool(same[0])
        return found

    def components(self) -> NDArray[np.int64]:
        """Return the index of the component of each image, shape ``(images,)``; pairs connect images."""
        return connected(len(self.images), self.left, self.right)

    def identity_groups(self) -> NDArray[np.int64]:
        """Return the index of the group of each image, shape ``(images,)``; "same" pairs link a group."""
        return connected(len(self.images), self.left[self.same], self.right[self.same])


def connected(count: int, left: Index, right: Index) -> NDArray[np.int64]:
    """Return the index of the connected component of each of ``count`` nodes; edges link left to right."""
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


def check_label(where: str, label: str) -> None:
    """Check that a label is one line, which the service requires."""
    if label.splitlines() not in ([label], []):
        raise DataError(f"{where}: the label {label!r} has a line break; it must be one line of text")
