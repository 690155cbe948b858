"""Opening any image safely, and the preprocessing that training and running share.

Preprocessing has two halves under one `ImageSpec`, which model.json stores. This module does the
first: open, turn upright, convert, take the ink, resize, giving uint8 at the model's height, width and
channels. The second half (scale, mean, deviation) is arithmetic and lives inside the ONNX graph.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .errors import ImageError, SettingError

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]"
)
Pixels: TypeAlias = NDArray[np.uint8]

# An image that claims more pixels than this is refused before any memory is set aside for it.
MAX_PIXELS = 89_478_485
MAX_BYTES = 256 * 1024 * 1024
_DARK = 0.65  # ink is at most so much of the paper's level
_PHOTOS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif")
SUFFIXES = frozenset((*_PHOTOS, ".dib", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".ico"))

# Kinds of NumPy dtypes: text (of fixed and of any length), bytes, objects.
_NOT_NUMBERS = "UTSO"
_ADDRESS = re.compile(r"(?:^|/)(?P<scheme>https?|ftp|s3|gs|hdfs|file):/+(?P<rest>[^/].*)", re.IGNORECASE)
_DRIVE = re.compile(r"(?:^|/)[A-Za-z]:/")

# What Pillow may open: for some of its other formats it starts programs (EPS) or reads other files.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "PPM", "TGA", "ICO")

# Pillow warns on standard error of large images, which `MAX_PIXELS` refuses, and of damaged EXIF.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


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


def open_image(source: ImageSource, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Open any image, upright, as mode L or RGB.

    Only the first frame of an animation is read; transparency is laid on white; 16 bits become 8.

    Args:
        source: As in `read_image`.
        at_least: (width, height). A JPEG may be decoded at a reduced scale that is no smaller than
            this, which is several times faster for photographs.

    Raises:
        ImageError: If it cannot be opened; names the file and why.
    """
    name = source_name(source)
    try:
        if isinstance(source, np.ma.MaskedArray):
            raise _UnusableError("is a masked array; fill what its mask covers first, with .filled(value)")
        if isinstance(source, np.ndarray):
            return _plain(_from_array(source))
        if isinstance(source, Image.Image):
            return _plain(ImageOps.exif_transpose(source))
        if isinstance(source, (str, os.PathLike)):
            return _open_path(source, at_least)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _decode(io.BytesIO(source), at_least)
    except _UnusableError as error:
        raise ImageError(name, str(error)) from None
    except UnidentifiedImageError:
        raise ImageError(name, "is not an image that can be read (or it is damaged)") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(name, f"claims more pixels than the limit of {MAX_PIXELS:,}") from None
    except MemoryError:
        raise ImageError(name, "does not fit in memory") from None
    except Exception as error:  # Pillow's decoders raise almost anything on damaged files
        raise ImageError(name, f"is damaged or truncated ({error})") from None
    raise ImageError(name, _instead_of(source))


def pixels_sha256(pixels: Pixels) -> str:
    """SHA-256 of an image's pixels as `read_image` gives them, its shape included.

    Two files with the same picture, saved differently without loss, have the same value.
    """
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def source_name(source: object) -> str:
    """Name an image for a message: by its path, or by its type."""
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    if isinstance(source, np.ndarray):
        return f"array of shape {source.shape}"
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"{source.width}x{source.height} image")
    name = getattr(source, "name", None)
    if isinstance(name, str) and name:
        return name
    if isinstance(source, (bytes, bytearray, memoryview)):
        return "image bytes"
    shape = getattr(source, "shape", None)
    kind = type(source).__name__
    return f"{kind} of shape {tuple(shape)}" if isinstance(shape, tuple) else f"object of type {kind}"


def as_many(images: Any) -> Any:
    """One image as a list of one, an array of several as a list, any other iterable of images unchanged.

    An array is several images where it has four dimensions, or one and holds paths or other objects. An open
    file is one image, which `open_image` refuses: iterating over it gives its lines.
    """
    if isinstance(images, np.ndarray):
        several = images.ndim == 4 or (images.ndim == 1 and images.dtype.kind in _NOT_NUMBERS)
        return list(images) if several else [images]
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)):
        return [images]
    if hasattr(images, "read") or getattr(images, "ndim", 1) != 1:  # a file; a tensor or a table
        return [images]
    return images


