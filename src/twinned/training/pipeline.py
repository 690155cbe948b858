"""From data to a model: decode, train, score, calibrate, save."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..data.checks.checker import check_data
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import DecodedSet
from ..data.splits import check_validation
from ..errors import SettingError
from ..evaluation.fitting import fit_calibration
from ..evaluation.threshold_warnings import threshold_warnings
from ..inference import model_folder
from ..inference.model import Model
from ..nn.siamese import SiameseNetwork
from ..utils import files
from ..utils.notes import Note, collect, muted, note
from ..utils.progress import progress_bar
from . import distributed
from .budget import Budget
from .callbacks import Callback
from .checkpoint import setting_differences
from .config import TrainConfig
from .cross_validation import (
    FitResult,
    baseline_result,
    empty,
    fit_and_validate,
    keep_better,
    split_data,
    untrained_result,
)
from .parts import OwnParts
from .save import write_baseline, write_model
from .state import Interrupted
from .trainer import Trainer
from .warm_start import WarmStart, pretrained_baseline, weights_statistics

# Seconds of a time budget for threshold, export and saving, which take 4 to 9; the command may take
# `_LATE` seconds longer than its budget. The export of a large encoder is measured in addition.
FINISH_SECONDS = 3.0
_LATE = 10.0
_LEAST_SHARE = 0.5
# Suffixes of the files of an interrupted run.
_RUN_SUFFIXES = (".safetensors", ".json", ".new")


@dataclass(frozen=True, eq=False)
class RunData:
    """Datasets of a run.

    Args:
        train: Training data.
        validation: Separate data to fit the threshold on; None to hold some out.
        given: All data that was given, with images marked for testing, for the data check.
    """

    train: ImageSet | PairSet
    validation: ImageSet | PairSet | None
    given: ImageSet | PairSet


@dataclass(frozen=True)
class Output:
    """Model folder to write.

    Args:
        target: Folder; None for a temporary one.
        resume: Resume an interrupted run.
        overwrite: Replace an existing folder.
    """

    target: Path | None = None
    resume: bool = False
    overwrite: bool = False

    @property
    def checkpoints(self) -> Path | None:
        """Folder of the checkpoints."""
        return None if self.target is None else partial_folder(self.target)


def make_model(
    data: RunData,
    config: TrainConfig,
    output: Output,
    *,
    device: torch.device,
    start_time: float,
    notes: Sequence[Note] = (),
    warm_start: WarmStart | None = None,
    parts: OwnParts = OwnParts(),  # noqa: B008 - immutable
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Model:
    """Train a model and write its folder.

    Args:
        data: Training and validation data.
        config: Configuration of the run.
        output: Model folder to write.
        device: Device to train on.
        start_time: Start of the command on the monotonic clock, in seconds.
        notes: Notes to emit once the arguments have been validated.
        warm_start: Model whose weights are the initial weights.
        parts: Parts of one's own, in place of those that the configuration names.
        callbacks: Called after steps and evaluations.
        progress: Show progress bars.
    """
    if _is_finished(data, config, output, warm_start, progress=progress):
        assert output.target is not None
        note("finished", f"{output.target}: this run is finished; there is nothing to resume")
        return Model(output.target)
    with collect() as collected, ExitStack() as stack:
        for earlier in (*notes, *(warm_start.notes if warm_start is not None else ())):
            note(*earlier)
        train, validation = _decode(data, config, progress=progress)
        with progress_bar("Checking the images", show=progress):
            _check(data, train, validation, config)
        with progress_bar("Preparing the network", show=progress):
            trainer = _make_trainer(
                train,
                data,
                config,
                warm_start,
                parts,
                device=device,
                callbacks=callbacks,
                progress=progress,
            )
        temporary: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="twinned-")
        folder, saved = Path(temporary.name), False
        stack.callback(temporary.cleanup)
        try:
            with progress_bar("Preparing the network", show=progress):
                budget = _budget(trainer, folder, start_time)
            result = _fit(trainer, train, validation, budget, output.checkpoints)
            if warm_start is not None and warm_start.was_trained_on(result.held_out or train):
                result = replace(result, unseen=False)

            def save() -> None:
                nonlocal saved
                train.finish()
                given = _given(train, validation, warm_start)
                _write(folder, trainer, result, given, collected)
                if output.target is not None:
                    model_folder.copy(folder, output.target, force=output.overwrite or output.resume)
                    saved = True
                    shutil.rmtree(partial_folder(output.target), ignore_errors=True)

            with progress_bar("Saving the model", show=progress):
                distributed.broadcast_from_rank0(save) if output.target is not None else save()
        except (Interrupted, KeyboardInterrupt) as stop:
            kept = f"the model is saved in {output.target}" if saved else _what_is_saved(output.checkpoints)
            raise Interrupted(f"{str(stop) or 'stopped'}; {kept}") from None
        _note_overrun(config, start_time)
        if output.target is not None:
            return Model(output.target)
        stack.pop_all()  # the model deletes the folder
        return Model(folder, temporary=temporary)


def _fit(
    trainer: Trainer, data: DecodedSet, validation: DecodedSet | None, budget: Budget, folder: Path | None
) -> FitResult:
    """Train and score a network, and keep the baseline if it is better or nothing is trained."""
    config, baseline = trainer.config, trainer.baseline
    if (
        baseline is not None
        and trainer.baseline_is_usable
        and config.length.steps == 0
        and config.encoder.embedding_size is None
    ):
        return baseline_result(trainer, data, validation)
    trains = config.length.steps != 0 or trainer.has_lda_projection(trainer.build())
    if not trains and baseline is None and config.transfer.projection != "lda":
        return untrained_result(trainer, trainer.fit(data, validation).network, data, validation)
    data, validation = trainer.cache_features(
        data, validation, budget=budget, record=folder and folder / "prepared.json"
    )
    split = split_data(data, validation, config, has_baseline=baseline is not None)
    if baseline is not None and split.validation is None and not split.n_folds:
        note(
            "baseline-kept",
            "fewer than 4 classes are too few to score a trained network, so the encoder is kept untrained",
        )
        return baseline_result(trainer, data, None)
    result = fit_and_validate(trainer, split, budget=budget, folder=folder)
    result = keep_better(result, trainer, data, validation)
    if trains:
        return result
    return replace(result, train=empty(result.train), unseen=result.unseen or result.held_out is not None)


def _decode(data: RunData, config: TrainConfig, *, progress: bool) -> tuple[DecodedSet, DecodedSet | None]:
    """Decode the training and the validation data; many files later, unless there is a reason against it.

    Validation data must not share images with the training data, and a time budget has to cover all decoding.
    """
    lazy = data.validation is None and config.length.minutes is None

    def decode(images: ImageSet | PairSet) -> DecodedSet:
        return DecodedSet.from_images(images, config.spec(), progress=progress, lazy=lazy)

    validation = None if data.validation is None else decode(data.validation)
    return decode(data.train), validation


def _check(data: RunData, train: DecodedSet, validation: DecodedSet | None, config: TrainConfig) -> None:
    """Note problems of the data, and raise an error if no threshold can be fitted on the validation data."""
    report = check_data(data.given, spec=config.spec(), seed=config.seed, progress=False, quick=True)
    for problem in report.problems:
        # Unreadable images and missing classes are noted or raised elsewhere.
        if problem.severity != "info" and problem.kind not in ("unreadable", "too_few"):
            note(f"check-{problem.kind}", f"check: {problem.message}")
    if validation is not None:
        check_validation(train, validation)


def _make_trainer(
    train: DecodedSet,
    data: RunData,
    config: TrainConfig,
    warm_start: WarmStart | None,
    parts: OwnParts,
    *,
    device: torch.device,
    callbacks: Sequence[Callback],
    progress: bool,
) -> Trainer:
    """Create the trainer, with the baseline and the statistics of the input."""
    spec = config.spec()
    relations = {}
    if config.comparison.head == "relation" and isinstance(data.train, PairSet):
        relations = data.train.relations()
    baseline: SiameseNetwork | None
    known: dict[str, tuple[float, ...]] | None
    if warm_start is not None:
        baseline = warm_start.network if warm_start.complete else None
        known = warm_start.network.statistics
    else:
        baseline = pretrained_baseline(config, spec)
        known = parts.statistics(config) if baseline is None else baseline.statistics
    if config.encoder.weights is not None:
        known = known or weights_statistics(config.encoder.weights, spec.channels)
        name = Path(config.encoder.weights).name
        note("weights", f"the classes that the weights of {name} were trained on are not known")
        if known is None:
            text = f"{name} does not contain the mean and std of the pixels that it was trained on"
            note("weights-statistics", f"{text}, so those of these images are used")
    return Trainer(
        config,
        spec.model_copy(update=known or train.statistics()),
        device=device,
        relations=relations,
        warm_start=warm_start,
        baseline=baseline,
        parts=parts,
        callbacks=callbacks,
        progress=progress,
    )


def _budget(trainer: Trainer, folder: Path, start_time: float) -> Budget:
    """Return the time budget for training; the baseline is exported to measure the time of an export.

    At least `_LEAST_SHARE` of the minutes is for training, however long it took to prepare the run.
    """
    minutes = trainer.config.length.minutes
    if minutes is None:
        return Budget()
    export_seconds = distributed.broadcast_from_rank0(lambda: write_baseline(folder, trainer))
    end = start_time + minutes * 60 - FINISH_SECONDS - export_seconds
    return Budget(max(end, time.monotonic() + _LEAST_SHARE * minutes * 60))


def _write(
    folder: Path,
    trainer: Trainer,
    result: FitResult,
    given: dict[str, str | None],
    collected: list[Note],
) -> None:
    """Fit the threshold and write the model folder."""
    config, comparisons = trainer.config, result.score.comparisons
    calibration = fit_calibration(
        comparisons,
        sets=result.score.sets,
        far=config.calibration.far,
        unseen_classes=result.unseen,
        seed=config.seed,
    )
    for warning in threshold_warnings(calibration, comparisons):
        note(*warning)
    write_model(folder, trainer, result, calibration, collected, given)


def _given(
    train: DecodedSet, validation: DecodedSet | None, warm_start: WarmStart | None
) -> dict[str, str | None]:
    """Return hashes of the data and of the initial model, which a resumed run must share."""
    return {
        "data": train.sha256(),
        "validation": None if validation is None else validation.sha256(),
        "model": None if warm_start is None else warm_start.sha256,
    }


def _note_overrun(config: TrainConfig, start_time: float) -> None:
    elapsed = time.monotonic() - start_time
    if config.length.minutes is not None and elapsed > config.length.minutes * 60 + _LATE:
        note(
            "overrun",
            f"the run took {elapsed / 60:.1f} instead of {config.length.minutes:g} minutes: reading, scoring"
            " and saving take that long on this machine",
        )


def partial_folder(target: Path) -> Path:
    """Return the folder of the checkpoints of an unfinished run that writes to ``target``."""
    return target.with_name(target.name + ".partial")


def _what_is_saved(work: Path | None) -> str:
    """Describe what an interrupted run has saved; a folder without a checkpoint is removed."""
    if work is None or not any(work.glob("*.safetensors")):
        if work is not None and distributed.rank() == 0:
            shutil.rmtree(work, ignore_errors=True)  # otherwise the same command would refuse to start
        return "nothing was saved"
    return f"saved in {work}; continue with the same arguments and `resume=True`"


def _is_finished(
    data: RunData, config: TrainConfig, output: Output, warm_start: WarmStart | None, *, progress: bool
) -> bool:
    """Return True if the run to resume is finished already.

    Raises:
        SettingError: If the model must not be written, or the finished run had other settings or data.
    """
    target = output.target
    if target is None:
        return False
    inputs = [some.origin for some in (data.train, data.validation) if some is not None]
    inputs += [] if warm_start is None else [os.fspath(warm_start.model.folder)]
    if not distributed.broadcast_from_rank0(lambda: _check_target(target, inputs, output)):
        return False
    asked, before = Model(target).record.requested_config
    with suppress(SettingError):  # a wrapped model has none
        asked = TrainConfig.from_saved(asked).model_dump(mode="json")
    now = config.model_dump(mode="json")
    if before:
        with muted():
            now |= _given(*_decode(data, config, progress=progress), warm_start)
    if differences := setting_differences(asked | before, now):
        raise SettingError(
            f"{target} already holds a finished run with different settings or data ({differences}). Choose"
            " another output, or `overwrite=True` to replace it."
        )
    return True


def _check_target(target: Path, data: list[str], output: Output) -> bool:
    """Raise an error if the model must not be written; return True if the run to resume is finished."""
    work = partial_folder(target)
    files.check_output(work, force=True, data=data)
    if work.exists() and not (work.is_dir() and all(f.suffix in _RUN_SUFFIXES for f in work.iterdir())):
        raise SettingError(f"{work} exists and is not an interrupted run. Choose another output.")
    if output.resume and not work.exists():
        if (target / "model.json").is_file():
            return True
        note("nothing-to-resume", f"{work} does not exist, so the run starts from the beginning")
    model_folder.check_output(target, force=output.overwrite or output.resume, data=data, option="overwrite")
    if work.exists() and not output.resume:
        if not output.overwrite:
            raise SettingError(
                f"{work} holds an interrupted run. Continue it with `resume=True`, or start again"
                " with `overwrite=True`."
            )
        shutil.rmtree(work)
    return False
