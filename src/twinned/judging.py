"""A run of training, judged on classes that it did not see against the encoder that it started from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .checkpoint import State
from .judged import Judged
from .material import Material, hold_out, shared_classes, usable_classes
from .network import SiameseNetwork
from .recipes import Settings
from .runs import Run, fold_count

# With one to compare with and fewer classes than this, all are learnt from and folds of them judge.
JUDGE_BELOW = 60


@dataclass(frozen=True, eq=False)
class Learnt:
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


def learn_and_judge(run: Run, material: Material, validation: Material | None, work: Path | None) -> Learnt:
    """Train, and measure on classes held out; where the untouched encoder is as good on them, keep that."""
    s, untouched, parent = run.settings, run.untouched, run.parent
    if untouched is not None and run.may_stay and s.steps == 0 and s.embedding_size is None:
        return _leave(run, untouched, material, validation)
    material, validation = run.prepare(material, validation, note=work and work / "prepared.json")
    learn, held_out = material, validation
    classes = 0 if material.labelled is None else len(usable_classes(material.labelled))
    if validation is None and not (untouched is not None and 0 < classes < JUDGE_BELOW):
        learn, held_out = hold_out(material, s)
    folds = 0 if held_out is not None else fold_count(learn)
    if untouched is not None and held_out is None and not folds:
        run.tell(
            "fewer than 4 classes are too few to judge what is learnt from them: the encoder stays as it is"
        )
        return _leave(run, untouched, material, None)
    file = work and work / "main.safetensors"
    outcome = run.train(learn, held_out, file, title="Training", folds=folds)
    before: Judged | None = None
    if folds:
        judged, before = run.cross_fit(learn, outcome, work)
    else:
        judged = run.judge(outcome.network, held_out or learn)
        if untouched is not None and held_out is not None:
            before = run.judge(run.tail(untouched.to(run.device)), held_out)
            before = before if run.may_stay else before._replace(relation=None)
    if before is not None and untouched is not None:
        flattered = parent is not None and parent.saw(held_out or learn)
        known = held_out is not None and shared_classes(learn, held_out)
        figures = (
            f"on {'images' if known else 'classes'} that it did not see"
            f"{', of classes that it learnt from' if known else ''}"
            f"{', though the model before it did' if flattered else ''}:"
            f" {before} untouched, {judged} after training"
        )
        if not run.may_stay:
            run.tell(f"same from different, which is all that can be compared, {figures}")
        elif not _better(before, judged):
            run.tell(f"the encoder stays untouched, because training made it no better {figures}")
            return _leave(run, untouched, material, validation, before)
        else:
            run.tell(f"better than the untouched encoder {figures}")
    unseen = bool(folds) or (held_out is not None and not shared_classes(learn, held_out))
    return Learnt(run.whole(outcome.network), s, learn, held_out, judged, unseen, outcome.state, before)


def _better(before: Judged, after: Judged) -> bool:
    """Whether both kinds of error together are fewer."""
    return after.errors < before.errors


def _leave(
    run: Run,
    untouched: SiameseNetwork,
    material: Material,
    validation: Material | None,
    judged: Judged | None = None,
) -> Learnt:
    """The untouched encoder, its threshold from all images: it learnt from none of them."""
    described = {"embedding_size": None, "head": "distance", "distance": "cosine", "normalize": True}
    described |= {"symmetric": False}
    if run.parent is not None:
        recipe = run.parent.model.manifest.recipe
        described = {name: recipe.get(name, value) for name, value in described.items()}
    return Learnt(
        untouched,
        run.settings.change(described | {"steps": 0, "minutes": None, "epochs": None}),
        material.part(np.array([], np.intp)),
        validation or material,
        judged or run.judge(run.tail(untouched.to(run.device)), validation or material),
        True,
        State(total=0),
    )
