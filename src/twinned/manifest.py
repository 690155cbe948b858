"""model.json: what a model folder says of itself, and the folder's files checked and written."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from . import outputs
from .errors import ModelError, SettingError
from .images import ImageSpec
from .verification import Calibration, Comparisons, Enrolment

FORMAT_VERSION = 1
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
        if version != FORMAT_VERSION:
            raise ModelError(
                f"{path}: format version is {version}, this Twinned reads {FORMAT_VERSION};"
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


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def copy(source: Path, target: Path, *, force: bool = False) -> None:
    """Copy a model folder so that the target is there whole or not at all.

    Raises:
        SettingError: If the target exists and ``force`` is not set, or is anything but a model folder.
    """
    refuse_target(target, force=force)
    place(source, target)


def place(source: Path, target: Path) -> None:
    """Copy what a folder holds in place of the target, whole at every moment; a link stays a link."""
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for file in source.iterdir():
            (shutil.copytree if file.is_dir() else shutil.copyfile)(file, new / file.name)
        new.chmod(0o755)
        if target.is_dir():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            os.replace(target, old / "model")
            os.replace(new, target)
            shutil.rmtree(old)
        else:
            os.replace(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def refuse_target(target: Path, *, force: bool = False, data: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise where a model folder must not be written; see `twinned.outputs.refuse`.

    Raises:
        SettingError: As there; or if ``force`` would replace something that is no model folder.
    """
    outputs.refuse(target, force=force, data=data)
    if target.exists() and not (target / "model.json").is_file() and not _is_empty(target):
        raise SettingError(f"{target}: is no model folder, so it is not replaced; choose another name")


def _is_empty(folder: Path) -> bool:
    return folder.is_dir() and next(folder.iterdir(), None) is None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _trained_on(manifest: Manifest) -> str:
    recipe = manifest.recipe.get("recipe", "none")
    if recipe == "wrap":
        return "- **Trained** elsewhere, on what the file does not say"
    images, classes = manifest.data.get("images", 0), manifest.data.get("classes", len(manifest.classes))
    if not images:
        return f"- **Not trained** here: the encoder is as it was; recipe {recipe}"
    of_what = f"of {classes} classes" if classes else "in pairs"
    return (
        f"- **Trained on** {images} images {of_what}, recipe {recipe}, seed {manifest.recipe.get('seed', 0)}"
    )


def card(manifest: Manifest) -> str:
    """The model card: README.md, in words, from model.json."""
    spec, fit = manifest.spec, manifest.calibration
    grey = "grey" if spec.channels == 1 else "colour"
    interval = "" if fit.eer_ci is None else f" (95 % interval {fit.eer_ci[0]:.4f} to {fit.eer_ci[1]:.4f})"
    lines = [
        "# Model card",
        "",
        f"Written by Twinned {manifest.twinned} from model.json; edit that, not this.",
        "",
        f"- **Encoder** {manifest.encoder}: {grey} images of {spec.height}x{spec.width} to"
        f" {manifest.embedding_size} values, compared by {manifest.distance} distance"
        + (", scored by a learned head" if manifest.head else "")
        + (f" that tells {', '.join(manifest.relations)} apart" if manifest.relations else ""),
        _trained_on(manifest),
        f"- **Threshold** {fit.threshold:.6g} at"
        f" {'equal error' if fit.far is None else f'a false accept rate of {fit.far:g}'},"
        f" from {fit.n_classes} {manifest.chosen_on[1]}:"
        f" {fit.n_genuine:,} genuine and {fit.n_impostor:,} impostor comparisons"
        + ("" if fit.supported else f". Not supported: it would take {fit.impostors_needed:,} impostors"),
        f"- **Equal error rate** on those: {fit.eer:.4f}{interval}",
    ]
    if manifest.unmeasured:
        lines.append(
            f"- **{manifest.unmeasured[0].upper()}{manifest.unmeasured[1:]}**, so expect more false accepts"
            " of them than the figures here say. `twinned evaluate` measures them where the data mark them"
        )
    if (told := manifest.held_out.get("relations")) is not None:
        lines.append(f"- **Relations** are told right for {told:.4f} of the pairs held out")
    if (several := fit.references) is not None:
        found = ", ".join(f"{row.eer:.4f} with {row.images}" for row in several.rows)
        lines.append(f"- **With several references** of a class the equal error rate is {found}")
    if named := manifest.held_out.get("identified"):
        chosen = "the mean of its images" if manifest.prototype else "the nearest of its images"
        lines.append(
            f"- **In a gallery** a label is told by {chosen}: of held-out probes {named['nearest']:.4f} are"
            f" named by the nearest, {named['prototype']:.4f} by the mean"
        )
    if manifest.licence:
        lines.append(f"- **Licence of the pretrained weights**: {manifest.licence}")
    lines += [f"- {note}" for note in manifest.notes]
    lines += [
        "",
        "An error rate holds for images like those it was measured on. Measure it on yours:"
        " `twinned evaluate MODEL DATA`.",
        "",
    ]
    return "\n".join(lines)
