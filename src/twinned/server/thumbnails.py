"""Thumbnails of enrolled images, encoded from pixels only, so they contain no metadata of the original file.

    people.gallery/thumbnails/1a/1a2b3c4d-....webp

They are stored inside the gallery's folder and are copied, backed up and deleted with it; the gallery works
without them. For a gallery on a server, the most recent ones are kept in memory.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import Image

from ..data.images import ImageSource, open_image
from ..errors import ImageError

SIDE = 192  # pixels: twice the size on the page, for high-resolution screens
MEDIA_TYPE = "image/webp"
_KEPT = 2048  # thumbnails in memory, about 4 KB each


class Thumbnails:
    """Storage of thumbnails by record id: in the gallery's folder, or in memory if it has none."""

    def __init__(self, address: str | None, *, read_only: bool = False) -> None:
        in_memory = address is None or "://" in address
        self._folder = None if in_memory else Path(os.path.abspath(address or ""), "thumbnails")
        self._read_only = read_only
        self._memory: dict[str, bytes] = {}  # the oldest first
        self._lock = threading.Lock()

    def get(self, id: str) -> bytes | None:
        """Return the thumbnail file, or None."""
        if id in self._memory or self._folder is None:
            return self._memory.get(id)
        try:
            return _path(self._folder, id).read_bytes()
        except OSError:
            return None

    def make(self, id: str, source: ImageSource) -> bytes | None:
        """Make and store a thumbnail; return None if the image cannot be opened."""
        try:
            data = shrink(source)
        except ImageError:
            return None
        self.put(id, data)
        return data

    def put(self, id: str, data: bytes) -> None:
        """Store a thumbnail; in memory if the gallery's folder is missing or not writable."""
        if self._folder is not None and not self._read_only:
            path = _path(self._folder, id)
            with contextlib.suppress(OSError):
                for folder in (self._folder, path.parent):  # not the gallery: it may have been moved
                    folder.mkdir(exist_ok=True)
                draft = path.with_suffix(f".{uuid.uuid4().hex[:8]}")
                draft.write_bytes(data)
                draft.replace(path)
                return
        with self._lock:
            self._memory[id] = data
            while len(self._memory) > _KEPT:
                del self._memory[next(iter(self._memory))]

    def take(self, ids: Iterable[str]) -> dict[str, bytes]:
        """Remove thumbnails and return the existing ones."""
        taken = {}
        for id in ids:
            if (data := self.get(id)) is not None:
                taken[id] = data
            with self._lock:
                self._memory.pop(id, None)
            if self._folder is not None:
                _path(self._folder, id).unlink(missing_ok=True)
        return taken

    def stored(self) -> Iterator[str]:
        """Yield the ids that have a thumbnail file."""
        if self._folder is not None and self._folder.is_dir():
            for entry in self._folder.glob("??/*.webp"):
                yield entry.stem


def shrink(source: ImageSource) -> bytes:
    """Convert an image to a small WebP file without metadata."""
    image = open_image(source, at_least=(SIDE, SIDE))
    image.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    bare = Image.frombytes(image.mode, image.size, image.tobytes())
    file = io.BytesIO()
    bare.save(file, "WEBP", quality=80, method=2)
    return file.getvalue()


def _path(folder: Path, id: str) -> Path:
    id = str(uuid.UUID(id))  # excludes names that lead to other folders
    return folder / id[:2] / f"{id}.webp"
