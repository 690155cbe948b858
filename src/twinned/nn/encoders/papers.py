"""Encoders of published papers, Koch 2015 and Chopra 2005, and of the slide deck."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from ...errors import SettingError
from .base import Encoder

__all__ = ["Chopra2005", "Deck", "Koch2015"]


class Koch2015(Encoder):
    """Network of Koch et al. 2015, figure 4: 105x105 gray images to 4,096 sigmoid outputs.

    Convolutions 64@10x10, 128@7x7, 128@4x4, 256@4x4 without padding, each with ReLU, the first three with
    2x2 max pooling; then a dense layer. With the `WeightedL1` head it has 38,951,745 parameters. Initial
    weights follow the paper: convolutions N(0, 0.01), dense layer N(0, 0.2), biases N(0.5, 0.01).

    References:
        Koch, Zemel & Salakhutdinov, Siamese neural networks for one-shot image recognition,
        ICML Deep Learning Workshop 2015, sections 3.1 and 3.2.
    """

    embedding_size = 4096
    linear_projection = None

    def __init__(self) -> None:
        super().__init__(image_size=(105, 105), channels=1)
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(1, 64, 10), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 128, 7), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(128, 128, 4), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(128, 256, 4), nn.ReLU(inplace=True)),
        )
        self.dense = nn.Linear(256 * 6 * 6, self.embedding_size)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
                nn.init.normal_(layer.weight, 0.0, 0.2 if isinstance(layer, nn.Linear) else 0.01)
                nn.init.normal_(layer.bias, 0.5, 0.01)

    def project(self, features: Tensor) -> Tensor:
        return torch.sigmoid(self.dense(features))

    def stages(self) -> list[nn.Module]:
        return [*(self.convolutions[i : i + 3] for i in (0, 3, 6, 9)), self.dense]


class Chopra2005(Encoder):
    """Network of Chopra et al. 2005, section 3: 56x46 gray faces to 50 outputs.

    C1 15@7x7, subsampling 2x2, C3 45@6x6, subsampling 4x3, C5 250@5x5, F6 50 units. The paper connects the
    maps of C1 and C3 by a sparse table that it does not print in full; here they are fully connected.

    Args:
        embedding_size: Size of the embedding.

    References:
        Chopra, Hadsell & LeCun, Learning a similarity metric discriminatively, with application to face
        verification, CVPR 2005, section 3.2. Layer sizes were not checked against the paper.
    """

    def __init__(self, *, embedding_size: int = 50) -> None:
        super().__init__(image_size=(56, 46), channels=1)
        self.embedding_size = embedding_size
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(1, 15, 7), nn.Tanh(), nn.AvgPool2d(2)),  # 50x40 -> 25x20
            *(nn.Conv2d(15, 45, 6), nn.Tanh(), nn.AvgPool2d((4, 3))),  # 20x15 -> 5x5
            *(nn.Conv2d(45, 250, 5), nn.Tanh()),  # 1x1
        )
        self.dense = nn.Linear(250, embedding_size)

    def stages(self) -> list[nn.Module]:
        return [self.convolutions[:3], self.convolutions[3:6], self.convolutions[6:], self.dense]


class Deck(Encoder):
    """Example networks of the slide deck: 3x3 convolutions with ReLU and max pooling, then a dense layer.

    Convolutions have no padding. Initial weights are those of Keras: Glorot uniform, biases 0.

    Args:
        filters: Number of filters of each convolution.
        dense: Size of the embedding, which ends in a ReLU as in the deck.
        image_size: Height and width.
        channels: 1 or 3.
    """

    linear_projection = None

    def __init__(
        self, *, filters: tuple[int, ...], dense: int, image_size: tuple[int, int], channels: int
    ) -> None:
        super().__init__(image_size=image_size, channels=channels)
        if min(image_size) < (least := 4 * 2 ** len(filters)):
            size = f"{image_size[0]}x{image_size[1]}"
            raise SettingError(
                f"The deck's network needs at least {least} pixels a side; the images have {size}"
            )
        sizes = pairwise((channels, *filters))
        blocks = (nn.Sequential(nn.Conv2d(*s, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)) for s in sizes)
        self.convolutions = nn.Sequential(*blocks)
        self.embedding_size = dense
        self.dense = nn.Linear(self._n_features(), dense)
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def project(self, features: Tensor) -> Tensor:
        return torch.relu(self.dense(features))

    def stages(self) -> list[nn.Module]:
        return [*self.convolutions, self.dense]
