"""Losses that compare images with one learned vector (a proxy) for each class.

An image is compared with every class at each step, whichever images share its batch, so these losses need
no miner, no pairs and no two images of a class in a batch. Proxies exist for the training classes only and
are discarded after training. Give their parameters to the optimizer with 10 to 100 times the network's
learning rate: few images move each proxy.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distances import cosine_similarity
from ..errors import DataError, SettingError
from .base import Loss
from .inputs import NEVER, Indices, check_batch, check_positive, compare

__all__ = ["ArcFaceLoss", "ProxyAnchorLoss"]


class ProxyLoss(Loss):
    """Base class of losses with proxies: a subclass implements `cost` of the matrix of cosines."""

    kind = "embedding"
    distance = "cosine"
    proxies = True

    def __init__(self, num_classes: int, embedding_size: int) -> None:
        super().__init__()
        if num_classes < 2 or embedding_size < 1:
            sizes = f"num_classes is {num_classes} and embedding_size {embedding_size}"
            raise SettingError(f"{sizes}. A loss with proxies needs at least 2 classes and 1 value")
        self.num_classes, self.embedding_size = num_classes, embedding_size
        # One random direction for each class; only directions matter.
        self.weight = nn.Parameter(torch.randn(num_classes, embedding_size))

    def forward(self, embeddings: Tensor, labels: Tensor, indices: Indices | None = None) -> Tensor:
        """Compute the loss of a batch with embeddings ``(n, d)`` and labels ``(n,)``: a scalar."""
        check_batch(embeddings, labels)
        if indices is not None:
            raise SettingError("a loss with proxies compares images with classes. Leave the miner out")
        # On other devices the check would make the device wait, and the device checks indices itself.
        if labels.device.type == "cpu" and not 0 <= int(labels.min()) <= int(labels.max()) < len(self.weight):
            found = f"labels range from {int(labels.min())} to {int(labels.max())}"
            raise DataError(f"{found}. This loss was made for {len(self.weight)} classes, numbered from 0")
        return self.cost(compare(cosine_similarity, embeddings, self.weight), labels)

    def cost(self, cosine: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss from the cosines ``(n, classes)`` of images and proxies."""
        raise NotImplementedError


class ArcFaceLoss(ProxyLoss):
    """Classify by the angle to each class's proxy, with a margin added to the angle of the true class.

    For many classes with many images each, such as thousands of faces. With few images of each class,
    `SupConLoss` or `MultiSimilarityLoss` train better.

    Args:
        num_classes: Number of classes; labels are 0 to ``num_classes - 1``.
        embedding_size: Values in an embedding.
        margin: Angle in radians, between 0 and pi.
        scale: Factor of the cosines before the softmax, above 0; with few classes, 16 to 32.

    References:
        Deng et al., CVPR 2019, eq. 3. Beyond ``pi - margin`` the cosine continues as a straight line, as in
        its authors' code.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, margin: float = 0.5, scale: float = 64.0
    ) -> None:
        super().__init__(num_classes, embedding_size)
        if not 0 < margin < math.pi:
            raise SettingError(f"margin is {margin}. ArcFace needs an angle in radians between 0 and pi")
        self.margin = margin
        self.scale = check_positive("scale", scale)

    def cost(self, cosine: Tensor, labels: Tensor) -> Tensor:
        own = cosine.gather(1, labels[:, None])
        # cos(angle + margin). At sine 0 the root has no gradient; the clamp makes it 0 there.
        sine = (1 - own.square()).clamp(min=torch.finfo(own.dtype).eps).sqrt()
        turned = own * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = own <= -math.cos(self.margin)
        worse = torch.where(beyond, own - self.margin * math.sin(self.margin), turned)
        return F.cross_entropy(self.scale * cosine.scatter(1, labels[:, None], worse), labels)


class ProxyAnchorLoss(ProxyLoss):
    """Pull the images of a class to its proxy and push the others from it, the hardest most.

    The loss is summed by proxy where ArcFace sums by image, so the images of a batch influence each other.
    It converges quickly, also with some tens of images of each class.

    Args:
        num_classes: Number of classes; labels are 0 to ``num_classes - 1``.
        embedding_size: Values in an embedding.
        margin: Cosine similarity above 0: positives should be above it and negatives below its negative.
        alpha: Sharpness, above 0; the higher, the more the hardest images count.

    References:
        Kim et al., CVPR 2020, eq. 4.
    """

    def __init__(
        self, num_classes: int, embedding_size: int, *, margin: float = 0.1, alpha: float = 32.0
    ) -> None:
        super().__init__(num_classes, embedding_size)
        self.margin = check_positive("margin", margin)
        self.alpha = check_positive("alpha", alpha)

    def cost(self, cosine: Tensor, labels: Tensor) -> Tensor:
        own = labels[:, None] == torch.arange(len(self.weight), device=labels.device)
        pull = torch.where(own, self.alpha * (self.margin - cosine), NEVER).logsumexp(0)
        push = torch.where(own, NEVER, self.alpha * (self.margin + cosine)).logsumexp(0)
        # A class that is not in the batch costs 0 in the first sum and is not counted there.
        return F.softplus(pull).sum() / own.any(0).sum() + F.softplus(push).mean()
