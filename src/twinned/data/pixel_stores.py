"""Pixels of decoded images: in memory, in a file, in rows of another store, or decoded when they are read."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .images import ImageSource, Pixels
from .preprocessing import ImageSpec, read_image

# A larger array is stored in a temporary file, which the system pages in and out.
IN_MEMORY_BYTES = 256 << 20
_DISK_SHARE = 0.8  # largest fraction of the free space for that file


class PixelStore(Protocol):
    """Images as uint8, shape ``(n, height, width, channels)``; an array is one.

    An index is a number, a slice, or an array of indices or of a mask.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: Any, /) -> Any: ...
    def __iter__(self) -> Iterator[Any]: ...


class _Store:
    """Base class of the stores that are not arrays."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Pixels]:
        for index in range(len(self)):
            yield self[index]

    def __getitem__(self, index: Any, /) -> Pixels:
        rows = np.arange(len(self))[index]
        return self._read(rows) if rows.ndim else self._read(rows[None])[0]

    def _read(self, rows: NDArray[np.intp]) -> Pixels:
        """Return the given images."""
        raise NotImplementedError


class PixelRows(_Store):
    """Some images of a store, without a copy.

    Args:
        store: Store of all images.
        rows: Index of each image in the store, shape ``(n,)``.
    """

    def __init__(self, store: PixelStore, rows: NDArray[np.intp]) -> None:
        self.store: PixelStore = store.store if isinstance(store, PixelRows) else store
        self.rows: NDArray[np.intp] = store.rows[rows] if isinstance(store, PixelRows) else rows
        self.shape = (len(rows), *store.shape[1:])

    def _read(self, rows: NDArray[np.intp]) -> Pixels:
        pixels: Pixels = self.store[self.rows[rows]]
        return pixels


class JoinedPixels(_Store):
    """Images of several stores in their order, without a copy.

    Args:
        parts: Stores of images of one size.
    """

    def __init__(self, parts: Sequence[PixelStore]) -> None:
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.shape = (int(self.ends[-1]), *parts[0].shape[1:])

    def _read(self, rows: NDArray[np.intp]) -> Pixels:
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        owner = np.searchsorted(self.ends, rows, side="right")
        for number, part in enumerate(self.parts):
            own = owner == number
            pixels[own] = part[rows[own] - (self.ends[number] - len(part))]
        return pixels


class StreamedPixels(_Store):
    """Images that are decoded each time they are read, on all cores.

    Args:
        images: Readable images.
        spec: Input of the model.
    """

    def __init__(self, images: Sequence[ImageSource], spec: ImageSpec) -> None:
        self.images, self.spec = images, spec
        self.shape = (len(images), *spec.shape)
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")

    def _read(self, rows: NDArray[np.intp]) -> Pixels:
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)

        def read(place: int) -> None:
            pixels[place] = read_image(self.images[rows[place]], self.spec)

        for _ in self._pool.map(read, range(len(rows))):  # raises the error of an image
            pass
        return pixels


def allocate(shape: tuple[int, int, int, int]) -> Pixels | None:
    """Return an array in memory or, if it is large, in a temporary file; None if no disk holds it."""
    size = int(np.prod(shape, dtype=np.int64))
    if size <= IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    if size > _DISK_SHARE * shutil.disk_usage(tempfile.gettempdir()).free:
        return None
    file = tempfile.TemporaryFile(prefix="twinned-")  # noqa: SIM115 - closed with the array
    return np.memmap(file, np.uint8, "w+", shape=shape)
