"""model.json: what a model folder says of itself, and the folder's files checked and written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..data.preprocessing import ImageSpec
from ..errors import ModelError, SettingError
from ..evaluation.calibration import Calibration
from ..evaluation.enrollment import Enrolment
from ..metrics.comparisons import Comparisons
from ..utils import files as outputs
from ..utils.files import file_sha256, place, write_text
from .model_card import card

FORMAT_VERSION = 2
# Version 1 has the training configuration as flat settings.
_READABLE = (1, FORMAT_VERSION)
# Settings that had another name or value in version 1.
_OLD_SETTINGS = {"transfer.projection": ("layer", {"learned": "gradient", "solved": "lda"})}
_MAX_JSON_BYTES = 64 * 1024 * 1024
_FORGERIES = "skilled forgeries"


class Manifest(BaseModel):
    """The contents of model.json.

    Args:
        format_version: Of this folder's layout.
        twinned: Version of Twinned that wrote it.
        encoder: Name of the encoder.
        spec: The image preprocessing.
        embedding_size: Values of an embedding.
        normalized: Whether embeddings have length 1.
        distance: By which embeddings are compared, and searched.
        head: Whether head.onnx re-orders and scores.
        relations: Names of the relations that the head tells apart, where it does.
        calibration: Threshold and probability.
        prototype: Identify by the mean of a label's images instead of the nearest one.
        classes: Names of the classes that training saw.
        data: Fingerprint of the training data: counts, and a hash over the images' hashes.
        held_out: Figures on the classes held out of training; ``impostors`` says whether those that are
            harder than images of other classes were measured (`harder_impostors`).
        recipe: Recipe and settings.
        notes: What training had to say: what was chosen and why, what went wrong.
        licence: Of pretrained weights within, where there are any.
        files: SHA-256 of the folder's other files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format_version: int = FORMAT_VERSION
    twinned: str
    encoder: str
    spec: ImageSpec
    embedding_size: int
    normalized: bool
    distance: str
    head: bool = False
    relations: list[str] = []
    calibration: Calibration
    prototype: bool = False
    classes: list[str] = []
    data: dict[str, Any] = {}
    held_out: dict[str, Any] = {}
    recipe: dict[str, Any] = {}
    notes: list[str] = []
    licence: str | None = None
    files: dict[str, str] = {}

    @property
    def chosen_on(self) -> tuple[bool | None, str]:
        """Whether training never saw the classes that the threshold is from, None for unknown; in words."""
        if not self.calibration.unseen_classes:
            return False, "CLASSES SEEN IN TRAINING"
        if self.recipe.get("recipe") == "wrap":
            return None, "classes of which nobody knows whether training saw them"
        if self.classes and not self.held_out.get("images"):
            return True, "classes, some at a time held out of a training of its own"
        return True, "classes that training never saw"

    @property
    def not_measured(self) -> list[str]:
        """The harder kinds of impostor that the threshold was not measured against, such as forgeries."""
        kinds = self.held_out.get("impostors", {})
        return [kind for kind, found in kinds.items() if found != "measured"]

    @property
    def unmeasured(self) -> str:
        """`not_measured` in words; empty where nothing is missing."""
        kinds = self.held_out.get("impostors", {})
        return ", ".join(f"{kind}: {kinds[kind]}" for kind in self.not_measured)

    def setting(self, name: str) -> Any:
        """Return a training setting by its dotted name, such as ``length.steps``; None if it is missing."""
        section, _, option = name.partition(".")
        if isinstance(found := self.recipe.get(section), dict):
            return found.get(option)
        old, values = _OLD_SETTINGS.get(name, (option, {}))
        value = self.recipe.get(old)
        return values.get(str(value), value)

    def enrolling(self, found: Enrolment) -> Manifest:
        """The same, telling labels in a gallery in the way that was found to be better."""
        calibration = self.calibration
        if found.identification is not None:
            calibration = calibration.model_copy(update={"identification": found.identification})
        held_out = self.held_out | {"identified": found.named}
        return self.model_copy(
            update={"prototype": found.prototype, "calibration": calibration, "held_out": held_out}
        )


