"""Training data, decoded: read once, parted into what is learnt from and what the threshold is chosen on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .datasets import ImageSet, PairSet, usable_classes
from .decode import decode
from .images import Pixels, pixels_sha256
from .preprocessing import ImageSpec

Say = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class DecodedSet:
    """Decoded training data: pixels, and either classes or pairs.

    Args:
        pixels: uint8, shape ``(n, height, width, channels)``.
        labelled: The labelled images, or None where the data are pairs.
        pairs: The pairs, or None.
        hashes: SHA-256 of each image's pixels.
    """

    pixels: Pixels
    labelled: ImageSet | None
    pairs: PairSet | None
    hashes: list[str]

    @property
    def images(self) -> ImageSet:
        """The labelled images.

        Raises:
            DataError: If the data are pairs.
        """
        if self.labelled is None:
            raise DataError("a pair list has no class labels")
        return self.labelled

    def part(self, chosen: NDArray[Any]) -> DecodedSet:
        """Some of the images (or of the pairs), by index."""
        if self.pairs is not None:
            used = np.unique(np.concatenate([self.pairs.left[chosen], self.pairs.right[chosen]]))
            pairs = self.pairs.subset(chosen)
            return replace(self, pixels=self.pixels[used], pairs=pairs, hashes=[self.hashes[i] for i in used])
        hashes = [self.hashes[i] for i in chosen]
        return replace(self, pixels=self.pixels[chosen], labelled=self.images.subset(chosen), hashes=hashes)


def read(source: ImageSet | PairSet, spec: ImageSpec, *, tell: Say, progress: bool) -> DecodedSet:
    """Decode all images once; unreadable ones are named once and left out, with their pairs.

    Raises:
        DataError: If no image is readable.
    """
    decoded = decode(source.images, spec, progress=progress)
    for note in decoded.left_out():
        tell(note)
    if len(decoded.kept) == 0:
        raise DataError(f"{source.origin}: none of {len(source.images)} images can be read")
    hashes = [pixels_sha256(p) for p in decoded.pixels]
    for note in source.notes:
        tell(note)
    if isinstance(source, ImageSet):
        images = source.subset(decoded.kept)
        single = len(images.classes) - len(usable_classes(images))
        if single:
            tell(f"{single} of {len(images.classes)} classes have one image: they serve as impostors only")
        return DecodedSet(decoded.pixels, images, None, hashes)
    place = np.full(len(source.images), -1, np.intp)
    place[decoded.kept] = np.arange(len(decoded.kept))
    whole = (place[source.left] >= 0) & (place[source.right] >= 0)
    relation = None if source.relation is None else source.relation[whole]
    pairs = PairSet(
        images=[source.images[i] for i in decoded.kept],
        left=place[source.left[whole]],
        right=place[source.right[whole]],
        same=source.same[whole],
        relation=relation,
        origin=source.origin,
    )
    return DecodedSet(decoded.pixels, None, pairs, hashes)


def statistics(pixels: Pixels) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of each channel over a sample of the images, pixels scaled to [0, 1]."""
    sample = pixels[:: max(1, len(pixels) // 1000)].astype(np.float64) / 255
    mean = sample.mean(axis=(0, 1, 2))
    std = np.maximum(sample.std(axis=(0, 1, 2)), 0.02)
    return {
        "mean": tuple(round(float(v), 4) for v in mean),
        "std": tuple(round(float(v), 4) for v in std),
    }


def identity(material: DecodedSet) -> str:
    """SHA-256 of what is to be learnt, in its order: images with labels and groups, or pairs."""
    names, pairs = material.hashes, material.pairs
    rows: list[tuple[Any, ...]]
    if pairs is not None:
        left, right = ([names[i] for i in side] for side in (pairs.left, pairs.right))
        relation = [""] * len(pairs) if pairs.relation is None else pairs.relation.tolist()
        rows = list(zip(left, right, pairs.same.tolist(), relation, strict=True))
    else:
        images = material.images
        about = (images.labels.tolist(), images.groups.tolist(), images.forgery.tolist())
        rows = list(zip(names, *about, strict=True))
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def fingerprint(material: DecodedSet) -> dict[str, Any]:
    """How many images there are, and a SHA-256 over theirs, for model.json."""
    digest = hashlib.sha256("".join(sorted(material.hashes)).encode()).hexdigest()
    return {"images": len(material.hashes), "sha256": digest}
