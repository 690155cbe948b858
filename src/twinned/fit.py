"""From images to a model: recipe -> loop -> threshold -> export -> Model, in one place."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from . import export, manifest
from .auto import settle
from .check import check_data
from .checkpoint import setting_differences
from .data import ImageSet, PairSet
from .data import load as load_data
from .doctor import examine
from .errors import SettingError
from .manifest import Manifest
from .material import (
    Material,
    Say,
    check_classes,
    check_validation,
    fingerprint,
    hold_out,
    read,
    shared_classes,
    statistics,
)
from .memory import keep_freed_memory
from .model import Model
from .network import SiameseNetwork
from .recipes import Settings
from .runs import FOLD_SHARE, Run, fold_count, training_device
from .training import Interrupted, Outcome, Step
from .verification import Calibration, Comparisons, fit_calibration, roc

# Seconds of a budget that are kept for threshold, export and saving; these take 4 to 9, and the command may
# take 10 more than its budget.
FINISH_SECONDS = 3.0


def train(
    data: ImageSet | PairSet | str | os.PathLike[str],
    *,
    recipe: str | Settings = "auto",
    encoder: str | None = None,
    loss: str | None = None,
    distance: str | None = None,
    image_size: str | int | tuple[int, int] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    margin: float | None = None,
    embedding_size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    far: float | None = None,
    seed: int = 0,
    validate: ImageSet | PairSet | str | os.PathLike[str] | None = None,
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    progress: bool = True,
    on_step: Callable[[Step], None] | None = None,
    say: Say | None = None,
) -> Model:
    """Train a Siamese network on your images and return the saved model.

    A fifth of the classes (at least 4) is held out of training to choose the threshold on. With fewer than
    12 classes none can be spared: the threshold comes from cross-fitting over classes instead.

    Args:
        data: Images or pairs, or where they are (see `twinned.data.load_images`, `load_pairs`).
        recipe: A name of `twinned.recipes`, ``auto``, or settings.
        encoder: Name of the encoder, instead of the recipe's.
        loss: Name of the loss.
        distance: Name of the distance.
        image_size: ``"HxW"``, (height, width), or one number for both.
        minutes: Time from start to saved model.
        steps: Steps to train for, instead.
        epochs: Times to show as many images as there are, instead.
        batch_size: Images a step.
        learning_rate: The highest.
        margin: Of the loss.
        embedding_size: Values of an embedding.
        settings: Any other settings by name; see `twinned.recipes.Settings`.
        far: False accept rate to choose the threshold at; equal error by default.
        seed: The same seed, data and machine give the same model.
        validate: Images to choose the threshold on, instead of classes held out.
        output: The model folder to write. Without it the model lies in a temporary folder until saved.
        resume: Go on with an interrupted run that wrote to ``output``.
        force: Replace ``output``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: Show bars.
        on_step: Called after each step.
        say: Called with each sentence that a user should read; by default kept in the model only.

    Raises:
        DataError: If there are fewer than two classes with two readable images.
        SettingError: If a setting is wrong, or ``output`` exists.
        TrainingError: If nothing could be learnt.
    """
    began = time.monotonic()
    where = torch.device(training_device(device))
    keep_freed_memory()
    notes: list[str] = []

    def tell(sentence: str) -> None:
        notes.append(sentence)
        if say is not None:
            say(sentence)

    source = load_data(data) if isinstance(data, (str, os.PathLike)) else data
    if isinstance(source, ImageSet):
        check_classes(source)
    remarks: list[str] = []  # kept back until nothing can be wrong with what was asked for
    plan = settle(
        source,
        recipe,
        {
            "encoder": encoder,
            "loss": loss,
            "distance": distance,
            "minutes": minutes,
            "steps": steps,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "margin": margin,
            "embedding_size": embedding_size,
            "far": far,
        },
        image_size=image_size,
        batch_size=batch_size,
        extra=dict(settings or {}),
        seed=seed,
        tell=remarks.append,
    )
    other = load_data(validate) if isinstance(validate, (str, os.PathLike)) else validate
    target = None if output is None else Path(output)
    if target is not None:
        given = [source.origin, *([other.origin] if other is not None else [])]
        finished = _claim(target, plan, given, resume=resume, force=force, tell=tell)
        if finished is not None:
            return finished
    for remark in remarks:
        tell(remark)
    spec = plan.spec()
    material = read(source, spec, tell=tell, progress=progress)
    for problem in check_data(source, spec=spec, seed=seed, progress=False, quick=True).problems:
        if problem.severity != "info" and problem.kind not in ("unreadable", "too_few"):  # said elsewhere
            tell(f"check: {problem.message}")
    spec = spec.model_copy(update=statistics(material.pixels))
    held_out: Material | None
    if other is not None:
        learn, held_out = material, read(other, spec, tell=tell, progress=progress)
        check_validation(learn, held_out)
    else:
        learn, held_out = hold_out(material, plan)

    relations = source.relations() if plan.head == "relation" and isinstance(source, PairSet) else {}
    run = Run(plan, spec, where, progress, on_step, tell, relations)
    if plan.minutes is not None:
        run.deadline = began + plan.minutes * 60 - FINISH_SECONDS
    work = partial(target) if target is not None else None
    try:
        share = 1 if held_out is not None else 1 / (1 + FOLD_SHARE * fold_count(learn))
        file = work and work / "main.safetensors"
        outcome = run.train(learn, held_out, file, title="Training", share=share)
        if outcome.state.stopped:
            tell(f"training stopped early: {outcome.state.stopped}; the best weights so far are kept")
        if held_out is not None:
            comparisons, unseen = run.compare(outcome.network, held_out), not shared_classes(learn, held_out)
        else:
            comparisons, unseen = run.cross_fit(learn, outcome, work, tell)
    except (Interrupted, KeyboardInterrupt) as stop:
        saved = work is not None and work.exists()
        hint = f"saved in {work}; go on with the same command and --resume" if saved else "nothing was saved"
        raise Interrupted(f"{str(stop) or 'stopped'}; {hint}") from None
    calibration = fit_calibration(comparisons, far=plan.far, unseen_classes=unseen, seed=plan.seed)
    examine(calibration, tell)
    with tempfile.TemporaryDirectory(prefix="twinned-") as folder:
        _write(Path(folder), run, outcome, learn, held_out, comparisons, calibration, notes)
        if target is not None:
            manifest.copy(Path(folder), target, force=force or resume)
            shutil.rmtree(partial(target), ignore_errors=True)
            return Model(target)
        kept: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="twinned-")
        manifest.copy(Path(folder), Path(kept.name), force=True)
        return Model(kept.name, temporary=kept)


def partial(target: Path) -> Path:
    """Where an unfinished run that will write to ``target`` keeps its checkpoints."""
    return target.with_name(target.name + ".partial")


def _claim(
    target: Path, plan: Settings, data: list[str], *, resume: bool, force: bool, tell: Say
) -> Model | None:
    """Make sure that the model may be written, before any work is done for it.

    Returns:
        The model, where the run to resume is finished already.
    """
    work = partial(target)
    if resume and not work.exists():
        if (target / "model.json").is_file():
            model = Model(target)
            differences = setting_differences(model.manifest.recipe, plan.model_dump(mode="json"))
            if differences:
                raise SettingError(f"{target}: is finished, by a run with other settings ({differences})")
            tell(f"{target}: this run is finished; there is nothing to resume")
            return model
        tell(f"{work}: no interrupted run is there, so this one starts from the beginning")
    manifest.refuse_target(target, force=force or resume, data=data)
    if work.exists() and not resume:
        if not force:
            raise SettingError(
                f"{work}: an interrupted run; --resume to go on with it, --force to begin anew"
            )
        shutil.rmtree(work)
    return None


def _write(
    folder: Path,
    run: Run,
    outcome: Outcome[SiameseNetwork],
    learn: Material,
    held_out: Material | None,
    comparisons: Comparisons,
    calibration: Calibration,
    notes: list[str],
) -> None:
    """Fill a model folder."""
    from . import __version__

    network = outcome.network.eval().cpu()
    export.export_encoder(network, run.spec, folder / "encoder.onnx")
    has_head = export.export_head(network, folder / "head.onnx")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
    classes = learn.labelled.classes if learn.labelled else []
    settings = run.settings.model_dump(mode="json")
    manifest.write_text(
        folder / "training.json",
        json.dumps(
            {
                "recipe": settings["recipe"],
                "settings": settings,
                "seed": run.settings.seed,
                "steps": outcome.state.step,
                "seconds": round(outcome.state.seconds, 2),
                "bfloat16": outcome.state.bfloat16,
                "layers": network.layers(),
                "classes": classes,
                "held_out_classes": held_out.labelled.classes if held_out and held_out.labelled else [],
                "images": sorted(learn.hashes),
                "held_out_images": sorted(held_out.hashes) if held_out else [],
            },
            indent=1,
        )
        + "\n",
    )
    names = list(outcome.state.history[0]) if outcome.state.history else ["step"]
    rows = [",".join(f"{row[n]:.6g}" for n in names) for row in outcome.state.history]
    manifest.write_text(folder / "history.csv", "\n".join([",".join(names), *rows]) + "\n")
    manifest.write(
        folder,
        Manifest(
            twinned=__version__,
            encoder=run.settings.encoder,
            spec=run.spec,
            embedding_size=network.embedding_size,
            normalized=network.normalize,
            distance=network.head.name,
            head=has_head,
            relations=list(run.relations),
            calibration=calibration,
            classes=classes,
            data=fingerprint(learn) | {"classes": len(classes)},
            held_out={
                "images": len(held_out.hashes) if held_out else 0,
                "classes": held_out.labelled.classes if held_out and held_out.labelled else [],
                "eer": calibration.eer,
                "eer_ci": calibration.eer_ci,
                "curve": _curve(comparisons),
            },
            recipe=settings,
            notes=notes,
        ),
    )


def _curve(comparisons: Comparisons) -> dict[str, list[float]]:
    """How false accepts and false rejects trade on the held-out comparisons, in at most 200 points or so."""
    pairs = comparisons.hardest()
    found = roc(pairs.distance, pairs.same).thinned(200)
    finite = np.isfinite(found.threshold)
    return {
        name: [float(f"{v:.6g}") for v in getattr(found, name)[finite]]
        for name in ("threshold", "far", "frr")
    }
