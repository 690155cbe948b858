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
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError

ImageSource: TypeAlias = (
    "str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[Any]"
)
Pixels: TypeAlias = NDArray[np.uint8]

# An image that claims more pixels than this is refused before any memory is set aside for it.
MAX_PIXELS = 89_478_485
MAX_BYTES = 256 * 1024 * 1024
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