def address_in(path: str) -> str | None:
    """Return the web address that a path was meant to be; `pathlib` leaves one slash of two."""
    found = _ADDRESS.search(path)
    return f"{found['scheme']}://{found['rest']}" if found else None


def advice_on(path: str) -> str:
    """Return advice on a path that does not exist, or "": a web address, or a path of Windows elsewhere."""
    if address := address_in(path):
        return f"addresses are not opened: download {address} first"
    if os.sep == "/" and ("\\" in path or _DRIVE.search(path)):
        return "this is a path of Windows: write the path that the file has on this system, with /"
    return ""


# Where a picture's orientation may be said.
_ORIENTED = frozenset(("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"))


def _instead_of(source: object) -> str:
    """Say what to give instead of an object that is not read as an image."""
    if hasattr(source, "read"):
        return "is an open file; give its path, or what its read() returns"
    if hasattr(source, "__array__"):
        array = ".numpy()" if hasattr(source, "numpy") else "numpy.asarray(...)"
        return f"is not a NumPy array; give {array} with the axes height, width, channels"
    return "is not an image; give a path, the bytes of a file, a Pillow image or a NumPy array"


class _UnusableError(Exception):
    """Why an image is refused, in words that follow its name."""


def _open_path(path: str | os.PathLike[str], at_least: tuple[int, int] | None) -> Image.Image:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise _UnusableError("is a folder; an image is expected")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for ever
            raise _UnusableError("is not a file")
        if status.st_size == 0:
            raise _UnusableError("is empty (0 bytes)")
        if status.st_size > MAX_BYTES:
            raise _UnusableError(f"has {status.st_size:,} bytes; the limit is {MAX_BYTES:,}")
        # At one go: each small read of Pillow's would hand the interpreter to another thread and back.
        with open(path, "rb", buffering=0) as file:
            return _decode(io.BytesIO(file.read()), at_least)
    except FileNotFoundError:
        advice = advice_on(os.fsdecode(path))
        raise _UnusableError(f"no such file ({advice})" if advice else "no such file") from None
    except OSError as error:
        if error.errno is None:  # Pillow's own: the content is damaged
            raise
        raise _UnusableError(f"cannot be read ({error.strerror})") from None


def _decode(file: Any, at_least: tuple[int, int] | None) -> Image.Image:
    with Image.open(file, formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise _UnusableError(f"is {image.width}x{image.height}; the limit is {MAX_PIXELS:,} pixels")
        if at_least is not None and image.format == "JPEG":
            turned = image.getexif().get(0x0112, 1) >= 5  # rotated by a quarter: width and height swap
            image.draft(image.mode, at_least[::-1] if turned else at_least)
        image.load()
        turnable = image.format == "TIFF" or not _ORIENTED.isdisjoint(image.info)
        return _plain(ImageOps.exif_transpose(image) if turnable else image)


def _from_array(array: NDArray[Any]) -> Image.Image:
    if array.dtype.kind in _NOT_NUMBERS:
        raise _UnusableError(
            f"has dtype {array.dtype}; give paths as a list, or as an array of one dimension"
        )
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise _UnusableError("must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _UnusableError(f"has more pixels than the limit of {MAX_PIXELS:,}")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype.kind == "u" and array.itemsize == 2:
        array = (array >> 8).astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # also refuses NaN
            raise _UnusableError(
                f"has floats from {array.min():g} to {array.max():g}; expected within [0, 1]"
            )
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise _UnusableError(f"has dtype {array.dtype}; expected uint8, bool, uint16 or floats in [0, 1]")
    return Image.fromarray(np.ascontiguousarray(array))


def _plain(image: Image.Image) -> Image.Image:
    """To mode L or RGB: palettes looked up, transparency on white, 16 bits to 8."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        top = values.max(initial=0, where=np.isfinite(values))
        if image.mode.startswith("I;16") or top > 255:
            values = np.floor(values / 256)
        elif image.mode == "F" and top <= 1:
            values = values * 255
        return Image.fromarray(np.rint(np.nan_to_num(values)).clip(0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


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
