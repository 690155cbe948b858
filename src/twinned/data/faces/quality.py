"""Quality of a face for recognition, in words."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from PIL import Image

from .detector import Face

# Measured on LFW: 95 % of its faces are within the first limits. Beyond the second ones, the model ``face``
# rejects most photographs of the same person (`python benchmarks/faces.py quality`).
_SMALL, _SMALLEST = 50, 13  # pixels of the face
_DARK, _DARKEST = 50.0, 6.0  # mean gray level, 0 to 255
_BLURRED, _MOST_BLURRED = 0.64, 0.79  # blur, 0 to 1; Gaussians of 1.5 % and 5 % of the face
_TURNED = 0.2  # shift of the nose to the side, relative to the distance of the eyes
_SIDE = 64  # pixels of the longer side of the face at which blur is measured
_WINDOW = 9  # pixels of the blur that is added for comparison


class Measures(NamedTuple):
    """Measures of a face from which its quality follows."""

    size: int  # longer side in pixels
    brightness: float  # mean gray level, 0 to 255
    blur: float  # 0 (sharp) to 1
    turn: float  # shift of the nose to the side, relative to the distance of the eyes; 0 from the front


class Quality(NamedTuple):
    """Quality of a face."""

    words: tuple[str, ...]  # faults that lower the accuracy, as in `assess`, or ``sharp``
    refused: str | None  # reason why the face cannot be recognized


def measure(image: Image.Image, face: Face) -> Measures:
    """Measure a face in the upright image in which it was found."""
    box = np.clip(face.box, 0, [*image.size, *image.size]).tolist()
    cut = image.convert("L").crop(box)
    size = max(1, *cut.size)
    scale = min(1.0, _SIDE / size)
    gray = np.asarray(cut.resize([max(_WINDOW + 2, round(side * scale)) for side in cut.size]), np.float32)
    left, right = face.landmarks[:2].mean(axis=0), face.landmarks[2:4].mean(axis=0)
    across = right - left
    nose = float((face.landmarks[4] - left) @ across / max(across @ across, 1e-9))
    return Measures(size, float(gray.mean()), max(_blur(gray), _blur(gray.T)), abs(nose - 0.5))


def assess(image: Image.Image, face: Face) -> Quality:
    """Assess a face by its size, brightness, sharpness and direction."""
    found = measure(image, face)
    reason = None
    if found.size < _SMALLEST:
        reason = f"the face has {found.size} pixels; at least {_SMALLEST} are needed"
    elif found.brightness < _DARKEST:
        reason = "the face is too dark to be recognized"
    elif found.blur > _MOST_BLURRED:
        reason = "the face is too blurred to be recognized"
    words = {
        "no face found": face.score == 0,
        "small": found.size < _SMALL,
        "dark": found.brightness < _DARK,
        "blurred": found.blur > _BLURRED,
        "turned": found.turn > _TURNED,
    }
    return Quality(tuple(word for word, true in words.items() if true) or ("sharp",), reason)


def _blur(gray: NDArray[np.float32]) -> float:
    """Return the blur along the rows: the fraction of the variation that remains after another blur.

    Source: Crete et al., The blur effect, Human Vision and Electronic Imaging XII, 2007.
    """
    smooth = sliding_window_view(gray, _WINDOW, axis=1).mean(axis=-1)
    before = np.abs(np.diff(gray[:, _WINDOW // 2 : -(_WINDOW // 2)], axis=1))
    lost = np.maximum(0, before - np.abs(np.diff(smooth, axis=1)))
    return 1 - float(lost.sum()) / max(float(before.sum()), 1e-9)
