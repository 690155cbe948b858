"""Small convolutional encoders that take images of any size."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import SettingError


class Encoder(nn.Module):
    """What every encoder has: the size of its input and of its embedding, and parts that can be frozen.

    The image goes through the stages one after the other, which gives the feature map; that is laid out as
    one vector an image, and the last stage, the embedding layer, makes the embedding of it.

    Args:
        image_size: Height and width of the input, in pixels.
        channels: 1 or 3.

    Attributes:
        mean: Of the pixels that pretrained weights are used to; None to measure it on the training images.
        std: Their deviation, likewise.
        licence: Of pretrained weights, where there are any.
        sequential: Whether all stages but the last can be run one after the other from outside.
        symmetric: Whether, but for training, an image is seen together with its mirror image: the embedding
            layer is given the mean of what both give. For things that a mirror leaves much the same; it takes
            twice the time.
    """

    embedding_size: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    licence: str | None = None
    sequential = True
    symmetric = False

    def __init__(self, *, image_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels = channels

    def stages(self) -> list[nn.Module]:
        """The parts from the input on, in order; the last is the embedding layer, or an identity."""
        raise NotImplementedError

    def splits(self, stage: int) -> bool:
        """Whether what a stage is given is all that it and those behind it need to know of an image."""
        return self.sequential

    def through(self, x: Tensor, start: int, stop: int) -> Tensor:
        """What some of the stages, one after the other, make of what those before them made."""
        for stage in self.stages()[start:stop]:
            x = stage(x)
        return x

    def features(self, x: Tensor) -> Tensor:
        """The last feature map: ``(n, channels, height, width) -> (n, filters, rows, columns)``."""
        return self.look(x)[1]

    def flat(self, maps: Tensor) -> Tensor:
        """A feature map as one vector an image: ``(n, filters, rows, columns) -> (n, values)``."""
        return maps.flatten(1)

    def look(self, x: Tensor, start: int = 0) -> tuple[Tensor, Tensor]:
        """What there is to see of images as they are, ``(n, values)``, and their last feature map.

        Args:
            x: Images ``(n, channels, height, width)``; or what the first stages made of them.
            start: How many stages that were.
        """
        maps = self.through(x, start, -1)
        return self.flat(maps), maps

    def seen(self, x: Tensor, start: int = 0) -> Tensor:
        """What there is to see of images as they are: ``(n, values)``; see `look`."""
        return self.look(x, start)[0]

    def values(self, x: Tensor) -> Tensor:
        """What the embedding layer is given: ``(n, channels, height, width) -> (n, values)``."""
        values = self.seen(x)
        return (values + self.seen(x.flip(3))) / 2 if self.symmetric and not self.training else values

    def last(self, flat: Tensor) -> Tensor:
        """The embedding: ``(n, values) -> (n, embedding_size)``."""
        embedding: Tensor = self.stages()[-1](flat)
        return embedding

    @property
    def linear(self) -> nn.Linear | None:
        """The embedding layer, where there is one and what it gives is the embedding."""
        layer = getattr(self, "dense", None)
        return layer if isinstance(layer, nn.Linear) else None

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings: ``(n, channels, height, width) -> (n, embedding_size)``."""
        return self.last(self.values(x))

    def _flat_size(self) -> int:
        """How many values the embedding layer sees, tried out with a black image before there is one."""
        self.dense: nn.Module = nn.Identity()
        was_training = self.training
        self.eval()
        with torch.no_grad():
            size = self.values(torch.zeros(1, self.channels, *self.image_size)).shape[1]
        self.train(was_training)
        return size


class Conv4(Encoder):
    """Four blocks of 3x3 convolution, batch norm, ReLU and pool: fast, and good on small images.

    What is left of the image after the blocks (2x2 of a 35x35 one; larger maps are averaged down to about
    that) is laid out as the embedding, so it keeps a rough idea of where things are.

    Args:
        image_size: Height and width, at least 16.
        channels: 1 or 3.
        embedding_size: With a number, a linear layer brings the embedding to that size.
        filters: Of the four blocks.
        stride: Of the first convolution: 2 quarters the work on large images.
        dropout: Share of the last map's values left out in training: few classes are soon learnt by heart.
    """

    def __init__(
        self,
        *,
        image_size: tuple[int, int] = (35, 35),
        channels: int = 1,
        embedding_size: int | None = None,
        filters: tuple[int, ...] = (64, 64, 128, 128),
        stride: int = 1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(image_size=image_size, channels=channels)
        if min(image_size) < 16:
            raise SettingError(f"conv4 needs images of at least 16x16; got {image_size[0]}x{image_size[1]}")
        before = (channels, *filters[:-1])
        self.blocks = nn.Sequential(
            *(
                _block(i, o, stride=stride if n == 0 else 1)
                for n, (i, o) in enumerate(zip(before, filters, strict=True))
            )
        )
        self.dropout = nn.Dropout(dropout)
        flat = self._flat_size()
        self.embedding_size = embedding_size or flat
        self.dense = nn.Linear(flat, embedding_size) if embedding_size else nn.Identity()

    def stages(self) -> list[nn.Module]:
        return [*self.blocks, nn.Sequential(self.dropout, self.dense)]

    def flat(self, maps: Tensor) -> Tensor:
        return _to_grid(maps).flatten(1)

    def last(self, flat: Tensor) -> Tensor:
        embedding: Tensor = self.dense(self.dropout(flat))
        return embedding


def conv4_wide(
    *,
    image_size: tuple[int, int] = (35, 35),
    channels: int = 1,
    embedding_size: int | None = None,
    dropout: float = 0.0,
) -> Conv4:
    """`Conv4` with its filters where the map is small, which costs little; for images of 64x64 or more the
    first convolution has stride 2, so that these take no longer than small ones. Small images get fewer
    filters in the middle, half the work: in the same time twice the steps teach more.

    Args:
        image_size: Height and width, at least 16.
        channels: 1 or 3.
        embedding_size: With a number, a linear layer brings the embedding to that size.
        dropout: Share of the last map's values left out in training.
    """
    large = image_size[0] * image_size[1] >= 64 * 64 and min(image_size) >= 32
    return Conv4(
        image_size=image_size,
        channels=channels,
        embedding_size=embedding_size,
        filters=(32, 96, 192, 256) if large else (32, 64, 128, 256),
        stride=2 if large else 1,
        dropout=dropout,
    )


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
        self.dropout = nn.Dropout(dropout)
        flat = self._flat_size()
        self.embedding_size = embedding_size or flat
        self.dense = nn.Linear(flat, embedding_size) if embedding_size else nn.Identity()

    def stages(self) -> list[nn.Module]:
        return [*self.blocks, nn.Sequential(self.dropout, self.dense)]

    def flat(self, maps: Tensor) -> Tensor:
        return _to_grid(maps).flatten(1)

    def last(self, flat: Tensor) -> Tensor:
        embedding: Tensor = self.dense(self.dropout(flat))
        return embedding


def _block(inputs: int, outputs: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),  # after the pool, which comes to the same and is a quarter of the work
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
