"""Refitting a saved model's threshold and probability on new data."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..data.datasets import ImageSet, PairSet
from ..data.decoded import decode
from ..data.images import pixels_sha256
from ..data.readers import as_dataset
from ..errors import DataError, SettingError, some
from ..evaluation.calibration import Calibration, fit_calibration, held_out_figures
from ..evaluation.enrollment import choose_enrolment
from ..evaluation.reference_sets import ReferenceSet, reference_sets
from ..evaluation.threshold_warnings import is_threshold_warning, threshold_warnings
from ..metrics.comparisons import compare_all, compare_pairs
from ..utils import files
from . import model_folder
from .model import Model


def calibrate(
    model: str | os.PathLike[str],
    data: ImageSet | PairSet | str | os.PathLike[str],
    *,
    far: float | None = None,
    equal_error: bool = False,
    prior: float | None = None,
    seed: int = 0,
    progress: bool = True,
    say: Callable[[str], None] | None = None,
) -> Calibration:
    """Fit the threshold to other data and store it in the model folder.

    Args:
        model: The model folder; model.json and README.md are rewritten, atomically.
        data: Images or pairs that training has not seen, or where they are.
        far: False accept rate to choose the threshold at. By default that of the model's present threshold,
            and equal error where it has none.
        equal_error: Choose the threshold at equal error, whatever the present one was chosen at.
        prior: P(same) before looking; by default that of the model, which is 0.5 unless another was given.
        seed: Of resampling and folds.
        progress: Show a bar.
        say: Called with each sentence that a user should read. The model keeps all of them, except
            those on a rate or a prior that is kept.

    Returns:
        The new calibration; it says whether the classes were others than those trained on, by their names.

    Raises:
        DataError: If an image was seen in training, or there are too few.
        SettingError: If both ``far`` and ``equal_error`` are given, or a number is out of range.
    """
    if equal_error and far is not None:
        raise SettingError(
            f"a threshold is chosen at a rate or at equal error; got far={far} and equal_error"
        )
    loaded = Model(model)
    stored = loaded.manifest.calibration
    source = as_dataset(data)
    told: list[str] = []
    if isinstance(source, ImageSet):
        source, told = source.calibration_subset()
    kept: list[str] = []
    if far is None and stored.far is not None and not equal_error:
        far = stored.far
        kept.append(f"the threshold keeps the false accept rate of {far:g}, which it was chosen at before")
    if prior is None:
        prior = stored.prior
        if prior != 0.5:
            kept.append(f"the probability keeps the prior of {prior:g}, which it was fitted with before")
    decoded = decode(source.images, loaded.spec, progress=progress)
    if not len(decoded.kept):
        raise DataError(
            f"{source.origin}: none of {len(source.images)} images can be read, and a threshold needs two"
            f" classes, and two images of one of them; the first: {decoded.unreadable[0]}"
        )
    trained = loaded.training_hashes()
    hashes = [pixels_sha256(pixels) for pixels in decoded.pixels]
    seen = [place for place, name in zip(decoded.kept, hashes, strict=True) if name in trained]
    if seen:
        names = source.names
        raise DataError(
            f"{len(seen)} of {len(decoded.kept)} images were seen in training, so a threshold from them"
            f" would be too hopeful; take others (the first: {names[seen[0]]})"
        )
    notes = [*told, *source.notes, *decoded.left_out()]
    known = set(loaded.manifest.classes) & set(source.classes if isinstance(source, ImageSet) else [])
    if known:
        notes.append(
            f"training saw other images of {len(known)} of these classes, by their names"
            f" ({some(sorted(known), 3)})"
        )
    if (unmatched := loaded.unmatched()) is not None:
        notes.append(unmatched)
    vectors = loaded.embed_pixels(decoded.pixels)
    sets: list[ReferenceSet] = []
    if isinstance(source, ImageSet):
        forgery = source.forgery[decoded.kept]
        labels = source.labels[decoded.kept]
        sets = reference_sets(vectors, labels, loaded.distances, forgery=forgery, seed=seed)
        comparisons = compare_all(
            vectors,
            labels,
            loaded.distances,
            forgery=forgery if forgery.any() else None,
            seed=seed,
        )
    else:
        place = np.full(len(source.images), -1)
        place[decoded.kept] = np.arange(len(decoded.kept))
        left, right = place[source.left], place[source.right]
        whole = (left >= 0) & (right >= 0)
        part = source.identity_groups()
        comparisons = compare_pairs(
            loaded.paired_distances(vectors[left[whole]], vectors[right[whole]]),
            source.same[whole],
            left=part[source.left[whole]],
            right=part[source.right[whole]],
        )
    calibration = fit_calibration(
        comparisons, sets=sets, far=far, prior=prior, unseen_classes=not known, seed=seed
    )
    notes += threshold_warnings(calibration, comparisons)
    for sentence in (*kept, *notes):
        if say is not None:
            say(sentence)
    notes.append(f"threshold refitted on {len(decoded.kept)} new images (twinned calibrate)")
    held_out = loaded.manifest.held_out | {
        "images": len(decoded.kept),
        "classes": np.unique(labels).tolist() if isinstance(source, ImageSet) else [],
        **held_out_figures(calibration, comparisons),
        **model_folder.harder_impostors(
            comparisons,
            recipe=loaded.manifest.recipe.get("recipe", ""),
            encoder=loaded.manifest.encoder,
            forged="impostors" in loaded.manifest.held_out,
            marked=isinstance(source, ImageSet),
        ),
    }
    held_out.pop("identified", None)
    changed = loaded.manifest.model_copy(
        update={
            "calibration": calibration,
            "notes": [*(note for note in loaded.manifest.notes if not is_threshold_warning(note)), *notes],
            "prototype": False,
            "held_out": held_out,
        }
    )
    if isinstance(source, ImageSet) and loaded.head is None:
        genuine = ~forgery
        found = choose_enrolment(vectors[genuine], labels[genuine], loaded.distances, seed=seed)
        changed = changed.enrolling(found)
    with tempfile.TemporaryDirectory(prefix="twinned-") as folder:
        model_folder.copy(loaded.folder, Path(folder), force=True)
        path = Path(folder) / "training.json"
        training = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        training |= {"held_out_classes": held_out["classes"], "held_out_images": sorted(hashes)}
        files.write_text(path, json.dumps(training, indent=1) + "\n")
        model_folder.write(Path(folder), changed)
        model_folder.copy(Path(folder), loaded.folder, force=True)
    return calibration
