"""Figures of images: nearest neighbors, one-shot classification, hardest pairs, matching regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.images import ImageSource
from ..errors import DataError
from ..evaluation.verification import mistakes
from ..metrics.comparisons import Comparisons
from .colors import BLUE, GRAY, INK, PAPER, RULE, VERMILLION
from .style import Axes, Looks, arrow, board, box, picture, short, thumbnail, to_rgba, words


class Shown(NamedTuple):
    """An image in a panel, with its class, and its distance to the query or the other image of the pair.

    Drawing an image that cannot be opened raises an `ImageError`.
    """

    image: ImageSource
    label: str | None = None
    distance: float | None = None


def neighbours(
    queries: Sequence[Shown],
    found: Sequence[Sequence[Shown]],
    *,
    threshold: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw each query with its nearest images, nearest first.

    If labels are known, images of the query's class have a blue frame and a tick, others an orange frame and
    a cross. A dotted line marks the threshold, unless all images are within it.

    Args:
        queries: Queries.
        found: Images found for each query, by ascending distance.
        threshold: ``same = distance <= threshold``.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there are no queries, or not one row of images for each.
    """
    if not queries or len(queries) != len(found):
        raise DataError(f"expected one row per query; got {len(queries)} queries and {len(found)} rows")
    columns = max(map(len, found))
    step, row = 1.12, 1.62
    ax = board(1.75 + step * columns, 0.75 + row * len(queries), inches=0.85, ax=ax)
    words(ax, 0.12, 0.3, "Query", ha="left", weight="bold")
    words(ax, 1.62, 0.3, "Nearest images", ha="left", weight="bold")
    crossed = False
    for k, (query, hits) in enumerate(zip(queries, found)):
        top = 0.6 + row * k
        _tile(ax, query, at=(0.12, top), frame=INK, line=1.8)
        for n, hit in enumerate(hits):
            left = 1.62 + step * n
            knows = query.label is not None and hit.label is not None
            own = hit.label == query.label
            mark = ("✓ " if own else "✗ ") if knows else ""
            _tile(ax, hit, at=(left, top), frame=(BLUE if own else VERMILLION) if knows else RULE, mark=mark)
            beyond = threshold is not None and hit.distance is not None and hit.distance > threshold
            before = n == 0 or (hits[n - 1].distance or 0.0) <= (threshold or 0.0)
            if beyond and before:
                crossed = True
                x = left - (step - 1) / 2
                ax.plot([x, x], [top - 0.04, top + 1.34], color=INK, linewidth=1.2, linestyle=(0, (1, 1.5)))
    if threshold is not None:
        text = f"{'dotted line: ' if crossed else ''}threshold {threshold:.4g}"
        words(ax, 1.5 + step * columns, 0.3, text, ha="right", color=GRAY, size=7.5)
    return ax


