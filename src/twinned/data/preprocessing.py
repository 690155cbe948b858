"""Preprocessing shared by training and inference: size, ink, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import SettingError
from .images import ImageSource, Pixels, open_image

_DARK = 0.65  # ink is at most so much of the paper's level


class ImageSpec(BaseModel):
    """How an image becomes the model's input; the same in training and in running.

    Args:
        height: Rows of the model's input, in pixels.
        width: Columns of the model's input, in pixels.
        channels: 1 (grey) or 3 (colour).
        fit: What happens when the image has another shape than the model. ``stretch`` resizes each
            side; ``pad`` keeps the shape and fills up with the background; ``crop`` keeps the shape
            and cuts the middle out.
        ink: For handwriting. ``binary`` finds the ink (darker than 0.65 of the paper; where it is
            fainter, by Otsu's threshold), removes the background, crops to the ink and leaves black on
            white; ``grey`` does so and keeps the ink's grey values.
        mean: Taken off after scaling to [0, 1], one value a channel; done by the graph.
        std: Divided by after that, one value a channel; done by the graph.

    Raises:
        SettingError: If a value cannot be used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: Annotated[int, Field(ge=8, le=2048)]
    width: Annotated[int, Field(ge=8, le=2048)]
    channels: Literal[1, 3] = 3
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    ink: Literal["none", "binary", "grey"] = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __init__(
        self,
        *,
        height: int,
        width: int,
        channels: int = 3,
        fit: str = "stretch",
        ink: str = "none",
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        try:
            super().__init__(
                height=height, width=width, channels=channels, fit=fit, ink=ink, mean=mean, std=std
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise SettingError(f"image {where}: {first['msg']}; got {first['input']!r}") from None

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        if isinstance(values, dict):
            channels = 1 if values.get("channels") == 1 else 3
            values = {**values}
            values["mean"] = values.get("mean") or (0.0,) * channels
            values["std"] = values.get("std") or (1.0,) * channels
        return values

    @model_validator(mode="after")
    def _check(self) -> ImageSpec:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError("mean and std need one value a channel")
        if not all(np.isfinite(self.mean)) or not all(0 < s < float("inf") for s in self.std):
            raise ValueError("mean must be finite and std above 0")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self.height, self.width, self.channels


def read_image(source: ImageSource, spec: ImageSpec) -> Pixels:
    """Open an image and bring it to the model's size: the first half of preprocessing.

    Args:
        source: A path, the bytes of an image file, a Pillow image, or an array of shape (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4): uint8, bool, uint16, or floats in [0, 1].
        spec: The model's input.

    Returns:
        uint8 of shape ``spec.shape``.

    Raises:
        ImageError: If it is missing, empty, truncated, no image, or too large; names the file and why.
    """
    # Ink may fill a corner of its page, so that page is not decoded at a reduced scale.
    image = open_image(source, at_least=None if spec.ink != "none" else (2 * spec.width, 2 * spec.height))
    mode = "L" if spec.channels == 1 or spec.ink != "none" else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if spec.ink != "none":
        image = _ink(image, binary=spec.ink == "binary")
    image = _resize(image, spec)
    if spec.channels == 3 and image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(image, dtype=np.uint8).reshape(spec.shape)


def _resize(image: Image.Image, spec: ImageSpec) -> Image.Image:
    size = spec.width, spec.height
    if image.size == size:
        return image
    if spec.fit == "stretch":
        return image.resize(size, Image.Resampling.BILINEAR)
    if spec.fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    scale = min(spec.width / image.width, spec.height / image.height)
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    background: Any = "white" if spec.ink != "none" else _border(image)
    canvas = Image.new(image.mode, size, background)
    resized = image.resize(inner, Image.Resampling.BILINEAR)
    canvas.paste(resized, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return canvas


def _border(image: Image.Image) -> int | tuple[int, ...]:
    """The median of the outermost pixels, per channel."""
    values = np.asarray(image)
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    median = np.median(edge, axis=0)
    return tuple(int(v) for v in median) if median.ndim else int(median)


def _ink(image: Image.Image, *, binary: bool) -> Image.Image:
    """Dark ink on white, cropped to the ink with a margin of 4 % of its size."""
    values = np.asarray(image)
    if np.median(values) < 128:  # light ink on a dark ground
        values = 255 - values
    ink, dark = values <= otsu(values), _DARK * np.median(values)
    if ink.any() and values[ink].mean() <= dark:
        ink = values <= dark  # Otsu's level follows the pen: strokes would be as thick as it is dark
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if ink.all() or rows.size == 0:
        return Image.fromarray(np.full_like(values, 255))
    clean = np.where(ink, 0 if binary else values, 255).astype(np.uint8)
    margin = max(1, round(0.04 * max(np.ptp(rows), np.ptp(columns))))
    top, bottom = max(0, rows[0] - margin), rows[-1] + 1 + margin
    left, right = max(0, columns[0] - margin), columns[-1] + 1 + margin
    return Image.fromarray(clean[top:bottom, left:right])


def otsu(values: Pixels) -> int:
    """The grey level that best parts dark from light (Otsu 1979); pixels at or below it are dark."""
    count = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    dark = np.cumsum(count)
    light = dark[-1] - dark
    total = np.cumsum(count * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total[-1] * dark - total * dark[-1]) ** 2 / (dark * light)
    return int(np.nanargmax(np.where(np.isfinite(between), between, -1.0)))


def parse_image_size(size: str | int | tuple[int, int]) -> tuple[int, int]:
    """An image size in any of the forms in which it is given, as (height, width).

    Raises:
        SettingError: If it is none.
    """
    try:
        if isinstance(size, str):
            parts = [int(p) for p in size.lower().split("x")]
        else:
            parts = [size] if isinstance(size, int) else list(size)
        height, width = parts if len(parts) > 1 else (parts[0], parts[0])
        return int(height), int(width)
    except (ValueError, TypeError, IndexError):
        raise SettingError(f"an image size is HxW, such as 96x96; got {size!r}") from None
