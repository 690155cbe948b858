"""From a model to a better one: other classes, another task, another image size, a few images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from ..data.datasets import ImageSet, PairSet
from ..data.decoded import Say
from ..data.readers import as_dataset
from ..data.splits import check_classes, split_by_column
from ..errors import DataError, ModelError, SettingError
from ..inference import model_folder
from ..inference.baseline import figures
from ..inference.model import Model
from ..nn import encoders
from . import distributed, recipes
from .config import Settings
from .launch import asked_at, on_devices, training_device
from .memory import keep_freed_memory
from .pipeline import make_model
from .recipes import choose
from .rules import resolve
from .state import Interrupted, Step
from .warm_start import load_for_input

# A network that knows something already learns at this share of the rate that it began with.
_GENTLER = 0.3
_MINUTES = 2.0
_OLD = "on the old classes: "


@on_devices
def finetune(
    model: Model | str | os.PathLike[str],
    data: ImageSet | PairSet | str | os.PathLike[str],
    *,
    output: str | os.PathLike[str] | None = None,
    freeze: str | int | None = None,
    thaw: float | None = None,
    layer_decay: float | None = None,
    old: ImageSet | PairSet | str | os.PathLike[str] | None = None,
    recipe: str | None = None,
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
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    devices: int = 1,
    progress: bool = True,
    on_step: Callable[[Step], None] | None = None,
    say: Say | None = None,
) -> Model:
    """Train a model further, on other images: new classes, a new task, a new image size.

    The result is never worse than the model as it was, on classes that training did not see: with fewer than
    60 classes, folds of them are held out in turn. Where training does not help, the encoder stays untouched,
    with a threshold for the new images, and the model says so.

    Args:
        model: The model to start from, or its folder.
        data: Images or pairs, or where they are.
        output: The model folder to write; without it the model lies in a temporary folder until saved.
        freeze: How many stages of the encoder, from the input on, stay as they are; ``all`` but the embedding
            layer, or ``none``. What they make of an image is computed once.
        thaw: Share of the steps after which frozen stages begin to learn, the last first.
        layer_decay: The learning rate of a stage as a share of the next one's.
        old: Images of the old task: both models are measured on them.
        recipe: How to learn, instead of the way that the model was trained in. What it looks at and its
            network stay the model's.
        loss: As in `twinned.train`, and so are the arguments that follow, but that what is not given is
            the model's own, and the learning rate less, where the model was not finetuned before.

    Raises:
        SettingError: If the model was wrapped, or cannot have what is asked for.
        DataError: If there are fewer than two classes with two readable images.
    """
    began = asked_at()
    where = torch.device(training_device(device))
    keep_freed_memory()
    before = model if isinstance(model, Model) else Model(model)
    theirs = _settings_of(before)
    source = as_dataset(data)
    other = None if validate is None else as_dataset(validate)
    whole = source
    source, other, remarks = split_by_column(source, other)
    if recipe is None:
        base = _gentler(before, theirs)
    elif recipe == "auto":
        given, why = choose(source, seed=seed)
        remarks.append(why)
        base = _as_recipe(theirs, given)
    else:
        base = _as_recipe(theirs, recipes.get(recipe))
    if isinstance(source, ImageSet):
        check_classes(source)
    if theirs.head == "relation" and not (isinstance(source, PairSet) and source.relation is not None):
        raise SettingError(
            f"{before.folder}: tells relations apart, and {source.origin} names none: give a pair list with a"
            " column relation, or finetune the model that this one came from"
        )
    earlier = None if old is None else as_dataset(old)
    if earlier is not None and not earlier.has_both_kinds:
        raise DataError(
            f"--old: {earlier.origin}: nothing to measure: two classes are needed, and two images of one"
        )
    notes: list[str] = []

    def tell(sentence: str) -> None:
        notes.append(sentence)
        if say is not None:
            say(sentence)

    known = len(before.manifest.classes)
    remarks += [
        f"finetuned from a model of {known} classes ({base.encoder})"
        if known
        else f"finetuned from encoder {base.encoder}, which knew no classes yet"
    ]
    plan = resolve(
        source,
        base,
        {
            "loss": loss,
            "distance": distance,
            "minutes": minutes,
            "steps": steps,
            "epochs": epochs,
            "learning_rate": learning_rate,
            "margin": margin,
            "embedding_size": embedding_size,
            "far": far,
            "freeze": None if freeze is None else str(freeze),
            "thaw": thaw,
            "layer_decay": layer_decay,
        },
        image_size=image_size,
        batch_size=batch_size,
        extra={name: getattr(base, name) for name in ("encoder", "height", "width", "channels")}
        | dict(settings or {}),
        seed=seed,
        tell=remarks.append,
    )
    if plan.encoder != theirs.encoder or plan.weights is not None:
        raise SettingError(
            f"finetune keeps the model's encoder, {theirs.encoder}, and its weights; with others, use train"
        )
    if theirs.symmetric and not plan.symmetric:
        raise SettingError(
            "the model embeds an image together with its mirror image, and finetune keeps that"
        )
    parent = load_for_input(before, theirs, plan, tell=remarks.append)
    result = make_model(
        source,
        plan,
        whole=whole,
        other=other,
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
        old=earlier,
        parent=parent,
    )
    if earlier is None or distributed.rank() > 0:
        return result
    return _measure_old(before, result, earlier, seed, progress, tell)


def _settings_of(model: Model) -> Settings:
    """The settings that a model was trained with."""
    if "weights.safetensors" not in model.manifest.files:
        raise SettingError(
            f"{model.folder}: its encoder was wrapped: an ONNX graph can be run and not trained. Train it"
            " further in the framework that it came from, and wrap it again"
        )
    try:
        return Settings(**model.manifest.recipe)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"{model.folder}: model.json: recipe: {where}: {first['msg']}") from None


def _gentler(model: Model, theirs: Settings) -> Settings:
    """The settings for training further: a pretrained encoder's own, or a lower rate."""
    changes: dict[str, Any] = {
        "weights": None,
        "far": None,
        "minutes": _MINUTES,
        "steps": None,
        "epochs": None,
    }
    if not encoders.is_pretrained(theirs.encoder):
        if model.asked()[1].get("model") is None:  # else it was finetuned already, so its rate is gentle
            changes["learning_rate"] = _GENTLER * theirs.learning_rate
    elif theirs.layer == "solved" and theirs.embedding_size is None:  # it stayed untouched so far
        changes["embedding_size"] = recipes.PRETRAINED["embedding_size"]
        changes["symmetric"] = recipes.RECIPES.get(theirs.recipe, theirs).symmetric
    return theirs.change(changes)


