"""From images to a model: recipe -> loop -> threshold -> export -> Model, in one place."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from . import export, manifest
from .auto import settle
from .check import check_data
from .checkpoint import State, setting_differences
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
    thin,
    usable_classes,
)
from .memory import keep_freed_memory
from .model import Model
from .network import SiameseNetwork
from .recipes import Settings
from .runs import FOLD_SHARE, Judged, Run, fold_count, training_device, untouched_encoder
from .training import Interrupted, Step
from .untouched import UNTOUCHED
from .verification import Calibration, Comparisons, choose_enrolment, fit_calibration, roc

# Seconds of a budget that are kept for threshold, export and saving; these take 4 to 9, and the command may
# take 10 more than its budget.
FINISH_SECONDS = 3.0
# With an untouched encoder to compare with: two to export.
FINISH_UNTOUCHED = 10.0
# With one to compare with and fewer classes than this, all are learnt from and folds of them judge.
JUDGE_BELOW = 40


@dataclass(frozen=True, eq=False)
class Parent:
    """A model to start from.

    Args:
        model: Its folder.
        network: Its network, at the new image size and number of channels.
        whole: Whether all of its weights came along, so that it is of use as it is.
    """

    model: Model
    network: SiameseNetwork
    whole: bool

    def saw(self, material: Material) -> bool:
        """Whether it was trained on some of these images or, at another size, classes of their names."""
        if self.model.spec.shape == material.pixels.shape[1:]:
            return not self.model.training_hashes().isdisjoint(material.hashes)
        classes = material.labelled.classes if material.labelled is not None else []
        return not set(self.model.manifest.classes).isdisjoint(classes)


@dataclass(frozen=True, eq=False)
class _Learnt:
    """What a run comes to.

    Args:
        network: The one to keep.
        settings: Those that describe it.
        learn: What it learnt from; nothing where it is the untouched encoder.
        held_out: What the threshold is chosen on; None where it comes from folds of what was learnt from.
        judged: What it makes of these.
        unseen: Whether their classes are others than those learnt from.
        state: Of training.
        untouched: What the encoder made of them before, where that was worse.
    """

    network: SiameseNetwork
    settings: Settings
    learn: Material
    held_out: Material | None
    judged: Judged
    unseen: bool
    state: State
    untouched: Judged | None = None


# Pixel values of held-out images by which the way to tell labels in a gallery is chosen: half a second.
_ENROL_VALUES = 20_000_000


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
    return make_model(
        source,
        plan,
        other=load_data(validate) if isinstance(validate, (str, os.PathLike)) else validate,
        target=None if output is None else Path(output),
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


def make_model(
    source: ImageSet | PairSet,
    plan: Settings,
    *,
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
    parent: Parent | None = None,
) -> Model:
    """From images and settings to a saved model: what `train` and `twinned.finetuning.finetune` share.

    Args:
        source: What to learn from.
        plan: The settings.
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
        parent: The model to start from.
    """
    if target is not None:
        given = [source.origin, *([other.origin] if other is not None else [])]
        given += [] if parent is None else [os.fspath(parent.model.folder)]
        finished = _claim(target, plan, given, resume=resume, force=force, tell=tell)
        if finished is not None:
            return finished
    for remark in remarks:
        tell(remark)
    spec = plan.spec()
    material = read(source, spec, tell=tell, progress=progress)
    for problem in check_data(source, spec=spec, seed=plan.seed, progress=False, quick=True).problems:
        if problem.severity != "info" and problem.kind not in ("unreadable", "too_few"):  # said elsewhere
            tell(f"check: {problem.message}")
    validation = None if other is None else read(other, spec, tell=tell, progress=progress)
    if validation is not None:
        check_validation(material, validation)
    relations = source.relations() if plan.head == "relation" and isinstance(source, PairSet) else {}
    start = None if parent is None else parent.network
    untouched = untouched_encoder(plan, spec) if parent is None else start if parent.whole else None
    known = start or untouched
    spec = spec.model_copy(update=statistics(material.pixels) if known is None else known.statistics)
    if relations:
        untouched = None  # it has no answer to what is asked now
    run = Run(plan, spec, device, progress, on_step, tell, relations, start, untouched)
    if plan.minutes is not None:
        finish = FINISH_SECONDS if untouched is None else FINISH_UNTOUCHED
        run.deadline = began + plan.minutes * 60 - finish
    work = partial(target) if target is not None else None
    try:
        learnt = _learn(run, material, validation, work, parent)
    except (Interrupted, KeyboardInterrupt) as stop:
        saved = work is not None and work.exists()
        hint = f"saved in {work}; go on with the same command and --resume" if saved else "nothing was saved"
        raise Interrupted(f"{str(stop) or 'stopped'}; {hint}") from None
    if parent is not None and parent.saw(learnt.held_out or material):
        learnt = replace(learnt, unseen=False)
    calibration = fit_calibration(
        learnt.judged.comparisons, far=plan.far, unseen_classes=learnt.unseen, seed=plan.seed
    )
    examine(calibration, tell)
    with tempfile.TemporaryDirectory(prefix="twinned-") as folder:
        _write(Path(folder), run, learnt, calibration, notes, parent)
        if target is not None:
            manifest.copy(Path(folder), target, force=force or resume)
            shutil.rmtree(partial(target), ignore_errors=True)
            return Model(target)
        kept: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="twinned-")
        manifest.copy(Path(folder), Path(kept.name), force=True)
        return Model(kept.name, temporary=kept)


def _learn(
    run: Run, material: Material, validation: Material | None, work: Path | None, parent: Parent | None
) -> _Learnt:
    """Train, and measure on classes held out; where the untouched encoder is as good on them, keep that."""
    s, untouched = run.settings, run.untouched
    if untouched is not None and s.steps == 0 and s.embedding_size is None:
        return _leave(run, untouched, material, validation, parent)
    material = run.prepare(material, validation, note=work and work / "prepared.json")
    learn, held_out = material, validation
    classes = 0 if material.labelled is None else len(usable_classes(material.labelled))
    if validation is None and not (untouched is not None and 0 < classes < JUDGE_BELOW):
        learn, held_out = hold_out(material, s)
    folds = 0 if held_out is not None else fold_count(learn)
    if untouched is not None and held_out is None and not folds:
        run.tell(
            "fewer than 4 classes are too few to judge what is learnt from them: the encoder stays as it is"
        )
        return _leave(run, untouched, material, None, parent)
    file, share = work and work / "main.safetensors", 1 / (1 + FOLD_SHARE * folds)
    outcome = run.train(learn, held_out, file, title="Training", share=share)
    if outcome.state.stopped:
        run.tell(f"training stopped early: {outcome.state.stopped}; the best weights so far are kept")
    before: Judged | None = None
    if folds:
        judged, before = run.cross_fit(learn, outcome, work)
    else:
        judged = run.judge(outcome.network, held_out or learn)
        if untouched is not None and held_out is not None:
            before = run.judge(run.tail(untouched.to(run.device)), held_out)
    if before is not None and untouched is not None:
        figures = f"on classes that it did not see: {before} untouched, {judged} after training"
        if not _better(before, judged):
            run.tell(f"the encoder stays untouched, because training made it no better {figures}")
            return _leave(run, untouched, material, validation, parent, before)
        run.tell(f"better than the untouched encoder {figures}")
    unseen = bool(folds) or (held_out is not None and not shared_classes(learn, held_out))
    return _Learnt(run.whole(outcome.network), s, learn, held_out, judged, unseen, outcome.state, before)


def _better(before: Judged, after: Judged) -> bool:
    """Whether both kinds of error together are fewer."""
    return after.errors < before.errors


def _leave(
    run: Run,
    untouched: SiameseNetwork,
    material: Material,
    validation: Material | None,
    parent: Parent | None,
    judged: Judged | None = None,
) -> _Learnt:
    """The untouched encoder, its threshold from all images: it learnt from none of them."""
    described = {"embedding_size": None, "head": "distance", "distance": "cosine", "normalize": True}
    if parent is not None:
        described = {name: parent.model.manifest.recipe[name] for name in described}
    return _Learnt(
        untouched,
        run.settings.change(described | {"steps": 0, "minutes": None, "epochs": None}),
        material.part(np.array([], np.intp)),
        validation or material,
        judged or run.judge(run.tail(untouched.to(run.device)), validation or material),
        True,
        State(total=0),
    )


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
    learnt: _Learnt,
    calibration: Calibration,
    notes: list[str],
    parent: Parent | None,
) -> None:
    """Fill a model folder."""
    from . import __version__

    learn, held_out, state = learnt.learn, learnt.held_out, learnt.state
    network = learnt.network.eval().cpu()
    export.export_encoder(network, run.spec, folder / "encoder.onnx")
    if learnt.untouched is not None and run.untouched is not None and not run.untouched.head.learned:
        if parent is not None and parent.model.spec == run.spec:
            shutil.copyfile(parent.model.folder / "encoder.onnx", folder / UNTOUCHED)
        else:
            export.export_encoder(run.untouched.eval().cpu(), run.spec, folder / UNTOUCHED)
    has_head = export.export_head(network, folder / "head.onnx")
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "weights.safetensors")
    classes = learn.labelled.classes if learn.labelled else []
    before: dict[str, Any] = {}
    if learnt.untouched is not None and run.untouched is not None:
        before = {"untouched": _figures(learnt.untouched) | {"distance": run.untouched.head.name}}
    settings = learnt.settings.model_dump(mode="json")
    manifest.write_text(
        folder / "training.json",
        json.dumps(
            {
                "recipe": settings["recipe"],
                "settings": settings,
                "seed": run.settings.seed,
                "steps": state.step,
                "seconds": round(state.seconds, 2),
                "bfloat16": state.bfloat16,
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
    names = list(state.history[0]) if state.history else ["step"]
    rows = [",".join(f"{row[n]:.6g}" for n in names) for row in state.history]
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
            relations=list(run.relations) if has_head else [],
            calibration=calibration,
            classes=classes,
            data=fingerprint(learn) | {"classes": len(classes)},
            held_out={
                "images": len(held_out.hashes) if held_out else 0,
                "classes": held_out.labelled.classes if held_out and held_out.labelled else [],
                "eer": calibration.eer,
                "eer_ci": calibration.eer_ci,
                "curve": _curve(learnt.judged.comparisons),
            }
            | before,
            recipe=settings,
            notes=notes,
            licence=network.encoder.licence or (parent.model.manifest.licence if parent else None),
        ),
    )
    if held_out is not None and held_out.labelled is not None and not has_head:
        _choose_enrolment(folder, held_out, run.settings.seed)


def _choose_enrolment(folder: Path, held_out: Material, seed: int) -> None:
    """Whether a gallery tells a label by the nearest of its images or by their mean, kept in model.json."""
    some = thin(held_out, min(2000, _ENROL_VALUES // held_out.pixels[0].size))
    genuine = ~some.images.forgery
    model = Model(folder)
    vectors = model.embed_pixels(some.pixels[genuine])
    found = choose_enrolment(vectors, some.images.labels[genuine], model.distances, seed=seed)
    manifest.write(folder, model.manifest.enrolling(found))


def _figures(judged: Judged) -> dict[str, float]:
    return {"eer": judged.eer, "recall_at_1": judged.recall}


def _curve(comparisons: Comparisons) -> dict[str, list[float]]:
    """How false accepts and false rejects trade on the held-out comparisons, in at most 200 points or so."""
    pairs = comparisons.hardest()
    found = roc(pairs.distance, pairs.same).thinned(200)
    finite = np.isfinite(found.threshold)
    return {
        name: [float(f"{v:.6g}") for v in getattr(found, name)[finite]]
        for name in ("threshold", "far", "frr")
    }
