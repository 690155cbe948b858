"""Training data, decoded: read once, parted into what is learnt from and what the threshold is chosen on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .data import ImageSet, PairSet, decode
from .data.sets import TRAIN, VALIDATION, connected
from .errors import DataError
from .images import ImageSpec, Pixels, pixels_sha256
from .recipes import Settings

Say = Callable[[str], None]

# Below so many classes none can be spared: the threshold comes from cross-fitting over classes.
CROSS_FIT_BELOW = 12
# A part of a pair list that hangs together is not held out where it is so many times what should be.
_TOO_MANY = 2


@dataclass(frozen=True, eq=False)
class Material:
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

    def part(self, chosen: NDArray[Any]) -> Material:
        """Some of the images (or of the pairs), by index."""
        if self.pairs is not None:
            used = np.unique(np.concatenate([self.pairs.left[chosen], self.pairs.right[chosen]]))
            pairs = self.pairs.subset(chosen)
            return Material(self.pixels[used], None, pairs, [self.hashes[i] for i in used])
        images = self.images.subset(chosen)
        return Material(self.pixels[chosen], images, None, [self.hashes[i] for i in chosen])


def part_by_split(
    source: ImageSet | PairSet, other: ImageSet | PairSet | None
) -> tuple[ImageSet | PairSet, ImageSet | PairSet | None, list[str]]:
    """What a CSV's column ``split`` leaves to learn from, what to choose the threshold on, and what to say.

    Args:
        source: All that was given. Where no image is marked as one to train on, nothing is parted.
        other: Images given to choose the threshold on; these go before those that are marked so.
    """
    marks = set() if isinstance(source, PairSet) else {*np.char.lower(source.split).tolist()} - {""}
    if isinstance(source, PairSet) or not marks:
        return source, other, []
    if marks.isdisjoint(TRAIN):
        said = f"the column split says {', '.join(sorted(marks))} and never train, so it is left aside"
        return source, other, [said]
    learn, chosen = source.of_split(TRAIN), source.of_split(VALIDATION)
    apart = set(chosen.classes).isdisjoint(learn.classes)
    said = f"the column split leaves {len(learn)} of {len(source)} images to learn from"
    if other is not None or not len(chosen):
        return learn, other, [said]
    if not apart:
        return (
            learn,
            None,
            [f"{said}; those to validate on show the same classes, so they choose no threshold"],
        )
    return learn, chosen, [f"{said}, and {len(chosen)} to choose the threshold on"]


def read(source: ImageSet | PairSet, spec: ImageSpec, *, tell: Say, progress: bool) -> Material:
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
    if isinstance(source, ImageSet):
        for note in source.notes:
            tell(note)
        images = source.subset(decoded.kept)
        single = len(images.classes) - len(usable_classes(images))
        if single:
            tell(f"{single} of {len(images.classes)} classes have one image: they serve as impostors only")
        return Material(decoded.pixels, images, None, hashes)
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
    return Material(decoded.pixels, None, pairs, hashes)


def hold_out(material: Material, settings: Settings) -> tuple[Material, Material | None]:
    """Part the classes (or connected pairs) into those to learn from and those for the threshold."""
    if material.pairs is not None:
        return _hold_out_pairs(material, material.pairs, settings)
    check_classes(material.images)
    usable = usable_classes(material.images)
    if len(usable) < CROSS_FIT_BELOW:
        return material, None
    rng = np.random.default_rng([settings.seed, 3])
    count = min(max(4, round(settings.held_out * len(usable))), len(usable) - 2)
    out = list(rng.permutation(usable)[:count])
    single = sorted(set(material.images.classes) - set(usable))
    out += list(rng.permutation(single)[: round(settings.held_out * len(single))]) if single else []
    held = np.isin(material.images.labels, out)
    return material.part(np.flatnonzero(~held)), material.part(np.flatnonzero(held))


def _hold_out_pairs(material: Material, pairs: PairSet, settings: Settings) -> tuple[Material, Material]:
    rng = np.random.default_rng([settings.seed, 3])
    part = pairs.components()
    of_pair = part[pairs.left]
    rank = rng.permutation(part.max() + 1)[of_pair]
    order = np.argsort(rank, kind="stable")
    cut = max(1, round(settings.held_out * len(pairs)))
    both = np.isin(of_pair, np.unique(of_pair[order[:cut]]))
    none = ~both
    if not (_enough(pairs, both) and _enough(pairs, none)) or both.sum() > _TOO_MANY * cut:
        # The list hangs together by shared images: hold out what pairs call the same; drop those that cross.
        share = math.sqrt(settings.held_out)
        thing = connected(len(pairs.images), pairs.left[pairs.same], pairs.right[pairs.same])
        image_out = (rng.permutation(thing.max() + 1) < share * (thing.max() + 1))[thing]
        both, none = _sides(pairs, image_out)
        if not (_enough(pairs, both) and _enough(pairs, none)):
            both, none = _sides(pairs, rng.random(len(material.pixels)) < share)
    for kept, what in ((both, "held out"), (none, "to learn from")):
        if not _enough(pairs, kept):
            raise DataError(
                f"{pairs.origin}: too few pairs: those {what} need both same and different ones, with no"
                " image on both sides; add pairs, or give others with --validate"
            )
    return material.part(np.flatnonzero(none)), material.part(np.flatnonzero(both))


def _sides(pairs: PairSet, image_out: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The pairs whose images are both held out, and those of which neither is."""
    return image_out[pairs.left] & image_out[pairs.right], ~image_out[pairs.left] & ~image_out[pairs.right]


