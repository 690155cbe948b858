"""Check the numbers of classes, pairs and faces, splits, modes and sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ...errors import many, some
from ..datasets import SPLIT_NAMES, ImageSet, PairSet
from ..decoded import in_threads
from ..faces.photographs import search
from ..images import ImageSource, open_image
from ..splits import HOLD_OUT_FROM
from .file_features import Facts
from .issues import Issue, Severity

Strings = NDArray[np.str_]

_SPLITS = {*SPLIT_NAMES, *SPLIT_NAMES.values()}
_FACES_SAMPLE = 1000  # images
_FLAT = 2  # maximum range of gray levels in a thumbnail of a blank image
_LOSSLESS = ("1", "L", "P", "RGB")  # modes that convert to L or RGB without loss


def unreadable(facts: Facts) -> Iterator[Issue]:
    """Yield images that cannot be opened."""
    if facts.errors:
        reasons = some([f"{facts.names[i]} {error.reason}" for i, error in facts.errors.items()])
        text = f"{many(len(facts.errors), 'image')} of {len(facts):,} cannot be read: {reasons}."
        advice = "Training would ignore them: save them again or remove them"
        yield Issue("unreadable", "error", f"{text} {advice}", facts.named([*facts.errors]))


def decoded(facts: Facts) -> Iterator[Issue]:
    """Yield images without content, and those of unusual mode, size or aspect ratio."""
    if facts.thumbnails is None or not len(facts):
        return
    if files := facts.named(np.ptp(facts.thumbnails.reshape(len(facts), -1), axis=1) <= _FLAT):
        text = f"{many(len(files), 'image')} of one color, without content: {some(files)}. Remove them"
        yield Issue("unreadable", "warning", text, files)
    (main, most), *others = Counter(facts.mode.tolist()).most_common()
    if others:
        lossy = any(mode not in _LOSSLESS and " x " not in mode for mode, _ in others)
        found = ", ".join(f"{count:,} {mode}" for mode, count in others)
        advice = "All are converted (transparency becomes white, 16 bits become 8): check the results"
        text = f"{many(most, 'image')} of mode {main}, but also {found}. {advice}"
        yield Issue("mode", "warning" if lossy else "info", text, facts.named(facts.mode != main))
    if files := facts.named(facts.animated):
        text = (
            f"{many(len(files), 'file')} with several frames: only the first is used. Save others as images"
        )
        yield Issue("mode", "warning", text, files)
    width, height, spec = facts["width"], facts["height"], facts.spec
    area, shape = np.log2(width * height), np.log2(width / height)
    odd = np.flatnonzero((np.abs(area - np.median(area)) > 4) | (np.abs(shape - np.median(shape)) > 1.6))
    if len(odd):
        usual = f"the median is {np.median(width):.0f}x{np.median(height):.0f}"
        found = some([f"{facts.names[i]} {width[i]:.0f}x{height[i]:.0f}" for i in odd])
        text = f"{many(len(odd), 'image')} of unusual size or aspect ratio ({usual}): {found}"
        yield Issue("size", "info", f"{text}. Check if they belong here", facts.named(odd))
    if spec and (files := facts.named((2 * width < spec.width) | (2 * height < spec.height))):
        text = f"{many(len(files), 'image')} less than half as wide or high as the model's input"
        text += f" of {spec.width}x{spec.height}. Use larger images or a smaller input"
        yield Issue("size", "warning", text, files)


def class_sizes(data: ImageSet, facts: Facts) -> Iterator[Issue]:
    """Yield too few classes, classes with one image, and imbalance; forgeries are not counted."""
    genuine = np.flatnonzero(~data.forgery)
    labels, place, counts = np.unique(data.labels[genuine], return_inverse=True, return_counts=True)
    usable = np.sort(counts[counts > 1])
    if len(usable) < 2:
        text = (
            f"training needs two classes with two readable images each; {len(usable)} of"
            f" {many(len(labels), 'class')} can be used. Add images, or give each class its own folder"
        )
        yield Issue("too_few", "error", text, [])
    elif len(usable) < HOLD_OUT_FROM:
        unseen = len(usable) >= 4
        source = "cross-validation over them" if unseen else "training classes, so it may not generalize"
        text = (
            f"only {len(usable)} classes have two images: the threshold will come from {source}. Add classes"
        )
        yield Issue("too_few", "info" if unseen else "warning", text, [])
    if single := facts.named(genuine[counts[place] == 1]):
        text = f"{len(single):,} of {many(len(labels), 'class')} have one image: add second ones if possible"
        severity: Severity = "warning" if 2 * len(single) > len(labels) else "info"
        yield Issue("single_image_class", severity, text, single)
    few = usable[(len(usable) - 1) // 4] if len(usable) > 1 else 0
    if len(usable) > 1 and usable[-1] >= 10 * few:
        largest = labels[counts == usable[-1]][0]
        text = (
            f"{largest} has {usable[-1]:,} images, but a quarter of the classes {few} or fewer. Metrics over"
        )
        text += " pairs mostly measure the large classes: add images to the small ones"
        yield Issue("imbalance", "warning", text, facts.named(genuine[labels[place] == largest]))


def pair_counts(pairs: PairSet) -> Iterator[Issue]:
    """Yield too few pairs of one kind, or imbalance between the kinds."""
    same, different = int(pairs.same.sum()), int((~pairs.same).sum())
    text = f"the list has {same:,} same and {different:,} different pairs of readable images"
    if not (same and different):
        text += "; training needs both kinds. Add pairs of the other kind"
        yield Issue("too_few", "error", text, [])
    elif min(same, different) < 30:
        yield Issue("too_few", "warning", f"{text}; metrics need at least 30 of each. Add pairs", [])
    elif min(same, different) < 0.1 * len(pairs):
        text += ". Batches have half of each kind, so pairs of the rarer kind repeat: add more of them"
        yield Issue("imbalance", "warning", text, [])


def splits(data: ImageSet) -> tuple[Strings, Strings]:
    """Return split and label of each image; folders train and test above the class folders are splits."""
    parts = [label.partition("/") for label in data.labels.tolist()]
    if (data.split != "").any() or not all(rest and top.lower() in _SPLITS for top, _, rest in parts):
        return data.split_name, data.labels
    return np.array([top for top, _, _ in parts], np.str_), np.array([rest for _, _, rest in parts], np.str_)


def straddling(data: ImageSet, split: Strings, label: Strings, facts: Facts) -> Iterator[Issue]:
    """Yield groups, or else classes, with images in several splits."""
    if not (data.split != "").any():  # the folders above the class folders
        advice = (
            "These folders become part of the class names, so one class counts as two:"
            " give one of the folders, or a CSV with a split column"
        )
        yield from _crossing("class", label, split, "error", advice, facts)
        return
    advice = "Testing then profits from what a group has in common: keep each group in one split"
    groups = list(_crossing("group", data.groups, split, "error", advice, facts))
    advice = "Metrics then measure known classes, not new ones: keep each class in one split"
    yield from groups or _crossing("class", label, split, "warning", advice, facts)


def _crossing(
    what: str, of: Strings, split: Strings, severity: Severity, advice: str, facts: Facts
) -> Iterator[Issue]:
    known = (split != "") & (of != "")
    sides = np.unique(np.stack([of[known], split[known]]), axis=1)[0]
    each, count = np.unique(sides, return_counts=True)
    if len(crossing := each[count > 1]):
        found = some(crossing.tolist())
        text = f"{many(len(crossing), what)} with images in several splits: {found}. {advice}"
        yield Issue("group_straddles_split", severity, text, facts.named(known & np.isin(of, crossing)))


def faces(
    images: Sequence[ImageSource], names: Sequence[str], *, seed: int, progress: bool
) -> Iterator[Issue]:
    """Search at most 1,000 of the images for faces, and yield those without a face and those with several."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:_FACES_SAMPLE]).tolist()
    found = np.ones(len(chosen), int)

    def count(index: int) -> None:
        found[index] = sum(face.score > 0 for face in search(open_image(images[chosen[index]])))

    in_threads(count, len(chosen), "Finding faces", progress=progress)
    of_all = f"of {len(chosen):,}{' sampled' if len(chosen) < len(images) else ''} images"
    if files := [names[chosen[place]] for place in np.flatnonzero(found == 0)]:
        advice = "Leave them out; of small ones the whole image is used"
        yield Issue("faces", "warning", f"no face in {len(files):,} {of_all}: {some(files)}. {advice}", files)
    if files := [names[chosen[place]] for place in np.flatnonzero(found > 1)]:
        advice = "The largest is used: see that it is the right one, or use twinned crop"
        text = f"several faces in {len(files):,} {of_all}: {some(files)}. {advice}"
        yield Issue("faces", "info", text, files)
