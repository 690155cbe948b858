"""The house style, and the one place that imports matplotlib.

Figures are made without pyplot: nothing global is touched, so pictures can be drawn in any thread. Colours
are Okabe and Ito's, told apart by colour-blind readers; where two meet they also differ in line or marker, so
that a grey print still reads.

References:
    Okabe & Ito, "Color Universal Design", 2008.
    Tol, "Colour schemes", 2021.
"""

from __future__ import annotations

import io
import os
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Polygon, Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from ..data.images import ImageSource, open_image
from ..errors import SettingError
from ..utils.files import refuse

__all__ = [
    "BLUE",
    "CYCLE",
    "GREEN",
    "GREY",
    "INK",
    "MARKERS",
    "ORANGE",
    "PAPER",
    "PURPLE",
    "RULE",
    "SKY",
    "VERMILLION",
    "Axes",
    "ConstrainedLayoutEngine",
    "FancyArrowPatch",
    "FancyBboxPatch",
    "Figure",
    "FuncFormatter",
    "MaxNLocator",
    "NullLocator",
    "Polygon",
    "Rectangle",
    "board",
    "dress",
    "halo",
    "legend",
    "picture",
    "plain",
    "png",
    "ramp",
    "save",
    "sheet",
    "short",
    "svg",
    "target",
    "text_width",
    "thumbnail",
    "to_rgba",
    "words",
]

INK, GREY, RULE, PAPER = "#1a2029", "#66707c", "#d3d9e0", "#ffffff"
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
# Three of Tol's follow Okabe and Ito's, so that ten classes, such as the digits, have a colour each.
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK, "#882255", "#8a8a1e", "#a5744a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_TEXT = 9.0  # points; nothing is set below 7


def plain(width: float = 5.0, height: float = 3.6) -> Axes:
    """Axes of a new figure, so many inches wide and high."""
    axes: Axes = sheet(width, height).add_subplot()
    return axes


