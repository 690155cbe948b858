"""Read the official protocol lists of two benchmarks: pairs of LFW, one-shot runs of Omniglot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .datasets import Index, PairSet
from .readers import find_images

_LFW, _RUN = "pairs.txt", "class_labels.txt"


@dataclass(frozen=True, eq=False)
class LfwPairs:
    """Pair list of Labeled Faces in the Wild, with the person in each image and the fold of each pair."""

    pairs: PairSet
    people: NDArray[np.str_]
    fold: Index


@dataclass(frozen=True)
class OneShotRun:
    """Run of one-shot classification; the answers are the indices of the queries' classes in the support."""

    name: str
    queries: list[str]
    support: list[str]
    answers: list[int]


def official_protocol(source: str | os.PathLike[str]) -> str | None:
    """Return ``lfw`` or ``omniglot-runs`` if a folder holds the official lists, else None."""
    path = Path(source)
    if not path.is_dir():
        return None
    return "omniglot-runs" if _lists(path, _RUN) else "lfw" if _lists(path, _LFW) else None


def read_lfw(source: str | os.PathLike[str]) -> LfwPairs:
    """Read a pair list of LFW (Huang et al., UMass Amherst TR 07-49, 2007), and find its images.

    The source is a folder with the images and pairs.txt (View 2), or a list of View 1 beside the images.
    """
    path = Path(source)
    if not path.exists():
        raise DataError(f"{path}: no such folder; expected the LFW images and the official lists")
    if path.is_dir():
        lists = _lists(path, _LFW)
        if not lists:
            raise DataError(f"{path}: No {_LFW} found. Give the folder of the LFW images and lists.")
        path, below = lists[0], path
    else:
        below = path.parent if find_images(path.parent) else path.parent.parent
    images = {Path(image).stem: image for image in find_images(below)}
    lines = _lines(path)
    try:
        head = [int(value) for value in lines[0]]
        folds, each = (1, head[0]) if len(head) == 1 else head
        if folds < 1 or each < 1:
            raise ValueError
    except (ValueError, IndexError):
        raise DataError(f"{path}, line 1: expected the numbers of folds and of pairs") from None
    place: dict[str, int] = {}
    ends: list[tuple[int, int]] = []
    same = []
    for number, parts in enumerate(lines[1:], start=2):
        if len(parts) not in (3, 4) or not (parts[1] + parts[-1]).isdecimal():
            raise DataError(f"{path}, line {number}: expected NAME N M or NAME N NAME M")
        pair = (parts[0], parts[1]), (parts[-2] if len(parts) == 4 else parts[0], parts[-1])
        names = [f"{person}_{int(image):04d}" for person, image in pair]
        if missing := [name for name in names if name not in images]:
            raise DataError(f"{path}, line {number}: no image {missing[0]} in {below}")
        left, right = (place.setdefault(name, len(place)) for name in names)
        ends.append((left, right))
        same.append(len(parts) == 3)
    if len(ends) != folds * each * 2:
        raise DataError(f"{path}: the first line declares {folds * each * 2:,} pairs; got {len(ends):,}")
    index = np.array(ends, np.intp)
    return LfwPairs(
        PairSet([images[name] for name in place], index[:, 0], index[:, 1], np.array(same), origin=str(path)),
        np.array([name.rpartition("_")[0] for name in place]),
        np.arange(len(same)) // (2 * each),
    )


def read_omniglot_runs(root: str | os.PathLike[str]) -> list[OneShotRun]:
    """Read the official runs of 20-way one-shot classification (Lake et al., Science 2015) from all_runs."""
    lists = _lists(Path(root), _RUN)
    if not lists:
        raise DataError(f"{root}: No run found. Expected the extracted all_runs, with runNN/{_RUN}.")
    runs = []
    for path in lists:
        lines, base = _lines(path), path.parent.parent
        if not lines or any(len(line) != 2 for line in lines):
            raise DataError(f"{path}: each line must have a test and a training image")
        support = [str(p) for p in sorted((path.parent / "training").glob("*.png"))]
        queries, answers = ([str(base / line[side]) for line in lines] for side in (0, 1))
        missing = [p for p in queries if not os.path.isfile(p)] + [p for p in answers if p not in support]
        if missing:
            raise DataError(f"{missing[0]}: listed in {path}, but missing")
        runs.append(OneShotRun(path.parent.name, queries, support, [support.index(p) for p in answers]))
    if len(sizes := {(len(run.queries), len(run.support)) for run in runs}) > 1:
        raise DataError(f"{root}: the runs must have the same numbers of images; got {sorted(sizes)}")
    return runs


def _lists(root: Path, name: str) -> list[Path]:
    """Return the lists of that name in a folder, else one level below, else two levels below."""
    return next((found for depth in ("", "*/", "*/*/") if (found := sorted(root.glob(depth + name)))), [])


def _lines(path: Path) -> list[list[str]]:
    try:
        return [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: The file cannot be read ({error}).") from None
