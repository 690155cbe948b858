"""Ready-made model ``face``: dlib's encoder as a model folder, with thresholds from people of LFW."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..data.faces import models
from ..data.preprocessing import ImageSpec
from ..evaluation.calibration import Calibration
from ..utils.notes import Note
from . import model_folder
from .model_folder import Manifest
from .ready_made import READY_MADE

_HEIGHT, _WIDTH = models.SIDE
SPEC = ImageSpec(height=_HEIGHT, width=_WIDTH, faces="largest", mean=models.MEAN, std=models.STD)
# The network, and how it is trained further; the options of `twinned.training.config`.
RECIPE: dict[str, Any] = {
    "recipe": "face",
    "input": SPEC.model_dump(exclude={"mean", "std"}),
    "encoder": {"name": "dlib_face", "symmetric": True},
    "comparison": {"distance": "euclidean", "normalize": False},
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
        "personal-data",
        "the embedding of a face can identify a person, so that it is biometric personal data; keep it no"
        " longer than necessary",
    ),
)


def stamp() -> list[str]:
    """Return what the model folder depends on: version, and the SHA-256 of weights and figures."""
    return [models.VERSION, models.ENCODER.sha256, hashlib.sha256(_figures().encode()).hexdigest()]


def _figures() -> str:
    """Return the JSON of ``calibration``, ``held_out``, ``prototype`` and ``notes``."""
    return files(__package__).joinpath(_FIGURES).read_text(encoding="utf-8")


def write(folder: Path) -> Manifest:
    """Write the model folder, which must not exist, and return the contents of its model.json."""
    from safetensors.numpy import save_file

    folder.mkdir()
    stored = json.loads(_figures())
    models.write_encoder(folder / "encoder.onnx")
    weights = {f"encoder.{name}": value for name, value in models.encoder_weights().items()}
    save_file(weights, folder / "weights.safetensors")
    notes = [*_NOTES, *(Note(code, text) for code, text in stored["notes"])]
    manifest = Manifest(
        origin="wrapped",
        encoder=RECIPE["encoder"]["name"],
        spec=SPEC,
        embedding_size=128,
        normalized=False,
        distance=RECIPE["comparison"]["distance"],
        calibration=Calibration(**stored["calibration"]),
        prototype=stored["prototype"],
        held_out=stored["held_out"],
        data={"description": READY_MADE["face"].training_data},
        recipe=RECIPE,
        licence=READY_MADE["face"].license,
    ).with_notes(notes)
    return model_folder.write(folder, manifest)
