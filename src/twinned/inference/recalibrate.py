"""Refit the threshold and the probability of a saved model on new data."""

from __future__ import annotations

import os
from pathlib import Path

from ..data.decoded import DecodedSet
from ..data.readers import Data
from ..errors import DataError, SettingError, many, some
from ..evaluation.calibration import Calibration
from ..evaluation.fitting import CalibrationReport, calibrate
from ..evaluation.identification import choose_enrollment
from ..utils.notes import Note, collect, note
from . import model_folder
from .inputs import calibration_data
from .model import Model
from .model_folder import Manifest
from .wrap import held_out


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
    """Fit the threshold of a saved model to images that training has not seen; return the new calibration.

    ``far`` and ``prior``, P(same) in use, are those of the model by default; ``equal_error`` drops its rate.
    The model keeps the notes, except those on a kept rate or prior.
    """
    if equal_error and far is not None:
        raise SettingError(f"Choose a false accept rate or equal error; got far={far} and equal error")
    if (output is None) != in_place:
        raise SettingError("Choose a folder to write the model to, or ask to change it in place")
    loaded = Model(model)
    if output is not None:
        model_folder.check_output(Path(output), force=force, data=[loaded.folder])
    stored = loaded.manifest.stored_calibration
    if in_place and loaded.folder != Path(model):
        raise SettingError(f"{model}: A ready-made model is not changed in place. Choose another folder")
    if far is None and stored is not None and stored.far is not None and not equal_error:
        far = stored.far
        note("kept-far", f"the threshold keeps the false accept rate of {far:g} that it was chosen at before")
    if prior is None:
        prior = 0.5 if stored is None else stored.prior
        if prior != 0.5:
            note("kept-prior", f"the probability keeps the prior of {prior:g} that it was fitted with before")
    with collect() as notes:
        decoded = DecodedSet.from_images(calibration_data(data), loaded.spec, progress=progress)
        _refuse_training_images(loaded, decoded)
        if shared := sorted({*loaded.manifest.classes} & {*decoded.classes}):
            text = f"training saw other images of {len(shared)} of these classes, by their names"
            note("shared-class-names", f"{text} ({some(shared)})")
        if (limitation := loaded.record.hash_limitation) is not None:
            note("hash-limitation", limitation)
        embeddings = loaded.embed_pixels(decoded.pixels)
        report = calibrate(
            embeddings, decoded.dataset, loaded, far=far, prior=prior, unseen_classes=not shared, seed=seed
        )
    notes.append(Note("recalibrated", f"threshold refitted on {many(len(decoded.hashes), 'new image')}"))
    manifest = _manifest(loaded.manifest, decoded, report, notes)
    if decoded.labelled is not None and not manifest.head:
        genuine = ~decoded.labelled.forgery
        labels = decoded.labelled.labels[genuine]
        manifest = manifest.enrolling(
            choose_enrollment(embeddings[genuine], labels, loaded.distances, seed=seed)
        )
    target = loaded.folder if output is None else Path(output)
    training = {"held_out_classes": decoded.classes, "held_out_images": sorted(decoded.hashes)}
    model_folder.change(loaded.folder, target, manifest, training, force=force)
    return report.calibration


def _refuse_training_images(model: Model, decoded: DecodedSet) -> None:
    trained = model.record.image_hashes
    if seen := [place for place, sha256 in enumerate(decoded.hashes) if sha256 in trained]:
        raise DataError(
            f"{len(seen)} of {len(decoded.hashes)} images were seen in training, so a threshold from them"
            f" would be too optimistic. Use other images (the first: {decoded.dataset.names[seen[0]]})"
        )


def _manifest(old: Manifest, decoded: DecodedSet, report: CalibrationReport, notes: list[Note]) -> Manifest:
    """Return the manifest with the new calibration; warnings about the old threshold are dropped."""
    recipe, forged = old.recipe.get("recipe", ""), "impostors" in old.held_out
    figures = old.held_out | held_out(decoded, report, recipe=recipe, encoder=old.encoder, forged=forged)
    figures.pop("identified", None)
    kept = [one for one in old.coded_notes() if not one.code.startswith("threshold-")] + notes
    return old.with_notes(kept).model_copy(
        update={"stored_calibration": report.calibration, "prototype": False, "held_out": figures}
    )
