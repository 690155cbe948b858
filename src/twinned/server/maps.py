"""The gallery in two dimensions: by PCA at once, by t-SNE in the background when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import TwinnedError
from ..gallery import Gallery, Record
from ..runtime import Floats

MOST = 20_000  # ids come from hashes, so the first so many are a fair sample
Method = Literal["pca", "tsne"]


class Maps:
    """The last map by each method, made again when the gallery has changed.

    Args:
        opened: Gives the gallery, or says that there is none.
        version: Changes with the gallery.
    """

    def __init__(self, opened: Callable[[], Gallery], version: Callable[[], object]) -> None:
        self._opened = opened
        self._version = version
        self._made: dict[Method, tuple[object, dict[str, Any]]] = {}
        self._failed: TwinnedError | None = None
        self._making = threading.Lock()

    def get(self, method: Method) -> dict[str, Any]:
        """The map; of t-SNE the last one while the next is being made, with ``ready`` false."""
        self._opened()
        version, found = self._version(), self._made.get(method)
        if found is not None and found[0] == version:
            return found[1]
        if method == "pca":
            return self._make("pca", version, principal)
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error
        if self._making.acquire(blocking=False):
            threading.Thread(target=self._in_background, args=(version,), daemon=True).start()
        last = found[1] if found is not None else _described(method, [], np.empty((0, 2)), 0)
        return last | {"ready": False}

    def _in_background(self, version: object) -> None:
        try:
            self._make("tsne", version, self._by_neighbours)
        except TwinnedError as error:
            self._failed = error
        finally:
            self._making.release()

    def _make(
        self, method: Method, version: object, project: Callable[[Floats], NDArray[np.floating[Any]]]
    ) -> dict[str, Any]:
        gallery = self._opened()
        records, vectors = gallery.embeddings(limit=MOST)
        made = _described(method, records, project(vectors), gallery.count())
        self._made[method] = version, made
        return made

    def _by_neighbours(self, vectors: Floats) -> NDArray[np.floating[Any]]:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        from ..plots import project  # brings matplotlib

        if len(vectors) < 4:  # nothing to tell apart
            return principal(vectors)
        with threadpool_limits(1):  # the other cores go on answering
            return project(vectors, distance=self._opened().store.binding.distance)


def principal(vectors: Floats) -> NDArray[np.float64]:
    """The two directions in which embeddings differ most, shape ``(n, 2)``."""
    centred = vectors - vectors.mean(axis=0) if len(vectors) else vectors
    _, axes = np.linalg.eigh(centred.T.astype(np.float64) @ centred)
    points = centred @ axes[:, :-3:-1]
    return np.pad(points, ((0, 0), (0, 2 - points.shape[1])))


def _described(
    method: Method, records: list[Record], points: NDArray[np.floating[Any]], count: int
) -> dict[str, Any]:
    labels = sorted({record.label for record in records if record.label is not None})
    place = {label: index for index, label in enumerate(labels)}
    return {
        "method": method,
        "ready": True,
        "count": count,
        "labels": labels,
        "ids": [record.id for record in records],
        "label": [-1 if record.label is None else place[record.label] for record in records],
        "x": np.round(points[:, 0], 5).tolist(),
        "y": np.round(points[:, 1], 5).tolist(),
    }
