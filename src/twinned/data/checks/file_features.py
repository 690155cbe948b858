"""What one image shows without its partner: facts of its file, and a thumbnail.

The facts are those that have nothing to do with what the picture shows: how large it is, how it was
saved, what surrounds it. The size in bytes is kept apart, because it also grows with the content.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import ImageError
from ...utils.progress import progress_bar
from ..images import ImageSource, Pixels, open_image
from ..preprocessing import ImageSpec, read_image

Floats = NDArray[np.float64]

HEADER = ("file size", "width", "height", "format", "mode", "compression", "metadata", "resolution")
DRAWN = ("background", "frame", "colour")
FACTS = (*HEADER, *DRAWN)
CATEGORIES = ("format", "mode")  # numbers without an order
SIDE = 16  # of the thumbnail
_SOME = 32  # images a task


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of each image, one row an image.

    Args:
        values: Shape ``(n, len(FACTS))``; NaN where a fact is not known.
        mode: Pillow's name of the mode (or an array's kind), shape ``(n,)``.
        animated: Whether the file has several frames, shape ``(n,)``.
        thumbnails: Grey, uint8 ``(n, SIDE, SIDE)``, or None where nothing was decoded.
        errors: Why an image cannot be used, by its number.
    """

    values: Floats
    mode: NDArray[np.str_]
    animated: NDArray[np.bool_]
    thumbnails: Pixels | None
    errors: dict[int, ImageError]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: str) -> Floats:
        """One fact of every image, shape ``(n,)``."""
        return self.values[:, FACTS.index(name)]

    @property
    def readable(self) -> NDArray[np.intp]:
        """The numbers of the images that can be used."""
        return np.setdiff1d(np.arange(len(self)), np.fromiter(self.errors, dtype=np.intp))

    def at(self, chosen: NDArray[np.intp]) -> Facts:
        """The facts of the chosen images, all of them readable."""
        return replace(
            self,
            values=self.values[chosen],
            mode=self.mode[chosen],
            animated=self.animated[chosen],
            thumbnails=None if self.thumbnails is None else self.thumbnails[chosen],
            errors={},
        )


def gather(
    images: Sequence[ImageSource],
    *,
    decode: bool = True,
    spec: ImageSpec | None = None,
    progress: bool = True,
) -> Facts:
    """Look at every image once.

    Args:
        images: Paths, arrays, bytes or Pillow images.
        decode: False reads headers only: damage behind them is not seen, and there are no thumbnails.
        spec: Make thumbnails of what a model with this input would see.
        progress: Show a bar.
    """
    count = len(images)
    values = np.full((count, len(FACTS)), np.nan)
    words = np.full((count, 2), "", dtype=object)  # format, mode
    animated = np.zeros(count, np.bool_)
    thumbnails = np.zeros((count, SIDE, SIDE), np.uint8) if decode else None
    errors: dict[int, ImageError] = {}

    def look(place: int) -> None:
        header = _header(images[place])
        if header is not None:
            values[place, : len(HEADER)], words[place], animated[place] = header
        if thumbnails is not None:
            picture = open_image(images[place], at_least=(128, 128))
            values[place, len(HEADER) :] = _drawn(picture)
            if spec is not None:
                picture = Image.fromarray(np.squeeze(read_image(images[place], spec)))
            thumbnails[place] = _thumbnail(picture)
        elif header is None:
            open_image(images[place])  # says what is wrong

    def some(start: int) -> int:
        places = range(start, min(start + _SOME, count))
        for place in places:
            try:
                look(place)
            except ImageError as error:
                errors[place] = error
        return len(places)

    # Headers of small files are read faster by one thread than by two that wait for each other.
    with (
        ThreadPoolExecutor(os.cpu_count() if decode else 1) as pool,
        progress_bar("Checking images", count, show=progress) as advance,
    ):
        for done in pool.map(some, range(0, count, _SOME)):
            advance(done)
    for column, name in enumerate(CATEGORIES):
        codes = np.unique(words[:, column].astype(np.str_), return_inverse=True)[1]
        values[:, FACTS.index(name)] = codes.reshape(-1)
    return Facts(values, words[:, 1].astype(np.str_), animated, thumbnails, dict(sorted(errors.items())))


