"""A cohort: training images that every embedding is compared with, which adds one value to it.

Some images lie where it is crowded, near to many that show other things, and some lie apart; one threshold is
too loose for the former and too strict for the latter. Face and speaker verification correct each distance by
how near both sides are to a cohort of impostors (adaptive symmetric score normalisation). Here the correction
is part of the embedding, so that a search, a gallery or any other user of the vectors has it too.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_NEAREST = 4  # the nearest one in so many of the cohort tell how crowded it is
_SHARE, _STRENGTH = 0.5, 3.0  # chosen on folds of logos27's training classes; between 2 and 4 little changes


class CohortScoreNorm(nn.Module):
    """Adds a value to embeddings of length 1: how far the nearest quarter of a cohort is.

    With ``m`` the mean cosine distance to that quarter, less what is usual, an embedding ``z`` becomes
    ``(z, w)`` with ``w = sqrt(1/2) * (1 + 3 m)``, scaled to length 1. In the inner product of two of these
    stands ``w w' = 1/2 + 3/2 (m + m') + ...``: the similarity of two images that lie apart rises, that of two
    in a crowd falls.

    Args:
        members: Embeddings of length 1, shape ``(n, d)``, n at least 2.
        usual: The usual mean distance of an image to the nearest quarter of other classes, a scalar.

    References:
        Matejka et al., Analysis of score normalization in multilingual speaker recognition, Interspeech 2017
        (adaptive S-norm); Conneau et al., Word translation without parallel data, ICLR 2018, eq. 3 (the mean
        distances subtracted), of which this is the first order.
    """

    members: Tensor
    usual: Tensor

    def __init__(self, members: Tensor, usual: Tensor) -> None:
        super().__init__()
        self.register_buffer("members", members)
        self.register_buffer("usual", usual)

    @classmethod
    def of(cls, members: Tensor, labels: Tensor) -> CohortScoreNorm:
        """The cohort of some training images.

        Args:
            members: Embeddings of length 1, shape ``(n, d)``.
            labels: Their classes, shape ``(n,)``, two or more of them.
        """
        distance = 1 - members @ members.T
        distance[labels[:, None] == labels[None, :]] = torch.inf
        nearest = distance.sort(dim=1).values[:, : _some(len(members))]
        return cls(members, nearest[torch.isfinite(nearest)].mean())

    def forward(self, z: Tensor) -> Tensor:
        """Embeddings of length 1 with one value more: ``(n, d) -> (n, d + 1)``."""
        nearest = (z @ self.members.T).topk(_some(len(self.members)), dim=1).values
        crowd = 1 - nearest.mean(dim=1, keepdim=True) - self.usual
        return F.normalize(torch.cat([z, _SHARE**0.5 * (1 + _STRENGTH * crowd)], dim=1))


def _some(members: int) -> int:
    return max(1, members // _NEAREST)
