"""Preprocessing shared by training and inference: size, ink, mean and standard deviation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

from ..errors import ImageError, SettingError
from .images import ImageSource, Pixels, open_image, source_name

Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom

_DARK = 0.65  # maximum gray level of ink, relative to the paper


class ImageSpec(BaseModel):
    """Preprocessing of an image to the input of a model, shared by training and inference.

    `read_image` performs the first half and returns uint8. The second half (scale to [0, 1], subtract
    ``mean``, divide by ``std``) is part of the ONNX graph.

    Args:
        height: Height of the input in pixels, 8 to 2048.
        width: Width of the input in pixels, 8 to 2048.
        channels: Number of channels: 1 (gray) or 3 (color).
        fit: Handling of images with another aspect ratio: ``stretch`` resizes each side, ``pad`` keeps the
            ratio and fills with the background, ``crop`` keeps the ratio and the center.
        ink: Ink extraction for handwriting: ``binary`` finds ink (darker than 0.65 of the paper, or than
            Otsu's threshold for fainter ink), crops to it, and returns black on white; ``grey`` keeps the
            gray values of the ink; ``none`` keeps the image.
        faces: ``largest`` finds the largest face of a photograph and aligns it by its landmarks, which needs
            the extra ``faces``; ``all`` does so with every face (`read_faces`); ``none`` keeps the image.
        min_face: Size of the smallest faces in pixels, at least 10; by default as for `twinned.faces.detect`.
        mean: Mean of each channel, pixels scaled to [0, 1]; by default 0.
        std: Standard deviation of each channel, above 0; by default 1.

    Raises:
        SettingError: If a value is invalid.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    height: Annotated[int, Field(ge=8, le=2048)]
    width: Annotated[int, Field(ge=8, le=2048)]
    channels: Literal[1, 3] = 3
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    ink: Literal["none", "binary", "grey"] = "none"
    faces: Literal["none", "largest", "all"] = "none"
    min_face: Annotated[int | None, Field(ge=10)] = None
    mean: tuple[FiniteFloat, ...] = ()
    std: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = ()

    def __init__(
        self,
        *,
        height: int,
        width: int,
        channels: int = 3,
        fit: str = "stretch",
        ink: str = "none",
        faces: str = "none",
        min_face: int | None = None,
        mean: Sequence[float] = (),
        std: Sequence[float] = (),
    ) -> None:
        n_values = 1 if channels == 1 else 3
        try:
            super().__init__(
                height=height,
                width=width,
                channels=channels,
                fit=fit,
                ink=ink,
                faces=faces,
                min_face=min_face,
                mean=mean or (0.0,) * n_values,
                std=std or (1.0,) * n_values,
            )
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise SettingError(f"image {where}: {first['msg']}; got {first['input']!r}") from None

    @model_validator(mode="after")
    def _check(self) -> ImageSpec:
        if len(self.mean) != self.channels or len(self.std) != self.channels:
            raise ValueError("mean and std need one value per channel")
        return self

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tuple (height, width, channels)."""
        return self.height, self.width, self.channels

    def with_faces(self, faces: str | None = None, min_face: int | None = None) -> ImageSpec:
        """Return a copy that treats faces in another way; None keeps a value.

        Raises:
            SettingError: If a value is invalid.
        """
        changes = {"faces": faces, "min_face": min_face}
        given = {name: value for name, value in changes.items() if value is not None}
        return ImageSpec(**self.model_dump() | given) if given else self


def read_image(source: ImageSource, spec: ImageSpec, *, enroll: bool = False) -> Pixels:
    """Open an image and resize it to the input of a model, uint8 of shape ``spec.shape``.

    ``enroll`` refuses a face that cannot be recognized later, see `twinned.data.faces.quality`. An
    `ImageError` names the file and the reason.
    """
    if spec.faces == "all":
        raise SettingError('One face of each image is expected. Choose `faces="largest"` or `faces="none"`')
    return read_faces(source, spec, enroll=enroll)[0][1]


def read_faces(
    source: ImageSource, spec: ImageSpec, *, enroll: bool = False
) -> list[tuple[Box | None, Pixels]]:
    """Read an image as `read_image` does, with ``faces="all"`` each of its faces, the largest first.

    A face comes with its box in pixels of the upright image, which is None without ``faces="all"``.
    """
    # Ink can be a small part of its page and a face of its photograph, so these are decoded at full scale.
    whole = spec.ink != "none" or spec.faces != "none"
    image = open_image(source, at_least=None if whole else (2 * spec.width, 2 * spec.height))
    if spec.faces == "none":
        return [(None, _prepared(image, spec))]
    from .faces.landmarks import align_chip
    from .faces.photographs import expected_faces

    every, side = spec.faces == "all", max(spec.width, spec.height)
    faces = expected_faces(image, source, every=every, min_face=spec.min_face)
    if enroll:
        from .faces.quality import assess

        for face in faces:
            if (reason := assess(image, face).refused) is not None:
                raise ImageError(source_name(source), reason)
    chips = [_prepared(align_chip(image, face.landmarks, side), spec) for face in faces]
    return [(face.box if every else None, chip) for face, chip in zip(faces, chips, strict=True)]


def _prepared(image: Image.Image, spec: ImageSpec) -> Pixels:
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
    corner = (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2
    canvas.paste(image.resize(inner, Image.Resampling.BILINEAR), corner)
    return canvas


def _border(image: Image.Image) -> int | tuple[int, ...]:
    """Return the median of the outermost pixels, per channel."""
    values = np.asarray(image)
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    median = np.median(edge, axis=0)
    return tuple(int(v) for v in median) if median.ndim else int(median)


def _ink(image: Image.Image, *, binary: bool) -> Image.Image:
    """Return dark ink on white, cropped to the ink with a margin of 4 % of its size."""
    values = np.asarray(image)
    if np.median(values) < 128:  # light ink on a dark background
        values = 255 - values
    ink, dark = values <= otsu(values), _DARK * np.median(values)
    if ink.any() and values[ink].mean() <= dark:
        ink = values <= dark  # with Otsu's threshold, the width of strokes depends on how dark the pen is
    rows, columns = np.flatnonzero(ink.any(axis=1)), np.flatnonzero(ink.any(axis=0))
    if ink.all() or rows.size == 0:
        return Image.fromarray(np.full_like(values, 255))
    clean = np.where(ink, 0 if binary else values, 255).astype(np.uint8)
    margin = max(1, round(0.04 * max(np.ptp(rows), np.ptp(columns))))
    top, bottom = max(0, rows[0] - margin), rows[-1] + 1 + margin
    left, right = max(0, columns[0] - margin), columns[-1] + 1 + margin
    return Image.fromarray(clean[top:bottom, left:right])


def otsu(values: Pixels) -> int:
    """Return Otsu's threshold (1979) between dark and light; pixels at or below it are dark."""
    count = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    dark = np.cumsum(count)
    light = dark[-1] - dark
    total = np.cumsum(count * np.arange(256))
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total[-1] * dark - total * dark[-1]) ** 2 / (dark * light)
    return int(np.nanargmax(np.where(np.isfinite(between), between, -1.0)))


def parse_image_size(size: str | int | tuple[int, int]) -> tuple[int, int]:
    """Convert an image size ("HxW", a number, or a pair) to (height, width)."""
    try:
        if isinstance(size, int):
            return size, size
        sides = [int(side) for side in (size.lower().split("x") if isinstance(size, str) else size)]
        height, width = sides if len(sides) != 1 else sides * 2
        return height, width
    except (ValueError, TypeError):
        raise SettingError(f"an image size must be HxW, such as 96x96; got {size!r}") from None
