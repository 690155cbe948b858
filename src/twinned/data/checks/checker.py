"""Check a dataset before training: run all checks and report problems.

file_features   metadata and a thumbnail of each image
counts          classes, pairs, splits, modes and sizes
duplicates      identical and similar pictures
shortcuts       labels that can be predicted without comparing content
faces           photographs of people without a face, or with several
issues          the results
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from ...errors import many, some
from ..datasets import ImageSet, PairSet
from ..images import ImageSource, Pixels
from ..preprocessing import ImageSpec
from ..readers import Data, as_dataset
from . import counts, shortcuts
from . import faces as people
from .duplicates import Groups, identical, lookalikes
from .file_features import Facts, gather
from .issues import SEVERITIES, Check, Issue, Severity, names_of

__all__ = ["Check", "Issue", "check_data"]

_ERROR_AUC = 0.8  # a shortcut with an interval above this AUC is an error


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
    problems = list(counts.unreadable(facts, names_of(data.images)))
    if isinstance(data, ImageSet):
        if not quick:  # training logs these notes itself
            problems += [Issue("unreadable", "warning", note, []) for note in data.notes]
        readable = data.subset(facts.readable)
        problems += _of_images(readable, facts.at(facts.readable), spec=spec, seed=seed)
    else:
        whole = np.isin(data.left, facts.readable) & np.isin(data.right, facts.readable)
        used = np.unique(np.concatenate([data.left[whole], data.right[whole]]))
        problems += _of_pairs(data.subset(whole), facts.at(used), spec=spec, seed=seed)
    shown = [data.images[place] for place in facts.readable.tolist()]
    if people.look_like_people(shown, seed) if faces is None and not quick else faces:
        problems += people.missing_and_several(shown, names_of(shown), seed=seed, progress=progress)
    problems.sort(key=lambda problem: SEVERITIES.index(problem.severity))
    classes = len(data.classes) if isinstance(data, ImageSet) else None
    return Check(len(data.images), classes, problems)


def _of_images(data: ImageSet, facts: Facts, *, spec: ImageSpec | None, seed: int) -> Iterator[Issue]:
    names = names_of(data.images)
    split, label = counts.splits(data)
    yield from counts.class_sizes(data, names)
    yield from counts.straddling(data, split, label, names)
    # A forgery and a genuine image of one writer count as different classes.
    role = np.where(data.forgery, "forgery of ", "")
    tag, side = np.char.add(role, label).tolist(), split.tolist()
    same = identical(data.images)
    yield from _same_pictures(same, names, tag, side, exact=True, within=facts.thumbnails is not None)
    if facts.thumbnails is not None:
        near = _near(data.images, facts.thumbnails, same, seed)
        yield from _same_pictures(near, names, tag, side, exact=False, within=True)
        yield from _decoded(facts, names, spec)
    if data.forgery.any():
        yield from _shortcuts(shortcuts.of_roles(data, facts, spec=spec, seed=seed))
    yield from _shortcuts(shortcuts.of_classes(data, facts, spec=spec, seed=seed))


def _of_pairs(pairs: PairSet, facts: Facts, *, spec: ImageSpec | None, seed: int) -> Iterator[Issue]:
    names = names_of(pairs.images)
    yield from counts.pair_counts(pairs)
    yield from _contradictions(pairs, names)
    same = identical(pairs.images)
    yield from _pairs_of_one_picture(same, pairs, names, exact=True)
    if facts.thumbnails is not None:
        near = _near(pairs.images, facts.thumbnails, same, seed)
        yield from _pairs_of_one_picture(near, pairs, names, exact=False)
        yield from _decoded(facts, names, spec)
    yield from _shortcuts(shortcuts.of_pairs(pairs, facts, spec=spec, seed=seed))


def _decoded(facts: Facts, names: list[str], spec: ImageSpec | None) -> Iterator[Issue]:
    """Yield problems of decoded images."""
    yield from counts.blank(facts, names)
    yield from counts.modes(facts, names)
    yield from counts.sizes(facts, names, spec)


def _near(images: Sequence[ImageSource], thumbnails: Pixels, same: Groups, seed: int) -> Groups:
    """Return groups of similar images, with one image of each identical group."""
    twins = [member for group in same for member in group[1:]]
    kept = np.setdiff1d(np.arange(len(images)), np.array(twins, dtype=np.intp))
    found = lookalikes([images[i] for i in kept], thumbnails[kept], seed=seed)
    return [kept[group].tolist() for group in found]


def _same_pictures(
    groups: Groups, names: list[str], tag: list[str], split: list[str], *, exact: bool, within: bool
) -> Iterator[Issue]:
    """Yield pictures with several labels, in several splits, or repeated in one class."""
    torn, leaked, other = [], [], []
    for group in groups:
        labels, sides = {tag[i] for i in group}, {split[i] for i in group} - {""}
        if len(labels) > 1:
            torn.append(group)
        if len(sides) > 1:
            leaked.append(group)
        if len(labels) == 1 and len(sides) < 2:
            other.append(group)
    grave: Severity = "error" if exact else "warning"
    if torn:
        advice = "One label is wrong, or the picture shows both: correct or remove it"
        labelled = [f"{name} ({label})" for name, label in zip(names, tag, strict=True)]
        yield _duplicate(torn, "under several labels", advice, grave, names, exact, labelled)
    if leaked:
        advice = "Testing on training images gives meaningless metrics: remove them from one split"
        sided = [f"{name} ({side})" for name, side in zip(names, split, strict=True)]
        yield _duplicate(leaked, "in several splits", advice, grave, names, exact, sided)
    if other and within:
        mild: Severity = "warning" if exact else "info"
        yield _duplicate(other, "several times in one class", "Keep one of each", mild, names, exact, names)


def _pairs_of_one_picture(
    groups: Groups, pairs: PairSet, names: list[str], *, exact: bool
) -> Iterator[Issue]:
    """Yield pairs of a picture with itself, and pictures with several names."""
    picture = np.arange(len(pairs.images))
    for group in groups:
        picture[group] = group[0]
    one = picture[pairs.left] == picture[pairs.right]
    if not exact:
        one &= pairs.left != pairs.right
    ends = np.stack([pairs.left, pairs.right], axis=1)
    paired = set(ends[one].ravel().tolist())
    loose = [group for group in groups if not paired & set(group)]
    grave: Severity = "error" if exact else "warning"
    mild: Severity = "warning" if exact else "info"
    for found, what, advice, severity in (
        (ends[one & ~pairs.same].tolist(), "paired as different", "Correct the list", grave),
        (ends[one & pairs.same].tolist(), "paired as same", "Such pairs are too easy: remove them", mild),
        (loose, "under several names", "Use one name for each, so that splits keep them together", mild),
    ):
        if found:
            yield _duplicate(found, what, advice, severity, names, exact, names)


def _contradictions(pairs: PairSet, names: list[str]) -> Iterator[Issue]:
    """Yield pairs that are listed both as same and as different."""
    ends = np.sort([pairs.left, pairs.right], axis=0)
    given = np.unique(np.vstack([ends, pairs.same]), axis=1)
    both, count = np.unique(given[:2], axis=1, return_counts=True)
    torn = both[:, count > 1].T.tolist()
    if torn:
        yield _duplicate(
            torn, "paired both as same and as different", "Correct the list", "error", names, None, names
        )


def _duplicate(
    groups: Groups,
    what: str,
    advice: str,
    severity: Severity,
    names: list[str],
    exact: bool | None,
    shown: list[str],
) -> Issue:
    how = {True: ", byte for byte", False: ", nearly the same at up to 96 x 96 pixels", None: ""}[exact]
    examples = [" = ".join(shown[i] for i in group[:3]) for group in groups]
    subject = many(len(groups), "pair" if exact is None else "picture")
    return Issue(
        "near_duplicate" if exact is False else "duplicate",
        severity,
        f"{subject} {what}{how}: {some(examples)}. {advice}",
        [names[i] for i in dict.fromkeys(chain.from_iterable(groups))],
    )


def _shortcuts(found: Iterable[shortcuts.Shortcut]) -> Iterator[Issue]:
    for one in found:
        yield Issue(
            "shortcut",
            "error" if one.low > _ERROR_AUC else "warning",
            f"{one.what}: AUC {one.auc:.2f} (95 % interval {one.low:.2f} to {one.high:.2f}; 0.5 is chance),"
            f" by {one.features}. A network may learn this instead of comparing, and fail on other data:"
            " remove this difference between the images, or record all of them in the same way",
            [],
        )
