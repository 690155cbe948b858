"""A run of training, judged on classes that it did not see against the encoder that it started from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.decoded import DecodedSet
from ..data.splits import class_folds, hold_out, shared_classes
from ..nn.siamese import SiameseNetwork
from .checkpoint import State
from .config import Settings
from .trainer import FOLD_SHARE, Trainer
from .validation import ValidationScore

_FOLDS = 3
# With one to compare with and fewer classes than this, all are learnt from and folds of them judge.
CROSS_VALIDATE_BELOW = 60


@dataclass(frozen=True, eq=False)
class FitResult:
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
    learn: DecodedSet
    held_out: DecodedSet | None
    judged: ValidationScore
    unseen: bool
    state: State
    baseline: ValidationScore | None = None


def fit_and_validate(
    run: Trainer, material: DecodedSet, validation: DecodedSet | None, work: Path | None
) -> FitResult:
    """Train, and measure on classes held out; where the untouched encoder is as good on them, keep that."""
    s, baseline, parent = run.settings, run.baseline, run.parent
    if baseline is not None and run.baseline_is_usable and s.steps == 0 and s.embedding_size is None:
        return _keep_baseline(run, baseline, material, validation)
    learns = s.steps != 0 or run.solves(run.build())
    if not learns and baseline is None and s.layer != "solved":
        network = run.train(material, validation, None, title="Training").network
        return _untrained(run, network, s, material, validation)
    material, validation = run.prepare(material, validation, note=work and work / "prepared.json")
    learn, held_out = material, validation
    classes = 0 if material.labelled is None else len(material.labelled.usable_classes())
    if validation is None and not (baseline is not None and 0 < classes < CROSS_VALIDATE_BELOW):
        learn, held_out = hold_out(material, fraction=s.held_out, seed=s.seed)
    folds = 0 if held_out is not None else _fold_count(learn)
    if baseline is not None and held_out is None and not folds:
        run.tell(
            "fewer than 4 classes are too few to judge what is learnt from them: the encoder stays as it is"
        )
        return _keep_baseline(run, baseline, material, None)
    file = work and work / "main.safetensors"
    outcome = run.train(learn, held_out, file, title="Training", folds=folds)
    before: ValidationScore | None = None
    if folds:
        judged, before = _cross_fit(run, learn, folds, outcome.state.total, work)
    else:
        judged = run.judge(outcome.network, held_out or learn)
        if baseline is not None and held_out is not None:
            before = run.judge(run.tail(baseline.to(run.device)), held_out)
            before = before if run.baseline_is_usable else before._replace(relation=None)
    if before is not None and baseline is not None:
        flattered = parent is not None and parent.saw(held_out or learn)
        known = held_out is not None and shared_classes(learn, held_out)
        figures = (
            f"on {'images' if known else 'classes'} that it did not see"
            f"{', of classes that it learnt from' if known else ''}"
            f"{', though the model before it did' if flattered else ''}:"
            f" {before} untouched, {judged} after training"
        )
        if not run.baseline_is_usable:
            run.tell(f"same from different, which is all that can be compared, {figures}")
        elif not _better(before, judged):
            run.tell(f"the encoder stays untouched, because training made it no better {figures}")
            return _keep_baseline(run, baseline, material, validation, before)
        else:
            run.tell(f"better than the untouched encoder {figures}")
    learn = learn if learns else _none_of(learn)
    unseen = bool(folds) or (held_out is not None and not shared_classes(learn, held_out))
    return FitResult(run.whole(outcome.network), s, learn, held_out, judged, unseen, outcome.state, before)


def _fold_count(learn: DecodedSet) -> int:
    """How many folds cross-fitting takes: each needs two classes; 0 with fewer than 4."""
    usable = len(learn.images.usable_classes())
    return min(_FOLDS, usable // 2) if usable >= 4 else 0


def _cross_fit(
    run: Trainer, learn: DecodedSet, folds: int, steps: int | None, work: Path | None
) -> tuple[ValidationScore, ValidationScore | None]:
    """What networks make of classes that they did not see, by training one more for each fold of them.

    Args:
        run: As the main one was.
        learn: What that learnt from.
        folds: How many; see `_fold_count`.
        steps: How many the main one took.
        work: Where the runs are saved.

    Returns:
        The trained ones, and the untouched one where there is one.
    """
    usable = learn.images.usable_classes()
    run.tell(
        f"{len(usable)} classes are too few to hold some out:"
        f" the threshold comes from {folds} folds of them, each with a training of its own"
    )
    trained, baseline = [], []
    start = None if run.baseline is None else run.tail(run.baseline.to(run.device))
    steps = max(1, round(steps * FOLD_SHARE)) if steps else 0
    for fold, (inside, outside) in enumerate(class_folds(learn, folds, seed=run.settings.seed)):
        file, title = work and work / f"fold{fold + 1}.safetensors", f"Threshold {fold + 1}/{folds}"
        left = folds - fold - 1
        outcome = run.train(inside, None, file, title=title, steps=steps, judged=outside, folds=left)
        if "not finite" in (outcome.state.stopped or ""):
            run.tell(f"doctor: {title}: {outcome.state.stopped}. Use a smaller --learning-rate")
        trained.append(run.judge(outcome.network, outside))
        if start is not None:
            baseline.append(run.judge(start, outside))
    return ValidationScore.together(trained), ValidationScore.together(baseline) if baseline else None


def _better(before: ValidationScore, after: ValidationScore) -> bool:
    """Whether both kinds of error together are fewer, and the equal error rate no higher."""
    return after.errors < before.errors and after.eer <= before.eer


def _keep_baseline(
    run: Trainer,
    baseline: SiameseNetwork,
    material: DecodedSet,
    validation: DecodedSet | None,
    judged: ValidationScore | None = None,
) -> FitResult:
    """The untouched encoder, its threshold from all images: it learnt from none of them."""
    described = {"embedding_size": None, "head": "distance", "distance": "cosine", "normalize": True}
    described |= {"symmetric": False}
    if run.parent is not None:
        recipe = run.parent.model.manifest.recipe
        described = {name: recipe.get(name, value) for name, value in described.items()}
    settings = run.settings.change(described | {"steps": 0, "minutes": None, "epochs": None})
    return _untrained(run, baseline, settings, material, validation, judged)


def _untrained(
    run: Trainer,
    network: SiameseNetwork,
    settings: Settings,
    material: DecodedSet,
    validation: DecodedSet | None,
    judged: ValidationScore | None = None,
) -> FitResult:
    """Judge a network that is fitted to none of the images: all of them choose its threshold."""
    judged = judged or run.judge(run.tail(network.to(run.device)), validation or material)
    nothing, state = _none_of(material), State(total=0)
    return FitResult(network, settings, nothing, validation or material, judged, True, state)


def _none_of(material: DecodedSet) -> DecodedSet:
    return material.subset(np.array([], np.intp))
