"""Train a model from images: `train`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..data.datasets import ImageSet, PairSet
from ..data.decoded import Say
from ..data.readers import as_dataset
from ..data.splits import check_classes, split_by_column
from ..inference import model_folder
from ..inference.model import Model
from ..nn import encoders
from .config import Settings
from .encoder_selection import TRIAL_SHARE, select_encoder
from .launch import asked_at, on_devices, training_device
from .memory import keep_freed_memory
from .pipeline import make_model, partial
from .rules import resolve
from .state import Interrupted, Step

# Where the images are photographs, auto tries a small network and a pretrained encoder: recipes and changes.
_PRETRAINED = "efficientnet_lite0"


_TRIED: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "photo": (("photo-small", {}), ("photo", {})),
    "face": (("face", {}), ("face", {"encoder": f"{_PRETRAINED}_face"})),
    "signature": (("signature", {}), ("signature", {"encoder": f"{_PRETRAINED}_signature"})),
}


@on_devices
def train(
    data: ImageSet | PairSet | str | os.PathLike[str],
    *,
    recipe: str | Settings = "auto",
    encoder: str | None = None,
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
    output: str | os.PathLike[str] | None = None,
    resume: bool = False,
    force: bool = False,
    device: str = "auto",
    devices: int = 1,
    progress: bool = True,
    on_step: Callable[[Step], None] | None = None,
    say: Say | None = None,
) -> Model:
    """Train a Siamese network on your images and return the saved model.

    A fifth of the classes (at least 4) is held out of training to choose the threshold on. With fewer than
    12 classes (60, over a network that has learnt before) none can be spared: the threshold comes from
    cross-fitting over classes instead.

    Args:
        data: Images or pairs, or where they are (see `twinned.data.load_images`, `load_pairs`).
        recipe: A name of `twinned.training.recipes`, ``auto``, or settings.
        encoder: Name of the encoder, instead of the recipe's.
        loss: Name of the loss.
        distance: Name of the distance.
        image_size: ``"HxW"``, (height, width), or one number for both.
        minutes: Time from start to saved model.
        steps: Steps to train for, instead.
        epochs: Times to show as many images as there are, instead.
        batch_size: Images a step.
        learning_rate: The highest.
        margin: Of the loss.
        embedding_size: Values of an embedding.
        settings: Any other settings by name; see `twinned.training.config.Settings`.
        far: False accept rate to choose the threshold at; equal error by default.
        seed: The same seed, data and machine give the same model.
        validate: Images to choose the threshold on, instead of classes held out.
        output: The model folder to write. Without it the model lies in a temporary folder until saved.
        resume: Go on with an interrupted run that wrote to ``output``.
        force: Replace ``output``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: How many of them, each with a process of its own and a share of every batch; the model is the
            one that a single process would have trained on the whole batch (docs/devices.md).
        progress: Show bars.
        on_step: Called after each step.
        say: Called with each sentence that a user should read; by default kept in the model only.

    Raises:
        DataError: If there are fewer than two classes with two readable images.
        SettingError: If a setting is wrong, or ``output`` exists.
        TrainingError: If nothing could be learnt.
    """
    began = asked_at()
    where = torch.device(training_device(device))
    keep_freed_memory()
    notes: list[str] = []

    def tell(sentence: str) -> None:
        notes.append(sentence)
        if say is not None:
            say(sentence)

    source = as_dataset(data)
    other = None if validate is None else as_dataset(validate)
    whole = source
    source, other, remarks = split_by_column(source, other)
    if isinstance(source, ImageSet):
        check_classes(source)
    named: dict[str, Any] = {
        "encoder": encoder,
        "loss": loss,
        "distance": distance,
        "minutes": minutes,
        "steps": steps,
        "epochs": epochs,
        "learning_rate": learning_rate,
        "margin": margin,
        "embedding_size": embedding_size,
        "far": far,
    }

    def settled(name: str | Settings, told: Say, changes: Mapping[str, Any]) -> Settings:
        return resolve(
            source,
            name,
            {**named, **changes},
            image_size=image_size,
            batch_size=batch_size,
            extra=dict(settings or {}),
            seed=seed,
            tell=told,
        )

    plan = settled(recipe, remarks.append, {})
    target = None if output is None else Path(output)
    ways = _TRIED.get(plan.recipe) if recipe == "auto" and encoders.installed(_PRETRAINED) else None
    free = encoder is None and {"encoder", "weights", "layer", "freeze", "thaw"}.isdisjoint(settings or {})
    if ways is not None and free and isinstance(source, ImageSet) and (budget := plan.minutes):
        if target is not None:
            model_folder.refuse_target(target, force=force or resume, data=[source.origin])
        small, large = (settled(name, lambda _: None, changes) for name, changes in ways)
        if (before := _encoder_of(target) if resume else None) is not None:
            plan = large if before == large.encoder else small
        else:
            seconds = TRIAL_SHARE * 60 * budget
            try:
                plan = select_encoder(
                    source, small, large, seconds=seconds, device=where, tell=remarks.append
                )
            except (Interrupted, KeyboardInterrupt):
                raise Interrupted("stopped while encoders were tried; nothing was saved") from None
    return make_model(
        source,
        plan,
        whole=whole,
        other=other,
        target=target,
        resume=resume,
        force=force,
        device=where,
        progress=progress,
        on_step=on_step,
        tell=tell,
        notes=notes,
        remarks=remarks,
        began=began,
    )


def _encoder_of(target: Path | None) -> str | None:
    """The encoder of a run that is gone on with, or is finished; None where there is none."""
    if target is None:
        return None
    file = partial(target) / "main.safetensors"
    try:
        if file.is_file():
            with safe_open(file, "pt") as checkpoint:
                return str(json.loads(checkpoint.metadata()["run"])["encoder"])
        if (target / "model.json").is_file() and not partial(target).exists():
            return model_folder.read(target).encoder
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        pass  # the run itself says what is wrong with it
    return None
