"""Train a model from images: `train`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..data.datasets import ImageSet, PairSet
from ..data.decoded import (
    Say,
)
from ..data.readers import load as load_data
from ..data.splits import check_classes, split_by_column
from ..inference import model_folder
from ..inference.model import Model
from ..nn import encoders
from ..utils.notes import Note
from .callbacks import Callback
from .config import Settings
from .encoder_selection import TRIAL_SHARE, select_encoder
from .launch import keep_freed_memory, on_devices, training_device
from .pipeline import Output, RunData, make_model, partial
from .rules import resolve
from .state import Interrupted

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
    callbacks: Sequence[Callback] = (),
    started: float | None = None,
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
        callbacks: Called after steps and evaluations (`twinned.training.callbacks.Callback`).
        started: Start of the run by `time.monotonic`, from which ``minutes`` counts; now by default.

    Raises:
        DataError: If there are fewer than two classes with two readable images.
        SettingError: If a setting is wrong, or ``output`` exists.
        TrainingError: If nothing could be learnt.
    """
    began = time.monotonic() if started is None else started
    where = torch.device(training_device(device))
    keep_freed_memory()
    source = load_data(data) if isinstance(data, (str, os.PathLike)) else data
    other = load_data(validate) if isinstance(validate, (str, os.PathLike)) else validate
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
    free = encoder is None and {"encoder", "weights", "layer", "freeze"}.isdisjoint(settings or {})
    if ways is not None and free and isinstance(source, ImageSet) and (budget := plan.minutes):
        if target is not None:
            model_folder.refuse_target(target, force=force or resume, data=[source.origin])
        small, large = (settled(name, lambda _: None, changes) for name, changes in ways)
        if (before := _encoder_of(target) if resume else None) is not None:
            plan = large if before == large.encoder else small
        else:
            seconds = TRIAL_SHARE * 60 * budget
            try:
                plan, why = select_encoder(source, small, large, seconds=seconds, device=where)
                remarks.append(why.text)
            except (Interrupted, KeyboardInterrupt):
                raise Interrupted("stopped while encoders were tried; nothing was saved") from None
    return make_model(
        RunData(source, other, whole),
        plan,
        Output(target, resume=resume, overwrite=force),
        device=where,
        start_time=began,
        notes=[Note("setting", text) for text in remarks],
        callbacks=callbacks,
        progress=progress,
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
