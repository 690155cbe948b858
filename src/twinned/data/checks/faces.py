"""Photographs of people without a face, or with several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import some
from ..decoded import in_threads
from ..faces.photographs import search, share_with_faces
from ..images import ImageSource, open_image
from .issues import Issue

_MOST = 0.5  # share of images with a face from which they are photographs of people
_SAMPLE = 1000  # images


def look_like_people(images: Sequence[ImageSource], seed: int) -> bool:
    """Return True if most of some images show a face; False without the extra ``faces``."""
    return (share_with_faces(images, seed=seed) or 0) >= _MOST


def missing_and_several(
    images: Sequence[ImageSource], names: Sequence[str], *, seed: int, progress: bool
) -> Iterator[Issue]:
    """Search at most 1,000 of the images for faces, and yield those without a face and those with several.

    Raises:
        MissingExtra: If the extra ``faces`` is not installed.
    """
    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:_SAMPLE]).tolist()
    counts = np.ones(len(chosen), int)

    def count(index: int) -> None:
        found = search(open_image(images[chosen[index]]))
        counts[index] = sum(face.score > 0 for face in found)

    in_threads(count, len(chosen), "Finding faces", progress=progress)
    of_all = f"of {len(chosen):,}{' sampled' if len(chosen) < len(images) else ''} images"
    for kind, wrong, advice in (
        ("no face", counts == 0, "Leave them out; of small ones the whole image is used"),
        (
            "several faces",
            counts > 1,
            "The largest is used: see that it is the right one, or use twinned crop",
        ),
    ):
        files = [names[chosen[place]] for place in np.flatnonzero(wrong)]
        if files:
            text = f"{kind} in {len(files):,} {of_all}: {some(files)}. {advice}"
            yield Issue("faces", "warning" if kind == "no face" else "info", text, files)
