"""Figure of a Siamese network: two branches with output shapes, and the weights they share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from itertools import chain, groupby, pairwise
from typing import Any, NamedTuple, TypeAlias

from ..data.images import ImageSource
from ..errors import SettingError
from .colors import BLUE, GRAY, INK, ORANGE, PAPER, RULE, VERMILLION
from .style import Axes, Looks, arrow, board, bold_width, box, picture, ramp, short, thumbnail, words

Row: TypeAlias = Sequence[Any]
"""A layer, as in `SiameseNetwork.layers`: name, kind, output shape without batch, parameters."""

MOST_STAGES = 12
# Positions in units of the board: the two branches, the weights between them.
_LEFT, _MIDDLE, _RIGHT, _WIDTH, _CARD = 2.95, 6.05, 9.15, 12.1, 4.1
_TOP, _STEP = 1.9, 1.12
_INCHES = 0.58  # size of a unit of the board in a new figure
_BRANCHES = ((_LEFT, -1, "A", BLUE), (_RIGHT, 1, "B", VERMILLION))


class Stage(NamedTuple):
    """Layers that are drawn as one box; ``parameters`` is None if their number is unknown."""

    title: str
    shape: tuple[int, ...]  # of the output: (channels, height, width), or (values,)
    parameters: int | None


def architecture(
    network: Any,
    *,
    image_shape: tuple[int, int, int] | None = None,
    embedding_size: int | None = None,
    distance: str | None = None,
    images: tuple[ImageSource, ImageSource] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a Siamese network: shapes, parameter counts, and two branches with one set of weights.

    Each box in the middle stands for weights that both branches share. A network is drawn in at most a dozen
    boxes.

    Args:
        network: `twinned.SiameseNetwork`, another object with ``layers()``, or rows of name, kind, output
            shape and parameters. A last row named ``head`` is the head.
        image_shape: (height, width, channels) of an image (default: that of the `SiameseNetwork`).
        embedding_size: Number of values of an embedding (default: that of the `SiameseNetwork`).
        distance: Name of the distance (default: that of the `SiameseNetwork`).
        images: Two images to draw as the inputs.
        ax: Axes to draw on instead of a new figure.

    Raises:
        SettingError: If there are no layers.
    """
    rows = list(network.layers() if hasattr(network, "layers") else network)
    encoder: Any = getattr(network, "encoder", None)
    if image_shape is None and hasattr(encoder, "image_size"):
        image_shape = (*encoder.image_size, encoder.channels)
    embedding_size = embedding_size or getattr(network, "embedding_size", None)
    distance = distance or getattr(getattr(network, "head", None), "name", None) or "plain"
    head = rows.pop() if rows and rows[-1][0] == "head" else ("head", "", (), 0)
    stages = summarize(rows)
    if not stages:
        raise SettingError("a network without layers cannot be drawn. Pass rows; see `architecture`")
    flat_size = math.prod(stages[-1].shape)
    if len(stages[-1].shape) != 1 or embedding_size not in (None, flat_size):
        title = "flattened" if embedding_size in (None, flat_size) else "pooled and flattened"
        stages.append(Stage(title, (embedding_size or flat_size,), 0))

    foot = _TOP + _STEP * len(stages)
    ax = board(_WIDTH, foot + 2.75, inches=_INCHES, ax=ax)
    known = [stage.parameters for stage in stages if stage.parameters is not None]
    words(ax, 0.25, 0.42, "A Siamese network", size=11, weight="bold", ha="left")
    count = f"{sum(known) + (head[3] or 0):,} parameters, counted once" if known else "one encoder"
    text = f"{count}: both images pass through the same weights; bars: their shares"
    words(ax, 0.25, 0.82, text, color=GRAY, ha="left")

    shapes = [image_shape and (image_shape[2], *image_shape[:2]), *(stage.shape for stage in stages)]
    heights = [_TOP + _STEP * k for k in range(len(shapes))]
    for x, side, name, color in _BRANCHES:
        reach = []  # half the height of each drawing
        for k, (shape, y) in enumerate(zip(shapes, heights)):
            if k == 0 and images:
                image = thumbnail(images[side > 0])
                picture(ax, image, at=(x - 0.42, y - 0.42), size=0.84, frame=color, line=1.2)
                reach.append(0.42)
            else:
                reach.append(_slab(ax, (x, y), shape, shapes[0] or stages[0].shape, color))
            words(ax, x + side * 0.92, y, _shape(shape), ha="right" if side < 0 else "left", size=8)
        for (above, half), (below, other) in pairwise(zip(heights, reach)):
            arrow(ax, (x, above + half + 0.02), (x, below - other - 0.03))
        words(ax, x, heights[0] - 0.62, f"image {name}", weight="bold", color=color)

    _shared(ax, heights, stages, sum(known))
    name = str(head[1]) if head[3] else f"{distance.replace('_', ' ')} distance"
    _foot(ax, foot, name, head[3] or 0)
    return ax


