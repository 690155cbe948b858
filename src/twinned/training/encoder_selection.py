"""Choose between a pretrained encoder and a small new one by short pilot runs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from ..data.datasets import ImageSet
from ..data.decoded import DecodedSet
from ..data.splits import subsample
from ..inference import model_folder
from ..nn import encoders
from ..utils.notes import Note, muted
from ..utils.progress import progress_bar
from . import distributed, recipes
from .checkpoint import partial_folder
from .config import TrainConfig
from .options import TrainRequest
from .rules import DataFacts, resolve
from .schedule import Budget
from .state import Interrupted
from .trainer import Trainer
from .validation import ValidationScore
from .warm_start import pretrained_baseline

_PRETRAINED = "efficientnet_lite0"
# For these recipes, auto compares a small encoder with a pretrained one: recipe of the small encoder, and
# changes of the recipe for the pretrained one.
_CANDIDATES: dict[str, tuple[str, dict[str, Any]]] = {
    "photo": ("photo-small", {}),
    "face": ("face", {"encoder": f"{_PRETRAINED}_face"}),
    "signature": ("signature", {"encoder": f"{_PRETRAINED}_signature"}),
}
# The user chooses the encoder by setting one of these.
_FIXES_ENCODER = {"encoder.name", "encoder.weights", "transfer.projection", "transfer.freeze"}
# Fraction of the run's time for the pilot runs.
TRIAL_SHARE = 0.15
# Fraction of that time for the pretrained encoder, which is slow to run and fast to fit.
_PRETRAINED_SHARE = 0.45
_MAX_IMAGES = 600
# Seconds that reading, embedding a few dozen images and a few steps take.
_MIN_SECONDS = 6.0


def choose_encoder(
    images: ImageSet,
    config: TrainConfig,
    changes: Mapping[str, Any],
    facts: DataFacts,
    request: TrainRequest,
    device: torch.device,
) -> tuple[TrainConfig, list[Note]]:
    """Return the configuration with the encoder of recipe auto, by pilot runs or as in the run to resume.

    It is unchanged where the recipe has one encoder, or ``changes``, the user's options, fix it.
    """
    candidates, minutes = _CANDIDATES.get(config.recipe), config.length.minutes
    fixed = changes.keys() & _FIXES_ENCODER
    if candidates is None or not minutes or fixed or not encoders.installed(_PRETRAINED):
        return config, []
    small_recipe, pretrained = candidates
    small, _ = resolve(recipes.get(small_recipe), changes, facts)
    large, _ = resolve(recipes.get(config.recipe), {**pretrained, **changes}, facts)
    if request.output is not None:
        force = request.overwrite or request.resume
        model_folder.check_output(Path(request.output), force=force, data=[images.origin], option="overwrite")
        if request.resume and (before := _encoder_of(Path(request.output))) is not None:
            return (large if before == large.encoder.name else small), []
    with progress_bar("Choosing the encoder", show=request.progress):
        try:
            seconds = TRIAL_SHARE * 60 * minutes
            config, why = select_encoder(images, small, large, seconds=seconds, device=device)
        except (Interrupted, KeyboardInterrupt):
            raise Interrupted("stopped during the choice of the encoder; nothing was saved") from None
    return config, [why]


def _encoder_of(target: Path) -> str | None:
    """Return the encoder of an interrupted or finished run; None where there is none."""
    file = partial_folder(target) / "main.safetensors"
    try:
        if file.is_file():
            with safe_open(file, "pt") as checkpoint:
                return str(json.loads(checkpoint.metadata()["run"])["encoder"]["name"])
        if (target / "model.json").is_file() and not partial_folder(target).exists():
            return model_folder.read(target).encoder
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        pass  # reading the run again reports the error
    return None


def select_encoder(
    source: ImageSet, small: TrainConfig, large: TrainConfig, *, seconds: float, device: torch.device
) -> tuple[TrainConfig, Note]:
    """Train both encoders on half of the classes for a short time, and score them on the other half.

    Of the pretrained encoder only a projection is fitted, to features that are computed once. With too few
    classes or seconds, it is chosen for color images, and the small network for gray ones.
    """
    chosen = large if small.input.channels == 3 else small
    if len(source.usable_classes()) < 4:
        text = f"encoder {chosen.encoder.name}: fewer than 4 classes are too few for pilot runs"
        return chosen, Note("encoder", text)
    if seconds < _MIN_SECONDS:
        return chosen, Note("encoder", f"encoder {chosen.encoder.name}: there is no time for pilot runs")
    few = subsample(source, _MAX_IMAGES, seed=small.seed, per_class=4)
    order = np.random.default_rng(small.seed).permutation(few.usable_classes())
    unseen = set(order[: len(order) // 2].tolist())
    began = time.monotonic()
    with muted():
        share = Budget(began + _PRETRAINED_SHARE * seconds)
        pretrained = _score(few, unseen, large, share, device)
        new = _score(few, unseen, small, Budget(began + seconds), device)
    chosen, other = small, large
    if distributed.broadcast_from_rank0(lambda: pretrained.errors <= new.errors):
        chosen, other = large, small
    return chosen, Note(
        "encoder",
        f"encoder {chosen.encoder.name} instead of {other.encoder.name}, by pilot runs of"
        f" {time.monotonic() - began:.0f} s on {len(unseen)} classes held out: {pretrained} with"
        f" {large.encoder.name}, {new} with {small.encoder.name}",
    )


def _score(
    few: ImageSet, unseen: set[str], config: TrainConfig, budget: Budget, device: torch.device
) -> ValidationScore:
    """Train an encoder on the other classes, and score it on unseen ones; a pretrained one also before."""
    baseline, spec = None, config.spec()
    if encoders.is_pretrained(config.encoder.name):
        config = config.merge({"freeze": "all", "n_augmentations": 0, "steps": 0})
        baseline = pretrained_baseline(config, spec).to(device)
    with muted():
        decoded = DecodedSet.from_images(few, spec, progress=False)
    spec = spec.model_copy(update=decoded.statistics() if baseline is None else baseline.statistics)
    config = config.merge({"evaluations": 1})
    trainer = Trainer(config, spec, device=device, baseline=baseline, progress=False)
    data, _ = trainer.cache_features(decoded, budget=budget)
    train, held_out = data.partition(np.isin(data.images.labels, list(unseen)))
    fitted = trainer.fit(train, budget=budget, title="Pilot run", scored=held_out).network
    networks = [fitted] if baseline is None else [baseline, fitted]
    return min((trainer.score(network, held_out) for network in networks), key=lambda score: score.errors)
