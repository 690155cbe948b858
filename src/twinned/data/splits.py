"""Splits of a dataset: hold-out, class folds, subsamples, split column."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..utils.groups import members, rank_within_group
from ..utils.random import Stream, rng
from .datasets import ImageSet, PairSet
from .decoded import DecodedSet

# With fewer classes none are held out: the threshold comes from cross-validation.
HOLD_OUT_FROM = 12
# Connected pairs are held out whole unless they are more than this many times the requested number.
_MAX_OVERSHOOT = 2
_Data = TypeVar("_Data", ImageSet, DecodedSet)


def split_by_column(
    source: ImageSet | PairSet, other: ImageSet | PairSet | None
) -> tuple[ImageSet | PairSet, ImageSet | PairSet | None, list[str]]:
    """Split a dataset by its ``split`` column into training data, calibration data, and notes on both.

    Calibration data given by the user, ``other``, take precedence over images marked ``val``; None means that
    some are to be held out. Without images marked ``train`` the dataset is returned unchanged.
    """
    if isinstance(other, ImageSet):
        other, notes = other.calibration_subset()
    else:
        notes = []
    if isinstance(source, PairSet) or not (source.split != "").any():
        return source, other, notes
    split = source.split_name
    if not (split == "train").any():
        marks = ", ".join(sorted({*source.split.tolist()} - {""}))
        if not {"val", "test"}.isdisjoint(split.tolist()):
            raise DataError(
                f"{source.origin}: The column split has {marks}, but not train. Mark the training images."
            )
        return source, other, [*notes, f"the column split is ignored: its values are {marks}, never train"]
    train, val = source.subset(split == "train"), source.subset(split == "val")
    text = f"the column split leaves {len(train)} of {len(source)} images for training"
    if other is not None or not len(val):
        return train, other, [text, *notes]
    if not set(val.classes).isdisjoint(train.classes):
        return train, None, [f"{text}; those marked val show the same classes, so they choose no threshold"]
    if not val.has_both_kinds:
        return train, None, [f"{text}; those marked val are too few to choose the threshold on"]
    return train, val, [f"{text}, and {len(val)} for choosing the threshold"]


def hold_out(
    data: DecodedSet, *, fraction: float = 0.2, seed: int = 0
) -> tuple[DecodedSet, DecodedSet | None]:
    """Split a dataset at random into training and held-out data that share no class (image, for pairs).

    At least 4 classes are held out; none, and None is returned, of fewer than `HOLD_OUT_FROM` usable ones.
    """
    if data.pairs is not None:
        return _hold_out_pairs(data, data.pairs, fraction, seed)
    check_classes(data.images)
    usable = data.images.usable_classes()
    if len(usable) < HOLD_OUT_FROM:
        return data, None
    random = rng(seed, Stream.HOLD_OUT)
    count = min(max(4, round(fraction * len(usable))), len(usable) - 2)
    out = list(random.permutation(usable)[:count])
    single = sorted(set(data.images.classes) - set(usable))
    out += list(random.permutation(single)[: round(fraction * len(single))]) if single else []
    return data.partition(np.isin(data.images.labels, out))


def _hold_out_pairs(
    data: DecodedSet, pairs: PairSet, fraction: float, seed: int
) -> tuple[DecodedSet, DecodedSet]:
    check_pairs(pairs)
    for held, train in _pair_splits(pairs, fraction, rng(seed, Stream.HOLD_OUT)):
        if all(pairs.subset(part).has_both_kinds for part in (held, train)):
            return data.subset(np.flatnonzero(train)), data.subset(np.flatnonzero(held))
    raise DataError(
        f"{pairs.origin}: Too few pairs to hold out: both sides need same and different pairs, with"
        " no image in common. Add pairs, or give separate validation data."
    )


def _pair_splits(
    pairs: PairSet, fraction: float, random: np.random.Generator
) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield splits into held-out and training pairs without a common image, as masks, the best first."""
    component = pairs.components()
    of_pair = component[pairs.left]
    rank = random.permutation(component.max() + 1)[of_pair]
    order = np.argsort(rank, kind="stable")
    cut = max(1, round(fraction * len(pairs)))
    held = np.isin(of_pair, np.unique(of_pair[order[:cut]]))
    if held.sum() <= _MAX_OVERSHOOT * cut:
        yield held, ~held
    # Most pairs are connected through shared images: hold out groups of images that "same" pairs link, or
    # single images, and drop the pairs between held-out and other images.
    share = math.sqrt(fraction)
    group = pairs.identity_groups()
    yield _pairs_inside(pairs, (random.permutation(group.max() + 1) < share * (group.max() + 1))[group])
    yield _pairs_inside(pairs, random.random(len(pairs.images)) < share)