def summarize(rows: Sequence[Row], most: int = MOST_STAGES) -> list[Stage]:
    """Group layers into at most so many stages.

    Normalization and layers without weights join the layer before them. The layers of a custom block, such
    as a residual block, stay together. If there are too many stages, adjacent ones with the same output shape
    are merged, then those with the same height and width, then the shortest.
    """
    units = _with_their_followers(_units(_steps([(tuple(str(row[0]).split(".")), row) for row in rows])))
    parts = [[unit] for unit in units]
    for start in (0, 1):  # whole shape, then height and width
        if len(parts) > most:
            same_shape = groupby(parts, key=lambda part: tuple(part[-1][-1][2])[start:])
            parts = [list(chain(*same)) for _, same in same_shape]
    while len(parts) > most:
        k = min(range(len(parts) - 1), key=lambda k: sum(map(len, parts[k] + parts[k + 1])))
        parts[k : k + 2] = [parts[k] + parts[k + 1]]
    return [_stage(part) for part in parts]


_Named: TypeAlias = tuple[tuple[str, ...], Row]  # path of a layer, and the layer


def _steps(rows: list[_Named]) -> list[_Named]:
    """Drop submodules without weights, such as the padding of a layer."""
    heavy = {path[:end] for path, row in rows if row[3] != 0 for end in range(1, len(path))}
    layers = {path for path, _ in rows} - heavy
    return [(path, row) for path, row in rows if not any(path[:end] in layers for end in range(1, len(path)))]


def _units(rows: list[_Named]) -> list[list[_Named]]:
    """Split layers into units: custom blocks as one unit, sequences layer by layer."""

    def unit(named: _Named) -> tuple[str, ...]:
        path = named[0]
        end = next((k for k in range(1, len(path)) if not path[k].isdigit()), len(path))
        return path[:end]

    found: list[list[_Named]] = []
    for key, group in groupby(rows, key=unit):
        part = list(group)
        inside = [(path[len(key) :] or path, row) for path, row in part]
        # A part that contains further blocks only wraps them.
        wraps = len(part) > 1 and any(len(list(g)) > 1 for _, g in groupby(inside, key=unit))
        found += _units(inside) if wraps and len(key) < min(len(path) for path, _ in part) else [part]
    return found


def _with_their_followers(units: list[list[_Named]]) -> list[list[Row]]:
    found: list[list[Row]] = []
    for unit in units:
        rows = [row for _, row in unit]
        starts = len(rows) > 1 or any(row[3] is None or (row[3] and "Norm" not in row[1]) for row in rows)
        if starts or not found:
            found.append([])
        found[-1] += rows
    return found


def _stage(units: list[list[Row]]) -> Stage:
    shape, counts = tuple(units[-1][-1][2]), [row[3] for unit in units for row in unit]
    names = [_parts(unit) for unit in units]
    titles = {_counted(parts) if len(parts) > 4 else " · ".join(name for name, _ in parts) for parts in names}
    title = titles.pop()
    if titles:
        title = _counted(list(chain(*names)))
    else:
        alike = len({unit[-1][2][0] for unit in units}) == 1  # same number of output channels
        channels = f", {shape[0]}" if title == _MBCONV and alike else ""
        if len(units) > 1:
            title = f"({title}) ×{len(units)}" if " " in title else f"{title} ×{len(units)}"
        title += channels
    return Stage(title, shape, None if None in counts else sum(counts))


_MBCONV = "MBConv"  # inverted bottleneck: expansion, depthwise convolution, projection


def _parts(unit: list[Row]) -> list[tuple[str, bool]]:
    """List the short names of the layers of a unit, each with a flag: has weights."""
    # Name of the depthwise convolution in the efficientnet packages.
    if any(part == "_depthwise_conv" for row in unit for part in str(row[0]).split(".")):
        return [(_MBCONV, True)]
    return [(re.sub(r"[123]d.*$", "", str(row[1])), bool(row[3])) for row in unit]


def _counted(parts: list[tuple[str, bool]]) -> str:
    """Name the three most frequent parts, preferring those with weights."""
    counts = Counter(name for name, weighs in parts if weighs) or Counter(name for name, _ in parts)
    return " · ".join(f"{count} {name}" if count > 1 else name for name, count in counts.most_common(3))


def _shape(shape: tuple[int, ...] | None) -> str:
    """Format a shape as height x width x channels."""
    if not shape:
        return ""
    return f"{shape[0]:,} values" if len(shape) == 1 else " × ".join(map(str, (*shape[1:], shape[0])))


