"""A gallery on a Qdrant server or cluster, by address. The only module that imports qdrant_client.

``http://host:6333/people`` is the collection ``people``. When it is created, ``?shard_number=4`` and
``&replication_factor=2`` spread it over a cluster; Qdrant does the rest. An API key is taken from the
environment, TWINNED_QDRANT_API_KEY, and never from the address, which is shown in messages.

What the embedded gallery keeps in gallery.json is the collection's metadata here. A write returns when every
shard has applied it; how often the server itself synchronises its disk is the server's setting.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ..errors import GalleryError, MissingExtra, SettingError
from . import store
from .store import (
    Binding,
    Filter,
    Found,
    IndexReport,
    Record,
    Value,
    Vectors,
)

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import ApiException
except ModuleNotFoundError:
    raise MissingExtra("cluster", "a gallery on a Qdrant server") from None

_METRIC = {
    "cosine": models.Distance.COSINE,
    "euclidean": models.Distance.EUCLID,
    "squared_euclidean": models.Distance.EUCLID,
    "manhattan": models.Distance.MANHATTAN,
}
_KEY = "twinned"
_TIMEOUT_S = 60.0


class _Turn:
    """The lock of a thread that changes records. Waiting for it ends like waiting for the server's answer.

    Args:
        address: The gallery.
        seconds: How long to wait.
    """

    def __init__(self, address: str, seconds: float) -> None:
        self._address, self._seconds = address, seconds
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._seconds):
            raise GalleryError(
                f"{self._address}: another change has been under way for {self._seconds:g} seconds; is the "
                "Qdrant server up and reachable?"
            )

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class ClusterStore:
    """A collection of embeddings; see the module.

    Args:
        client: Connected to the server.
        collection: The collection's name.
        address: What to call it in messages.
        timeout: Seconds that a change waits for another one to end.
    """

    def __init__(
        self, client: QdrantClient, collection: str, *, address: str, timeout: float = _TIMEOUT_S
    ) -> None:
        self.address = address
        self._writing = _Turn(address, timeout)
        self._process = os.getpid()
        self._client, self._collection = client, collection
        with self._explain("opening"):
            exists = client.collection_exists(collection)
            kept = (client.get_collection(collection).config.metadata or {}).get(_KEY) if exists else None
        if not exists:
            raise GalleryError(f"{address}: there is no such collection; add images to it first")
        if kept is None:
            raise GalleryError(
                f"{address}: was not made by Twinned, so its model is not known; choose another name"
            )
        self.binding = Binding.model_validate(kept["binding"])
        self.report = IndexReport.model_validate(kept["report"]) if kept["report"] else None

    @property
    def writing(self) -> _Turn:
        """Held while stored records are looked at and then changed."""
        self.check_process()
        return self._writing

    def write(self, records: Sequence[Record], vectors: Vectors) -> None:
        """Insert or replace records; applied by every shard when this returns."""
        points = [
            models.PointStruct(id=record.id, vector=vector, payload=payload)
            for record, vector, payload in zip(records, vectors.tolist(), store.payloads(records, vectors))
        ]
        with self._explain("writing"), self.writing:
            self._client.upsert(self._collection, points, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        """Forget records."""
        with self._explain("deleting"), self.writing:
            self._client.delete(self._collection, models.PointIdsList(points=list(ids)), wait=True)

    def change(self, ids: Sequence[str], payload: Mapping[str, Any]) -> None:
        """Replace the payload's keys that are given."""
        with self._explain("writing"), self.writing:
            self._client.set_payload(self._collection, dict(payload), points=list(ids), wait=True)

    def get(self, ids: Sequence[str], *, vectors: bool = False) -> tuple[list[Record], Vectors]:
        """The records of those ids that are stored, in no order, and their embeddings if asked for."""
        with self._explain("reading"):
            points = self._client.retrieve(self._collection, list(ids), with_vectors=vectors)
        return store.records(points), store.embeddings(points, self.binding)

    def page(
        self, only: Filter, *, after: str | None, limit: int, vectors: bool = False
    ) -> tuple[list[Record], Vectors, str | None]:
        """Records in the order of their ids from ``after`` on, and where the next page begins."""
        with self._explain("reading"):
            points, following = self._client.scroll(
                self._collection, scroll_filter=_filter(only), limit=limit, offset=after, with_vectors=vectors
            )
        return store.records(points), store.embeddings(points, self.binding), following and str(following)

    def count(self, only: Filter) -> int:
        """How many records pass the filter."""
        with self._explain("counting"):
            return int(self._client.count(self._collection, count_filter=_filter(only), exact=True).count)

    def labels(self, only: Filter) -> dict[str, int]:
        """How many images each label has; asked of the server each time, for others write to it too."""
        with self._explain("counting labels"):
            limit = max(1, self.count(Filter()))
            answer = self._client.facet(
                self._collection, key="label", facet_filter=_filter(only), limit=limit, exact=True
            )
        return {str(hit.value): hit.count for hit in answer.hits if hit.count}

    def search(
        self, queries: Vectors, k: int, only: Filter, *, exact: bool, vectors: bool = False
    ) -> list[Found]:
        """The k nearest records of each query, by embedding."""
        parameters = models.SearchParams(
            exact=exact,
            hnsw_ef=max(store.HNSW_SEARCH_WIDTH, k),
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=store.OVERSAMPLING),
        )
        requests = [
            models.QueryRequest(
                query=query,
                limit=k,
                filter=_filter(only),
                params=parameters,
                with_payload=True,
                with_vector=vectors,
            )
            for query in queries.tolist()
        ]
        with self._explain("searching"):
            answers = self._client.query_batch_points(self._collection, requests)
        return [store.found(answer.points, self.binding) for answer in answers]

    def indexed(self) -> int:
        """How many embeddings are in the HNSW index."""
        with self._explain("reading"):
            return int(self._client.get_collection(self._collection).indexed_vectors_count or 0)

    def index_due(self) -> bool:
        """Never: the server indexes by itself."""
        return False

    def compact(self) -> None:
        """Nothing to do: the server compacts by itself."""

    def set_report(self, report: IndexReport | None) -> None:
        """Keep the index's measurement."""
        with self._explain("writing"):
            self._client.update_collection(self._collection, metadata=_metadata(self.binding, report))
        self.report = report

    def close(self) -> None:
        """Close the connection; in a forked process, do nothing."""
        if os.getpid() == self._process:
            self._client.close()

    def check_process(self) -> None:
        """Refuse to work in a forked process, which shares its parent's connections."""
        store.check_process(self.address, self._process)

    def _explain(self, doing: str) -> contextlib.AbstractContextManager[None]:
        self.check_process()
        return _explain(self.address, doing)


