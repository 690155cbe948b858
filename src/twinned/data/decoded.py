"""Images decoded at the model's size, with their labels or pairs."""

from __future__ import annotations

import hashlib
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, ImageError, many, some
from ..utils.notes import note
from ..utils.progress import progress_bar
from .datasets import ImageSet, PairSet
from .images import ImageSource, Pixels, check_header, pixels_sha256
from .pixel_stores import LazyPixels, PixelRows, PixelStore, StreamedPixels
from .preprocessing import ImageSpec, read_image

# A larger array is stored in a temporary file, which the system pages in and out.
IN_MEMORY_BYTES = 256 << 20
_DISK_SHARE = 0.8  # largest fraction of the free space for that file
_CHUNK = 32  # images per task: a single image can take less time than handing it to another thread
_MIN_STD = 0.02  # images of one color would be divided by 0
_STATISTICS_SAMPLE = 1000  # images


@dataclass(frozen=True, eq=False)
class Decoded:
    """Readable images of a sequence.

    Args:
        pixels: uint8, shape ``(n, height, width, channels)``, in the order of the sequence.
        hashes: SHA-256 of the pixels of each image.
        kept: Index of each readable image in the sequence, shape ``(n,)``.
        unreadable: Error of each image that was left out.
    """

    pixels: PixelStore
    hashes: Sequence[str]
    kept: NDArray[np.intp]
    unreadable: list[ImageError]

    def left_out(self) -> list[str]:
        """Return one sentence that names the unreadable images, or an empty list if all were read."""
        if not self.unreadable:
            return []
        named = some([str(error) for error in self.unreadable], 5)
        return [f"{many(len(self.unreadable), 'unreadable image')} left out: {named}"]


def decode(images: Sequence[ImageSource], spec: ImageSpec, *, progress: bool = True) -> Decoded:
    """Decode images on all cores; unreadable images are left out.

    The pixels are in memory, of many images in a temporary file, or decoded again when read if no disk has
    the space.

    Args:
        images: Paths, arrays, bytes or Pillow images.
        spec: Input of the model.
        progress: Show a progress bar.
    """
    stored = _allocate((len(images), *spec.shape))
    names = [""] * len(images)

    def read(index: int) -> None:
        pixels = read_image(images[index], spec)
        names[index] = pixels_sha256(pixels)
        if stored is not None:
            stored[index] = pixels

    errors = in_threads(read, len(images), "Reading images", progress=progress)
    kept = np.delete(np.arange(len(images)), list(errors))
    pixels: PixelStore
    if stored is None:
        pixels = StreamedPixels([images[i] for i in kept.tolist()] if errors else images, spec)
    else:
        pixels = PixelRows(stored, kept) if errors else stored
    return Decoded(pixels, [names[i] for i in kept], kept, list(errors.values()))


def decode_lazily(images: Sequence[ImageSource], spec: ImageSpec, *, progress: bool = True) -> Decoded:
    """Read the headers of many files, and decode each image when it is needed.

    Images with unreadable headers are left out; of others, those that cannot be decoded are gray. Images in
    memory, small sets, and images that must show a face are decoded at once.
    """
    are_files = all(isinstance(image, (str, os.PathLike)) for image in images)
    few = len(images) * math.prod(spec.shape) <= IN_MEMORY_BYTES
    if few or not are_files or spec.faces != "none":
        return decode(images, spec, progress=progress)
    # As in `checks.file_features.gather`, one thread reads headers faster than several.
    errors = in_threads(
        lambda index: check_header(images[index]), len(images), "Reading images", threads=1, progress=progress
    )
    kept = np.delete(np.arange(len(images)), list(errors))
    pixels = LazyPixels([images[i] for i in kept.tolist()], spec, _allocate((len(kept), *spec.shape)))
    return Decoded(pixels, LazyHashes(pixels, np.arange(len(kept))), kept, list(errors.values()))


