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
    """Return an array or a tensor on any device as a NumPy array, copied only if necessary.

    Returns:
        None for other objects.

    Raises:
        DataError: If the tensor cannot be converted.
    """
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


def batch_channels_last(images: NDArray[Any]) -> NDArray[Any]:
    """Return a view of several images in one array with the channels last.

    Args:
        images: Shape ``(n, height, width)``, ``(n, height, width, channels)`` or
            ``(n, channels, height, width)``.

    Raises:
        DataError: If the axes are others, or can be read in two ways.
    """
    if images.ndim == 3:
        return images
    if images.ndim != 4:
        raise DataError(f"the array of images has shape {images.shape}; expected {_BATCH_AXES}")
    return np.moveaxis(images, 1, 3) if _is_channels_first(images.shape[1:], images.shape) else images


def channels_last(image: NDArray[Any]) -> NDArray[Any]:
    """Return a view of one image with the channels last.

    Args:
        image: Shape ``(height, width)``, ``(height, width, channels)`` or ``(channels, height, width)``.

    Raises:
        DataError: If the axes are others, or can be read in two ways.
    """
    if image.ndim == 2:
        return image
    if image.ndim != 3:
        raise DataError(f"has shape {image.shape}; expected {_IMAGE_AXES}")
    return np.moveaxis(image, 0, 2) if _is_channels_first(image.shape, image.shape) else image


def split_batch(images: NDArray[Any]) -> list[NDArray[Any]] | None:
    """Return the images of an array; None if the array is one image.

    Raises:
        DataError: If three axes can be one image with its channels first or several gray images.
    """
    if images.ndim == 4:
        return list(batch_channels_last(images))
    if images.ndim != 3 or images.shape[2] in CHANNELS or images.shape[0] == 1:
        return None
    if images.shape[0] in CHANNELS:
        raise DataError(
            f"an array of shape {images.shape} is one image (channels, height, width) or {images.shape[0]}"
            " gray images; pass images[None] for one image, images[..., None] for gray images"
        )
    return list(images)


def to_pixels(image: NDArray[Any]) -> Any:
    """Return one image as uint8, shape ``(height, width)`` or ``(height, width, 3 or 4)``.

    Args:
        image: uint8, bool, uint16, or floats in [0, 1]; axes as for `channels_last`.

    Raises:
        DataError: If the image is empty, or its axes, type or values are others.
    """
    if image.dtype.kind in NOT_NUMBERS:
        raise DataError(f"has dtype {image.dtype}; pass paths as a list or a one-dimensional array")
    if image.size == 0:
        raise DataError(f"has shape {image.shape}, which is empty; expected {_IMAGE_AXES}")
    image = channels_last(image)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.dtype == np.bool_:
        return image.astype(np.uint8) * np.uint8(255)
    if image.dtype.name == "uint16":
        return (image >> 8).astype(np.uint8)
    if image.dtype.kind == "f":
        if not (image.min() >= 0 and image.max() <= 1):  # also refuses NaN
            raise DataError(f"has {_out_of_range(float(image.min()), float(image.max()))}")
        exact = image.astype(np.float32) if image.dtype.itemsize < 4 else image
        return np.rint(exact * 255).astype(np.uint8)
    if image.dtype != np.uint8:
        raise DataError(f"has {_wrong_type(image)}")
    return image


class ValueCheck:
    """Check of the values of several images, which can show what a single image cannot."""

    def __init__(self) -> None:
        self._highest = {"uint8": 0, "uint16": 0}

    def add(self, images: NDArray[Any], first: int) -> None:
        """Check images that share an array.

        Args:
            images: One or more images.
            first: Position of the first image, for messages.

        Raises:
            DataError: If the type is not supported, or floats are not in [0, 1].
        """
        kind = images.dtype.name
        if images.size == 0:
            raise DataError(f"image {first} has shape {images.shape}, which is empty")
        if kind in self._highest:
            limit = 1 if kind == "uint8" else 255
            if self._highest[kind] <= limit:
                self._highest[kind] = max(self._highest[kind], int(images.max()))
        elif images.dtype.kind == "f":
            low, high = float(images.min()), float(images.max())
            if not (low >= 0 and high <= 1):
                raise DataError(f"from image {first} on, the images have {_out_of_range(low, high)}")
        elif images.dtype.kind not in "b" + NOT_NUMBERS:
            raise DataError(f"from image {first} on, the images have {_wrong_type(images)}")

    def add_batch(self, images: NDArray[Any]) -> None:
        """Check the images of one array, a part at a time."""
        for start in range(0, len(images), _CHUNK):
            self.add(images[start : start + _CHUNK], start)

    def finish(self) -> None:
        """Check the highest values of all images.

        Raises:
            DataError: If integers do not use their range, so that all images would be black.
        """
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
    """Check the values of images; only those in arrays are read.

    Raises:
        DataError: If a type is not supported, floats are not in [0, 1], or all images would be black.
    """
    check = ValueCheck()
    if isinstance(images, np.ndarray):
        check.add_batch(images)
    else:
        for place, image in enumerate(images):
            if isinstance(image, np.ndarray):
                check.add(image, place)
    check.finish()


def _is_channels_first(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Return True for the axes (channels, height, width), False for (height, width, channels)."""
    first, last = shape[0] in CHANNELS, shape[2] in CHANNELS
    if first == last:
        axes = _BATCH_AXES if len(whole) == 4 else _IMAGE_AXES
        if not first:
            raise DataError(f"has shape {whole}, without an axis of 1, 3 or 4 channels; expected {axes}")
        raise DataError(
            f"has shape {whole}, so the channels may be first or last; pass Pillow images, or arrays larger"
            " than 4 pixels"
        )
    return first


def _out_of_range(low: float, high: float) -> str:
    if np.isnan(low) or np.isnan(high):
        return "NaN among their values; expected floats within [0, 1]: replace or leave out these images"
    remedy = "scale them to [0, 1]"
    if low >= 0 and high <= 255:
        remedy = "divide by 255, or convert with .astype(numpy.uint8)"
    elif low >= -10 and high <= 10:
        remedy = "pass the images before they are normalized"
    return f"floats from {low:g} to {high:g}; expected within [0, 1]: {remedy}"


def _wrong_type(images: NDArray[Any]) -> str:
    expected = "expected uint8, bool, uint16 or floats in [0, 1]"
    if images.dtype.kind not in "iu":
        return f"dtype {images.dtype}; {expected}"
    low, high = int(images.min()), int(images.max())
    remedy = ": pass images.astype(numpy.uint8)" if low >= 0 and 1 < high <= 255 else ""
    return f"dtype {images.dtype} with values from {low} to {high}; {expected}{remedy}"