def one_shot(
    query: Shown, support: Sequence[Shown], *, threshold: float | None = None, ax: Axes | None = None
) -> Axes:
    """Draw a one-shot classification: the query, one example per class, and the class of the nearest.

    The answer "unknown" is correct if the query's class has no example.

    Args:
        query: Image to classify, with a label if the true class is known.
        support: Examples with labels and distances.
        threshold: Largest distance of a known class; beyond it the answer is "unknown". None forces a choice.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there are no examples, or one lacks a distance.
    """
    distances = [shown.distance for shown in support if shown.distance is not None]
    if not support or len(distances) != len(support):
        found = f"{len(support)} examples, {len(distances)} distances"
        raise DataError(f"expected examples with distances; got {found}")
    nearest = int(np.argmin(distances))
    known = threshold is None or distances[nearest] <= threshold
    answer = support[nearest].label if known else None
    columns = min(len(support), max(5, math.ceil(math.sqrt(2 * len(support)))))
    rows = math.ceil(len(support) / columns)
    step, row, size = 1.12, 1.55, 1.9
    height = 0.62 + max(row * rows + 0.4 * (threshold is not None), size + 1.25)
    ax = board(size + 1.3 + max(step * columns, 3.4), height, inches=0.8, ax=ax)
    words(ax, 0.15, 0.3, "Query", ha="left", weight="bold")
    words(ax, size + 1.1, 0.3, f"Support: one of {len(support)}?", ha="left", weight="bold")
    picture(ax, thumbnail(query.image), at=(0.15, 0.6), size=size, frame=INK, line=1.8)
    x, y = 0.15 + size / 2, 0.6 + size
    unknown = query.label is not None and query.label not in {shown.label for shown in support}
    right = query.label is None or (not known if unknown else query.label == answer)
    color = BLUE if right else VERMILLION
    words(ax, x, y + 0.32, "answer", color=GRAY, size=8)
    words(ax, x, y + 0.62, short(answer or "unknown", 16), weight="bold", size=11, color=color)
    if query.label is not None:
        true = f", it is {short(query.label, 12)}" if unknown else ""
        verdict = f"✓ correct{true}" if right else f"✗ it is {short(query.label, 14)}"
        words(ax, x, y + 0.95, verdict, size=8.5, color=color)
    if threshold is not None:
        side = "within" if known else "beyond"
        sentence = f"{distances[nearest]:.3f} is {side} the threshold {threshold:.3f}"
        words(ax, size + 1.1, 0.75 + row * rows, sentence, ha="left", color=GRAY, size=8)
    for k, shown in enumerate(support):
        at = size + 1.1 + step * (k % columns), 0.6 + row * (k // columns)
        chosen = known and k == nearest
        if chosen:
            box(ax, (at[0] - 0.05, at[1] - 0.05), (1.1, 1.47), facecolor=to_rgba(BLUE, 0.14), linewidth=0)
        _tile(ax, shown, at=at, frame=BLUE if chosen else RULE, line=2 if chosen else 0.8)
    return ax


def hardest_pairs(
    pairs: Sequence[tuple[Shown, Shown]],
    same: Sequence[bool],
    *,
    threshold: float,
    columns: int = 3,
    ax: Axes | None = None,
) -> Axes:
    """Draw pairs with the decision of the model and the truth.

    Args:
        pairs: Both images; the second one has the distance.
        same: True for pairs that show one class.
        threshold: ``same = distance <= threshold``.
        columns: Number of pairs per row.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If there are no pairs, or not one truth for each.
    """
    if not pairs or len(pairs) != len(same):
        raise DataError(f"expected one truth per pair; got {len(pairs)} pairs and {len(same)} truths")
    columns = min(columns, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    step, row = 2.55, 1.85
    ax = board(0.25 + step * columns, 0.7 + row * rows, inches=0.85, ax=ax)
    words(ax, 0.12, 0.3, f"Hardest pairs (threshold {threshold:.4g})", ha="left", weight="bold", size=10)
    for k, ((left, right), truth) in enumerate(zip(pairs, same)):
        x, y = 0.18 + step * (k % columns), 0.65 + row * (k // columns)
        distance = math.nan if right.distance is None else right.distance
        accepted = distance <= threshold
        color = BLUE if accepted == truth else VERMILLION
        for n, shown in enumerate((left, right)):
            picture(ax, thumbnail(shown.image), at=(x + 1.08 * n, y), size=1.02, frame=color, line=1.2)
        decision, true = ("same" if it else "different" for it in (accepted, truth))
        verdict = f"{decision}, truth {true}" if accepted != truth else f"{decision}, correct"
        words(ax, x, y + 1.19, f"{distance:.3f}: {verdict}", ha="left", size=7.5, color=color)
        names = [short(shown.label, 15) for shown in (left, right) if shown.label is not None]
        if names:
            words(ax, x, y + 1.4, " / ".join(dict.fromkeys(names)), ha="left", size=7, color=GRAY)
    return ax


def worst_mistakes(
    comparisons: Comparisons,
    images: Sequence[ImageSource],
    labels: Sequence[object] | NDArray[Any],
    *,
    threshold: float,
    count: int = 6,
    ax: Axes | None = None,
) -> Axes:
    """Draw the most confident errors of an evaluation, at most two per pair of classes; see `hardest_pairs`.

    Args:
        comparisons: Comparisons with their images.
        images: Images that were compared.
        labels: Class of each image.
        threshold: ``same = distance <= threshold``.
        count: Number of false accepts, and of false rejects.
        ax: Axes to draw on instead of a new figure.

    Raises:
        DataError: If the images of the comparisons are unknown, or there are no errors.
    """
    left, right = comparisons.left_image, comparisons.right_image
    if left is None or right is None:
        raise DataError("the images of these comparisons are not known")
    wrong = mistakes(comparisons, threshold, count=count, each=2)
    rows = np.concatenate([wrong.false_accepts, wrong.false_rejects])
    if not len(rows):
        raise DataError("there is no error to draw")
    pairs = [
        (Shown(images[a], str(labels[a])), Shown(images[b], str(labels[b]), float(distance)))
        for a, b, distance in zip(left[rows], right[rows], comparisons.distance[rows])
    ]
    return hardest_pairs(pairs, comparisons.same[rows].tolist(), threshold=threshold, ax=ax)


def matches(
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    *,
    left_map: NDArray[Any],
    right_map: NDArray[Any],
    links: Sequence[tuple[tuple[int, int], tuple[int, int], float]] = (),
    title: str = "",
    caption: str = "",
    faint: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """Draw why two images match: a map of regions beside each image, and lines between matching regions.

    Blue regions are evidence for "same", orange ones against it; the color scale is relative in each image.

    Args:
        left: Left image, uint8 ``(h, w, channels)``.
        right: Right image, of the same shape.
        left_map: Contribution of each region of the left image, ``(rows, columns)``.
        right_map: Contribution of each region of the right image.
        links: Left region (row, column), right region and weight of each link, strongest first.
        title: Text above the figure.
        caption: Text below the figure.
        faint: Draw pale maps and dotted lines, for weak evidence.
        ax: Axes to draw on instead of a new figure.
    """
    shape = min(4.0, max(0.5, left.shape[1] / left.shape[0]))
    width, height = (4.6, 4.6 / shape) if shape > 1.4 else (2.9 * shape, 2.9)
    gap, side, top = 1.5, 0.15, 0.95
    # Maps are beside the images, or below wide ones. Lines run from map to map.
    across, down = (0.0, height + 0.55) if shape > 1.4 else (width + 0.2, 0.0)
    whole = 2 * (width + across) + gap + 2 * side
    below = wrap(caption, int(9 * whole))
    ax = board(whole, top + height + down + 0.45 + 0.3 * len(below), inches=0.62, ax=ax)
    boxes = []
    for pixels, regions, outer, inner, name in (
        (left, left_map, side, side + across, "A"),
        (right, right_map, whole - side - width, whole - side - width - across, "B"),
    ):
        colors = pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, axis=2)
        picture(ax, colors, at=(outer, top), size=(width, height))
        words(ax, outer + width / 2, top - 0.2, f"image {name}", weight="bold", color=GRAY)
        words(ax, inner + width / 2, top + down - 0.2, f"evidence in {name}", weight="bold")
        tinted = _tinted(colors, (0.3 if faint else 1.0) * regions / max(float(np.abs(regions).max()), 1e-12))
        boxes.append(picture(ax, tinted, at=(inner, top + down), size=(width, height)))
    if title:
        words(ax, side, 0.28, title, ha="left", weight="bold", size=10)
    for n, line in enumerate(below):
        words(ax, side, top + height + down + 0.38 + 0.3 * n, line, ha="left", color=GRAY, size=8)
    heaviest = max((abs(weight) for *_, weight in links), default=1.0)
    for k, (a, b, weight) in enumerate(links, 1):
        start, end = _middle(boxes[0], a, left_map.shape), _middle(boxes[1], b, right_map.shape)
        color, width = INK if weight >= 0 else VERMILLION, 0.6 + 1.6 * abs(weight) / heaviest
        looks = Looks(color=color, linewidth=width, linestyle=":" if faint else "-", alpha=0.85, zorder=5)
        bend = "arc3,rad=-0.12"
        arrow(ax, start, end, arrowstyle="-", connectionstyle=bend, shrinkA=6, shrinkB=6, **looks)
        dot = Looks(markersize=10, color=PAPER, markeredgecolor=color, markeredgewidth=1, zorder=6)
        for spot in (start, end):
            ax.plot(*spot, "o", **dot)
            words(ax, *spot, str(k), size=7, weight="bold", color=color, zorder=7)
    return ax


def _tile(
    ax: Axes, shown: Shown, *, at: tuple[float, float], frame: str, line: float = 1.4, mark: str = ""
) -> None:
    """Draw an image of one unit, with label and distance below."""
    picture(ax, thumbnail(shown.image), at=at, size=1.0, frame=frame, line=line)
    below = []
    if shown.label is not None:
        below.append((mark + short(shown.label, 13 - len(mark)), INK))
    if shown.distance is not None:
        below.append((f"{shown.distance:.3f}", GRAY))
    for n, (line_of_words, color) in enumerate(below):
        words(ax, at[0] + 0.5, at[1] + 1.13 + 0.19 * n, line_of_words, size=7.5, color=color)


def _tinted(pixels: NDArray[np.uint8], regions: NDArray[Any]) -> NDArray[np.uint8]:
    """Return a pale gray image with its regions colored: blue above 0, orange below."""
    height, width = pixels.shape[:2]
    scale = max(1, math.ceil(280 / max(height, width)))
    gray = pixels.mean(axis=2).repeat(scale, axis=0).repeat(scale, axis=1)[..., None]
    rows = np.arange(height * scale) * regions.shape[0] // (height * scale)
    columns = np.arange(width * scale) * regions.shape[1] // (width * scale)
    weight = regions[rows][:, columns][..., None]
    color = np.where(weight >= 0, to_rgba(BLUE)[:3], to_rgba(VERMILLION)[:3]) * 255.0
    strength = 0.8 * np.abs(weight) ** 1.5
    mixed = (60 + 0.76 * gray) * (1 - strength) + (0.35 * gray + 0.65 * color) * strength
    tinted: NDArray[np.uint8] = np.rint(mixed.clip(0, 255)).astype(np.uint8)
    return tinted


def _middle(
    box: tuple[float, float, float, float], cell: tuple[int, int], shape: tuple[int, ...]
) -> tuple[float, float]:
    left, top, width, height = box
    return left + width * (cell[1] + 0.5) / shape[1], top + height * (cell[0] + 0.5) / shape[0]
