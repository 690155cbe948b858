"""The gallery: enrol images under labels, identify a probe or say "unknown", search for look-alikes.

One class over two stores: `edge`, a folder, and `cluster`, a Qdrant server. A model is an `Embedder` to it.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..data.images import ImageSource, Pixels, source_name
from ..data.preprocessing import read_image
from ..errors import (
    GalleryError,
    ImageError,
    NotEnrolledError,
    SettingError,
)
from ..utils.progress import progress_bar
from .embedder import Embedder
from .ingest import BATCH, open_ahead, unstored
from .inputs import (
    Where,
    as_list,
    check_labels,
    check_metadata,
    filter_by,
    spread,
)
from .results import (
    Added,
    Hit,
    Identification,
    Page,
    Removed,
    Stats,
)
from .search import (
    PAGE,
    Prototypes,
    measure_index,
    near_duplicates,
    nearest,
    pages,
)
from .store import (
    Filter,
    Record,
    Store,
    Value,
    Vectors,
    exact_below,
)

# Committed, and so safe, whenever so many images are waiting or so much time has passed.
COMMIT_IMAGES = 256
COMMIT_SECONDS = 2.0

Labels: TypeAlias = str | Sequence[str] | None
# Inside the class ``list`` is its method.
Ids: TypeAlias = list[str]
Records: TypeAlias = list[Record]
Hits: TypeAlias = list[Hit]
Groups: TypeAlias = list[list[Record]]
Identifications: TypeAlias = list[Identification]


class Gallery:
    """Enrolled images of one model. Opened by `open_gallery` or `Model.gallery`; close it, or use ``with``.

    Several threads may use one gallery. What a method that writes has returned from is on disk. A process
    that is forked while the gallery is open cannot use it: every method but `close` raises `GalleryError`.

    Args:
        store: Where records and embeddings are kept.
        embedder: The model.
        read_only: Refuse every change.
    """

    def __init__(self, store: Store, embedder: Embedder, *, read_only: bool = False) -> None:
        self.store = store
        self._embedder = embedder
        self._read_only = read_only
        self._prototypes = Prototypes(store, embedder)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"Gallery({self.store.address!r})"

    def close(self) -> None:
        """Let another process open it. In a process that was forked meanwhile, do nothing."""
        self.store.close()

    # ---- enrolling

    def add(
        self,
        images: ImageSource | Sequence[ImageSource],
        labels: str | Sequence[str | None] | None = None,
        *,
        metadata: Mapping[str, Value] | Sequence[Mapping[str, Value]] | None = None,
        acknowledge: Callable[[Ids], None] | None = None,
        progress: bool = True,
    ) -> Added:
        """Enrol images.

        What is stored already is skipped before it is embedded, so a run that was cut off is simply run
        again. Unreadable images are left out and returned.

        Args:
            images: Paths, arrays, bytes or Pillow images; one of them or many.
            labels: One for each image, or one for all. Without one an image is searched, never identified.
            metadata: One mapping for each image, or one for all: text, numbers and booleans.
            acknowledge: Called every 256 images or 2 seconds with the ids of new records, now on disk.
            progress: Show a bar.

        Raises:
            GalleryError: If an image is under another label already (both are named), the gallery is
                read-only, or the disk is full. What was acknowledged is stored.
            DataError: If the numbers of images, labels and metadata differ.
        """
        self._may_write()
        images = as_list(images)
        labels = spread(labels, len(images), "labels", (str, type(None)))
        metadata = spread({} if metadata is None else metadata, len(images), "metadata", Mapping)
        check_labels(labels)
        check_metadata(metadata)
        ids: list[str | None] = []
        unreadable: list[ImageError] = []
        waiting: dict[str, tuple[Record, Vectors]] = {}
        stored, committed = 0, time.monotonic()
        with progress_bar("Enrolling", len(images), show=progress) as advance:
            for batch in open_ahead(images, labels, metadata, self._embedder.spec):
                unreadable += [one for one in batch if isinstance(one, ImageError)]
                opened = [one for one in batch if not isinstance(one, ImageError)]
                ids += [None if isinstance(one, ImageError) else one.record.id for one in batch]
                pixels = {one.record.id: one.pixels for one in opened}
                new = self._new([one.record for one in opened], [record for record, _ in waiting.values()])
                if new:
                    vectors = self._embed(np.stack([pixels[record.id] for record in new]))
                    waiting |= {record.id: (record, vector) for record, vector in zip(new, vectors)}
                if (
                    len(waiting) >= COMMIT_IMAGES
                    or time.monotonic() - committed >= COMMIT_SECONDS
                    or len(ids) == len(images)
                ):
                    safe = self._commit(waiting)
                    if acknowledge and safe:
                        acknowledge(safe)
                    stored, committed, waiting = stored + len(safe), time.monotonic(), {}
                advance(len(batch))
        if stored >= COMMIT_IMAGES and self.store.index_due():  # never where a service enrols one by one
            self.compact()
        return Added(ids, stored, len(images) - stored - len(unreadable), unreadable)

    def insert(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Store records with embeddings of this gallery's encoder, in place of those with the same id."""
        self._may_write()
        if records:
            self.store.write(records, vectors)
            self._prototypes.forget(record.label for record in records)

    def remove(self, ids: str | Sequence[str] | None = None, *, label: str | None = None) -> Removed:
        """Remove images by id, or all of a label.

        Returns:
            What was removed, for `restore`.

        Raises:
            GalleryError: If an id or the label is not there; then nothing is removed.
        """
        self._may_write()
        if (ids is None) == (label is None):
            raise SettingError("remove takes either ids or a label")
        removed = Removed([], np.empty((0, self.store.binding.embedding_size), np.float32))
        with self.store.writing:
            records = self._labelled(label) if label is not None else self._stored(ids or [])
            for start in range(0, len(records), PAGE):
                found, vectors = self.store.get([r.id for r in records[start : start + PAGE]], vectors=True)
                self.store.delete([record.id for record in found])
                self._prototypes.forget(record.label for record in found)
                removed = Removed(removed.items + found, np.concatenate([removed.vectors, vectors]))
        return removed

    def restore(self, removed: Removed) -> None:
        """Bring back what `remove` took away.

        Raises:
            GalleryError: If one of the images has been added under another label since.
        """
        with self.store.writing:
            self._new(removed.items)
            for start in range(0, len(removed.items), PAGE):
                self.insert(removed.items[start : start + PAGE], removed.vectors[start : start + PAGE])

    def update(
        self, id: str, *, label: str | None = None, metadata: Mapping[str, Value] | None = None
    ) -> Record:
        """Give an image another label, other metadata, or both; what is None stays as it is.

        Raises:
            GalleryError: If there is no such id.
        """
        self._may_write()
        check_labels([label])
        check_metadata([metadata or {}])
        changes = {"label": label, "metadata": None if metadata is None else dict(metadata)}
        with self.store.writing:
            before = self.get(id)
            self.store.change([id], {key: value for key, value in changes.items() if value is not None})
            self._prototypes.forget([before.label, label])
            return self.get(id)

    def rename(self, label: str, new: str) -> int:
        """Rename a label, or merge it into another.

        Returns:
            How many images it had.

        Raises:
            GalleryError: If no image has the label.
        """
        self._may_write()
        check_labels([new])
        with self.store.writing:
            ids = [record.id for record in self._labelled(label)]
            for start in range(0, len(ids), PAGE):
                self.store.change(ids[start : start + PAGE], {"label": new})
            self._prototypes.forget([label, new])
        return len(ids)

    # ---- asking

    def identify(
        self,
        images: ImageSource | Sequence[ImageSource],
        *,
        fpir: float = 0.01,
        label: Labels = None,
        where: Where | None = None,
    ) -> Identifications:
        """Name what images show, or say unknown.

        Args:
            images: Paths, arrays, bytes or Pillow images; one of them or many.
            fpir: False positive identification rate: the share of strangers that may be given a name. The
                threshold follows from it and grows stricter with the gallery.
            label: Only these labels.
            where: Only images with this metadata: a value, or a list of values, for each key.

        Returns:
            One for each image; ``label`` is None for unknown.

        Raises:
            ImageError: If an image cannot be read.
        """
        if not 0 < fpir < 1:
            raise SettingError(f"fpir is {fpir}; expected a rate between 0 and 1")
        images = as_list(images)
        only = filter_by(label, where)
        counts = self.store.labels(only)
        if not counts:
            return [Identification(source_name(image), None, 0.0, math.inf, 0.0) for image in images]
        many = sum(counts.values()) / len(counts)
        threshold = self._embedder.identification_threshold(len(counts), fpir, images_per_label=many)
        answers: Identifications = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            labels, near = self._closest(self._embed(np.stack([self._read(i) for i in batch])), only, counts)
            sure = self._embedder.probability(near)
            answers += [
                Identification(
                    source_name(image), name if d <= threshold else None, float(p), float(d), threshold
                )
                for image, name, d, p in zip(batch, labels, near, sure)
            ]
        return answers

    def search(
        self,
        image: ImageSource | None = None,
        k: int = 5,
        *,
        id: str | None = None,
        label: Labels = None,
        where: Where | None = None,
        exact: bool = False,
    ) -> Hits:
        """The k enrolled images that look most alike, nearest first.

        Args:
            image: The probe; or give ``id``.
            k: How many.
            id: Search on from an enrolled image, which is itself left out.
            label: Only these labels.
            where: Only images with this metadata: a value, or a list of values, for each key.
            exact: Compare with all, even if there is an index.

        Raises:
            ImageError: If the image cannot be read.
            GalleryError: If there is no such id.
        """
        if k < 1:
            raise SettingError(f"k is {k}; expected at least 1")
        self.store.check_process()  # before the image is embedded
        if image is not None and id is None:
            query = self._embed(self._read(image)[None])
        elif id is not None and image is None:
            query = self.store.get([self.get(id).id], vectors=True)[1]
        else:
            raise SettingError("search takes either an image or an id")
        only = filter_by(label, where)
        found = nearest(self.store, self._embedder, query, k + (id is not None), only, exact=exact)[0]
        return [
            Hit(record.id, record.image, record.label, float(distance), record.metadata)
            for record, distance in zip(found.records, found.distances)
            if record.id != id
        ][:k]

    def duplicates(self, within: float | None = None) -> Groups:
        """Groups of near-duplicates: images that distances of at most ``within`` link, largest group first.

        Args:
            within: By default a tenth of the model's threshold.
        """
        limit = self._embedder.threshold / 10 if within is None else within
        return near_duplicates(self.store, self._embedder, limit)

    def count(self, *, label: Labels = None, where: Where | None = None) -> int:
        """How many images pass the filter."""
        return self.store.count(filter_by(label, where))

    def labels(self, *, where: Where | None = None) -> dict[str, int]:
        """How many images each label has, in the order of the labels."""
        return dict(sorted(self.store.labels(filter_by(None, where)).items()))

    def get(self, id: str) -> Record:
        """One record.

        Raises:
            GalleryError: If there is no such id.
        """
        return self._stored([id])[0]

    def embeddings(
        self, *, label: Labels = None, where: Where | None = None, limit: int | None = None
    ) -> tuple[Records, Vectors]:
        """Records and their embeddings, for a map: at most ``limit``, in the order of their ids."""
        records: Records = []
        vectors = [np.empty((0, self.store.binding.embedding_size), np.float32)]
        for page, found in pages(self.store, filter_by(label, where), vectors=True):
            records += page
            vectors.append(found)
            if limit is not None and len(records) >= limit:
                break
        return records[:limit], np.concatenate(vectors)[:limit]

    # ---- upkeep

    def compact(self) -> Stats:
        """Drop what was deleted; above a size build the index and measure what it finds.

        A million images take minutes; other threads go on reading and writing meanwhile.
        """
        self._may_write()
        self.store.compact()
        self.store.set_report(measure_index(self.store) if self.store.indexed() else None)
        return self.stats()

    def stats(self) -> Stats:
        """The gallery in figures: how it is searched, and how well its index finds."""
        binding, indexed, report = self.store.binding, self.store.indexed(), self.store.report
        return Stats(
            address=self.store.address,
            count=self.count(),
            labels=len(self.store.labels(Filter())),
            search="hnsw" if indexed else "exact",
            exact_below=exact_below(binding),
            indexed=indexed,
            recall_at_10=report.recall_at_10 if report else None,
            distance=binding.distance,
            embedding_size=binding.embedding_size,
            encoder_sha256=binding.encoder_sha256,
        )

    def list(
        self,
        *,
        label: Labels = None,
        where: Where | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Page:
        """Records in the order of their ids.

        Args:
            label: Only these labels.
            where: Only images with this metadata.
            after: Where to go on: `Page.after` of the page before.
            limit: At most so many; None for all.
        """
        only = filter_by(label, where)
        if limit is not None:
            items, _, following = self.store.page(only, after=after, limit=limit)
            return Page(self.store.count(only), items, following)
        items = [record for page, _ in pages(self.store, only, after=after) for record in page]
        return Page(self.store.count(only), items, None)

    # ---- inside

    def _read(self, image: ImageSource) -> Pixels:
        return read_image(image, self._embedder.spec)

    def _embed(self, pixels: Pixels) -> Vectors:
        vectors = np.asarray(self._embedder.embed_pixels(pixels), np.float32)
        if not np.isfinite(vectors).all():
            raise GalleryError("the encoder gave values that are not finite; train the model again")
        return vectors

    def _new(self, records: Sequence[Record], waiting: Iterable[Record] = ()) -> Records:
        """Those that are not stored, or stored without their label."""
        stored, _ = self.store.get([record.id for record in records]) if records else ([], None)
        return unstored(records, [*stored, *waiting])

    def _commit(self, waiting: Mapping[str, tuple[Record, Vectors]]) -> Ids:
        """Store what is new; on disk when this returns."""
        with self.store.writing:  # another thread may have added one of them since it was looked up
            new = self._new([record for record, _ in waiting.values()])
            if new:
                self.insert(new, np.stack([waiting[record.id][1] for record in new]))
        return [record.id for record in new]

    def _stored(self, ids: str | Sequence[str]) -> Records:
        """The records of ids, each once; all must be there."""
        ids = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
        valid = [id for id in ids if _is_uuid(id)]
        found = {record.id: record for record in self.store.get(valid)[0]} if valid else {}
        if missing := [id for id in ids if id not in found]:
            raise NotEnrolledError(
                f"{self.store.address}: there is no image with the id {_some(missing)}; "
                "twinned gallery list shows the ids"
            )
        return [found[id] for id in ids]

    def _labelled(self, label: str) -> Records:
        """The records of a label; there must be some."""
        records = [record for page, _ in pages(self.store, Filter(labels=(label,))) for record in page]
        if not records:
            there = _some(self.labels()) or "none"
            raise NotEnrolledError(f"{self.store.address}: no image has the label {label!r}; labels: {there}")
        return records

    def _closest(
        self, queries: Vectors, only: Filter, counts: Mapping[str, int]
    ) -> tuple[Sequence[str], NDArray[np.float64]]:
        """The closest label of each query, and its distance, shape ``(n,)``."""
        if self._embedder.prototype:
            return self._prototypes.closest(queries, only, counts)
        if self.store.count(only) > sum(counts.values()):
            only = replace(only, labelled=True)
        found = nearest(self.store, self._embedder, queries, 1, only)
        # Nothing is found if another thread has removed the last image since they were counted.
        labels = [one.records[0].label or "" if one.records else "" for one in found]
        return labels, np.array([one.distances[0] if one.records else np.inf for one in found])

    def _may_write(self) -> None:
        self.store.check_process()
        if self._read_only:
            raise GalleryError(
                f"{self.store.address}: was opened read-only; open it for writing to change it"
            )


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _some(names: Iterable[str]) -> str:
    """The first few, for a message."""
    named = list(names)
    return ", ".join(map(repr, named[:5])) + (f" and {len(named) - 5} more" if len(named) > 5 else "")
