"""Conversion of the files of public data sets to class folders or a CSV."""

from __future__ import annotations

import csv
import gzip
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import DataError, MissingExtra
from ..datasets import ImageSet
from ..letters import load_letters

# Class names of Fashion-MNIST, by label.
CLOTHES = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_PARTS = (("train", 60000), ("t10k", 10000))
# Training classes of the digits; the others stay unseen.
KNOWN_DIGITS = ("0", "1", "2", "3", "4", "5", "7")


def load_digits() -> ImageSet:
    """Return the 1,797 handwritten digits (8x8 pixels) included in scikit-learn, as arrays."""
    try:
        from sklearn import datasets
    except ModuleNotFoundError:
        raise MissingExtra("all", "the digits of scikit-learn") from None
    bunch = datasets.load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    empty = np.full(len(pixels), "")
    forgery = np.zeros(len(pixels), np.bool_)
    return ImageSet(list(pixels), bunch.target.astype(str), empty, forgery, empty, "digits")


digits = load_digits  # name in version 0.1


def write_images(
    images: ImageSet,
    folder: Path,
    part: Callable[[str], str] = lambda label: "",
    advance: Callable[[], object] = lambda: None,
) -> None:
    """Write arrays as PNG files in class folders, named by their places, such as 6/0006.png.

    ``part`` is a folder above those of the classes, from the label; ``advance`` is called after each image.
    """
    for place, (pixels, label) in enumerate(zip(images.images, map(str, images.labels), strict=True)):
        class_folder = folder / part(label) / label
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(class_folder / f"{place:04d}.png", compress_level=1)
        advance()


def write_digits(folder: Path) -> None:
    """Write `load_digits` as PNG files in known and novel classes: known/0/0000.png, novel/6/0006.png."""
    write_images(load_digits(), folder, lambda label: "known" if label in KNOWN_DIGITS else "novel")


def write_letters(folder: Path) -> None:
    """Write `load_letters` as PNG files: known (Latin, Greek and Cyrillic), armenian and georgian."""
    write_images(load_letters(), folder / "known")
    for script in ("armenian", "georgian"):
        write_images(load_letters([script]), folder / script)


def list_signatures(folder: Path) -> None:
    """Write images.csv for CEDAR, with the writer and the role of each file."""
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "role"])
        for kind, role in (("full_org", "genuine"), ("full_forg", "forgery")):
            files = [(path.stem.split("_"), path.name) for path in (folder / kind).glob("*.png")]
            for words, name in sorted(files, key=lambda file: (int(file[0][1]), int(file[0][2]))):
                rows.writerow([f"{kind}/{name}", f"writer{int(words[1]):02d}", role])


def clothes(folder: Path) -> None:
    """Write the arrays of Fashion-MNIST as PNG files in class folders."""
    for part, count in _PARTS:
        images = _idx(folder / "idx", f"{part}-images-idx3-ubyte", (count, 28, 28))
        labels = _idx(folder / "idx", f"{part}-labels-idx1-ubyte", (count,))
        for label, name in enumerate(CLOTHES):
            (folder / name).mkdir(exist_ok=True)
            for index in np.flatnonzero(labels == label):
                Image.fromarray(images[index]).save(
                    folder / name / f"{part}-{index:05d}.png", compress_level=1
                )
    shutil.rmtree(folder / "idx")


def _idx(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Read a uint8 array of the given shape in LeCun's IDX format, gzipped or not."""
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise DataError(f"{name}: Missing file. Fashion-MNIST has images and labels of two parts, 4 files.")
    header, values = 4 + 4 * len(shape), int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header + values + 1)  # limits the memory for a file that unpacks to more
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name}: The file is damaged ({error}).") from None
    expected = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    if content[:header] != expected or len(content) != header + values:
        raise DataError(f"{path.name}: Not an IDX file of {'x'.join(map(str, shape))} bytes.")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
