"""From data to a model: decode, train, score, calibrate, save."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import torch

from ..data.checks.checker import check_data
from ..data.datasets import PairSet
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
from .checkpoint import partial_folder, setting_differences
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
from .encoder_selection import choose_encoder
from .options import TrainRequest
from .process import keep_freed_memory, kept_random_state, training_device
from .save import write_baseline, write_model
from .setup import Setup, set_up
from .state import Interrupted
from .trainer import Trainer
from .warm_start import WarmStart, config_of, load_for_input, pretrained_baseline, weights_statistics

# Seconds of a time budget for threshold, export and saving, which take 4 to 9; the command may take
# `_LATE` seconds longer than its budget. The export of a large encoder is measured in addition.
FINISH_SECONDS = 3.0
_LATE = 10.0
# Suffixes of the files of an interrupted run.
_RUN_SUFFIXES = (".safetensors", ".json", ".new")


@kept_random_state()
def run(request: TrainRequest) -> Model:
    """Train a model in this process and write its folder; see `twinned.train`."""
    started = time.monotonic() if request.started is None else request.started
    device = torch.device(training_device(request.device))
    keep_freed_memory()
    with progress_bar("Reading the data", show=request.progress):
        setup = set_up(request)
    warm_start = None
    if setup.model is None:
        setup = choose_encoder(setup, request, device)
    else:
        warm_start = load_for_input(setup.model, config_of(setup.model), setup.config, setup.parts)
    target = None if request.output is None else Path(request.output)
    if target is not None and _is_finished(target, request, setup, warm_start):
        note("finished", f"{target}: this run is finished; there is nothing to resume")
        return Model(target)
    with collect() as collected, ExitStack() as stack:
        for earlier in (*setup.notes, *(warm_start.notes if warm_start is not None else ())):
            note(*earlier)
        train, validation = _decode(setup, progress=request.progress)
        with progress_bar("Checking the images", show=request.progress):
            _check(setup, train, validation)
        with progress_bar("Preparing the network", show=request.progress):
            trainer = _make_trainer(train, setup, request, warm_start, device)
        temporary: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory(prefix="twinned-")
        folder, saved = Path(temporary.name), False
        stack.callback(temporary.cleanup)
        checkpoints = None if target is None else partial_folder(target)
        try:
            with progress_bar("Preparing the network", show=request.progress):
                budget = _budget(trainer, folder, started)
            result = _fit(trainer, train, validation, budget, checkpoints)
            if warm_start is not None and warm_start.was_trained_on(result.held_out or train):
                result = replace(result, unseen=False)

            def save() -> None:
                nonlocal saved
                train.finish()
                given = _given(train, validation, warm_start)
                _write(folder, trainer, result, given, collected)
                if target is not None:
                    model_folder.copy(folder, target, force=request.overwrite or request.resume)
                    saved = True
                    shutil.rmtree(partial_folder(target), ignore_errors=True)

            with progress_bar("Saving the model", show=request.progress):
                distributed.broadcast_from_rank0(save) if target is not None else save()
        except (Interrupted, KeyboardInterrupt) as stop:
            kept = f"the model is saved in {target}" if saved else _what_is_saved(checkpoints)
            raise Interrupted(f"{str(stop) or 'stopped'}; {kept}") from None
        _note_overrun(setup.config, started)
        if target is not None:
            return Model(target)
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


def _decode(setup: Setup, *, progress: bool) -> tuple[DecodedSet, DecodedSet | None]:
    """Decode the training and the validation data; many files later, unless there is a reason against it.

    Validation data must not share images with the training data, and a time budget has to cover all decoding.
    """
    spec, lazy = setup.config.spec(), setup.validation is None and setup.config.length.minutes is None
    validation = None
    if setup.validation is not None:
        validation = DecodedSet.from_images(setup.validation, spec, progress=progress)
    return DecodedSet.from_images(setup.train, spec, progress=progress, lazy=lazy), validation


def _check(setup: Setup, train: DecodedSet, validation: DecodedSet | None) -> None:
    """Note problems of the data, and raise an error if no threshold can be fitted on the validation data."""
    spec, seed = setup.config.spec(), setup.config.seed
    for problem in check_data(setup.given, spec=spec, seed=seed, progress=False, quick=True).problems:
        # Unreadable images and missing classes are noted or raised elsewhere.
        if problem.severity != "info" and problem.kind not in ("unreadable", "too_few"):
            note(f"check-{problem.kind}", f"check: {problem.message}")
    if validation is not None:
        check_validation(train, validation)


def _make_trainer(
    train: DecodedSet,
    setup: Setup,
    request: TrainRequest,
    warm_start: WarmStart | None,
    device: torch.device,
) -> Trainer:
    """Create the trainer, with the baseline and the statistics of the input."""
    config, spec, parts = setup.config, setup.config.spec(), setup.parts
    relations = {}
    if config.comparison.head == "relation" and isinstance(setup.train, PairSet):
        relations = setup.train.relations()
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
        callbacks=request.callbacks,
        progress=request.progress,
    )


def _budget(trainer: Trainer, folder: Path, start_time: float) -> Budget:
    """Return the time budget for training; the baseline is exported to measure the time of an export."""
    minutes = trainer.config.length.minutes
    if minutes is None:
        return Budget()
    export_seconds = distributed.broadcast_from_rank0(lambda: write_baseline(folder, trainer))
    return Budget(start_time + minutes * 60 - FINISH_SECONDS - export_seconds)


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


def _what_is_saved(work: Path | None) -> str:
    """Describe what an interrupted run has saved; a folder without a checkpoint is removed."""
    if work is None or not any(work.glob("*.safetensors")):
        if work is not None and distributed.rank() == 0:
            shutil.rmtree(work, ignore_errors=True)  # otherwise the same command would refuse to start
        return "nothing was saved"
    return f"saved in {work}; continue with the same command and --resume"


def _is_finished(target: Path, request: TrainRequest, setup: Setup, warm_start: WarmStart | None) -> bool:
    """Return True if the run to resume is finished already.

    Raises:
        SettingError: If the model must not be written, or the finished run had other settings or data.
    """
    inputs = [some.origin for some in (setup.train, setup.validation) if some is not None]
    inputs += [] if warm_start is None else [os.fspath(warm_start.model.folder)]
    if not distributed.broadcast_from_rank0(lambda: _check_target(target, inputs, request)):
        return False
    asked, before = Model(target).record.requested_config
    with suppress(SettingError):  # a wrapped model has none
        asked = TrainConfig.from_saved(asked).model_dump(mode="json")
    now = setup.config.model_dump(mode="json")
    if before:
        with muted():
            now |= _given(*_decode(setup, progress=request.progress), warm_start)
    if differences := setting_differences(asked | before, now):
        raise SettingError(
            f"{target} already holds a finished run with different settings or data ({differences}). Choose"
            " another --output, or --force to overwrite it."
        )
    return True


def _check_target(target: Path, data: list[str], request: TrainRequest) -> bool:
    """Raise an error if the model must not be written; return True if the run to resume is finished."""
    work = partial_folder(target)
    files.check_output(work, force=True, data=data)
    if work.exists() and not (work.is_dir() and all(f.suffix in _RUN_SUFFIXES for f in work.iterdir())):
        raise SettingError(f"{work} exists and is not an interrupted run. Choose another --output.")
    if request.resume and not work.exists():
        if (target / "model.json").is_file():
            return True
        note("nothing-to-resume", f"{work} does not exist, so the run starts from the beginning")
    model_folder.check_output(target, force=request.overwrite or request.resume, data=data)
    if work.exists() and not request.resume:
        if not request.overwrite:
            raise SettingError(
                f"{work} holds an interrupted run. Continue it with --resume, or start again with --force."
            )
        shutil.rmtree(work)
    return False
