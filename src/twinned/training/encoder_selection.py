"""Which network suits these images: a short trial of a pretrained encoder against a small fresh one."""

from __future__ import annotations

import time

import numpy as np
import torch

from ..data.datasets import ImageSet
from ..data.decoded import DecodedSet, Say
from ..data.splits import subsample
from ..utils.notes import muted
from . import distributed
from .config import Settings
from .trainer import Trainer
from .validation import ValidationScore
from .warm_start import pretrained_baseline

# Of the whole time; and of that for the pretrained encoder, which is slow to run and quick to fit.
TRIAL_SHARE, _PRETRAINED_SHARE = 0.15, 0.45
_MOST = 600  # images
_LEAST = 6.0  # seconds: reading, embedding a few dozen images and a few steps take as long


def select_encoder(
    source: ImageSet,
    small: Settings,
    large: Settings,
    *,
    seconds: float,
    device: torch.device,
    tell: Say,
) -> Settings:
    """Try both on half of the classes, each for about half of the time, and judge them on the other half.

    Of the pretrained encoder only an embedding layer is fitted, over values that are computed once.

    Args:
        source: Labelled images.
        small: Settings of the network that starts from nothing.
        large: Settings of the pretrained encoder.
        seconds: For both.
        device: Where to train.
        tell: Called with what was found.

    Returns:
        The settings with fewer errors; where there are too few classes or seconds for a trial, the pretrained
        encoder's for images in colour and the small network's for grey ones.
    """
    usable = source.usable_classes()
    chosen = large if small.channels == 3 else small
    if len(usable) < 4:
        tell(f"fewer than 4 classes are too few to try networks on, so it is {chosen.encoder}")
        return chosen
    if seconds < _LEAST:
        tell(f"there is no time to try networks, so it is {chosen.encoder}")
        return chosen
    few = subsample(source, _MOST, seed=small.seed, per_class=4)
    order = np.random.default_rng(small.seed).permutation(few.usable_classes())
    unseen = set(order[: len(order) // 2].tolist())
    began = time.monotonic()
    known = _pretrained(few, unseen, large, began + _PRETRAINED_SHARE * seconds, device)
    fresh = _fresh(few, unseen, small, began + seconds, device)
    chosen, other = (small, large)
    if distributed.broadcast_from_rank0(lambda: known.errors <= fresh.errors):
        chosen, other = (large, small)
    tell(
        f"encoder {chosen.encoder} and not {other.encoder}, by a trial of {time.monotonic() - began:.0f} s on"
        f" {len(unseen)} classes held out: {known} with {large.encoder}, {fresh} with {small.encoder}"
    )
    return chosen


def _parts(material: DecodedSet, unseen: set[str]) -> tuple[DecodedSet, DecodedSet]:
    return material.partition(np.isin(material.images.labels, list(unseen)))


def _pretrained(
    few: ImageSet, unseen: set[str], large: Settings, deadline: float, device: torch.device
) -> ValidationScore:
    """The better of the encoder as it is and with a layer solved over it."""
    frozen = {"freeze": "all", "thaw": None, "views": 0, "minutes": None, "epochs": None, "steps": 0}
    settings = large.change(frozen)
    baseline = pretrained_baseline(settings, settings.spec())
    assert baseline is not None
    spec = settings.spec().model_copy(update=baseline.statistics)
    run = Trainer(settings, spec, device, False, None, _silent, baseline=baseline.to(device))
    run.deadline = deadline
    with muted():
        decoded = DecodedSet.from_images(few, spec, progress=False)
    material, _ = run.prepare(decoded)
    learn, held_out = _parts(material, unseen)
    fitted = run.train(learn, None, None, title="Trial", judged=held_out).network
    return min(
        (run.judge(network, held_out) for network in (run.tail(baseline), fitted)), key=lambda j: j.errors
    )


def _fresh(
    few: ImageSet, unseen: set[str], small: Settings, deadline: float, device: torch.device
) -> ValidationScore:
    """The small network after what time there is."""
    with muted():
        material = DecodedSet.from_images(few, small.spec(), progress=False)
    spec = small.spec().model_copy(update=material.statistics())
    run = Trainer(small.change({"evaluations": 1}), spec, device, False, None, _silent)
    run.deadline = deadline
    learn, held_out = _parts(material, unseen)
    return run.judge(run.train(learn, None, None, title="Trial", judged=held_out).network, held_out)


def _silent(sentence: str) -> None:
    """What is said of a trial's networks is of no use to anybody."""