def open_collection(address: str, binding: Binding | None, *, timeout: float | None = None) -> ClusterStore:
    """Open the collection at an address; with a binding, make it if it is not there.

    Raises:
        SettingError: If the address names no collection.
        GalleryError: If the server cannot be reached, or the collection is missing or not Twinned's.
    """
    parts = urlsplit(address)
    collection, spread = parts.path.strip("/"), dict(parse_qsl(parts.query))
    if not parts.hostname or not collection or "/" in collection:
        raise SettingError(f"{address!r} is no gallery's address; expected http://host:6333/name")
    if not spread.keys() <= {"shard_number", "replication_factor"} or not all(
        map(str.isdigit, spread.values())
    ):
        raise SettingError(
            f"{address!r}: after the ? come shard_number and replication_factor, whole numbers"
        )
    seconds = _TIMEOUT_S if timeout is None else timeout
    client = QdrantClient(
        url=f"{parts.scheme}://{parts.hostname}:{parts.port or 6333}",
        api_key=os.environ.get("TWINNED_QDRANT_API_KEY"),
        timeout=seconds,
    )
    if binding:
        create(client, collection, binding, address=address, **{name: int(n) for name, n in spread.items()})
    return ClusterStore(client, collection, address=address, timeout=seconds)


def create(client: QdrantClient, collection: str, binding: Binding, *, address: str, **spread: int) -> None:
    """Make an empty collection, unless there is one of that name."""
    with _explain(address, "creating the collection"):
        if client.collection_exists(collection):
            return
        client.create_collection(
            collection,
            vectors_config=models.VectorParams(
                size=binding.embedding_size, distance=_METRIC[binding.distance]
            ),
            hnsw_config=models.HnswConfigDiff(
                m=store.HNSW_LINKS,
                ef_construct=store.HNSW_BUILD_WIDTH,
                full_scan_threshold=store.FULL_SCAN_KB,
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


def _filter(only: Filter) -> models.Filter | None:
    if not only:
        return None
    must: list[Any] = []
    if only.labels is not None:
        must.append(models.FieldCondition(key="label", match=models.MatchAny(any=list(only.labels))))
    for key, values in only.where.items():
        must.append(models.Filter(should=[_equals(store.metadata_path(key), value) for value in values]))
    unlabelled = models.IsEmptyCondition(is_empty=models.PayloadField(key="label"))
    return models.Filter(must=must, must_not=[unlabelled] if only.labelled else None)


def _equals(path: str, value: Value) -> models.FieldCondition:
    if isinstance(value, float):
        return models.FieldCondition(key=path, range=models.Range(gte=value, lte=value))
    return models.FieldCondition(key=path, match=models.MatchValue(value=value))


@contextlib.contextmanager
def _explain(address: str, doing: str) -> Iterator[None]:
    try:
        yield
    except (ApiException, ValueError, OSError) as error:
        raise GalleryError(
            f"{address}: {doing} failed ({error}); is the Qdrant server up and reachable?"
        ) from error