def harder_impostors(
    comparisons: Comparisons, *, recipe: str, encoder: str, forged: bool = False, marked: bool = True
) -> dict[str, dict[str, str]]:
    """Describe, for `Manifest.held_out`, the impostors that are harder than images of other classes.

    Args:
        comparisons: That the threshold is fitted on.
        recipe: Name of the recipe.
        encoder: Name of the encoder.
        forged: Whether the task is known to have forgeries.
        marked: Whether the data can mark a forgery; a pair list cannot.

    Returns:
        Under ``impostors``, whether each kind was measured; empty for a task that has no such kind.
    """
    measured = comparisons.skilled is not None and bool(comparisons.skilled.any())
    if not (measured or forged or recipe == "signature" or encoder.endswith("_signature")):
        return {}
    missing = "not measured" if marked else "not marked in the pair list"
    return {"impostors": {_FORGERIES: "measured" if measured else missing}}


def read(folder: Path) -> Manifest:
    """Read and check model.json.

    Raises:
        ModelError: If the folder or the file is missing, damaged, or of another format.
    """
    path = folder / "model.json"
    if not folder.exists():
        raise ModelError(f"{folder}: no such model folder; `twinned train DATA -o {folder}` makes one")
    if not path.is_file():
        raise ModelError(f"{folder}: is no model folder (it holds no model.json)")
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ModelError(f"{path}: has more than {_MAX_JSON_BYTES:,} bytes")
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.get("format_version") if isinstance(values, dict) else None
        if version not in _READABLE:
            raise ModelError(
                f"{path}: format version is {version}, this Twinned reads"
                f" {' and '.join(map(str, _READABLE))};"
                " install the version that wrote it, or train again"
            )
        found = Manifest(**values)
        if strange := [name for name in found.files if Path(name).name != name]:
            raise ModelError(f"{path}: files: {strange[0]!r} is no name of a file in the folder")
        return found
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: is damaged ({error})") from None


def checked(folder: Path, name: str, manifest: Manifest) -> Path:
    """The path of a file of the folder, once its SHA-256 is the one that model.json names.

    Raises:
        ModelError: If it is missing or was changed.
    """
    path = folder / name
    if not path.is_file():
        raise ModelError(f"{path}: no such file; the model folder is not whole. Restore it from a copy")
    try:
        found = file_sha256(path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    if found != manifest.files.get(name):
        raise ModelError(
            f"{path}: is not the file that model.json was written with (SHA-256 differs);"
            " restore it from a copy, or train again"
        )
    return path


def write(folder: Path, manifest: Manifest) -> Manifest:
    """Write model.json, with the SHA-256 of every other file, and README.md, the model card."""
    write_text(folder / "README.md", card(manifest))
    files = {
        p.name: file_sha256(p) for p in sorted(folder.iterdir()) if p.is_file() and p.name != "model.json"
    }
    full = manifest.model_copy(update={"files": files})
    write_text(folder / "model.json", full.model_dump_json(indent=1) + "\n")
    return full


def copy(source: Path, target: Path, *, force: bool = False) -> None:
    """Copy a model folder so that the target is there whole or not at all.

    Raises:
        SettingError: If the target exists and ``force`` is not set, or is anything but a model folder.
    """
    refuse_target(target, force=force)
    place(source, target)


def refuse_target(target: Path, *, force: bool = False, data: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise where a model folder must not be written; see `twinned.utils.files.refuse`.

    Raises:
        SettingError: As there; or if ``force`` would replace something that is no model folder.
    """
    outputs.refuse(target, force=force, data=data)
    if target.exists() and not (target / "model.json").is_file() and not _is_empty(target):
        raise SettingError(f"{target}: is no model folder, so it is not replaced; choose another name")


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None
