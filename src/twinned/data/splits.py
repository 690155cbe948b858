"""Splits of a dataset: hold-out, subsamples, split column."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .datasets import ImageSet, PairSet, usable_classes
from .decoded import DecodedSet

# Below so many classes none can be spared: the threshold comes from cross-fitting over classes.
CROSS_FIT_BELOW = 12


# A part of a pair list that hangs together is not held out where it is so many times what should be.
_TOO_MANY = 2


def split_by_column(
    source: ImageSet | PairSet, other: ImageSet | PairSet | None
) -> tuple[ImageSet | PairSet, ImageSet | PairSet | None, list[str]]:
    """What a CSV's column ``split`` leaves to learn from, what to choose the threshold on, and what to say.

    Args:
        source: All that was given. Where no image is marked as one to train on, nothing is parted.
        other: Images given to choose the threshold on; these go before those that are marked so.

    Raises:
        DataError: If images are marked, to test with for one, and none to train on.
    """
    if isinstance(other, ImageSet):
        other, notes = other.calibration_subset()
    else:
        notes = []
    if isinstance(source, PairSet) or not (source.split != "").any():
        return source, other, notes
    side = source.side
    if not (side == "train").any():
        marks = ", ".join(sorted({*source.split.tolist()} - {""}))
        if not {"val", "test"}.isdisjoint(side.tolist()):
            raise DataError(
                f"{source.origin}: the column split says {marks} and never train: mark the images to learn"
                " from as train, or leave the column out"
            )
        return source, other, [*notes, f"the column split says {marks} and never train, so it is left aside"]
    learn, chosen = source.subset(side == "train"), source.subset(side == "val")
    said = f"the column split leaves {len(learn)} of {len(source)} images to learn from"
    if other is not None or not len(chosen):
        return learn, other, [said, *notes]
    if not set(chosen.classes).isdisjoint(learn.classes):
        return learn, None, [f"{said}; those marked val show the same classes, so they choose no threshold"]
    if not both_kinds(chosen):
        return learn, None, [f"{said}; those marked val are too few to choose the threshold on"]
    return learn, chosen, [f"{said}, and {len(chosen)} to choose the threshold on"]


def hold_out(
    material: DecodedSet, *, fraction: float = 0.2, seed: int = 0
) -> tuple[DecodedSet, DecodedSet | None]:
    """Part the classes (or connected pairs) into those to learn from and those for the threshold."""
    if material.pairs is not None:
        return _hold_out_pairs(material, material.pairs, fraction, seed)
    check_classes(material.images)
    usable = usable_classes(material.images)
    if len(usable) < CROSS_FIT_BELOW:
        return material, None
    rng = np.random.default_rng([seed, 3])
    count = min(max(4, round(fraction * len(usable))), len(usable) - 2)
    out = list(rng.permutation(usable)[:count])
    single = sorted(set(material.images.classes) - set(usable))
    out += list(rng.permutation(single)[: round(fraction * len(single))]) if single else []
    held = np.isin(material.images.labels, out)
    return material.part(np.flatnonzero(~held)), material.part(np.flatnonzero(held))


def _hold_out_pairs(
    material: DecodedSet, pairs: PairSet, fraction: float, seed: int
) -> tuple[DecodedSet, DecodedSet]:
    check_pairs(pairs)
    rng = np.random.default_rng([seed, 3])
    part = pairs.components()
    of_pair = part[pairs.left]
    rank = rng.permutation(part.max() + 1)[of_pair]
    order = np.argsort(rank, kind="stable")
    cut = max(1, round(fraction * len(pairs)))
    both = np.isin(of_pair, np.unique(of_pair[order[:cut]]))
    none = ~both
    if (
        not (both_kinds(pairs.subset(both)) and both_kinds(pairs.subset(none)))
        or both.sum() > _TOO_MANY * cut
    ):
        # The list hangs together by shared images: hold out what pairs call the same; drop those that cross.
        share = math.sqrt(fraction)
        thing = pairs.identity_groups()
        image_out = (rng.permutation(thing.max() + 1) < share * (thing.max() + 1))[thing]
        both, none = _sides(pairs, image_out)
        if not (both_kinds(pairs.subset(both)) and both_kinds(pairs.subset(none))):
            both, none = _sides(pairs, rng.random(len(material.pixels)) < share)
    for kept, what in ((both, "held out"), (none, "to learn from")):
        if not both_kinds(pairs.subset(kept)):
            raise DataError(
                f"{pairs.origin}: too few pairs: those {what} need both same and different ones, with no"
                " image on both sides; add pairs, or give others with --validate"
            )
    return material.part(np.flatnonzero(none)), material.part(np.flatnonzero(both))


def _sides(pairs: PairSet, image_out: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """The pairs whose images are both held out, and those of which neither is."""
    return image_out[pairs.left] & image_out[pairs.right], ~image_out[pairs.left] & ~image_out[pairs.right]


def both_kinds(data: ImageSet | PairSet) -> bool:
    """Whether there are pairs to compare that are the same and others that are different."""
    if isinstance(data, PairSet):
        return bool(data.same.any() and not data.same.all())
    return len(data.classes) > 1 and len(usable_classes(data)) > 0


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


def check_pairs(pairs: PairSet) -> None:
    """Make sure that there are pairs of both kinds to learn from.

    Raises:
        DataError: If all are the same, or all different.
    """
    if not both_kinds(pairs):
        raise DataError(
            f"{pairs.origin}: all {len(pairs)} pairs are {'the same' if pairs.same.any() else 'different'};"
            " training needs both same and different ones: add the other kind"
        )


def check_validation(learn: DecodedSet, held_out: DecodedSet) -> None:
    """Make sure, before training, that a threshold can be chosen on images given for it.

    Raises:
        DataError: If training would see some of them too, or they give no genuine or no impostor comparison;
            or if pairs to learn from are all of one kind.
    """
    if learn.pairs is not None:
        check_pairs(learn.pairs)
    both = len(set(learn.hashes) & set(held_out.hashes))
    if both:
        raise DataError(
            f"{both} of {len(held_out.hashes)} images to validate on are training images too, so a threshold"
            " from them would be too hopeful; give others"
        )
    if not both_kinds(held_out.images if held_out.pairs is None else held_out.pairs):
        raise DataError(
            "images to validate on must give both same and different pairs: two classes, and two readable"
            " images of one of them"
        )


def shared_classes(learn: DecodedSet, held_out: DecodedSet) -> bool:
    """Whether a class is on both sides, so that the threshold is not from unseen classes."""
    if learn.labelled is None or held_out.labelled is None:
        return False
    return not set(learn.labelled.classes).isdisjoint(held_out.labelled.classes)


def enrolment_images(held_out: DecodedSet) -> int:
    """How many held-out images the way to tell labels in a gallery is chosen by: the fewer, the larger."""
    most: int = 20_000_000 // held_out.pixels[0].size
    return min(len(held_out.pixels), 2000, most)


def thin(material: DecodedSet, most: int) -> DecodedSet:
    """Up to so many images, of as many classes as find room whole; the same ones each time.

    Of a class that would take more than a tenth of the room, a part. Two classes of two images are always
    there.
    """
    if material.labelled is None or len(material.pixels) <= most:
        return material
    random = np.random.default_rng(0)
    order = random.permutation(len(material.pixels))
    names, place, count = np.unique(material.labelled.labels[order], return_inverse=True, return_counts=True)
    classes = np.split(order[np.argsort(place, kind="stable")], np.cumsum(count)[:-1])
    turn = random.permutation(len(names))
    several = turn[np.isin(names[turn], usable_classes(material.labelled))][:2].tolist()
    chosen: list[NDArray[Any]] = []
    left = most
    for number in dict.fromkeys([*several, *turn.tolist()]):
        some = classes[number][: max(2, most // 10)]
        if len(some) <= left or number in several:
            chosen.append(some)
            left -= len(some)
    return material.part(np.sort(np.concatenate(chosen)))


def sample(material: DecodedSet, most: int, *, seed: int, each: int = 1) -> DecodedSet:
    """Up to so many of the images.

    Args:
        material: Of labelled images, as evenly from each class as can be; of pairs, pairs drawn at random, or
            all where there is but one kind among these.
        most: How many.
        seed: Of the draw.
        each: At least so many of a class, where it has them; of fewer classes, where not all find room.
    """
    if len(material.pixels) <= most:
        return material
    random = np.random.default_rng(seed)
    if (pairs := material.pairs) is not None:
        order = random.permutation(len(pairs))
        ends = np.stack([pairs.left[order], pairs.right[order]], axis=1).ravel()
        fresh = np.sort(np.unique(ends, return_index=True)[1])  # where each image is met first
        chosen = np.sort(order if most >= len(fresh) else order[: fresh[most] // 2])
        return material.part(chosen) if both_kinds(pairs.subset(chosen)) else material
    return material.part(draw(material.images, most, seed=seed, each=each))


def draw(images: ImageSet, most: int, *, seed: int, each: int = 1) -> NDArray[np.intp]:
    """Places of up to so many labelled images, ascending; see `sample`."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(images))
    names, place, count = np.unique(images.labels[order], return_inverse=True, return_counts=True)
    grouped = np.argsort(place, kind="stable")
    rank = np.empty(len(order), np.intp)
    rank[grouped] = np.arange(len(order)) - np.repeat(np.cumsum(count) - count, count)
    turns = np.argsort(rank, kind="stable")
    if each > 1:
        classes = random.permutation(len(names))
        classes = classes[np.argsort(count[classes] < 2, kind="stable")]  # single images last
        room = np.cumsum(np.minimum(count, each)[classes]) <= most
        room[:2] = True
        turns = turns[np.isin(place, classes[room])[turns]]
    return np.sort(order[turns[:most]])
