"""Detect shortcuts: labels that can be predicted without comparing the content of two images.

A small random forest predicts the label from one image, or the class of two from the agreement of their file
features. It is tested on other classes than it was trained on; the interval of its AUC resamples classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...metrics.bootstrap import class_count, interval, replicates
from ...metrics.comparisons import Comparisons
from ...metrics.roc import auc
from ..datasets import ImageSet, Index, PairSet
from ..images import ImageSource
from ..pairs import make_pairs
from .file_features import CATEGORIES, FACTS, Facts, packing

Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]
Floats = NDArray[np.float64]

ABOVE = 0.6
_IMAGES = 3000  # maximum per probe
_PACKED = 800  # of these, saved again for the feature "packing"
_MIN_SAMPLES = 20  # images or pairs of a probe
_CLASSES = 10  # with fewer classes, training and test data share classes


class Shortcut(NamedTuple):
    """Label that can be predicted from information that should not suffice."""

    what: str  # beginning of a sentence: the label, and the information
    auc: float  # on unseen classes; 0.5 is chance, 1 is certainty
    low: float  # bounds of its 95 % interval
    high: float
    features: str  # the most predictive ones


def of_roles(data: ImageSet, facts: Facts, *, seed: int = 0) -> list[Shortcut]:
    """Predict the role (genuine or forgery) from single readable images and their features."""
    chosen = _some_classes(data.class_index, seed)
    return _one_image(
        "forgeries and genuine images can be distinguished one by one, without a reference",
        facts.at(chosen),
        data.forgery[chosen],
        data.class_index[chosen],
        sides=("forgeries", "genuine images"),
        seed=seed,
    )


def of_classes(data: ImageSet, facts: Facts, *, seed: int = 0) -> list[Shortcut]:
    """Predict from file features if two readable images are of one class."""
    genuine = np.flatnonzero(~data.forgery)
    chosen = genuine[_some_classes(data.class_index[genuine], seed)]
    classes = data.class_index[chosen]
    many = len(np.unique(classes)) >= _CLASSES
    # Only two folds: both images of a pair are in one fold, and small folds have few pairs.
    fold = _folds(classes, seed, count=2) if many else _halves_within(classes, seed)
    return _two_files(
        "two images of one class can be recognized from their files, without their content",
        facts.at(chosen),
        [data.images[i] for i in chosen],
        _pairs_within(classes, fold, seed),
        classes if many else np.arange(len(chosen)),
        seed=seed,
    )


def of_pairs(pairs: PairSet, facts: Facts, *, seed: int = 0) -> list[Shortcut]:
    """Predict the kind of listed pairs from one side, or from file features."""
    chosen = np.random.default_rng(seed).permutation(len(pairs))[:_IMAGES]
    left, right, same = pairs.left[chosen], pairs.right[chosen], pairs.same[chosen]
    # Components share no image. If one is too large, use groups of images that same pairs link.
    unit = pairs.components()
    if np.bincount(unit[left]).max(initial=0) > len(chosen) / 4:
        unit = pairs.identity_groups()
    what = "same and different pairs can be distinguished from the"
    found = _two_files(
        f"{what} two files, without their content",
        facts,
        pairs.images,
        _Pairs(left, right, same, _folds(unit[left], seed)),
        unit,
        seed=seed,
    )
    sides = "same pairs", "different pairs"
    for side, ends in (("left", left), ("right", right)):
        text = f"{what} {side} image alone"
        found += _one_image(text, facts.at(ends), same, unit[ends], sides=sides, seed=seed)
    return found


class _Pairs(NamedTuple):
    left: Index
    right: Index
    same: Bools
    fold: Index


def _one_image(
    what: str, facts: Facts, target: Bools, unit: Ints, *, sides: tuple[str, str], seed: int
) -> list[Shortcut]:
    """Return the better of two probes, with file features and with file features and thumbnail."""
    if target.all() or not target.any():
        return []
    names = () if facts.only_ink else FACTS
    columns = np.nan_to_num(facts.values[:, [FACTS.index(name) for name in names]], nan=-1)
    figures = {name: auc(column, target) for name, column in zip(names, columns.T, strict=True)}
    alone = {name: max(figure, 1 - figure) for name, figure in figures.items()}
    middle = {name: _medians(facts[name], target, sides) for name in names if name not in CATEGORIES}
    best = _best_features(alone, middle)
    probes = [(columns, best)]
    if facts.thumbnails is not None:
        pixels = facts.thumbnails.reshape(len(facts), -1)
        text = "the picture itself, at 16 x 16 pixels" + (f", also {best}" if best else "")
        probes.append((np.hstack([columns, pixels]), text))
    fold = _folds(unit, seed)
    found = [_probe(what, text, features, target, (unit, unit), fold, seed) for features, text in probes]
    return sorted(chain(*found), key=lambda one: -one.low)[:1]


def _two_files(
    what: str, facts: Facts, images: Sequence[ImageSource], pairs: _Pairs, unit: Ints, *, seed: int
) -> list[Shortcut]:
    """Probe with the differences of file features, except the size in bytes, which depends on content."""
    left, right, same, fold = pairs
    if same.all() or not same.any():
        return []
    names = ("width", "height") if facts.only_ink else tuple(name for name in FACTS if name != "file size")
    difference = {name: np.nan_to_num(np.abs(facts[name][left] - facts[name][right])) for name in names}
    for name in set(CATEGORIES) & set(names):
        difference[name] = (difference[name] > 0).astype(np.float64)
    if facts.thumbnails is not None and not facts.only_ink:
        level = _packing(images, seed)
        difference["packing"] = np.nan_to_num(np.abs(level[left] - level[right]))
    difference = {name: values for name, values in difference.items() if values.any()}
    if not difference:
        return []
    best = _best_features({name: auc(values, same) for name, values in difference.items()}, {})
    features = np.stack(list(difference.values()), axis=1)
    return _probe(what, best, features, same, (unit[left], unit[right]), fold, seed)


def _packing(images: Sequence[ImageSource], seed: int) -> Floats:
    """Return `packing` of some images, relative to the median in steps of 1/4; NaN for the others."""
    level = np.full(len(images), np.nan)
    for place in np.random.default_rng(seed).permutation(len(images))[:_PACKED]:
        level[place] = packing(images[place])
    steps: Floats = np.round((level - np.nanmedian(level)) * 4)
    return steps


def _probe(
    what: str,
    best: str,
    features: NDArray[Any],
    target: Bools,
    units: tuple[Ints, Ints],
    fold: Index,
    seed: int,
) -> list[Shortcut]:
    """Cross-validate a forest, and return a shortcut if the interval of its AUC is above `ABOVE`."""
    from sklearn.ensemble import ExtraTreesClassifier

    score = np.full(len(target), np.nan)
    for k in np.unique(fold):
        train, test = fold != k, fold == k
        if features.shape[1] and target[train].any() and not target[train].all():
            forest = ExtraTreesClassifier(30, min_samples_leaf=3, random_state=seed)
            forest.fit(features[train], target[train])
            score[test] = forest.predict_proba(features[test])[:, 1]
    known = np.isfinite(score)
    if known.sum() < _MIN_SAMPLES or target[known].all() or not target[known].any():
        return []
    left, right = (unit[known].astype(np.int32) for unit in units)
    comparisons = Comparisons(distance=1 - score[known], same=target[known], left=left, right=right)
    figure = auc(comparisons.distance, comparisons.same)
    drawn = [curve.auc() for curve in replicates(comparisons, count=400, seed=seed)]
    ends = interval(drawn, figure=figure, units=class_count(comparisons))
    if not ends or round(ends[0], 4) <= ABOVE:
        return []
    figure, low, high = (round(value, 4) for value in (figure, *ends))
    return [Shortcut(what, figure, low, high, best or "several features together")]


def _best_features(alone: dict[str, float], more: dict[str, str]) -> str:
    """Describe the features that are most predictive alone; empty if none is above `ABOVE`."""
    best = [name for name in sorted(alone, key=lambda name: -alone[name])[:3] if alone[name] > ABOVE]
    return ", ".join(f"{name} ({alone[name]:.2f} alone{more.get(name, '')})" for name in best)


def _medians(values: Floats, target: Bools, sides: tuple[str, str]) -> str:
    one, other = (part[np.isfinite(part)] for part in (values[target], values[~target]))
    if not len(one) or not len(other):
        return ""
    return f"; median {np.median(one):g} in {sides[0]}, {np.median(other):g} in {sides[1]}"


def _some_classes(classes: Ints, seed: int) -> Index:
    """Return the indices of random whole classes, with about `_IMAGES` images."""
    order = np.random.default_rng(seed).permutation(classes.max(initial=0) + 1)
    sizes = np.bincount(classes, minlength=len(order))[order]
    taken = order[: 1 + np.searchsorted(np.cumsum(sizes), _IMAGES)]
    return np.flatnonzero(np.isin(classes, taken))


def _folds(unit: Ints, seed: int, *, count: int = 5) -> Index:
    """Return a random fold for each unit."""
    number = np.unique(unit, return_inverse=True)[1].reshape(-1)
    return (np.random.default_rng(seed).permutation(number.max(initial=0) + 1) % count)[number]


def _halves_within(classes: Ints, seed: int) -> Index:
    """Return one of two folds for each image; each class is halved."""
    order = np.random.default_rng(seed).permutation(len(classes))
    fold = np.empty(len(classes), np.intp)
    fold[order[np.argsort(classes[order], kind="stable")]] = np.arange(len(classes)) % 2
    return fold


def _pairs_within(classes: Ints, fold: Index, seed: int) -> _Pairs:
    """Return as many same as different pairs; both images of a pair are in one fold."""
    none = np.empty(0, np.intp)
    parts = [_Pairs(none, none, none.astype(np.bool_), none)]
    for k in np.unique(fold):
        inside = np.flatnonzero(fold == k)
        counts = np.unique(classes[inside], return_counts=True)[1]
        if len(counts) > 1 and counts.max() > 1:
            left, right, same = make_pairs(classes[inside], pairs=2500, seed=seed)
            parts.append(_Pairs(inside[left], inside[right], same, np.full(len(same), k)))
    return _Pairs(*(np.concatenate(part) for part in zip(*parts, strict=True)))
