"""Losses on a whole batch: ``loss(embeddings, labels, indices=None)``, by cosine similarity.

Each compares every image with every other in one matrix, and scales the embeddings to unit length itself.
Batches need at least two classes and two images of each class. An image without a positive or a negative
is left out of the mean, and a batch of such images costs 0. Multi-similarity, whose two terms are
independent, uses every image that has either. Shapes that do not fit raise a `DataError`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..distances import cosine_similarity
from ..errors import SettingError
from .base import Loss
from .inputs import NEVER, Indices, Reference, check_positive, columns, compare, mean_where, pair_masks

__all__ = ["CircleLoss", "InfoNCELoss", "MultiSimilarityLoss", "SupConLoss"]


class InBatchLoss(Loss):
    """Base class of in-batch losses: a subclass implements `cost` of the matrix of similarities."""

    kind = "embedding"
    distance = "cosine"

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices: Indices | None = None,
        *,
        reference: Reference | None = None,
    ) -> Tensor:
        """Compute the loss of a batch: a scalar.

        Args:
            embeddings: Shape ``(n, d)``, of any length.
            labels: Shape ``(n,)``, integers.
            indices: Comparisons that a miner selected, as (anchor, positive, negative) or (anchor, positive,
                anchor, negative): rows and columns of the matrix. A repeated comparison counts once. None
                selects all.
            reference: More embeddings and their labels to compare with, such as those of a
                `CrossBatchMemory`. Row ``i`` of the batch is column ``i``; the reference's columns follow.
        """
        others, other_labels = columns(embeddings, labels, reference)
        genuine, impostor = pair_masks(other_labels, len(embeddings), indices)
        return self.cost(compare(cosine_similarity, embeddings, others), genuine, impostor)

    def cost(self, similarity: Tensor, genuine: Tensor, impostor: Tensor) -> Tensor:
        """Compute the loss from similarities and two boolean masks, all of shape ``(n, columns)``."""
        raise NotImplementedError


class SupConLoss(InBatchLoss):
    """Supervised contrastive: classify which images of the batch are of the same class.

    For each image the others get weights by a softmax of similarity over temperature. The image costs the
    mean of ``-log(weight)`` over those of its class; the loss is the mean over images with both a positive
    and a negative. The strongest choice for many classes with few images each. Large batches help.

    Args:
        temperature: Divisor of the similarities, above 0; the lower, the more the hardest impostors count.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> SupConLoss(temperature=1.0)(embeddings, torch.tensor([7, 7, 8])).item()
        0.3132...

    See Also:
        InfoNCELoss: Compares each positive with the negatives only.

    References:
        Khosla et al., NeurIPS 2020, eq. 2 (the sum outside the logarithm). It sums over the images where
        this loss averages.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = check_positive("temperature", temperature)

    def cost(self, similarity: Tensor, genuine: Tensor, impostor: Tensor) -> Tensor:
        logit = similarity / self.temperature
        total = torch.where(genuine | impostor, logit, NEVER).logsumexp(1, keepdim=True)
        cost = torch.where(genuine, total - logit, 0.0).sum(1) / genuine.sum(1).clamp(min=1)
        return mean_where(genuine.any(1) & impostor.any(1), cost)


class InfoNCELoss(InBatchLoss):
    """InfoNCE (NT-Xent): classify which image is of the same class, among the other classes.

    `SupConLoss`, except that a positive competes with the negatives only and not with the other positives.
    With two images of each class both losses are equal. The loss is the mean over genuine pairs, each counted
    from both ends.

    Args:
        temperature: Divisor of the similarities, above 0; the lower, the more the hardest impostors count.

    References:
        van den Oord et al., 2018, eq. 4; Sohn, NeurIPS 2016; Chen et al., ICML 2020, eq. 1.
    """

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = check_positive("temperature", temperature)

    def cost(self, similarity: Tensor, genuine: Tensor, impostor: Tensor) -> Tensor:
        logit = similarity / self.temperature
        rivals = torch.where(impostor, logit, NEVER).logsumexp(1, keepdim=True)
        return mean_where(genuine & impostor.any(1, keepdim=True), F.softplus(rivals - logit))


class MultiSimilarityLoss(InBatchLoss):
    """Weight each pair by its own hardness and by that of the image's other pairs.

    Negatives above similarity ``base`` and positives below it dominate, the hardest most. The loss is the
    mean over images, at least 0. Use it with its own miner (`miners.MultiSimilarity`).

    Args:
        alpha: Sharpness for positives, above 0; the higher, the more the hardest count.
        beta: Sharpness for negatives, above 0; the higher, the more the hardest count.
        base: Similarity that separates easy pairs from hard ones.

    References:
        Wang et al., CVPR 2019, eq. 15; base 0.5 from its authors' code.
    """

    def __init__(self, *, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5) -> None:
        super().__init__()
        self.alpha = check_positive("alpha", alpha)
        self.beta = check_positive("beta", beta)
        self.base = base

    def cost(self, similarity: Tensor, genuine: Tensor, impostor: Tensor) -> Tensor:
        pull = torch.where(genuine, self.alpha * (self.base - similarity), NEVER).logsumexp(1)
        push = torch.where(impostor, self.beta * (similarity - self.base), NEVER).logsumexp(1)
        return (F.softplus(pull) / self.alpha + F.softplus(push) / self.beta).mean()


class CircleLoss(InBatchLoss):
    """Weight each similarity by its distance from its optimum.

    The optimum of a positive is ``1 + margin`` and that of a negative ``-margin``, so pairs near their
    optimum get little gradient. The loss is the mean over images with both a positive and a negative, at
    least 0.

    Args:
        margin: Relaxation, between 0 and 1; the smaller, the stricter. The paper: 0.25 for faces, 0.4 for
            photos.
        scale: Factor of the exponents, above 0. The paper: 256 for faces, 80 for photos.

    References:
        Sun et al., CVPR 2020, eq. 4 to 8, with pair labels.
    """

    def __init__(self, margin: float = 0.4, *, scale: float = 80.0) -> None:
        super().__init__()
        if not 0 < margin < 1:
            raise SettingError(f"margin is {margin}. Circle loss needs one between 0 and 1, such as 0.25")
        self.margin = margin
        self.scale = check_positive("scale", scale)

    def cost(self, similarity: Tensor, genuine: Tensor, impostor: Tensor) -> Tensor:
        # The distance from the optimum is a weight without gradient, hence detached.
        up = (1 + self.margin - similarity.detach()).clamp(min=0)
        down = (similarity.detach() + self.margin).clamp(min=0)
        pull = torch.where(genuine, self.scale * up * (1 - self.margin - similarity), NEVER).logsumexp(1)
        push = torch.where(impostor, self.scale * down * (similarity - self.margin), NEVER).logsumexp(1)
        return mean_where(genuine.any(1) & impostor.any(1), F.softplus(pull + push))
