"""The embedded gallery: one folder, one process, Qdrant Edge. The only module that imports it.

    people.gallery/
        gallery.json     what it is bound to, which shard is in use, how many images it holds at least
        shard-1a2b3c4d/  Qdrant Edge's segments and its write-ahead log

**On disk before it is acknowledged.** A write is appended to Qdrant's write-ahead log and the log is
synchronised, one `fsync`; the segments follow at every `_FLUSH_EVERY` writes and on close. Opening
replays what the segments lack, so neither kill -9 nor a power cut loses what was acknowledged.

**Never silently emptied.** gallery.json is replaced in one step and bounds the count from below: raised
after segments are on disk, lowered before a deletion. Opening compares it with what is found.

**Forks.** A forked child shares the log's lock and the mapped files but has none of Qdrant's threads. It is
refused everything but `close`; Qdrant's destructors, which would write, never run there.

**Threads.** Qdrant Edge 0.9 holds the GIL in every call, so a search sees a write whole or not at all.
Writers share one lock, `writing`. Building an index takes minutes: a child process builds it on a copy
while this one goes on reading and writing, then what was written meanwhile is carried over.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import threading
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import qdrant_edge

from ..errors import GalleryError
from . import store
from .gallery_file import (
    ROOM_TO_ADD,
    ROOM_TO_OPEN,
    Manifest,
    copy_sparse,
    damaged,
    identity,
    need_room,
    read_manifest,
    refused,
    size_on_disk,
    sync_file,
    sync_folder,
    write_manifest,
)
from .store import (
    Binding,
    Filter,
    Found,
    IndexReport,
    Record,
    Value,
    Vectors,
)

_FLUSH_EVERY = 64  # writes between two flushes of the segments; opening replays at most so many
_BATCH = 256
_CHECKED = 1000  # records read on opening; ids are hashes, so they are a random sample
_COMPACT = """
import sys, qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""
qdrant: Any = qdrant_edge  # its stubs are stricter than it is
_METRIC = {
    "cosine": qdrant.Distance.Cosine,
    "euclidean": qdrant.Distance.Euclid,
    "squared_euclidean": qdrant.Distance.Euclid,
    "manhattan": qdrant.Distance.Manhattan,
}
_Loaded: TypeAlias = tuple[
    Any, tuple[int, int]
]  # Qdrant's shard, and which folder holds its log and its lock


