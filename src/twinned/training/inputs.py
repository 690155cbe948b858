"""Inputs of training: augmented images, or cached features of the frozen stages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..data.augmentation import Augmentation
from ..data.decoded import DecodedSet
from ..data.pixel_stores import PixelStore, is_in_memory
from ..data.samplers import Batch, prefetch
from ..utils.random import Stream, rng, step_seed

NO_AUGMENTATION = Augmentation()


@dataclass(frozen=True, eq=False)
class PixelSource:
    """Images as pixels, uint8 ``(n, height, width, channels)``, augmented at each step."""

    pixels: PixelStore
    augment: Augmentation
    device: torch.device
    seed: int
    start_stage = 0

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
        return nullcontext(batches) if is_in_memory(self.pixels) else prefetch(batches, self.pixels, rows)

    def view(self, number: int, start: int, stop: int) -> Tensor:
        """Return one augmented view of some images; number 0 is not augmented."""
        # Bytes are a quarter of the size of floats.
        images = torch.from_numpy(np.asarray(self.pixels[start:stop])).to(self.device)
        augment = self.augment if number else NO_AUGMENTATION
        return augment(
            images, seed=int(rng(self.seed, Stream.AUGMENTED_VIEW, number, start).integers(1 << 62))
        )


@dataclass(frozen=True, eq=False)
class CachedFeatures:
    """Features of the frozen stages for distinct images.

    Values have the shape ``(m, views, filters, rows, columns)``, or ``(m, views, n_features)`` if the whole
    backbone is frozen. Mirrored ones have another axis of length 2 after the views. View 0 is not augmented.
    """

    values: Tensor
    rows: dict[str, int]  # row of each image, by its hash
    start_stage: int  # number of frozen stages
    mirrored: bool  # features of the mirror image are beside those of the image
    seed: int  # of the choice of views

    @property
    def n_augmentations(self) -> int:
        """Number of augmented views per image."""
        return self.values.shape[1] - 1

    def source(self, hashes: Sequence[str], *, device: torch.device) -> FeatureSource:
        """Return the inputs of some images, by their hashes."""
        return FeatureSource(self, torch.tensor([self.rows[name] for name in hashes]), device=device)


@dataclass(frozen=True, eq=False)
class CachedSet(DecodedSet):
    """Decoded dataset whose images have cached features; its subsets share them."""

    features: CachedFeatures

    @classmethod
    def of(cls, data: DecodedSet, features: CachedFeatures) -> CachedSet:
        """Attach features to a dataset."""
        values = {field.name: getattr(data, field.name) for field in fields(DecodedSet)}
        return cls(**values, features=features)


@dataclass(frozen=True, eq=False)
class FeatureSource:
    """Cached features as inputs; a batch uses one view of each image, drawn at random."""

    features: CachedFeatures
    rows: Tensor
    device: torch.device

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

    def view(self, number: int, start: int, stop: int) -> Tensor:
        return self._to_device(self.features.values[self.rows[start:stop], number])

    def _to_device(self, values: Tensor) -> Tensor:
        values = values.to(self.device).float()
        return values.contiguous(memory_format=torch.channels_last) if values.ndim == 4 else values


InputSource = PixelSource | FeatureSource


def input_source(
    data: DecodedSet, *, augment: Augmentation = NO_AUGMENTATION, device: torch.device, seed: int = 0
) -> InputSource:
    """Return the inputs of a dataset: its cached features, or its pixels."""
    if isinstance(data, CachedSet):
        return data.features.source(data.hashes, device=device)
    return PixelSource(data.pixels, augment, device=device, seed=seed)
