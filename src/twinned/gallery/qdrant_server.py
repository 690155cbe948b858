"""Store on a Qdrant server or cluster. The only module that imports qdrant_client.

``http://host:6333/people`` is the collection ``people``. When a collection is created, ``?shard_number=4``
and ``&replication_factor=2`` distribute it over a cluster. The API key comes from the environment variable
TWINNED_QDRANT_API_KEY and never from the address, which is shown in messages.

The collection's metadata holds the content of the embedded store's gallery.json. A write returns when every
shard has applied it; the server's settings decide when it is synchronized with the server's disk.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..errors import GalleryError, MissingExtra, SettingError
from . import qdrant, store
from .qdrant import Api, Store
from .store import Binding, Filter, IndexReport, Record, Vectors

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import ApiException
except ModuleNotFoundError:
    raise MissingExtra("cluster", "A gallery on a Qdrant server") from None

_METRIC = {
    "cosine": models.Distance.COSINE,
    "euclidean": models.Distance.EUCLID,
    "squared_euclidean": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}
_KEY = "twinned"
_TIMEOUT_S = 60.0


class ServerStore(Store):
    """Store in a collection of a Qdrant server; ``timeout`` also limits the wait for another change."""

    api = Api(
        models,
        models.PointStruct,
        models.Range,
        lambda key: models.IsEmptyCondition(is_empty=models.PayloadField(key=key)),
    )

    def __init__(
        self, client: QdrantClient, collection: str, *, address: str, timeout: float = _TIMEOUT_S
    ) -> None:
        super().__init__(address, wait=timeout)
        self._client, self._collection = client, collection
        with self._explain("opening"):
            exists = client.collection_exists(collection)
            kept = (client.get_collection(collection).config.metadata or {}).get(_KEY) if exists else None
        if not exists:
            raise GalleryError(f"{address}: the collection does not exist. Add images to create it")
        if kept is None:
            raise GalleryError(
                f"{address}: the collection was not created by Twinned, so its model is unknown. Choose "
                "another name"
            )
        self.binding = Binding.model_validate(kept["binding"])
        self.report = IndexReport.model_validate(kept["report"]) if kept["report"] else None

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        with self._explain("writing"), self.writing():
            self._client.upsert(self._collection, self._points(records, vectors), wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        with self._explain("deleting"), self.writing():
            self._client.delete(self._collection, models.PointIdsList(points=list(ids)), wait=True)

    def change(self, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        with self._explain("writing"), self.writing():
            self._client.set_payload(self._collection, dict(payload), points=list(ids), wait=True)

    def labels(self, only: Filter) -> dict[str, int]:
        return self._count_labels(only)  # not cached, because other clients write to the server too

    def indexed(self) -> int:
        with self._explain("reading"):
            return int(self._client.get_collection(self._collection).indexed_vectors_count or 0)

    def index_due(self) -> bool:
        return False  # the server builds its index by itself

    def compact(self) -> None:
        """Do nothing: the server compacts by itself."""

    def set_report(self, report: IndexReport | None) -> None:
        with self._explain("writing"):
            self._client.update_collection(self._collection, metadata=_metadata(self.binding, report))
        self.report = report

    def close(self) -> None:
        """Close the connection; in a forked process, do nothing."""
        if os.getpid() == self._process:
            self._client.close()

    def _retrieve(self, ids: list[str], vectors: bool) -> Any:
        return self._client.retrieve(self._collection, ids, with_vectors=vectors)

    def _scroll(self, only: Any, after: str | None, limit: int, vectors: bool) -> Any:
        return self._client.scroll(
            self._collection, scroll_filter=only, limit=limit, offset=after, with_vectors=vectors
        )

    def _count(self, only: Any) -> Any:
        return self._client.count(self._collection, count_filter=only, exact=True).count

    def _facet(self, only: Any, limit: int) -> Any:
        return self._client.facet(
            self._collection, key="label", facet_filter=only, limit=limit, exact=True
        ).hits

    def _query(self, requests: list[Any]) -> list[Sequence[Any]]:
        return [answer.points for answer in self._client.query_batch_points(self._collection, requests)]

    def _explain(self, doing: str) -> contextlib.AbstractContextManager[None]:
        self.check_process()
        return _explain(self.address, doing)


def open_collection(address: str, binding: Binding | None, *, timeout: float | None = None) -> ServerStore:
    """Open the collection at an address; with a binding, create a missing one."""
    parts = urlsplit(address)
    collection, spread = parts.path.strip("/"), dict(parse_qsl(parts.query))
    if not parts.hostname or not collection or "/" in collection:
        raise SettingError(f"Invalid gallery address {address!r}: expected http://HOST:6333/NAME")
    if not spread.keys() <= {"shard_number", "replication_factor"} or not all(
        map(str.isdigit, spread.values())
    ):
        raise SettingError(
            f"Invalid gallery address {address!r}: after the ? only shard_number and replication_factor are "
            "supported, with whole numbers"
        )
    seconds = _TIMEOUT_S if timeout is None else timeout
    client = QdrantClient(
        url=f"{parts.scheme}://{parts.hostname}:{parts.port or 6333}",
        api_key=os.environ.get("TWINNED_QDRANT_API_KEY"),
        timeout=seconds,
    )
    if binding:
        create(client, collection, binding, address=address, **{name: int(n) for name, n in spread.items()})
    return ServerStore(client, collection, address=address, timeout=seconds)


def create(client: QdrantClient, collection: str, binding: Binding, *, address: str, **spread: int) -> None:
    """Create an empty collection, unless one with that name exists."""
    with _explain(address, "creating the collection"):
        if client.collection_exists(collection):
            return
        client.create_collection(
            collection,
            vectors_config=models.VectorParams(
                size=binding.embedding_size, distance=_METRIC[binding.distance]
            ),
            hnsw_config=models.HnswConfigDiff(
                m=qdrant.HNSW_LINKS,
                ef_construct=qdrant.HNSW_BUILD_WIDTH,
                full_scan_threshold=qdrant.FULL_SCAN_KB,
            ),
            quantization_config=models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(
                    type=models.ScalarType.INT8, quantile=0.99, always_ram=True
                )
            ),
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=store.EXACT_BELOW_KB),
            metadata=_metadata(binding, None),
            **spread,
        )
        client.create_payload_index(collection, "label", models.PayloadSchemaType.KEYWORD)


def _metadata(binding: Binding, report: IndexReport | None) -> dict[str, Any]:
    return {_KEY: {"binding": binding.model_dump(), "report": report and report.model_dump()}}


@contextlib.contextmanager
def _explain(address: str, doing: str) -> Iterator[None]:
    try:
        yield
    except (ApiException, ValueError, OSError) as error:
        raise GalleryError(
            f"{address}: {doing} failed ({error}). Check that the Qdrant server is up and reachable"
        ) from error
