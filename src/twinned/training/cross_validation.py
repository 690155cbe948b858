"""Fit and score on held-out classes or on folds, and keep the better of the fit and the baseline."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..data.decoded import DecodedSet
from ..data.splits import class_folds, hold_out, shared_classes
from ..nn.siamese import SiameseNetwork
from ..utils.notes import note
from .config import TrainConfig
from .schedule import Budget
from .state import State, StopReason
from .trainer import Trainer
from .validation import ValidationScore
from .warm_start import config_of

_MAX_FOLDS = 3
# A fold is trained for this fraction of the main run's steps.
_FOLD_STEPS = 0.5
# With a baseline and fewer classes, all classes are trained on and folds of them score the network.
CROSS_VALIDATE_BELOW = 60


@dataclass(frozen=True, eq=False)
class FitResult:
    """Network to keep, and its scores."""

    network: SiameseNetwork
    config: TrainConfig  # describes the network
    train: DecodedSet  # empty for a baseline
    held_out: DecodedSet | None  # the threshold is fitted on; None if that is folds of ``train``
    score: ValidationScore
    unseen: bool  # the classes of the score differ from those of training
    state: State
    baseline: ValidationScore | None = None  # of the network before training, where it was worse


def fit_best(
    trainer: Trainer, data: DecodedSet, validation: DecodedSet | None, budget: Budget, folder: Path | None
) -> FitResult:
    """Train and score a network, and keep the baseline if it is better or nothing is trained.

    The score is that on ``validation``, or on data held out. ``folder`` is that of the checkpoints.
    """
    config, baseline = trainer.config, trainer.baseline
    fits_nothing = config.length.steps == 0 and config.encoder.embedding_size is None
    if baseline is not None and trainer.baseline_is_usable and fits_nothing:
        return baseline_result(trainer, data, validation)
    trains = config.length.steps != 0 or trainer.has_lda_projection(trainer.build())
    if not trains and baseline is None and config.transfer.projection != "lda":
        return untrained_result(trainer, trainer.fit(data, validation).network, data, validation)
    data, validation = trainer.cache_features(
        data, validation, budget=budget, record=folder and folder / "prepared.json"
    )
    train, held_out, n_folds = split_data(data, validation, config, has_baseline=baseline is not None)
    if baseline is not None and held_out is None and not n_folds:
        note("baseline-kept", "fewer than 4 classes are too few to score a network, so the encoder is kept")
        return baseline_result(trainer, data, None)
    result = _fit_and_validate(trainer, train, held_out, n_folds, budget=budget, folder=folder)
    result = keep_better(result, trainer, data, validation)
    if trains:
        return result
    return replace(result, train=empty(result.train), unseen=result.unseen or result.held_out is not None)


def split_data(
    data: DecodedSet, validation: DecodedSet | None, config: TrainConfig, *, has_baseline: bool
) -> tuple[DecodedSet, DecodedSet | None, int]:
    """Split data into training and held-out classes, or return all of it and a number of folds."""
    n_classes = 0 if data.labelled is None else len(data.labelled.usable_classes())
    train = data
    if validation is None and not (has_baseline and 0 < n_classes < CROSS_VALIDATE_BELOW):
        train, validation = hold_out(data, fraction=config.calibration.validation_fraction, seed=config.seed)
    if validation is not None:
        return train, validation, 0
    usable = len(train.images.usable_classes())
    return train, None, min(_MAX_FOLDS, usable // 2) if usable >= 4 else 0


def _fit_and_validate(
    trainer: Trainer,
    train: DecodedSet,
    validation: DecodedSet | None,
    n_folds: int,
    *,
    budget: Budget,
    folder: Path | None,
) -> FitResult:
    """Train a network and score it, and the baseline if there is one, on classes held out or on folds."""
    result = trainer.fit(
        train,
        validation,
        budget=budget.share(1 / (1 + _FOLD_STEPS * n_folds)),
        checkpoint=folder and folder / "main.safetensors",
        later_fits=n_folds,
    )
    before: ValidationScore | None = None
    if n_folds:
        state = result.state
        steps = state.step if state.stopped is StopReason.CALLBACK else state.total
        score, before = _score_folds(trainer, train, n_folds, steps=steps, budget=budget, folder=folder)
    else:
        score = trainer.score(result.network, validation or train)
        if trainer.baseline is not None and validation is not None:
            before = trainer.score(trainer.baseline, validation)
            before = before if trainer.baseline_is_usable else before._replace(relation=None)
    unseen = bool(n_folds) or (validation is not None and not shared_classes(train, validation))
    return FitResult(result.network, trainer.config, train, validation, score, unseen, result.state, before)


def _score_folds(
    trainer: Trainer,
    train: DecodedSet,
    n_folds: int,
    *,
    steps: int | None,
    budget: Budget,
    folder: Path | None,
) -> tuple[ValidationScore, ValidationScore | None]:
    """Train one network per fold on the other folds, and score it and the baseline on its own."""
    usable = train.images.usable_classes()
    note(
        "cross-validation",
        f"{len(usable)} classes are too few to hold some out, so the threshold is fitted on {n_folds} folds"
        " of them, and one network is trained for each",
        level=logging.DEBUG,
    )
    steps = max(1, round(steps * _FOLD_STEPS)) if steps else 0
    trained, baseline = [], []
    folds = class_folds(train, n_folds, seed=trainer.config.seed)
    for fold, (inside, outside) in enumerate(folds, start=1):
        title, left = f"Threshold {fold}/{n_folds}", n_folds - fold
        result = trainer.fit(
            inside,
            budget=budget.share(1 / (1 + left)),
            checkpoint=folder and folder / f"fold{fold}.safetensors",
            title=title,
            steps=steps,
            scored=outside,
            later_fits=left,
            whole=train,
        )
        if result.state.stopped is StopReason.NOT_FINITE:
            note("not-finite", f"{title}: {result.state.stopped_because}. Use a smaller learning rate")
        trained.append(trainer.score(result.network, outside))
        if trainer.baseline is not None:
            baseline.append(trainer.score(trainer.baseline, outside))
    concatenate = ValidationScore.concatenate
    return concatenate(trained), concatenate(baseline) if baseline else None


def keep_better(
    result: FitResult, trainer: Trainer, data: DecodedSet, validation: DecodedSet | None
) -> FitResult:
    """Replace a trained network by the baseline unless training reduced its errors."""
    before, after, baseline = result.baseline, result.score, trainer.baseline
    if before is None or baseline is None:
        return result
    held_out, warm_start = result.held_out, trainer.warm_start
    known_classes = held_out is not None and shared_classes(result.train, held_out)
    where = f"on held-out {'images of training classes' if known_classes else 'classes'}"
    if warm_start is not None and warm_start.was_trained_on(held_out or result.train):
        where += ", on which the initial model was trained"
    figures = f"{where}: {before} before training, {after} after training"
    if not trainer.baseline_is_usable:
        note("trained", f"compared as same or different only, {figures}")
    elif is_better(before, after):
        note("trained", f"training improved the encoder {figures}")
    else:
        note("baseline-kept", f"the encoder before training is kept: training did not improve it {figures}")
        return baseline_result(trainer, data, validation, before)
    return result


def is_better(before: ValidationScore, after: ValidationScore) -> bool:
    """Return True if the sum of errors is lower, and the equal error rate not higher."""
    return after.errors < before.errors and after.eer <= before.eer


def baseline_result(
    trainer: Trainer,
    data: DecodedSet,
    validation: DecodedSet | None,
    score: ValidationScore | None = None,
) -> FitResult:
    """Return the baseline as the result; its threshold is fitted on all images, as it was trained on none."""
    assert trainer.baseline is not None
    described = {"head": "distance", "distance": "cosine", "normalize": True}
    described |= {"embedding_size": None, "symmetric": False}
    if trainer.warm_start is not None:
        theirs = config_of(trainer.warm_start.model)
        described = {name: theirs.get(name) for name in described}
    config = trainer.config.merge(described | {"steps": 0})
    result = untrained_result(trainer, trainer.baseline, data, validation, score)
    return replace(result, config=config)


def untrained_result(
    trainer: Trainer,
    network: SiameseNetwork,
    data: DecodedSet,
    validation: DecodedSet | None,
    score: ValidationScore | None = None,
) -> FitResult:
    """Return a network that was trained on none of the images, with a threshold from all of them."""
    held_out = validation or data
    score = score or trainer.score(network, held_out)
    return FitResult(network, trainer.config, empty(data), held_out, score, unseen=True, state=State(total=0))


def empty(data: DecodedSet) -> DecodedSet:
    """Return a dataset without images."""
    return data.subset(np.array([], np.intp))
