"""Figure of a Siamese network: two branches with output shapes, and the weights they share."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple, TypeAlias

from ..data.images import ImageSource
from ..errors import SettingError
from .style import (
    BLUE,
    GRAY,
    INK,
    ORANGE,
    PAPER,
    RULE,
    VERMILLION,
    Axes,
    FancyArrowPatch,
    FancyBboxPatch,
    Polygon,
    Rectangle,
    board,
    picture,
    ramp,
    short,
    text_width,
    thumbnail,
    words,
)

Row: TypeAlias = Sequence[Any]
"""A layer, as in `SiameseNetwork.layers`: name, kind, output shape without batch, parameters."""

MOST_STAGES = 12
# Positions in units of the board: the two branches, the weights between them.
_LEFT, _MIDDLE, _RIGHT, _WIDTH, _CARD = 2.95, 6.05, 9.15, 12.1, 4.1
_TOP, _STEP = 1.9, 1.12
_INCHES = 0.58  # size of a unit of the board in a new figure


class Stage(NamedTuple):
    """Layers that are drawn as one box.

    Args:
        title: Short description.
        shape: Output shape: (channels, height, width), or (values,).
        parameters: Number of parameters; None if unknown.
    """

    title: str
    shape: tuple[int, ...]
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
    distance = distance or getattr(getattr(network, "head", None), "name", None)
    head = rows.pop() if rows and rows[-1][0] == "head" else None
    stages = summarize(rows)
    if not stages:
        raise SettingError(
            "a network without layers cannot be drawn. Pass rows of name, kind, shape, parameters"
        )
    flat_size = math.prod(stages[-1].shape)
    if len(stages[-1].shape) != 1 or embedding_size not in (None, flat_size):
        title = "flattened" if embedding_size in (None, flat_size) else "pooled and flattened"
        stages.append(Stage(title, (embedding_size or flat_size,), 0))

    foot = _TOP + _STEP * len(stages)
    ax = board(_WIDTH, foot + 2.75, inches=_INCHES, ax=ax)
    known = [stage.parameters for stage in stages if stage.parameters is not None]
    total = sum(known) + (int(head[3]) if head is not None and head[3] else 0)
    words(ax, 0.25, 0.42, "A Siamese network", size=11, weight="bold", ha="left")
    count = f"{total:,} parameters, counted once" if known else "one encoder"
    words(
        ax,
        0.25,
        0.82,
        f"{count}: both images pass through the same weights; bars: their shares",
        color=GRAY,
        ha="left",
    )

    shapes = [image_shape and (image_shape[2], *image_shape[:2]), *(stage.shape for stage in stages)]
    heights = [_TOP + _STEP * k for k in range(len(shapes))]
    for x, side, color in ((_LEFT, -1, BLUE), (_RIGHT, 1, VERMILLION)):
        image = thumbnail(images[0 if side < 0 else 1]) if images else None
        reach = []  # half the height of each drawing
        for k, (shape, y) in enumerate(zip(shapes, heights)):
            if k == 0 and image is not None:
                picture(ax, image, at=(x - 0.42, y - 0.42), size=0.84, frame=color, line=1.2)
                reach.append(0.42)
            else:
                reach.append(_slab(ax, (x, y), shape, shapes[0] or stages[0].shape, color))
            words(ax, x + side * 0.92, y, _shape(shape), ha="right" if side < 0 else "left", size=8)
        for (above, half), (below, other) in pairwise(zip(heights, reach)):
            _arrow(ax, (x, above + half + 0.02), (x, below - other - 0.03))
        words(ax, x, heights[0] - 0.62, "image A" if side < 0 else "image B", weight="bold", color=color)

    _shared(ax, heights, stages, sum(known))
    _foot(ax, foot, head, distance)
    return ax


def summarize(rows: Sequence[Row], most: int = MOST_STAGES) -> list[Stage]:
    """Group layers into stages.

    Normalization and layers without weights join the layer before them. The layers of a custom block, such
    as a residual block, stay together. If there are too many stages, adjacent ones with the same output shape
    are merged, then those with the same height and width, then the shortest.

    Args:
        rows: Name, kind, output shape, parameters.
        most: Maximum number of stages.

    Example:
        >>> rows = [("0", "Conv2d", (8, 9, 9), 80), ("1", "ReLU", (8, 9, 9), 0), ("2", "Linear", (5,), 3245)]
        >>> [stage.title for stage in summarize(rows)]
        ['Conv · ReLU', 'Linear']
    """
    units = _with_their_followers(_units(_steps([(tuple(str(row[0]).split(".")), row) for row in rows])))
    parts = [[unit] for unit in units]
    for start in (0, 1):  # whole shape, then height and width
        if len(parts) > most:
            parts = [
                [unit for part in same for unit in part]
                for _, same in groupby(parts, key=lambda part: tuple(part[-1][-1][2])[start:])
            ]
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


def _with_their_followers(units: list[list[_Named]]) -> Iterator[list[Row]]:
    waiting: list[Row] = []
    for unit in units:
        rows = [row for _, row in unit]
        weighs = any(row[3] is None or (row[3] and "Norm" not in row[1]) for row in rows)
        if waiting and (weighs or len(rows) > 1):
            yield waiting
            waiting = []
        waiting = waiting + rows
    if waiting:
        yield waiting


def _stage(units: list[list[Row]]) -> Stage:
    rows = [row for unit in units for row in unit]
    shape, unknown = tuple(rows[-1][2]), any(row[3] is None for row in rows)
    titles = [
        _counted(parts) if len(parts) > 4 else " · ".join(name for name, _ in parts)
        for parts in map(_parts, units)
    ]
    title = titles[0]
    if len(set(titles)) == 1:
        if len(titles) > 1:
            title = f"({title}) ×{len(titles)}" if " " in title else f"{title} ×{len(titles)}"
        alike = len({unit[-1][2][0] for unit in units}) == 1  # same number of output channels
        title += f", {shape[0]}" if titles[0] == _MBCONV and alike else ""
    else:
        title = _counted([part for unit in units for part in _parts(unit)])
    return Stage(title, shape, None if unknown else sum(int(row[3]) for row in rows))


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


def _arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **style: Any) -> None:
    looks: dict[str, Any] = {"color": GRAY, "linewidth": 0.9, "zorder": 1} | style
    ax.add_patch(
        FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=7, shrinkA=0, shrinkB=0, **looks)
    )


def _slab(
    ax: Axes, at: tuple[float, float], shape: tuple[int, ...] | None, first: tuple[int, ...], color: str
) -> float:
    """Draw feature maps as a block, with logarithmic sides and depth, or an embedding as a row of cells.

    Returns:
        Half the height of the drawing.
    """
    x, y = at
    tint = ramp(PAPER, color)
    if shape is None or len(shape) == 1:
        width = 1.25 if shape is None else 0.35 + 0.09 * math.log2(shape[0])
        cells = 12
        for k in range(cells):
            shade = tint(0.25 + 0.6 * ((k * 7) % cells) / cells)
            ax.add_patch(
                Rectangle((x - width / 2 + k * width / cells, y - 0.13), width / cells, 0.26, color=shade)
            )
        ax.add_patch(
            Rectangle((x - width / 2, y - 0.13), width, 0.26, fill=False, edgecolor=color, linewidth=1)
        )
        return 0.13
    channels, height, width = shape if len(shape) == 3 else (shape[-1], shape[0], 1)
    longest = max(2, *first[1:]) if len(first) == 3 else 2
    scale = 0.72 * (0.25 + 0.75 * math.log(max(2, height, width)) / math.log(max(longest, height, width)))
    tall, wide = scale * height / max(height, width), scale * width / max(height, width)
    tall, wide = max(tall, 0.16), max(wide, 0.16)
    depth = 0.045 * math.log2(channels + 1)
    left, top = x - (wide + depth) / 2, y - (tall - depth * 0.6) / 2
    right, bottom = left + wide, top + tall
    dx, dy = depth, -0.6 * depth
    edge: dict[str, Any] = {"edgecolor": color, "linewidth": 0.9, "joinstyle": "round"}
    ax.add_patch(
        Polygon(
            [(left, top), (left + dx, top + dy), (right + dx, top + dy), (right, top)],
            facecolor=tint(0.2),
            **edge,
        )
    )
    ax.add_patch(
        Polygon(
            [(right, top), (right + dx, top + dy), (right + dx, bottom + dy), (right, bottom)],
            facecolor=tint(0.5),
            **edge,
        )
    )
    ax.add_patch(Rectangle((left, top), wide, tall, facecolor=tint(0.32), **edge))
    return (tall + 0.6 * depth) / 2


def _shared(ax: Axes, heights: list[float], stages: list[Stage], total: int) -> None:
    """Draw the shared weights: one card per stage, connected to both branches."""
    top, foot = heights[0] - 0.1, heights[-1] + 0.05
    left = _MIDDLE - _CARD / 2
    ax.add_patch(
        FancyBboxPatch(
            (left - 0.18, top),
            _CARD + 0.36,
            foot - top,
            boxstyle="round,pad=0,rounding_size=0.16",
            facecolor="#f4f6f8",
            edgecolor=RULE,
            linewidth=0.8,
            zorder=0,
        )
    )
    words(ax, _MIDDLE, top - 0.24, "one encoder, one set of weights", weight="bold")
    for stage, (above, below) in zip(stages, pairwise(heights)):
        y = (above + below) / 2
        for x in (_LEFT, _RIGHT):
            ax.plot([x, _MIDDLE], [y, y], color=ORANGE, linewidth=1.1, zorder=0.5)
            ax.plot([x], [y], "o", color=ORANGE, markersize=3.6, zorder=2)
        ax.add_patch(
            FancyBboxPatch(
                (left, y - 0.35),
                _CARD,
                0.7,
                boxstyle="round,pad=0,rounding_size=0.09",
                facecolor=PAPER,
                edgecolor=ORANGE if stage.parameters != 0 else RULE,
                linewidth=1,
                zorder=2,
            )
        )
        length = (_CARD - 0.3) * (stage.parameters or 0) / max(total, 1)  # share of all parameters
        if length > 0.06:
            ax.add_patch(
                Rectangle((left + 0.15, y + 0.25), length, 0.045, color=ORANGE, linewidth=0, zorder=3)
            )
        _fitted(ax, y - 0.13, stage.title, size=8, color=INK)
        count = "parameters not recorded" if stage.parameters is None else f"{stage.parameters:,} parameters"
        if stage.parameters == 0:
            count = "no parameters"
        words(ax, _MIDDLE, y + 0.11, count, color=GRAY, size=7.5, zorder=3)


def _fitted(ax: Axes, y: float, text: str, *, size: float, color: str) -> None:
    """Write the bold title of a card, shortened to the width of the card."""
    text, most = short(text, 80), (_CARD - 0.3) * _INCHES * 72
    while text_width(text, size, bold=True) > most:
        text = short(text, len(text) - 1 - text.count("…"))
    words(ax, _MIDDLE, y, text, weight="bold", size=size, color=color, zorder=3)


def _foot(ax: Axes, foot: float, head: Row | None, distance: str | None) -> None:
    """Draw the head, which compares both embeddings."""
    y = foot + 1.0
    for x, side in ((_LEFT, -1), (_RIGHT, 1)):
        words(ax, x, foot + 0.34, f"embedding {'A' if side < 0 else 'B'}", size=8, color=GRAY)
        _arrow(
            ax,
            (x, foot + 0.55),
            (_MIDDLE + side * _CARD / 2, y),
            connectionstyle="angle,angleA=90,angleB=0,rad=6",
            linewidth=1.1,
        )
    ax.add_patch(
        FancyBboxPatch(
            (_MIDDLE - _CARD / 2, y - 0.38),
            _CARD,
            0.76,
            boxstyle="round,pad=0,rounding_size=0.09",
            facecolor=INK,
            edgecolor=INK,
            zorder=2,
        )
    )
    learned = int(head[3]) if head is not None and head[3] else 0
    name = (
        str(head[1])
        if learned and head is not None
        else f"{(distance or 'plain').replace('_', ' ')} distance"
    )
    _fitted(ax, y - 0.12, name, size=8.5, color=PAPER)
    words(
        ax,
        _MIDDLE,
        y + 0.14,
        f"{learned:,} parameters" if learned else "no parameters",
        color="#c9d0d8",
        size=7.5,
        zorder=3,
    )
    _arrow(ax, (_MIDDLE, y + 0.38), (_MIDDLE, y + 0.98), linewidth=1.1)
    words(ax, _MIDDLE, y + 1.22, "one distance; within the threshold: same", size=8.5)
