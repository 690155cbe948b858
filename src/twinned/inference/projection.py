"""Projection of embeddings to two dimensions by t-SNE or UMAP; needs no matplotlib."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError, SettingError


def project(
    embeddings: ArrayLike,
    *,
    method: Literal["tsne", "umap"] = "tsne",
    distance: str = "cosine",
    seed: int = 0,
) -> NDArray[np.float64]:
    """Project embeddings to two dimensions that keep neighbors together.

    Distances between far groups, and the sizes of groups, have no meaning in such a map.

    Args:
        embeddings: Shape ``(n, d)``, at least 4 of them.
        method: ``tsne`` by scikit-learn, or ``umap`` where umap-learn is installed.
        distance: Name of the model's distance.
        seed: Seed of the projection.

    Returns:
        Shape ``(n, 2)``.

    Raises:
        DataError: If there are fewer than 4 embeddings.
        SettingError: If the method is unknown or not installed.

    References:
        van der Maaten & Hinton, "Visualizing data using t-SNE", JMLR 2008.
        McInnes, Healy & Melville, "UMAP", 2018.
    """
    vectors = np.asarray(embeddings, dtype=np.float64)
    if len(vectors) < 4:
        raise DataError(f"A map needs at least 4 images; got {len(vectors)}")
    metric = {"squared_euclidean": "sqeuclidean"}.get(distance, distance)
    points: Any
    if method == "tsne":
        from sklearn.manifold import TSNE

        around = min(30.0, max(5.0, len(vectors) / 10), (len(vectors) - 1) / 3)
        # PCA initialization preserves the global order, which t-SNE does not.
        start = vectors - vectors.mean(axis=0)
        axes = np.linalg.svd(start, full_matrices=False)[2][:2]
        flat = start @ np.pad(axes, ((0, 2 - len(axes)), (0, 0))).T
        flat *= 1e-4 / max(float(flat[:, 0].std()), 1e-12)
        points = TSNE(perplexity=around, metric=metric, init=flat, random_state=seed).fit_transform(vectors)
    elif method == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise SettingError("umap needs a package: pip install umap-learn. Or choose tsne") from None
        around = min(15, len(vectors) - 1)
        points = UMAP(n_neighbors=around, metric=metric, random_state=seed).fit_transform(vectors)
    else:
        raise SettingError(f"Unknown method {method!r}. Choose tsne or umap")
    return np.asarray(points, dtype=np.float64)