class EdgeStore:
    """A folder of embeddings; see the module.

    Args:
        folder: The gallery's folder, made by `create`.

    Raises:
        GalleryError: If it is damaged or in use, cannot be written to, or the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self.address = str(folder)
        self._writing = threading.RLock()
        self._process = os.getpid()
        self._folder = folder
        with _opening(folder):
            self._open()

    def _open(self) -> None:
        folder = self._folder
        self._manifest = read_manifest(folder)
        self._labels: dict[str, int] | None = None
        self._unflushed = 0
        self._log: set[str] = set()  # the log's files at the last synchronisation
        self._touched: set[str] | None = None  # ids written while the index is built on a copy
        need_room(folder, ROOM_TO_OPEN)
        self._loaded, self._locked = self._load(self._manifest.shard)
        _stores.add(self)
        try:
            self._check()
            self._check_log()
        except BaseException:
            self._shard.close()
            raise
        for stray in folder.glob("shard-*"):  # an index whose building was cut off
            if stray.name != self._manifest.shard:
                shutil.rmtree(stray, ignore_errors=True)

    @property
    def _shard(self) -> Any:
        self.check_process()
        return self._loaded

    @property
    def writing(self) -> threading.RLock:
        """Held while stored records are looked at and then changed."""
        self.check_process()  # a forked child may have inherited it locked
        return self._writing

    @property
    def binding(self) -> Binding:
        """What the gallery is bound to."""
        return self._manifest.binding

    @property
    def report(self) -> IndexReport | None:
        """How well the index finds, measured when it was built."""
        return self._manifest.report

    def set_report(self, report: IndexReport | None) -> None:
        """Keep the index's measurement."""
        with self.writing:
            self._save(report=report)

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Insert or replace records; on disk when this returns."""
        points = [
            qdrant.Point(id=record.id, vector=vector, payload=payload)
            for record, vector, payload in zip(records, vectors.tolist(), store.payloads(records, vectors))
        ]
        size = vectors.nbytes + sum(len(str(record.metadata)) for record in records)
        operation = qdrant.UpdateOperation.upsert_points(points)
        self._update(operation, [record.id for record in records], room=ROOM_TO_ADD + 4 * size)

    def delete(self, ids: Sequence[str]) -> None:
        """Forget records; on disk when this returns."""
        with self.writing:
            left = max(0, self.count(Filter()) - len(ids))
            self._save(at_least=min(self._manifest.at_least, left))
            self._update(qdrant.UpdateOperation.delete_points(list(ids)), ids)

    def change(self, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        """Replace the payload's keys that are given; on disk when this returns."""
        self._update(qdrant.UpdateOperation.set_payload(list(ids), dict(payload)), ids)

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> tuple[list[Record], Vectors]:
        """The records of those ids that are stored, in no order, and their embeddings if asked for."""
        with self._explain("reading"):
            points = self._shard.retrieve(list(ids), with_payload=True, with_vector=vectors)
        return store.records(points), store.embeddings(points, self.binding)

    def page(
        self, only: Filter, *, after: str | None, limit: int, vectors: bool = False
    ) -> tuple[list[Record], Vectors, str | None]:
        """Records in the order of their ids from ``after`` on, and where the next page begins."""
        request = qdrant.ScrollRequest(
            limit=limit, offset=after, filter=_filter(only), with_payload=True, with_vector=vectors
        )
        with self._explain("reading"):
            points, following = self._shard.scroll(request)
        return store.records(points), store.embeddings(points, self.binding), following and str(following)

    def count(self, only: Filter) -> int:
        """How many records pass the filter."""
        with self._explain("counting"):
            return int(self._shard.count(qdrant.CountRequest(exact=True, filter=_filter(only))))

    def labels(self, only: Filter) -> dict[str, int]:
        """How many images each label has."""
        self.check_process()
        if only:
            return self._facet(only)
        if (labels := self._labels) is None:
            with self.writing:  # or a write between counting and keeping would be missed
                labels = self._labels = self._facet(only)
        return labels

    def search(
        self, queries: Vectors, k: int, only: Filter, *, exact: bool, vectors: bool = False
    ) -> list[Found]:
        """The k nearest records of each query, by embedding."""
        parameters = qdrant.SearchParams(
            exact=exact,
            hnsw_ef=max(store.HNSW_SEARCH_WIDTH, k),
            quantization=qdrant.QuantizationSearchParams(rescore=True, oversampling=store.OVERSAMPLING),
        )
        requests = [
            qdrant.QueryRequest(
                query=qdrant.Query.Nearest(query),
                limit=k,
                filter=_filter(only),
                params=parameters,
                with_payload=True,
                with_vector=vectors,
            )
            for query in queries.tolist()
        ]
        with self._explain("searching"):
            answers = self._shard.query_batch(qdrant.QueryBatchRequest(requests))
        return [store.found(points, self.binding) for points in answers]

    def indexed(self) -> int:
        """How many embeddings are in the HNSW index."""
        with self._explain("reading"):
            return int(self._shard.info().indexed_vectors_count)

    def index_due(self) -> bool:
        """Whether so many are outside the index that building it pays."""
        return self.count(Filter()) - self.indexed() >= store.exact_below(self.binding)

    def compact(self) -> None:
        """Drop what was deleted and index if the size calls for it, in a child process, on a copy."""
        copy = self._folder / f"shard-{uuid.uuid4().hex[:8]}"
        with self.writing:
            if self._touched is not None:
                raise GalleryError(f"{self.address}: its index is being built already; wait for that to end")
            self._touched = set()
        try:
            with self.writing, self._explain("copying the gallery to index it"):
                self._require_place()
                self._flush()
                source = self._folder / self._manifest.shard
                need_room(self._folder, ROOM_TO_ADD + 3 * size_on_disk(source))
                copy_sparse(source, copy)
            command = [sys.executable, "-c", _COMPACT, str(copy)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
                raise GalleryError(
                    f"{self.address}: the index could not be built ({reason}); the gallery is as it was"
                )
            with self.writing:
                self._require_place()
                self._carry_over(copy.name)
        except BaseException:
            if copy.name != self._manifest.shard:
                shutil.rmtree(copy, ignore_errors=True)
            raise
        finally:
            self._touched = None

    def adopt(self, other: EdgeStore) -> None:
        """Take over another store's content and binding, in one step; the other is used up."""
        with self.writing:
            self._require_place()
            other.close()
            shard = f"shard-{uuid.uuid4().hex[:8]}"
            with self._explain("taking over the new embeddings"):
                (other._folder / other._manifest.shard).rename(self._folder / shard)
                sync_folder(self._folder)
            self._replace(shard, self._load(shard), manifest=other._manifest)
        shutil.rmtree(other._folder, ignore_errors=True)

    def close(self) -> None:
        """Bring everything to its final place and let another process open the gallery.

        The gallery is let go of whatever goes wrong. In a forked process this does nothing.
        """
        if os.getpid() != self._process:
            return
        with self.writing:
            try:
                if self._unflushed and self._in_place():  # in a moved folder the log keeps what is unflushed
                    self._flush()
            finally:
                self._unflushed = 0
                self._shard.close()

    def check_process(self) -> None:
        """Refuse to work in a forked process."""
        store.check_process(self.address, self._process)

    def _in_place(self) -> bool:
        """Whether the folder at the gallery's path is still the one that was opened."""
        try:
            return identity(_log(self._folder, self._manifest)) == self._locked
        except OSError:
            return False

    def _require_place(self) -> None:
        if not self._in_place():
            raise GalleryError(
                f"{self.address}: the folder was renamed, moved or deleted while the gallery was open; "
                "nothing was changed: move it back, or close the gallery and open it at its new place"
            )

    def _facet(self, only: Filter) -> dict[str, int]:
        limit = max(1, self.count(Filter()))
        request = qdrant.FacetRequest(key="label", limit=limit, exact=True, filter=_filter(only))
        with self._explain("counting labels"):
            hits = self._shard.facet(request).hits
        return {hit.value: hit.count for hit in hits if hit.count}  # a label that is gone stays, with 0

    def _update(self, operation: Any, ids: Sequence[str], *, room: int = ROOM_TO_OPEN) -> None:
        with self.writing:
            self._require_place()
            need_room(self._folder, room)
            with self._explain("writing"):
                self._shard.update(operation)
            self._labels = None
            if self._touched is not None:
                self._touched.update(ids)
            self._unflushed += 1
            if self._unflushed >= _FLUSH_EVERY or sys.platform != "linux":
                self._flush()
            else:
                self._sync_log()

    def _sync_log(self) -> None:
        """Bring the write-ahead log to disk; unlike a flush this does not hold the GIL.

        The log's files are ``open-N``, the lowest of them being written, and ``closed-N``. On Linux
        `fsync` covers what was changed through a memory map; elsewhere segments are flushed each time.
        """
        log = _log(self._folder, self._manifest)
        with self._explain("writing"):
            names = {entry.name for entry in log.iterdir()}
            current = min((n for n in names if n.startswith("open-")), key=lambda n: int(n[5:]))
            for name in {current} | {n for n in names - self._log if n.startswith("closed-")}:
                sync_file(log / name)
            if names != self._log:
                sync_folder(log)
        self._log = names

    def _flush(self) -> None:
        with self._explain("writing"):
            self._shard.flush()
            written = _written(self._folder / self._manifest.shard)
        self._unflushed = 0
        self._save(at_least=self.count(Filter()), written=written)

    def _save(self, **changes: Any) -> None:
        manifest = self._manifest.model_copy(update=changes)
        if manifest != self._manifest:
            self._require_place()
            with self._explain("writing"):
                write_manifest(self._folder, manifest)
            self._manifest = manifest

    def _carry_over(self, shard: str) -> None:
        """Go over to a compacted copy, with what was written since it was made."""
        opened = self._load(shard)
        new, _ = opened
        touched = sorted(self._touched or ())
        with self._explain("carrying over what was written meanwhile"):
            for start in range(0, len(touched), _BATCH):
                ids = touched[start : start + _BATCH]
                points = self._shard.retrieve(ids, with_payload=True, with_vector=True)
                points = [qdrant.Point(id=p.id, vector=p.vector, payload=p.payload) for p in points]
                new.update(qdrant.UpdateOperation.delete_points(ids))
                new.update(qdrant.UpdateOperation.upsert_points(points))
            new.flush()
            bounds = {"at_least": self.count(Filter()), "written": _written(self._folder / shard)}
        self._replace(shard, opened, manifest=self._manifest.model_copy(update=bounds))

    def _replace(self, shard: str, opened: _Loaded, *, manifest: Manifest) -> None:
        old = self._folder / self._manifest.shard
        self._save(**{**dict(manifest), "shard": shard})
        # A search in another thread may still read the old shard: it is closed with the last reference.
        (self._loaded, self._locked), self._labels, self._log, self._unflushed = opened, None, set(), 0
        shutil.rmtree(old, ignore_errors=True)

    def _load(self, shard: str) -> _Loaded:
        path = self._folder / shard
        if not (path / "segments").is_dir():
            raise damaged(self._folder, f"{shard}/segments is missing")
        with _opening(self._folder):
            return qdrant.EdgeShard.load(str(path)), identity(path / "wal")

    def _check(self) -> None:
        """Compare what is there with what must be: Qdrant opens without some of its files and is silent."""
        everything = qdrant.CountRequest(exact=True)
        embedded = qdrant.CountRequest(exact=True, filter=qdrant.Filter(must=[qdrant.HasVectorCondition("")]))
        some = qdrant.ScrollRequest(limit=_CHECKED, with_payload=["norm"])
        with _opening(self._folder):
            count = self._shard.count(everything)
            lacking = count - self._shard.count(embedded)
            undescribed = sum(not point.payload for point in self._shard.scroll(some)[0])
        if count < self._manifest.at_least:
            expected = self._manifest.at_least
            raise damaged(self._folder, f"{count:,} images were found where {expected:,} were stored")
        if lacking or undescribed:
            raise damaged(
                self._folder, f"{lacking:,} images lack their embedding, {undescribed:,} or more their record"
            )

    def _check_log(self) -> None:
        """Writes are numbered by the log; with a lost log they would begin at 0 and be taken for old ones."""
        with _opening(self._folder):
            self._shard.update(qdrant.UpdateOperation.delete_points([str(uuid.UUID(int=0))]))
            self._shard.flush()
        written = _written(self._folder / self._manifest.shard)
        if written <= self._manifest.written:
            raise damaged(self._folder, "its write-ahead log is missing or cut short")
        self._save(written=written)

    @contextlib.contextmanager
    def _explain(self, doing: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if not _is_edge_error(error) and not isinstance(error, OSError):
                raise
            raise refused(self._folder, error) or GalleryError(
                f"{self.address}: {doing} failed ({error}); what was acknowledged is stored: close the "
                "gallery and open it again"
            ) from error


def create(folder: Path, binding: Binding) -> None:
    """Make an empty gallery; the folder appears whole or not at all.

    Raises:
        GalleryError: If it cannot be made.
    """
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    shard = f"shard-{uuid.uuid4().hex[:8]}"
    try:
        (draft / shard).mkdir(parents=True)
        need_room(draft, ROOM_TO_ADD)
        opened = qdrant.EdgeShard.create(str(draft / shard), _config(binding))
        opened.update(qdrant.UpdateOperation.create_field_index("label", qdrant.PayloadSchemaType.Keyword))
        opened.flush()
        opened.close()
        write_manifest(draft, Manifest(binding=binding, shard=shard))
        draft.replace(folder)  # onto nothing, or onto an empty folder
        sync_folder(folder.parent)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not _is_edge_error(error) and not isinstance(error, OSError):
            raise
        raise GalleryError(
            f"{folder}: a gallery could not be made there ({error}); choose a folder that can be written to"
        ) from error


def _config(binding: Binding) -> Any:
    return qdrant.EdgeConfig(
        vectors=qdrant.EdgeVectorParams(
            size=binding.embedding_size, distance=_METRIC[binding.distance], memory=qdrant.Memory.Cold
        ),
        payload_memory=qdrant.Memory.Cold,
        hnsw_config=qdrant.HnswIndexConfig(
            m=store.HNSW_LINKS,
            ef_construct=store.HNSW_BUILD_WIDTH,
            full_scan_threshold=store.FULL_SCAN_KB,
        ),
        quantization_config=qdrant.ScalarQuantizationConfig(
            type=qdrant.ScalarType.Int8, quantile=0.99, memory=qdrant.Memory.Pinned
        ),
        optimizers=qdrant.EdgeOptimizersConfig(indexing_threshold=store.EXACT_BELOW_KB),
    )


def _filter(only: Filter) -> Any:
    if not only:
        return None
    must = []
    if only.labels is not None:
        must.append(qdrant.FieldCondition(key="label", match=qdrant.MatchAny(list(only.labels))))
    for key, values in only.where.items():
        must.append(qdrant.Filter(should=[_equals(store.metadata_path(key), value) for value in values]))
    return qdrant.Filter(must=must, must_not=[qdrant.IsEmptyCondition("label")] if only.labelled else None)


def _equals(path: str, value: Value) -> Any:
    if isinstance(value, float):
        return qdrant.FieldCondition(key=path, range=qdrant.RangeFloat(gte=value, lte=value))
    # The bindings take Python's True for the integer 1; NumPy's arrives as a boolean.
    match = qdrant.MatchValue(np.bool_(value) if isinstance(value, bool) else value)
    return qdrant.FieldCondition(key=path, match=match)


@contextlib.contextmanager
def _opening(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not _is_edge_error(error) and not isinstance(error, OSError):
            raise
        if "WouldBlock" in str(error):
            raise GalleryError(
                f"{folder}: is open already, in another process or in this one, and an embedded gallery can "
                "be open once; close the other, or ask the service that holds it"
            ) from None
        raise refused(folder, error) or damaged(folder, str(error)) from error


def _log(folder: Path, manifest: Manifest) -> Path:
    """The folder of the write-ahead log, which Qdrant keeps open and locked."""
    return folder / manifest.shard / "wal"


def _written(shard: Path) -> int:
    """Number of the last write that has gone from the log to the segments."""
    return int(json.loads((shard / "wal" / "first-index").read_bytes())["ack_index"])


def _is_edge_error(error: BaseException) -> bool:
    """Qdrant Edge raises plain `Exception`, and Rust's panics as a `BaseException`."""
    return type(error) is Exception or type(error).__name__ == "PanicException"


_stores: weakref.WeakSet[EdgeStore] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Let go of every store in a forked child, without harm to the parent's.

    Qdrant's destructor writes what this process remembers over what the parent writes, so a reference is
    leaked and it never runs. The inherited lock would outlive the parent's: its copy here is closed.
    """
    locked = set()
    for opened in list(_stores):
        locked.add(opened._locked)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened._loaded))
    descriptors = next((f for f in ("/proc/self/fd", "/dev/fd") if locked and os.path.isdir(f)), None)
    for name in os.listdir(descriptors) if descriptors else ():
        with contextlib.suppress(OSError):
            if identity(int(name)) in locked:
                os.close(int(name))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
