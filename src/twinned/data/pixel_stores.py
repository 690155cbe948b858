"""Pixels of decoded images: in memory, in a file, in rows of another store, or decoded when they are read."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import ImageError
from .images import ImageSource, Pixels, pixels_sha256
from .preprocessing import ImageSpec, read_image

_TASK = 8  # images per task of a thread: handing over single ones adds a tenth to their time
_GRAY = 128  # in place of an image that cannot be decoded


class Store(Sequence[Any]):
    """Base class of the stores that are not arrays; the index may be a slice, indices or a mask."""

    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any, /) -> Any:
        rows = np.arange(len(self))[index]
        return self._read(rows) if rows.ndim else self._read(rows[None])[0]

    @abstractmethod
    def _read(self, rows: NDArray[np.intp]) -> Pixels:
        """Return the given images."""


# Images as uint8, shape ``(n, height, width, channels)``.
PixelStore: TypeAlias = Pixels | Store


class PixelRows(Store):
    """Some rows of a store, without a copy."""

    def __init__(self, store: PixelStore, rows: NDArray[np.intp]) -> None:
        self.store: PixelStore = store
        self.rows = rows
        if isinstance(store, PixelRows):
            self.store, self.rows = store.store, store.rows[rows]
        self.shape = (len(rows), *store.shape[1:])

    def _read(self, rows: NDArray[np.intp]) -> Pixels:
        pixels: Pixels = self.store[self.rows[rows]]
        return pixels


class JoinedPixels(Store):
    """Images of several stores in their order, without a copy."""

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


class StreamedPixels(Store):
    """Images that are decoded each time they are read, on all cores."""

    def __init__(self, images: Sequence[ImageSource], spec: ImageSpec) -> None:
        self.images, self.spec = images, spec
        self.shape = (len(images), *spec.shape)
        self._pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decode")

    def _read(self, rows: NDArray[np.intp]) -> Pixels:
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, image in enumerate(self._decode_all(rows.tolist())):
            pixels[place] = image  # or raises its error
        return pixels

    def _decode_all(self, rows: list[int]) -> Iterator[Pixels]:
        tasks = (rows[start : start + _TASK] for start in range(0, len(rows), _TASK))
        return chain.from_iterable(self._pool.map(lambda task: [self._decode(row) for row in task], tasks))

    def _decode(self, row: int) -> Pixels:
        return read_image(self.images[row], self.spec)


class LazyPixels(StreamedPixels):
    """Images that are decoded when they are first read; a damaged one is gray.

    The decoded images are written to ``stored``; if it is None, images are decoded each time. Reading one
    whose file is gone raises its `ImageError`. ``errors`` are those of damaged images, by index.
    """

    def __init__(self, images: Sequence[ImageSource], spec: ImageSpec, stored: Pixels | None) -> None:
        super().__init__(images, spec)
        self._stored, self._hashes = stored, [""] * len(images)  # a hash is written after the pixels
        self.errors: dict[int, ImageError] = {}

    def hashes(self, rows: list[int]) -> list[str]:
        """Return the SHA-256 of the pixels of some images; decodes those that never were."""
        for _ in self._decode_all(list({row for row in rows if not self._hashes[row]})):
            pass
        return [self._hashes[row] for row in rows]

    def _read(self, rows: NDArray[np.intp]) -> Pixels:
        if self._stored is None:
            pixels = super()._read(rows)
        else:
            self.hashes(rows.tolist())
            pixels = self._stored[rows]
        for row in self.errors.keys() & set(rows.tolist()):
            if not os.path.exists(self.images[row]):  # type: ignore[arg-type]  # all are files
                raise self.errors[row]
        return pixels

    def _decode(self, row: int) -> Pixels:
        try:
            pixels = super()._decode(row)
        except ImageError as error:
            self.errors[row], pixels = error, np.full(self.shape[1:], _GRAY, np.uint8)
        if self._stored is not None:
            self._stored[row] = pixels
        if not self._hashes[row]:
            self._hashes[row] = pixels_sha256(pixels)
        return pixels


def is_in_memory(pixels: PixelStore) -> bool:
    """Return True for an array, or rows of one, that is not in a file."""
    return type(pixels.store if isinstance(pixels, PixelRows) else pixels) is np.ndarray
