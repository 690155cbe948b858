"""Images decoded once, at the model's size, as one compact uint8 array."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError, some
from ..utils.progress import progress_bar
from .images import ImageSource, Pixels
from .preprocessing import ImageSpec, read_image

# Above this many bytes the array lies in a file that the system pages in and out, not in memory.
IN_MEMORY_BYTES = 2 << 30
_SOME = 32  # images a task: one alone may take less time than handing it to another thread


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images at the model's size.

    Args:
        pixels: uint8, shape ``(n, height, width, channels)``: the readable ones, in order.
        kept: Which of the images asked for they are, shape ``(n,)``.
        unreadable: One error for each image that was left out.
    """

    pixels: Pixels
    kept: NDArray[np.intp]
    unreadable: list[ImageError]

    def left_out(self) -> list[str]:
        """What must be said of the images that were left out: one sentence, or none."""
        named = some([str(error) for error in self.unreadable], 5)
        images = "image" if len(self.unreadable) == 1 else "images"
        return [f"{len(self.unreadable)} unreadable {images} left out: {named}"] if named else []


def decode(images: Sequence[ImageSource], spec: ImageSpec, *, progress: bool = True) -> Decoded:
    """Decode images into one array, on every core; unreadable ones are left out and named.

    Args:
        images: Paths, arrays, bytes or Pillow images.
        spec: The size and kind to bring them to.
        progress: Show a bar.
    """
    pixels = _allocate((len(images), *spec.shape))
    errors: list[ImageError | None] = [None] * len(images)

    def some(start: int) -> int:
        places = range(start, min(start + _SOME, len(images)))
        for place in places:
            try:
                pixels[place] = read_image(images[place], spec)
            except ImageError as error:
                errors[place] = error
        return len(places)

    with (
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress_bar("Reading images", len(images), show=progress) as advance,
    ):
        for done in pool.map(some, range(0, len(images), _SOME)):
            advance(done)
    kept = np.flatnonzero([error is None for error in errors])
    if len(kept) < len(images):
        for place, source in enumerate(kept):  # in place: a large cache is not copied
            pixels[place] = pixels[source]
        pixels = pixels[: len(kept)]
    return Decoded(pixels, kept, [error for error in errors if error is not None])


def _allocate(shape: tuple[int, int, int, int]) -> Pixels:
    if np.prod(shape, dtype=np.int64) <= IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    file = tempfile.TemporaryFile(prefix="twinned-")  # noqa: SIM115 - it lives as long as the array
    return np.memmap(file, np.uint8, "w+", shape=shape)
