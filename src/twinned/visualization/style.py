"""Style shared by all figures, and saving them. Only this module imports matplotlib.

Figures are made without pyplot and its global state, so they can be drawn in any thread. The colors are those
of Okabe and Ito, which color-blind readers can distinguish; curves of one figure also differ in line style or
marker, so that a gray print stays readable.

References:
    Okabe & Ito, "Color Universal Design", 2008.
    Tol, SRON technical note SRON/EPS/TN/09-002, 2021.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes as Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.colors import to_rgba as to_rgba
from matplotlib.figure import Figure as Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine as ConstrainedLayoutEngine
from matplotlib.patches import FancyArrowPatch as FancyArrowPatch
from matplotlib.patches import FancyBboxPatch as FancyBboxPatch
from matplotlib.patches import Polygon as Polygon
from matplotlib.patches import Rectangle as Rectangle
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter as FuncFormatter
from matplotlib.ticker import MaxNLocator as MaxNLocator
from matplotlib.ticker import NullLocator as NullLocator
from numpy.typing import NDArray

from ..data.images import ImageSource, open_image
from ..errors import SettingError
from ..utils.files import check_output, write_bytes

INK, GRAY, RULE, PAPER = "#1a2029", "#66707c", "#d3d9e0", "#ffffff"
BLUE, VERMILLION, GREEN, ORANGE = "#0072b2", "#d55e00", "#009e73", "#e69f00"
PURPLE, SKY = "#cc79a7", "#56b4e9"
# Okabe and Ito's colors and three of Tol's, so that ten classes, such as the digits, have a color each.
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, INK, "#882255", "#8a8a1e", "#a5744a")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_TEXT = 9.0  # points; nothing is set below 7


def plain(width: float = 5.0, height: float = 3.6) -> Axes:
    """Return the axes of a new figure of this size in inches."""
    axes: Axes = sheet(width, height).add_subplot()
    return axes


def sheet(width: float, height: float) -> Figure:
    """Return a new figure of this size in inches, with constrained layout and a margin."""
    return Figure(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))


def board(width: float, height: float, *, inches: float, ax: Axes | None = None) -> Axes:
    """Return axes without ticks, y pointing down, for placing pictures and boxes; ``inches`` is the unit."""
    if ax is None:
        figure = Figure(figsize=(width * inches, height * inches))
        ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    ax.set_axis_off()
    return ax


def dress(
    ax: Axes, *, title: str = "", x: str = "", y: str = "", grid: Literal["both", "x", "y", ""] = "both"
) -> Axes:
    """Style axes: title on the left, two spines, a light grid."""
    ax.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK, pad=8)
    ax.set_xlabel(x, fontsize=_TEXT, color=INK)
    ax.set_ylabel(y, fontsize=_TEXT, color=INK)
    ax.tick_params(which="both", labelsize=8, colors=GRAY, labelcolor=INK, width=0.6, length=3)
    ax.tick_params(which="minor", length=0)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set(color=GRAY, linewidth=0.6)
    if grid:
        ax.grid(axis=grid, color=RULE, linewidth=0.5)
    ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, **place: Any) -> None:
    """Add a legend in small type, without math parsing of ``$``."""
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
    """Return path effects that keep text legible on a picture."""
    return [patheffects.withStroke(linewidth=width, foreground=color)]


def words(ax: Axes, x: float, y: float, text: str, *, size: float = 8.5, **style: Any) -> None:
    """Write text on a board, centered by default, without math parsing of ``$``."""
    ax.text(
        x, y, text, fontsize=size, va="center", parse_math=False, **{"ha": "center", "color": INK} | style
    )


def ramp(*colors: Any) -> LinearSegmentedColormap:
    """Return a color map that interpolates these colors."""
    return LinearSegmentedColormap.from_list("ramp", [to_rgba(color) for color in colors])


def short(words: object, most: int = 24) -> str:
    """Return a name on one line, with its middle replaced by an ellipsis where it is long."""
    line = "".join(c if c.isprintable() else " " for c in str(words)).strip()
    return line if len(line) <= most else f"{line[: most // 2]}…{line[len(line) - (most - most // 2 - 1) :]}"


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of a line of text in the figures' font, in points."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return width


def thumbnail(source: ImageSource, size: int = 160) -> NDArray[np.uint8]:
    """Return an image as RGB, uint8 ``(h, w, 3)``, with no side longer than ``size``.

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
    """Draw an image in a box on a board, centered, with its aspect ratio and a frame.

    Args:
        ax: Axes of the board.
        image: Gray ``(h, w)`` or color ``(h, w, 3 or 4)``.
        at: Left and upper edge of the box.
        size: Width and height of the box, or one number for both.
        frame: Color of the frame.
        line: Line width of the frame, in points.

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
    """Check, before long work, that a figure can be written to a file, and return its path.

    Args:
        path: File to write, .png or .svg.
        force: Overwrite an existing file.
        data: Input files and folders, into which nothing may be written.

    Raises:
        SettingError: If the suffix is not .png or .svg, or the file must not be written
            (see `twinned.utils.files.check_output`).
    """
    file = Path(path)
    if file.suffix.lower() not in (".png", ".svg"):
        raise SettingError(
            f"{file}: pictures are written as .png or .svg. Choose a name with one of these suffixes"
        )
    check_output(file, force=force, data=data)
    return file


def save(
    drawn: Axes | Sequence[Axes], path: str | os.PathLike[str], *, force: bool = False, dpi: int = 200
) -> None:
    """Write a figure to a .png or .svg file, atomically.

    Args:
        drawn: Axes that a function of this package returned.
        path: File to write.
        force: Overwrite an existing file.
        dpi: Resolution of a .png, in dots per inch.

    Raises:
        SettingError: If the suffix is not .png or .svg, or the file exists and ``force`` is not set.
    """
    file = target(path, force=force)
    file.parent.mkdir(parents=True, exist_ok=True)
    content = png(drawn, dpi=dpi) if file.suffix.lower() == ".png" else _render(drawn, "svg", text="path")
    write_bytes(file, content)


def png(drawn: Axes | Sequence[Axes], *, dpi: int = 200) -> bytes:
    """Return a figure as a PNG file."""
    return _render(drawn, "png", dpi=dpi)


def svg(drawn: Axes | Sequence[Axes]) -> str:
    """Return a figure as SVG whose text stays text, for a page with its own font."""
    return _render(drawn, "svg", text="none", transparent=True).decode()


def _render(
    drawn: Axes | Sequence[Axes], kind: str, *, text: str = "path", dpi: int = 200, transparent: bool = False
) -> bytes:
    figure: Any = (drawn if isinstance(drawn, Axes) else drawn[0]).figure
    out = io.BytesIO()
    # No date and no random ids, so that the same figure gives the same bytes. Letters that the font lacks
    # are drawn as boxes, without a warning on standard error.
    with matplotlib.rc_context({"svg.fonttype": text, "svg.hashsalt": "twinned"}), warnings.catch_warnings():
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
