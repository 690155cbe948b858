"""From images to a model: recipe -> loop -> threshold -> export -> Model, in one place."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ..data.checks.checker import check_data
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import DecodedSet, Say
from ..data.splits import check_validation
from ..errors import SettingError
from ..evaluation.calibration import fit_calibration
from ..evaluation.threshold_warnings import threshold_warnings
from ..inference import model_folder
from ..inference.model import Model
from ..utils import files
from ..utils.notes import collect
from . import distributed
from .checkpoint import setting_differences
from .config import Settings
from .cross_validation import fit_and_validate
from .save import write_baseline, write_model
from .state import Interrupted, Step
from .trainer import Trainer
from .warm_start import WarmStart, pretrained_baseline, weights_statistics

# Seconds of a budget that are kept for threshold, export and saving; these take 4 to 9, and the command may
# take 10 more than its budget. A large encoder takes longer to export, which is measured.
FINISH_SECONDS = 3.0
_LATE = 10.0  # seconds over it, from which on that is said
_OF_A_RUN = (".safetensors", ".json", ".new")  # what `partial` holds


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
    parent: WarmStart | None = None,
) -> Model:
    """From images and settings to a saved model: what `train` and `twinned.training.finetune.finetune` share.

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

    def materials(say: Say) -> tuple[DecodedSet, DecodedSet | None]:
        with collect() as found:
            chosen = None if other is None else DecodedSet.from_images(other, spec, progress=progress)
            material = DecodedSet.from_images(source, spec, progress=progress)
        for note in found:
            say(note.text)
        return material, chosen

    def given(material: DecodedSet, validation: DecodedSet | None) -> dict[str, str | None]:
        """What identifies what the run was given, for one that is resumed."""
        chosen = None if validation is None else validation.sha256()
        return {
            "data": material.sha256(),
            "validation": chosen,
            "model": None if parent is None else parent.sha256,
        }

    if target is not None:
        reads = [some.origin for some in (source, other, old) if some is not None]
        reads += [] if parent is None else [os.fspath(parent.model.folder)]
        if distributed.broadcast_from_rank0(
            lambda: _is_finished(target, reads, resume=resume, force=force, tell=tell)
        ):
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
    baseline = pretrained_baseline(plan, spec) if parent is None else start if parent.whole else None
    known = start or baseline
    fed = None if known is None else known.statistics
    if plan.weights is not None and fed is None:
        fed = weights_statistics(plan.weights, spec.channels)
    seen = spec.model_copy(update=fed or material.statistics())
    run = Trainer(plan, seen, device, progress, on_step, tell, relations, parent, baseline)
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
                export_seconds = distributed.broadcast_from_rank0(lambda: write_baseline(folder, run))
                run.deadline = began + plan.minutes * 60 - FINISH_SECONDS - export_seconds
            learnt = fit_and_validate(run, material, validation, work)
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
                for doubt in threshold_warnings(calibration, learnt.judged.comparisons):
                    tell(f"doctor: {doubt}")
                write_model(folder, run, learnt, calibration, notes, given(material, validation))
                if target is not None:
                    model_folder.copy(folder, target, force=force or resume)
                    written = True
                    shutil.rmtree(partial(target), ignore_errors=True)

            distributed.broadcast_from_rank0(save) if target is not None else save()
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
        if work is not None and distributed.rank() == 0:
            shutil.rmtree(work, ignore_errors=True)  # else it would be in the way of the same command
        return "nothing was saved"
    return f"saved in {work}; go on with the same command and --resume"


def _is_finished(target: Path, data: list[str], *, resume: bool, force: bool, tell: Say) -> bool:
    """Make sure that the model may be written, before any work is done for it.

    Returns:
        Whether the run to resume is finished already.
    """
    work = partial(target)
    files.refuse(work, force=True, data=data)
    if work.exists() and not (work.is_dir() and all(f.suffix in _OF_A_RUN for f in work.iterdir())):
        raise SettingError(f"{work}: is in the way, and holds no interrupted run; choose another output")
    if resume and not work.exists():
        if (target / "model.json").is_file():
            return True
        tell(f"{work}: no interrupted run is there, so this one starts from the beginning")
    model_folder.refuse_target(target, force=force or resume, data=data)
    if work.exists() and not resume:
        if not force:
            raise SettingError(
                f"{work}: an interrupted run; --resume to go on with it, --force to begin anew"
            )
        shutil.rmtree(work)
    return False