def sheet(width: float, height: float) -> Figure:
    """A new figure, so many inches wide and high, that lays itself out with a margin all around."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def board(width: float, height: float, *, inches: float, ax: Axes | None = None) -> Axes:
    """Axes without scales, in units of one's own, y downwards: to lay pictures and boxes out on.

    Args:
        width: In those units.
        height: In those units.
        inches: Size of a unit in a new figure.
        ax: Where to lay it out instead of a new figure.
    """
    if ax is None:
        figure = Figure(figsize=(width * inches, height * inches))
        ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.set_axis_off()
    return ax


def dress(
    ax: Axes, *, title: str = "", x: str = "", y: str = "", grid: Literal["both", "x", "y", ""] = "both"
) -> Axes:
    """Put axes in house style: a title on the left, two spines, a light grid."""
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=8)
    ax.set_xlabel(x, fontsize=_TEXT, color=INK)
    ax.set_ylabel(y, fontsize=_TEXT, color=INK)
    ax.tick_params(which="both", labelsize=8, colors=GREY, labelcolor=INK, width=0.6, length=3)
    ax.tick_params(which="minor", length=0)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=GREY, linewidth=0.6)
    if grid:
        ax.grid(axis=grid, color=RULE, linewidth=0.5)
    ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, **place: Any) -> None:
    """A legend in small print, its words taken as they are (``$`` is no formula)."""
    box = ax.legend(
        fontsize=8,
        labelcolor=INK,
        handlelength=1.8,
        borderaxespad=0.6,
        facecolor=PAPER,
        edgecolor="none",
        framealpha=0.85,
        **place,
    )
    for text in box.get_texts():
        text.set_parse_math(False)


def halo(color: str = PAPER, width: float = 2.5) -> list[Any]:
    """Path effects that keep words legible on a picture."""
    return [patheffects.withStroke(linewidth=width, foreground=color)]


def words(ax: Axes, x: float, y: float, text: str, *, size: float = 8.5, **style: Any) -> None:
    """Words on a board, centred unless told otherwise, taken as they are (``$`` is no formula)."""
    ax.text(
        x, y, text, fontsize=size, va="center", parse_math=False, **{"ha": "center", "color": INK} | style
    )


def ramp(*colors: Any) -> LinearSegmentedColormap:
    """A colour map through these colours."""
    return LinearSegmentedColormap.from_list("ramp", [to_rgba(color) for color in colors])


def short(words: object, most: int = 24) -> str:
    """A name as it can be drawn: on one line, its middle left out where it is long."""
    line = "".join(c if c.isprintable() else " " for c in str(words)).strip()
    return line if len(line) <= most else f"{line[: most // 2]}…{line[len(line) - (most - most // 2 - 1) :]}"


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Measure a line of text in the pictures' font, in points."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return width


def thumbnail(source: ImageSource, size: int = 160) -> NDArray[np.uint8]:
    """An image as RGB, uint8 ``(h, w, 3)``, no side longer than ``size``.

    Raises:
        ImageError: If it cannot be opened.
    """
    image = open_image(source, at_least=(size, size)).convert("RGB")
    image.thumbnail((size, size))
    return np.asarray(image)


def picture(
    ax: Axes,
    image: NDArray[Any],
    *,
    at: tuple[float, float],
    size: float | tuple[float, float],
    frame: str = RULE,
    line: float = 0.8,
) -> tuple[float, float, float, float]:
    """Lay an image on a board, centred in a box, its shape kept, with a frame.

    Args:
        ax: Where.
        image: Grey ``(h, w)`` or colour ``(h, w, 3 or 4)``.
        at: Left and upper edge of the box.
        size: Width and height of the box, or one number for both.
        frame: Its colour.
        line: Width of the frame's line, in points.

    Returns:
        Left, top, width and height of the image itself.
    """
    box = size if isinstance(size, tuple) else (size, size)
    scale = min(box[0] / image.shape[1], box[1] / image.shape[0])
    width, height = image.shape[1] * scale, image.shape[0] * scale
    left, top = at[0] + (box[0] - width) / 2, at[1] + (box[1] - height) / 2
    limits = ax.get_xlim(), ax.get_ylim()
    upwards = limits[1][0] < limits[1][1]
    ax.imshow(
        image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2),
        extent=(left, left + width, top + height, top),
        origin="lower" if upwards else "upper",
        interpolation="nearest" if max(image.shape[:2]) < 100 else "antialiased",
        zorder=3,
    )
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=frame, linewidth=line, zorder=4))
    return left, top, width, height


# ---- files


def target(
    path: str | os.PathLike[str], *, force: bool = False, data: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """The path, once a picture may be written there; ask before long work.

    Args:
        path: The file, .png or .svg.
        force: Whether it may replace what is there.
        data: Files and folders that were given to be read: nothing is written into them.

    Raises:
        SettingError: If it is no .png or .svg, or must not be written (see `twinned.utils.files.refuse`).
    """
    file = Path(path)
    if file.suffix.lower() not in (".png", ".svg"):
        raise SettingError(f"{file}: a picture is written as .png or .svg; name the file so")
    refuse(file, force=force, data=data)
    return file


def save(
    drawn: Axes | Sequence[Axes], path: str | os.PathLike[str], *, force: bool = False, dpi: int = 200
) -> None:
    """Write a picture to a .png or .svg file, whole or not at all.

    Args:
        drawn: What a function of this package returned.
        path: The file.
        force: Replace what is there.
        dpi: Dots an inch, for .png.

    Raises:
        SettingError: If the path is no .png or .svg, or exists and ``force`` is not set.
    """
    file = target(path, force=force)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = png(drawn, dpi=dpi) if file.suffix.lower() == ".png" else _render(drawn, "svg", text="path")
    descriptor, new = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(content)
        os.chmod(new, 0o644)
        os.replace(new, file)
    except BaseException:
        Path(new).unlink(missing_ok=True)
        raise


def png(drawn: Axes | Sequence[Axes], *, dpi: int = 200) -> bytes:
    """A picture as a PNG."""
    return _render(drawn, "png", dpi=dpi)


def svg(drawn: Axes | Sequence[Axes]) -> str:
    """A picture as an SVG whose words stay words, for a page that brings its own font."""
    return _render(drawn, "svg", text="none", transparent=True).decode()


def _render(
    drawn: Axes | Sequence[Axes], kind: str, *, text: str = "path", dpi: int = 200, transparent: bool = False
) -> bytes:
    figure: Any = (drawn if isinstance(drawn, Axes) else drawn[0]).figure
    out = io.BytesIO()
    # The same picture gives the same bytes: no date, no random names. No word in a picture is worth a warning
    # on standard error because the font lacks a letter.
    with (
        matplotlib.rc_context({"svg.fonttype": text, "svg.hashsalt": "twinned"}),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": "Twinned"}
        figure.savefig(
            out,
            format=kind,
            dpi=dpi,
            metadata=metadata,
            facecolor="none" if transparent else PAPER,
            transparent=transparent,
        )
    return out.getvalue()
