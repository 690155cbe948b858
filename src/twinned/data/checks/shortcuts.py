"""Shortcuts: can the answer be told without comparing what two images show?

A network learns whatever tells the answer, so a shortcut gives figures that mean nothing. No shortcut is
looked for by name. A small forest is asked to tell the answer from what it must not need:

- whether an image is a forgery, from that image alone: the facts of its file and a thumbnail;
- whether a listed pair is the same, from its left image alone, and from its right image alone;
- whether two images are one class, from whether the facts of their files agree. What the pictures show
  is left out, because there the content is the answer.

It is always asked about writers, people or classes that it has not seen, and its area under the ROC
curve gets the 95 % interval of resampled classes. 0.5 is chance; a shortcut is reported where the whole
interval lies above 0.6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...metrics.bootstrap import class_count, interval, replicates
from ...metrics.comparisons import Comparisons
from ...metrics.roc import auc
from ..datasets import ImageSet, PairSet, connected
from ..images import ImageSource
from ..pairs import make_pairs
from ..preprocessing import ImageSpec
from .file_features import (
    CATEGORIES,
    FACTS,
    Facts,
    packing,
)

Index = NDArray[np.intp]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

ABOVE = 0.6
_IMAGES = 3000  # looked at in one probe
_PACKED = 800  # of which so many are saved again to see how they were packed
_LEAST = 20  # images or pairs below which nothing can be said
_CLASSES = 10  # from so many classes on, the forest is asked about classes that it has not seen


@dataclass(frozen=True)
class Shortcut:
    """An answer that can be told too easily.

    Args:
        what: What can be told from what, as the beginning of a sentence.
        auc: Area under the ROC curve on unseen classes; 0.5 is chance, 1 is certain.
        low: Lower end of its 95 % interval.
        high: Upper end.
        telling: The facts that tell most, in words.
    """

    what: str
    auc: float
    low: float
    high: float
    telling: str


def of_roles(data: ImageSet, facts: Facts, *, spec: ImageSpec | None = None, seed: int = 0) -> list[Shortcut]:
    """Can genuine images and forgeries be told apart from one image?

    Args:
        data: Readable images, some of them forgeries.
        facts: Of these images, in this order.
        spec: The model's input, where it is known.
        seed: Of the samples and the forest.
    """
    chosen = _some_classes(data.class_index, seed)
    return _one_image(
        "forgeries can be told from genuine images one by one, without a partner",
        facts.at(chosen),
        data.forgery[chosen],
        data.class_index[chosen],
        sides=("forgeries", "genuine images"),
        spec=spec,
        seed=seed,
    )


def of_classes(
    data: ImageSet, facts: Facts, *, spec: ImageSpec | None = None, seed: int = 0
) -> list[Shortcut]:
    """Can it be told from file facts, without looking, whether two images are one class?

    Args and returns as `of_roles`.
    """
    genuine = np.flatnonzero(~data.forgery)
    chosen = genuine[_some_classes(data.class_index[genuine], seed)]
    classes = data.class_index[chosen]
    many = len(np.unique(classes)) >= _CLASSES
    # Two folds only: both images of a pair lie in one, and few classes have few kinds of pairs.
    fold = _folds(classes, seed, count=2) if many else _halves_within(classes, seed)
    pairs = _pairs_within(classes, fold, seed)
    return _two_files(
        "whether two images are one class can be told from their files, without looking at the pictures",
        facts.at(chosen),
        [data.images[i] for i in chosen],
        pairs,
        classes if many else np.arange(len(chosen)),
        spec=spec,
        seed=seed,
    )


def of_pairs(pairs: PairSet, facts: Facts, *, spec: ImageSpec | None = None, seed: int = 0) -> list[Shortcut]:
    """Can the answer of a pair list be told from one side alone, or from file facts?

    Args and returns as `of_roles`.
    """
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:_IMAGES]
    left, right, same = pairs.left[chosen], pairs.right[chosen], pairs.same[chosen]
    # Connected parts share no image. Where the list hangs together, those known to be one class go together.
    unit = pairs.components()
    if np.bincount(unit[left]).max(initial=0) > len(chosen) / 4:
        unit = connected(len(pairs.images), pairs.left[pairs.same], pairs.right[pairs.same])
    found = _two_files(
        "whether a pair is the same can be told from the two files, without looking at the pictures",
        facts,
        pairs.images,
        _Pairs(left, right, same, _folds(unit[left], seed)),
        unit,
        spec=spec,
        seed=seed,
    )
    for side, ends in (("left", left), ("right", right)):
        found += _one_image(
            f"whether a pair is the same can be told from its {side} image alone, without the other",
            facts.at(ends),
            same,
            unit[ends],
            sides=("same pairs", "different pairs"),
            spec=spec,
            seed=seed,
        )
    return found


class _Pairs(NamedTuple):
    left: Index
    right: Index
    same: Bools
    fold: Index


def _one_image(
    what: str,
    facts: Facts,
    target: Bools,
    unit: Ints,
    *,
    sides: tuple[str, str],
    spec: ImageSpec | None,
    seed: int,
) -> list[Shortcut]:
    """The better of two probes: file facts, and file facts with the thumbnail."""
    if target.all() or not target.any():
        return []
    names = () if spec is not None and spec.ink != "none" else FACTS  # ink extraction leaves none of them
    columns = np.nan_to_num(facts.values[:, [FACTS.index(name) for name in names]], nan=-1)
    figures = {name: auc(column, target) for name, column in zip(names, columns.T, strict=True)}
    alone = {name: max(figure, 1 - figure) for name, figure in figures.items()}
    middle = {name: _medians(facts[name], target, sides) for name in names if name not in CATEGORIES}
    telling = _telling(alone, middle)
    probes = [(columns, telling)]
    if facts.thumbnails is not None:
        pixels = facts.thumbnails.reshape(len(facts), -1)
        seen = "the picture itself, at 16 x 16 pixels" + (f", also {telling}" if telling else "")
        probes.append((np.hstack([columns, pixels]), seen))
    fold = _folds(unit, seed)
    found = [
        Shortcut(what, *told, telling or "several facts together")
        for features, telling in probes
        if (told := _probe(features, target, (unit, unit), fold, seed)) is not None
    ]
    return sorted((one for one in found if one.low > ABOVE), key=lambda one: -one.low)[:1]


def _two_files(
    what: str,
    facts: Facts,
    images: Sequence[ImageSource],
    pairs: _Pairs,
    unit: Ints,
    *,
    spec: ImageSpec | None,
    seed: int,
) -> list[Shortcut]:
    """Whether agreement of file facts tells sameness. The size in bytes, which is content, takes no part."""
    left, right, same, fold = pairs
    if same.all() or not same.any():
        return []
    ink = spec is not None and spec.ink != "none"
    names = ("width", "height") if ink else tuple(name for name in FACTS if name != "file size")
    apart = {name: np.nan_to_num(np.abs(facts[name][left] - facts[name][right])) for name in names}
    for name in set(CATEGORIES) & set(names):
        apart[name] = (apart[name] > 0).astype(np.float64)
    if facts.thumbnails is not None and not ink:
        level = _packing(images, seed)
        apart["packing"] = np.nan_to_num(np.abs(level[left] - level[right]))
    apart = {name: values for name, values in apart.items() if values.any()}
    if not apart:
        return []
    told = _probe(np.stack(list(apart.values()), axis=1), same, (unit[left], unit[right]), fold, seed)
    if told is None or told[1] <= ABOVE:
        return []
    telling = _telling({name: auc(values, same) for name, values in apart.items()}, {})
    return [Shortcut(what, *told, telling or "several facts together")]


def _packing(images: Sequence[ImageSource], seed: int) -> Floats:
    """`packing` of some images in quarter powers of two about the middle, NaN of the others."""
    level = np.full(len(images), np.nan)
    for place in np.random.default_rng(seed).permutation(len(images))[:_PACKED]:
        level[place] = packing(images[place])
    steps: Floats = np.round((level - np.nanmedian(level)) * 4)
    return steps


def _probe(
    features: NDArray[Any], target: Bools, units: tuple[Ints, Ints], fold: Index, seed: int
) -> tuple[float, float, float] | None:
    """AUC of a forest on the folds that it has not seen, and the interval; None where it cannot be had."""
    from sklearn.ensemble import ExtraTreesClassifier

    score = np.full(len(target), np.nan)
    for k in np.unique(fold):
        learn, ask = fold != k, fold == k
        if features.shape[1] and target[learn].any() and not target[learn].all():
            forest = ExtraTreesClassifier(30, min_samples_leaf=3, random_state=seed)
            forest.fit(features[learn], target[learn])
            score[ask] = forest.predict_proba(features[ask])[:, 1]
    known = np.isfinite(score)
    if known.sum() < _LEAST or target[known].all() or not target[known].any():
        return None
    told = Comparisons(
        distance=1 - score[known],
        same=target[known],
        left=units[0][known].astype(np.int32),
        right=units[1][known].astype(np.int32),
    )
    figure = auc(told.distance, told.same)
    drawn = [curve.auc() for curve in replicates(told, count=400, seed=seed)]
    ends = interval(drawn, figure=figure, units=class_count(told))
    return (round(figure, 4), round(ends[0], 4), round(ends[1], 4)) if ends else None


def _telling(alone: dict[str, float], more: dict[str, str]) -> str:
    """The facts that tell most on their own, in words; empty where none tells much."""
    best = [name for name in sorted(alone, key=lambda name: -alone[name])[:3] if alone[name] > ABOVE]
    return ", ".join(f"{name} ({alone[name]:.2f} alone{more.get(name, '')})" for name in best)


def _medians(values: Floats, target: Bools, sides: tuple[str, str]) -> str:
    one, other = (part[np.isfinite(part)] for part in (values[target], values[~target]))
    if not len(one) or not len(other):
        return ""
    return f"; median {np.median(one):g} in {sides[0]}, {np.median(other):g} in {sides[1]}"


def _some_classes(classes: Ints, seed: int) -> Index:
    """Whole classes at random, up to about as many images as one probe looks at."""
    order = np.random.default_rng(seed).permutation(classes.max(initial=0) + 1)
    sizes = np.bincount(classes, minlength=len(order))[order]
    taken = order[: 1 + np.searchsorted(np.cumsum(sizes), _IMAGES)]
    return np.flatnonzero(np.isin(classes, taken))


def _folds(unit: Ints, seed: int, *, count: int = 5) -> Index:
    """A fold for each unit, at random."""
    number = np.unique(unit, return_inverse=True)[1].reshape(-1)
    return (np.random.default_rng(seed).permutation(number.max(initial=0) + 1) % count)[number]


def _halves_within(classes: Ints, seed: int) -> Index:
    """One of two folds for each image, half of each class in either."""
    order = np.random.default_rng(seed).permutation(len(classes))
    fold = np.empty(len(classes), np.intp)
    fold[order[np.argsort(classes[order], kind="stable")]] = np.arange(len(classes)) % 2
    return fold


def _pairs_within(classes: Ints, fold: Index, seed: int) -> _Pairs:
    """As many same as different pairs, the two images of each in one fold."""
    none = np.empty(0, np.intp)
    parts = [_Pairs(none, none, none.astype(np.bool_), none)]
    for k in np.unique(fold):
        inside = np.flatnonzero(fold == k)
        counts = np.unique(classes[inside], return_counts=True)[1]
        if len(counts) > 1 and counts.max() > 1:
            left, right, same = make_pairs(classes[inside], pairs=2500, seed=seed)
            parts.append(_Pairs(inside[left], inside[right], same, np.full(len(same), k)))
    return _Pairs(*(np.concatenate(part) for part in zip(*parts, strict=True)))
