"""Model folders: read, check and write model.json and the files that it lists; the record of training."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from .. import __version__
from ..data.preprocessing import ImageSpec
from ..errors import ModelError, SettingError
from ..evaluation.calibration import Calibration
from ..utils import files as outputs
from ..utils.files import file_sha256, place, write_text
from ..utils.notes import Note, note

if TYPE_CHECKING:
    from ..evaluation.identification import Enrollment
    from ..metrics.comparisons import Comparisons

Layer = tuple[str, str, tuple[int, ...], int]

FORMAT_VERSION = 2
UNTOUCHED = "untouched.onnx"  # the encoder before training, which training had to beat
# Version 1 has the training configuration as flat settings.
_READABLE = (1, FORMAT_VERSION)
# Settings that had another name or value in version 1.
_OLD_SETTINGS = {"transfer.projection": ("layer", {"learned": "gradient", "solved": "lda"})}
_MAX_JSON_BYTES = 64 * 1024 * 1024
# Beginnings of the threshold warnings in folders of format version 1.
_VERSION_1_WARNINGS = (
    "the threshold is ",
    "the threshold rests ",
    "the threshold was chosen against forgeries",
    "the thresholds for ",
)


class Manifest(BaseModel):
    """The contents of model.json."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_version: int = FORMAT_VERSION
    twinned: str = __version__  # that wrote the folder
    origin: Literal["trained", "finetuned", "wrapped"] = "trained"  # wrapped: from an ONNX file
    encoder: str  # name
    spec: ImageSpec
    embedding_size: int
    normalized: bool  # embeddings have length 1
    distance: str  # name
    head: bool = False  # head.onnx re-ranks and scores
    relations: list[str] = []  # names of those that the head predicts
    # None if the model does not define which images are the same.
    stored_calibration: Calibration | None = Field(alias="calibration")
    prototype: bool = False  # identify by the mean of a label's images instead of the nearest one
    classes: list[str] = []  # of the training
    data: dict[str, Any] = {}  # fingerprint of the training data: counts, and a hash of the images' hashes
    # Figures on the classes held out of training; ``impostors`` is from `harder_impostors`.
    held_out: dict[str, Any] = {}
    recipe: dict[str, Any] = {}  # its name and settings
    notes: list[str] = []  # messages of training and calibration
    note_codes: list[str] = []  # code of each note; empty for notes without one
    licence: str | None = None  # of pretrained weights; the spelling is part of the format
    files: dict[str, str] = {}  # SHA-256 of the folder's other files

    @model_validator(mode="before")
    @classmethod
    def _from_version_1(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Derive the codes of notes and the origin, which format version 1 does not have."""
        if "origin" not in values and values.get("recipe", {}).get("recipe") == "wrap":
            values = values | {"origin": "wrapped"}
        plain = [text.removeprefix("doctor: ") for text in values.get("notes", [])]
        codes = ["threshold-version-1" if text.startswith(_VERSION_1_WARNINGS) else "" for text in plain]
        return {"note_codes": codes, **values}

    def coded_notes(self) -> list[Note]:
        """Return the notes with their codes."""
        codes = self.note_codes + [""] * len(self.notes)
        return [Note(code, text) for code, text in zip(codes, self.notes)]

    def with_notes(self, notes: Sequence[Note]) -> Manifest:
        """Return a manifest with other notes."""
        codes = [note.code for note in notes]
        return self.model_copy(update={"notes": [note.text for note in notes], "note_codes": codes})

    @property
    def calibration(self) -> Calibration:
        """Thresholds and probabilities; raises `SettingError` if the model has none."""
        if self.stored_calibration is None:
            name = self.recipe.get("recipe", "MODEL")
            raise SettingError(
                f"{name} has no threshold, because it does not define which images count as the same. Choose"
                f" one from your images with `twinned calibrate {name} DATA -o mine.twin`, or train a model"
                " with `twinned train DATA -o mine.twin`"
            )
        return self.stored_calibration

    @property
    def threshold(self) -> float | None:
        """Stored threshold; None if the model has none."""
        return None if self.stored_calibration is None else self.stored_calibration.threshold

    @property
    def chosen_on(self) -> tuple[bool | None, str]:
        """True if training did not see the classes of the threshold, None for unknown; and words for it."""
        if not self.calibration.unseen_classes:
            return False, "CLASSES SEEN IN TRAINING"
        if self.origin == "wrapped":
            return None, "classes that the encoder may or may not have been trained on"
        if self.is_cross_validated:
            return True, "classes, in cross-validation folds held out of separate trainings"
        return True, "classes that training never saw"

    @property
    def is_cross_validated(self) -> bool:
        """True if the threshold is from training classes, each of which a separate training held out."""
        held_out = self.origin == "wrapped" or not self.classes or bool(self.held_out.get("images"))
        return self.calibration.unseen_classes and not held_out

    @property
    def not_measured(self) -> list[str]:
        """Harder kinds of impostor that were not measured, such as forgeries."""
        kinds = self.held_out.get("impostors", {})
        return [kind for kind, found in kinds.items() if found != "measured"]

    @property
    def unmeasured(self) -> str:
        """`not_measured` in words; empty if nothing is missing."""
        return ", ".join(f"{kind}: {self.held_out['impostors'][kind]}" for kind in self.not_measured)

    def setting(self, name: str) -> Any:
        """Return a training setting by its dotted name, such as ``length.steps``; None if it is missing."""
        section, _, option = name.partition(".")
        if isinstance(found := self.recipe.get(section), dict):
            return found.get(option)
        old, values = _OLD_SETTINGS.get(name, (option, {}))
        value = self.recipe.get(old)
        return values.get(str(value), value)

    def enrolling(self, found: Enrollment) -> Manifest:
        """Return a manifest with the better representation of gallery labels."""
        calibration = self.calibration
        if found.identification is not None:
            calibration = calibration.model_copy(update={"identification": found.identification})
        held_out = self.held_out | {"identified": found.named}
        return self.model_copy(
            update={"prototype": found.prototype, "stored_calibration": calibration, "held_out": held_out}
        )


def harder_impostors(
    comparisons: Comparisons, *, recipe: str, encoder: str, forged: bool = False, marked: bool = True
) -> dict[str, dict[str, str]]:
    """Describe, for `Manifest.held_out`, the impostors that are harder than images of other classes.

    ``forged``: the task is known to have forgeries. ``marked``: the data can mark them; a pair list cannot.
    """
    measured = bool(comparisons.forged.any())
    if not (measured or forged or recipe == "signature" or encoder.endswith("_signature")):
        return {}
    missing = "not measured" if marked else "not marked in the pair list"
    return {"impostors": {"skilled forgeries": "measured" if measured else missing}}


def locate(model: str | os.PathLike[str]) -> Path:
    """Return the folder of a model: the path itself, or that of the ready-made model with this name.

    A model folder of that name in the working directory comes first.
    """
    path = Path(model)
    if len(path.parts) != 1 or path.suffix:  # ready-made models have plain names
        return path
    from .ready_made import READY_MADE

    if (found := READY_MADE.get(str(path))) is None:
        return path
    if (path / "model.json").exists():
        text = f"{path} is the model folder in the working directory, not the ready-made model of that name"
        note("own-folder", text)
        return path
    return found.folder()


def read(folder: Path) -> Manifest:
    """Read and check model.json; raise `ModelError` where it is missing, damaged or of another format."""
    path = folder / "model.json"
    if not folder.exists():
        from .ready_made import READY_MADE

        raise ModelError(
            f"{folder}: No such model folder. Train a model first, check the path, or use a ready-made model:"
            f" {', '.join(READY_MADE)}"
        )
    if not path.is_file():
        raise ModelError(f"{folder}: Not a model folder (model.json is missing)")
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelError(f"{path}: The file has more than {_MAX_JSON_BYTES:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.get("format_version") if isinstance(values, dict) else None
        if version not in _READABLE:
            raise ModelError(
                f"{path}: The format version is {version}; this Twinned reads up to version {FORMAT_VERSION}."
                " Install the version that wrote it, or train again"
            )
        found = Manifest(**{"twinned": None, **values})  # the default is for new folders
        if strange := [name for name in found.files if Path(name).name != name]:
            raise ModelError(f"{path}: files: {strange[0]!r} is not the name of a file in the folder")
        return found
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path}: The file is damaged ({error})") from None


def checked(folder: Path, name: str, manifest: Manifest) -> Path:
    """Return the path of a file of the folder; raise `ModelError` if it is missing or was changed."""
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{path}: No such file; the model folder is incomplete. Restore it from a copy")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: The file cannot be read ({error.strerror})") from None
    if found != manifest.files.get(name):
        raise ModelError(
            f"{path}: The file differs from the one that model.json was written for (SHA-256)."
            " Restore it from a copy, or train again"
        )
    return path


def write(folder: Path, manifest: Manifest, training: dict[str, Any] | None = None) -> Manifest:
    """Write README.md, and model.json with the SHA-256 of every other file; return the contents of the last.

    ``training`` has new or changed entries of training.json.
    """
    from .model_card import card

    if training is not None:
        path = folder / "training.json"
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_text(path, json.dumps(earlier | training, indent=1) + "\n")
    write_text(folder / "README.md", card(manifest))
    others = (path for path in sorted(folder.iterdir()) if path.is_file() and path.name != "model.json")
    files = {path.name: file_sha256(path) for path in others}
    full = manifest.model_copy(update={"files": files, "format_version": FORMAT_VERSION})
    write_text(folder / "model.json", full.model_dump_json(indent=1, by_alias=True) + "\n")
    return full


def copy(source: Path, target: Path, *, force: bool = False) -> None:
    """Copy a model folder atomically; see `check_output` for refusals."""
    check_output(target, force=force)
    place(source, target)


def change(
    source: Path,
    target: Path,
    manifest: Manifest,
    training: dict[str, Any] | None = None,
    *,
    force: bool = False,
) -> None:
    """Write a model folder with changes to another folder, or in its place, atomically; see `write`."""
    with tempfile.TemporaryDirectory(prefix="twinned-") as name:
        place(source, Path(name))
        write(Path(name), manifest, training)
        copy(Path(name), target, force=force or target == source)


def check_output(
    target: Path,
    *,
    force: bool = False,
    data: Iterable[str | os.PathLike[str]] = (),
    option: str | None = "force",
) -> None:
    """Raise where a model folder must not be written; see `twinned.utils.files.check_output`.

    With ``force``, only a model folder or an empty one is replaced.
    """
    outputs.check_output(target, force=force, data=data, option=option)
    replaceable = (target / "model.json").is_file() or (target.is_dir() and not any(target.iterdir()))
    if target.exists() and not replaceable:
        raise SettingError(f"{target}: Not a model folder, so it is not replaced. Choose another name")


class TrainingRecord:
    """Record of a model's training: training.json and history.csv.

    ``owner`` keeps a temporary folder from being deleted.
    """

    def __init__(self, folder: Path, manifest: Manifest, *, owner: Any = None) -> None:
        self._folder, self._manifest = folder, manifest
        self._owner = owner

    @cached_property
    def values(self) -> dict[str, Any]:
        """Contents of training.json; empty without the file."""
        if "training.json" not in self._manifest.files:
            return {}
        path = self._folder / "training.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{path}: The file is damaged ({error})") from None
        return found

    @property
    def image_hashes(self) -> frozenset[str]:
        """SHA-256 of the pixels of every training image, without the held-out images."""
        return frozenset(self.values.get("images", ()))

    @property
    def threshold_hashes(self) -> frozenset[str]:
        """SHA-256 of the pixels of every image that the threshold was chosen on."""
        return frozenset(self.values.get("held_out_images", ()))

    @property
    def hash_limitation(self) -> str | None:
        """Reason why training images may not be recognized; None without one."""
        if not self.values.get("unmatched", False):
            return None
        return "images of an earlier training, at another size, cannot be recognized by their pixels"

    @property
    def requested_config(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Settings that training began with, and hashes of its inputs."""
        return self.values.get("asked", self._manifest.recipe), self.values.get("given", {})

    def layers(self) -> list[Layer]:
        """Return name, kind, output shape and parameters of each layer; empty for a wrapped encoder."""
        found = self.values.get("layers", ())
        rows = [(name, kind, tuple(shape), count) for name, kind, shape, count in found]
        return rows[_repeated(rows) :]

    def history(self) -> dict[str, NDArray[np.float64]]:
        """Return the columns of history.csv, one value per evaluation; empty without training."""
        if "history.csv" not in self._manifest.files:
            return {}
        path = checked(self._folder, "history.csv", self._manifest)
        names, *rows = (line.split(",") for line in path.read_text(encoding="utf-8").splitlines())
        return {name: np.array([float(row[k]) for row in rows]) for k, name in enumerate(names)}

    def without_history(self) -> str | None:
        """Explain why `history` has no row; None where it has one."""
        if any(len(column) for column in self.history().values()):
            return None
        manifest = self._manifest
        if manifest.origin == "wrapped":
            return "the encoder was trained elsewhere and wrapped, and its file holds no history"
        if self.values.get("steps", 0):
            return "training ended before its first evaluation"
        fitted = manifest.setting("transfer.projection") == "lda"
        if fitted and manifest.setting("encoder.embedding_size") is not None:
            return "the embedding layer was solved from the images, and nothing was trained step by step"
        return "the encoder was kept as it came, without training"


def _repeated(rows: Sequence[Layer]) -> int:
    """Return how many first rows are repeated: old folders list the pass over the mirror image as well."""
    for count in range(len(rows) // 2, 0, -1):
        if rows[:count] == rows[count : 2 * count] and any(row[3] for row in rows[:count]):
            return count
    return 0
