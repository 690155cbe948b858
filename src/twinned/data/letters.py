"""Letters of five scripts, drawn with the 16 text typefaces that matplotlib ships.

A class is one shape, and images are cropped to the ink. So A of the Latin, Cyrillic and Greek scripts is one
class, and C and c are another. Such characters are found by comparing the drawn shapes.
"""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from ..errors import DataError
from .datasets import ImageSet
from .sequences import from_images

# Scripts in the order in which they claim a shape, with their blocks of Unicode.
SCRIPTS: dict[str, tuple[range, ...]] = {
    "latin": (range(0x41, 0x5B), range(0x61, 0x7B), range(0xC0, 0x2B0)),
    "greek": (range(0x370, 0x400),),
    "cyrillic": (range(0x400, 0x530),),
    "armenian": (range(0x531, 0x588),),
    "georgian": (range(0x10D0, 0x10FB),),
}
_UPRIGHT = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
_FACES = (
    *_UPRIGHT,
    *(f"{sans}-{style}" for sans in _UPRIGHT[:2] for style in ("Bold", "Oblique", "BoldOblique")),
    *(f"DejaVuSerif-{style}" for style in ("Bold", "Italic", "BoldItalic")),
    *(f"STIXGeneral{style}" for style in ("Bol", "Italic", "BolIta")),
)
_FEWEST = 10  # faces of a class
_EM = 96  # pixels of the drawn letters
_SIDE = 24  # pixels of the shapes that are compared
# Cosine similarity of two blurred shapes from which they are one class: on average over the upright faces;
# for a capital and its small letter, where the strokes differ in width; and in one face.
_ONE_SHAPE, _ONE_LETTER, _ONE_IMAGE = 0.93, 0.86, 0.97


def load_letters(
    scripts: Sequence[str] = ("latin", "greek", "cyrillic"), *, size: int = 64, seed: int = 0
) -> ImageSet:
    """Draw letters with the typefaces DejaVu and STIX, one image per letter and typeface.

    Each image is slightly turned (up to 6 degrees), sheared, scaled and shifted at random. Letters with
    accents are left out. A shape that several scripts share belongs to the first of Latin, Greek, Cyrillic,
    Armenian and Georgian, so sets of different scripts have no class in common.

    Args:
        scripts: Any of latin, greek, cyrillic, armenian, georgian.
        size: Height and width of the images in pixels, at least 16.
        seed: Seed of the random distortions.

    Returns:
        Gray uint8 images, dark on white, with 10 to 16 of each class. Labels are names such as
        ``latin-small-b``, groups are the scripts.

    Raises:
        DataError: If a script is unknown or the size is too small.

    Example:
        >>> letters = load_letters(["armenian"], size=32)
        >>> letters.images[0].shape, letters.classes[0]
        ((32, 32), 'armenian-capital-ayb')
    """
    unknown = [script for script in scripts if script not in SCRIPTS]
    if unknown or not scripts:
        raise DataError(f"Unknown script {', '.join(unknown) or '(none)'}. Choose from {', '.join(SCRIPTS)}.")
    if size < 16:
        raise DataError(f"The size must be at least 16 pixels; got {size}.")
    places = list(SCRIPTS)
    last = max(places.index(script) for script in scripts)
    characters = {char: script for script in places[: last + 1] for char in _characters(script)}
    inks = _draw(list(characters))
    random = np.random.default_rng(seed)
    images, labels, groups = [], [], []
    for char, faces in zip(characters, _distinct(list(characters), inks), strict=True):
        name = unicodedata.name(char).lower().replace(" letter", "").replace(" ", "-")
        for face in faces:
            image = _distort(inks[face][char], size, random.uniform(-1, 1, 7))
            if characters[char] in scripts:
                images.append(image)
                labels.append(name)
                groups.append(characters[char])
    return replace(from_images(images, labels, groups), origin="letters")


