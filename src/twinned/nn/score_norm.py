"""Cohort score normalization as one more value of the embedding, so that search and galleries use it too.

In dense regions of the embedding space, images of different classes are close; in sparse ones they are far.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NEAREST = 4  # the density is measured by the nearest 1/4 of the cohort
# Chosen on folds of the training classes of logos27; strengths between 2 and 4 give similar results.
_SHARE, _STRENGTH = 0.5, 3.0


class CohortScoreNorm(nn.Module):
    """Append a value to embeddings: the mean cosine distance to the nearest quarter of a cohort.

    With ``m`` this distance minus ``usual``, its average, an embedding ``z`` becomes ``(z, w)`` with
    ``w = sqrt(1/2) * (1 + 3 m)``, scaled to length 1. The inner product of two such vectors contains
    ``w w' = 1/2 + 3/2 (m + m') + ...``, so the similarity of two images rises in sparse regions and falls in
    dense ones.

    References:
        Matejka et al., Analysis of score normalization in multilingual speaker recognition, Interspeech 2017
        (adaptive S-norm); Conneau et al., Word translation without parallel data, ICLR 2018, eq. 3 (the mean
        distances subtracted); this is its first-order approximation.
    """

    members: Tensor
    usual: Tensor

    def __init__(self, members: Tensor, usual: Tensor) -> None:
        super().__init__()
        self.register_buffer("members", members)
        self.register_buffer("usual", usual)

    @classmethod
    def of(cls, members: Tensor, labels: Tensor) -> CohortScoreNorm:
        """Create the normalization from embeddings ``(n, d)`` of length 1 and their classes ``(n,)``."""
        distance = 1 - members @ members.T
        distance[labels[:, None] == labels[None, :]] = torch.inf
        nearest = distance.sort(dim=1).values[:, : _n_nearest(len(members))]
        return cls(members, nearest[torch.isfinite(nearest)].mean())

    def forward(self, z: Tensor) -> Tensor:
        """Append the value and scale to length 1: ``(n, d) -> (n, d + 1)``."""
        nearest = (z @ self.members.T).topk(_n_nearest(len(self.members)), dim=1).values
        sparsity = 1 - nearest.mean(dim=1, keepdim=True) - self.usual
        return F.normalize(torch.cat([z, _SHARE**0.5 * (1 + _STRENGTH * sparsity)], dim=1))


def _n_nearest(members: int) -> int:
    return max(1, members // _NEAREST)
