"""Images in arrays and tensors: axes and values.

Tensors of other libraries are recognized by their attributes, so none of the libraries is imported.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

CHANNELS = (1, 3, 4)
# Kinds of NumPy dtypes: text (of fixed and of variable length), bytes, objects.
NOT_NUMBERS = "UTSO"
_CHUNK = 256  # images of an array whose values are checked at once
_BATCH_AXES = "(n, height, width), (n, height, width, channels) or (n, channels, height, width)"
_IMAGE_AXES = "(height, width), (height, width, channels) or (channels, height, width)"


@runtime_checkable
class SupportsArray(Protocol):
    """Tensor of any library that converts to a NumPy array."""

    shape: Any
    dtype: Any

    def __array__(self, *args: Any, **kwargs: Any) -> Any: ...


def as_array(values: object) -> NDArray[Any] | None:
    """Return an array or a tensor on any device as a NumPy array, copied only if necessary; else None."""
    if isinstance(values, np.ndarray):
        return values
    if isinstance(values, (type, np.generic)) or not isinstance(values, SupportsArray):
        return None
    tensor: Any = values
    try:
        if hasattr(tensor, "detach"):  # PyTorch
            tensor = tensor.detach().cpu()
            tensor = tensor.float() if "bfloat16" in str(tensor.dtype) else tensor
        return np.asarray(tensor)
    except Exception as error:  # each library has its own
        raise DataError(
            f"{type(values).__name__} of shape {tuple(values.shape)} cannot be converted to a NumPy array"
            f" ({error}); pass numpy.asarray(...)"
        ) from None


def channels_last(images: NDArray[Any], *, batch: bool = False) -> NDArray[Any]:
    """Return a view of one image, or of a batch, with the channels last; refuse ambiguous axes."""
    shape = images.shape[1:] if batch else images.shape
    if len(shape) == 2:
        return images
    first, last = (len(shape) == 3 and shape[axis] in CHANNELS for axis in (0, -1))
    found = f"{'the array of images ' if batch else ''}has shape {images.shape}"
    if first and last:
        raise DataError(f"{found}: the channels may be first or last; pass Pillow images, or larger arrays")
    if not first and not last:
        reason = ", without an axis of 1, 3 or 4 channels" if len(shape) == 3 else ""
        raise DataError(f"{found}{reason}; expected {_BATCH_AXES if batch else _IMAGE_AXES}")
    return np.moveaxis(images, -3, -1) if first else images


def to_pixels(image: NDArray[Any]) -> Any:
    """Return one image as uint8, shape ``(height, width)`` or ``(height, width, 3 or 4)``.

    The values may be uint8, bool, uint16, or floats in [0, 1]; the axes are those of `channels_last`.
    """
    if image.dtype.kind in NOT_NUMBERS:
        raise DataError(f"has dtype {image.dtype}; pass paths as a list or a one-dimensional array")
    if image.size == 0:
        raise DataError(f"has shape {image.shape}, which is empty; expected {_IMAGE_AXES}")
    image = channels_last(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if reason := _unusable(image):
        raise DataError(f"has {reason}")
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.name == "uint16":
        return (image >> 8).astype(np.uint8)
    if image.dtype.kind == "f":
        exact = image.astype(np.float32) if image.dtype.itemsize < 4 else image
        return np.rint(exact * 255).astype(np.uint8)
    return image


class ValueCheck:
    """Check of the values of several images, which can show what a single image cannot."""

    def __init__(self) -> None:
        self._highest = {"uint8": 0, "uint16": 0}

    def add(self, images: NDArray[Any], first: int) -> None:
        """Check the type and range of one or more images of an array; ``first`` is the place of the first."""
        kind = images.dtype.name
        if images.size == 0:
            raise DataError(f"image {first} has shape {images.shape}, which is empty")
        if kind in self._highest:
            limit = 1 if kind == "uint8" else 255
            if self._highest[kind] <= limit:
                self._highest[kind] = max(self._highest[kind], int(images.max()))
        elif images.dtype.kind not in NOT_NUMBERS and (reason := _unusable(images)):
            raise DataError(f"from image {first} on, the images have {reason}")

    def finish(self) -> None:
        """Refuse integers that do not use their range, so that all images would be black."""
        if self._highest["uint8"] == 1:
            raise DataError(
                "the highest value of the uint8 images is 1, so all would be black; pass images * 255, or"
                " images.astype(bool) for two tones"
            )
        if 0 < self._highest["uint16"] <= 255:
            raise DataError(
                f"the highest value of the uint16 images is {self._highest['uint16']} of 65535, so all would"
                " be black; pass images.astype(numpy.uint8)"
            )


def check_values(images: Iterable[object]) -> None:
    """Check the values of images; only those in arrays are read."""
    check = ValueCheck()
    if isinstance(images, np.ndarray):
        for start in range(0, len(images), _CHUNK):
            check.add(images[start : start + _CHUNK], start)
    else:
        for place, image in enumerate(images):
            if isinstance(image, np.ndarray):
                check.add(image, place)
    check.finish()


def _unusable(images: NDArray[Any]) -> str | None:
    """Return the reason why the type or the values of images cannot be used, and the remedy; else None."""
    kind = images.dtype.kind
    if kind == "b" or images.dtype.name in ("uint8", "uint16"):
        return None
    expected = "expected uint8, bool, uint16 or floats in [0, 1]"
    if kind not in "fiu":
        return f"dtype {images.dtype}; {expected}"
    low, high = images.min().item(), images.max().item()
    if kind != "f":
        remedy = ": pass images.astype(numpy.uint8)" if low >= 0 and 1 < high <= 255 else ""
        return f"dtype {images.dtype} with values from {low} to {high}; {expected}{remedy}"
    if low >= 0 and high <= 1:
        return None
    if np.isnan(low) or np.isnan(high):
        return "NaN among their values; expected floats within [0, 1]: replace or leave out these images"
    remedy = "scale them to [0, 1]"
    if low >= 0 and high <= 255:
        remedy = "divide by 255, or convert with .astype(numpy.uint8)"
    elif low >= -10 and high <= 10:
        remedy = "pass the images before they are normalized"
    return f"floats from {low:g} to {high:g}; expected within [0, 1]: {remedy}"
