"""Ready-made model ``face``: dlib's encoder as a model folder, with thresholds from people of LFW."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..data.faces import models
from ..data.preprocessing import ImageSpec
from ..evaluation.calibration import Calibration
from ..utils.files import place
from ..utils.notes import Note
from . import model_folder
from .model_card import card
from .model_folder import Manifest

DISTANCE = "euclidean"
EMBEDDING_SIZE = 128
_HEIGHT, _WIDTH = models.SIDE
SPEC = ImageSpec(height=_HEIGHT, width=_WIDTH, faces="largest", mean=models.MEAN, std=models.STD)
# The network, and how it is trained further; the options of `twinned.training.sections`.
RECIPE: dict[str, Any] = {
    "recipe": "ready-made",
    "input": SPEC.model_dump(exclude={"mean", "std"}),
    "encoder": {"name": "dlib_face", "symmetric": True},
    "comparison": {"distance": DISTANCE, "normalize": False},
    "transfer": {"freeze": "all", "projection": "lda", "shrinkage": 10.0, "n_augmentations": 0},
    "length": {"steps": 0},
}
_FIGURES = "face_figures.json"  # written by benchmarks/faces.py
_NOTES = (
    Note(
        "encoder",
        f"the encoder is dlib's face network by Davis E. King ({models.ENCODER.file}, SHA-256"
        f" {models.ENCODER.sha256[:16]}); the embedding is the mean of those of the face and of its mirror"
        " image",
    ),
    Note(
        "training-data",
        "its author trained it on about 3 million images of 7,485 people, about half of them from the data"
        " sets VGG Face and FaceScrub, and avoided the people of LFW. The people in these images did"
        " not consent",
    ),
    Note(
        "personal-data",
        "the embedding of a face can identify a person, so that it is biometric personal data; keep it no"
        " longer than necessary",
    ),
)


def make_model(folder: str | os.PathLike[str], *, force: bool = False) -> Manifest:
    """Write the model folder of the ready-made model ``face``, completely or not at all.

    Args:
        folder: Model folder to write.
        force: Replace an existing model folder.

    Returns:
        Contents of its model.json.

    Raises:
        MissingExtra: If the extra ``faces`` is not installed.
        ModelError: If a file of the extra is damaged.
        SettingError: If the folder exists and ``force`` is False.
    """
    target = Path(folder)
    model_folder.check_output(target, force=force)
    with tempfile.TemporaryDirectory(prefix="twinned-") as name:
        made = _write(Path(name))
        place(Path(name), target)
    return made


def cached_model() -> Path:
    """Return the model folder of ``face`` in the user's cache, which is written on first use.

    Raises:
        MissingExtra: If the extra ``faces`` is not installed.
        ModelError: If a file of the extra is damaged.
    """
    from .. import __version__

    stamp = [models.ENCODER.sha256, hashlib.sha256(_figures_text().encode()).hexdigest(), __version__]
    return models.cached_folder("face", stamp, _write)


def figures() -> dict[str, Any]:
    """Return the stored figures: ``calibration``, ``held_out``, ``prototype`` and ``notes``."""
    found: dict[str, Any] = json.loads(_figures_text())
    return found


def _figures_text() -> str:
    return files(__package__).joinpath(_FIGURES).read_text(encoding="utf-8")


def _write(folder: Path) -> Manifest:
    from safetensors.numpy import save_file

    from .. import __version__

    stored = figures()
    models.write_encoder(folder / "encoder.onnx")
    weights = {f"encoder.{name}": value for name, value in models.encoder_weights().items()}
    save_file(weights, folder / "weights.safetensors")
    notes = [*_NOTES, *(Note(code, text) for code, text in stored["notes"])]
    manifest = Manifest(
        twinned=__version__,
        origin="wrapped",
        encoder=RECIPE["encoder"]["name"],
        spec=SPEC,
        embedding_size=EMBEDDING_SIZE,
        normalized=False,
        distance=DISTANCE,
        calibration=Calibration(**stored["calibration"]),
        prototype=stored["prototype"],
        held_out=stored["held_out"],
        recipe=RECIPE,
        notes=[note.text for note in notes],
        note_codes=[note.code for note in notes],
        licence=models.LICENSE,
    )
    return model_folder.write(folder, manifest, card=card(manifest))
