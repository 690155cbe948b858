"""Labeled images from arrays, tensors, lists and datasets of other libraries."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import DataError
from .arrays import ValueCheck, as_array, channels_last, check_values, to_pixels
from .datasets import ImageSet, check_label
from .images import ImageSource, LazyImage, source_name

# Images of a lazy sequence are kept after the first reading while they fit in this many bytes. The difference
# is left for images that are read again, such as the sample for the choice of a recipe.
_KEPT_BYTES, _KEPT_LATER_BYTES = 256 << 20, 320 << 20
_EXPECTED = "expected (image, label), the image as an array, a tensor, a Pillow image or a path"
_Image: TypeAlias = "Image.Image | NDArray[Any]"


def from_images(images: Any, labels: Any, groups: Sequence[str] | None = None) -> ImageSet:
    """Return images with their labels; those of sequences other than lists and tuples are read lazily."""
    array = as_array(images)
    if array is None and not hasattr(images, "__len__"):
        images = list(images)
    names = label_names(labels)
    count = len(images) if array is None else (len(array) if array.ndim else 0)
    if count != len(names):
        single = array is not None and array.ndim == 3 and array.shape[2] in (1, 3, 4)
        hint = "; three axes are (n, height, width): pass images[None] for one image" if single else ""
        raise DataError(f"one label per image is required; got {count} images, {len(names)} labels{hint}")
    if groups is not None and len(groups) != count:
        raise DataError(f"one group per image is required; got {count} images, {len(groups)} groups")
    if count == 0:
        raise DataError("the sequence of images is empty")
    found: Any
    if array is not None:
        found = array if array.ndim == 1 else channels_last(array, batch=True)
        check_values(found)
    elif isinstance(images, (list, tuple)):
        found = [image if (one := as_array(image)) is None else one for image in images]
        check_values(found)
    else:
        found = [image for image, _ in _read_all(images, labeled=False)]
    return image_set(found, names, groups)


def from_items(items: Any) -> ImageSet:
    """Return the images of a PyTorch ``Dataset``, or of another sequence of pairs (image, label).

    Each item is read once for its label; small datasets stay in memory, images of others are read again when
    they are decoded. Random transforms are therefore drawn only once or twice.
    """
    try:
        count = len(items)
    except TypeError:
        raise DataError(f"{type(items).__name__} has no length; pass list(dataset)") from None
    if count == 0:
        raise DataError(f"{type(items).__name__} is empty")
    images, labels = zip(*_read_all(items, labeled=True), strict=True)
    return image_set(list(images), label_names(labels))


def is_sequence_of_items(data: object) -> bool:
    """Return True for a dataset of another library, or a list of pairs (image, label)."""
    if isinstance(data, (str, bytes, os.PathLike)) or as_array(data) is not None:
        return False
    if isinstance(data, (list, tuple)):
        return len(data) > 0 and _is_item(data[0])
    return hasattr(data, "__getitem__") and not hasattr(data, "keys")


def label_names(labels: Any) -> NDArray[np.str_]:
    """Return labels, which must be integers or strings on one axis, as strings, shape ``(n,)``."""
    array = as_array(labels)
    if array is not None and array.ndim != 1:
        one_hot = "; for one-hot labels pass labels.argmax(1)" if array.ndim == 2 else ""
        raise DataError(f"labels have shape {array.shape}; one label per image is required{one_hot}")
    names = []
    for place, label in enumerate(labels if array is None else array.tolist()):
        value = label.item() if getattr(label, "shape", None) == () else label
        if value is None or isinstance(value, (float, complex)):
            raise DataError(f"label {place} is {value!r}; labels must be integers or strings")
        names.append(str(value))
    for label in set(names):
        check_label("labels", label)
    return np.array(names, np.str_)


def image_set(images: Any, names: NDArray[np.str_], groups: Sequence[str] | None = None) -> ImageSet:
    """Return genuine images without splits."""
    return ImageSet(
        images=images,
        labels=names,
        groups=np.array([str(g) for g in groups]) if groups is not None else np.full(len(names), ""),
        forgery=np.zeros(len(names), np.bool_),
        split=np.full(len(names), ""),
    )


def _is_item(item: object) -> TypeGuard[Sequence[Any]]:
    return isinstance(item, (tuple, list)) and len(item) == 2


def _read_all(items: Any, *, labeled: bool) -> list[tuple[ImageSource, Any]]:
    reader = _Reader(items, labeled=labeled)
    read = [reader.first(index) for index in range(len(items))]
    reader.check.finish()
    return read


class _Reader:
    """Reads the images of a sequence, one at a time, and keeps some of them; ``labeled`` items are pairs."""

    def __init__(self, items: Any, *, labeled: bool) -> None:
        self.items, self.labeled = items, labeled
        self.check = ValueCheck()
        self._lock = threading.Lock()  # datasets are seldom made for several threads
        self._kept: dict[int, _Image] = {}
        self._kept_bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        return {"items": self.items, "labeled": self.labeled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def first(self, index: int) -> tuple[ImageSource, Any]:
        """Read an item for the first time, and return its image, to be read again later, and its label."""
        item, label = self._item(index)
        if isinstance(item, (str, os.PathLike, bytes)):
            return item, label
        if (array := as_array(item)) is not None:
            self.check.add(array, index)
        elif not isinstance(item, Image.Image):
            raise DataError(f"item {index} has an image of type {type(item).__name__}; {_EXPECTED}")
        image = self._keep(index, item, _KEPT_BYTES)
        values = np.ascontiguousarray(image)
        height, width, *channels = values.shape
        mode = item.mode if array is None else f"{array.dtype} x {channels[0] if channels else 1}"
        sha256 = hashlib.sha256(values.data).hexdigest()
        read = partial(self.read, index)
        return LazyImage(read, f"item {index}", (width, height), mode, values.nbytes, sha256), label

    def read(self, index: int) -> _Image:
        """Return an image that was read before: the kept one, or read again."""
        if (kept := self._kept.get(index)) is not None:
            return kept
        with self._lock:
            return self._keep(index, self._item(index)[0], _KEPT_LATER_BYTES)

    def _item(self, index: int) -> tuple[Any, Any]:
        try:
            item = self.items[index]
        except Exception as error:  # of the dataset's own code
            raise DataError(
                f"item {index} of {type(self.items).__name__} cannot be read: {type(error).__name__}: {error}"
            ) from error
        if not self.labeled:
            return item, None
        if not _is_item(item):
            kind = type(item).__name__ + (f" of length {len(item)}" if hasattr(item, "__len__") else "")
            raise DataError(f"item {index} of {type(self.items).__name__} is of type {kind}; {_EXPECTED}")
        return item[0], item[1]

    def _keep(self, index: int, image: _Image, limit: int) -> _Image:
        """Return an image, and keep it if all fit in ``limit`` bytes.

        Arrays become uint8, a quarter of the size of floats, and are copied: the dataset may change them.
        """
        if isinstance(image, Image.Image):
            image.load()
        elif (array := as_array(image)) is not None:
            try:
                image = to_pixels(array).copy()
            except DataError as error:
                raise DataError(f"item {index}, {source_name(array)}: {error}") from None
        size = np.asarray(image).nbytes
        if self._kept_bytes + size <= limit:
            self._kept[index] = image
            self._kept_bytes += size
        return image
