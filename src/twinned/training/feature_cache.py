"""What a network is fed: images, or what its frozen stages made of them once and for all.

Frozen stages give the same maps for the same image in every epoch. So each image goes through them once,
along with a few augmented views of it, and the stages that learn are trained on these maps.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..data.augmentation import Augmentation
from ..data.images import Pixels
from ..data.samplers import Batch
from ..nn.encoders.convnets import Encoder
from ..nn.siamese import SiameseNetwork
from ..utils.progress import progress_bar
from . import distributed

# Maps take no more memory than this; with less room there are fewer views, or none are kept at all.
MAP_BYTES = 2 << 30
_PLAIN = Augmentation()


class InputSource(Protocol):
    """Images, in the form that a network takes."""

    def __len__(self) -> int: ...

    def batch(self, batch: Batch, step: int, rows: slice = slice(None)) -> Tensor:
        """A batch's images, or some rows of them, augmented; the same ones for the same step."""
        ...

    def plain(self, start: int, stop: int) -> Tensor:
        """Some images as they are."""
        ...

    def view(self, number: int, start: int, stop: int) -> Tensor | None:
        """Some images, each augmented in one way; number 0 is as they are, None if there are not so many."""
        ...


class PixelSource:
    """Images as pixels, augmented anew each time.

    Args:
        pixels: uint8, shape ``(n, height, width, channels)``.
        warp: The augmentation.
        device: Where the network is.
        seed: Of the augmentation.
    """

    def __init__(self, pixels: Pixels, warp: Augmentation, *, device: torch.device, seed: int) -> None:
        self.pixels = torch.from_numpy(np.asarray(pixels))
        self.warp, self.device, self.seed = warp, device, seed

    def __len__(self) -> int:
        return len(self.pixels)

    def batch(self, batch: Batch, step: int, rows: slice = slice(None)) -> Tensor:
        turns = None if batch.turns is None else torch.from_numpy(batch.turns[rows])
        chosen = self.pixels.index_select(0, torch.from_numpy(batch.index[rows]))
        seed = self.seed * 1_000_003 + step
        chosen = chosen.to(self.device)  # as bytes, a quarter of the floats
        return self.warp(chosen, turns=turns, seed=seed, rows=rows, whole=len(batch.index))

    def plain(self, start: int, stop: int) -> Tensor:
        return _PLAIN(self.pixels[start:stop].to(self.device))

    def view(self, number: int, start: int, stop: int) -> Tensor | None:
        warp = self.warp if number else _PLAIN
        seed = (self.seed + 7) * 1_000_003 + number * 10_007 + start
        return warp(self.pixels[start:stop].to(self.device), seed=seed)


class FeatureSource:
    """Images as the maps that frozen stages made of them, one of an image's views drawn each time.

    Args:
        maps: Shape ``(m, views, filters, rows, columns)``; the first view is the image as it is. Where the
            stages behind see each image together with its mirror image, ``(m, views, 2, filters, ...)``.
        rows: Which of the m these images are, shape ``(n,)``.
        device: Where the network is.
        seed: Of the draw.
    """

    def __init__(self, maps: Tensor, rows: Tensor, *, device: torch.device, seed: int) -> None:
        self.maps, self.rows, self.device, self.seed = maps, rows, device, seed

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, batch: Batch, step: int, rows: slice = slice(None)) -> Tensor:
        rng = np.random.default_rng([self.seed, 4, step])
        view = torch.from_numpy(rng.integers(self.maps.shape[1], size=len(batch.index))[rows])
        chosen = self.rows[torch.from_numpy(batch.index[rows])]
        # Learnt from as it is, as from pixels.
        return self._ready(self.maps[chosen, view, 0] if self.maps.ndim == 6 else self.maps[chosen, view])

    def plain(self, start: int, stop: int) -> Tensor:
        return self._ready(self.maps[self.rows[start:stop], 0])

    def view(self, number: int, start: int, stop: int) -> Tensor | None:
        if number >= self.maps.shape[1]:
            return None
        return self._ready(self.maps[self.rows[start:stop], number])

    def _ready(self, maps: Tensor) -> Tensor:
        ready = maps.to(self.device).float()
        return ready if ready.ndim == 5 else ready.contiguous(memory_format=torch.channels_last)


class Tail(Encoder):
    """The stages of an encoder from one of them on; it takes the maps that those before it make.

    They are ``(n, filters, rows, columns)``; of images and mirror images ``(n, 2, filters, rows, columns)``.

    Args:
        encoder: The whole encoder; its stages are shared.
        start: The first of them. The last one, alone, takes vectors of shape ``(n, values, 1, 1)``.
        maps: Some maps, for their size.
    """

    def __init__(self, encoder: Encoder, start: int, maps: Tensor) -> None:
        _, filters, rows, columns = maps.shape
        super().__init__(image_size=(rows, columns), channels=filters)
        self.start = start
        self.parts = nn.ModuleList(encoder.stages()[start:])
        self.whole = [encoder]  # in a list, so that the frozen stages are no part of this module
        self.embedding_size, self.symmetric = encoder.embedding_size, encoder.symmetric

    def stages(self) -> list[nn.Module]:
        return list(self.parts)

    def seen(self, x: Tensor, start: int = 0) -> Tensor:
        return x.flatten(1) if len(self.parts) == 1 else self.whole[0].seen(x, self.start)

    def values(self, x: Tensor) -> Tensor:
        here, *mirrored = (x,) if x.ndim == 4 else x.unbind(1)
        values = self.seen(here)
        return (values + self.seen(mirrored[0])) / 2 if mirrored and self.symmetric else values

    def last(self, flat: Tensor) -> Tensor:
        return self.whole[0].last(flat)

    @property
    def linear(self) -> nn.Linear | None:
        return self.whole[0].linear


