"""Photographs of people without a face, or with several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...errors import some
from ..decoded import in_threads
from ..faces.photographs import search
from ..images import ImageSource, open_image
from .issues import Issue

_SAMPLE = 1000  # images


def missing_and_several(
    images: Sequence[ImageSource], names: Sequence[str], *, seed: int, progress: bool
) -> Iterator[Issue]:
    """Search at most 1,000 of the images for faces, and yield those without a face and those with several."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(images))[:_SAMPLE]).tolist()
    counts = np.ones(len(chosen), int)

    def count(index: int) -> None:
        found = search(open_image(images[chosen[index]]))
        counts[index] = sum(face.score > 0 for face in found)

    in_threads(count, len(chosen), "Finding faces", progress=progress)
    of_all = f"of {len(chosen):,}{' sampled' if len(chosen) < len(images) else ''} images"
    if files := [names[chosen[place]] for place in np.flatnonzero(counts == 0)]:
        advice = "Leave them out; of small ones the whole image is used"
        yield Issue("faces", "warning", f"no face in {len(files):,} {of_all}: {some(files)}. {advice}", files)
    if files := [names[chosen[place]] for place in np.flatnonzero(counts > 1)]:
        advice = "The largest is used: see that it is the right one, or use twinned crop"
        text = f"several faces in {len(files):,} {of_all}: {some(files)}. {advice}"
        yield Issue("faces", "info", text, files)
