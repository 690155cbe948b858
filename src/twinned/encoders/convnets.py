"""Small convolutional encoders that take images of any size."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import SettingError


class Encoder(nn.Module):
    """What every encoder has: the size of its input and of its embedding.

    Args:
        image_size: Height and width of the input, in pixels.
        channels: 1 or 3.
    """

    embedding_size: int

    def __init__(self, *, image_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels = channels

    def features(self, x: Tensor) -> Tensor:
        """The last feature map: ``(n, channels, height, width) -> (n, filters, rows, columns)``."""
        raise NotImplementedError

    def stages(self) -> list[nn.Module]:
        """The parts from the input to the embedding, in order."""
        raise NotImplementedError

    def _features_of_zeros(self) -> Tensor:
        """The feature map of two black images, to learn its size when the network is built."""
        was_training = self.training
        self.eval()
        with torch.no_grad():
            features = self.features(torch.zeros(2, self.channels, *self.image_size))
        self.train(was_training)
        return features


class Conv4(Encoder):
    """Four blocks of 3x3 convolution, batch norm, ReLU and pool: fast, and good on small images.

    What is left of the image after the blocks (2x2 of a 35x35 one; larger maps are averaged down to about
    that) is laid out as the embedding, so it keeps a rough idea of where things are.

    Args:
        image_size: Height and width, at least 16.
        channels: 1 or 3.
        embedding_size: With a number, a linear layer brings the embedding to that size.
        filters: Of the four blocks.
        dropout: Share of the last map's values left out in training: few classes are soon learnt by heart.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int] = (35, 35),
        channels: int = 1,
        embedding_size: int | None = None,
        filters: tuple[int, ...] = (64, 64, 128, 128),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(image_size=image_size, channels=channels)
        if min(image_size) < 16:
            raise SettingError(f"conv4 needs images of at least 16x16; got {image_size[0]}x{image_size[1]}")
        before = (channels, *filters[:-1])
        self.blocks = nn.Sequential(*(_block(i, o) for i, o in zip(before, filters, strict=True)))
        flat = _to_grid(self._features_of_zeros()).flatten(1).shape[1]
        self.embedding_size = embedding_size or flat
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(flat, embedding_size) if embedding_size else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.blocks(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.dense(self.dropout(_to_grid(self.features(x)).flatten(1)))
        return embedding

    def stages(self) -> list[nn.Module]:
        return [*self.blocks, self.dense]


class ResNet(Encoder):
    """A small residual network (He et al. 2016): slower than `Conv4`, better when there is time.

    Args:
        image_size: Height and width, at least 16.
        channels: 1 or 3.
        embedding_size: With a number, a linear layer brings the embedding to that size.
        filters: Of the stem and of each residual block; every block but the last halves the image.
        dropout: Share of the last map's values left out in training.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int] = (48, 48),
        channels: int = 1,
        embedding_size: int | None = None,
        filters: tuple[int, ...] = (64, 96, 128, 192),
        dropout: float = 0.0,
    ) -> None:
        super().__init__(image_size=image_size, channels=channels)
        if min(image_size) < 16:
            raise SettingError(f"resnet needs images of at least 16x16; got {image_size[0]}x{image_size[1]}")
        stem = nn.Sequential(
            nn.Conv2d(channels, filters[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(filters[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        blocks = [
            _Residual(i, o, stride=1 if n == len(filters) - 2 else 2)
            for n, (i, o) in enumerate(pairwise(filters))
        ]
        self.blocks = nn.Sequential(stem, *blocks)
        flat = _to_grid(self._features_of_zeros()).flatten(1).shape[1]
        self.embedding_size = embedding_size or flat
        self.dropout = nn.Dropout(dropout)
        self.dense = nn.Linear(flat, embedding_size) if embedding_size else nn.Identity()

    def features(self, x: Tensor) -> Tensor:
        maps: Tensor = self.blocks(x)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.dense(self.dropout(_to_grid(self.features(x)).flatten(1)))
        return embedding

    def stages(self) -> list[nn.Module]:
        return [*self.blocks, self.dense]


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2),
    )


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            pool: nn.Module = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
            self.skip = nn.Sequential(
                pool, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.skip(x))


def _to_grid(maps: Tensor, cells: int = 2) -> Tensor:
    """Average a feature map down to about ``cells`` a side; smaller maps stay as they are."""
    kernel = max(1, maps.shape[2] // cells), max(1, maps.shape[3] // cells)
    return F.avg_pool2d(maps, kernel) if kernel != (1, 1) else maps
