"""Small convolutional encoders for images of any size."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import SettingError
from .base import Encoder

__all__ = ["Conv4", "ResNet"]


class _ConvNet(Encoder):
    """Blocks, pooling to a grid of about 2x2 cells, dropout and an optional linear layer."""

    def __init__(
        self,
        blocks: nn.Sequential,
        size: tuple[int, int],
        channels: int,
        embedding: int | None,
        dropout: float,
    ) -> None:
        super().__init__(image_size=size, channels=channels)
        if min(size) < 16:
            name = type(self).__name__.lower()
            raise SettingError(f"{name} needs images of at least 16x16; got {size[0]}x{size[1]}")
        self.blocks = blocks
        self.dropout = nn.Dropout(dropout)
        self._add_projection(self._n_features(), embedding)

    def stages(self) -> list[nn.Module]:
        return [*self.blocks, nn.Sequential(self.dropout, self.dense)]

    def pool(self, maps: Tensor) -> Tensor:
        kernel = max(1, maps.shape[2] // 2), max(1, maps.shape[3] // 2)
        return (F.avg_pool2d(maps, kernel) if kernel != (1, 1) else maps).flatten(1)

    def project(self, features: Tensor) -> Tensor:
        embedding: Tensor = self.dense(self.dropout(features))
        return embedding


class Conv4(_ConvNet):
    """Four blocks of 3x3 convolution, batch norm, ReLU and pooling: fast, and accurate on small images.

    The last feature map is pooled to a grid of about 2x2 cells and flattened, so the embedding keeps coarse
    positions.

    Args:
        image_size: Height and width, at least 16.
        channels: 1 or 3.
        embedding_size: Size of the embedding, made by a linear layer; None for the pooled features.
        filters: Number of filters of each block.
        stride: Stride of the first convolution; 2 quarters the computation for large images.
        dropout: Dropout probability of the pooled features, in [0, 1).
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
        sizes = pairwise((channels, *filters))
        blocks = (_block(i, o, stride if n == 0 else 1) for n, (i, o) in enumerate(sizes))
        super().__init__(nn.Sequential(*blocks), image_size, channels, embedding_size, dropout)


def conv4_wide(
    *,
    image_size: tuple[int, int] = (35, 35),
    channels: int = 1,
    embedding_size: int | None = None,
    dropout: float = 0.0,
) -> Conv4:
    """Build a `Conv4` with more filters in the later blocks, where maps are small and filters cheap.

    For images of 64x64 pixels or more the first convolution has stride 2. Smaller images get fewer filters in
    the middle blocks, which allows about twice the training steps in the same time.
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


class ResNet(_ConvNet):
    """Small residual network (He et al. 2016): slower than `Conv4`, more accurate after long training.

    Args:
        filters: Number of filters of the stem and of each residual block; every block but the last halves
            height and width. The other arguments are those of `Conv4`.
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
        stem = nn.Sequential(
            nn.Conv2d(channels, filters[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(filters[0]),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        strides = [2] * (len(filters) - 2) + [1]
        blocks = (_Residual(*sizes, stride) for sizes, stride in zip(pairwise(filters), strides, strict=True))
        super().__init__(nn.Sequential(stem, *blocks), image_size, channels, embedding_size, dropout)


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.MaxPool2d(2),
        nn.ReLU(inplace=True),  # commutes with max pooling; after it, a quarter of the work
    )


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.skip: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            pool: nn.Module = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
            match_filters = nn.Conv2d(inputs, outputs, 1, bias=False)
            self.skip = nn.Sequential(pool, match_filters, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.skip(x))
