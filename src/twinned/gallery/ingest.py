"""Images to enroll: validate arguments, open files in threads, and drop images that are stored already."""

from __future__ import annotations

import math
import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, TypeVar

from ..data.images import ImageSource, Pixels, is_folder, pixels_sha256
from ..data.preprocessing import ImageSpec, read_image
from ..data.readers import images_of, load_images
from ..errors import DataError, ImageError, LabelConflictError
from .store import Filter, Record, Value, is_unicode, metadata_path

# Images opened by one task; submitting a task per image takes longer than opening a small image.
BATCH = 64
_NAMESPACE = uuid.UUID("6f0c9a52-3f0e-5d0c-9d0b-7c1f2f6a1e11")

Where: TypeAlias = Mapping[str, Value | Sequence[Value]]
T = TypeVar("T")


Wanted: TypeAlias = tuple[ImageSource, str | None, Mapping[str, Value]]  # image, label, metadata


class Candidate(NamedTuple):
    """Image to enroll, with its pixels: uint8 ``(height, width, channels)``."""

    record: Record
    pixels: Pixels


def to_enroll(
    images: ImageSource | Iterable[ImageSource],
    labels: str | Sequence[str | None] | None,
    metadata: Mapping[str, Value] | Sequence[Mapping[str, Value]] | None,
) -> list[Wanted]:
    """Return images, each with a label and metadata; labels of a folder are by default its class folders."""
    if is_folder(images) and labels is None:
        found = load_images(images).genuine()  # a forgery is not an image of its label
        listed, labels = list(found.images), [str(label) for label in found.labels]
    elif not (listed := list(images_of(images))) and is_folder(images):
        raise DataError(f"{os.fspath(images)}: no images in this folder")
    for image in listed:
        if is_folder(image):
            raise DataError(f"{os.fspath(image)}: is a folder in a list of images. Add each folder by itself")
    each_label: list[str | None] = _spread(labels, len(listed), "labels", (str, type(None)))
    each_metadata = _spread({} if metadata is None else metadata, len(listed), "metadata", Mapping)
    check_labels(each_label)
    check_metadata(each_metadata)
    return list(zip(listed, each_label, each_metadata))


def _spread(values: T | Sequence[T], count: int, what: str, one: type | tuple[type, ...]) -> list[T]:
    """Return one value per image as a list, repeating a single value ``count`` times."""
    if isinstance(values, one):
        return [values] * count  # type: ignore[list-item]
    listed: list[T] = list(values)  # type: ignore[arg-type]
    if len(listed) != count:
        raise DataError(
            f"{len(listed)} {what} were given for {count} images. Give one for each image, or one for all"
        )
    return listed


def check_labels(labels: Iterable[Any]) -> None:
    """Check that each label is None or one line of Unicode text that is not empty."""
    for label in labels:
        if label is not None and not (
            isinstance(label, str) and label.splitlines() == [label] and is_unicode(label)
        ):
            raise DataError(
                f"label {label!r} cannot be used. Give one line of Unicode text that is not empty, or None "
                "(rename its folder)"
            )


def check_metadata(metadata: Iterable[Mapping[Any, Any]]) -> None:
    """Check that metadata maps keys to Unicode text, finite numbers and booleans."""
    for mapping in metadata:
        for key, value in mapping.items():
            metadata_path(key)
            if not _is_storable(value):
                raise DataError(
                    f"metadata {key!r}: {value!r} cannot be stored. Give Unicode text, a boolean or a finite "
                    "number; a whole number must fit in 64 bits"
                )


def _is_storable(value: Any) -> bool:
    if isinstance(value, str):
        return is_unicode(value)
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and -(2**63) <= value < 2**63


def filter_by(label: str | Sequence[str] | None, where: Where | None) -> Filter:
    """Convert a caller's conditions to a filter."""
    listed = {
        key: tuple(values) if isinstance(values, (list, tuple, set, frozenset)) else (values,)
        for key, values in (where or {}).items()
    }
    for key, values in listed.items():
        if not values:
            raise DataError(f"where {key!r}: the list of values is empty. Give at least one value")
        check_metadata({key: value} for value in values)
    labels = (label,) if isinstance(label, str) else label
    return Filter(labels=None if labels is None else tuple(labels), where=listed)


def open_ahead(wanted: Sequence[Wanted], spec: ImageSpec) -> Iterator[list[Candidate | ImageError]]:
    """Open images in threads, a few batches ahead, in order. An unreadable image yields its error."""
    workers = os.cpu_count() or 1
    waiting: deque[Future[list[Candidate | ImageError]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="enroll") as pool:
        for start in range(0, len(wanted), BATCH):
            waiting.append(pool.submit(_open, wanted[start : start + BATCH], spec))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _open(batch: Iterable[Wanted], spec: ImageSpec) -> list[Candidate | ImageError]:
    return [_candidate(*one, spec) for one in batch]


def _candidate(
    image: ImageSource, label: str | None, metadata: Mapping[str, Value], spec: ImageSpec
) -> Candidate | ImageError:
    try:
        pixels = read_image(image, spec, enroll=True)
    except ImageError as error:
        return error
    # The id depends on the pixels alone, so an image that is removed and added again keeps its id.
    id = str(uuid.uuid5(_NAMESPACE, pixels_sha256(pixels)))
    path = os.path.abspath(image) if isinstance(image, (str, os.PathLike)) else None
    if path is not None and not is_unicode(path):
        return ImageError(str(image), "the file name is not Unicode text. Rename the file")
    return Candidate(Record(id, label, path, dict(metadata)), pixels)


def unstored(records: Iterable[Record], stored: Iterable[Record]) -> list[Record]:
    """Return the new records, each once. A record stored without a label is new if it has one now."""
    known = {record.id: record for record in stored}
    new: dict[str, Record] = {}
    for record in records:
        same = new.get(record.id) or known.get(record.id)
        if same is None:
            new[record.id] = record
        elif same.label is None and record.label is not None:
            merged = {**same.metadata, **record.metadata}
            new[record.id] = replace(same, label=record.label, metadata=merged)
        elif record.label not in (None, same.label):
            raise LabelConflictError(
                f"{record.image or 'an image'} was given the label {record.label!r}, but the same image is "
                f"enrolled as {same.label!r} ({same.image or 'not from a file'}, id {same.id}). Leave one of "
                "them out, or update or remove that id"
            )
    return list(new.values())
