"""Losses on a whole batch: ``(embeddings, labels, indices=None)``, by cosine similarity.

Each compares every image with every other in one matrix. ``indices`` is a miner's choice of these
comparisons, in pytorch-metric-learning's convention: (anchor, positive, negative) or (anchor,
positive, anchor, negative), rows and columns of the matrix; a comparison named twice counts once.
``reference`` adds embeddings, and their labels, that each image is compared with besides its own
batch (a `CrossBatchMemory`, say): row ``i`` of the batch is column ``i``, and after the batch's
``n`` columns come the reference's.

All of them scale the embeddings to length 1 themselves. Draw at least two images of a class into a
batch, and at least two classes: an image that lacks either teaches nothing, and a batch of such
images costs 0 (multi-similarity, whose two halves stand alone, uses what there is).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..distances import cosine_similarity
from ..errors import SettingError
from .inputs import (
    NEVER,
    Indices,
    Reference,
    check_positive,
    columns,
    compare,
    mean_where,
    pair_masks,
)


def supcon_loss(
    embeddings: Tensor,
    labels: Tensor,
    indices: Indices | None = None,
    *,
    temperature: float = 0.1,
    reference: Reference | None = None,
) -> Tensor:
    """Let each image pick all others of its class out of the batch: supervised contrastive.

    For each image the others are weighted by a softmax of similarity over temperature, and
    it costs the mean of ``-log(weight)`` over those of its class. The strongest choice for
    many classes with few images each; it gains from large batches.

    Args:
        embeddings: Shape ``(n, d)``, of any length.
        labels: Shape ``(n,)``, whole numbers.
        indices: A miner's choice of comparisons; None takes all.
        temperature: The lower, the more the hardest impostors count.
        reference: More embeddings and labels to compare with.

    Returns:
        Mean cost over the images that have both a positive and a negative: a scalar.

    Raises:
        DataError: If the shapes do not fit.
        SettingError: If ``temperature`` is not positive.

    Example:
        >>> embeddings = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
        >>> supcon_loss(embeddings, torch.tensor([7, 7, 8]), temperature=1.0).item()
        0.3132...

    See Also:
        info_nce_loss: Compares each positive with the negatives alone.

    References:
        Khosla et al., NeurIPS 2020, eq. 2 (the sum outside the logarithm). It sums over the
        images where we average.
    """
    similarity, genuine, impostor = _compare(embeddings, labels, indices, reference)
    logit = similarity / check_positive("temperature", temperature)
    total = torch.where(genuine | impostor, logit, NEVER).logsumexp(1, keepdim=True)
    cost = torch.where(genuine, total - logit, 0.0).sum(1) / genuine.sum(1).clamp(min=1)
    return mean_where(genuine.any(1) & impostor.any(1), cost)


def info_nce_loss(
    embeddings: Tensor,
    labels: Tensor,
    indices: Indices | None = None,
    *,
    temperature: float = 0.07,
    reference: Reference | None = None,
) -> Tensor:
    """Let each image pick one other of its class from among the other classes: InfoNCE, NT-Xent.

    `supcon_loss`, except that a positive competes with the negatives alone and not with
    the other positives. With two images a class the two are one loss.

    Args and raises as `supcon_loss`.

    Returns:
        Mean cost over the genuine pairs, each counted from both ends: a scalar.

    References:
        van den Oord et al., 2018, eq. 4; Sohn, NeurIPS 2016; Chen et al., ICML 2020, eq. 1.
    """
    similarity, genuine, impostor = _compare(embeddings, labels, indices, reference)
    logit = similarity / check_positive("temperature", temperature)
    rivals = torch.where(impostor, logit, NEVER).logsumexp(1, keepdim=True)
    return mean_where(genuine & impostor.any(1, keepdim=True), F.softplus(rivals - logit))


def multi_similarity_loss(
    embeddings: Tensor,
    labels: Tensor,
    indices: Indices | None = None,
    *,
    alpha: float = 2.0,
    beta: float = 50.0,
    base: float = 0.5,
    reference: Reference | None = None,
) -> Tensor:
    """Weigh each pair by how hard it is, both on its own and beside the image's other pairs.

    The negatives above similarity ``base`` and the positives below it count, the worst most.
    Made for its own miner (`miners.multi_similarity`).

    Args:
        embeddings: Shape ``(n, d)``, of any length.
        labels: Shape ``(n,)``, whole numbers.
        indices: A miner's choice of comparisons; None takes all.
        alpha: How much more the worst positives count.
        beta: How much more the worst negatives count.
        base: The similarity that parts the two.
        reference: More embeddings and labels to compare with.

    Returns:
        Mean cost over the images: a scalar, at least 0.

    Raises:
        DataError: If the shapes do not fit.
        SettingError: If ``alpha`` or ``beta`` is not positive.

    References:
        Wang et al., CVPR 2019, eq. 15; base 0.5 from its authors' code.
    """
    similarity, genuine, impostor = _compare(embeddings, labels, indices, reference)
    check_positive("alpha", alpha)
    check_positive("beta", beta)
    pull = torch.where(genuine, alpha * (base - similarity), NEVER).logsumexp(1)
    push = torch.where(impostor, beta * (similarity - base), NEVER).logsumexp(1)
    return (F.softplus(pull) / alpha + F.softplus(push) / beta).mean()


def circle_loss(
    embeddings: Tensor,
    labels: Tensor,
    indices: Indices | None = None,
    *,
    margin: float = 0.4,
    scale: float = 80.0,
    reference: Reference | None = None,
) -> Tensor:
    """Pull and push each similarity in proportion to how far it is from where it should be.

    A positive is drawn to ``1 + margin`` and a negative to ``-margin``, each weighted by
    what it still lacks, so that the loss does not wear itself out on good pairs.

    Args:
        embeddings: Shape ``(n, d)``, of any length.
        labels: Shape ``(n,)``, whole numbers.
        indices: A miner's choice of comparisons; None takes all.
        margin: Between 0 and 1. The smaller, the stricter. The paper: 0.25 for faces, 0.4 for photos.
        scale: The paper: 256 for faces, 80 for photos.
        reference: More embeddings and labels to compare with.

    Returns:
        Mean cost over the images that have both a positive and a negative: a scalar, at least 0.

    Raises:
        DataError: If the shapes do not fit.
        SettingError: If ``margin`` or ``scale`` cannot be used.

    References:
        Sun et al., CVPR 2020, eq. 4 to 8, with pair labels.
    """
    if not 0 < margin < 1:
        raise SettingError(f"margin is {margin}; circle loss needs one between 0 and 1, such as 0.25")
    similarity, genuine, impostor = _compare(embeddings, labels, indices, reference)
    check_positive("scale", scale)
    # What a similarity lacks is a weight: it is not itself pulled at, hence detached.
    lacks_up = (1 + margin - similarity.detach()).clamp(min=0)
    lacks_down = (similarity.detach() + margin).clamp(min=0)
    pull = torch.where(genuine, scale * lacks_up * (1 - margin - similarity), NEVER).logsumexp(1)
    push = torch.where(impostor, scale * lacks_down * (similarity - margin), NEVER).logsumexp(1)
    return mean_where(genuine.any(1) & impostor.any(1), F.softplus(pull + push))


class SupConLoss(nn.Module):
    """`supcon_loss` with its temperature."""

    kind = "embedding"
    distance = "cosine"
    proxies = False

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = check_positive("temperature", temperature)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices: Indices | None = None,
        *,
        reference: Reference | None = None,
    ) -> Tensor:
        return supcon_loss(embeddings, labels, indices, temperature=self.temperature, reference=reference)


class InfoNCELoss(nn.Module):
    """`info_nce_loss` with its temperature."""

    kind = "embedding"
    distance = "cosine"
    proxies = False

    def __init__(self, temperature: float = 0.07) -> None:
        super().__init__()
        self.temperature = check_positive("temperature", temperature)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices: Indices | None = None,
        *,
        reference: Reference | None = None,
    ) -> Tensor:
        return info_nce_loss(embeddings, labels, indices, temperature=self.temperature, reference=reference)


class MultiSimilarityLoss(nn.Module):
    """`multi_similarity_loss` with its three settings."""

    kind = "embedding"
    distance = "cosine"
    proxies = False

    def __init__(self, *, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5) -> None:
        super().__init__()
        self.alpha = check_positive("alpha", alpha)
        self.beta = check_positive("beta", beta)
        self.base = base

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices: Indices | None = None,
        *,
        reference: Reference | None = None,
    ) -> Tensor:
        return multi_similarity_loss(
            embeddings,
            labels,
            indices,
            alpha=self.alpha,
            beta=self.beta,
            base=self.base,
            reference=reference,
        )


class CircleLoss(nn.Module):
    """`circle_loss` with its margin and scale."""

    kind = "embedding"
    distance = "cosine"
    proxies = False

    def __init__(self, margin: float = 0.4, *, scale: float = 80.0) -> None:
        super().__init__()
        if not 0 < margin < 1:
            raise SettingError(f"margin is {margin}; circle loss needs one between 0 and 1, such as 0.25")
        self.margin = margin
        self.scale = check_positive("scale", scale)

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices: Indices | None = None,
        *,
        reference: Reference | None = None,
    ) -> Tensor:
        return circle_loss(
            embeddings, labels, indices, margin=self.margin, scale=self.scale, reference=reference
        )


def _compare(
    embeddings: Tensor, labels: Tensor, indices: Indices | None, reference: Reference | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Similarity, and which of it is genuine and impostor: three matrices ``(n, columns)``."""
    others, their_labels = columns(embeddings, labels, reference)
    genuine, impostor = pair_masks(their_labels, len(embeddings), indices)
    return compare(cosine_similarity, embeddings, others), genuine, impostor
