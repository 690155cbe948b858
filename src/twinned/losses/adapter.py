"""Adapt any loss to one call: ``(embeddings, labels, indices=None)``."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isfunction
from typing import Any

import torch
from torch import Tensor

from .. import distances
from ..errors import DataError, SettingError
from ..utils.registry import plain_name
from .base import AnyLoss, AnyMiner, Loss, call_inputs, check_loss, check_miner, is_pairwise
from .inputs import Indices, Reference, check_indices, columns, compare, mean_where, pair_masks


class EmbeddingLoss(Loss):
    """Loss adapted to the call ``(embeddings, labels, indices=None)``; public as `embedding_loss` too.

    Loss and miner use the same matrix of distances. A pair loss is averaged over all selected pairs; nearly
    all of them are impostors, and an equal weight for genuine pairs lowers the accuracy. A triplet loss is
    averaged over the triplets with a positive cost, so that steps do not shrink as these become rare. A batch
    without any comparison costs 0, with gradient 0.

    Args:
        loss: A loss of this package; or a module or function called ``loss(embeddings, labels)``, with a
            third parameter if it takes the indices of a miner, as those of pytorch-metric-learning; or one
            called ``loss(distance, same)``, whose second parameter is named ``same`` or whose attribute
            ``pairwise`` is True. The last gets all selected pairs of a batch, in both orders.
        distance: Name of a distance, or a function with the signature of those in `twinned.distances`,
            called with ``pairwise=True``. A loss on logits needs such a function that returns the head's
            logits. Optional if the loss accepts one distance only, or needs none.
        miner: A miner of `twinned.losses.miners`, or another one: it is called with the matrix of distances
            if its first parameter is named ``distance``, otherwise with embeddings, as those of
            pytorch-metric-learning. None selects every comparison.

    Attributes:
        active: After a call with a pair or triplet loss, the fraction of the selected pairs or triplets with
            a positive cost, a tensor without gradient; 0 if none were selected. None with other losses.

    Raises:
        SettingError: If the distance is not known or does not suit the loss, or the loss accepts no miner.

    Example:
        >>> from twinned.losses.triplet import TripletLoss
        >>> loss = embedding_loss(TripletLoss(margin=1.0), distance="euclidean")
        >>> embeddings = torch.tensor([[0.0], [2.0], [3.0]])
        >>> loss(embeddings, torch.tensor([5, 5, 6])).item(), loss.active.item()
        (2.0, 0.5)
    """

    kind = "embedding"
    active: Tensor | None = None

    def __init__(
        self,
        loss: AnyLoss,
        *,
        distance: str | Callable[..., Any] | None = None,
        miner: AnyMiner | None = None,
    ) -> None:
        super().__init__()
        check_loss(loss)
        self._mines_embeddings = (
            miner is not None and call_inputs(check_miner(miner), "miner")[0] != "distance"
        )
        if isinstance(loss, Loss):
            self._kind, required = str(loss.kind), loss.distance
        else:
            self._kind, required = "own-pair" if is_pairwise(loss) else "foreign", None
        # Losses of others may use the name for their parameters.
        self.proxies = getattr(loss, "proxies", False) is True
        self._on_logits = getattr(loss, "input_kind", "distance") == "logit"
        measures = self._kind not in ("embedding", "foreign") or not (miner is None or self._mines_embeddings)
        distance, problem = distance or required, ""
        if self._on_logits and not callable(distance):
            problem = f"needs a function that returns the learned head's logits; got distance {distance!r}"
        elif required is not None and distance != required:
            problem = f"requires the distance {required!r}; got {distance!r}"
        elif self.proxies and miner is not None:
            problem = "compares images with classes, not with images. Leave the miner out"
        elif self._kind == "foreign" and miner is not None and len(call_inputs(loss, "loss")) < 3:
            problem = (
                "takes embeddings and labels only. Add a parameter for the miner's indices, or leave it out"
            )
        elif distance is None and measures:
            problem = f"needs a distance; choose one of {', '.join(distances.DISTANCES)}"
        if problem:
            raise SettingError(f"{plain_name(loss)} {problem}")
        measure = distances.get(distance) if isinstance(distance, str) else distance
        self.loss, self.miner = loss, miner
        self.distance = distance if isinstance(distance, str) else None
        self._measure = measure if measures else None

    def extra_repr(self) -> str:
        """Return the distance, and the names of a loss and a miner that are functions."""
        parts = {"loss": self.loss, "miner": self.miner}
        named = [f"{name}={plain_name(part)}" for name, part in parts.items() if isfunction(part)]
        return ", ".join(filter(None, [*named, super().extra_repr()]))

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
            embeddings: Shape ``(n, d)``.
            labels: Shape ``(n,)``, integers.
            indices: Selected comparisons; they replace the miner's.
            reference: More embeddings and labels to compare with; see `InBatchLoss`.
        """
        others, other_labels = columns(embeddings, labels, reference)
        matrix = embeddings if self._measure is None else compare(self._measure, embeddings, others)
        if indices is None and self.miner is not None:
            if self._mines_embeddings:
                more = () if reference is None else (others, other_labels)
                indices = _without_itself(check_indices(self.miner(embeddings.detach(), labels, *more)))
            else:
                sign = -1 if self._on_logits else 1  # lower is closer
                with distances.trusted():
                    indices = check_indices(self.miner(sign * matrix.detach(), other_labels))

        match self._kind:
            case "pair":
                return self._pairs(matrix, other_labels, indices)
            case "triplet":
                return self._triplets(matrix, other_labels, indices)
            case "own-pair":
                genuine, impostor = pair_masks(other_labels, len(matrix), indices)
                selected = genuine | impostor
                if not selected.any():
                    return mean_where(selected, matrix)
                return self._scalar(self.loss(matrix[selected], genuine[selected]), matrix)
            case "foreign" if reference is None:
                mined = () if indices is None else (indices,)
                return self._scalar(self.loss(embeddings, labels, *mined), embeddings)
            case "foreign":
                if not {"ref_emb", "ref_labels"} <= {*call_inputs(self.loss, "loss")}:
                    name = plain_name(self.loss)
                    raise SettingError(f"{name} needs parameters ref_emb and ref_labels for a memory")
                if indices is None:  # other libraries do not know that row i is column i
                    genuine, impostor = pair_masks(other_labels, len(labels))
                    indices = *genuine.nonzero(as_tuple=True), *impostor.nonzero(as_tuple=True)
                found = self.loss(embeddings, labels, indices, ref_emb=others, ref_labels=other_labels)
                return self._scalar(found, embeddings)
        memory = {} if reference is None else {"reference": reference}
        value: Tensor = self.loss(embeddings, labels, indices, **memory)
        return value

    def _scalar(self, value: Tensor, embeddings: Tensor) -> Tensor:
        if not isinstance(value, Tensor) or value.ndim:
            what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise DataError(f"{plain_name(self.loss)} returned {what}. A loss must return a scalar tensor")
        if embeddings.requires_grad and torch.is_grad_enabled() and not value.requires_grad:
            text = "returned a value without a gradient. Compute it from the embeddings, without detach()"
            raise DataError(f"{plain_name(self.loss)} {text}")
        return value

    def _pairs(self, matrix: Tensor, labels: Tensor, indices: Indices | None) -> Tensor:
        genuine, impostor = pair_masks(labels, len(matrix), indices)
        same = labels[: len(matrix), None] == labels[None, :]
        costs = self.loss(matrix.flatten(), same.flatten(), reduction="none").view_as(matrix)
        selected = genuine | impostor
        self.active = (selected & (costs > 0)).sum() / selected.sum().clamp(min=1)
        return mean_where(selected, costs)

    def _triplets(self, matrix: Tensor, labels: Tensor, indices: Indices | None) -> Tensor:
        if indices is not None and len(indices) == 3:
            anchor, pair, other = indices
            positive, negative = matrix[anchor, pair], matrix[anchor, other]
            selected = torch.ones_like(positive, dtype=torch.bool)
        else:  # each genuine pair with all impostors of its row: (pairs, columns)
            genuine, impostor = pair_masks(labels, len(matrix), indices)
            anchor, pair = genuine.nonzero(as_tuple=True)
            selected, negative = impostor[anchor], matrix[anchor]
            positive = matrix[anchor, pair][:, None].expand_as(negative)
        if len(anchor) == 0:
            self.active = torch.zeros((), device=matrix.device)
            return mean_where(torch.zeros_like(matrix, dtype=torch.bool), matrix)
        costs = self.loss(positive.flatten(), negative.flatten(), reduction="none").view_as(selected)
        costly = selected & ~(costs <= 0)  # includes NaN, so that it shows in the loss
        self.active = costly.sum() / selected.sum().clamp(min=1)
        return mean_where(costly, costs)


embedding_loss = EmbeddingLoss


def _without_itself(indices: Indices) -> Indices:
    """Remove pairs of an image with itself: other libraries do not know that row ``i`` is column ``i``."""
    pair, paired = indices[0] != indices[1], 3 if len(indices) == 3 else 2
    return *(index[pair] for index in indices[:paired]), *indices[paired:]
