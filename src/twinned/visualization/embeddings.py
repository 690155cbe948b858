"""Embeddings in two dimensions, drawn as a map with thumbnails."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.images import ImageSource
from ..errors import DataError
from .style import (
    CYCLE,
    GREY,
    MARKERS,
    PAPER,
    Axes,
    dress,
    halo,
    picture,
    plain,
    short,
    thumbnail,
)

MOST_LABELS = 20  # with more classes names would only hide the map
_SIZE, _SIDE = np.array([10.0, 8.6]), 0.6  # of the map and of a thumbnail, in units of the axes


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
    """A map of embeddings: one point an image, one colour and marker a class, thumbnails where there is room.

    Args:
        points: Shape ``(n, 2)``; see `project`.
        labels: The class of each image.
        images: The images, for thumbnails.
        seen: The classes that training saw; they are drawn pale. None: not known.
        thumbnails: At most so many.
        method: How the points were made, for the caption.
        ax: Where to draw, instead of a new figure.

    Raises:
        DataError: If there is not one label (and image) a point.
        ImageError: If an image cannot be opened any more.
    """
    where, names = np.asarray(points, dtype=np.float64), np.array([str(label) for label in labels])
    if where.ndim != 2 or len(where) != len(names) or (images is not None and len(images) != len(names)):
        raise DataError(
            f"one point, label and image each is drawn; got points {where.shape}, {len(names)} labels"
            + ("" if images is None else f", {len(images)} images")
        )
    ax = ax or plain(6.6, 6.0)
    # Neither axis has a unit, so each is stretched to fill the picture.
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
            [GREY if faint else color for faint, color in zip(pale, colors, strict=True)],
        )
    if images is not None:
        for row in _apart(where, 1.12 * _SIDE, thumbnails, named):
            corner = where[row, 0] - _SIDE / 2, where[row, 1] - _SIDE / 2
            picture(ax, thumbnail(images[row], 96), at=corner, size=_SIDE, frame=colors[code[row]], line=1.3)
    caption = f"{len(names):,} images of {len(classes)} classes"
    if seen is not None:
        caption += f", {sum(pale) or 'none'} of them seen in training" + (" (pale)" if any(pale) else "")
    dress(ax, title=f"Embeddings ({method})", x=caption, grid="")
    ax.set(xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


def _label(ax: Axes, names: list[str], spots: NDArray[np.float64], colors: list[str]) -> NDArray[np.float64]:
    """Write the names; where they stand: middle, width and height of each."""
    points = 8.0 if len(names) > 12 else 9.5
    sizes = np.array([[0.011 * points * len(name), 0.022 * points] for name in names])
    placed = _unstacked(spots, sizes)
    for name, (x, y), color in zip(names, placed, colors, strict=True):
        text = ax.text(x, y, name, ha="center", va="center", fontsize=points, color=color, zorder=6)
        text.set(fontweight="bold", path_effects=halo(PAPER, 3), parse_math=False)
    return np.hstack([placed, sizes])


def _apart(where: NDArray[np.float64], gap: float, most: int, named: NDArray[np.float64]) -> list[int]:
    """Rows of points no two of which are nearer than ``gap`` along both axes, nor on a name; always these."""
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
    """Above the middle of a class, strays left out."""
    middle = np.median(points, axis=0)
    apart = np.linalg.norm(points - middle, axis=1)
    near = points[apart <= 2 * np.median(apart) + 1e-12]
    return np.array([middle[0], near[:, 1].max() + 0.35 * _SIDE])


def _unstacked(spots: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spots for words of these widths and heights, moved up until no word covers another."""
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
