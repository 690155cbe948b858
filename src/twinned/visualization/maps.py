"""Map of embeddings in two dimensions, with thumbnails."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..data.images import ImageSource
from ..errors import DataError
from ..metrics.comparisons import Floats
from .colors import CYCLE, GRAY
from .style import MARKERS, Axes, Looks, dress, halo, picture, plain, short, thumbnail

MOST_LABELS = 20  # more class names would hide the map
_SIZE, _SIDE = np.array([10.0, 8.6]), 0.6  # sizes of map and thumbnails, in units of the axes
_LOW, _HIGH = -0.45, _SIZE + np.array([0.45, 0.75])  # corners of the axes
_MARGIN = 0.07  # between a thumbnail and the center of a point
# Below this number of thumbnails, more are drawn that hide at most this fraction of the points.
_FEW_THUMBNAILS, _MAY_HIDE = 24, 0.1


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
        thumbnails: Maximum number of thumbnails. Each is beside its point, where it hides no other, as far as
            there is room.
        method: Name of the projection, for the title.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there is not one label (and image) per point.
        ImageError: If an image cannot be opened.
    """
    where, names = np.asarray(points, dtype=np.float64), np.array([str(label) for label in labels])
    if where.ndim != 2 or len(where) != len(names) or (images is not None and len(images) != len(names)):
        got = f"{where.shape}, {len(names)} labels, {'no' if images is None else len(images)} images"
        raise DataError(f"expected one point, label and image each; got points {got}")
    ax = ax or plain(6.6, 6.0)
    # The axes have no unit, so each is stretched to fill the figure.
    where = (where - where.min(axis=0)) / np.maximum(np.ptp(where, axis=0), 1e-12) * _SIZE
    ax.set(xlim=(_LOW, _HIGH[0]), ylim=(_LOW, _HIGH[1]), aspect="equal")
    classes, code = np.unique(names, return_inverse=True)
    colors = [CYCLE[k % len(CYCLE)] for k in range(len(classes))]
    pale = [name in (seen or ()) for name in classes]
    for k in range(len(classes)):
        marker, alpha = MARKERS[(k + k // len(CYCLE)) % len(MARKERS)], 0.35 if pale[k] else 0.9
        looks = Looks(marker=marker, color=colors[k], alpha=alpha, edgecolors="none", zorder=2)
        ax.scatter(where[code == k, 0], where[code == k, 1], s=14, **looks)
    named: Floats = np.empty((0, 4))
    if len(classes) <= MOST_LABELS:
        spots = np.array([_top(where[code == k]) for k in range(len(classes))])
        shades = [GRAY if faint else color for faint, color in zip(pale, colors, strict=True)]
        named = _label(ax, [short(name, 16) for name in classes], spots, shades)
    if images is not None:
        for row, (x, y) in _places(where, thumbnails, named).items():
            color, corner = colors[code[row]], (x - _SIDE / 2, y - _SIDE / 2)
            ax.plot([where[row, 0], x], [where[row, 1], y], color=color, linewidth=0.9, zorder=1.5)
            picture(ax, thumbnail(images[row], 96), at=corner, size=_SIDE, frame=color, line=1.3)
    caption = f"{len(names):,} images of {len(classes)} classes"
    if seen is not None:
        caption += f", {sum(pale) or 'none'} of them used in training" + (" (pale)" if any(pale) else "")
    dress(ax, title=f"Embeddings ({method})", x=caption, grid="")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def _label(ax: Axes, names: list[str], spots: Floats, colors: list[str]) -> Floats:
    """Write class names and return their boxes: center, width and height, ``(n, 4)``."""
    points = 8.0 if len(names) > 12 else 9.5
    sizes = np.array([[0.0205 * points * len(name), 0.032 * points] for name in names])
    half = sizes[:, 0] / 2
    inside = np.clip(spots[:, 0], half - 0.45, np.maximum(_SIZE[0] + 0.45 - half, half - 0.45))
    placed = _separated(np.column_stack([inside, spots[:, 1]]), sizes)
    for name, (x, y), color in zip(names, placed, colors, strict=True):
        text = ax.text(x, y, name, ha="center", va="center", fontsize=points, color=color, zorder=6)
        text.set(fontweight="bold", path_effects=halo(3), parse_math=False)
    return np.hstack([placed, sizes])


def _places(where: Floats, most: int, named: Floats) -> dict[int, Floats]:
    """Return rows of points whose thumbnails find a place beside the names, with their centers.

    Thumbnails overlap neither each other nor a name. They hide no point; only if that leaves few of them,
    further ones hide a few points.
    """
    around = np.array([(x, y) for x in (1, -1, 0) for y in (0, 1, -1) if x or y])
    offsets = np.concatenate([around * _SIDE * reach for reach in (0.75, 1.15)])
    chosen: dict[int, Floats] = {}
    hidden = np.zeros(len(where), bool)
    for may_hide in (0.0, _MAY_HIDE):
        limit = min(most, _FEW_THUMBNAILS) if may_hide else most
        for row in np.random.default_rng(0).permutation(len(where)):
            if len(chosen) >= limit:
                break
            spots = where[row] + offsets
            free = ((spots >= _LOW + _SIDE / 2) & (spots <= _HIGH - _SIDE / 2)).all(axis=1)
            free &= ~_near(spots, named[:, :2], (named[:, 2:] + _SIDE) / 2).any(axis=1)
            free &= ~_near(spots, np.array([*chosen.values()]).reshape(-1, 2), 1.12 * _SIDE).any(axis=1)
            covered = _near(spots, where, _SIDE / 2 + _MARGIN) | hidden
            best = int(np.where(free, covered.sum(axis=1), len(where) + 1).argmin())
            if row not in chosen and free[best] and covered[best].sum() <= may_hide * len(where):
                chosen[int(row)], hidden = spots[best], covered[best]
    return chosen


def _near(spots: Floats, others: Floats, reach: ArrayLike) -> NDArray[np.bool_]:
    """Return, for each spot and each other position, if both of their coordinates differ by less."""
    return np.asarray((np.abs(spots[:, None] - others) < reach).all(axis=2))


def _top(points: Floats) -> Floats:
    """Return a position above the median of a class, without its outliers."""
    middle = np.median(points, axis=0)
    radius = np.linalg.norm(points - middle, axis=1)
    near = points[radius <= 2 * np.median(radius) + 1e-12]
    return np.array([middle[0], near[:, 1].max() + 0.35 * _SIDE])


def _separated(spots: Floats, sizes: Floats) -> Floats:
    """Move boxes of these centers and sizes up until none overlaps another."""
    placed = spots.copy()
    done: list[int] = []
    for k in np.argsort(spots[:, 1]):
        for _ in range(len(spots)):
            over = [o for o in done if (np.abs(placed[k] - placed[o]) < (sizes[k] + sizes[o]) / 2).all()]
            above = (placed[o, 1] + (sizes[k, 1] + sizes[o, 1]) / 2 for o in over)
            placed[k, 1] = max(above, default=placed[k, 1])
        done.append(int(k))
    return placed
