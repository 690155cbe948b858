"""From the arguments of `twinned.train` to a model: set up, decode, train, score, calibrate, save."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ..data.checks.checker import check_data
from ..data.datasets import ImageSet, PairSet
from ..data.decoded import DecodedSet
from ..data.faces.photographs import share_with_faces
from ..data.readers import as_dataset
from ..data.splits import check_classes, check_validation, split_by_column
from ..errors import SettingError, many
from ..inference import model_folder
from ..inference.model import Model
from ..inference.ready_made import READY_MADE
from ..inference.wrap import placed
from ..losses.base import is_pairwise
from ..nn import encoders
from ..nn.siamese import SiameseNetwork
from ..utils import files
from ..utils.notes import Note, collect, muted, note
from ..utils.progress import progress_bar
from . import distributed, recipes
from .checkpoint import partial_folder, setting_differences
from .config import TrainConfig, short_name
from .cross_validation import fit_best
from .encoder_selection import choose_encoder
from .options import TrainRequest
from .parts import OwnParts, split_arguments
from .process import keep_freed_memory, kept_random_state, training_device
from .rules import DataFacts, resolve
from .save import data_hashes, write_baseline, write_model
from .schedule import Budget
from .state import Interrupted
from .trainer import Trainer
from .warm_start import (
    WarmStart,
    base_config,
    check_kept,
    config_of,
    load_for_input,
    pretrained_baseline,
    weights_statistics,
)

# Seconds of a time budget for threshold, export and saving, which take 4 to 9; the command may take
# `_LATE` seconds longer than its budget. The export of a large encoder is measured in addition.
FINISH_SECONDS = 3.0
_LATE = 10.0
_LEAST_SHARE = 0.5
# Suffixes of the files of an interrupted run.
_RUN_SUFFIXES = (".safetensors", ".json", ".new")
# Options that the user can set where auto starts from the ready-made model of faces; others are for a network
# of their own.
_OPEN = ("seed", "run.", "calibration.", "length.minutes", "transfer.", "input.faces", "input.min_face")
_STARTS_FROM_FACE = (
    'training starts from the ready-made model face; `recipe="face"` trains a network on these images alone'
)
_TRAINS_ALONE = (
    "a network is trained on these images alone, not from the ready-made model face, because {} is set"
)


class Setup(NamedTuple):
    """Input of a run, before training."""

    train: ImageSet | PairSet
    validation: ImageSet | PairSet | None  # to fit the threshold on; None to hold some out
    given: ImageSet | PairSet  # with images marked for testing, for the data check
    config: TrainConfig
    notes: list[Note]
    parts: OwnParts
    model: Model | None  # to start from


@kept_random_state()
def run(request: TrainRequest) -> Model:
    """Train a model in this process and write its folder; see `twinned.train`."""
    started = time.monotonic() if request.started is None else request.started
    keep_freed_memory()
    device = torch.device(training_device(request.device))
    with progress_bar("Reading the data", show=request.progress):
        setup = set_up(request, device)
    warm_start = None
    if setup.model is not None:
        warm_start = load_for_input(setup.model, setup.config, setup.parts)
    target = None if request.output is None else Path(request.output)
    if target is not None and _is_finished(target, request, setup, warm_start):
        note("finished", f"{target}: this run is finished; there is nothing to resume")
        return Model(target)
    with collect() as collected, tempfile.TemporaryDirectory(prefix="twinned-") as temporary:
        for earlier in (*setup.notes, *(warm_start.notes if warm_start is not None else ())):
            note(*earlier)
        train, validation = _decode(setup, progress=request.progress)
        with progress_bar("Checking the images", show=request.progress):
            _check(setup, train, validation)
        with progress_bar("Preparing the network", show=request.progress):
            trainer = make_trainer(train, setup, request, warm_start, device)
        folder, saved = Path(temporary), False
        checkpoints, length, budget = target and partial_folder(target), setup.config.length, Budget()
        try:
            if length.minutes is not None:
                with progress_bar("Preparing the network", show=request.progress):
                    seconds = distributed.broadcast_from_rank0(lambda: write_baseline(folder, trainer))
                end = started + length.minutes * 60 - FINISH_SECONDS - seconds
                # However long the preparation takes, this share of the minutes is for training.
                budget = Budget(max(end, time.monotonic() + _LEAST_SHARE * length.minutes * 60))
            result = fit_best(trainer, train, validation, budget, checkpoints)
            if warm_start is not None and warm_start.was_trained_on(result.held_out or train):
                result = replace(result, unseen=False)

            def save() -> None:
                nonlocal saved
                train.finish()
                write_model(folder, trainer, result, collected, data_hashes(train, validation, warm_start))
                if target is not None:
                    model_folder.copy(folder, target, force=request.overwrite or request.resume)
                    saved = True
                    shutil.rmtree(partial_folder(target), ignore_errors=True)

            with progress_bar("Saving the model", show=request.progress):
                distributed.broadcast_from_rank0(save) if target is not None else save()
        except (Interrupted, KeyboardInterrupt) as stop:
            kept = f"the model is saved in {target}" if saved else _what_is_saved(checkpoints)
            raise Interrupted(f"{str(stop) or 'stopped'}; {kept}") from None
        elapsed = time.monotonic() - started
        if length.minutes is not None and elapsed > length.minutes * 60 + _LATE:
            took = f"{elapsed / 60:.1f} instead of {length.minutes:g} minutes"
            note("overrun", f"the run took {took}, for reading, scoring and saving")
        return placed(folder, None) if target is None else Model(target)


def set_up(request: TrainRequest, device: torch.device | None = None) -> Setup:
    """Read the data and resolve the configuration; recipe auto compares encoders if there is a device."""
    parts, changes = split_arguments(request.options)
    given, config, source = as_dataset(request.data), request.config, request.init_from
    other = None if request.validation is None else as_dataset(request.validation)
    train, other, remarks = split_by_column(given, other)
    if isinstance(train, ImageSet):
        check_classes(train)
        size = f"{many(len(train), 'image')} of {many(len(train.classes), 'class')}"
    else:
        size = f"{many(len(train), 'pair')} of {many(len(train.images), 'image')}"
    notes = [*(Note("split", remark) for remark in remarks), Note("data", size)]
    facts = DataFacts.of(train, pair_loss=parts.loss is not None and is_pairwise(parts.loss))
    recipe, seed = request.options.get("recipe"), int(changes.get("seed", 0))
    is_auto = recipe == "auto" or (recipe is None and source is None and config is None)
    if config is not None and recipe is not None:
        raise SettingError(f"Set a recipe ({recipe}) or a configuration; not both")
    if config is not None:
        changes = {"encoder.name": config.encoder.name, "input.faces": config.input.faces} | changes
    elif is_auto:
        fixed = changes.keys() & {"encoder.name", "encoder.weights"} or "encoder" in parts.given()
        faces = source is None and not fixed and changes.get("input.faces") != "none"
        config, reason = recipes.choose(train, seed=seed, faces=faces)
        notes.append(reason)
        if config.input.faces == "largest":
            facts = facts._replace(faces=recipes.PEOPLE)
            own = [*parts.given(), *(short_name(name) for name in changes if not name.startswith(_OPEN))]
            if isinstance(train, ImageSet) and not own:
                source, config = READY_MADE["face"].folder(), None
            text = _TRAINS_ALONE.format(own[0]) if own else _STARTS_FROM_FACE
            notes += [Note("ready-made", text)] if isinstance(train, ImageSet) else []
    elif recipe is not None:
        config = recipes.get(recipe)
    model = source if source is None or isinstance(source, Model) else Model(source)
    if model is not None:
        base, text = base_config(model, config, train)
        notes.append(Note("finetuned-from", text))
        kept = {"encoder.name": base.encoder.name, "input.faces": base.input.faces}
        config, more = resolve(base, kept | changes, facts)
        check_kept(config_of(model), config)
    else:
        assert config is not None
        if recipe == "face" and "input.faces" not in changes:
            facts = facts._replace(faces=share_with_faces(train.images, seed=seed))
        config, more = resolve(config, changes, facts)
    config, missing = parts.finish(config)
    notes += [*more, *missing]
    if is_auto and model is None and device is not None and isinstance(train, ImageSet) and not parts.given():
        config, why = choose_encoder(train, config, changes, facts, request, device)
        notes += why
    return Setup(train, other, given, config, notes, parts, model)


def make_trainer(
    train: DecodedSet,
    setup: Setup,
    request: TrainRequest,
    warm_start: WarmStart | None,
    device: torch.device,
) -> Trainer:
    """Create the trainer of a run, with the baseline and the statistics of the input."""
    config, spec, parts, pairs = setup.config, setup.config.spec(), setup.parts, setup.train
    baseline: SiameseNetwork | None = None
    known: dict[str, tuple[float, ...]] | None = None
    if warm_start is not None:
        baseline = warm_start.network if warm_start.complete else None
        known = warm_start.network.statistics
    elif encoders.is_pretrained(config.encoder.name):
        baseline = pretrained_baseline(config, spec)
        known = baseline.statistics
    elif parts.encoder is not None:
        encoder = parts.make_encoder(config)
        if encoder.mean is not None and encoder.std is not None:
            known = {"mean": encoder.mean, "std": encoder.std}
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
        relations=pairs.relations()
        if config.comparison.head == "relation" and isinstance(pairs, PairSet)
        else {},
        warm_start=warm_start,
        baseline=baseline,
        parts=parts,
        callbacks=request.callbacks,
        progress=request.progress,
    )


def _decode(setup: Setup, *, progress: bool) -> tuple[DecodedSet, DecodedSet | None]:
    """Decode the data; many files during training, unless validation or a time budget need all now."""
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


def _what_is_saved(work: Path | None) -> str:
    """Describe what an interrupted run has saved; a folder without a checkpoint is removed."""
    if work is None or not any(work.glob("*.safetensors")):
        if work is not None and distributed.rank() == 0:
            shutil.rmtree(work, ignore_errors=True)  # otherwise the same command would refuse to start
        return "nothing was saved"
    return f"saved in {work}; continue with the same arguments and `resume=True`"


def _is_finished(target: Path, request: TrainRequest, setup: Setup, warm_start: WarmStart | None) -> bool:
    """Return True if the run to resume is finished already, with the same settings and data."""
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
            now |= data_hashes(*_decode(setup, progress=request.progress), warm_start)
    if differences := setting_differences(asked | before, now):
        raise SettingError(
            f"{target} already holds a finished run with different settings or data ({differences}). Choose"
            " another output, or `overwrite=True` to replace it."
        )
    return True


def _check_target(target: Path, data: list[str], request: TrainRequest) -> bool:
    """Raise an error if the model must not be written; return True if the run to resume is finished."""
    work = partial_folder(target)
    files.check_output(work, force=True, data=data)
    if work.exists() and not (work.is_dir() and all(f.suffix in _RUN_SUFFIXES for f in work.iterdir())):
        raise SettingError(f"{work} exists and is not an interrupted run. Choose another output.")
    if request.resume and not work.exists():
        if (target / "model.json").is_file():
            return True
        note("nothing-to-resume", f"{work} does not exist, so the run starts from the beginning")
    model_folder.check_output(
        target, force=request.overwrite or request.resume, data=data, option="overwrite"
    )
    if work.exists() and not request.resume:
        if not request.overwrite:
            remedy = "Continue it with `resume=True`, or start again with `overwrite=True`."
            raise SettingError(f"{work} holds an interrupted run. {remedy}")
        shutil.rmtree(work)
    return False
