"""Embedded store: one folder, one process, Qdrant Edge.

    people.gallery/
        gallery.json     the encoder it is bound to, the shard in use, a lower bound of the number of images
        shard-1a2b3c4d/  Qdrant Edge's segments and its write-ahead log

A write is in the log, and the log on disk, before it is acknowledged; the segments follow every
`_FLUSH_EVERY` writes. Opening replays the writes that they lack, and compares the number of images with the
lower bound, which is raised after segments are on disk and lowered before a deletion.

A forked child shares the log's lock and the mapped files but has none of Qdrant's threads: every operation
but `close` raises an error there. Qdrant Edge 0.9 holds the GIL in every call, so a search sees all of a
write or none of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
import sys
import uuid
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import qdrant_edge

from ..errors import GalleryError
from . import gallery_file as files
from . import qdrant, store
from .qdrant import Api, Store
from .store import Binding, Filter, IndexReport, Record, Vectors

edge: Any = qdrant_edge  # its stubs are stricter than its code
_METRIC = {
    "cosine": edge.Distance.Cosine,
    "euclidean": edge.Distance.Euclid,
    "squared_euclidean": edge.Distance.Euclid,
    "manhattan": edge.Distance.Manhattan,
}
_FLUSH_EVERY = 64  # writes between two flushes of the segments; opening replays at most this many
_BATCH = 256
_CHECKED = 1000  # records read on opening; ids are hashes, so these are a random sample
_COMPACT = """
import sys, qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""
_Loaded: TypeAlias = tuple[Any, tuple[int, int]]  # Qdrant's shard, and the identity of its log's folder


def create(folder: Path, binding: Binding) -> None:
    """Create an empty gallery. The folder appears complete or not at all."""
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    shard = f"shard-{uuid.uuid4().hex[:8]}"
    try:
        (draft / shard).mkdir(parents=True)
        files.need_room(draft, files.ROOM_TO_ADD)
        opened = edge.EdgeShard.create(str(draft / shard), _config(binding))
        opened.update(edge.UpdateOperation.create_field_index("label", edge.PayloadSchemaType.Keyword))
        opened.flush()
        opened.close()
        files.write_manifest(draft, files.Manifest(binding=binding, shard=shard))
        draft.replace(folder)  # replaces nothing, or an empty folder
        files.sync(folder.parent)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not files.is_failure(error):
            raise
        raise GalleryError(
            f"{folder}: a gallery cannot be created there ({error}). Choose a folder that is writable"
        ) from error


def _config(binding: Binding) -> Any:
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(
            size=binding.embedding_size, distance=_METRIC[binding.distance], memory=edge.Memory.Cold
        ),
        payload_memory=edge.Memory.Cold,
        hnsw_config=edge.HnswIndexConfig(
            m=qdrant.HNSW_LINKS, ef_construct=qdrant.HNSW_BUILD_WIDTH, full_scan_threshold=qdrant.FULL_SCAN_KB
        ),
        quantization_config=edge.ScalarQuantizationConfig(
            type=edge.ScalarType.Int8, quantile=0.99, memory=edge.Memory.Pinned
        ),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=store.EXACT_BELOW_KB),
    )