class FeatureCache:
    """The frozen stages of an encoder, run once over every image and some augmented views of it.

    Args:
        network: The whole network, on its device.
        stages: How many of its encoder's stages are frozen.
        warp: The augmentation of the views.
        views: Augmented views of an image to keep, beside the image as it is.
        seed: Of the augmentation.
    """

    def __init__(
        self, network: SiameseNetwork, stages: int, *, warp: Augmentation, views: int, seed: int
    ) -> None:
        self.network, self.stages = network, stages
        self.warp, self.views, self.seed = warp, views, seed
        self.device = network.mean.device
        self.both = network.encoder.symmetric
        self.maps = torch.empty(0)
        self.row: dict[str, int] = {}

    def seconds_an_image(self, pixels: Pixels) -> float:
        """How long an image takes, measured on a few."""
        images = _PLAIN(torch.from_numpy(pixels[:16]).to(self.device))
        self._maps(images)
        began = time.perf_counter()
        self._maps(images)
        return (time.perf_counter() - began) / len(images)

    def run(
        self, pixels: Pixels, hashes: Sequence[str], *, seconds: float | None = None, progress: bool = True
    ) -> bool:
        """Run images through the frozen stages.

        Args:
            pixels: uint8, shape ``(n, height, width, channels)``.
            hashes: What identifies each image, shape ``(n,)``.
            seconds: Time for the views; there are fewer where it does not suffice.
            progress: Show a bar.

        Returns:
            Whether the maps fit into memory; where not, none are kept.
        """
        _, first = np.unique(np.asarray(hashes), return_index=True)
        keep = np.sort(first)
        self.row = {hashes[place]: row for row, place in enumerate(keep)}
        probe = self._maps(_PLAIN(torch.from_numpy(pixels[:1]).to(self.device)))[0]
        size = len(keep) * probe.numel() * probe.element_size()
        if size > MAP_BYTES:
            return False
        began = time.monotonic()
        views = [self._view(pixels, keep, _PLAIN, "Frozen stages", progress)]
        took = time.monotonic() - began
        count = min(self.views, MAP_BYTES // size - 1)
        if seconds is not None:
            count = distributed.broadcast_from_rank0(lambda: min(count, int(seconds / max(took, 1e-3))))
        for number in range(count):
            title = f"View {number + 1}/{count}"
            views.append(self._view(pixels, keep, self.warp, title, progress, number + 1))
        self.maps = torch.stack(views, dim=1)
        return True

    def feed(self, hashes: Sequence[str]) -> FeatureSource:
        """The maps of some of the images."""
        rows = torch.tensor([self.row[name] for name in hashes])
        return FeatureSource(self.maps, rows, device=self.device, seed=self.seed)

    def tail(self, network: SiameseNetwork) -> SiameseNetwork:
        """What is left of a network behind the frozen stages; it shares the network's weights."""
        maps = self.maps[:1, 0, 0] if self.both else self.maps[:1, 0]
        encoder = Tail(network.encoder, self.stages, maps)
        tail = SiameseNetwork(encoder, network.head, normalize=network.normalize, cohort=network.cohort)
        return tail.to(self.device)

    def _view(
        self,
        pixels: Pixels,
        keep: NDArray[np.intp],
        warp: Augmentation,
        title: str,
        progress: bool,
        number: int = 0,
    ) -> Tensor:
        some = int(np.clip((1 << 20) // (pixels.shape[1] * pixels.shape[2]), 1, 256))
        found = []
        with progress_bar(title, len(keep), show=progress) as advance:
            for start in range(0, len(keep), some):
                chosen = torch.from_numpy(pixels[keep[start : start + some]]).to(self.device)
                found.append(
                    self._maps(warp(chosen, seed=(self.seed + 7) * 1_000_003 + number * 10_007 + start))
                )
                advance(len(chosen))
        return torch.cat(found)

    @torch.no_grad()
    def _maps(self, images: Tensor) -> Tensor:
        """What frozen stages make of images on the device: in half precision, where that is a map."""
        network, encoder = self.network.eval(), self.network.encoder
        x = (images - network.mean) / network.std
        vectors = self.stages == len(encoder.stages()) - 1
        found = [
            encoder.seen(side)[:, :, None, None] if vectors else encoder.through(side, 0, self.stages).half()
            for side in ((x, x.flip(3)) if self.both else (x,))
        ]
        return (torch.stack(found, dim=1) if self.both else found[0]).cpu()


def whole(tail: SiameseNetwork, *, mean: tuple[float, ...], std: tuple[float, ...]) -> SiameseNetwork:
    """The network that a tail is the end of; any other network is returned as it is.

    Args:
        tail: As `FeatureCache.tail` gave it, or a copy of that.
        mean: Of the whole network's pixels.
        std: Of the whole network's pixels.
    """
    if not isinstance(tail.encoder, Tail):
        return tail
    encoder = tail.encoder.whole[0]
    joined = SiameseNetwork(
        encoder, tail.head, normalize=tail.normalize, cohort=tail.cohort, mean=mean, std=std
    )
    return joined.to(tail.mean.device)
