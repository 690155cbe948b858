"""Why do these two match? Which regions of one image match which of the other.

Where the embedding is nothing but the last feature map, averaged over the image (or over the cells of a
grid), the cosine similarity of two images is a sum over pairs of regions, and each pair's share is exact:

    cos(e, e') = sum over p, q of <f_p, f'_q> / (n m |e| |e'|)      f_p: the features of region p

Any other model is asked by occlusion: each region is covered in turn, in either image and in both. A region
counts as much as the images move apart when it is covered. Two regions match as much as covering both moves
the images apart by less than covering the one and covering the other do together. On a model of the first
kind whose features are 0 where a region is covered, both say the same but for the scaling to length 1.

References:
    Zeiler & Fergus, "Visualizing and understanding convolutional networks", ECCV 2014: occlusion.
    Stylianou, Souvenir & Pless, "Visualizing deep similarity networks", WACV 2019: the exact sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..data.images import ImageSource, Pixels
from ..data.preprocessing import ImageSpec, read_image
from ..errors import SettingError

Floats = NDArray[np.floating[Any]]
_CELLS = 7  # along the shorter side of the image
_FINE = 16  # regions; a coarser feature map says less than occlusion does
_LIKE = 1e-3  # how near averaged features must be to the embedding, both of length 1, to be taken for it


class Explainable(Protocol):
    """What is explained: a `twinned.inference.model.Model`.

    A model whose ``encoder`` graph has an output ``features`` may be explained exactly.
    """

    @property
    def spec(self) -> ImageSpec: ...
    def embed_pixels(self, pixels: Pixels) -> Any: ...
    def distances(self, left: Any, right: Any) -> Any: ...


@dataclass(frozen=True, eq=False)
class Explanation:
    """What of one image matches what of the other.

    Args:
        left: The left image as the model sees it, uint8 ``(height, width, channels)``.
        right: The right one.
        matches: How much each region of the left image and each of the right one have in common,
            ``(rows, columns, rows, columns)``.
        left_share: What each region of the left image counts, ``(rows, columns)``. Above 0 it speaks for "the
            same", below 0 against it.
        right_share: The same of the right image.
        method: ``exact``: the shares of the left regions, those of the right ones and the matches each add up
            to the cosine similarity, 1 - distance. ``occlusion``: by how much the distance grows when a
            region is covered.
        distance: Between the two images.
    """

    left: Pixels
    right: Pixels
    matches: Floats
    left_share: Floats
    right_share: Floats
    method: Literal["exact", "occlusion"]
    distance: float

    def strongest(self, count: int = 5) -> list[tuple[tuple[int, int], tuple[int, int], float]]:
        """The pairs of regions that match best: (row, column) on the left, on the right, how much.

        Each region is named once, so that the pairs are spread over the images.
        """
        rows, columns = self.left_share.shape
        open_pairs = self.matches.reshape(rows * columns, -1).copy()
        found = []
        for _ in range(min(count, *open_pairs.shape)):
            a, b = np.unravel_index(int(np.argmax(open_pairs)), open_pairs.shape)
            weight = float(open_pairs[a, b])
            if weight <= 0:
                break
            found.append((_cell(a, columns), _cell(b, self.right_share.shape[1]), weight))
            open_pairs[a], open_pairs[:, b] = -np.inf, -np.inf
        return found


def explain(
    model: Explainable,
    left: ImageSource,
    right: ImageSource,
    *,
    method: Literal["auto", "exact", "occlusion"] = "auto",
    cells: int = _CELLS,
) -> Explanation:
    """Tell which regions of two images match.

    Args:
        model: A `twinned.inference.model.Model`; ONNX Runtime is all that it takes.
        left: An image.
        right: Another one.
        method: ``exact`` where the embedding is the average of the last feature map and images are compared
            by direction; ``occlusion`` works on any model; ``auto`` is exact where that is possible and the
            feature map has 4 x 4 regions or more.
        cells: Regions along the shorter side, for occlusion. It embeds about ``2 * cells**2`` images.

    Raises:
        ImageError: If an image cannot be opened.
        SettingError: If the method is not known, or ``exact`` and not possible with this model.
    """
    if method not in ("auto", "exact", "occlusion"):
        raise SettingError(f"method {method!r} is not known; choose auto, exact or occlusion")
    a, b = read_image(left, model.spec), read_image(right, model.spec)
    found = _exact(model, a, b) if method != "occlusion" else None
    if found is not None and (method == "exact" or found.left_share.size >= _FINE):
        return found
    if method == "exact":
        raise SettingError(
            "this model's embedding is not an average of its last feature map, compared by direction;"
            " only occlusion can explain it"
        )
    if not 2 <= cells <= 16:
        raise SettingError(f"between 2 and 16 cells along the shorter side are covered; got {cells}")
    return _by_occlusion(model, a, b, cells)


def _exact(model: Explainable, a: Pixels, b: Pixels) -> Explanation | None:
    """The sum over pairs of regions, or None where the model is not one that it holds for."""
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
    # The cosine distance, or the (squared) Euclidean one of embeddings of length 1: all go by direction.
    apart = max(1 - cosine, 0.0)
    if not np.isclose([apart, 2 * apart, np.sqrt(2 * apart)], distance, atol=_LIKE).any():
        return None
    return Explanation(a, b, matches, matches.sum(axis=(2, 3)), matches.sum(axis=(0, 1)), "exact", distance)


def _parts(features: Floats, embedding: Floats) -> Floats | None:
    """What each place of the map adds to the embedding, scaled to length 1: ``(2, rows, columns, d)``.

    None where the embedding is not the map, averaged over the cells of a grid and laid out by channel.
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
        for y in range(down * high):
            for x in range(across * wide):
                parts[:, y, x, :, y // high, x // wide] = features[:, :, y, x]
        parts = parts.reshape(n, rows, columns, size)
        whole = parts.sum(axis=(1, 2))
        scale = np.linalg.norm(whole, axis=1)
        if scale.all() and np.abs((whole.T / scale).T - (embedding.T / length).T).max() < _LIKE:
            return np.asarray(parts / scale[:, None, None, None])
    return None


def _by_occlusion(model: Explainable, a: Pixels, b: Pixels, cells: int) -> Explanation:
    """Cover every region, in either image and in both: the second difference of the distance."""
    height, width = a.shape[:2]
    shorter = min(height, width)
    grid = tuple(min(3 * cells, side, max(1, round(cells * side / shorter))) for side in (height, width))
    embedding = model.embed_pixels(np.concatenate([_covered(a, grid), _covered(b, grid)]))
    regions = grid[0] * grid[1]
    apart = np.asarray(model.distances(embedding[: regions + 1], embedding[regions + 1 :]), np.float64)
    # Row and column 0 are the images as they are.
    left, right = apart[1:, 0] - apart[0, 0], apart[0, 1:] - apart[0, 0]
    matches = left[:, None] + right - (apart[1:, 1:] - apart[0, 0])
    return Explanation(
        a,
        b,
        matches.reshape(*grid, *grid),
        left.reshape(grid),
        right.reshape(grid),
        "occlusion",
        float(apart[0, 0]),
    )


def _covered(pixels: Pixels, grid: tuple[int, ...]) -> Pixels:
    """The image, then the image with each region in its median colour: paper, or a photo's mid-tone."""
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


def _cell(number: Any, columns: int) -> tuple[int, int]:
    row, column = divmod(int(number), columns)
    return row, column