class EdgeStore(Store):
    """Store in a folder, made by `create`."""

    # The bindings convert Python's True to the integer 1; NumPy's arrives as a boolean.
    api = Api(edge, edge.Point, edge.RangeFloat, edge.IsEmptyCondition, edge.Query.Nearest, boolean=np.bool_)

    def __init__(self, folder: Path) -> None:
        super().__init__(str(folder))
        self._folder = folder
        with files.explaining(folder):
            self._open()

    def _open(self) -> None:
        folder = self._folder
        self._use(files.read_manifest(folder))
        self._labels: dict[str, int] | None = None
        self._unflushed = 0
        self._log: set[str] = set()  # the log's files at the last synchronization
        self._touched: set[str] | None = None  # ids written while an index is built
        files.need_room(folder, files.ROOM_TO_OPEN)
        self._loaded, self._locked = self._load(self._manifest.shard)
        _stores.add(self)
        try:
            self._check()
            self._check_log()
        except BaseException:
            self._shard.close()
            raise
        for stray in folder.glob("shard-*"):  # left over from an interrupted `compact`
            if stray.name != self._manifest.shard:
                shutil.rmtree(stray, ignore_errors=True)

    @property
    def _shard(self) -> Any:
        self.check_process()
        return self._loaded

    @property
    def _path(self) -> Path:
        """Folder of the shard in use."""
        return self._folder / self._manifest.shard

    def set_report(self, report: IndexReport | None) -> None:
        with self.writing():
            self._save(report=report)

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        size = vectors.nbytes + sum(len(str(record.metadata)) for record in records)
        operation = edge.UpdateOperation.upsert_points(self._points(records, vectors))
        self._update(operation, [record.id for record in records], room=files.ROOM_TO_ADD + 4 * size)

    def delete(self, ids: Sequence[str]) -> None:
        with self.writing():
            left = max(0, self.count(Filter()) - len(ids))
            self._save(at_least=min(self._manifest.at_least, left))
            self._update(edge.UpdateOperation.delete_points(list(ids)), ids)

    def change(self, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        self._update(edge.UpdateOperation.set_payload(list(ids), dict(payload)), ids)

    def labels(self, only: Filter) -> dict[str, int]:
        self.check_process()
        if only:
            return self._count_labels(only)
        if (labels := self._labels) is None:
            with self.writing():  # excludes a write between counting and storing the counts
                labels = self._labels = self._count_labels(only)
        return labels

    def indexed(self) -> int:
        with self._explain("reading"):
            return int(self._shard.info().indexed_vectors_count)

    def index_due(self) -> bool:
        return self.count(Filter()) - self.indexed() >= store.exact_below(self.binding)

    def compact(self) -> None:
        """Reclaim the space of deleted records and index a large gallery, in a child process, on a copy."""
        copy = self._folder / f"shard-{uuid.uuid4().hex[:8]}"
        with self.writing():
            if self._touched is not None:
                raise GalleryError(f"{self.address}: its index is being built already. Wait until it ends")
            self._touched = set()
        try:
            with self.writing(), self._explain("copying the gallery to index it"):
                self._require_place()
                self._flush()
                source = self._path
                files.need_room(self._folder, files.ROOM_TO_ADD + 3 * files.size_on_disk(source))
                shutil.copytree(source, copy, copy_function=files.copy_sparse)
            command = [sys.executable, "-c", _COMPACT, str(copy)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
                raise GalleryError(
                    f"{self.address}: the index cannot be built ({reason}). The gallery has not changed"
                )
            with self.writing():
                self._require_place()
                self._carry_over(copy.name)
        except BaseException:
            if copy.name != self._manifest.shard:
                shutil.rmtree(copy, ignore_errors=True)
            raise
        finally:
            self._touched = None

    def adopt(self, other: EdgeStore) -> None:
        """Replace content and binding by those of another store, atomically; the other store is deleted."""
        with self.writing():
            self._require_place()
            other.close()
            shard = f"shard-{uuid.uuid4().hex[:8]}"
            with self._explain("replacing the embeddings"):
                other._path.rename(self._folder / shard)
                files.sync(self._folder)
            self._replace(shard, self._load(shard), manifest=other._manifest)
        shutil.rmtree(other._folder, ignore_errors=True)

    def close(self) -> None:
        """Flush the segments, and release the gallery even if that fails; in a forked process, do nothing."""
        if os.getpid() != self._process:
            return
        with self.writing():
            try:
                if self._unflushed and self._in_place():  # in a moved folder the log keeps unflushed writes
                    self._flush()
            finally:
                self._unflushed = 0
                self._shard.close()

    def _in_place(self) -> bool:
        """Return True if the folder at the gallery's path is still the one that was opened."""
        try:
            return files.identity(self._path / "wal") == self._locked
        except OSError:
            return False

    def _require_place(self) -> None:
        if not self._in_place():
            raise GalleryError(
                f"{self.address}: the folder was renamed, moved or deleted while the gallery was open; "
                "nothing was changed. Move it back, or close the gallery and open it at its new path"
            )

    def _retrieve(self, ids: list[str], vectors: bool) -> Any:
        return self._shard.retrieve(ids, with_payload=True, with_vector=vectors)

    def _scroll(self, only: Any, after: str | None, limit: int, vectors: bool) -> Any:
        return self._shard.scroll(
            edge.ScrollRequest(limit=limit, offset=after, filter=only, with_payload=True, with_vector=vectors)
        )

    def _count(self, only: Any) -> Any:
        return self._shard.count(edge.CountRequest(exact=True, filter=only))

    def _facet(self, only: Any, limit: int) -> Any:
        return self._shard.facet(edge.FacetRequest(key="label", limit=limit, exact=True, filter=only)).hits

    def _query(self, requests: list[Any]) -> Any:
        return self._shard.query_batch(edge.QueryBatchRequest(requests))

    def _update(self, operation: Any, ids: Sequence[str], *, room: int = files.ROOM_TO_OPEN) -> None:
        with self.writing():
            self._require_place()
            with self._explain("writing"):
                files.need_room(self._folder, room)
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
        """Synchronize the write-ahead log with the disk. Unlike a flush, this does not hold the GIL.

        The log's files are ``open-N``, of which the lowest is being written, and ``closed-N``. `fsync` covers
        changes made through a memory map on Linux only; elsewhere segments are flushed at every write.
        """
        log = self._path / "wal"
        with self._explain("writing"):
            names = {entry.name for entry in log.iterdir()}
            current = min((n for n in names if n.startswith("open-")), key=lambda n: int(n[5:]))
            for name in {current} | {n for n in names - self._log if n.startswith("closed-")}:
                files.sync(log / name)
            if names != self._log:
                files.sync(log)
        self._log = names

    def _flush(self) -> None:
        with self._explain("writing"):
            self._shard.flush()
            written = _last_write(self._path)
        self._unflushed = 0
        self._save(at_least=self.count(Filter()), written=written)

    def _save(self, **changes: Any) -> None:
        manifest = self._manifest.model_copy(update=changes)
        if manifest != self._manifest:
            self._require_place()
            with self._explain("writing"):
                files.write_manifest(self._folder, manifest)
            self._use(manifest)

    def _use(self, manifest: files.Manifest) -> None:
        self._manifest, self.binding, self.report = manifest, manifest.binding, manifest.report

    def _carry_over(self, shard: str) -> None:
        """Apply the writes made since a copy was taken to it, and use it from now on."""
        opened = self._load(shard)
        new, _ = opened
        touched = sorted(self._touched or ())
        with self._explain("applying writes to the new index"):
            for start in range(0, len(touched), _BATCH):
                ids = touched[start : start + _BATCH]
                points = self._shard.retrieve(ids, with_payload=True, with_vector=True)
                points = [edge.Point(id=p.id, vector=p.vector, payload=p.payload) for p in points]
                new.update(edge.UpdateOperation.delete_points(ids))
                new.update(edge.UpdateOperation.upsert_points(points))
            new.flush()
            bounds = {"at_least": self.count(Filter()), "written": _last_write(self._folder / shard)}
        self._replace(shard, opened, manifest=self._manifest.model_copy(update=bounds))

    def _replace(self, shard: str, opened: _Loaded, *, manifest: files.Manifest) -> None:
        old = self._path
        self._save(**{**dict(manifest), "shard": shard})
        # A search in another thread may still read the old shard, which closes with its last reference.
        (self._loaded, self._locked), self._labels, self._log, self._unflushed = opened, None, set(), 0
        shutil.rmtree(old, ignore_errors=True)

    def _load(self, shard: str) -> _Loaded:
        path = self._folder / shard
        if not (path / "segments").is_dir():
            raise files.damaged(self._folder, f"{shard}/segments is missing")
        with files.explaining(self._folder):
            return edge.EdgeShard.load(str(path)), files.identity(path / "wal")

    def _check(self) -> None:
        """Compare the shard with gallery.json: Qdrant reports no error if some of its files are missing."""
        everything = edge.CountRequest(exact=True)
        embedded = edge.CountRequest(exact=True, filter=edge.Filter(must=[edge.HasVectorCondition("")]))
        some = edge.ScrollRequest(limit=_CHECKED, with_payload=["norm"])
        count = self._shard.count(everything)
        lacking = count - self._shard.count(embedded)
        undescribed = sum(not point.payload for point in self._shard.scroll(some)[0])
        if count < self._manifest.at_least:
            expected = self._manifest.at_least
            raise files.damaged(self._folder, f"{count:,} images were found, {expected:,} were stored")
        if lacking or undescribed:
            raise files.damaged(
                self._folder, f"{lacking:,} images have no embedding, at least {undescribed:,} have no record"
            )

    def _check_log(self) -> None:
        """Check the log's numbering: without its log, new writes would start at 0 and be ignored as old."""
        self._shard.update(edge.UpdateOperation.delete_points([str(uuid.UUID(int=0))]))
        self._shard.flush()
        written = _last_write(self._path)
        if written <= self._manifest.written:
            raise files.damaged(self._folder, "its write-ahead log is missing or cut short")
        self._save(written=written)

    def _explain(self, doing: str) -> contextlib.AbstractContextManager[None]:
        return files.explaining(self._folder, doing)


def _last_write(shard: Path) -> int:
    """Return the number of the last write that was moved from the log to the segments."""
    return int(json.loads((shard / "wal" / "first-index").read_bytes())["ack_index"])


_stores: weakref.WeakSet[EdgeStore] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Release every store in a forked child without affecting the parent.

    A leaked reference keeps Qdrant's destructor from overwriting the parent's data with stale memory. The
    inherited lock would outlive the parent's, so its copy in the child is closed.
    """
    locked = set()
    for opened in list(_stores):
        locked.add(opened._locked)
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(opened._loaded))
    descriptors = next((f for f in ("/proc/self/fd", "/dev/fd") if locked and os.path.isdir(f)), None)
    for name in os.listdir(descriptors) if descriptors else ():
        with contextlib.suppress(OSError):
            if files.identity(int(name)) in locked:
                os.close(int(name))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
