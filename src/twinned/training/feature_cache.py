"""Training inputs: augmented images, or cached features of the frozen stages.

Frozen stages give the same features of the same image in every epoch. `FeatureCache` computes them once for
each image and for some augmented views of it, and the other stages are trained on these features.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.augmentation import AnyAugmentation, Augmentation
from ..data.decoded import DecodedSet
from ..data.pixel_stores import JoinedPixels, PixelStore, is_in_memory
from ..data.samplers import Batch, ReadAhead
from ..data.splits import subsample
from ..nn.siamese import SiameseNetwork
from ..utils.files import write_text
from ..utils.notes import note
from ..utils.progress import progress_bar
from ..utils.random import Stream, rng, step_seed
from . import distributed
from .budget import Budget
from .config import TrainConfig
from .freezing import frozen_stages

# Memory limit of the cached features: beyond it there are fewer views, or no cache.
MAX_CACHE_BYTES = 2 << 30
# Views of each image, the unaugmented one included, that an LDA projection is fitted to.
LDA_VIEWS = 4
# Fractions of the remaining time: to run all images through the frozen stages once, and to add views.
_CACHE_SHARE, _VIEWS_SHARE = 0.4, 0.3
# If time suffices for some of the images only: the least number, and images per class.
_MIN_IMAGES, _IMAGES_PER_CLASS = 64, 4
_NO_AUGMENTATION = Augmentation()


class PixelSource:
    """Images as pixels, augmented at each step.

    Args:
        pixels: uint8, shape ``(n, height, width, channels)``.
        augment: Augmentation.
        device: Device of the network.
        seed: Seed of the augmentation.
    """

    start_stage = 0

    def __init__(
        self, pixels: PixelStore, augment: AnyAugmentation, *, device: torch.device, seed: int
    ) -> None:
        self.pixels = pixels
        self.augment, self.device, self.seed = augment, device, seed

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, batch: Batch, step: int, rows: slice = slice(None)) -> Tensor:
        """Return the augmented images of a batch, or some rows of them; the same for the same step."""
        turns = None if batch.turns is None else torch.from_numpy(batch.turns[rows])
        pixels = batch.pixels if batch.pixels is not None else self.pixels[batch.index[rows]]
        chosen = torch.from_numpy(np.asarray(pixels)).to(self.device)
        seed = step_seed(self.seed, step)
        return self.augment(chosen, turns=turns, seed=seed, rows=rows, whole=len(batch.index))

    def read_ahead(
        self, batches: Callable[[int], Batch], rows: slice
    ) -> AbstractContextManager[Callable[[int], Batch]]:
        """Return batches whose pixels are read in advance, unless they are in memory."""
        return nullcontext(batches) if is_in_memory(self.pixels) else ReadAhead(batches, self.pixels, rows)

    def get(self, start: int, stop: int) -> Tensor:
        """Return some images without augmentation."""
        return _NO_AUGMENTATION(self._on_device(slice(start, stop)))

    def view(self, number: int, start: int, stop: int) -> Tensor | None:
        """Return one augmented view of some images; number 0 is not augmented."""
        augment = self.augment if number else _NO_AUGMENTATION
        return augment(self._on_device(slice(start, stop)), seed=_view_seed(self.seed, number, start))

    def _on_device(self, index: Any) -> Tensor:
        """Return images as bytes, which are a quarter of the size of floats."""
        return torch.from_numpy(np.asarray(self.pixels[index])).to(self.device)


def _view_seed(seed: int, number: int, start: int) -> int:
    return step_seed(seed + 7, number * 10_007 + start)


@dataclass(frozen=True, eq=False)
class CachedFeatures:
    """Features of the frozen stages for distinct images.

    Args:
        values: Shape ``(m, views, filters, rows, columns)``, or ``(m, views, n_features)`` where the whole
            backbone is frozen. Mirrored ones have another axis of length 2 after the views. View 0 is not
            augmented.
        rows: Row of each image, by its hash.
        start_stage: Number of frozen stages.
        mirrored: True if the features of the mirror image are stored beside those of the image.
        seed: Seed of the choice of views.
    """

    values: Tensor
    rows: dict[str, int]
    start_stage: int
    mirrored: bool
    seed: int

    @property
    def n_augmentations(self) -> int:
        """Number of augmented views per image."""
        return self.values.shape[1] - 1

    def source(self, hashes: Sequence[str], *, device: torch.device) -> FeatureSource:
        """Return the inputs of some images, by their hashes."""
        return FeatureSource(self, torch.tensor([self.rows[name] for name in hashes]), device=device)


@dataclass(frozen=True, eq=False)
class CachedSet(DecodedSet):
    """Decoded dataset whose images have cached features; its subsets share them.

    Args:
        features: Features of all images of the set, and possibly of others.
    """

    features: CachedFeatures

    @classmethod
    def of(cls, data: DecodedSet, features: CachedFeatures) -> CachedSet:
        """Attach features to a dataset."""
        values = {field.name: getattr(data, field.name) for field in fields(DecodedSet)}
        return cls(**values, features=features)


class FeatureSource:
    """Cached features as inputs; a batch uses one view of each image, drawn at random."""

    def __init__(self, features: CachedFeatures, rows: Tensor, *, device: torch.device) -> None:
        self.features, self.rows, self.device = features, rows, device

    @property
    def start_stage(self) -> int:
        return self.features.start_stage

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, batch: Batch, step: int, rows: slice = slice(None)) -> Tensor:
        random = rng(self.features.seed, Stream.CACHED_VIEW, step)
        values = self.features.values
        view = torch.from_numpy(random.integers(values.shape[1], size=len(batch.index))[rows])
        chosen = self.rows[torch.from_numpy(batch.index[rows])]
        # Training uses single images, without the mirror image, as with pixels.
        return self._to_device(values[chosen, view, 0] if self.features.mirrored else values[chosen, view])

    def read_ahead(
        self, batches: Callable[[int], Batch], rows: slice
    ) -> AbstractContextManager[Callable[[int], Batch]]:
        return nullcontext(batches)

    def get(self, start: int, stop: int) -> Tensor:
        return self._to_device(self.features.values[self.rows[start:stop], 0])

    def view(self, number: int, start: int, stop: int) -> Tensor | None:
        """Return one view of some images; None beyond the last view."""
        if number >= self.features.values.shape[1]:
            return None
        return self._to_device(self.features.values[self.rows[start:stop], number])

    def _to_device(self, values: Tensor) -> Tensor:
        values = values.to(self.device).float()
        return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


InputSource = PixelSource | FeatureSource


def input_source(
    data: DecodedSet, *, augment: AnyAugmentation = _NO_AUGMENTATION, device: torch.device, seed: int = 0
) -> InputSource:
    """Return the inputs of a dataset: its cached features, or its pixels."""
    if isinstance(data, CachedSet):
        return data.features.source(data.hashes, device=device)
    return PixelSource(data.pixels, augment, device=device, seed=seed)


class FeatureCache:
    """Computes the features of the frozen stages for images and augmented views.

    Args:
        network: Network, on its device.
        n_stages: Number of frozen stages of its encoder.
        augment: Augmentation of the views.
        n_augmentations: Number of augmented views per image.
        seed: Seed of the augmentation.
    """

    def __init__(
        self,
        network: SiameseNetwork,
        n_stages: int,
        *,
        augment: AnyAugmentation,
        n_augmentations: int,
        seed: int,
    ) -> None:
        self.network, self.n_stages = network, n_stages
        self.augment, self.n_augmentations, self.seed = augment, n_augmentations, seed
        self.device = network.mean.device

    def seconds_per_image(self, pixels: PixelStore) -> float:
        """Measure the time per image on a few images."""
        images = _NO_AUGMENTATION(torch.from_numpy(np.asarray(pixels[:16])).to(self.device))
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
        """Compute the features of images.

        Args:
            pixels: uint8, shape ``(n, height, width, channels)``.
            hashes: Hash of each image, shape ``(n,)``; equal images are computed once.
            seconds: Time for the augmented views, whose number is reduced to fit; None for no limit.
            progress: Show a progress bar.

        Returns:
            The features; None if they need more memory than `MAX_CACHE_BYTES`.
        """
        _, first = np.unique(np.asarray(hashes), return_index=True)
        distinct = np.sort(first)
        probe = self._features(_NO_AUGMENTATION(torch.from_numpy(np.asarray(pixels[:1])).to(self.device)))[0]
        size = len(distinct) * probe.numel() * probe.element_size()
        if size > MAX_CACHE_BYTES:
            return None
        start = time.monotonic()

        def view(augment: AnyAugmentation, number: int, title: str) -> Tensor:
            return self._view(pixels, distinct, augment, number, title, progress)

        views = [view(_NO_AUGMENTATION, 0, "Frozen stages")]
        elapsed = time.monotonic() - start
        count = min(self.n_augmentations, MAX_CACHE_BYTES // size - 1)
        if seconds is not None:
            fitting = min(count, int(seconds / max(elapsed, 1e-3)))
            count = distributed.broadcast_from_rank0(lambda: fitting)
        titles = [f"View {number}/{count}" for number in range(1, count + 1)]
        views += [view(self.augment, number, title) for number, title in enumerate(titles, start=1)]
        return CachedFeatures(
            values=torch.stack(views, dim=1),
            rows={hashes[index]: row for row, index in enumerate(distinct)},
            start_stage=self.n_stages,
            mirrored=self.network.encoder.symmetric,
            seed=self.seed,
        )

    def _view(
        self,
        pixels: PixelStore,
        chosen: NDArray[np.intp],
        augment: AnyAugmentation,
        number: int,
        title: str,
        progress: bool,
    ) -> Tensor:
        size = int(np.clip((1 << 20) // (pixels.shape[1] * pixels.shape[2]), 1, 256))
        parts = []
        with progress_bar(title, len(chosen), show=progress) as advance:
            for start in range(0, len(chosen), size):
                images = torch.from_numpy(pixels[chosen[start : start + size]]).to(self.device)
                parts.append(self._features(augment(images, seed=_view_seed(self.seed, number, start))))
                advance(len(images))
        return torch.cat(parts)

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
    augment: AnyAugmentation,
    budget: Budget,
    record: Path | None = None,
    progress: bool = True,
) -> tuple[DecodedSet, DecodedSet | None]:
    """Compute the features of the frozen stages once, for as many images and views as there is time for.

    Args:
        network: Network before training.
        data: Training data.
        validation: Separate data for the threshold; None for none.
        config: Frozen stages, number of views and seed.
        augment: Augmentation of the views.
        budget: Time budget of the run.
        record: JSON file with the numbers of images and views, so that a resumed run uses the same.
        progress: Show progress bars.

    Returns:
        Both datasets with cached features. Unchanged if no stage is frozen, if frozen stages cannot be
        cached, or if the features exceed the memory limit.
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
