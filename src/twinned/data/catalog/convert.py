"""What has to be done with a data set's files before they can be read as class folders or as a CSV."""

from __future__ import annotations

import csv
import gzip
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import DataError, MissingExtra
from ..datasets import ImageSet

# Fashion-MNIST's classes, by number.
CLOTHES = (
    *("T-shirt", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_PARTS = (("train", 60000), ("t10k", 10000))
# Of the digits: trained on. The others are never seen in training.
KNOWN_DIGITS = ("0", "1", "2", "3", "4", "5", "7")


def digits() -> ImageSet:
    """The 1,797 handwritten digits of 8x8 pixels that scikit-learn ships, as arrays; no network is needed."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise MissingExtra("all", "the digits of scikit-learn") from None
    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    nothing = np.full(len(pixels), "")
    forgery = np.zeros(len(pixels), np.bool_)
    return ImageSet(list(pixels), bunch.target.astype(str), nothing, forgery, nothing, "digits")


def write_digits(folder: Path) -> None:
    """`digits` as PNG files, known and novel ones apart: ``known/0/0000.png``, ``novel/6/0006.png``."""
    images = digits()
    for place, (pixels, label) in enumerate(zip(images.images, images.labels, strict=True)):
        side = folder / ("known" if label in KNOWN_DIGITS else "novel") / str(label)
        side.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)).save(side / f"{place:04d}.png")


def list_signatures(folder: Path) -> None:
    """CEDAR: a list that says which writer each file shows, and which are forgeries."""
    with (folder / "images.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "role"])
        for kind, role in (("full_org", "genuine"), ("full_forg", "forgery")):
            files = [(path.stem.split("_"), path.name) for path in (folder / kind).glob("*.png")]
            for words, name in sorted(files, key=lambda file: (int(file[0][1]), int(file[0][2]))):
                rows.writerow([f"{kind}/{name}", f"writer{int(words[1]):02d}", role])


def clothes(folder: Path) -> None:
    """Fashion-MNIST: its arrays as one PNG an image, in class folders."""
    for part, count in _PARTS:
        images = _idx(folder / "idx", f"{part}-images-idx3-ubyte", (count, 28, 28))
        labels = _idx(folder / "idx", f"{part}-labels-idx1-ubyte", (count,))
        for number, name in enumerate(CLOTHES):
            (folder / name).mkdir(exist_ok=True)
            for place in np.flatnonzero(labels == number):
                Image.fromarray(images[place]).save(
                    folder / name / f"{part}-{place:05d}.png", compress_level=1
                )
    shutil.rmtree(folder / "idx")


def _idx(folder: Path, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """An array of bytes in Yann LeCun's IDX format, gzipped or not, which must have this shape."""
    path = next((p for p in (folder / f"{name}.gz", folder / name) if p.is_file()), None)
    if path is None:
        raise DataError(f"{name}: is missing; Fashion-MNIST is four files, images and labels of two parts")
    header, values = 4 + 4 * len(shape), int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(header + values + 1)  # no more is ever set aside for it
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name}: is damaged ({error})") from None
    expected = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
    if content[:header] != expected or len(content) != header + values:
        raise DataError(f"{path.name}: is no IDX file of {'x'.join(map(str, shape))} bytes")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
