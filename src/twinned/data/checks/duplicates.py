"""Find duplicate pictures: identical files, and pictures saved again with another format or size.

Similar pictures are adjacent in the order of short binary fingerprints (random half-spaces of the principal
directions of the thumbnails), for one of eight fingerprints; candidates are then compared in detail. Source
of the fingerprints: Charikar, Similarity estimation from rounding algorithms, STOC 2002.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...utils.files import file_sha256
from ..arrays import SupportsArray, as_array
from ..datasets import connected
from ..images import ImageSource, LazyImage, Pixels, open_image

Groups = list[list[int]]

_ORDERS, _NEIGHBORS, _BITS, _DIRECTIONS = 8, 4, 24, 16
_CANDIDATE = 0.97  # correlation of two thumbnails
_ALIKE, _ALIKE_TINY = 0.98, 0.998  # correlation at full detail; for images below 24 pixels
_DETAIL = 96  # pixels per side
_SMOOTH = Image.Resampling.BILINEAR
_MAX_CANDIDATES = 5000  # compared at full detail, the closest first


def identical(images: Sequence[ImageSource]) -> Groups:
    """Return groups of images with identical bytes."""
    by_length = _split(range(len(images)), map(_length, images))  # cheap, and leaves few images to read
    return [part for group in by_length for part in _split(group, [_digest(images[i]) for i in group])]


def lookalikes(images: Sequence[ImageSource], thumbnails: Pixels, *, seed: int = 0) -> Groups:
    """Return groups of images that show the same picture, saved in different ways.

    The images are readable and not identical; thumbnails are gray, uint8, shape ``(n, side, side)``.
    """

    @lru_cache(maxsize=256)
    def opened(place: int) -> Image.Image:
        image = open_image(images[place], at_least=(_DETAIL, _DETAIL)).convert("L")
        return image.resize((min(image.width, _DETAIL), min(image.height, _DETAIL)), _SMOOTH)

    near = _candidates(thumbnails, seed)
    return joined(len(images), [(a, b) for a, b in near if _same_picture(opened(a), opened(b))])


def joined(count: int, pairs: Sequence[tuple[int, int]]) -> Groups:
    """Return the groups that are connected by pairs, directly or indirectly."""
    ends = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    part = connected(count, ends[:, 0], ends[:, 1])
    members = np.unique(ends)
    return _split(members.tolist(), part[members].tolist())


def _split(group: Sequence[int], facts: Iterable[Hashable]) -> Groups:
    """Return groups of at least two members with an equal fact; None is not equal to None."""
    parts: defaultdict[Hashable, list[int]] = defaultdict(list)
    for member, fact in zip(group, facts, strict=True):
        parts[fact].append(member)
    parts.pop(None, None)
    return [part for part in parts.values() if len(part) > 1]


def _length(source: ImageSource) -> Hashable:
    if isinstance(source, LazyImage):
        return source.length
    if isinstance(source, (str, os.PathLike)):
        try:
            return os.path.getsize(source) or None
        except OSError:
            return None
    if (array := as_array(source)) is not None:
        return array.shape, array.dtype.str
    assert not isinstance(source, SupportsArray)
    return (*source.size, source.mode) if isinstance(source, Image.Image) else len(source)


def _digest(source: ImageSource) -> str:
    if isinstance(source, LazyImage):
        return source.sha256
    if isinstance(source, (str, os.PathLike)):
        return file_sha256(Path(source))
    if isinstance(source, Image.Image):
        return hashlib.sha256(source.tobytes()).hexdigest()
    array = as_array(source)
    return hashlib.sha256(np.ascontiguousarray(source if array is None else array).data).hexdigest()


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalize rows to mean 0 and length 1, so that dot products are correlations; flat rows become 0."""
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    length[length < rows.shape[1] ** 0.5] = np.inf  # a standard deviation below one gray level
    unit: NDArray[np.float32] = rows / length
    return unit


def _candidates(thumbnails: Pixels, seed: int) -> list[tuple[int, int]]:
    """Return pairs of nearly equal thumbnails, the closest first."""
    if len(thumbnails) < 2:
        return []
    unit = _unit(thumbnails.reshape(len(thumbnails), -1).astype(np.float32))
    rng = np.random.default_rng(seed)
    sample = unit[rng.permutation(len(unit))[:2000]]
    _, spread, directions = np.linalg.svd(sample, full_matrices=False)
    kept = np.flatnonzero(spread > 1e-3 * spread.max(initial=0))[:_DIRECTIONS]
    place = unit @ (directions[kept] / spread[kept, None]).T  # whitened, shape (n, directions)
    place -= np.median(place, axis=0)
    near: dict[tuple[int, int], float] = {}
    for _ in range(_ORDERS):
        bits = place @ rng.normal(size=(len(kept), _BITS)) > 0
        order = np.argsort(bits @ (1 << np.arange(_BITS)))
        for gap in range(1, _NEIGHBORS + 1):
            a, b = np.sort([order[:-gap], order[gap:]], axis=0)
            alike = np.einsum("ij,ij->i", unit[a], unit[b])
            found = np.flatnonzero(alike > _CANDIDATE)
            near.update(zip(zip(a[found].tolist(), b[found].tolist()), alike[found].tolist()))
    return sorted(near, key=lambda pair: -near[pair])[:_MAX_CANDIDATES]


def _same_picture(a: Image.Image, b: Image.Image) -> bool:
    size = min(a.width, b.width), min(a.height, b.height)
    small = [np.asarray(image.resize(size, _SMOOTH), np.float32) for image in (a, b)]
    one, other = _unit(np.stack(small).reshape(2, -1))
    return float(one @ other) >= (_ALIKE if min(size) >= 24 else _ALIKE_TINY)
