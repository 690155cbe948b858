"""`finetune`: train a model further, and evaluate it on the data of its original task."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Unpack

from ..data.datasets import ImageSet, PairSet
from ..data.readers import Data, as_dataset
from ..errors import DataError
from ..evaluation.results import NAMES
from ..inference import model_folder
from ..inference.model import Model
from ..utils.notes import Note, note
from . import distributed
from .api import train, with_new_names
from .options import FinetuneOptions
from .process import interruptible
from .state import Interrupted


def finetune(
    model: Model | str | os.PathLike[str],
    data: Data,
    output: str | os.PathLike[str] | None = None,
    *,
    old: Data | None = None,
    **options: Unpack[FinetuneOptions],
) -> Model:
    """Train a model further, on other images: new classes, a new task, a new image size.

    The result is not worse than the model before, on classes that training did not see: with fewer than 60
    classes, folds of them are held out in turn. Where training does not help, the encoder stays unchanged,
    with a threshold for the new images, and a note reports it.

    Args:
        model: Model to start from, or its folder.
        data: Images or pairs, as for `train`.
        output: Model folder to write; by default a temporary folder, until `Model.save`.
        old: Data of the original task; both models are evaluated on them.
        **options: Arguments and options of `train`. By default they are the model's own, with a lower
            learning rate unless the model was fine-tuned before. ``recipe`` changes the way of training, not
            the encoder or its input.

    Raises:
        SettingError: If the model was wrapped, or does not support an option.
        DataError: If there are fewer than two classes with two readable images.
    """
    given = with_new_names(dict(options))
    before = model if isinstance(model, Model) else Model(model)
    earlier = None if old is None else as_dataset(old)
    if earlier is not None:
        if not earlier.has_both_kinds:
            raise DataError(
                f"`old=`: {earlier.origin}: evaluation needs two classes, one of them with two images"
            )
        if output is not None:
            force = any(map(given.get, ("resume", "overwrite")))
            model_folder.check_output(Path(output), force=force, data=[earlier.origin], option="overwrite")
    result = train(data, output, init_from=before, **given)
    if earlier is None or distributed.rank() > 0:
        return result
    with interruptible():
        return _measure_old(before, result, earlier, given.get("seed") or 0, given.get("progress", True))


def _measure_old(before: Model, after: Model, data: ImageSet | PairSet, seed: int, progress: bool) -> Model:
    """Evaluate both models on the original task, and keep the figures in the new model's folder."""
    try:
        found = {
            when: model.evaluate(data, seed=seed, progress=progress).headline()
            for when, model in (("before", before), ("after", after))
        }
    except DataError as error:
        raise DataError(f"`old=`: {error}; the model is saved in {after.folder}") from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped during evaluation on the old images; the model is saved in {after.folder}"
        ) from None
    changes = [
        f"{NAMES[key]} {value:.4f} before, {found['after'][key]:.4f} after"
        for key, value in found["before"].items()
    ]
    measured = Note("old-classes", f"on the old classes: {'; '.join(changes)}")
    note(*measured)
    held_out = after.manifest.held_out | {"old": found}
    earlier = [one for one in after.manifest.coded_notes() if one.code != measured.code]
    changed = after.manifest.with_notes([*earlier, measured]).model_copy(update={"held_out": held_out})
    model_folder.change(after.folder, after.folder, changed)
    after.manifest = model_folder.read(after.folder)
    return after
