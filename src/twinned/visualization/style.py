"""Style shared by all figures, and saving them. Only this module imports matplotlib.

Figures are made without pyplot and its global state, so they can be drawn in any thread. Curves of one figure
differ in color and in line style or marker, so that a gray print stays readable.
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes as Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.colors import to_rgba as to_rgba
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from ..data.images import ImageSource, open_image
from ..errors import SettingError
from ..utils.files import check_output, write_bytes
from .colors import GRAY, INK, PAPER, RULE

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DOTTED = (0, (1, 2))  # line style
Drawn: TypeAlias = Axes | Sequence[Axes]
Looks = dict[str, Any]


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
    ax.set_xlabel(x, fontsize=9, color=INK)
    ax.set_ylabel(y, fontsize=9, color=INK)
    ax.tick_params(which="both", labelsize=8, colors=GRAY, labelcolor=INK, width=0.6, length=3)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set(color=GRAY, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis=grid, color=RULE, linewidth=0.5)
    ax.set_axisbelow(True)
    return ax


def legend(ax: Axes, **place: Any) -> None:
    """Add a legend in small type, without math parsing of ``$``."""
    looks = Looks(fontsize=8, labelcolor=INK, facecolor=PAPER, edgecolor="none", framealpha=0.85)
    for text in ax.legend(handlelength=1.8, borderaxespad=0.6, **looks, **place).get_texts():
        text.set_parse_math(False)


def halo(width: float = 2.5) -> list[Any]:
    """Return path effects that keep text legible on a picture."""
    return [patheffects.withStroke(linewidth=width, foreground=PAPER)]


def note(ax: Axes, text: str, at: tuple[float, float], *, offset: tuple[float, float], **looks: Any) -> None:
    """Write small text with a halo, at a position and an offset in points."""
    usual = Looks(fontsize=8, color=GRAY, path_effects=halo())
    ax.annotate(text, at, xytext=offset, textcoords="offset points", **(usual | looks))


def words(ax: Axes, x: float, y: float, text: str, *, size: float = 8.5, **style: Any) -> None:
    """Write text on a board, centered by default, without math parsing of ``$``."""
    ax.text(
        x, y, text, fontsize=size, va="center", parse_math=False, **{"ha": "center", "color": INK} | style
    )


def ramp(*colors: str) -> LinearSegmentedColormap:
    """Return a color map that interpolates these colors."""
    return LinearSegmentedColormap.from_list("ramp", colors)


def short(words: object, most: int = 24) -> str:
    """Return a name on one line, with its middle replaced by an ellipsis where it is long."""
    line = "".join(c if c.isprintable() else " " for c in str(words)).strip()
    return line if len(line) <= most else f"{line[: most // 2]}…{line[len(line) - (most - most // 2 - 1) :]}"


def bold_width(text: str, size: float) -> float:
    """Return the width of a line of bold text in the figures' font, in points."""
    font = FontProperties(size=size, weight="bold")
    width: float = text_to_path.get_text_width_height_descent(text, font, ismath=False)[0]
    return width


def box(
    ax: Axes, at: tuple[float, float], size: tuple[float, float], *, radius: float = 0, **looks: Any
) -> None:
    """Draw a rectangle with this left and upper edge, width and height, and radius of the corners."""
    style = f"round,pad=0,rounding_size={radius}"
    ax.add_patch(
        FancyBboxPatch(at, *size, boxstyle=style, **looks) if radius else Rectangle(at, *size, **looks)
    )


def arrow(ax: Axes, start: tuple[float, float], end: tuple[float, float], **looks: Any) -> None:
    """Draw an arrow."""
    usual = Looks(arrowstyle="-|>", color=GRAY, linewidth=0.9, shrinkA=0, shrinkB=0, zorder=1)
    ax.add_patch(FancyArrowPatch(start, end, mutation_scale=7, **(usual | looks)))


def thumbnail(source: ImageSource, size: int = 160) -> NDArray[np.uint8]:
    """Return an image as RGB, uint8 ``(h, w, 3)``, no side longer than ``size``, or raise `ImageError`."""
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
    """Draw an image ``(h, w)`` or ``(h, w, channels)`` centered in a box, with its aspect ratio and a frame.

    ``at`` is the left and upper edge of the box, ``size`` its width and height, or one number for both.
    Returns left, top, width and height of the image itself.
    """
    outer = size if isinstance(size, tuple) else (size, size)
    scale = min(outer[0] / image.shape[1], outer[1] / image.shape[0])
    width, height = image.shape[1] * scale, image.shape[0] * scale
    left, top = at[0] + (outer[0] - width) / 2, at[1] + (outer[1] - height) / 2
    limits = ax.get_xlim(), ax.get_ylim()
    pixels = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    origin: Literal["lower", "upper"] = "lower" if limits[1][0] < limits[1][1] else "upper"
    smoothing = "nearest" if max(image.shape[:2]) < 100 else "antialiased"
    extent = left, left + width, top + height, top
    ax.imshow(pixels, extent=extent, origin=origin, interpolation=smoothing, zorder=3)
    ax.set(xlim=limits[0], ylim=limits[1])
    box(ax, (left, top), (width, height), fill=False, edgecolor=frame, linewidth=line, zorder=4)
    return left, top, width, height


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
        raise SettingError(f"{file}: pictures are written as .png or .svg. Choose one of these suffixes")
    check_output(file, force=force, data=data)
    return file


def save(drawn: Drawn, path: str | os.PathLike[str], *, force: bool = False, dpi: int = 200) -> None:
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
    write_bytes(file, png(drawn, dpi=dpi) if file.suffix.lower() == ".png" else _render(drawn, "svg"))


def png(drawn: Drawn, *, dpi: int = 200) -> bytes:
    """Return a figure as a PNG file."""
    return _render(drawn, "png", dpi=dpi)


def svg(drawn: Drawn) -> str:
    """Return a figure as SVG whose text stays text, for a page with its own font."""
    return _render(drawn, "svg", text="none", facecolor="none", transparent=True).decode()


def _render(drawn: Drawn, kind: str, *, text: str = "path", **options: Any) -> bytes:
    figure: Any = (drawn if isinstance(drawn, Axes) else drawn[0]).figure
    out = io.BytesIO()
    # No date and no random ids, so that the same figure gives the same bytes. Letters that the font lacks
    # are drawn as boxes, without a warning on standard error.
    with matplotlib.rc_context({"svg.fonttype": text, "svg.hashsalt": "twinned"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": "Twinned"}
        figure.savefig(out, format=kind, metadata=metadata, **({"dpi": 200, "facecolor": PAPER} | options))
    return out.getvalue()
