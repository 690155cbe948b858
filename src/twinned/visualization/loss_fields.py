"""What a loss pulls and pushes: points, and where it wants each of them to go."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .style import (
    CYCLE,
    GREY,
    INK,
    MARKERS,
    PAPER,
    RULE,
    Axes,
    dress,
    sheet,
    words,
)

_REACH = 0.2  # the longest arrow, as a share of the picture
_STILL = 1e-3  # what is shorter than that share of the longest counts as no force


def forces(
    points: ArrayLike,
    figures: Sequence[tuple[str, ArrayLike]],
    labels: Sequence[object],
    *,
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    """Draw where losses want each embedding to go, one picture a loss.

    Arrows are as long as the forces, the longest of each picture reaching a fifth of it. A hollow point is
    content: the loss leaves it where it is.

    Args:
        points: Embeddings in two dimensions, ``(n, 2)``.
        figures: For each loss its title and the forces, ``(n, 2)``: its gradient at the points, times -1.
        labels: The class of each point.
        axes: Where to draw, one for each loss, instead of a new figure.

    Returns:
        The axes.

    Raises:
        DataError: If there is no loss, or not one label and one force a point.
    """
    where, names = np.asarray(points, np.float64), np.array([str(label) for label in labels])
    arrows = [np.asarray(force, np.float64) for _, force in figures]
    shapes = {arrow.shape for arrow in arrows}
    if (
        not figures
        or where.ndim != 2
        or where.shape[1] != 2
        or shapes != {(len(names), 2)}
        or len(where) != len(names)
    ):
        raise DataError(
            f"points (n, 2), n labels and forces (n, 2) are drawn; got {where.shape}, {len(names)} and"
            f" {', '.join(map(str, shapes)) or 'none'}"
        )
    if axes is None:
        size = 4.1 * len(figures), 4.4
        axes = list(sheet(*size).subplots(1, len(figures), squeeze=False).flat)
    classes, code = np.unique(names, return_inverse=True)
    middle, half = (
        (where.max(axis=0) + where.min(axis=0)) / 2,
        0.62 * float(np.ptp(where, axis=0).max() or 1.0),
    )
    for ax, (title, _), arrow in zip(axes, figures, arrows):
        length = np.linalg.norm(arrow, axis=1)
        scale = 2 * half * _REACH / max(float(length.max()), 1e-300)
        moved = length > _STILL * length.max()
        for k in range(len(classes)):
            color, mine = CYCLE[k % len(CYCLE)], code == k
            ax.scatter(
                where[mine, 0],
                where[mine, 1],
                s=26,
                marker=MARKERS[k % len(MARKERS)],
                facecolors=[color if moves else PAPER for moves in moved[mine]],
                edgecolors=color,
                linewidths=1.2,
                zorder=3,
            )
        for (x, y), (dx, dy) in zip(where[moved], scale * arrow[moved]):
            ax.annotate(
                "",
                (x + dx, y + dy),
                (x, y),
                arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0},
                zorder=4,
            )
        dress(ax, title=title, grid="")
        for spine in ax.spines.values():
            spine.set(visible=True, color=RULE)
        ax.set(xlim=middle[0] + half * np.array([-1, 1]), ylim=middle[1] + half * np.array([-1, 1]))
        ax.set(aspect="equal", xticks=[], yticks=[])
        still = int((~moved).sum())
        note = "hollow: content where it is" if still else "none is content where it is"
        words(ax, middle[0], middle[1] - 0.93 * half, note, color=GREY, size=8)
    return list(axes)
