"""From images to a model: recipe -> loop -> threshold -> export -> Model, in one place."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from . import encoders, manifest, outputs, together
from .auto import settle
from .check import check_data
from .checkpoint import setting_differences
from .data import ImageSet, PairSet
from .data import load as load_data
from .devices import asked_at, on_devices, training_device
from .errors import SettingError
from .judging import learn_and_judge
from .material import (
    Material,
    Say,
    check_classes,
    check_validation,
    identity,
    part_by_split,
    read,
    statistics,
)
from .memory import keep_freed_memory
from .model import Model
from .parent import Parent, untouched_encoder, weights_statistics
from .recipes import Settings
from .runs import Run
from .saving import write_model, write_untouched
from .training import Interrupted, Step
from .trial import TRIAL_SHARE, choose_network
from .verification import doubts, fit_calibration

# Seconds of a budget that are kept for threshold, export and saving; these take 4 to 9, and the command may
# take 10 more than its budget. A large encoder takes longer to export, which is measured.
FINISH_SECONDS = 3.0
_LATE = 10.0  # seconds over it, from which on that is said
_OF_A_RUN = (".safetensors", ".json", ".new")  # what `partial` holds

# Where the images are photographs, auto tries a small network and a pretrained encoder: recipes and changes.
_PRETRAINED = "efficientnet_lite0"
_TRIED: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "photo": (("photo-small", {}), ("photo", {})),
    "face": (("face", {}), ("face", {"encoder": f"{_PRETRAINED}_face"})),
    "signature": (("signature", {}), ("signature", {"encoder": f"{_PRETRAINED}_signature"})),
}


@on_devices
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
    devices: int = 1,
    progress: bool = True,
    on_step: Callable[[Step], None] | None = None,
    say: Say | None = None,
) -> Model:
    """Train a Siamese network on your images and return the saved model.

    A fifth of the classes (at least 4) is held out of training to choose the threshold on. With fewer than
    12 classes (60, over a network that has learnt before) none can be spared: the threshold comes from
    cross-fitting over classes instead.

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
        devices: How many of them, each with a process of its own and a share of every batch; the model is the
            one that a single process would have trained on the whole batch (docs/devices.md).
        progress: Show bars.
        on_step: Called after each step.
        say: Called with each sentence that a user should read; by default kept in the model only.

    Raises:
        DataError: If there are fewer than two classes with two readable images.
        SettingError: If a setting is wrong, or ``output`` exists.
        TrainingError: If nothing could be learnt.
    """
    began = asked_at()
    where = torch.device(training_device(device))
    keep_freed_memory()
    notes: list[str] = []

    def tell(sentence: str) -> None:
        notes.append(sentence)
        if say is not None:
            say(sentence)

    source = load_data(data) if isinstance(data, (str, os.PathLike)) else data
    other = load_data(validate) if isinstance(validate, (str, os.PathLike)) else validate
    whole = source
    source, other, remarks = part_by_split(source, other)
    if isinstance(source, ImageSet):
        check_classes(source)
    named: dict[str, Any] = {
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
    }

    def settled(name: str | Settings, told: Say, changes: Mapping[str, Any]) -> Settings:
        return settle(
            source,
            name,
            {**named, **changes},
            image_size=image_size,
            batch_size=batch_size,
            extra=dict(settings or {}),
            seed=seed,
            tell=told,
        )

    plan = settled(recipe, remarks.append, {})
    target = None if output is None else Path(output)
    ways = _TRIED.get(plan.recipe) if recipe == "auto" and encoders.installed(_PRETRAINED) else None
    free = encoder is None and {"encoder", "weights", "layer", "freeze", "thaw"}.isdisjoint(settings or {})
    if ways is not None and free and isinstance(source, ImageSet) and (budget := plan.minutes):
        if target is not None:
            manifest.refuse_target(target, force=force or resume, data=[source.origin])
        small, large = (settled(name, lambda _: None, changes) for name, changes in ways)
        if (before := _encoder_of(target) if resume else None) is not None:
            plan = large if before == large.encoder else small
        else:
            seconds = TRIAL_SHARE * 60 * budget
            try:
                plan = choose_network(
                    source, small, large, seconds=seconds, device=where, tell=remarks.append
                )
            except (Interrupted, KeyboardInterrupt):
                raise Interrupted("stopped while encoders were tried; nothing was saved") from None
    return make_model(
        source,
        plan,
        whole=whole,
        other=other,
        target=target,
        resume=resume,
        force=force,
        device=where,
        progress=progress,
        on_step=on_step,
        tell=tell,
        notes=notes,
        remarks=remarks,
        began=began,
    )


def _encoder_of(target: Path | None) -> str | None:
    """The encoder of a run that is gone on with, or is finished; None where there is none."""
    if target is None:
        return None
    file = partial(target) / "main.safetensors"
    try:
        if file.is_file():
            with safe_open(file, "pt") as checkpoint:
                return str(json.loads(checkpoint.metadata()["run"])["encoder"])
        if (target / "model.json").is_file() and not partial(target).exists():
            return manifest.read(target).encoder
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        pass  # the run itself says what is wrong with it
    return None


def make_model(
    source: ImageSet | PairSet,
    plan: Settings,
    *,
    whole: ImageSet | PairSet,
    other: ImageSet | PairSet | None,
    target: Path | None,
    resume: bool,
    force: bool,
    device: torch.device,
    progress: bool,
    on_step: Callable[[Step], None] | None,
    tell: Say,
    notes: list[str],
    remarks: list[str],
    began: float,
    old: ImageSet | PairSet | None = None,
    parent: Parent | None = None,
) -> Model:
    """From images and settings to a saved model: what `train` and `twinned.finetuning.finetune` share.

    Args:
        source: What to learn from.
        plan: The settings.
        whole: All that was given, for the check: what is marked to test with included.
        other: Images to choose the threshold on, where they are others.
        target: The model folder to write; None for a temporary one.
        resume: Go on with an interrupted run.
        force: Replace the target.
        device: Where to train.
        progress: Show bars.
        on_step: Called after each step.
        tell: Called with each sentence that a user should read; it appends to ``notes``.
        notes: What was said; it is kept in the model.
        remarks: To be said once nothing can be wrong any more with what was asked for.
        began: When the command began, by the monotonic clock.
        old: Images that the model is measured on afterwards.
        parent: The model to start from.
    """
    spec = plan.spec()

    def materials(say: Say) -> tuple[Material, Material | None]:
        chosen = None if other is None else read(other, spec, tell=say, progress=progress)
        return read(source, spec, tell=say, progress=progress), chosen

    def given(material: Material, validation: Material | None) -> dict[str, str | None]:
        """What identifies what the run was given, for one that is resumed."""
        chosen = None if validation is None else identity(validation)
        return {
            "data": identity(material),
            "validation": chosen,
            "model": None if parent is None else parent.sha256,
        }

    if target is not None:
        reads = [some.origin for some in (source, other, old) if some is not None]
        reads += [] if parent is None else [os.fspath(parent.model.folder)]
        if together.from_first(lambda: _is_finished(target, reads, resume=resume, force=force, tell=tell)):
            asked, before = Model(target).asked()
            now = plan.model_dump(mode="json") | (given(*materials(lambda _: None)) if before else {})
            if differences := setting_differences(asked | before, now):
                raise SettingError(
                    f"{target}: is finished, by a run with other settings or data ({differences})"
                )
            tell(f"{target}: this run is finished; there is nothing to resume")
            return Model(target)
    for remark in remarks:
        tell(remark)
    material, validation = materials(tell)
    for problem in check_data(whole, spec=spec, seed=plan.seed, progress=False, quick=True).problems:
        if problem.severity != "info" and problem.kind not in ("unreadable", "too_few"):  # said elsewhere
            tell(f"check: {problem.message}")
    if validation is not None:
        check_validation(material, validation)
    relations = source.relations() if plan.head == "relation" and isinstance(source, PairSet) else {}
    start = None if parent is None else parent.network
    untouched = untouched_encoder(plan, spec) if parent is None else start if parent.whole else None
    known = start or untouched
    fed = None if known is None else known.statistics
    if plan.weights is not None and fed is None:
        fed = weights_statistics(plan.weights, spec.channels)
    seen = spec.model_copy(update=fed or statistics(material.pixels))
    run = Run(plan, seen, device, progress, on_step, tell, relations, parent, untouched)
    if plan.weights is not None:
        tell(f"whether the weights of {Path(plan.weights).name} have learnt from these classes is not known")
        if fed is None:
            tell(
                f"{Path(plan.weights).name} does not hold the mean and deviation of the pixels that it was"
                " trained on, so those of these images are used; a model's weights.safetensors holds both"
            )
    work = partial(target) if target is not None else None
    written = False
    made: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="twinned-")
    with contextlib.ExitStack() as stack:
        stack.callback(made.cleanup)
        folder = Path(made.name)
        try:
            if plan.minutes is not None:
                export_seconds = together.from_first(lambda: write_untouched(folder, run))
                run.deadline = began + plan.minutes * 60 - FINISH_SECONDS - export_seconds
            learnt = learn_and_judge(run, material, validation, work)
            if parent is not None and parent.saw(learnt.held_out or material):
                learnt = replace(learnt, unseen=False)

            def save() -> None:
                nonlocal written
                calibration = fit_calibration(
                    learnt.judged.comparisons,
                    sets=learnt.judged.sets,
                    far=plan.far,
                    unseen_classes=learnt.unseen,
                    seed=plan.seed,
                )
                for doubt in doubts(calibration, learnt.judged.comparisons):
                    tell(f"doctor: {doubt}")
                write_model(folder, run, learnt, calibration, notes, given(material, validation))
                if target is not None:
                    manifest.copy(folder, target, force=force or resume)
                    written = True
                    shutil.rmtree(partial(target), ignore_errors=True)

            together.from_first(save) if target is not None else save()
        except (Interrupted, KeyboardInterrupt) as stop:
            saved = f"the model is written, in {target}" if written else _what_is_saved(work)
            raise Interrupted(f"{str(stop) or 'stopped'}; {saved}") from None
        took = time.monotonic() - began
        if plan.minutes is not None and took > plan.minutes * 60 + _LATE:
            tell(
                f"it took {took / 60:.1f} minutes where {plan.minutes:g} were given: what comes before and"
                " after training takes as long on this machine now"
            )
        if target is not None:
            return Model(target)
        stack.pop_all()  # the folder goes with the model
        return Model(folder, temporary=made)


def partial(target: Path) -> Path:
    """Where an unfinished run that will write to ``target`` keeps its checkpoints."""
    return target.with_name(target.name + ".partial")


def _what_is_saved(work: Path | None) -> str:
    """Say what an interrupted run has saved and how to go on; a folder without a checkpoint is removed."""
    if work is None or not any(work.glob("*.safetensors")):
        if work is not None and together.number() == 0:
            shutil.rmtree(work, ignore_errors=True)  # else it would be in the way of the same command
        return "nothing was saved"
    return f"saved in {work}; go on with the same command and --resume"


def _is_finished(target: Path, data: list[str], *, resume: bool, force: bool, tell: Say) -> bool:
    """Make sure that the model may be written, before any work is done for it.

    Returns:
        Whether the run to resume is finished already.
    """
    work = partial(target)
    outputs.refuse(work, force=True, data=data)
    if work.exists() and not (work.is_dir() and all(f.suffix in _OF_A_RUN for f in work.iterdir())):
        raise SettingError(f"{work}: is in the way, and holds no interrupted run; choose another output")
    if resume and not work.exists():
        if (target / "model.json").is_file():
            return True
        tell(f"{work}: no interrupted run is there, so this one starts from the beginning")
    manifest.refuse_target(target, force=force or resume, data=data)
    if work.exists() and not resume:
        if not force:
            raise SettingError(
                f"{work}: an interrupted run; --resume to go on with it, --force to begin anew"
            )
        shutil.rmtree(work)
    return False
