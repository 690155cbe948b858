"""Configuration of a run that starts from a model, and figures on the data of its original task."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from ..data.datasets import ImageSet, PairSet
from ..errors import DataError, ModelError, SettingError, many
from ..evaluation.results import NAMES
from ..inference import model_folder
from ..inference.baseline import figures
from ..inference.model import Model
from ..inference.model_card import card
from ..nn import encoders
from ..utils.notes import Note, note
from . import recipes
from .config import TrainConfig
from .state import Interrupted

# Learning rate of the first fine-tuning, relative to that of the original training.
_LOWER_RATE = 0.3
_MINUTES = 2.0
# Options that stay the model's when another recipe is chosen.
_OF_THE_NETWORK = (
    "input.height",
    "input.width",
    "input.channels",
    "input.fit",
    "input.ink",
    "input.faces",
    "input.min_face",
    "encoder.name",
    "encoder.embedding_size",
    "encoder.dropout",
    "encoder.symmetric",
    "comparison.normalize",
)
# More of them, where only one of recipe and model has a pretrained encoder.
_OF_ITS_TRAINING = (
    "transfer.projection",
    "transfer.freeze",
    "transfer.freeze_batchnorm",
    "comparison.cohort",
    "optimizer.name",
    "optimizer.learning_rate",
    "optimizer.proxy_lr_scale",
)


def config_of(model: Model) -> TrainConfig:
    """Return the configuration that a model was trained with.

    Raises:
        SettingError: If the model was wrapped.
        ModelError: If the configuration is damaged.
    """
    if "weights.safetensors" not in model.manifest.files:
        raise SettingError(
            f"{model.folder}: the encoder was wrapped, and an ONNX graph cannot be trained. Train it in its"
            " own framework, and wrap it again, or use Model.from_network"
        )
    try:
        return TrainConfig.from_saved(model.manifest.recipe)
    except SettingError as error:
        raise ModelError(f"{model.folder}: model.json: recipe: {error}") from None


def base_config(
    model: Model, recipe: TrainConfig | None, data: ImageSet | PairSet
) -> tuple[TrainConfig, str]:
    """Return the configuration that fine-tuning starts from, and a note on the model.

    Args:
        model: Model to start from.
        recipe: Way of training; None for the model's own.
        data: New data.

    Raises:
        SettingError: If the model distinguishes relations, and the data have none.
    """
    theirs = config_of(model)
    if theirs.comparison.head == "relation" and not (isinstance(data, PairSet) and data.relation is not None):
        raise SettingError(
            f"{model.folder}: the model distinguishes relations, and {data.origin} has none. Use a pair list"
            " with a column relation, or fine-tune the model that this one was trained from"
        )
    base = _lower_rate(model, theirs) if recipe is None else _with_network_of(theirs, recipe)
    known = len(model.manifest.classes)
    text = (
        f"a model of {many(known, 'class')} ({base.encoder.name})"
        if known
        else f"encoder {base.encoder.name}"
    )
    return base, f"finetuned from {text}{'' if known else ', which knew no classes yet'}"


def check_kept(theirs: TrainConfig, config: TrainConfig) -> None:
    """Check that options keep the model's network.

    Raises:
        SettingError: If they do not.
    """
    if config.encoder.name != theirs.encoder.name or config.encoder.weights is not None:
        raise SettingError(
            f"Fine-tuning keeps the model's encoder, {theirs.encoder.name}, and its weights. Use train for"
            " others"
        )
    if theirs.encoder.symmetric and not config.encoder.symmetric:
        raise SettingError(
            "The model averages each image with its mirror image; fine-tuning keeps that. Leave out symmetric"
        )


def _lower_rate(model: Model, theirs: TrainConfig) -> TrainConfig:
    """Return the configuration for training further: a pretrained encoder's own, or a lower learning rate."""
    changes: dict[str, Any] = {"weights": None, "far": None, "minutes": _MINUTES, "seed": 0}
    if not encoders.is_pretrained(theirs.encoder.name):
        if model.record.requested_config[1].get("model") is None:  # not fine-tuned before
            changes["learning_rate"] = _LOWER_RATE * theirs.optimizer.learning_rate
    elif theirs.transfer.projection == "lda" and theirs.encoder.embedding_size is None:  # it was not trained
        changes["embedding_size"] = recipes.PRETRAINED["encoder.embedding_size"]
        changes["symmetric"] = recipes.RECIPES.get(theirs.recipe, theirs).encoder.symmetric
    return theirs.merge(changes)


def _with_network_of(theirs: TrainConfig, recipe: TrainConfig) -> TrainConfig:
    """Return a recipe for the network of a model and its input."""
    names: tuple[str, ...] = _OF_THE_NETWORK
    changes = {"optimizer.weight_decay": recipe.optimizer.weight_decay}
    if encoders.is_pretrained(recipe.encoder.name) != encoders.is_pretrained(theirs.encoder.name):
        names += _OF_ITS_TRAINING
    return recipe.merge(changes | {name: theirs.get(name) for name in names})


def check_old_data(data: ImageSet | PairSet, target: Path | None, *, force: bool) -> None:
    """Check that models can be evaluated on the data of the original task, and that the output spares them.

    Raises:
        DataError: If they have no genuine or no impostor pairs.
        SettingError: If the output exists, or holds the data.
    """
    if not data.has_both_kinds:
        raise DataError(f"`old=`: {data.origin}: evaluation needs two classes, one of them with two images")
    if target is not None:
        model_folder.check_output(target, force=force, data=[data.origin], option="overwrite")


def measure_old(before: Model, after: Model, data: ImageSet | PairSet, seed: int, progress: bool) -> Model:
    """Evaluate both models on the original task, and keep the figures in the new model's folder."""
    try:
        found = {
            when: figures(model.evaluate(data, seed=seed, progress=progress))
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
    with tempfile.TemporaryDirectory(prefix="twinned-") as folder:
        model_folder.copy(after.folder, Path(folder), force=True)
        model_folder.write(Path(folder), changed, card=card(changed))
        model_folder.copy(Path(folder), after.folder, force=True)
    after.manifest = model_folder.read(after.folder)
    return after