def packing(source: ImageSource) -> float:
    """How many times (log2) the file is larger than the same picture saved again in the same way.

    The size in bytes grows with the content; this does not. 0 where nothing is known.
    """
    if not isinstance(source, (str, os.PathLike)):
        return 0.0
    with Image.open(source) as image:
        if image.format not in _AGAIN or image.width * image.height > 250_000:
            return 0.0
        again = io.BytesIO()
        image.save(again, image.format, **_AGAIN[image.format])
    return float(np.log2(os.path.getsize(source) / again.tell()))


_AGAIN: dict[str, dict[str, Any]] = {"JPEG": {"quality": "keep"}, "PNG": {"compress_level": 1}}


def _header(source: ImageSource) -> tuple[list[float], tuple[str, str], bool] | None:
    """The facts of HEADER, (format, mode) and whether it is animated; None if it cannot be read."""
    if isinstance(source, np.ndarray):
        if source.ndim < 2:
            return None
        height, width, *channels = source.shape
        mode = f"{source.dtype} x {channels[0] if channels else 1}"
        return [source.nbytes, width, height, 0, 0, 0, 0, 0], ("array", mode), False
    try:
        if isinstance(source, Image.Image):
            return _of_pillow(source, source.width * source.height * len(source.getbands()))
        if isinstance(source, (str, os.PathLike)):
            status = os.stat(source)
            if not stat.S_ISREG(status.st_mode):
                return None
            with Image.open(source) as image:
                return _of_pillow(image, status.st_size)
        with Image.open(io.BytesIO(source)) as image:
            return _of_pillow(image, len(source))
    except Exception:  # `open_image` says what is wrong, in words
        return None


def _of_pillow(image: Image.Image, size: int) -> tuple[list[float], tuple[str, str], bool]:
    tables = getattr(image, "quantization", None) or {}  # of a JPEG; coarser ones have larger values
    metadata = sum(len(v) if isinstance(v, (str, bytes)) else 1 for v in image.info.values())
    dpi = image.info.get("dpi") or (0,)
    values = [
        float(size),
        float(image.width),
        float(image.height),
        0.0,
        0.0,
        float(sum(sum(table) for table in tables.values())),
        float(metadata),
        round(float(dpi[0])),
    ]
    return values, (image.format or "", image.mode), bool(getattr(image, "is_animated", False))


def _drawn(image: Image.Image) -> list[float]:
    """The level of a plain background (NaN without one), the width of a frame, whether there is colour."""
    grey = np.asarray(image.convert("L"))
    rows, columns = (max(1, side // 25) for side in grey.shape)
    ring = np.concatenate(
        [grey[:rows].ravel(), grey[-rows:].ravel(), grey[:, :columns].ravel(), grey[:, -columns:].ravel()]
    )
    low, middle, high = np.percentile(ring, [25, 50, 75])
    background = middle if high - low <= 10 else np.nan  # else the picture goes on to its edge
    colour = 0.0
    if image.mode == "RGB":
        small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.int16)
        colour = float(np.ptp(small, axis=2).mean() > 4)
    return [background, _frame(grey), colour]


def _frame(grey: Pixels) -> float:
    """Width of an even frame of another level than the picture inside it, as a share of the smaller side."""
    level = int(grey[0, 0])
    if abs(float(np.median(grey)) - level) <= 16:
        return 0.0
    uneven = np.abs(grey.astype(np.int16) - level) > 8
    rows, columns = np.flatnonzero(uneven.any(axis=1)), np.flatnonzero(uneven.any(axis=0))
    gaps = rows[0], len(grey) - 1 - rows[-1], columns[0], grey.shape[1] - 1 - columns[-1]
    return float(min(gaps) / min(grey.shape))


def _thumbnail(image: Image.Image) -> Pixels:
    return np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
