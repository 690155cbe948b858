"""One way to call every loss: ``(embeddings, labels, indices=None)``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from .. import distances
from ..errors import SettingError
from .inputs import (
    Indices,
    Reference,
    columns,
    compare,
    mean_where,
    pair_masks,
)

# Ours, ``(distance, labels) -> indices``, or a module of pytorch-metric-learning's, ``(embeddings, labels)``.
AnyMiner: TypeAlias = Callable[..., Indices]


def embedding_loss(
    loss: nn.Module, *, distance: str | Callable[..., Any] | None = None, miner: AnyMiner | None = None
) -> EmbeddingLoss:
    """Make of any loss one that takes ``(embeddings, labels, indices=None)``.

    A pair or triplet loss gets its distances from the one matrix of the batch on which the miner chose, so
    the two cannot disagree. A pair loss is averaged over all chosen pairs. Nearly all of them are
    impostors, and that is well: giving genuine pairs half of the weight cost 8 to 19 points of
    20-way accuracy with each pair loss here (Omniglot, 32 classes of 4 a batch). A triplet loss
    is averaged over the triplets that cost anything, so that the steps do not shrink as these
    get few; it won 1 to 4 points.

    Args:
        loss: A loss of this package, or a foreign one that is called ``loss(embeddings, labels, indices)``,
            as pytorch-metric-learning's.
        distance: Its name, or a function called as those of `twinned.distances` with ``all_pairs=True``.
            A loss that wants logits is given the head's, as such a function. May be left out where the
            loss is right for one distance only, and where nobody measures any.
        miner: A function of `twinned.losses.miners`, or a module of pytorch-metric-learning's; None takes
            every comparison.

    Returns:
        A module; see `EmbeddingLoss`.

    Raises:
        SettingError: If the distance is unknown or wrong for the loss, or the miner is of no use to it.

    Example:
        >>> from twinned.losses.triplet import TripletLoss
        >>> loss = embedding_loss(TripletLoss(margin=1.0), distance="euclidean")
        >>> embeddings = torch.tensor([[0.0], [2.0], [3.0]])
        >>> loss(embeddings, torch.tensor([5, 5, 6])).item(), loss.active.item()
        (2.0, 0.5)
    """
    name, kind = type(loss).__name__, getattr(loss, "kind", "foreign")
    right = None if kind == "foreign" else getattr(loss, "distance", None)
    measures = kind in ("pair", "triplet") or not (miner is None or isinstance(miner, nn.Module))
    if getattr(loss, "wants", "distance") == "logit" and not callable(distance):
        raise SettingError(
            f"{name} wants a learned head's logits, and got distance {distance!r}; give the head's"
        )
    if right is not None and distance not in (None, right):
        raise SettingError(f"{name} is right for the distance {right!r} alone; got {distance!r}")
    if _of_proxies(loss) and miner is not None:
        raise SettingError(f"{name} compares images with classes, not with images; leave the miner out")
    distance = distance or right
    if distance is None and measures:
        raise SettingError(f"{name} needs a distance here; choose one of {', '.join(distances.DISTANCES)}")
    measure = distances.get(distance) if isinstance(distance, str) else distance
    return EmbeddingLoss(
        loss,
        distance=distance if isinstance(distance, str) else None,
        measure=measure if measures else None,
        miner=miner,
    )


def _of_proxies(loss: nn.Module) -> bool:
    """Whether one of our losses holds class weights; others may keep theirs under the same name."""
    return getattr(loss, "proxies", False) is True


class EmbeddingLoss(nn.Module):
    """What `embedding_loss` returns: ``(embeddings, labels, indices=None) -> loss``.

    ``active`` is, after each call with a pair or triplet loss, the fraction of the chosen pairs or
    triplets that cost anything, as a tensor without gradient; 0 where there were none. With other
    losses it is None. A batch from which nothing can be learned costs 0, with gradient 0.
    """

    kind = "embedding"
    active: Tensor | None = None

    def __init__(
        self,
        loss: nn.Module,
        *,
        distance: str | None,
        measure: Callable[..., Any] | None,
        miner: AnyMiner | None,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.distance = distance
        self.proxies = _of_proxies(loss)
        self._measure = measure
        self._miner = miner

    def forward(
        self,
        embeddings: Tensor,
        labels: Tensor,
        indices: Indices | None = None,
        *,
        reference: Reference | None = None,
    ) -> Tensor:
        """The loss of a batch: a scalar.

        Args:
            embeddings: Shape ``(n, d)``.
            labels: Shape ``(n,)``, whole numbers.
            indices: Comparisons to learn from, instead of the miner's.
            reference: More embeddings and labels to compare with; see `twinned.losses.in_batch`.
        """
        # Everything is compared with the batch first, then with the reference.
        others, their_labels = columns(embeddings, labels, reference)
        matrix = embeddings if self._measure is None else compare(self._measure, embeddings, others)
        if indices is None and isinstance(self._miner, nn.Module):
            more = () if reference is None else (others, their_labels)
            indices = _without_itself(self._miner(embeddings.detach(), labels, *more))
        elif indices is None and self._miner is not None:
            lower_is_closer = -1 if getattr(self.loss, "wants", "distance") == "logit" else 1
            with distances.trusted():
                indices = self._miner(lower_is_closer * matrix.detach(), their_labels)

        match getattr(self.loss, "kind", "foreign"):
            case "pair":
                return self._pairs(matrix, their_labels, indices)
            case "triplet":
                return self._triplets(matrix, their_labels, indices)
        value: Tensor
        if reference is None:
            value = self.loss(embeddings, labels, indices)
        elif hasattr(self.loss, "kind"):
            value = self.loss(embeddings, labels, indices, reference=reference)
        else:
            if indices is None:  # it cannot know that row i is column i
                genuine, impostor = pair_masks(their_labels, len(labels))
                indices = *genuine.nonzero(as_tuple=True), *impostor.nonzero(as_tuple=True)
            value = self.loss(embeddings, labels, indices, ref_emb=others, ref_labels=their_labels)
        return value

    def _pairs(self, matrix: Tensor, labels: Tensor, indices: Indices | None) -> Tensor:
        genuine, impostor = pair_masks(labels, len(matrix), indices)
        same = labels[: len(matrix), None] == labels[None, :]
        costs = self.loss(matrix.flatten(), same.flatten(), reduction="none").view_as(matrix)
        chosen = genuine | impostor
        self.active = (chosen & (costs > 0)).sum() / chosen.sum().clamp(min=1)
        return mean_where(chosen, costs)

    def _triplets(self, matrix: Tensor, labels: Tensor, indices: Indices | None) -> Tensor:
        if indices is not None and len(indices) == 3:
            anchor, pair, other = indices
            positive, negative = matrix[anchor, pair], matrix[anchor, other]
            chosen = torch.ones_like(positive, dtype=torch.bool)
        else:  # each genuine pair beside its whole row: (pairs, columns)
            genuine, impostor = pair_masks(labels, len(matrix), indices)
            anchor, pair = genuine.nonzero(as_tuple=True)
            chosen, negative = impostor[anchor], matrix[anchor]
            positive = matrix[anchor, pair][:, None].expand_as(negative)
        if len(anchor) == 0:
            self.active = torch.zeros((), device=matrix.device)
            return mean_where(torch.zeros_like(matrix, dtype=torch.bool), matrix)
        costs = self.loss(positive.flatten(), negative.flatten(), reduction="none").view_as(chosen)
        costly = chosen & ~(costs <= 0)  # NaN counts too: it must come out, not be left out
        self.active = costly.sum() / chosen.sum().clamp(min=1)
        return mean_where(costly, costs)


def _without_itself(indices: Indices) -> Indices:
    """A foreign miner cannot know that row ``i`` is column ``i``; an image is no pair with itself."""
    pair = indices[0] != indices[1]
    return (
        indices[0][pair],
        indices[1][pair],
        *(index[pair] if len(indices) == 3 else index for index in indices[2:]),
    )
