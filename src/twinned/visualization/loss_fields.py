"""Figure of the gradients of a loss with respect to embeddings in two dimensions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .colors import CYCLE, GRAY, INK, PAPER, RULE
from .style import MARKERS, Axes, Looks, dress, sheet, words

_REACH = 0.2  # length of the longest arrow, as a fraction of the figure
_STILL = 1e-3  # largest length, as a fraction of the longest, that counts as zero


def forces(
    points: ArrayLike,
    figures: Sequence[tuple[str, ArrayLike]],
    labels: Sequence[object],
    *,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw the direction in which each loss moves each embedding, and return one axes per loss.

    Arrow lengths are proportional to the forces; the longest of a panel spans a fifth of it. Hollow points
    have zero gradient.

    Args:
        points: Embeddings, ``(n, 2)``.
        figures: Title and forces of each loss; forces are its gradient at the points times -1, ``(n, 2)``.
        labels: Class of each point.
        axes: Axes to draw on, one per loss, instead of a new figure.

    Raises:
        DataError: If there is no loss, or not one label and one force per point.
    """
    where, names = np.asarray(points, np.float64), np.array([str(label) for label in labels])
    arrows = [np.asarray(force, np.float64) for _, force in figures]
    shapes = {arrow.shape for arrow in arrows}
    if shapes | {where.shape} != {(len(names), 2)} or not figures:
        got = f"{where.shape}, {len(names)} and {', '.join(map(str, shapes)) or 'none'}"
        raise DataError(f"expected points (n, 2), n labels and forces (n, 2); got {got}")
    if axes is None:
        axes = list(sheet(4.1 * len(figures), 4.4).subplots(1, len(figures), squeeze=False).flat)
    classes, code = np.unique(names, return_inverse=True)
    middle = (where.max(axis=0) + where.min(axis=0)) / 2
    half = 0.62 * float(np.ptp(where, axis=0).max() or 1.0)
    for ax, (title, _), arrow in zip(axes, figures, arrows):
        length = np.linalg.norm(arrow, axis=1)
        scale = 2 * half * _REACH / max(float(length.max()), 1e-300)
        moved = length > _STILL * length.max()
        for k in range(len(classes)):
            color, mine = CYCLE[k % len(CYCLE)], code == k
            looks = Looks(marker=MARKERS[k % len(MARKERS)], edgecolors=color, linewidths=1.2, zorder=3)
            faces = [color if moves else PAPER for moves in moved[mine]]
            ax.scatter(where[mine, 0], where[mine, 1], s=26, facecolors=faces, **looks)
        for (x, y), (dx, dy) in zip(where[moved], scale * arrow[moved]):
            looks = Looks(arrowstyle="-|>", color=INK, linewidth=0.9, shrinkA=0, shrinkB=0)
            ax.annotate("", (x + dx, y + dy), (x, y), arrowprops=looks, zorder=4)
        dress(ax, title=title, grid="")
        ax.spines[:].set(visible=True, color=RULE)
        ax.set(xlim=middle[0] + half * np.array([-1, 1]), ylim=middle[1] + half * np.array([-1, 1]))
        ax.set(aspect="equal", xticks=[], yticks=[])
        note = "no point has zero gradient" if moved.all() else "hollow: zero gradient"
        words(ax, middle[0], middle[1] - 0.93 * half, note, color=GRAY, size=8)
    return list(axes)