def _enough(pairs: PairSet, kept: NDArray[np.bool_]) -> bool:
    """Whether some pairs are same and some different."""
    return bool(pairs.same[kept].any() and not pairs.same[kept].all())


def check_classes(images: ImageSet) -> None:
    """Make sure that there is something to learn.

    Raises:
        DataError: If fewer than two classes have two genuine images.
    """
    usable = usable_classes(images)
    if len(usable) < 2:
        raise DataError(
            f"{images.origin}: training needs two classes with two readable images each;"
            f" {len(usable)} of {len(images.classes)} classes have two. Add images, or check the"
            " folders: one for each class"
        )


def check_validation(learn: Material, held_out: Material) -> None:
    """Make sure, before training, that a threshold can be chosen on images given for it.

    Raises:
        DataError: If training would see some of them too, or they give no genuine or no impostor comparison.
    """
    both = len(set(learn.hashes) & set(held_out.hashes))
    if both:
        raise DataError(
            f"{both} of {len(held_out.hashes)} images to validate on are training images too, so a threshold"
            " from them would be too hopeful; give others"
        )
    if held_out.pairs is not None:
        same = held_out.pairs.same
        enough = bool(same.any() and not same.all())
    else:
        enough = len(held_out.images.classes) > 1 and len(usable_classes(held_out.images)) > 0
    if not enough:
        raise DataError(
            "images to validate on must give both same and different pairs: two classes, and two readable"
            " images of one of them"
        )


def shared_classes(learn: Material, held_out: Material) -> bool:
    """Whether a class is on both sides, so that the threshold is not from unseen classes."""
    if learn.labelled is None or held_out.labelled is None:
        return False
    return not set(learn.labelled.classes).isdisjoint(held_out.labelled.classes)


def usable_classes(images: ImageSet) -> list[str]:
    """The classes with two genuine images or more."""
    names, counts = np.unique(images.labels[~images.forgery], return_counts=True)
    return [str(name) for name in names[counts > 1]]


def enrolment_images(held_out: Material) -> int:
    """How many held-out images the way to tell labels in a gallery is chosen by: the fewer, the larger."""
    most: int = 20_000_000 // held_out.pixels[0].size
    return min(len(held_out.pixels), 2000, most)


def thin(material: Material, most: int) -> Material:
    """Whole classes up to about so many images, spread over the classes; the same ones each time."""
    if material.labelled is None or len(material.pixels) <= most:
        return material
    names = np.random.default_rng(0).permutation(material.images.classes)
    _, counts = np.unique(material.images.labels, return_counts=True)
    size = dict(zip(material.images.classes, counts, strict=True))
    upto = np.cumsum([size[name] for name in names])
    keep = names[: max(2, int(np.searchsorted(upto, most, side="right")))]
    return material.part(np.flatnonzero(np.isin(material.images.labels, keep)))


def sample(material: Material, most: int, *, seed: int) -> Material:
    """Up to so many of the labelled images, as evenly from each class as can be."""
    if material.labelled is None or len(material.pixels) <= most:
        return material
    order = np.random.default_rng(seed).permutation(len(material.pixels))
    _, place = np.unique(material.labelled.labels[order], return_inverse=True)
    grouped = np.argsort(place, kind="stable")
    starts = np.cumsum(np.bincount(place)) - np.bincount(place)
    rank = np.empty(len(order), np.intp)
    rank[grouped] = np.arange(len(order)) - starts[place[grouped]]
    chosen = order[np.argsort(rank, kind="stable")[:most]]
    return material.part(np.sort(chosen))


def statistics(pixels: Pixels) -> dict[str, tuple[float, ...]]:
    """Mean and deviation of each channel over a sample of the images, pixels scaled to [0, 1]."""
    sample = pixels[:: max(1, len(pixels) // 1000)].astype(np.float64) / 255
    mean = sample.mean(axis=(0, 1, 2))
    std = np.maximum(sample.std(axis=(0, 1, 2)), 0.02)
    return {
        "mean": tuple(round(float(v), 4) for v in mean),
        "std": tuple(round(float(v), 4) for v in std),
    }


def identity(material: Material) -> str:
    """SHA-256 of what is to be learnt: the images with their labels, or the pairs."""
    names, pairs = material.hashes, material.pairs
    rows: list[tuple[Any, ...]]
    if pairs is not None:
        left, right = ([names[i] for i in side] for side in (pairs.left, pairs.right))
        relation = [""] * len(pairs) if pairs.relation is None else pairs.relation.tolist()
        rows = list(zip(left, right, pairs.same.tolist(), relation, strict=True))
    else:
        images = material.images
        rows = list(zip(names, images.labels.tolist(), images.forgery.tolist(), strict=True))
    return hashlib.sha256(repr(sorted(rows)).encode()).hexdigest()


def fingerprint(material: Material) -> dict[str, Any]:
    """How many images there are, and a SHA-256 over theirs, for model.json."""
    digest = hashlib.sha256("".join(sorted(material.hashes)).encode()).hexdigest()
    return {"images": len(material.hashes), "sha256": digest}
