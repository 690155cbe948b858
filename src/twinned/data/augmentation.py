"""Augment batches of images in PyTorch, from uint8 to floats in [0, 1].

Affine map, elastic distortion and quarter turn are combined into one grid, so the images are resampled once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import SettingError

# Control points per side of the elastic distortion; displacements between them are interpolated.
_KNOTS = 5
# An own augmentation may pass the limits of [0, 1] by this much, as noise does.
_FAR = 1.0
# Maps from coordinates in a turned image to the original: left turns (0 to 3), mirrored first (4 to 7).
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
    """Random augmentation, independent for each image; a part of strength 0 is off.

    Strengths are maxima in both directions, ``flip`` and ``erase`` have probability 0.5.
    """

    rotation: float = 0.0  # degrees
    shear: float = 0.0  # of each axis, as a fraction of the other
    scale: float = 0.0  # of each axis: 0.2 scales by 1/1.2 to 1.2
    shift: float = 0.0  # fraction of the image size
    probability: float = 1.0  # of each of the four above, for each image (0.5 in Koch 2015)
    elastic: float = 0.0  # standard deviation, as a fraction of half the image size (Simard 2003)
    flip: bool = False  # mirror left and right
    brightness: float = 0.0  # change of the pixel values, which are in [0, 1]
    contrast: float = 0.0  # relative change
    saturation: float = 0.0  # relative change; color images only
    erase: float = 0.0  # side of a square, as a fraction of the image size
    function: Callable[[Tensor], Tensor] | None = None  # of one's own, from and to floats in [0, 1]

    @property
    def warps(self) -> bool:
        """True if pixels move (other than by mirroring)."""
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
        """Map bytes ``(n, height, width, channels)`` to floats in [0, 1], ``(n, channels, height, width)``.

        ``turns`` are quarter turns of each image, which from 4 on is mirrored first. Images that are ``rows``
        of a larger batch, of ``whole`` images, are augmented as in that batch. Channels are last in memory.
        """
        chance = _Chance(seed, rows, len(pixels) if whole is None else whole)
        x = pixels.permute(0, 3, 1, 2).to(torch.get_default_dtype()).div_(255)
        if self.warps or turns is not None:
            grid = self._grid(x, turns, chance)
            x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
        x = self._change_colors(x, chance)
        if self.function is not None:
            torch.manual_seed(seed + (rows.start or 0))  # the function may draw PyTorch's random numbers
            x = x.contiguous(memory_format=torch.channels_last)
            x = _checked(self.function(x), x)
        return x.contiguous(memory_format=torch.channels_last)

    def _grid(self, x: Tensor, turns: Tensor | None, chance: _Chance) -> Tensor:
        """Return the source of each pixel, ``(n, height, width, 2)``, in [-1, 1] from edge to edge."""
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

    def _change_colors(self, x: Tensor, chance: _Chance) -> Tensor:
        n = len(x)

        def either_way(most: float) -> Tensor:
            return chance.either_way(most).view(n, 1, 1, 1).to(x.device)

        if self.flip and not self.warps:
            mirrored = (chance.uniform() < 0.5).view(n, 1, 1, 1).to(x.device)
            x = torch.where(mirrored, x.flip(3), x)
        if self.saturation and x.shape[1] == 3:
            gray = x.mean(dim=1, keepdim=True)
            x = gray + (x - gray) * (1 + either_way(self.saturation))
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


def _checked(changed: Any, images: Tensor) -> Tensor:
    """Return the output of an own augmentation, which must have the shape, type and range of its input."""
    if not isinstance(changed, Tensor) or changed.shape != images.shape or changed.dtype != images.dtype:
        found = (tuple(changed.shape), changed.dtype) if isinstance(changed, Tensor) else type(changed)
        raise SettingError(
            f"augment returned {found}. It must return {images.dtype} of shape {tuple(images.shape)}"
        )
    low, high = torch.stack(changed.aminmax()).tolist()
    if not (low >= -_FAR and high <= 1 + _FAR):
        raise SettingError(f"augment returned {low:g} to {high:g}; expected values in [0, 1], not normalized")
    return changed


class _Chance:
    """Random numbers for rows of a batch: drawn for the whole batch, so they do not depend on the rows.

    They are drawn on the CPU, because generators of other devices give other numbers.
    """

    def __init__(self, seed: int, rows: slice, whole: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.rows, self.whole = rows, whole

    def uniform(self, *shape: int) -> Tensor:
        """Draw uniformly from [0, 1), shape ``(n, *shape)``."""
        return torch.rand(self.whole, *shape, generator=self.generator)[self.rows]

    def normal(self, *shape: int) -> Tensor:
        """Draw from the standard normal distribution, shape ``(n, *shape)``."""
        return torch.randn(self.whole, *shape, generator=self.generator)[self.rows]

    def either_way(self, most: float) -> Tensor:
        """Draw uniformly from [-most, most), shape ``(n,)``."""
        return (self.uniform() * 2 - 1) * most


@functools.lru_cache(maxsize=2)
def _places(height: int, width: int, elastic: bool, dtype: torch.dtype) -> Tensor:
    """Return the basis of the warp at each pixel: x, y, 1, and the weight of each elastic control point.

    Shape ``(3, pixels)`` or ``(3 + knots, pixels)``. Cached, since all batches of a run have the same size.
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
