"""Memory of past batches, so that each image is compared with thousands at the cost of a few."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import DataError, SettingError
from .base import Loss
from .inputs import Indices, check_batch


class CrossBatchMemory(Loss):
    """Compare each batch also with the embeddings of previous batches.

    The last ``size`` embeddings are kept, without gradient; a network changes slowly enough that they stay
    valid for a while. Use it if small batches seldom contain a hard impostor. Leave it out for the first
    few hundred steps and with a high learning rate.

    In ``eval()`` mode the memory is neither read nor written, since validation classes share their numbers
    with training classes. The memory is part of ``state_dict()``.

    Args:
        loss: An in-batch loss, or the result of `embedding_loss` for any other.
        embedding_size: Values in an embedding.
        size: Number of embeddings to keep.

    Raises:
        SettingError: If the loss accepts no memory, or a size is below 1.

    Example:
        >>> from twinned.losses.pair import ContrastiveLoss; from twinned.losses.adapter import embedding_loss
        >>> loss = CrossBatchMemory(embedding_loss(ContrastiveLoss(), distance="euclidean"), 2, size=100)
        >>> embeddings = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
        >>> loss(embeddings, torch.tensor([0, 1])).item()  # an impostor pair at the margin
        0.0
        >>> loss(embeddings, torch.tensor([2, 3])).item()  # and two at distance 0 from the memory
        0.1666...

    References:
        Wang et al., CVPR 2020 (XBM). The paper compares a batch with a memory that holds the batch too,
        without gradient on that side. Here a batch is compared with itself, with gradient on both sides, and
        with the memory of previous batches.
    """

    kind = "embedding"
    embeddings: Tensor
    labels: Tensor

    def __init__(self, loss: nn.Module, embedding_size: int, *, size: int = 1024) -> None:
        super().__init__()
        if getattr(loss, "kind", None) != "embedding":
            raise SettingError(f"{type(loss).__name__} accepts no memory. Pass embedding_loss(loss, ...)")
        if getattr(loss, "proxies", False) is True:
            name = type(getattr(loss, "loss", loss)).__name__
            raise SettingError(f"{name} compares images with classes, not with images. Leave the memory out")
        if size < 1 or embedding_size < 1:
            raise SettingError(f"size is {size} and embedding_size {embedding_size}. Both must be at least 1")
        self.loss = loss
        self.embedding_size, self.size = embedding_size, size
        self.distance = getattr(loss, "distance", None)
        self.register_buffer("embeddings", torch.zeros(size, embedding_size))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.long))
        self._written = 0  # embeddings written so far; an int, because reading a tensor would make a GPU wait

    @property
    def active(self) -> Tensor | None:
        """Fraction of comparisons with a positive cost; see `EmbeddingLoss`."""
        return getattr(self.loss, "active", None)

    def forward(self, embeddings: Tensor, labels: Tensor, indices: Indices | None = None) -> Tensor:
        """Compute the loss of a batch, then add the batch to the memory."""
        check_batch(embeddings, labels)
        given, expected = embeddings.shape[1], self.embeddings.shape[1]
        if given != expected:
            raise DataError(f"embeddings have {given} values. This memory was made for {expected}")
        filled = min(self._written, len(self.labels))
        reference = (self.embeddings[:filled], self.labels[:filled]) if filled and self.training else None
        value: Tensor = self.loss(embeddings, labels, indices, reference=reference)
        if self.training:
            self._remember(embeddings.detach(), labels)
        return value

    def get_extra_state(self) -> Tensor:
        """Return the number of embeddings written, for ``state_dict()``."""
        return torch.tensor(self._written)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the number of embeddings written."""
        self._written = int(state)

    def _remember(self, embeddings: Tensor, labels: Tensor) -> None:
        """Overwrite the oldest embeddings. The loss keeps its own copy of them for the gradient."""
        size = len(self.labels)
        embeddings, labels = embeddings[-size:], labels[-size:]
        places = (self._written + torch.arange(len(labels), device=labels.device)) % size
        self.embeddings[places] = embeddings.to(self.embeddings.dtype)
        self.labels[places] = labels.to(self.labels.dtype)
        self._written += len(labels)
