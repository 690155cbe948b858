"""The gallery in two dimensions: by PCA at once, by t-SNE in the background when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import TwinnedError
from ..gallery.gallery import Gallery
from ..gallery.store import Record
from ..inference.session import Floats

MOST = 20_000  # ids come from hashes, so the first so many are a fair sample
Method = Literal["pca", "tsne"]
Projection: TypeAlias = Callable[[Floats], NDArray[np.floating[Any]]]
_EXACT = 512  # images or values: a tenth of a second
_BLOCK = 32  # directions turned at once; what lies beyond them in length fades with each turn
_TURNS = 30
_STILL = 1e-6  # of an axis' squared length


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
            return self._make("pca", version, _undisturbing(principal))
        if self._failed is not None:
            error, self._failed = self._failed, None
            raise error
        if self._making.acquire(blocking=False):
            threading.Thread(target=self._in_background, args=(version,), daemon=True).start()
        last = found[1] if found is not None else _described(method, [], np.empty((0, 2)), 0)
        return last | {"ready": False}

    def _in_background(self, version: object) -> None:
        try:
            self._make("tsne", version, _undisturbing(self._by_neighbours))
        except TwinnedError as error:
            self._failed = error
        finally:
            self._making.release()

    def _make(self, method: Method, version: object, project: Projection) -> dict[str, Any]:
        gallery = self._opened()
        records, vectors = gallery.embeddings(limit=MOST)
        made = _described(method, records, project(vectors), gallery.count())
        self._made[method] = version, made
        return made

    def _by_neighbours(self, vectors: Floats) -> NDArray[np.floating[Any]]:
        from ..inference.projection import project

        if len(vectors) < 4:  # nothing to tell apart
            return principal(vectors)
        return project(vectors, distance=self._opened().store.binding.distance)


def _undisturbing(project: Projection) -> Projection:
    """On one core: the others go on answering, and threads of BLAS that share a busy core take far longer."""

    def alone(vectors: Floats) -> NDArray[np.floating[Any]]:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn

        with threadpool_limits(1):
            return project(vectors)

    return alone


def principal(vectors: Floats) -> NDArray[np.float64]:
    """The two directions in which embeddings differ most, shape ``(n, 2)``.

    Up to `_EXACT` images or values by the eigenvectors of the smaller of the two products. Beyond that these
    take seconds, so a block of random directions is turned towards the axes until their lengths stand still.
    """
    count, size = vectors.shape
    centred = vectors - vectors.mean(axis=0) if count else vectors
    if min(count, size) > _EXACT:
        points = centred @ _leading(centred)
    elif size <= count:
        wide = centred.astype(np.float64)
        points = wide @ np.linalg.eigh(wide.T @ wide)[1][:, :-3:-1]
    else:  # the eigenvectors of the images' own products are the places, but for the axes' lengths
        wide = centred.astype(np.float64)
        squares, places = np.linalg.eigh(wide @ wide.T)
        points = (places * np.sqrt(np.clip(squares, 0, None)))[:, :-3:-1]
    return np.pad(points.astype(np.float64), ((0, 0), (0, 2 - points.shape[1])))


def _leading(centred: Floats) -> Floats:
    """The two longest principal axes, shape ``(values, 2)``, by block power iteration (Halko et al. 2011)."""
    block = np.random.default_rng(0).normal(size=(centred.shape[1], _BLOCK)).astype(centred.dtype)
    before = np.zeros(2)
    for _ in range(_TURNS):
        axes, _ = np.linalg.qr(block)  # (values, block)
        seen = centred @ axes  # (images, block)
        squares, turn = np.linalg.eigh(seen.T.astype(np.float64) @ seen)
        longest = squares[:-3:-1]
        if np.allclose(longest, before, rtol=_STILL, atol=0):
            break
        before = longest
        block = centred.T @ seen
    leading: Floats = (axes @ turn[:, :-3:-1]).astype(centred.dtype)
    return leading


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
