"""Map of embeddings in two dimensions, with thumbnails."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.images import ImageSource
from ..errors import DataError
from .style import CYCLE, GRAY, MARKERS, PAPER, Axes, dress, halo, picture, plain, short, thumbnail

MOST_LABELS = 20  # more class names would hide the map
_SIZE, _SIDE = np.array([10.0, 8.6]), 0.6  # sizes of map and thumbnails, in units of the axes


def embedding_map(
    points: ArrayLike,
    labels: Sequence[object],
    *,
    images: Sequence[ImageSource] | None = None,
    seen: Collection[str] | None = None,
    thumbnails: int = 120,
    method: str = "t-SNE",
    ax: Axes | None = None,
) -> Axes:
    """Draw a map of embeddings: one point per image, one color and marker per class, and thumbnails.

    Args:
        points: Embeddings in two dimensions, ``(n, 2)``; see `project`.
        labels: Class of each image.
        images: Images for the thumbnails.
        seen: Classes used in training, which are drawn pale; None if unknown.
        thumbnails: Maximum number of thumbnails; they do not overlap.
        method: Name of the projection, for the title.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there is not one label (and image) per point.
        ImageError: If an image cannot be opened.
    """
    where, names = np.asarray(points, dtype=np.float64), np.array([str(label) for label in labels])
    if where.ndim != 2 or len(where) != len(names) or (images is not None and len(images) != len(names)):
        raise DataError(
            f"expected one point, label and image each; got points {where.shape}, {len(names)} labels"
            + ("" if images is None else f", {len(images)} images")
        )
    ax = ax or plain(6.6, 6.0)
    # The axes have no unit, so each is stretched to fill the figure.
    where = (where - where.min(axis=0)) / np.maximum(np.ptp(where, axis=0), 1e-12) * _SIZE
    ax.set(xlim=(-0.45, _SIZE[0] + 0.45), ylim=(-0.45, _SIZE[1] + 0.75), aspect="equal")
    classes, code = np.unique(names, return_inverse=True)
    colors = [CYCLE[k % len(CYCLE)] for k in range(len(classes))]
    pale = [name in (seen or ()) for name in classes]
    for k in range(len(classes)):
        ax.scatter(
            where[code == k, 0],
            where[code == k, 1],
            s=14,
            marker=MARKERS[(k + k // len(CYCLE)) % len(MARKERS)],
            color=colors[k],
            alpha=0.35 if pale[k] else 0.9,
            edgecolors="none",
            zorder=2,
        )
    named = np.empty((0, 4))
    if len(classes) <= MOST_LABELS:
        named = _label(
            ax,
            [short(name, 16) for name in classes],
            np.array([_top(where[code == k]) for k in range(len(classes))]),
            [GRAY if faint else color for faint, color in zip(pale, colors, strict=True)],
        )
    if images is not None:
        for row in _spaced(where, 1.12 * _SIDE, thumbnails, named):
            corner = where[row, 0] - _SIDE / 2, where[row, 1] - _SIDE / 2
            picture(ax, thumbnail(images[row], 96), at=corner, size=_SIDE, frame=colors[code[row]], line=1.3)
    caption = f"{len(names):,} images of {len(classes)} classes"
    if seen is not None:
        caption += f", {sum(pale) or 'none'} of them used in training" + (" (pale)" if any(pale) else "")
    dress(ax, title=f"Embeddings ({method})", x=caption, grid="")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def _label(ax: Axes, names: list[str], spots: NDArray[np.float64], colors: list[str]) -> NDArray[np.float64]:
    """Write class names and return their boxes: center, width and height, ``(n, 4)``."""
    points = 8.0 if len(names) > 12 else 9.5
    sizes = np.array([[0.0205 * points * len(name), 0.032 * points] for name in names])
    half = sizes[:, 0] / 2
    inside = np.clip(spots[:, 0], half - 0.45, np.maximum(_SIZE[0] + 0.45 - half, half - 0.45))
    placed = _separated(np.column_stack([inside, spots[:, 1]]), sizes)
    for name, (x, y), color in zip(names, placed, colors, strict=True):
        text = ax.text(x, y, name, ha="center", va="center", fontsize=points, color=color, zorder=6)
        text.set(fontweight="bold", path_effects=halo(PAPER, 3), parse_math=False)
    return np.hstack([placed, sizes])


def _spaced(where: NDArray[np.float64], gap: float, most: int, named: NDArray[np.float64]) -> list[int]:
    """Return rows of points that are at least ``gap`` from each other on one axis, and cover no name."""
    chosen: list[int] = []
    for row in np.random.default_rng(0).permutation(len(where)):
        if len(chosen) == most:
            break
        if (np.abs(named[:, :2] - where[row]) < (named[:, 2:] + _SIDE) / 2).all(axis=1).any():
            continue
        if not len(chosen) or (np.abs(where[chosen] - where[row]).max(axis=1) >= gap).all():
            chosen.append(int(row))
    return chosen


def _top(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a position above the median of a class, without its outliers."""
    middle = np.median(points, axis=0)
    radius = np.linalg.norm(points - middle, axis=1)
    near = points[radius <= 2 * np.median(radius) + 1e-12]
    return np.array([middle[0], near[:, 1].max() + 0.35 * _SIDE])


def _separated(spots: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move boxes of these centers and sizes up until none overlaps another."""
    placed = spots.copy()
    done: list[int] = []
    for k in np.argsort(spots[:, 1]):
        for _ in range(len(spots)):
            over = [o for o in done if (np.abs(placed[k] - placed[o]) < (sizes[k] + sizes[o]) / 2).all()]
            if not over:
                break
            placed[k, 1] = max(placed[o, 1] + (sizes[k, 1] + sizes[o, 1]) / 2 for o in over)
        done.append(int(k))
    return placed
