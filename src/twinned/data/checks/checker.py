"""Check a dataset before training: run all checks and report problems."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import many, some
from ..datasets import ImageSet, PairSet
from ..faces.photographs import share_with_faces
from ..images import ImageSource
from ..preprocessing import ImageSpec
from ..readers import Data, as_dataset
from . import counts, shortcuts
from .duplicates import Groups, identical, lookalikes
from .file_features import Facts, gather
from .issues import SEVERITIES, Check, Issue, Kind, Severity

__all__ = ["Check", "Issue", "check_data"]

_ERROR_AUC = 0.8  # a shortcut with an interval above this AUC is an error
_PEOPLE = 0.5  # share of images with a face from which they are photographs of people


class _Match(NamedTuple):
    """Kind of duplicates, with the severity of bad and of harmless ones."""

    kind: Kind
    grave: Severity
    mild: Severity
    text: str


_IDENTICAL = _Match("duplicate", "error", "warning", ", byte for byte")
_SIMILAR = _Match("near_duplicate", "warning", "info", ", nearly the same at up to 96 x 96 pixels")
_LISTED = _Match("duplicate", "error", "warning", "")
# Duplicates of one meaning: groups, meaning, advice, severity, and the names to show of all images.
_Row = tuple[Groups, str, str, Severity, NDArray[np.object_]]


def check_data(
    data: Data,
    *,
    spec: ImageSpec | None = None,
    seed: int = 0,
    progress: bool = True,
    quick: bool = False,
    faces: bool | None = None,
) -> Check:
    """Find problems that impair training on a dataset or make its metrics too optimistic.

    Args:
        data: Images or pairs, or a path to them, as for `twinned.train`.
        spec: Input of the model, if known; images too small for it are reported, and shortcuts are searched
            for in preprocessed images.
        seed: Random seed of the samples for shortcuts.
        progress: Show a progress bar.
        quick: Read only file headers, as training does: no damage in the pixel data, no similar pictures, no
            modes and sizes, and only shortcuts in the headers.
        faces: Search the images for faces, which needs the extra ``faces``. By default this is done if the
            extra is installed and most images show a face, and ``quick`` is False.

    Returns:
        The problems, most severe first. No file is changed.

    Example:
        >>> from twinned.data.readers import load_images
        >>> pictures = np.random.default_rng(0).integers(0, 256, (6, 32, 32), dtype=np.uint8)
        >>> pictures[5] = pictures[0]
        >>> found = check_data(load_images(pictures, ["a", "a", "a", "b", "b", "b"]))
        >>> [(problem.kind, problem.severity) for problem in found.problems]
        [('duplicate', 'error'), ('too_few', 'warning')]
    """
    data = as_dataset(data)
    facts = gather(data.images, decode=not quick, spec=spec, progress=progress)
    problems = list(counts.unreadable(facts))
    if isinstance(data, ImageSet):
        if not quick:  # training logs these notes itself
            problems += [Issue("unreadable", "warning", note, []) for note in data.notes]
        problems += _of_images(data.subset(facts.readable), facts.at(facts.readable), seed)
    else:
        whole = np.isin(data.left, facts.readable) & np.isin(data.right, facts.readable)
        used = np.unique(np.concatenate([data.left[whole], data.right[whole]]))
        problems += _of_pairs(data.subset(whole), facts.at(used), seed)
    shown = [data.images[place] for place in facts.readable.tolist()]
    if (share_with_faces(shown, seed=seed) or 0) >= _PEOPLE if faces is None and not quick else faces:
        problems += counts.faces(shown, facts.named(facts.readable), seed=seed, progress=progress)
    problems.sort(key=lambda problem: SEVERITIES.index(problem.severity))
    classes = len(data.classes) if isinstance(data, ImageSet) else None
    return Check(len(data.images), classes, problems)


def _of_images(data: ImageSet, facts: Facts, seed: int) -> Iterator[Issue]:
    split, label = counts.splits(data)
    yield from counts.class_sizes(data, facts)
    yield from counts.straddling(data, split, label, facts)
    # A forgery and a genuine image of one writer count as different classes.
    tag, side = np.char.add(np.where(data.forgery, "forgery of ", ""), label).tolist(), split.tolist()
    for match, groups in _matches(data.images, facts, seed):
        yield from _duplicates(match, facts, _same_pictures(match, groups, facts, tag, side))
    yield from counts.decoded(facts)
    if data.forgery.any():
        yield from _shortcuts(shortcuts.of_roles(data, facts, seed=seed))
    yield from _shortcuts(shortcuts.of_classes(data, facts, seed=seed))


def _of_pairs(pairs: PairSet, facts: Facts, seed: int) -> Iterator[Issue]:
    yield from counts.pair_counts(pairs)
    ends = np.sort([pairs.left, pairs.right], axis=0)
    given = np.unique(np.vstack([ends, pairs.same]), axis=1)
    listed, count = np.unique(given[:2], axis=1, return_counts=True)
    torn = listed[:, count > 1].T.tolist()
    what, advice = "paired both as same and as different", "Correct the list"
    yield from _duplicates(_LISTED, facts, [(torn, what, advice, "error", facts.names)])
    for match, groups in _matches(pairs.images, facts, seed):
        yield from _duplicates(match, facts, _pairs_of_one_picture(match, groups, pairs, facts))
    yield from counts.decoded(facts)
    yield from _shortcuts(shortcuts.of_pairs(pairs, facts, seed=seed))


def _matches(images: Sequence[ImageSource], facts: Facts, seed: int) -> Iterator[tuple[_Match, Groups]]:
    """Yield groups of identical images, and of similar ones with one image of each identical group."""
    same = identical(images)
    yield _IDENTICAL, same
    if facts.thumbnails is not None:
        twins = [member for group in same for member in group[1:]]
        kept = np.setdiff1d(np.arange(len(images)), np.array(twins, dtype=np.intp))
        found = lookalikes([images[i] for i in kept], facts.thumbnails[kept], seed=seed)
        yield _SIMILAR, [kept[group].tolist() for group in found]


def _same_pictures(
    match: _Match, groups: Groups, facts: Facts, tag: list[str], split: list[str]
) -> list[_Row]:
    """Return pictures with several labels, in several splits, or repeated in one class."""
    torn, leaked, other = [], [], []
    for group in groups:
        labels, sides = {tag[i] for i in group}, {split[i] for i in group} - {""}
        if len(labels) > 1:
            torn.append(group)
        if len(sides) > 1:
            leaked.append(group)
        if len(labels) == 1 and len(sides) < 2 and facts.thumbnails is not None:
            other.append(group)
    wrong = "One label is wrong, or the picture shows both: correct or remove it"
    seen = "Testing on training images gives meaningless metrics: remove them from one split"
    labelled, sided = (
        facts.names + np.array([f" ({part})" for part in parts], object) for parts in (tag, split)
    )
    return [
        (torn, "under several labels", wrong, match.grave, labelled),
        (leaked, "in several splits", seen, match.grave, sided),
        (other, "several times in one class", "Keep one of each", match.mild, facts.names),
    ]


def _pairs_of_one_picture(match: _Match, groups: Groups, pairs: PairSet, facts: Facts) -> list[_Row]:
    """Return pairs of a picture with itself, and pictures with several names."""
    picture = np.arange(len(pairs.images))
    for group in groups:
        picture[group] = group[0]
    one = picture[pairs.left] == picture[pairs.right]
    if match is _SIMILAR:
        one &= pairs.left != pairs.right
    ends = np.stack([pairs.left, pairs.right], axis=1)
    paired = set(ends[one].ravel().tolist())
    loose = [group for group in groups if not paired & set(group)]
    apart, together = ends[one & ~pairs.same].tolist(), ends[one & pairs.same].tolist()
    advice = "Use one name for each, so that splits keep them together"
    return [
        (apart, "paired as different", "Correct the list", match.grave, facts.names),
        (together, "paired as same", "Such pairs are too easy: remove them", match.mild, facts.names),
        (loose, "under several names", advice, match.mild, facts.names),
    ]


def _duplicates(match: _Match, facts: Facts, rows: Iterable[_Row]) -> Iterator[Issue]:
    for groups, what, advice, severity, shown in rows:
        if groups:
            subject = many(len(groups), "pair" if match is _LISTED else "picture")
            examples = some([" = ".join(shown[i] for i in group[:3]) for group in groups])
            files = facts.named(list(dict.fromkeys(chain.from_iterable(groups))))
            text = f"{subject} {what}{match.text}: {examples}. {advice}"
            yield Issue(match.kind, severity, text, files)


def _shortcuts(found: Iterable[shortcuts.Shortcut]) -> Iterator[Issue]:
    for one in found:
        text = (
            f"{one.what}: AUC {one.auc:.2f} (95 % interval {one.low:.2f} to {one.high:.2f}; 0.5 is chance),"
            f" by {one.features}. A network may learn this instead of comparing, and fail on other data:"
            " remove this difference between the images, or record all of them in the same way"
        )
        yield Issue("shortcut", "error" if one.low > _ERROR_AUC else "warning", text, [])
