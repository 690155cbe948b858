"""Refit the threshold and the probability of a saved model on new data."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..data.datasets import ImageSet, PairSet
from ..data.decoded import Decoded, decode
from ..data.readers import Data
from ..errors import DataError, SettingError, many, some
from ..evaluation.calibration import Calibration
from ..evaluation.enrollment import choose_enrollment
from ..evaluation.fitting import CalibrationReport, calibrate
from ..evaluation.threshold_warnings import is_threshold_warning
from ..utils.notes import Note, collect, note
from . import model_folder
from .inputs import calibration_data
from .model import Model
from .model_card import card
from .model_folder import Manifest
from .session import Floats


class _Embedded(NamedTuple):
    """Readable images of the new data, with their embeddings."""

    source: ImageSet | PairSet
    decoded: Decoded
    embeddings: Floats


def recalibrate(
    model: str | os.PathLike[str],
    data: Data,
    output: str | os.PathLike[str] | None = None,
    *,
    in_place: bool = False,
    far: float | None = None,
    equal_error: bool = False,
    prior: float | None = None,
    seed: int = 0,
    force: bool = False,
    progress: bool = True,
) -> Calibration:
    """Fit the threshold of a saved model to other data.

    Notes are logged (`twinned.utils.notes`). The model keeps them, except those on a kept rate or prior.

    Args:
        model: Model folder, or the name of a ready-made model.
        data: Images or pairs that training has not seen, or their path.
        output: Model folder to write.
        in_place: Rewrite model.json and README.md of ``model`` instead, atomically.
        far: False accept rate to choose the threshold at. By default that of the current threshold,
            and equal error if it has none.
        equal_error: Choose the threshold at equal error, whatever the current one was chosen at.
        prior: P(same) in use; by default that of the model, which is 0.5 unless it was set.
        seed: Seed of resampling and folds.
        force: Replace ``output``.
        progress: Show a progress bar.

    Returns:
        The new calibration.

    Raises:
        DataError: If an image was seen in training, or there are too few images.
        SettingError: If neither or both of ``output`` and ``in_place`` are given, or both of ``far`` and
            ``equal_error``, or a number is out of range.
    """
    if equal_error and far is not None:
        raise SettingError(
            f"Choose a false accept rate or equal error, not both; got far={far} and equal error"
        )
    if (output is None) != in_place:
        raise SettingError("Choose a folder to write the model to, or ask to change it in place")
    loaded = Model(model)
    if output is not None:
        model_folder.check_output(Path(output), force=force, data=[loaded.folder])
    stored = loaded.manifest.stored_calibration
    if in_place and loaded.folder != Path(model):
        raise SettingError(
            f"{model}: A ready-made model is not changed in place. Choose a folder to write to"
        )
    if far is None and stored is not None and stored.far is not None and not equal_error:
        far = stored.far
        note("kept-far", f"the threshold keeps the false accept rate of {far:g} that it was chosen at before")
    if prior is None:
        prior = 0.5 if stored is None else stored.prior
        if prior != 0.5:
            note("kept-prior", f"the probability keeps the prior of {prior:g} that it was fitted with before")
    with collect() as notes:
        new = _read(loaded, data, progress=progress)
        shared = set(loaded.manifest.classes) & set(
            new.source.classes if isinstance(new.source, ImageSet) else []
        )
        if shared:
            note(
                "shared-class-names",
                f"training saw other images of {len(shared)} of these classes, by their names"
                f" ({some(sorted(shared), 3)})",
            )
        if (limitation := loaded.record.hash_limitation) is not None:
            note("hash-limitation", limitation)
        report = calibrate(
            new.embeddings,
            new.source,
            loaded,
            rows=new.decoded.kept,
            far=far,
            prior=prior,
            unseen_classes=not shared,
            seed=seed,
        )
        for warning in report.warnings:
            note(*warning)
    notes.append(Note("recalibrated", f"threshold refitted on {many(len(new.decoded.hashes), 'new image')}"))
    _write(loaded, new, _manifest(loaded, new, report, notes, seed), output, force=force)
    return report.calibration


def _read(model: Model, data: Data, *, progress: bool) -> _Embedded:
    """Read and embed the new images; refuse those seen in training."""
    source = calibration_data(data)
    decoded = decode(source.images, model.spec, progress=progress)
    if not len(decoded.kept):
        raise DataError(
            f"{source.origin}: None of {len(source.images)} images can be read. A threshold needs two"
            f" classes, and two images of one of them. The first: {decoded.unreadable[0]}"
        )
    trained = model.record.image_hashes
    seen = [place for place, name in zip(decoded.kept, decoded.hashes, strict=True) if name in trained]
    if seen:
        raise DataError(
            f"{len(seen)} of {len(decoded.kept)} images were seen in training, so a threshold from them"
            f" would be too optimistic. Use other images (the first: {source.names[seen[0]]})"
        )
    for text in (*source.notes, *decoded.left_out()):
        note("data", text)
    return _Embedded(source, decoded, model.embed_pixels(decoded.pixels))


def _manifest(
    model: Model, new: _Embedded, report: CalibrationReport, notes: list[Note], seed: int
) -> Manifest:
    """Return the manifest with the new calibration; warnings about the old threshold are dropped."""
    old, source, rows = model.manifest, new.source, new.decoded.kept
    labels = source.labels[rows] if isinstance(source, ImageSet) else np.empty(0, str)
    held_out = old.held_out | {
        "images": len(rows),
        "classes": np.unique(labels).tolist(),
        **report.figures,
        **model_folder.harder_impostors(
            report.comparisons,
            recipe=old.recipe.get("recipe", ""),
            encoder=old.encoder,
            forged="impostors" in old.held_out,
            marked=isinstance(source, ImageSet),
        ),
    }
    held_out.pop("identified", None)
    kept = [one for one in old.coded_notes() if not is_threshold_warning(one.code)] + notes
    changed = old.with_notes(kept).model_copy(
        update={"stored_calibration": report.calibration, "prototype": False, "held_out": held_out}
    )
    if not isinstance(source, ImageSet) or model.manifest.head:
        return changed
    genuine = ~source.forgery[rows]
    found = choose_enrollment(new.embeddings[genuine], labels[genuine], model.distances, seed=seed)
    return changed.enrolling(found)


def _write(
    model: Model, new: _Embedded, manifest: Manifest, output: str | os.PathLike[str] | None, *, force: bool
) -> None:
    """Write the changed model to a new folder, or in its place."""
    with tempfile.TemporaryDirectory(prefix="twinned-") as name:
        folder = Path(name)
        model_folder.copy(model.folder, folder, force=True)
        path = folder / "training.json"
        training = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        training |= {
            "held_out_classes": manifest.held_out["classes"],
            "held_out_images": sorted(new.decoded.hashes),
        }
        model_folder.write(folder, manifest, card=card(manifest), training=training)
        target = model.folder if output is None else Path(output)
        model_folder.copy(folder, target, force=force or output is None)
