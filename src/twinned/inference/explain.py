"""Explain a comparison: which regions of one image match which regions of the other.

If the embedding is the last feature map averaged over the image (or over the cells of a grid), the cosine
similarity of two images is a sum over pairs of regions, and each pair's contribution is exact:

    cos(e, e') = sum over p, q of <f_p, f'_q> / (n m |e| |e'|)      f_p: the features of region p

Other models are explained by occlusion: the contribution of a region is the increase of the distance when it
is covered. Two regions match by the amount that covering both increases the distance less than the sum of
covering each. Where features are 0 in covered regions, both methods agree up to the scaling to length 1.

References:
    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014: occlusion.
    Stylianou, Souvenir & Pless, "Visualizing deep similarity networks", WACV 2019: the exact sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..data.images import ImageSource, Pixels
from ..data.preprocessing import read_image
from ..errors import SettingError
from ..metrics.comparisons import Embedder

Floats = NDArray[np.floating[Any]]
_CELLS = 7  # along the shorter side of the image
_FINE = 16  # regions; a coarser feature map is less informative than occlusion
_LIKE = 1e-3  # maximum difference of averaged features and the embedding, both of length 1
_WEAK_CHANGE, _WEAK_SIMILARITY = 0.1, 0.2  # of the distance or threshold; of exact shares: weak below


@dataclass(frozen=True, eq=False)
class Explanation:
    """Matching regions of two images.

    ``exact``: the left shares, the right shares and the matches each sum to the cosine similarity.
    ``occlusion``: they are increases of the distance. Above 0 is evidence for "the same", below 0 against it.
    """

    left: Pixels  # after preprocessing, uint8 (height, width, channels)
    right: Pixels
    matches: Floats  # of regions of the left and the right image: (rows, columns, rows, columns)
    left_share: Floats  # contribution of each region, (rows, columns)
    right_share: Floats
    method: Literal["exact", "occlusion"]
    distance: float  # between the two images

    def is_weak(self, threshold: float | None) -> bool:
        """Return True if no region is important, so that the map and the matches show little but noise."""
        if self.method == "exact":
            return float(self.left_share.sum()) < _WEAK_SIMILARITY
        return self._most() < _WEAK_CHANGE * max(self.distance, threshold or 0)

    def text(self, threshold: float | None) -> str:
        """Describe the strength of the evidence, and the meaning of the matches, in a few sentences."""
        weak = "Weak evidence: " if self.is_weak(threshold) else ""
        if self.method == "exact":
            text = f"{weak}the contributions of the regions add up to {self.left_share.sum():.2g}"
        else:
            change = f"{self.distance:.2g} by at most {self._most():.2g}"
            text = f"{weak}covering one region changes the distance of {change}"
        text = f"{text[0].upper()}{text[1:]}. "
        if threshold is None or self.distance <= threshold:
            return f"{text}Lines: regions that match best."
        different = "The images count as different. Lines: regions that match best"
        return f"{text}{different}, which is not enough for the same."

    def _most(self) -> float:
        return float(max(np.abs(self.left_share).max(), np.abs(self.right_share).max()))

    def strongest(self, count: int = 5) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
        """Return the best matching pairs of regions, each region once: (row, column) left, right, match."""
        rows, columns = self.left_share.shape
        open_pairs = self.matches.reshape(rows * columns, -1).copy()
        found = []
        for _ in range(min(count, *open_pairs.shape)):
            a, b = np.unravel_index(int(np.argmax(open_pairs)), open_pairs.shape)
            weight = float(open_pairs[a, b])
            if weight <= 0:
                break
            found.append((divmod(int(a), columns), divmod(int(b), self.right_share.shape[1]), weight))
            open_pairs[a], open_pairs[:, b] = -np.inf, -np.inf
        return found


def explain(
    model: Embedder,
    left: ImageSource,
    right: ImageSource,
    *,
    method: Literal["auto", "exact", "occlusion"] = "auto",
    cells: int = _CELLS,
) -> Explanation:
    """Find the matching regions of two images.

    Args:
        model: Model; ``exact`` needs an ``encoder`` graph with an output ``features``.
        left: Left image.
        right: Right image.
        method: ``exact`` requires that the embedding is the average of the last feature map and that
            distances depend on direction only; ``occlusion`` works for any model; ``auto`` is exact where
            possible if the feature map has at least 4 x 4 regions.
        cells: Regions along the shorter side, for occlusion, which embeds about ``2 * cells**2`` images.

    Raises:
        ImageError: If an image cannot be opened.
        SettingError: If the method is unknown, or ``exact`` is impossible for this model.
    """
    if method not in ("auto", "exact", "occlusion"):
        raise SettingError(f"Unknown method {method!r}. Choose auto, exact or occlusion")
    a, b = read_image(left, model.spec), read_image(right, model.spec)
    found = _exact(model, a, b) if method != "occlusion" else None
    if found is not None and (method == "exact" or found.left_share.size >= _FINE):
        return found
    if method == "exact":
        raise SettingError(
            "The embedding of this model is not an average of its last feature map, compared by direction."
            " Choose occlusion"
        )
    if not 2 <= cells <= 16:
        raise SettingError(f"The shorter side must have between 2 and 16 cells; got {cells}")
    return _by_occlusion(model, a, b, cells)


def _exact(model: Embedder, a: Pixels, b: Pixels) -> Explanation | None:
    """Return the exact sum over pairs of regions, or None if it does not hold for the model."""
    graph: Any = getattr(model, "encoder", None)
    if "features" not in getattr(graph, "outputs", ()):
        return None
    both = np.stack([a, b])
    embedding = model.embed_pixels(both)
    parts = _parts(graph(both, output="features"), embedding)
    if parts is None:
        return None
    matches = np.einsum("rcd,std->rcst", *parts)
    cosine, distance = matches.sum(), float(model.distances(embedding[:1], embedding[1:])[0, 0])
    # Cosine distance, or (squared) Euclidean distance of embeddings of length 1: all depend on direction.
    apart = max(1 - cosine, 0.0)
    if not np.isclose([apart, 2 * apart, np.sqrt(2 * apart)], distance, atol=_LIKE).any():
        return None
    return Explanation(a, b, matches, matches.sum(axis=(2, 3)), matches.sum(axis=(0, 1)), "exact", distance)


def _parts(features: Floats, embedding: Floats) -> Floats | None:
    """Return the part of each map position in the embedding of length 1: ``(2, rows, columns, d)``.

    None if the embedding is not the map averaged over the cells of a grid, with channels outermost.
    """
    n, channels, rows, columns = features.shape
    size = embedding.shape[1]
    length = np.linalg.norm(embedding.astype(np.float64), axis=1)
    if size % channels or not length.all():
        return None
    for down in (d for d in range(1, rows + 1) if size % (channels * d) == 0):
        across = size // channels // down
        if across > columns:
            continue
        high, wide = rows // down, columns // across
        parts = np.zeros((n, rows, columns, channels, down, across))
        for y, x in np.ndindex(down * high, across * wide):
            parts[:, y, x, :, y // high, x // wide] = features[:, :, y, x]
        parts = parts.reshape(n, rows, columns, size)
        whole = parts.sum(axis=(1, 2))
        scale = np.linalg.norm(whole, axis=1)
        if scale.all() and np.abs((whole.T / scale).T - (embedding.T / length).T).max() < _LIKE:
            return np.asarray(parts / scale[:, None, None, None])
    return None


def _by_occlusion(model: Embedder, a: Pixels, b: Pixels, cells: int) -> Explanation:
    """Cover every region, in either image and in both: the second difference of the distance."""
    height, width = a.shape[:2]
    shorter = min(height, width)
    grid = tuple(min(3 * cells, side, max(1, round(cells * side / shorter))) for side in (height, width))
    embedding = model.embed_pixels(np.concatenate([_covered(a, grid), _covered(b, grid)]))
    regions = grid[0] * grid[1]
    apart = np.asarray(model.distances(embedding[: regions + 1], embedding[regions + 1 :]), np.float64)
    # Row and column 0 are the uncovered images.
    left, right = apart[1:, 0] - apart[0, 0], apart[0, 1:] - apart[0, 0]
    matches = (left[:, None] + right - (apart[1:, 1:] - apart[0, 0])).reshape(*grid, *grid)
    shares = left.reshape(grid), right.reshape(grid)
    return Explanation(a, b, matches, *shares, "occlusion", float(apart[0, 0]))


def _covered(pixels: Pixels, grid: tuple[int, ...]) -> Pixels:
    """Return the image, then the image with each region covered by the median color."""
    plain = np.median(pixels, axis=(0, 1)).astype(np.uint8)
    down, across = (
        np.linspace(0, side, n + 1).round().astype(int)
        for side, n in zip(pixels.shape[:2], grid, strict=True)
    )
    found = np.repeat(pixels[None], grid[0] * grid[1] + 1, axis=0)
    for k in range(grid[0] * grid[1]):
        row, column = divmod(k, grid[1])
        found[k + 1, down[row] : down[row + 1], across[column] : across[column + 1]] = plain
    return found
