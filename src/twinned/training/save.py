"""Write the result of a training run to a model folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..data.decoded import DecodedSet
from ..data.splits import enrollment_size, subsample
from ..evaluation.fitting import CalibrationReport, calibrate_on
from ..evaluation.identification import choose_enrollment
from ..inference import model_folder
from ..inference.embedder import GraphEmbedder
from ..inference.model_folder import UNTOUCHED, Manifest
from ..inference.session import Graph
from ..nn import onnx_export
from ..nn.siamese import SiameseNetwork
from ..utils import files
from ..utils.notes import Note
from .cross_validation import FitResult
from .trainer import Trainer
from .warm_start import WarmStart


def write_model(
    folder: Path,
    trainer: Trainer,
    result: FitResult,
    notes: Sequence[Note],
    given: dict[str, str | None],
) -> None:
    """Fit the threshold and write a model folder, which may hold the file of `write_baseline`.

    ``notes`` are those of the run, ``given`` the hashes of the data and of the initial model.
    """
    config, score = trainer.config, result.score
    far = config.calibration.far
    report = calibrate_on(
        score.comparisons, score.sets, far=far, unseen_classes=result.unseen, seed=config.seed
    )
    network = result.network.eval().cpu()
    _write_encoder(folder, trainer, result)
    has_head = write_weights(network, folder)
    history, classes = result.state.history, result.train.classes
    names = list(history[0]) if history else ["step"]
    rows = [",".join(f"{row[name]:.6g}" for name in names) for row in history]
    files.write_text(folder / "history.csv", "\n".join([",".join(names), *rows]) + "\n")
    if trainer.warm_start is not None:  # it was trained on its own classes before
        classes = sorted({*classes, *trainer.warm_start.model.manifest.classes})
    manifest = _manifest(trainer, result, report, notes, classes=classes, has_head=has_head)
    if result.held_out is not None and result.held_out.labelled is not None and not has_head:
        manifest = _choose_enrollment(folder, manifest, result.held_out, config.seed)
    model_folder.write(folder, manifest, _training_record(trainer, result, classes=classes, given=given))


def write_weights(network: SiameseNetwork, folder: Path) -> bool:
    """Write the weights, and the head if it is learned; return True if it is."""
    weights = {name: value.contiguous().clone() for name, value in network.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    return onnx_export.export_head(network, folder / "head.onnx")


def data_hashes(
    train: DecodedSet, validation: DecodedSet | None, warm_start: WarmStart | None
) -> dict[str, str | None]:
    """Return hashes of the data and of the initial model, which a resumed run must share."""
    return {
        "data": train.sha256(),
        "validation": None if validation is None else validation.sha256(),
        "model": None if warm_start is None else warm_start.sha256,
    }


def _write_encoder(folder: Path, trainer: Trainer, result: FitResult) -> None:
    """Write encoder.onnx, and the encoder before training if it was scored."""
    baseline = folder / UNTOUCHED
    if result.network is trainer.baseline and baseline.exists():
        baseline.rename(folder / "encoder.onnx")
    else:
        onnx_export.export_encoder(result.network, trainer.spec, folder / "encoder.onnx")
    if result.baseline is None:
        baseline.unlink(missing_ok=True)
    elif not baseline.exists():
        write_baseline(folder, trainer)


def _training_record(
    trainer: Trainer, result: FitResult, *, classes: list[str], given: dict[str, str | None]
) -> dict[str, Any]:
    """Return the contents of training.json."""
    config = result.config.model_dump(mode="json")
    held_out, state, images, hash_limited = result.held_out, result.state, set(result.train.hashes), False
    if trainer.warm_start is not None:
        model = trainer.warm_start.model
        images |= model.record.image_hashes
        hash_limited = bool(model.record.hash_limitation) or model.spec.shape != trainer.spec.shape
    return {
        "recipe": config["recipe"],
        "settings": config,
        "asked": trainer.config.model_dump(mode="json"),
        "given": given,
        "seed": trainer.config.seed,
        "steps": state.step,
        "seconds": round(state.seconds, 2),
        "bfloat16": state.bfloat16,
        "layers": result.network.layers(),
        "classes": classes,
        "held_out_classes": held_out.classes if held_out else [],
        "images": sorted(images),
        "unmatched": hash_limited,
        "held_out_images": sorted(held_out.hashes) if held_out else [],
    }


def _manifest(
    trainer: Trainer,
    result: FitResult,
    report: CalibrationReport,
    notes: Sequence[Note],
    *,
    classes: list[str],
    has_head: bool,
) -> Manifest:
    network, train, warm_start = result.network, result.train, trainer.warm_start
    config = result.config.model_dump(mode="json")
    relations = list(trainer.relations)
    license_text = network.encoder.license
    data = train.fingerprint() | {"classes": len(train.classes)}
    if warm_start is not None:
        manifest = warm_start.model.manifest
        relations = manifest.relations if network is warm_start.network else relations
        license_text = manifest.licence
        data = data if train.hashes else manifest.data
    return Manifest(
        origin="trained" if warm_start is None else "finetuned",
        encoder=trainer.config.encoder.name,
        spec=trainer.spec,
        embedding_size=network.embedding_size,
        normalized=network.normalize,
        distance=network.head.name,
        head=has_head,
        relations=relations if has_head else [],
        calibration=report.calibration,
        classes=classes,
        data=data,
        held_out=_held_out_figures(trainer, result, report),
        recipe=config,
        licence=license_text,
    ).with_notes(notes)


def _held_out_figures(trainer: Trainer, result: FitResult, report: CalibrationReport) -> dict[str, Any]:
    """Return the figures of model.json: those of the network, and of the baseline as ``untouched``."""
    held_out, score = result.held_out, result.score
    parts = [part.labelled for part in (result.train, held_out) if part is not None]
    labeled = [images for images in parts if images is not None]
    figures: dict[str, Any] = {
        "images": len(held_out.hashes) if held_out else 0,
        "classes": held_out.classes if held_out else [],
        **report.figures,
        **model_folder.harder_impostors(
            score.comparisons,
            recipe=result.config.recipe,
            encoder=trainer.config.encoder.name,
            forged=any(part.forgery.any() for part in labeled),
            marked=bool(labeled),
        ),
    }
    if score.relation is not None:
        figures["relations"] = score.relation
    if result.baseline is not None and trainer.baseline is not None:
        before, distance = result.baseline, trainer.baseline.head.name
        recall = {} if before.recall is None else {"recall_at_1": before.recall}
        figures["untouched"] = {"eer": before.eer, **recall, "distance": distance}
    return figures


def write_baseline(folder: Path, trainer: Trainer) -> float:
    """Export the encoder before training, unless its head is learned; return the seconds it took."""
    if trainer.baseline is None or trainer.baseline.head.learned:
        return 0.0
    start = time.monotonic()
    onnx_export.export_encoder(trainer.baseline.eval().cpu(), trainer.spec, folder / UNTOUCHED)
    return time.monotonic() - start


def _choose_enrollment(folder: Path, manifest: Manifest, held_out: DecodedSet, seed: int) -> Manifest:
    """Choose if a gallery compares with the nearest image of a label or with their mean."""
    some = subsample(held_out, enrollment_size(held_out), whole_classes=True)
    genuine = ~some.images.forgery
    embedder = GraphEmbedder(Graph(folder / "encoder.onnx"), manifest.spec, manifest.distance)
    vectors = embedder.embed_pixels(some.pixels[genuine])
    found = choose_enrollment(vectors, some.images.labels[genuine], embedder.distances, seed=seed)
    return manifest.enrolling(found)
