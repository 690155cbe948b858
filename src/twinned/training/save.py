"""What a run came to, as a model folder."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..data.decoded import DecodedSet
from ..data.splits import enrollment_size, subsample
from ..evaluation.calibration import Calibration, held_out_figures
from ..evaluation.enrollment import choose_enrolment
from ..inference import model_folder
from ..inference.baseline import UNTOUCHED
from ..inference.model import Model
from ..inference.model_folder import Manifest
from ..nn import onnx_export
from ..utils import files
from .cross_validation import FitResult
from .trainer import Trainer
from .validation import ValidationScore


def write_model(
    folder: Path,
    run: Trainer,
    learnt: FitResult,
    calibration: Calibration,
    notes: list[str],
    given: dict[str, str | None],
) -> None:
    """Fill a model folder.

    Args:
        folder: An empty folder, but for what `write_baseline` may have written.
        run: With all that was asked for.
        learnt: What came of it.
        calibration: Threshold and probability.
        notes: What was said.
        given: What identifies the data and the model that were started from.
    """
    from .. import __version__

    learn, held_out, state, parent = learnt.learn, learnt.held_out, learnt.state, run.parent
    network = learnt.network.eval().cpu()
    if network is run.baseline and (folder / UNTOUCHED).exists():
        (folder / UNTOUCHED).rename(folder / "encoder.onnx")
    else:
        onnx_export.export_encoder(network, run.spec, folder / "encoder.onnx")
    if learnt.baseline is None:
        (folder / UNTOUCHED).unlink(missing_ok=True)
    elif not (folder / UNTOUCHED).exists():
        write_baseline(folder, run)
    relations = list(run.relations)
    if parent is not None and network is parent.network:  # left as it was
        relations = parent.model.manifest.relations
    has_head = onnx_export.export_head(network, folder / "head.onnx")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
    classes = own = learn.labelled.classes if learn.labelled else []
    unmatched = False
    images, data = set(learn.hashes), learn.fingerprint() | {"classes": len(own)}
    if parent is not None:  # what its encoder has learnt from is not forgotten
        classes = sorted({*own, *parent.model.manifest.classes})
        images |= parent.model.training_hashes()
        unmatched = bool(parent.model.unmatched()) or parent.model.spec.shape != run.spec.shape
        data = data if learn.hashes else parent.model.manifest.data
    labelled = (learn.labelled, held_out.labelled if held_out else None)
    before: dict[str, Any] = {}
    if learnt.baseline is not None and run.baseline is not None:
        before = {"untouched": _figures(learnt.baseline) | {"distance": run.baseline.head.name}}
    settings = learnt.settings.model_dump(mode="json")
    files.write_text(
        folder / "training.json",
        json.dumps(
            {
                "recipe": settings["recipe"],
                "settings": settings,
                "asked": run.settings.model_dump(mode="json"),
                "given": given,
                "seed": run.settings.seed,
                "steps": state.step,
                "seconds": round(state.seconds, 2),
                "bfloat16": state.bfloat16,
                "layers": network.layers(),
                "classes": classes,
                "held_out_classes": held_out.labelled.classes if held_out and held_out.labelled else [],
                "images": sorted(images),
                "unmatched": unmatched,
                "held_out_images": sorted(held_out.hashes) if held_out else [],
            },
            indent=1,
        )
        + "\n",
    )
    names = list(state.history[0]) if state.history else ["step"]
    rows = [",".join(f"{row[n]:.6g}" for n in names) for row in state.history]
    files.write_text(folder / "history.csv", "\n".join([",".join(names), *rows]) + "\n")
    model_folder.write(
        folder,
        Manifest(
            twinned=__version__,
            encoder=run.settings.encoder,
            spec=run.spec,
            embedding_size=network.embedding_size,
            normalized=network.normalize,
            distance=network.head.name,
            head=has_head,
            relations=relations if has_head else [],
            calibration=calibration,
            classes=classes,
            data=data,
            held_out={
                "images": len(held_out.hashes) if held_out else 0,
                "classes": held_out.labelled.classes if held_out and held_out.labelled else [],
                **held_out_figures(calibration, learnt.judged.comparisons),
                **model_folder.harder_impostors(
                    learnt.judged.comparisons,
                    recipe=settings["recipe"],
                    encoder=run.settings.encoder,
                    forged=any(part.forgery.any() for part in labelled if part is not None),
                    marked=any(part is not None for part in labelled),
                ),
            }
            | ({} if learnt.judged.relation is None else {"relations": learnt.judged.relation})
            | before,
            recipe=settings,
            notes=notes,
            licence=network.encoder.licence if parent is None else parent.model.manifest.licence,
        ),
    )
    if held_out is not None and held_out.labelled is not None and not has_head:
        _choose_enrolment(folder, held_out, run.settings.seed)


def write_baseline(folder: Path, run: Trainer) -> float:
    """Write the encoder that there is before training, where there is one that needs no head.

    Returns:
        The seconds it took to export; that of the trained one will take as long.
    """
    if run.baseline is None or run.baseline.head.learned:
        return 0.0
    began = time.monotonic()
    onnx_export.export_encoder(run.baseline.eval().cpu(), run.spec, folder / UNTOUCHED)
    return time.monotonic() - began


def _choose_enrolment(folder: Path, held_out: DecodedSet, seed: int) -> None:
    """Whether a gallery tells a label by the nearest of its images or by their mean, kept in model.json."""
    some = subsample(held_out, enrollment_size(held_out), whole_classes=True)
    genuine = ~some.images.forgery
    model = Model(folder)
    vectors = model.embed_pixels(some.pixels[genuine])
    found = choose_enrolment(vectors, some.images.labels[genuine], model.distances, seed=seed)
    model_folder.write(folder, model.manifest.enrolling(found))


def _figures(judged: ValidationScore) -> dict[str, float]:
    return {"eer": judged.eer} | ({} if judged.recall is None else {"recall_at_1": judged.recall})