def _pairs_inside(pairs: PairSet, out: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return masks of the pairs inside and outside of a mask of images."""
    return out[pairs.left] & out[pairs.right], ~(out[pairs.left] | out[pairs.right])


def class_folds(data: DecodedSet, k: int, *, seed: int) -> Iterator[tuple[DecodedSet, DecodedSet]]:
    """Yield training and held-out data for each of ``k`` folds of the usable classes.

    Images of classes without a genuine pair are in the training data of all folds.
    """
    labels = data.images.labels
    order = np.random.default_rng(seed).permutation(data.images.usable_classes())
    for classes in np.array_split(order, k):
        yield data.partition(np.isin(labels, classes))


def subsample(
    data: _Data, n: int, *, seed: int = 0, per_class: int = 1, whole_classes: bool = False
) -> _Data:
    """Return at most ``n`` images (for a pair list: pairs of about ``n`` images), or the data if they fit.

    Images are spread as evenly over the classes as possible, or over fewer classes to have ``per_class`` of
    each. ``whole_classes`` keeps classes whole, up to ``n / 10`` images of each; two classes with two images
    are always kept. Pairs have no classes: they are drawn at random if both kinds are left, else unchanged.
    """
    if isinstance(data, ImageSet):
        return data if len(data) <= n else data.subset(_draw(data, n, seed, per_class, whole_classes))
    if len(data.pixels) <= n:
        return data
    if data.pairs is None:
        return data.subset(_draw(data.images, n, seed, per_class, whole_classes))
    if whole_classes:
        return data
    chosen = _draw_pairs(data.pairs, n, seed)
    return data.subset(chosen) if data.pairs.subset(chosen).has_both_kinds else data


def _draw(images: ImageSet, n: int, seed: int, per_class: int, whole_classes: bool) -> NDArray[np.intp]:
    """Return ascending indices of at most ``n`` images; see `subsample`."""
    random = np.random.default_rng(seed)
    order = random.permutation(len(images))
    if whole_classes:
        return _draw_classes(images, order, n, random)
    labels = images.labels[order]
    turns = np.argsort(rank_within_group(labels), kind="stable")  # the first of each class, the second, ...
    if per_class > 1:
        names, place, count = np.unique(labels, return_inverse=True, return_counts=True)
        classes = random.permutation(len(names))
        classes = classes[np.argsort(count[classes] < 2, kind="stable")]  # single images last
        fits = np.cumsum(np.minimum(count, per_class)[classes]) <= n
        fits[:2] = True
        turns = turns[np.isin(place, classes[fits])[turns]]
    return np.sort(order[turns[:n]])


def _draw_classes(
    images: ImageSet, order: NDArray[np.intp], n: int, random: np.random.Generator
) -> NDArray[np.intp]:
    """Return ascending indices of whole classes, at most ``n`` images."""
    names = np.unique(images.labels)
    indices = [order[place] for place in members(images.labels[order])]
    classes = random.permutation(len(names))
    always = classes[np.isin(names[classes], images.usable_classes())][:2].tolist()
    chosen: list[NDArray[Any]] = []
    room = n
    for number in dict.fromkeys([*always, *classes.tolist()]):
        index = indices[number][: max(2, n // 10)]
        if len(index) <= room or number in always:
            chosen.append(index)
            room -= len(index)
    return np.sort(np.concatenate(chosen))


def _draw_pairs(pairs: PairSet, n: int, seed: int) -> NDArray[np.intp]:
    """Return ascending indices of random pairs that use at most about ``n`` images."""
    order = np.random.default_rng(seed).permutation(len(pairs))
    ends = np.stack([pairs.left[order], pairs.right[order]], axis=1).ravel()
    first = np.sort(np.unique(ends, return_index=True)[1])  # first occurrence of each image
    return np.sort(order if n >= len(first) else order[: first[n] // 2])


def check_classes(images: ImageSet) -> None:
    """Check that the images suffice for training: two classes with two genuine images."""
    usable = images.usable_classes()
    if len(usable) < 2:
        raise DataError(
            f"{images.origin}: Training needs at least two classes with two readable images each;"
            f" {len(usable)} of {len(images.classes)} classes have two. Add images, or check that each class"
            " has its own folder."
        )


def check_pairs(pairs: PairSet) -> None:
    """Check that the pairs suffice for training: same and different ones."""
    if not pairs.has_both_kinds:
        kind, other = ("same", "different") if pairs.same.any() else ("different", "same")
        raise DataError(f"{pairs.origin}: All {len(pairs)} pairs are {kind}. Add {other} pairs.")


def check_validation(train: DecodedSet, validation: DecodedSet) -> None:
    """Check, before training, that a threshold can be chosen on validation data of other images."""
    if train.pairs is not None:
        check_pairs(train.pairs)
    if shared := len(set(train.hashes) & set(validation.hashes)):
        raise DataError(
            f"{shared} of {len(validation.hashes)} validation images are training images too, so a threshold"
            " chosen on them would be too optimistic. Use other images for validation."
        )
    if not validation.dataset.has_both_kinds:
        raise DataError("The validation data give no same or no different pair. Add images of two classes.")


def shared_classes(train: DecodedSet, held_out: DecodedSet) -> bool:
    """Return True if a class occurs in both sets, so that a threshold is not from unseen classes."""
    return not set(train.classes).isdisjoint(held_out.classes)


def enrollment_size(held_out: DecodedSet) -> int:
    """Return the number of held-out images for choosing the enrollment method; fewer for larger images."""
    by_memory = 20_000_000 // math.prod(held_out.pixels.shape[1:])
    return min(len(held_out.pixels), 2000, by_memory)
