"""Warm start: configuration and weights of a saved model or a pretrained encoder."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..data.datasets import ImageSet, PairSet
from ..data.decoded import DecodedSet
from ..data.preprocessing import ImageSpec
from ..errors import ModelError, SettingError, many
from ..inference import model_folder
from ..inference.model import Model
from ..nn import encoders, heads
from ..nn.score_norm import CohortScoreNorm
from ..nn.siamese import SiameseNetwork
from ..utils.notes import Note
from . import recipes
from .config import OPTIONS, TrainConfig
from .parts import OwnParts

# Learning rate of the first fine-tuning, relative to that of the original training.
_LOWER_RATE = 0.3
_MINUTES = 2.0
# Options that stay the model's when another recipe is chosen.
_OF_THE_NETWORK = (
    "comparison.normalize",
    *(n for n in OPTIONS if n.startswith(("input.", "encoder.")) and n != "encoder.weights"),
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


@dataclass(frozen=True, eq=False)
class WarmStart:
    """Model whose weights are the initial weights of a run."""

    model: Model
    network: SiameseNetwork  # for the image size and number of channels of the run
    complete: bool  # all weights could be loaded, so that it can be used without training
    notes: tuple[Note, ...] = ()  # on weights that could not be loaded

    @property
    def sha256(self) -> str:
        return self.model.manifest.files["weights.safetensors"]

    def has_relations(self, relations: Mapping[str, bool]) -> bool:
        """Return True if its head predicts these relations with the same meaning, or both have none."""
        head = self.network.head
        same = head.same.bool().tolist() if isinstance(head, heads.Relation) else []
        return list(relations) == self.model.manifest.relations and list(relations.values()) == same

    def was_trained_on(self, data: DecodedSet) -> bool:
        """Return True if it was trained on some of these images or, at another size, on their classes."""
        if self.model.spec.shape == data.pixels.shape[1:]:
            return not self.model.record.image_hashes.isdisjoint(data.hashes)
        return not set(self.model.manifest.classes).isdisjoint(data.classes)


def load_for_input(
    model: Model,
    run: TrainConfig | None = None,
    parts: OwnParts = OwnParts(),  # noqa: B008 - immutable
) -> WarmStart:
    """Load the network of a model for the input of a run; by default for its own.

    ``parts`` has the encoder of a model whose encoder is not registered.
    """
    theirs = config_of(model)
    config = run or theirs
    state = load_file(model_folder.checked(model.folder, "weights.safetensors", model.manifest))
    encoder = parts.make_encoder(theirs.model_copy(update={"input": config.input}), pretrained=False)
    own = {name: value for name, value in state.items() if name.startswith("encoder.")}
    missing = encoders.load_matching(encoder, own)
    size = f"{config.input.height}x{config.input.width}"
    wrong = [name for name in missing if not name.startswith("dense.")]
    if wrong and (config.input.height, config.input.width) != (theirs.input.height, theirs.input.width):
        raise SettingError(
            f"The weights of encoder {theirs.encoder.name} for images of {theirs.input.height}x"
            f"{theirs.input.width} do not fit images of {size}. Choose a nearer `image_size=`"
        )
    if wrong:
        raise ModelError(
            f"{model.folder}: weights.safetensors does not hold the weights of encoder {theirs.encoder.name}:"
            f" {wrong[0]} is missing or has another shape. Restore the file, or train a new model."
        )
    notes: list[Note] = []
    if missing:
        text = f"the embedding layer does not fit images of {size} with {config.input.channels} channels"
        notes.append(Note("new-projection", f"{text}, so it is initialized at random"))
    head = heads.build(
        theirs.comparison.head,
        distance=theirs.comparison.distance,
        embedding_size=encoder.embedding_size,
        relations=state.get("head.same", torch.empty(0)).bool().tolist(),
    )
    of_head = {name.removeprefix("head."): v for name, v in state.items() if name.startswith("head.")}
    head_fits = load_if_fits(head, of_head)
    if not head_fits and not missing:
        text = f"the head does not fit embeddings of {encoder.embedding_size} values"
        notes.append(Note("new-head", f"{text}, so it is initialized at random"))
    mean, std = (_for_channels(values, config.input.channels) for values in (model.spec.mean, model.spec.std))
    members, usual = state.get("cohort.members"), state.get("cohort.usual")
    cohort = None
    if not missing and members is not None and usual is not None:
        cohort = CohortScoreNorm(members, usual) if members.shape[1] == encoder.embedding_size else None
    network = SiameseNetwork(
        encoder, head, normalize=theirs.comparison.normalize, cohort=cohort, mean=mean, std=std
    )
    return WarmStart(model, network.eval(), complete=not missing and head_fits, notes=tuple(notes))


def load_if_fits(head: heads.Head, state: dict[str, Tensor]) -> bool:
    """Load the weights of a head if their names and shapes are its own; return True if they are."""
    fits = {n: v.shape for n, v in state.items()} == {n: v.shape for n, v in head.state_dict().items()}
    if fits:
        head.load_state_dict(state)
    return fits


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def weights_statistics(path: str, channels: int) -> dict[str, tuple[float, ...]] | None:
    """Return ``mean`` and ``std`` of the pixels that weights in a file were trained on; None if unknown.

    The weights.safetensors of a model folder contains both; older ones have them in the model.json beside it.
    """
    found: dict[str, tuple[float, ...]] = {}
    with suppress(OSError, SafetensorError), safe_open(path, "pt") as file:  # raised by `load_weights`
        names = set(file.keys())
        if {"mean", "std"} <= names and any(name.startswith("encoder.") for name in names):
            tensors = {name: file.get_tensor(name).flatten().tolist() for name in ("mean", "std")}
            found = {name: tuple(round(v, 6) for v in values) for name, values in tensors.items()}
        elif Path(path).name == "weights.safetensors":
            with suppress(ModelError):
                spec = model_folder.read(Path(path).parent).spec
                found = {"mean": spec.mean, "std": spec.std}
    if not found:
        return None
    sizes = {len(values) for values in found.values()}
    if sizes not in ({1}, {3}) or not all(0 < v < float("inf") for v in found["std"]):
        raise SettingError(
            f"weights={path}: mean {found['mean']} and std {found['std']} must have one value for each of"
            " 1 or 3 channels, and each std must be above 0. Save the state of a whole network again."
        )
    return {name: _for_channels(values, channels) for name, values in found.items()}


def pretrained_baseline(config: TrainConfig, spec: ImageSpec) -> SiameseNetwork:
    """Return a pretrained encoder with the cosine distance, before training."""
    weights, size = config.encoder.weights, (spec.height, spec.width)
    encoder = encoders.create_encoder(
        config.encoder.name, image_size=size, channels=spec.channels, pretrained=weights is None
    )
    mean, std = encoder.mean, encoder.std
    if weights is not None:
        encoders.load_weights(encoder, weights)
        if stored := weights_statistics(weights, spec.channels):
            mean, std = stored["mean"], stored["std"]
    return SiameseNetwork(encoder, normalize=True, mean=mean, std=std)


def config_of(model: Model) -> TrainConfig:
    """Return the configuration that a model was trained with; a wrapped one has none."""
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

    ``recipe`` is the way of training; None for the model's own.
    """
    theirs = config_of(model)
    if theirs.comparison.head == "relation" and not (isinstance(data, PairSet) and data.relation is not None):
        raise SettingError(
            f"{model.folder}: the model distinguishes relations, and {data.origin} has none. Use a pair list"
            " with a column relation, or fine-tune the model that this one was trained from"
        )
    base = _lower_rate(model, theirs) if recipe is None else _with_network_of(theirs, recipe)
    if known := len(model.manifest.classes):
        return base, f"finetuned from a model of {many(known, 'class')} ({base.encoder.name})"
    return base, f"finetuned from encoder {base.encoder.name}, which knew no classes yet"


def check_kept(theirs: TrainConfig, config: TrainConfig) -> None:
    """Raise a `SettingError` if options do not keep the model's network."""
    own = theirs.encoder
    if config.encoder.name != own.name or config.encoder.weights is not None:
        raise SettingError(
            f"Fine-tuning keeps the model's encoder, {own.name}, and weights. Use train for others"
        )
    if own.symmetric and not config.encoder.symmetric:
        raise SettingError("Fine-tuning keeps the average with the mirror image. Leave out symmetric")


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
