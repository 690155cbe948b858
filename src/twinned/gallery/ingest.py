"""The way into a gallery: images opened ahead of the network, and what of them is new."""

from __future__ import annotations

import itertools
import os
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from ..data.images import ImageSource, Pixels, pixels_sha256
from ..data.preprocessing import ImageSpec, read_image
from ..errors import ImageError, LabelConflictError
from .store import Record, Value, is_unicode

# Images opened by one task: handing each to a thread of its own takes longer than opening a small one.
BATCH = 64
_NAMESPACE = uuid.UUID("6f0c9a52-3f0e-5d0c-9d0b-7c1f2f6a1e11")


@dataclass(frozen=True, eq=False)
class Candidate:
    """An image to enrol: its record and its pixels."""

    record: Record
    pixels: Pixels


def open_ahead(
    images: Sequence[ImageSource],
    labels: Sequence[str | None],
    metadata: Sequence[Mapping[str, Value]],
    spec: ImageSpec,
) -> Iterator[list[Candidate | ImageError]]:
    """Open images in threads, a few batches ahead, in order; an unreadable one becomes its error."""

    def prepare(
        batch: list[tuple[ImageSource, str | None, Mapping[str, Value]]],
    ) -> list[Candidate | ImageError]:
        return [_candidate(*one, spec) for one in batch]

    workers = os.cpu_count() or 1
    source = zip(images, labels, metadata)
    with ThreadPoolExecutor(workers, thread_name_prefix="enrol") as pool:
        waiting: deque[Future[list[Candidate | ImageError]]] = deque()
        while True:
            while len(waiting) <= workers and (batch := list(itertools.islice(source, BATCH))):
                waiting.append(pool.submit(prepare, batch))
            if not waiting:
                return
            yield waiting.popleft().result()


def _candidate(
    image: ImageSource, label: str | None, metadata: Mapping[str, Value], spec: ImageSpec
) -> Candidate | ImageError:
    try:
        pixels = read_image(image, spec)
    except ImageError as error:
        return error
    # One image, one id: added again after it was removed, it has the same one.
    id = str(uuid.uuid5(_NAMESPACE, pixels_sha256(pixels)))
    path = os.path.abspath(image) if isinstance(image, (str, os.PathLike)) else None
    if path is not None and not is_unicode(path):
        return ImageError(
            str(image), "has a name that is not Unicode text, which a gallery cannot keep; rename it"
        )
    return Candidate(Record(id, label, path, dict(metadata)), pixels)


def unstored(records: Iterable[Record], stored: Iterable[Record]) -> list[Record]:
    """Those that are new, each once; one that is stored without a label comes again with its label.

    Raises:
        LabelConflictError: If an image comes under two labels; names both.
    """
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
                f"enrolled as {same.label!r} ({same.image or 'not from a file'}, id {same.id}), and an image "
                "has one label: leave one of them out, or update or remove that id"
            )
    return list(new.values())