def _allocate(shape: tuple[int, int, int, int]) -> Pixels | None:
    """Return an array in memory or, if it is large, in a temporary file; None if no disk holds it."""
    size = math.prod(shape)
    if size <= IN_MEMORY_BYTES:
        return np.empty(shape, np.uint8)
    if size > _DISK_SHARE * shutil.disk_usage(tempfile.gettempdir()).free:
        return None
    file = tempfile.TemporaryFile(prefix="twinned-")  # noqa: SIM115 - closed with the array
    return np.memmap(file, np.uint8, "w+", shape=shape)


class LazyHashes(Sequence[str]):
    """SHA-256 of rows of a store that may not be decoded yet; the first access to a hash decodes them all."""

    def __init__(self, pixels: LazyPixels, rows: NDArray[np.intp]) -> None:
        self.pixels, self.rows = pixels, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """Return the hash at an index, or for an array of indices their hashes, which stay lazy."""
        if isinstance(index, np.ndarray):
            return LazyHashes(self.pixels, self.rows[index])
        return self.pixels.hashes(self.rows.tolist())[index]

    def __iter__(self) -> Iterator[str]:
        return iter(self.pixels.hashes(self.rows.tolist()))


def in_threads(
    work: Callable[[int], None], count: int, what: str, *, threads: int | None = None, progress: bool = True
) -> dict[int, ImageError]:
    """Call a function with each index below ``count``, in threads, by default one per core.

    The result is each `ImageError` that the function raised, by its index, in order.
    """
    errors: dict[int, ImageError] = {}

    def run(start: int) -> int:
        indices = range(start, min(start + _CHUNK, count))
        for index in indices:
            try:
                work(index)
            except ImageError as error:
                errors[index] = error
        return len(indices)

    with (
        ThreadPoolExecutor(threads or os.cpu_count()) as pool,
        progress_bar(what, count, show=progress) as advance,
    ):
        for done in pool.map(run, range(0, count, _CHUNK)):
            advance(done)
    return dict(sorted(errors.items()))


