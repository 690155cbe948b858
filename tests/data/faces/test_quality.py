"""Quality of faces, on drawn ones."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from twinned.data.faces.detector import Face
from twinned.data.faces.landmarks import AVERAGE_FACE
from twinned.data.faces.quality import assess


def drawn(side: int = 120, *, turned: float = 0.0, score: float = 1.0) -> tuple[Image.Image, Face]:
    """A pattern with sharp edges in the place of a face; ``turned`` shifts the nose by a part of the eyes."""
    random = np.random.default_rng(0)
    blocks = random.integers(40, 256, (-(-side // 15), -(-side // 15)), dtype=np.uint8)
    image = Image.fromarray(np.kron(blocks, np.ones((15, 15), np.uint8))).convert("RGB")
    canvas = Image.new("RGB", (side + 40, side + 40), "gray")
    canvas.paste(image, (20, 20))
    points = AVERAGE_FACE * side + 20
    points[4, 0] += turned * (points[2:4, 0].mean() - points[:2, 0].mean())
    return canvas, Face((20, 20, 20 + side, 20 + side), score, points)


def test_a_face_without_faults_is_sharp() -> None:
    assert assess(*drawn()) == (("sharp",), None)


def test_faults_are_named() -> None:
    image, face = drawn()
    assert assess(image.point(lambda value: value // 6), face).words == ("dark",)
    assert assess(image.filter(ImageFilter.GaussianBlur(4)), face).words == ("blurred",)
    assert assess(*drawn(45)).words == ("small",)
    assert assess(*drawn(turned=0.35)).words == ("turned",)
    assert assess(*drawn(turned=-0.35, score=0)).words == ("no face found", "turned")


@pytest.mark.parametrize(
    ("side", "change", "reason"),
    [
        (12, lambda image: image, "the face has 12 pixels; at least 13 are needed"),
        (120, lambda image: image.filter(ImageFilter.GaussianBlur(9)), "too blurred"),
        (120, lambda image: image.point(lambda value: value // 50), "too dark"),
    ],
)
def test_a_face_that_cannot_be_recognized_is_refused(side, change, reason) -> None:
    image, face = drawn(side)
    assert reason in (assess(change(image), face).refused or "")
