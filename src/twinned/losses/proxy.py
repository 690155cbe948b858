"""Losses that hold one learned vector (a proxy) for each class, and compare images with these.

An image meets every class at each step, whichever images share its batch, so they need no miner, no
pairs and no two images of a class in a batch. They know the training classes only; the proxies are
thrown away after training. Give their parameters to the optimiser, with a learning rate 10 to 100
times the network's: each proxy moves only by the few images that it meets.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distances import cosine_similarity
from ..errors import DataError, SettingError
from .inputs import (
    NEVER,
    Indices,
    check_batch,
    check_positive,
    compare,
)


class ArcFaceLoss(nn.Module):
    """Classify by the angle to each class's proxy, with the true class's angle made worse by a margin.

    For many classes with many images each (faces by the thousand). With few images a class,
    `supcon_loss` or `multi_similarity_loss` learn more.

    Args:
        num_classes: Labels are 0 to ``num_classes - 1``.
        embedding_size: Values in an embedding.
        margin: An angle in radians, below pi.
        scale: What cosines are multiplied by before the softmax; with few classes, less (16 to 32).

    Raises:
        SettingError: If a setting cannot be used.

    Example:
        >>> loss = ArcFaceLoss(10, 4)
        >>> loss(torch.randn(8, 4), torch.arange(8)).shape
        torch.Size([])

    References:
        Deng et al., CVPR 2019, eq. 3; as in its authors' code, beyond ``pi - margin`` the cosine goes
        on falling in a straight line.
    """

    kind = "embedding"
    distance = "cosine"
    proxies = True

    def __init__(
        self, num_classes: int, embedding_size: int, *, margin: float = 0.5, scale: float = 64.0
    ) -> None:
        super().__init__()
        if not 0 < margin < math.pi:
            raise SettingError(f"margin is {margin}; ArcFace needs an angle in radians between 0 and pi")
        self.margin = margin
        self.scale = check_positive("scale", scale)
        self.weight = _proxies(num_classes, embedding_size)

    def forward(self, embeddings: Tensor, labels: Tensor, indices: Indices | None = None) -> Tensor:
        _check(embeddings, labels, indices, len(self.weight))
        cosine = compare(cosine_similarity, embeddings, self.weight)
        own = cosine.gather(1, labels[:, None])
        # cos(angle + margin). At sine 0 the root has no gradient; the clamp makes it 0 there.
        sine = (1 - own.square()).clamp(min=torch.finfo(own.dtype).eps).sqrt()
        turned = own * math.cos(self.margin) - sine * math.sin(self.margin)
        beyond = own <= -math.cos(self.margin)
        worse = torch.where(beyond, own - self.margin * math.sin(self.margin), turned)
        return F.cross_entropy(self.scale * cosine.scatter(1, labels[:, None], worse), labels)


class ProxyAnchorLoss(nn.Module):
    """Let each class's proxy pull its images and push the others, the hardest most.

    Proxy by proxy where ArcFace goes image by image, so images of a batch also teach each
    other. Quick to converge, also with some tens of images a class.

    Args:
        num_classes: Labels are 0 to ``num_classes - 1``.
        embedding_size: Values in an embedding.
        margin: Of cosine similarity: positives are drawn above it, negatives below minus it.
        alpha: How much more the hardest images count.

    Raises:
        SettingError: If a setting cannot be used.

    References:
        Kim et al., CVPR 2020, eq. 4.
    """

    kind = "embedding"
    distance = "cosine"
    proxies = True

    def __init__(
        self, num_classes: int, embedding_size: int, *, margin: float = 0.1, alpha: float = 32.0
    ) -> None:
        super().__init__()
        self.margin = check_positive("margin", margin)
        self.alpha = check_positive("alpha", alpha)
        self.weight = _proxies(num_classes, embedding_size)

    def forward(self, embeddings: Tensor, labels: Tensor, indices: Indices | None = None) -> Tensor:
        _check(embeddings, labels, indices, len(self.weight))
        cosine = compare(cosine_similarity, embeddings, self.weight)
        own = labels[:, None] == torch.arange(len(self.weight), device=labels.device)
        pull = torch.where(own, self.alpha * (self.margin - cosine), NEVER).logsumexp(0)
        push = torch.where(own, NEVER, self.alpha * (self.margin + cosine)).logsumexp(0)
        # A class that is not in the batch costs 0 in the first sum, and is not counted there.
        return F.softplus(pull).sum() / own.any(0).sum() + F.softplus(push).mean()


def _proxies(num_classes: int, embedding_size: int) -> nn.Parameter:
    """One random direction a class; only directions count."""
    if num_classes < 2 or embedding_size < 1:
        raise SettingError(
            f"a loss with proxies needs at least 2 classes and an embedding size; got {num_classes} "
            f"and {embedding_size}"
        )
    return nn.Parameter(torch.randn(num_classes, embedding_size))


def _check(embeddings: Tensor, labels: Tensor, indices: Indices | None, num_classes: int) -> None:
    check_batch(embeddings, labels)
    if indices is not None:
        raise SettingError("a loss with proxies compares images with classes; leave the miner out")
    # Elsewhere this would make the device wait, and the device has its own check.
    if labels.device.type == "cpu" and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise DataError(
            f"labels go from {int(labels.min())} to {int(labels.max())}; this loss was made for "
            f"{num_classes} classes, numbered from 0"
        )