@dataclass(frozen=True, eq=False)
class DecodedSet:
    """Decoded dataset: pixels with either class labels or pairs. Subsets share the pixels.

    Args:
        pixels: uint8, shape ``(n, height, width, channels)``.
        labelled: Labeled images, or None if the data are pairs.
        pairs: Pairs, or None if the data are labeled images.
        hashes: SHA-256 of the pixels of each image.
    """

    pixels: PixelStore
    labelled: ImageSet | None
    pairs: PairSet | None
    hashes: Sequence[str]

    @classmethod
    def from_images(
        cls, source: ImageSet | PairSet, spec: ImageSpec, *, progress: bool = True, lazy: bool = False
    ) -> DecodedSet:
        """Decode a dataset; leave out unreadable images and their pairs, and note what was left out.

        With ``lazy``, many files are decoded only when they are needed; see `finish`. Raise a `DataError` if
        no image is readable.
        """
        decoded = (decode_lazily if lazy else decode)(source.images, spec, progress=progress)
        for sentence in decoded.left_out():
            note("unreadable-images", sentence)
        if len(decoded.kept) == 0:
            total = many(len(source.images), "image")
            raise DataError(f"{source.origin}: none of {total} can be read: {decoded.unreadable[0]}")
        for sentence in source.notes:
            note("reader", sentence)
        if isinstance(source, PairSet):
            return cls(decoded.pixels, None, source.keep_images(decoded.kept), decoded.hashes)
        images = source.subset(decoded.kept)
        count = len(images.classes)
        if single := count - len(images.usable_classes()):
            text = f"{single} of {count} classes have one image: they serve as impostors only"
            note("single-image-classes", text)
        return cls(decoded.pixels, images, None, decoded.hashes)

    @property
    def images(self) -> ImageSet:
        """Labeled images.

        Raises:
            DataError: If the data are pairs.
        """
        if self.labelled is None:
            raise DataError("a pair list has no class labels")
        return self.labelled

    @property
    def classes(self) -> list[str]:
        """Names of the classes; empty for pairs."""
        return [] if self.labelled is None else self.labelled.classes

    @property
    def dataset(self) -> ImageSet | PairSet:
        """Labeled images or pairs."""
        return self.images if self.pairs is None else self.pairs

    def subset(self, chosen: NDArray[Any]) -> DecodedSet:
        """Return the images (for a pair list: the pairs and their images) with the chosen indices."""
        images, pairs, used = self.labelled, self.pairs, chosen
        if pairs is not None:
            used = np.unique(np.concatenate([pairs.left[chosen], pairs.right[chosen]]))
            pairs = pairs.subset(chosen)
        else:
            images = self.images.subset(chosen)
        hashes = self.hashes
        hashes = hashes[used] if isinstance(hashes, LazyHashes) else [hashes[i] for i in used]
        return replace(self, pixels=PixelRows(self.pixels, used), labelled=images, pairs=pairs, hashes=hashes)

    def finish(self) -> None:
        """Decode the images that never were, and note those that cannot be decoded."""
        if isinstance(self.hashes, LazyHashes):
            list(self.hashes)
            errors = [str(error) for _, error in sorted(self.hashes.pixels.errors.items())]
            if named := some(errors, 5):
                note("unreadable-images", f"{len(errors)} damaged images were used as gray ones: {named}")

    def partition(self, mask: NDArray[np.bool_]) -> tuple[DecodedSet, DecodedSet]:
        """Return the images (pairs) outside of a mask, and those inside."""
        return self.subset(np.flatnonzero(~mask)), self.subset(np.flatnonzero(mask))

    def statistics(self) -> dict[str, tuple[float, ...]]:
        """Return ``mean`` and ``std`` of each channel over about 1,000 images, pixels scaled to [0, 1]."""
        sample = self.pixels[:: max(1, len(self.pixels) // _STATISTICS_SAMPLE)]
        channels, values = range(sample.shape[3]), np.arange(256) / 255
        # Image by image: floats of the whole sample would need 8 times its memory.
        count = sum(
            np.array([np.bincount(image[..., c].ravel(), minlength=256) for c in channels])
            for image in sample
        ) / (len(sample) * math.prod(sample.shape[1:3]))
        mean = count @ values
        std = np.maximum(np.sqrt(count @ values**2 - mean**2), _MIN_STD)
        return {
            name: tuple(round(float(v), 4) for v in each) for name, each in (("mean", mean), ("std", std))
        }

    def sha256(self) -> str:
        """Return a SHA-256 of the data in their order: images with labels, groups and roles, or pairs."""
        return self._digest(list(self.hashes))

    def identity(self) -> str:
        """Return a SHA-256 of the data as `sha256` does, of file names and sizes where images are lazy."""
        if not isinstance(self.hashes, LazyHashes):
            return self.sha256()
        files: list[Any] = [self.hashes.pixels.images[row] for row in self.hashes.rows.tolist()]
        try:
            return self._digest([f"{os.path.basename(file)} {os.path.getsize(file)}" for file in files])
        except OSError as error:
            raise ImageError(os.fsdecode(error.filename), f"cannot be read ({error.strerror})") from None

    def _digest(self, names: list[str]) -> str:
        if (pairs := self.pairs) is not None:
            left, right = ([names[i] for i in ends] for ends in (pairs.left, pairs.right))
            relation = [""] * len(pairs) if pairs.relation is None else pairs.relation.tolist()
            columns = [left, right, pairs.same.tolist(), relation]
        else:
            images = self.images
            columns = [names, images.labels.tolist(), images.groups.tolist(), images.forgery.tolist()]
        return hashlib.sha256(repr(list(zip(*columns, strict=True))).encode()).hexdigest()

    def fingerprint(self) -> dict[str, Any]:
        """Return the number of images and a SHA-256 that does not depend on their order, for model.json."""
        digest = hashlib.sha256("".join(sorted(self.hashes)).encode()).hexdigest()
        return {"images": len(self.hashes), "sha256": digest}
