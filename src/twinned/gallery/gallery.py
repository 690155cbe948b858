"""`Gallery` works on two stores: a folder (`qdrant_edge`) and a Qdrant server (`qdrant_server`)."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from typing import TypeAlias

import numpy as np

from ..data.datasets import ImageSet
from ..data.images import ImageSource, Pixels, source_name
from ..data.preprocessing import read_faces, read_image
from ..data.readers import images_of
from ..errors import GalleryError, ImageError, NotEnrolledError, SettingError, some
from ..utils.progress import progress_bar
from .ingest import BATCH, Where, check_labels, check_metadata, filter_by, open_ahead, to_enroll, unstored
from .qdrant import Store
from .results import Added, Hit, Identification, Page, Removed, Stats
from .search import PAGE, LabelSearch, measure_index, near_duplicates, nearest, pages
from .store import Embedder, Filter, Record, Value, Vectors, exact_below

# Images are committed whenever this many are waiting or this much time has passed.
COMMIT_IMAGES, COMMIT_SECONDS = 256, 2.0

Labels: TypeAlias = str | Sequence[str] | None


class Gallery:
    """Enrolled images of one model, opened by `open_gallery` or `Model.gallery`. Use ``with``, or `close` it.

    Several threads may use one gallery. Changes are on disk when a method returns. A process that is forked
    while the gallery is open cannot use it: every method but `close` raises `GalleryError`.

    Args:
        store: Storage of records and embeddings.
        embedder: The model.
        read_only: Raise an error on every change.
    """

    def __init__(self, store: Store, embedder: Embedder, *, read_only: bool = False) -> None:
        self.store = store
        self._embedder = embedder
        self._read_only = read_only
        self._labels = LabelSearch(store, embedder)

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self.count()

    def __repr__(self) -> str:
        return f"Gallery({self.store.address!r})"

    @property
    def changes(self) -> int:
        """Number of changes made through this object since it was opened."""
        return self._labels.changes

    def with_embedder(self, embedder: Embedder) -> Gallery:
        """Return this gallery with another session or preprocessing of its encoder; both share the store."""
        found = copy(self)
        found._embedder = embedder
        return found

    def close(self) -> None:
        """Release the gallery for other processes; in a forked process, do nothing."""
        self.store.close()

    # ---- enroll

    def add(
        self,
        images: ImageSource | Iterable[ImageSource],
        labels: str | Sequence[str | None] | None = None,
        *,
        metadata: Mapping[str, Value] | Sequence[Mapping[str, Value]] | None = None,
        acknowledge: Callable[[list[str]], None] | None = None,
        progress: bool = True,
    ) -> Added:
        """Enroll images.

        Images that are stored already are skipped before embedding, so an interrupted run can be repeated.
        Unreadable images, and faces that are too small, dark or blurred, are skipped and returned.

        Args:
            images: One image or many: paths, arrays, bytes or Pillow images; or a folder of class folders.
            labels: One label per image, or one for all; those of a folder are by default its class folders.
                An image without a label is found by `search` only.
            metadata: One mapping per image, or one for all; values are text, numbers and booleans.
            acknowledge: Function called every 256 images or 2 seconds with the ids of new records on disk.
            progress: Show a progress bar.

        Raises:
            GalleryError: If an image is enrolled under another label (names both), the gallery is read-only,
                or the disk is full. Acknowledged images are stored.
            DataError: If the numbers of images, labels and metadata differ, or a folder has no class folders.
        """
        self._may_write()
        wanted = to_enroll(images, labels, metadata)
        ids: list[str | None] = []
        unreadable: list[ImageError] = []
        waiting: dict[str, tuple[Record, Vectors]] = {}
        stored, committed = 0, time.monotonic()
        with progress_bar("Enrolling", len(wanted), show=progress) as advance:
            for batch in open_ahead(wanted, self._embedder.spec):
                unreadable += [one for one in batch if isinstance(one, ImageError)]
                ids += [None if isinstance(one, ImageError) else one.record.id for one in batch]
                opened = [one for one in batch if not isinstance(one, ImageError)]
                new = self._new([record for record, _ in opened], [record for record, _ in waiting.values()])
                if new:
                    pixels = {record.id: pixels for record, pixels in opened}
                    vectors = self._embed(np.stack([pixels[record.id] for record in new]))
                    waiting |= {record.id: (record, vector) for record, vector in zip(new, vectors)}
                due = len(waiting) >= COMMIT_IMAGES or time.monotonic() - committed >= COMMIT_SECONDS
                if due or len(ids) == len(wanted):
                    safe = self._commit(waiting)
                    if acknowledge and safe:
                        acknowledge(safe)
                    stored, committed, waiting = stored + len(safe), time.monotonic(), {}
                advance(len(batch))
        # Never in a service that enrolls images one by one.
        if stored >= COMMIT_IMAGES and self.store.index_due():
            self.compact()
        return Added(ids, stored, len(wanted) - stored - len(unreadable), unreadable)

    def insert(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Store records with embeddings of this gallery's encoder; replace those with the same id."""
        self._may_write()
        if records:
            self.store.write(records, vectors)
            self._labels.forget(record.label for record in records)

    def remove(self, ids: str | Sequence[str] | None = None, *, label: str | None = None) -> Removed:
        """Remove images by id, or all images of a label, and return their records, for `restore`.

        Raises:
            GalleryError: If an id or the label does not exist; then nothing is removed.
        """
        self._may_write()
        if (ids is None) == (label is None):
            raise SettingError("remove requires either ids or a label")
        removed = Removed([], np.empty((0, self.store.binding.embedding_size), np.float32))
        with self.store.writing():
            records = self._labeled(label) if label is not None else self._stored(ids or [])
            for start in range(0, len(records), PAGE):
                found, vectors = self.store.get([r.id for r in records[start : start + PAGE]], vectors=True)
                self.store.delete([record.id for record in found])
                self._labels.forget(record.label for record in found)
                removed = Removed(removed.items + found, np.concatenate([removed.vectors, vectors]))
        return removed

    def restore(self, removed: Removed) -> None:
        """Insert removed records again.

        Raises:
            GalleryError: If one of the images has been added under another label since.
        """
        with self.store.writing():
            self._new(removed.items)
            for start in range(0, len(removed.items), PAGE):
                self.insert(removed.items[start : start + PAGE], removed.vectors[start : start + PAGE])

    def update(
        self, id: str, *, label: str | None = None, metadata: Mapping[str, Value] | None = None
    ) -> Record:
        """Change the label or metadata of an image; None keeps the old value.

        Raises:
            GalleryError: If the id does not exist.
        """
        self._may_write()
        check_labels([label])
        check_metadata([metadata or {}])
        changes = {"label": label, "metadata": None if metadata is None else dict(metadata)}
        with self.store.writing():
            before = self.get(id)
            self.store.change([id], {key: value for key, value in changes.items() if value is not None})
            self._labels.forget([before.label, label])
            return self.get(id)

    def rename(self, label: str, new: str) -> int:
        """Rename a label, or merge it into another, and return the number of images changed.

        Raises:
            GalleryError: If no image has the label.
        """
        self._may_write()
        check_labels([new])
        with self.store.writing():
            ids = [record.id for record in self._labeled(label)]
            for start in range(0, len(ids), PAGE):
                self.store.change(ids[start : start + PAGE], {"label": new})
            self._labels.forget([label, new])
        return len(ids)

    # ---- query

    def identify(
        self,
        images: ImageSource | Iterable[ImageSource] | ImageSet,
        *,
        fpir: float = 0.01,
        label: Labels = None,
        where: Where | None = None,
    ) -> list[Identification]:
        """Identify images: find the label of each, or unknown.

        Args:
            images: One image or many: paths, arrays, bytes or Pillow images; or a folder of images.
            fpir: False positive identification rate: fraction of unknown probes that may be given a label, in
                (0, 1). It sets the threshold, which gets stricter as the gallery grows.
            label: Labels to consider; None for all.
            where: Metadata to require: a value, or a list of accepted values, for each key.

        Returns:
            One result per image, or per face with `Model.with_faces("all")`; ``label`` is None for unknown.

        Raises:
            ImageError: If an image cannot be read.
        """
        if not 0 < fpir < 1:
            raise SettingError(f"fpir is {fpir}. Give a rate between 0 and 1")
        images, spec = list(images_of(images)), self._embedder.spec
        counts = self.store.labels(only := filter_by(label, where))
        if not counts:
            return [Identification(source_name(image), None, 0.0, math.inf, 0.0) for image in images]
        many = sum(counts.values()) / len(counts)
        threshold = self._embedder.identification_threshold(len(counts), fpir, images_per_label=many)
        answers: list[Identification] = []
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            faces = [(source_name(image), *face) for image in batch for face in read_faces(image, spec)]
            names, boxes, pixels = zip(*faces, strict=True)
            queries = self._embed(np.stack(pixels))
            labels, near = self._labels.closest(queries, only, counts)
            probability = self._embedder.probability(near)
            answers += [
                Identification(name, label if d <= threshold else None, p, d, threshold, label, box)
                for name, box, label, d, p in zip(names, boxes, labels, near.tolist(), probability.tolist())
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
    ) -> list[Hit]:
        """Find the k most similar enrolled images, nearest first.

        Args:
            image: Query image; or give ``id``.
            k: Number of results, at least 1.
            id: Id of an enrolled image to use as the query; it is excluded from the results.
            label: Labels to consider; None for all.
            where: Metadata to require: a value, or a list of accepted values, for each key.
            exact: Compare with every image, even if there is an index.

        Raises:
            ImageError: If the image cannot be read.
            GalleryError: If the id does not exist.
        """
        if k < 1:
            raise SettingError(f"k is {k}. Give at least 1")
        self.store.check_process()  # before the image is embedded
        if image is not None and id is None:
            query = self._embed(read_image(image, self._embedder.spec)[None])
        elif id is not None and image is None:
            query = self.store.get([self.get(id).id], vectors=True)[1]
        else:
            raise SettingError("search requires either an image or an id")
        only = filter_by(label, where)
        found = nearest(self.store, self._embedder, query, k + (id is not None), only, exact=exact)[0]
        return [
            Hit(**vars(record), distance=float(distance))
            for record, distance in zip(found.records, found.distances)
            if record.id != id
        ][:k]

    def duplicates(self, within: float | None = None) -> list[list[Hit]]:
        """Group near-duplicates: images linked by distances of at most ``within``, largest group first.

        Args:
            within: Distance; a tenth of the model's threshold by default, or 0.1 if it has none.
        """
        limit = self._embedder.near_duplicate if within is None else within
        return near_duplicates(self.store, self._embedder, limit)

    def count(self, *, label: Labels = None, where: Where | None = None) -> int:
        """Count the images that pass the filter."""
        return self.store.count(filter_by(label, where))

    def labels(self, *, where: Where | None = None) -> dict[str, int]:
        """Count the images of each label, in the order of the labels."""
        return dict(sorted(self.store.labels(filter_by(None, where)).items()))

    def get(self, id: str) -> Record:
        """Return one record.

        Raises:
            GalleryError: If the id does not exist.
        """
        return self._stored([id])[0]

    def embeddings(
        self, *, label: Labels = None, where: Where | None = None, limit: int | None = None
    ) -> tuple[list[Record], Vectors]:
        """Return at most ``limit`` records and their embeddings, in the order of their ids."""
        records: list[Record] = []
        vectors = [np.empty((0, self.store.binding.embedding_size), np.float32)]
        for page, found in pages(self.store, filter_by(label, where), vectors=True):
            records += page
            vectors.append(found)
            if limit is not None and len(records) >= limit:
                break
        return records[:limit], np.concatenate(vectors)[:limit]

    # ---- maintain

    def compact(self) -> Stats:
        """Reclaim the space of deleted records; in a large gallery, build the index and measure its recall.

        This takes minutes for a million images. Other threads can read and write in the meantime.
        """
        self._may_write()
        self.store.compact()
        self.store.set_report(measure_index(self.store) if self.store.indexed() else None)
        return self.stats()

    def stats(self) -> Stats:
        """Return statistics: size, search method, and recall of the index."""
        binding, indexed, report = self.store.binding, self.store.indexed(), self.store.report
        return Stats(
            address=self.store.address,
            count=self.count(),
            labels=len(self.store.labels(Filter())),
            search="hnsw" if indexed else "exact",
            exact_below=exact_below(binding),
            indexed=indexed,
            recall_at_10=report.recall_at_10 if report else None,
            **dict(binding),
        )

    # ---- internal

    def _embed(self, pixels: Pixels) -> Vectors:
        vectors = np.asarray(self._embedder.embed_pixels(pixels), np.float32)
        if not np.isfinite(vectors).all():
            raise GalleryError("The encoder returned values that are not finite. Train the model again")
        return vectors

    def _new(self, records: Sequence[Record], waiting: Iterable[Record] = ()) -> list[Record]:
        """Return the records that are not stored, or are stored without their label."""
        stored, _ = self.store.get([record.id for record in records]) if records else ([], None)
        return unstored(records, [*stored, *waiting])

    def _commit(self, waiting: Mapping[str, tuple[Record, Vectors]]) -> list[str]:
        """Store the new records; on disk when this returns."""
        with self.store.writing():  # another thread may have added some since the lookup
            new = self._new([record for record, _ in waiting.values()])
            if new:
                self.insert(new, np.stack([waiting[record.id][1] for record in new]))
        return [record.id for record in new]

    def _stored(self, ids: str | Sequence[str]) -> list[Record]:
        """Return the records of ids, each once; all must exist."""
        ids = [ids] if isinstance(ids, str) else list(dict.fromkeys(ids))
        valid = [id for id in ids if _is_uuid(id)]
        found = {record.id: record for record in self.store.get(valid)[0]} if valid else {}
        if missing := [id for id in ids if id not in found]:
            raise NotEnrolledError(
                f"{self.store.address}: no image has the id {_quoted(missing)}. List the ids: "
                "twinned gallery list"
            )
        return [found[id] for id in ids]

    def _labeled(self, label: str) -> list[Record]:
        """Return the records of a label; at least one must exist."""
        records = [record for page, _ in pages(self.store, Filter(labels=(label,))) for record in page]
        if not records:
            labels = _quoted(self.labels()) or "none"
            raise NotEnrolledError(
                f"{self.store.address}: no image has the label {label!r}. Labels: {labels}"
            )
        return records

    def _may_write(self) -> None:
        self.store.check_process()
        if self._read_only:
            raise GalleryError(f"{self.store.address}: is open read-only. Open it for writing to change it")

    # The last method: in annotations below it, `list` would be its name.
    def list(
        self,
        *,
        label: Labels = None,
        where: Where | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> Page:
        """List records in the order of their ids.

        Args:
            label: Labels to consider; None for all.
            where: Metadata to require.
            after: `Page.after` of the previous page.
            limit: Maximum number of records; None for all.
        """
        only = filter_by(label, where)
        if limit is not None:
            items, _, following = self.store.page(only, after=after, limit=limit)
            return Page(self.store.count(only), items, following)
        items = [item for page, _ in pages(self.store, only, after=after) for item in page]
        return Page(self.store.count(only), items, None)


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _quoted(names: Iterable[str]) -> str:
    return some([repr(name) for name in names], most=5)