def _characters(script: str) -> list[str]:
    """Return the letters of a script without accents, in the order of Unicode."""
    return [
        char
        for char in map(chr, itertools.chain(*SCRIPTS[script]))
        if unicodedata.category(char) in ("Lu", "Ll", "Lo")
        and not unicodedata.decomposition(char)
        and " WITH " not in unicodedata.name(char)
    ]


def _draw(characters: list[str]) -> list[dict[str, Image.Image]]:
    """Draw each character in each face that has it, white on black, cropped to the ink."""
    from matplotlib import ft2font, get_data_path

    folder = Path(get_data_path()) / "fonts" / "ttf"
    faces = []
    for name in _FACES:
        path = str(folder / f"{name}.ttf")
        included, font = ft2font.FT2Font(path).get_charmap(), ImageFont.truetype(path, _EM)
        drawn = {}
        for char in characters:
            if ord(char) in included:
                left, top, right, bottom = (int(edge) for edge in font.getbbox(char))
                canvas = Image.new("L", (right - left, bottom - top))
                ImageDraw.Draw(canvas).text((-left, -top), char, font=font, fill=255)
                if (box := canvas.getbbox()) is not None:
                    drawn[char] = canvas.crop(box)
        faces.append(drawn)
    return faces


def _distinct(characters: list[str], inks: list[dict[str, Image.Image]]) -> list[list[int]]:
    """Return the faces of each character in which its shape is not that of an earlier one.

    There are none if its upright faces look like an earlier character, or if fewer than 10 faces remain.
    """
    shapes = np.zeros((len(inks), len(characters), _SIDE * _SIDE), np.float32)
    for face, drawn in enumerate(inks):
        for place, char in enumerate(characters):
            if char in drawn:
                shapes[face, place] = _shape(drawn[char])
    has = shapes.max(axis=2) > 0
    alike = np.einsum("fid,fjd->fij", shapes, shapes, optimize=True)
    common = has[: len(_UPRIGHT), :, None] & has[: len(_UPRIGHT), None]
    mean = alike[: len(_UPRIGHT)].sum(axis=0) / np.maximum(common.sum(axis=0), 1)
    kept: list[int] = []
    result: list[list[int]] = []
    for place, char in enumerate(characters):
        limits = [_ONE_LETTER if characters[k].swapcase() == char else _ONE_SHAPE for k in kept]
        faces: list[int] = []
        if not (mean[place, kept] > limits).any():
            clear = alike[:, place, kept].max(axis=1, initial=0) < _ONE_IMAGE
            faces = np.flatnonzero(clear & has[:, place]).tolist()
        if len(faces) >= _FEWEST:
            kept.append(place)
        result.append(faces if len(faces) >= _FEWEST else [])
    return result


def _shape(ink: Image.Image) -> NDArray[Any]:
    """Return a blurred thumbnail of the ink as a unit vector."""
    scale = (_SIDE - 4) / max(ink.size)
    small = ink.resize([max(1, round(side * scale)) for side in ink.size], Image.Resampling.BOX)
    canvas = Image.new("L", (_SIDE, _SIDE))
    canvas.paste(small, ((_SIDE - small.width) // 2, (_SIDE - small.height) // 2))
    values = np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.7)), np.float32).ravel()
    return values / np.linalg.norm(values)


def _distort(ink: Image.Image, size: int, random: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Draw a letter, white on black, in a square of ``size`` pixels, dark on white.

    The random numbers, in [-1, 1], are a turn, two shears, two scales and two shifts.
    """
    turn, shears, scales, shifts = np.radians(6) * random[0], random[1:3], random[3:5], random[5:7]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    stretch = np.array([[1.1 ** scales[0], 0.1 * shears[0]], [0.1 * shears[1], 1.1 ** scales[1]]])
    # From the square of twice the size, which is then reduced, to the ink.
    matrix = rotation @ stretch * (max(ink.size) / (1.44 * size))
    start = np.array(ink.size) / 2 - matrix @ (size + 0.08 * size * shifts)
    rows = np.column_stack([matrix, start]).ravel().tolist()
    drawn = ink.transform((2 * size, 2 * size), Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
    return 255 - np.asarray(drawn.resize((size, size), Image.Resampling.BOX))
