"""Per-image features for shortcut detection: file metadata, background and frame, and a thumbnail."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import ImageError
from ..arrays import SupportsArray, as_array, channels_last
from ..decoded import in_threads
from ..images import ImageSource, LazyImage, Pixels, open_image
from ..preprocessing import ImageSpec, read_image

Floats = NDArray[np.float64]

HEADER = ("file size", "width", "height", "format", "mode", "compression", "metadata", "resolution")
DRAWN = ("background", "frame", "color")
FACTS = (*HEADER, *DRAWN)
CATEGORIES = ("format", "mode")  # codes without an order
SIDE = 16  # pixels of a thumbnail


@dataclass(frozen=True, eq=False)
class Facts:
    """Features of all images, one row per image."""

    names: NDArray[np.object_]  # path of each image, or its index
    values: Floats  # (n, len(FACTS)); NaN for unknown values
    mode: NDArray[np.str_]  # of Pillow, or the kind of an array
    animated: NDArray[np.bool_]  # True for files with several frames
    thumbnails: Pixels | None  # gray, uint8, (n, SIDE, SIDE); None if images were not decoded
    errors: dict[int, ImageError]  # of unreadable images
    spec: ImageSpec | None  # input of the model

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, name: str) -> Floats:
        """Return one feature of all images, shape ``(n,)``."""
        return self.values[:, FACTS.index(name)]

    @property
    def only_ink(self) -> bool:
        """True if preprocessing keeps the ink only, so that paper and file make no difference."""
        return self.spec is not None and self.spec.ink != "none"

    def named(self, chosen: NDArray[Any] | Sequence[int]) -> list[str]:
        """Return the names of the images at indices, or where a mask is True."""
        names: list[str] = self.names[chosen].tolist()
        return names

    @property
    def readable(self) -> NDArray[np.intp]:
        """Indices of the readable images."""
        return np.setdiff1d(np.arange(len(self)), np.fromiter(self.errors, dtype=np.intp))

    def at(self, chosen: NDArray[np.intp]) -> Facts:
        """Return the features of the chosen images, which must be readable."""
        return replace(
            self,
            names=self.names[chosen],
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
    """Extract the features of images; with a spec, thumbnails are made of images preprocessed for that input.

    Without ``decode`` only headers are read: no thumbnails, and no damage in the pixel data is detected.
    """
    count = len(images)
    values = np.full((count, len(FACTS)), np.nan)
    words = np.full((count, 2), "", dtype=object)  # format, mode
    animated = np.zeros(count, np.bool_)
    thumbnails = np.zeros((count, SIDE, SIDE), np.uint8) if decode else None

    def look(place: int) -> None:
        header = _header(images[place])
        if header is not None:
            values[place, : len(HEADER)], words[place], animated[place] = header
        if thumbnails is not None:
            picture = open_image(images[place], at_least=(128, 128))
            values[place, len(HEADER) :] = _drawn(picture)
            if spec is not None:
                picture = Image.fromarray(np.squeeze(read_image(images[place], spec)))
            small = picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            thumbnails[place] = np.asarray(small)
        elif header is None:
            open_image(images[place])  # raises the error

    # One thread reads the headers of small files faster than several that wait for each other.
    errors = in_threads(look, count, "Checking images", threads=None if decode else 1, progress=progress)
    for column, name in enumerate(CATEGORIES):
        codes = np.unique(words[:, column].astype(np.str_), return_inverse=True)[1]
        values[:, FACTS.index(name)] = codes.reshape(-1)
    names = [
        os.fspath(image) if isinstance(image, (str, os.PathLike)) else f"image {place}"
        for place, image in enumerate(images)
    ]
    return Facts(
        np.array(names, object), values, words[:, 1].astype(np.str_), animated, thumbnails, errors, spec
    )


def packing(source: ImageSource) -> float:
    """Return log2 of the file size over the size of the same picture saved again in the same way.

    Unlike the size, this does not depend on the content. 0 if unknown.
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
    """Return the features of HEADER, (format, mode) and animated; None if the header cannot be read."""
    if isinstance(source, LazyImage):
        return [source.length, *source.size, 0, 0, 0, 0, 0], ("array", source.mode), False
    try:
        if (array := as_array(source)) is not None:
            height, width, *channels = channels_last(array).shape
            mode = f"{array.dtype} x {channels[0] if channels else 1}"
            return [array.nbytes, width, height, 0, 0, 0, 0, 0], ("array", mode), False
        assert not isinstance(source, (np.ndarray, SupportsArray))
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
    except Exception:  # `open_image` raises an error with the reason
        return None


def _of_pillow(image: Image.Image, size: int) -> tuple[list[float], tuple[str, str], bool]:
    tables = getattr(image, "quantization", None) or {}  # of a JPEG; larger values are coarser
    metadata = sum(len(v) if isinstance(v, (str, bytes)) else 1 for v in image.info.values())
    dpi = image.info.get("dpi") or (0,)
    compression = sum(sum(table) for table in tables.values())
    values = [size, *image.size, 0, 0, compression, metadata, round(float(dpi[0]))]
    return values, (image.format or "", image.mode), bool(getattr(image, "is_animated", False))


def _drawn(image: Image.Image) -> list[float]:
    """Return the gray level of a plain background (else NaN), the width of a frame, and 1 for color."""
    gray = np.asarray(image.convert("L"))
    rows, columns = (max(1, side // 25) for side in gray.shape)
    ring = np.concatenate(
        [gray[:rows].ravel(), gray[-rows:].ravel(), gray[:, :columns].ravel(), gray[:, -columns:].ravel()]
    )
    low, middle, high = np.percentile(ring, [25, 50, 75])
    background = middle if high - low <= 10 else np.nan  # otherwise the content reaches the edge
    color = 0.0
    if image.mode == "RGB":
        small = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX), dtype=np.int16)
        color = float(np.ptp(small, axis=2).mean() > 4)
    return [background, _frame(gray), color]


def _frame(gray: Pixels) -> float:
    """Return the width of a plain frame around the picture, as a fraction of the smaller side."""
    level = int(gray[0, 0])
    if abs(float(np.median(gray)) - level) <= 16:
        return 0.0
    uneven = np.abs(gray.astype(np.int16) - level) > 8
    rows, columns = np.flatnonzero(uneven.any(axis=1)), np.flatnonzero(uneven.any(axis=0))
    gaps = rows[0], len(gray) - 1 - rows[-1], columns[0], gray.shape[1] - 1 - columns[-1]
    return float(min(gaps) / min(gray.shape))
