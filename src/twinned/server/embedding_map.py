"""Maps of the gallery in two dimensions: PCA immediately, t-SNE in the background on request."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import TwinnedError
from ..gallery.gallery import Gallery
from ..gallery.store import Record
from ..inference.session import Floats

MOST = 20_000  # images of a map; ids are hashes, so the first ones are a random sample
Method = Literal["pca", "tsne"]
Projection: TypeAlias = Callable[[Floats], NDArray[np.floating[Any]]]


@dataclass(frozen=True)
class GalleryMap:
    """Map in two dimensions; `label` indexes `labels`, -1 is none; `ready` is false until it is done."""

    method: str
    ready: bool
    count: int
    labels: list[str]
    ids: list[str]
    label: list[int]
    x: list[float]
    y: list[float]


class Maps:
    """Cache of the latest map of each method, recomputed when the gallery has changed."""

    def __init__(self, opened: Callable[[], Gallery]) -> None:
        self._opened = opened
        self._made: dict[Method, tuple[int, GalleryMap]] = {}
        self._failed: TwinnedError | None = None
        self._making = threading.Lock()

    def get(self, method: Method) -> GalleryMap:
        """Return the map; for t-SNE the previous one with ``ready`` false while the next is computed."""
        version, found = self._opened().changes, self._made.get(method)
        if found is not None and found[0] == version:
            return found[1]
        if method == "pca":
            return self._make("pca", version, principal)
        error, self._failed = self._failed, None
        if error is not None:
            raise error
        if self._making.acquire(blocking=False):
            threading.Thread(target=self._in_background, args=(version,), daemon=True).start()
        last = found[1] if found is not None else _described(method, [], np.empty((0, 2)), 0)
        return replace(last, ready=False)

    def _in_background(self, version: int) -> None:
        try:
            self._make("tsne", version, self._by_neighbours)
        except TwinnedError as error:
            self._failed = error
        finally:
            self._making.release()

    def _make(self, method: Method, version: int, project: Projection) -> GalleryMap:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        gallery = self._opened()
        records, vectors = gallery.embeddings(limit=MOST)
        with threadpool_limits(1):  # the other cores serve requests, and BLAS is slow on shared cores
            points = project(vectors)
        made = _described(method, records, points, gallery.count())
        self._made[method] = version, made
        return made

    def _by_neighbours(self, vectors: Floats) -> NDArray[np.floating[Any]]:
        from ..inference.projection import project

        if len(vectors) < 4:  # too few for t-SNE
            return principal(vectors)
        return project(vectors, distance=self._opened().store.binding.distance)


def principal(vectors: Floats) -> NDArray[np.float64]:
    """Project embeddings to their first two principal components, shape ``(n, 2)``."""
    points = np.zeros((len(vectors), 2))
    if len(vectors) > 1 and np.ptp(vectors, axis=0).any():
        from sklearn.decomposition import PCA

        size = min(2, *vectors.shape)
        solver = "arpack" if min(vectors.shape) > size else "full"
        points[:, :size] = PCA(size, svd_solver=solver, random_state=0).fit_transform(vectors)
    return points


def _described(
    method: Method, records: list[Record], points: NDArray[np.floating[Any]], count: int
) -> GalleryMap:
    labels = sorted({record.label for record in records if record.label is not None})
    place = {None: -1} | {label: index for index, label in enumerate(labels)}
    ids, label = [record.id for record in records], [place[record.label] for record in records]
    x, y = np.round(points, 5).T.tolist()
    return GalleryMap(method, True, count, labels, ids, label, x, y)