def _slab(
    ax: Axes, at: tuple[float, float], shape: tuple[int, ...] | None, first: tuple[int, ...], color: str
) -> float:
    """Draw feature maps as a block, with logarithmic sides and depth, or an embedding as a row of cells.

    Returns half the height of the drawing.
    """
    x, y = at
    tint = ramp(PAPER, color)
    if shape is None or len(shape) == 1:
        width, cells = 1.25 if shape is None else 0.35 + 0.09 * math.log2(shape[0]), 12
        for k in range(cells):
            shade = tint(0.25 + 0.6 * ((k * 7) % cells) / cells)
            box(ax, (x - width / 2 + k * width / cells, y - 0.13), (width / cells, 0.26), color=shade)
        box(ax, (x - width / 2, y - 0.13), (width, 0.26), fill=False, edgecolor=color, linewidth=1)
        return 0.13
    channels, height, width = shape if len(shape) == 3 else (shape[-1], shape[0], 1)
    larger = max(height, width)
    longest = max(2, *first[1:]) if len(first) == 3 else 2
    scale = 0.72 * (0.25 + 0.75 * math.log(max(2, larger)) / math.log(max(longest, larger)))
    tall, wide = (max(scale * size / larger, 0.16) for size in (height, width))
    depth = 0.045 * math.log2(channels + 1)
    rise = 0.6 * depth
    left, top = x - (wide + depth) / 2, y - (tall - rise) / 2
    right, bottom = left + wide, top + tall
    edge = Looks(edgecolor=color, linewidth=0.9, joinstyle="round")
    for x0, y0, x1, y1, strength in ((left, top, right, top, 0.2), (right, top, right, bottom, 0.5)):
        corners = (x0, x0 + depth, x1 + depth, x1), (y0, y0 - rise, y1 - rise, y1)
        ax.fill(*corners, facecolor=tint(strength), **edge)
    box(ax, (left, top), (wide, tall), facecolor=tint(0.32), **edge)
    return (tall + rise) / 2


def _shared(ax: Axes, heights: list[float], stages: list[Stage], total: int) -> None:
    """Draw the shared weights: one card per stage, connected to both branches."""
    top, left = heights[0] - 0.1, _MIDDLE - _CARD / 2
    panel = Looks(facecolor="#f4f6f8", edgecolor=RULE, linewidth=0.8, zorder=0)
    box(ax, (left - 0.18, top), (_CARD + 0.36, heights[-1] + 0.05 - top), radius=0.16, **panel)
    words(ax, _MIDDLE, top - 0.24, "one encoder, one set of weights", weight="bold")
    for stage, (above, below) in zip(stages, pairwise(heights)):
        y = (above + below) / 2
        for x in (_LEFT, _RIGHT):
            ax.plot([x, _MIDDLE], [y, y], color=ORANGE, linewidth=1.1, zorder=0.5)
            ax.plot([x], [y], "o", color=ORANGE, markersize=3.6, zorder=2)
        edge = ORANGE if stage.parameters != 0 else RULE
        _card(ax, y, 0.35, PAPER, edge)
        length = (_CARD - 0.3) * (stage.parameters or 0) / max(total, 1)  # share of all parameters
        if length > 0.06:
            box(ax, (left + 0.15, y + 0.25), (length, 0.045), color=ORANGE, linewidth=0, zorder=3)
        _title(ax, y - 0.13, stage.title, size=8, color=INK)
        words(ax, _MIDDLE, y + 0.11, _count(stage.parameters), color=GRAY, size=7.5, zorder=3)


def _foot(ax: Axes, foot: float, name: str, parameters: int) -> None:
    """Draw the head, which compares both embeddings."""
    y, bend = foot + 1.0, "angle,angleA=90,angleB=0,rad=6"
    for x, side, branch, _ in _BRANCHES:
        words(ax, x, foot + 0.34, f"embedding {branch}", size=8, color=GRAY)
        end = _MIDDLE + side * _CARD / 2, y
        arrow(ax, (x, foot + 0.55), end, connectionstyle=bend, linewidth=1.1)
    _card(ax, y, 0.38, INK, INK)
    _title(ax, y - 0.12, name, size=8.5, color=PAPER)
    words(ax, _MIDDLE, y + 0.14, _count(parameters), color="#c9d0d8", size=7.5, zorder=3)
    arrow(ax, (_MIDDLE, y + 0.38), (_MIDDLE, y + 0.98), linewidth=1.1)
    words(ax, _MIDDLE, y + 1.22, "one distance; within the threshold: same", size=8.5)


def _card(ax: Axes, y: float, half: float, face: str, edge: str) -> None:
    at, size = (_MIDDLE - _CARD / 2, y - half), (_CARD, 2 * half)
    box(ax, at, size, radius=0.09, facecolor=face, edgecolor=edge, linewidth=1, zorder=2)


def _title(ax: Axes, y: float, text: str, *, size: float, color: str) -> None:
    """Write the title of a card, shortened to the width of the card."""
    text, most = short(text, 80), (_CARD - 0.3) * _INCHES * 72
    while bold_width(text, size) > most:
        text = short(text, len(text) - 1 - text.count("…"))
    words(ax, _MIDDLE, y, text, weight="bold", size=size, color=color, zorder=3)


def _count(parameters: int | None) -> str:
    known = f"{parameters:,} parameters" if parameters else "no parameters"
    return "parameters not recorded" if parameters is None else known
