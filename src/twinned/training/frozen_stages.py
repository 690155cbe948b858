"""Frozen stages of an encoder: they are not trained, and their features are computed once.

A frozen stage gets no gradient and no weight decay, and its batch norms use their stored statistics. The
other stages are trained on the features of each image and of some augmented views of it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..data.augmentation import Augmentation
from ..data.decoded import DecodedSet
from ..data.pixel_stores import JoinedPixels, PixelRows, PixelStore
from ..data.splits import subsample
from ..errors import SettingError
from ..nn.encoders.base import Encoder
from ..nn.siamese import SiameseNetwork
from ..utils.files import write_text
from ..utils.notes import note
from ..utils.progress import progress_bar
from . import distributed
from .config import TrainConfig
from .inputs import CachedFeatures, CachedSet, PixelSource
from .schedule import Budget

# Memory limit of the cached features: beyond it there are fewer views, or no cache.
MAX_CACHE_BYTES = 2 << 30
# Views of each image, the unaugmented one included, that an LDA projection is fitted to.
LDA_VIEWS = 4
# Fractions of the remaining time: to run all images through the frozen stages once, and to add views.
_CACHE_SHARE, _VIEWS_SHARE = 0.4, 0.3
# If time suffices for some of the images only: the least number, and images per class.
_MIN_IMAGES, _IMAGES_PER_CLASS = 64, 4


def frozen_stages(encoder: Encoder, freeze: str) -> int:
    """Return the number of stages to freeze: ``none``, ``all`` or a number, without the projection."""
    limit = len(encoder.stages()) - 1
    if freeze in ("none", "all"):
        return limit if freeze == "all" else 0
    if freeze.isdecimal() and int(freeze) <= limit:
        return int(freeze)
    raise SettingError(
        f"freeze must be none, all, or a number of stages, at most {limit}; got {freeze!r}. Choose one."
    )


def freeze_parts(
    network: SiameseNetwork, n_stages: int, *, batchnorm: bool = False, projection: bool = False
) -> bool:
    """Freeze the first stages of a network in training mode, and return True if others are left to train.

    With ``batchnorm``, all statistics of the encoder are frozen: the few images of a batch estimate them less
    well than those of its first training. With ``projection``, the last stage is, which LDA has fitted.
    """
    stages = network.encoder.stages()
    # A parameter outside of all stages belongs to the first.
    stage_of = dict.fromkeys(network.encoder.parameters(), 0)
    for number, stage in enumerate(stages):
        stage_of.update(dict.fromkeys(stage.parameters(), number))
        stage.train(number >= n_stages)
    trainable = range(n_stages, len(stages) - projection)
    for parameter in network.parameters():
        parameter.requires_grad_(parameter not in stage_of or stage_of[parameter] in trainable)
    if batchnorm:
        for module in network.encoder.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
    return any(parameter.requires_grad for parameter in network.parameters())


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """Computes the features of the frozen stages for images and some augmented views of each."""

    network: SiameseNetwork
    n_stages: int
    augment: Augmentation
    n_augmentations: int
    seed: int

    def seconds_per_image(self, pixels: PixelStore) -> float:
        """Measure the time per image on a few images."""
        images = self._source(pixels).view(0, 0, 16)
        self._features(images)
        start = time.perf_counter()
        self._features(images)
        return (time.perf_counter() - start) / len(images)

    def transform(
        self,
        pixels: PixelStore,
        hashes: Sequence[str],
        *,
        seconds: float | None = None,
        progress: bool = True,
    ) -> CachedFeatures | None:
        """Compute the features of images; None if they need more memory than `MAX_CACHE_BYTES`.

        Images with equal hashes are computed once. The number of views is reduced to fit ``seconds``.
        """
        _, first = np.unique(np.asarray(hashes), return_index=True)
        distinct = np.sort(first)
        probe = self._features(self._source(pixels).view(0, 0, 1))[0]
        source = self._source(PixelRows(pixels, distinct))
        size = len(source) * probe.numel() * probe.element_size()
        if size > MAX_CACHE_BYTES:
            return None

        def view(number: int, title: str) -> Tensor:
            step, parts = int(np.clip((1 << 20) // (pixels.shape[1] * pixels.shape[2]), 1, 256)), []
            with progress_bar(title, len(source), show=progress) as advance:
                for start in range(0, len(source), step):
                    parts.append(self._features(source.view(number, start, start + step)))
                    advance(len(parts[-1]))
            return torch.cat(parts)

        start = time.monotonic()
        views = [view(0, "Frozen stages")]
        elapsed = time.monotonic() - start
        count = min(self.n_augmentations, MAX_CACHE_BYTES // size - 1)
        if seconds is not None:
            fitting = min(count, int(seconds / max(elapsed, 1e-3)))
            count = distributed.broadcast_from_rank0(lambda: fitting)
        views += [view(number, f"View {number}/{count}") for number in range(1, count + 1)]
        rows = {hashes[index]: row for row, index in enumerate(distinct)}
        symmetric = self.network.encoder.symmetric
        return CachedFeatures(torch.stack(views, dim=1), rows, self.n_stages, symmetric, self.seed)

    def _source(self, pixels: PixelStore) -> PixelSource:
        return PixelSource(pixels, self.augment, device=self.network.mean.device, seed=self.seed)

    @torch.no_grad()
    def _features(self, images: Tensor) -> Tensor:
        """Run the frozen stages; feature maps are stored in half precision, pooled features in single."""
        network, encoder = self.network.eval(), self.network.encoder
        x = (images - network.mean) / network.std
        sides = (x, x.flip(3)) if encoder.symmetric else (x,)
        stages = encoder.stages()
        if self.n_stages == len(stages) - 1:
            found = [encoder.forward_features(side)[0] for side in sides]
        else:
            frozen = nn.Sequential(*stages[: self.n_stages])
            found = [frozen(side).half() for side in sides]
        return (torch.stack(found, dim=1) if encoder.symmetric else found[0]).cpu()


def cache_features(
    network: SiameseNetwork,
    data: DecodedSet,
    validation: DecodedSet | None,
    config: TrainConfig,
    *,
    augment: Augmentation,
    budget: Budget,
    record: Path | None = None,
    progress: bool = True,
) -> tuple[DecodedSet, DecodedSet | None]:
    """Attach the features of the frozen stages to both datasets, for the images and views that time allows.

    They are unchanged if no stage is frozen, or frozen ones cannot be cached. A resumed run uses the numbers
    of images and views that the JSON file ``record`` has.
    """
    encoder = network.encoder
    n_stages = frozen_stages(encoder, config.transfer.freeze)
    if n_stages == 0 or not encoder.can_start_at(n_stages):
        return data, validation
    if (config.sampler.rotate_classes or config.sampler.flip_classes) and data.pairs is None:
        note(
            "no-feature-cache",
            "rotated and mirrored images are separate classes, so the frozen stages run at every step;"
            ' with `settings={"rotate_classes": False, "flip_classes": False}` they run once per image',
        )
        return data, validation
    views = config.transfer.n_augmentations
    if n_stages == len(encoder.stages()) - 1 and config.transfer.projection == "lda":
        views = min(views, LDA_VIEWS - 1)
    recorded: dict[str, int] = distributed.broadcast_from_rank0(
        lambda: json.loads(record.read_text()) if record is not None and record.exists() else {}
    )
    cache = FeatureCache(
        network, n_stages, augment=augment, n_augmentations=recorded.get("views", views), seed=config.seed
    )
    parts = [part for part in (data, validation) if part is not None]
    n_images = sum(len(part.pixels) for part in parts)
    limit = recorded.get("images", n_images)
    seconds = None if recorded else budget.remaining()
    if seconds is not None:
        image_seconds = cache.seconds_per_image(data.pixels)
        fitting = int(_CACHE_SHARE * seconds / image_seconds)
        limit = max(_MIN_IMAGES, distributed.broadcast_from_rank0(lambda: fitting))
    if limit < n_images:
        share = limit / n_images
        parts = [
            subsample(
                part, max(32, int(share * len(part.pixels))), seed=config.seed, per_class=_IMAGES_PER_CLASS
            )
            for part in parts
        ]
    features = cache.transform(
        JoinedPixels([part.pixels for part in parts]) if len(parts) > 1 else parts[0].pixels,
        [name for part in parts for name in part.hashes],
        seconds=None if seconds is None else _VIEWS_SHARE * seconds,
        progress=progress,
    )
    if features is None:
        return data, validation
    if limit < n_images:
        text = f"time allows for {sum(len(p.pixels) for p in parts):,} of {n_images:,} images"
        if seconds is not None and config.length.minutes:
            more = n_images * image_seconds / _CACHE_SHARE - seconds
            text += f": set minutes to {math.ceil(config.length.minutes + more / 60)} or more to use all"
        note("fewer-images", text)
    if record is not None and distributed.rank() == 0:
        record.parent.mkdir(parents=True, exist_ok=True)
        write_text(record, json.dumps({"images": limit, "views": features.n_augmentations}))
    cached = [CachedSet.of(part, features) for part in parts]
    return cached[0], cached[1] if validation is not None else None
