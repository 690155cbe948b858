"""Shards of Qdrant Edge: creating one, the position of its log, and its errors."""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import qdrant_edge

from ..errors import GalleryError
from . import qdrant, store
from .gallery_file import ROOM_TO_ADD, Manifest, damaged, need_room, sync, system_error, write_manifest
from .store import Binding

edge: Any = qdrant_edge  # its stubs are stricter than its code
_METRIC = {
    "cosine": edge.Distance.Cosine,
    "euclidean": edge.Distance.Euclid,
    "squared_euclidean": edge.Distance.Euclid,
    "manhattan": edge.Distance.Manhattan,
}


def create(folder: Path, binding: Binding) -> None:
    """Create an empty gallery. The folder appears complete or not at all."""
    draft = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    shard = f"shard-{uuid.uuid4().hex[:8]}"
    try:
        (draft / shard).mkdir(parents=True)
        need_room(draft, ROOM_TO_ADD)
        opened = edge.EdgeShard.create(str(draft / shard), _config(binding))
        opened.update(edge.UpdateOperation.create_field_index("label", edge.PayloadSchemaType.Keyword))
        opened.flush()
        opened.close()
        write_manifest(draft, Manifest(binding=binding, shard=shard))
        draft.replace(folder)  # replaces nothing, or an empty folder
        sync(folder.parent)
    except BaseException as error:
        shutil.rmtree(draft, ignore_errors=True)
        if not _is_edge_error(error) and not isinstance(error, OSError):
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


@contextlib.contextmanager
def explaining(folder: Path, doing: str | None = None) -> Iterator[None]:
    """Explain errors of Qdrant Edge and of the system, on opening a gallery or ``doing`` something else."""
    try:
        yield
    except BaseException as error:
        if not _is_edge_error(error) and not isinstance(error, OSError):
            raise
        raise system_error(folder, error) or _explained(folder, error, doing) from error


def _explained(folder: Path, error: BaseException, doing: str | None) -> GalleryError:
    if doing is not None:
        return GalleryError(
            f"{folder}: {doing} failed ({error}); acknowledged data is stored. Close the gallery and open it "
            "again"
        )
    if "WouldBlock" not in str(error):  # Qdrant Edge raises no type of its own for a held lock
        return damaged(folder, str(error))
    return GalleryError(
        f"{folder}: is open already, in another process or in this one, and can be open only once. Close the "
        "other one, or ask its service: twinned search MODEL GALLERY IMAGE --url http://127.0.0.1:8000"
    )


def last_write(shard: Path) -> int:
    """Return the number of the last write that was moved from the log to the segments."""
    return int(json.loads((shard / "wal" / "first-index").read_bytes())["ack_index"])


def _is_edge_error(error: BaseException) -> bool:
    """Return True for errors of Qdrant Edge: plain `Exception`, or Rust's panics, a `BaseException`."""
    return type(error) is Exception or type(error).__name__ == "PanicException"
