"""Open images safely: upright, in mode L or RGB, from paths, bytes, arrays, tensors or Pillow images."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError, ImageError
from .arrays import CHANNELS, NOT_NUMBERS, SupportsArray, as_array, channels_last, to_pixels

Pixels: TypeAlias = NDArray[np.uint8]

# A larger image is refused before memory is allocated for it.
MAX_PIXELS = 89_478_485
MAX_BYTES = 256 * 1024 * 1024
_PHOTOS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif")
SUFFIXES = frozenset((*_PHOTOS, ".dib", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".ico"))

_ADDRESS = re.compile(r"(?:^|/)(?P<scheme>https?|ftp|s3|gs|hdfs|file):/+(?P<rest>[^/].*)", re.IGNORECASE)
_DRIVE = re.compile(r"(?:^|/)[A-Za-z]:/")

# Formats that Pillow may open. For some others it starts programs (EPS) or reads other files.
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "AVIF", "PPM", "TGA", "ICO")
# For any other format Pillow imports all of its plugins, which takes as long as importing NumPy.
_LOADED = ("PNG", "JPEG", "BMP", "DIB", "GIF", "PPM")

# Pillow warns of large images, which `MAX_PIXELS` refuses, and of damaged EXIF data.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True, eq=False)
class LazyImage:
    """Image of a lazy sequence, which is read when it is opened; the facts are those of the first reading."""

    read: Callable[[], Image.Image | NDArray[Any]]
    name: str  # for messages
    size: tuple[int, int]  # width and height
    mode: str  # of Pillow, or the kind of the array
    length: int  # bytes of the pixels
    sha256: str


ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any] | SupportsArray"
    " | LazyImage"
)


def open_image(source: ImageSource, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """Open any image, upright, as mode L or RGB: the first frame of an animation, on white, in 8 bits.

    A JPEG may be reduced while decoding to at least the given (width, height), which is several times faster
    for photographs. An `ImageError` names the file and the reason.
    """
    name = source_name(source)
    try:
        if isinstance(source, LazyImage):
            source = source.read()
        if isinstance(source, np.ma.MaskedArray):
            raise DataError("is a masked array; replace the masked values with .filled(value)")
        if isinstance(source, Image.Image):
            return _plain(ImageOps.exif_transpose(source))
        if isinstance(source, (str, os.PathLike)):
            return _open_path(source, at_least)
        if isinstance(source, (bytes, bytearray, memoryview)):
            return _decode(io.BytesIO(source), at_least)
        if (array := as_array(source)) is not None:
            pixels = to_pixels(array)
            if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
                raise DataError(f"has more pixels than the limit of {MAX_PIXELS:,}")
            return _plain(Image.fromarray(np.ascontiguousarray(pixels)))
    except DataError as error:
        raise ImageError(name, str(error)) from None
    except UnidentifiedImageError:
        raise ImageError(name, "is not a supported image, or is damaged") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(name, f"has more pixels than the limit of {MAX_PIXELS:,}") from None
    except MemoryError:
        raise ImageError(name, "does not fit in memory") from None
    except Exception as error:  # Pillow raises many kinds of errors on damaged files
        raise ImageError(name, f"is damaged or truncated ({error})") from None
    if hasattr(source, "read"):
        raise ImageError(name, "is an open file; pass its path, or the bytes that read() returns")
    raise ImageError(name, "is not an image; pass a path, bytes, a Pillow image or a NumPy array")


def open_known(file: Any) -> Image.Image:
    """Open an image file of one of `FORMATS`; the pixels are read later."""
    try:
        return Image.open(file, formats=_LOADED)
    except UnidentifiedImageError:
        return Image.open(file, formats=FORMATS)


def check_header(path: Any) -> None:
    """Read the header of an image file; an `ImageError` names the reason why it cannot be read."""
    try:
        with open_known(path):
            return
    except Exception:  # many kinds
        open_image(path)


def pixels_sha256(pixels: Pixels) -> str:
    """Return the SHA-256 of the shape and the pixels of an image, the same for all lossless files of it."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def source_name(source: object) -> str:
    """Return a name of an image for messages: its path, or its type."""
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


def as_many(images: Any, *, gray_batches: bool = True) -> Any:
    """Return a list with one image, the images of an array as a list, or another iterable unchanged.

    An array or tensor holds several images if it has four axes, one axis of paths or other objects or, with
    ``gray_batches``, three axes without channels.
    """
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image)):
        return [images]
    if hasattr(images, "read"):  # an image of a lazy sequence, or a file, which `open_image` refuses
        return [images]
    array = as_array(images)
    if array is None:
        return [images] if getattr(images, "ndim", 1) != 1 else images  # a table
    if array.dtype.kind in NOT_NUMBERS:
        return list(array) if array.ndim == 1 else [images]
    if array.ndim == 4:
        return list(channels_last(array, batch=True))
    if array.ndim != 3 or not gray_batches or array.shape[2] in CHANNELS or array.shape[0] == 1:
        return [images]
    if array.shape[0] in CHANNELS:
        raise DataError(
            f"an array of shape {array.shape} is one image (channels, height, width) or {array.shape[0]} gray"
            " images; pass images[None] for one image, images[..., None] for gray images"
        )
    return list(array)


def is_folder(image: object) -> TypeGuard[str | os.PathLike[str]]:
    """Return True for the path of a folder."""
    return isinstance(image, (str, os.PathLike)) and os.path.isdir(image)


def advice_on(path: str) -> str:
    """Return advice on a path that is a web address or a Windows path on another system; else ""."""
    if found := _ADDRESS.search(path):  # `pathlib` turns two slashes into one
        return f"web addresses are not supported: download {found['scheme']}://{found['rest']}"
    if os.sep == "/" and ("\\" in path or _DRIVE.search(path)):
        return "this is a Windows path: use the path on this system, with /"
    return ""


# Metadata that can hold the orientation.
_ORIENTED = frozenset(("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"))


def _open_path(path: str | os.PathLike[str], at_least: tuple[int, int] | None) -> Image.Image:
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise DataError("is a folder; an image is expected")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would block
            raise DataError("is not a file")
        if status.st_size == 0:
            raise DataError("is empty (0 bytes)")
        if status.st_size > MAX_BYTES:
            raise DataError(f"has {status.st_size:,} bytes; the limit is {MAX_BYTES:,}")
        # One read: each of the small reads of Pillow would release and reacquire the interpreter lock.
        with open(path, "rb", buffering=0) as file:
            return _decode(io.BytesIO(file.read()), at_least)
    except FileNotFoundError:
        advice = advice_on(os.fsdecode(path))
        raise DataError(f"no such file ({advice})" if advice else "no such file") from None
    except OSError as error:
        if error.errno is None:  # raised by Pillow: the content is damaged
            raise
        raise DataError(f"cannot be read ({error.strerror})") from None


def _decode(file: Any, at_least: tuple[int, int] | None) -> Image.Image:
    with open_known(file) as image:
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"is {image.width}x{image.height}; the limit is {MAX_PIXELS:,} pixels")
        if at_least is not None and image.format == "JPEG":
            turned = image.getexif().get(0x0112, 1) >= 5  # rotated by a quarter: width and height swap
            image.draft(image.mode, at_least[::-1] if turned else at_least)
        image.load()
        turnable = image.format == "TIFF" or not _ORIENTED.isdisjoint(image.info)
        return _plain(ImageOps.exif_transpose(image) if turnable else image)


def _plain(image: Image.Image) -> Image.Image:
    """Convert to mode L or RGB: palettes to colors, transparency to white, 16 bits to 8."""
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
