"""Augmentation of whole batches at once, from uint8 to floats in [0, 1].

All of a batch is warped by one resampling, so an affine map, a wobble and a quarter turn cost no more
than any one of them.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# An elastic wobble is drawn at so many points a side, and smooth between them.
_KNOTS = 5
# From a place in an image that was turned to the left, 4 to 7 mirrored first, to its place in the image.
_LEFT = torch.tensor([[0.0, -1.0], [1.0, 0.0]])
_TURNS = torch.stack(
    [
        mirror @ torch.linalg.matrix_power(_LEFT, turn)
        for mirror in (torch.eye(2), torch.diag(torch.tensor([-1.0, 1.0])))
        for turn in range(4)
    ]
)


@dataclass(frozen=True)
class Augmentation:
    """How far images may be changed; 0 leaves that part out. Every image is changed on its own.

    Args:
        rotation: Degrees either way.
        shear: Of each axis, as a share of the other.
        scale: Of each axis on its own, as a share: 0.2 is from 1/1.2 to 1.2.
        shift: Share of the image's size either way.
        probability: Chance of each of the four above, for each image (Koch 2015 has 0.5).
        elastic: Typical wobble as a share of half the image, smooth over a quarter of it (Simard 2003).
        flip: Mirror left and right, half of the time.
        brightness: Added, either way, pixels being in [0, 1].
        contrast: Share either way.
        saturation: Share either way; colour images only.
        erase: Side of a square that is wiped out, as a share of the image, half of the time.
    """

    rotation: float = 0.0
    shear: float = 0.0
    scale: float = 0.0
    shift: float = 0.0
    probability: float = 1.0
    elastic: float = 0.0
    flip: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    erase: float = 0.0

    @property
    def warps(self) -> bool:
        """Whether pixels move, but for mirroring."""
        return any((self.rotation, self.shear, self.scale, self.shift, self.elastic))

    def __call__(
        self,
        pixels: Tensor,
        *,
        turns: Tensor | None = None,
        seed: int = 0,
        rows: slice = slice(None),
        whole: int | None = None,
    ) -> Tensor:
        """Change a batch.

        Args:
            pixels: uint8, shape ``(n, height, width, channels)``.
            turns: Quarter turns for each image, shape ``(n,)``; from 4 on it is mirrored first.
            seed: The same seed changes a batch in the same way.
            rows: Which rows of a larger batch these images are; they are changed as they would be in it.
            whole: Images of that larger batch.

        Returns:
            Floats in [0, 1], shape ``(n, channels, height, width)``, channels last in memory.
        """
        chance = _Chance(seed, rows, len(pixels) if whole is None else whole)
        x = pixels.permute(0, 3, 1, 2).to(torch.get_default_dtype()).div_(255)
        if self.warps or turns is not None:
            grid = self._grid(x, turns, chance)
            x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        x = self._recolour(x, chance)
        return x.contiguous(memory_format=torch.channels_last)

    def _grid(self, x: Tensor, turns: Tensor | None, chance: _Chance) -> Tensor:
        """Where each pixel is taken from, ``(n, height, width, 2)``, in [-1, 1] from edge to edge."""
        n, _, height, width = x.shape

        def either_way(most: float) -> Tensor:
            drawn = chance.either_way(most)
            if self.probability < 1:
                drawn *= chance.uniform() < self.probability
            return drawn

        angle = either_way(math.radians(self.rotation))
        cos, sin = torch.cos(angle), torch.sin(angle)
        turn = torch.stack([cos, -sin, sin, cos], dim=1).view(n, 2, 2)
        stretch = math.log1p(self.scale)
        wide, high = torch.exp(either_way(stretch)), torch.exp(either_way(stretch))
        slant = torch.stack([wide, either_way(self.shear), either_way(self.shear), high], dim=1).view(n, 2, 2)
        shift = torch.stack([either_way(2 * self.shift), either_way(2 * self.shift)], dim=1)  # of [-1, 1]
        warp = torch.cat([turn @ slant, shift[:, :, None]], dim=2)
        if self.flip and self.warps:
            mirror = torch.where(chance.uniform() < 0.5, -1.0, 1.0)
            warp[:, :, 0] *= mirror[:, None]
        if self.elastic:
            wobble = chance.normal(2, _KNOTS * _KNOTS) * self.elastic
            warp = torch.cat([warp, wobble], dim=2)
        if turns is not None:
            warp = _TURNS[turns].to(warp.dtype) @ warp
        places = _places(height, width, self.elastic > 0, x.dtype).to(x.device)
        grid = warp.to(x.device).view(2 * n, -1) @ places
        return grid.view(n, 2, height, width).permute(0, 2, 3, 1)

    def _recolour(self, x: Tensor, chance: _Chance) -> Tensor:
        n = len(x)

        def either_way(most: float) -> Tensor:
            return chance.either_way(most).view(n, 1, 1, 1).to(x.device)

        if self.flip and not self.warps:
            mirrored = (chance.uniform() < 0.5).view(n, 1, 1, 1).to(x.device)
            x = torch.where(mirrored, x.flip(3), x)
        if self.saturation and x.shape[1] == 3:
            grey = x.mean(dim=1, keepdim=True)
            x = grey + (x - grey) * (1 + either_way(self.saturation))
        if self.contrast:
            middle = x.mean(dim=(1, 2, 3), keepdim=True)
            x = middle + (x - middle) * (1 + either_way(self.contrast))
        if self.brightness:
            x = x + either_way(self.brightness)
        if self.saturation or self.contrast or self.brightness:
            x = x.clamp_(0, 1)
        if self.erase:
            x = self._erase(x, chance)
        return x

    def _erase(self, x: Tensor, chance: _Chance) -> Tensor:
        n, _, height, width = x.shape
        wiped = chance.uniform() < 0.5
        corner = chance.uniform(2) * (1 - self.erase)
        rows = torch.arange(height)[None] / height
        columns = torch.arange(width)[None] / width
        inside_rows = (rows >= corner[:, :1]) & (rows < corner[:, :1] + self.erase)
        inside_columns = (columns >= corner[:, 1:]) & (columns < corner[:, 1:] + self.erase)
        hole = inside_rows[:, None, :, None] & inside_columns[:, None, None, :] & wiped.view(n, 1, 1, 1)
        return torch.where(hole.to(x.device), x.mean(dim=(2, 3), keepdim=True), x)


class _Chance:
    """Random numbers for some rows of a batch: drawn for all of it, so that each image has its own.

    They are drawn on the processor, wherever the images are: another device has another generator.
    """

    def __init__(self, seed: int, rows: slice, whole: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.rows, self.whole = rows, whole

    def uniform(self, *shape: int) -> Tensor:
        """In [0, 1), shape ``(n, *shape)``."""
        return torch.rand(self.whole, *shape, generator=self.generator)[self.rows]

    def normal(self, *shape: int) -> Tensor:
        """With deviation 1, shape ``(n, *shape)``."""
        return torch.randn(self.whole, *shape, generator=self.generator)[self.rows]

    def either_way(self, most: float) -> Tensor:
        """Up to so far on both sides of 0, shape ``(n,)``."""
        return (self.uniform() * 2 - 1) * most


@functools.lru_cache(maxsize=2)
def _places(height: int, width: int, elastic: bool, dtype: torch.dtype) -> Tensor:
    """What a warp is linear in at each pixel: x, y, 1, and the share of each knot of a wobble.

    Shape ``(3, pixels)`` or ``(3 + knots, pixels)``; kept, since all batches of a run have one size.
    """
    x = (2 * torch.arange(width, dtype=dtype) + 1) / width - 1
    y = (2 * torch.arange(height, dtype=dtype) + 1) / height - 1
    one = torch.ones(height, width, dtype=dtype)
    affine = torch.stack([x * one, y[:, None] * one, one])
    if not elastic:
        return affine.flatten(1)
    knots = torch.eye(_KNOTS * _KNOTS, dtype=dtype).view(-1, 1, _KNOTS, _KNOTS)
    share = F.interpolate(knots, size=(height, width), mode="bicubic", align_corners=True)
    return torch.cat([affine, share[:, 0]]).flatten(1)
