"""A memory of past batches, so that each image is compared with thousands at the price of a few."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import DataError, SettingError
from .inputs import Indices, check_batch


class CrossBatchMemory(nn.Module):
    """Compare each batch also with the embeddings of the batches before it.

    The last ``size`` embeddings are kept, without gradient: a network learns slowly enough that
    they stay useful for a while. Use it where small batches seldom hold a hard impostor; leave it
    out for the first few hundred steps and where the learning rate is high.

    In ``eval()`` mode it neither compares with the memory nor adds to it, since validation classes
    share their numbers with training classes. The memory is part of ``state_dict()``.

    Args:
        loss: A batch loss, or what `embedding_loss` made of a pair, triplet or foreign loss.
        embedding_size: Values in an embedding.
        size: How many embeddings to remember.

    Raises:
        SettingError: If the loss cannot use a memory.

    Example:
        >>> from twinned.losses.pair import ContrastiveLoss; from twinned.losses.adapter import embedding_loss
        >>> loss = CrossBatchMemory(embedding_loss(ContrastiveLoss(), distance="euclidean"), 2, size=100)
        >>> embeddings = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
        >>> loss(embeddings, torch.tensor([0, 1])).item()  # an impostor pair at the margin
        0.0
        >>> loss(embeddings, torch.tensor([2, 3])).item()  # and two at 0 from what is remembered
        0.1666...

    References:
        Wang et al., CVPR 2020 (XBM). There a batch is compared with a memory that holds it
        too, without gradient on that side; here with itself, with gradient on both, and with the
        memory of earlier batches.
    """

    kind = "embedding"
    proxies = False
    embeddings: Tensor
    labels: Tensor

    def __init__(self, loss: nn.Module, embedding_size: int, *, size: int = 1024) -> None:
        super().__init__()
        if getattr(loss, "kind", None) != "embedding":
            raise SettingError(
                f"{type(loss).__name__} cannot use a memory by itself; "
                "give embedding_loss(loss, distance=...) instead"
            )
        if getattr(loss, "proxies", False) is True:
            inner = getattr(loss, "loss", loss)
            raise SettingError(
                f"{type(inner).__name__} compares images with classes, not with images; leave the memory out"
            )
        if size < 1 or embedding_size < 1:
            raise SettingError(
                f"a memory holds at least 1 embedding of 1 value; got {size} of {embedding_size}"
            )
        self.loss = loss
        self.distance = getattr(loss, "distance", None)
        self.register_buffer("embeddings", torch.zeros(size, embedding_size))
        self.register_buffer("labels", torch.zeros(size, dtype=torch.long))
        self._written = 0  # embeddings ever written; a number, not a tensor, so that reading it is no wait

    @property
    def active(self) -> Tensor | None:
        """As of the loss within; see `EmbeddingLoss`."""
        return getattr(self.loss, "active", None)

    def forward(self, embeddings: Tensor, labels: Tensor, indices: Indices | None = None) -> Tensor:
        check_batch(embeddings, labels)
        given, expected = embeddings.shape[1], self.embeddings.shape[1]
        if given != expected:
            raise DataError(f"embeddings have {given} values; this memory was made for {expected}")
        filled = min(self._written, len(self.labels))
        reference = (self.embeddings[:filled], self.labels[:filled]) if filled and self.training else None
        value: Tensor = self.loss(embeddings, labels, indices, reference=reference)
        if self.training:
            self._remember(embeddings.detach(), labels)
        return value

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self._written)

    def set_extra_state(self, state: Tensor) -> None:
        self._written = int(state)

    def _remember(self, embeddings: Tensor, labels: Tensor) -> None:
        """Write over the oldest. The loss has copied what it needs of them for its gradient."""
        size = len(self.labels)
        embeddings, labels = embeddings[-size:], labels[-size:]
        places = (self._written + torch.arange(len(labels), device=labels.device)) % size
        self.embeddings[places] = embeddings.to(self.embeddings.dtype)
        self.labels[places] = labels.to(self.labels.dtype)
        self._written += len(labels)