def _as_recipe(theirs: Settings, given: Settings) -> Settings:
    """A recipe's settings, for the network of a model and what it looks at."""
    own = ["height", "width", "channels", "fit", "ink"]
    own += ["encoder", "embedding_size", "dropout", "symmetric", "normalize"]
    if encoders.is_pretrained(given.encoder) != encoders.is_pretrained(theirs.encoder):
        own += ["layer", "freeze", "norms", "cohort", "optimizer", "learning_rate", "proxy_rate"]
    return given.change({setting: getattr(theirs, setting) for setting in own})


def _measure_old(
    before: Model, after: Model, data: ImageSet | PairSet, seed: int, progress: bool, tell: Say
) -> Model:
    """Measure both models on the old task and keep the figures in the new one's folder."""
    try:
        found = {
            when: figures(model.evaluate(data, seed=seed, progress=progress))
            for when, model in (("before", before), ("after", after))
        }
    except DataError as error:
        raise DataError(f"--old: {error}; the model is saved in {after.folder}") from None
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped while both models were measured on the old images; the model is saved in {after.folder}"
        ) from None
    names = {"eer": "equal error rate", "one_shot": "one-shot accuracy", "recall_at_1": "recall@1"}
    said = [
        f"{names[key]} {value:.4f} before, {found['after'][key]:.4f} after"
        for key, value in found["before"].items()
    ]
    sentence = f"{_OLD}{'; '.join(said)}"
    tell(sentence)
    held_out = after.manifest.held_out | {"old": found}
    earlier = [note for note in after.manifest.notes if not note.startswith(_OLD)]
    changed = after.manifest.model_copy(update={"held_out": held_out, "notes": [*earlier, sentence]})
    with tempfile.TemporaryDirectory(prefix="twinned-") as folder:
        model_folder.copy(after.folder, Path(folder), force=True)
        model_folder.write(Path(folder), changed)
        model_folder.copy(Path(folder), after.folder, force=True)
    after.manifest = model_folder.read(after.folder)
    return after
