"""Base class of the encoders."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Convolutional backbone, pooling and projection: images to embeddings.

    The backbone consists of stages, which can be frozen from the input on. A subclass defines
    ``embedding_size`` and `stages`, and overrides `pool` and `project` where needed.

    Args:
        image_size: Height and width of the input, in pixels.
        channels: 1 or 3.

    Attributes:
        name: Name by which `create_encoder` made it; None otherwise.
        mean: Mean of the pixels that pretrained weights expect, one value per channel; None without
            pretrained weights.
        std: Standard deviation of these pixels.
        license: License of the pretrained weights; None without pretrained weights.
        has_maps: False for an encoder whose `forward_features` returns no feature map.
        symmetric: In evaluation mode, project the mean of the pooled features of an image and its mirror
            image. Suits objects that look alike in a mirror; doubles the time per image.
    """

    name: str | None = None
    embedding_size: int
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    license: str | None = None
    has_maps = True
    symmetric = False

    def __init__(self, *, image_size: tuple[int, int], channels: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.channels = channels

    def stages(self) -> list[nn.Module]:
        """Return the stages of the backbone in order, then the projection layer or an identity."""
        raise NotImplementedError

    def can_start_at(self, stage: int) -> bool:
        """Return True if the input of a stage is all that this stage and the later ones need."""
        return True

    def pool(self, maps: Tensor) -> Tensor:
        """Lay out feature maps as vectors: ``(n, filters, rows, columns) -> (n, n_features)``."""
        return maps.flatten(1)

    def project(self, features: Tensor) -> Tensor:
        """Map pooled features to embeddings: ``(n, n_features) -> (n, embedding_size)``."""
        embedding: Tensor = self.stages()[-1](features)
        return embedding

    def forward_features(self, x: Tensor, *, start_stage: int = 0) -> tuple[Tensor, Tensor]:
        """Return the pooled features ``(n, n_features)`` and the last map ``(n, filters, rows, columns)``.

        Args:
            x: Images, shape ``(n, channels, height, width)``; or the input of stage ``start_stage``.
            start_stage: First stage to run.
        """
        for stage in self.stages()[start_stage:-1]:
            x = stage(x)
        return self.pool(x), x

    def features(self, x: Tensor) -> Tensor:
        """Return the last feature map, shape ``(n, filters, rows, columns)``."""
        return self.forward_features(x)[1]

    def pooled_features(self, x: Tensor, *, start_stage: int = 0) -> Tensor:
        """Return the input of the projection, shape ``(n, n_features)``.

        Args:
            x: Images, shape ``(n, channels, height, width)``. With ``start_stage`` above 0, the input of that
                stage: feature maps ``(n, filters, rows, columns)`` or, for the projection, features
                ``(n, n_features)``; those of image and mirror image are stacked along axis 1.
            start_stage: First stage to run.
        """
        is_pooled = 0 < start_stage == len(self.stages()) - 1
        views = [x]
        if start_stage == 0 and self.symmetric and not self.training:
            views = [x, x.flip(3)]
        elif start_stage and x.ndim > (2 if is_pooled else 4):
            views = list(x.unbind(1))[: 1 + self.symmetric]
        if not is_pooled:
            views = [self.forward_features(view, start_stage=start_stage)[0] for view in views]
        return views[0] if len(views) == 1 else (views[0] + views[1]) / 2

    @property
    def linear_projection(self) -> nn.Linear | None:
        """Projection layer if it is linear and its output is the embedding; None otherwise."""
        layer = getattr(self, "dense", None)
        return layer if isinstance(layer, nn.Linear) else None

    def forward(self, x: Tensor, *, start_stage: int = 0) -> Tensor:
        """Return embeddings, shape ``(n, embedding_size)``; see `pooled_features` for the arguments."""
        return self.project(self.pooled_features(x, start_stage=start_stage))

    def _add_projection(self, n_features: int, embedding_size: int | None) -> None:
        """Add ``dense``: a linear layer to ``embedding_size`` values, or an identity if that is None."""
        self.embedding_size = embedding_size or n_features
        self.dense: nn.Module = nn.Linear(n_features, embedding_size) if embedding_size else nn.Identity()

    def _n_features(self) -> int:
        """Return the number of pooled features, measured on a black image before there is a projection."""
        self.dense = nn.Identity()
        was_training = self.training
        self.eval()
        with torch.no_grad():
            size = self.pooled_features(torch.zeros(1, self.channels, *self.image_size)).shape[1]
        self.train(was_training)
        return size
