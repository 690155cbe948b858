"""Figures of training: history of one run, accuracy of several by time, and gradients of losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..errors import DataError
from .colors import BLUE, CYCLE, GRAY, GREEN, INK, PAPER, RULE, VERMILLION
from .style import MARKERS, Axes, Looks, dress, legend, note, plain, sheet, short, words

if TYPE_CHECKING:
    from ..inference.model import Model

Table: TypeAlias = Mapping[str, ArrayLike]
"""Columns of history.csv, as ``model.record.history()`` reads them, with one value per evaluation."""

_REACH = 0.2  # length of the longest arrow of a force, as a fraction of the figure
_STILL = 1e-3  # largest length, as a fraction of the longest, that counts as zero
_NAMES = {"step": "step", "seconds": "seconds of training", "epoch": "epoch"}


def history(
    table: Table | Model,
    *,
    over: Literal["step", "seconds", "epoch"] = "step",
    axes: Sequence[Axes] | None = None,
) -> tuple[Axes, Axes]:
    """Draw the training history: loss above, equal error rate and pair accuracy below.

    The lowest held-out error is marked; its weights are those of the model. The upper axes come first.

    Args:
        table: A model, or the columns that ``model.record.history()`` returns.
        over: Unit of the horizontal axis.
        axes: Two axes to draw on instead of a new figure.

    Raises:
        DataError: If it has no row; ``model.record.without_history()`` gives the reason.
    """
    if not isinstance(table, Mapping):
        table = table.record.history()
    x = _column(table, over)
    if axes is None:
        axes = sheet(5.4, 4.6).subplots(2, sharex=True, height_ratios=(2, 3))
    above, below = axes
    above.plot(x, _column(table, "loss"), color=INK, linewidth=1.4, marker="o", markersize=3)
    dress(above, title="Training", y="loss")
    for name, label, color, line, marker in (
        ("held_out_accuracy", "pair accuracy, held-out classes", BLUE, "-", "o"),
        ("train_accuracy", "pair accuracy, training classes", GREEN, (0, (4, 1.5)), "^"),
        ("held_out_eer", "equal error rate, held-out classes", VERMILLION, "-", "s"),
    ):
        y, looks = _column(table, name), Looks(color=color, linestyle=line, marker=marker)
        if np.isfinite(y).any():
            below.plot(x, y, **looks, markersize=3.2, linewidth=1.4, label=label)
    error = _column(table, "held_out_eer")
    if np.isfinite(error).any():
        best = int(np.nanargmin(error))
        ha = "left" if best == 0 else "right" if best == len(x) - 1 else "center"
        at, looks = (x[best], error[best]), Looks(ha=ha, color=VERMILLION, path_effects=None)
        note(below, f"best {error[best]:.3g}", at, offset=(0, 9), **looks)
    below.set(ylim=(0, 1.02))
    below.locator_params(axis="x", integer=over == "step", nbins=8)
    dress(below, x=_NAMES[over])
    above.tick_params(labelbottom=False)
    legend(below, loc="best")
    return above, below


def accuracy_over_time(
    runs: Mapping[str, Table], *, measure: str = "held_out_accuracy", ax: Axes | None = None
) -> Axes:
    """Draw the accuracy of several runs over the seconds of training.

    Args:
        runs: History of each run, by name.
        measure: Column to draw.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there are no runs, or a run lacks the column.
    """
    if not runs:
        raise DataError("accuracy over time requires at least one run")
    ax = ax or plain(5.4, 3.6)
    for k, (name, table) in enumerate(runs.items()):
        line = ("-", (0, (4, 1.5)), (0, (1, 1)))[k // len(CYCLE) % 3]
        looks = Looks(color=CYCLE[k % len(CYCLE)], marker=MARKERS[k % len(MARKERS)], linestyle=line)
        seconds, values = _column(table, "seconds"), _column(table, measure)
        ax.plot(seconds, values, **looks, markersize=3.6, linewidth=1.4, label=short(name, 40))
    ax.set_xlim(left=0)
    measured = measure.replace("_", " ").replace("held out", "held-out").replace("eer", "equal error rate")
    dress(ax, title="Accuracy over training time", x=_NAMES["seconds"], y=measured)
    legend(ax, loc="best")
    return ax


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
        text = "no point has zero gradient" if moved.all() else "hollow: zero gradient"
        words(ax, middle[0], middle[1] - 0.93 * half, text, color=GRAY, size=8)
    return list(axes)


def _column(table: Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if name not in table or not np.size(table[name]):
        columns = f"column {name!r} is missing or empty (columns: {', '.join(table) or 'none'})"
        raise DataError(f"no training history to draw: {columns}. Pass that of a model trained step by step")
    return np.asarray(table[name], dtype=np.float64)
