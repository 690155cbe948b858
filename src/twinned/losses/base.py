"""Base class of losses: the attributes that a training loop reads, and a repr that shows the options."""

from __future__ import annotations

import inspect
from typing import Literal, TypeAlias

from torch import nn

Kind: TypeAlias = Literal["pair", "triplet", "embedding"]


class OptionsModule(nn.Module):
    """Module whose repr shows the options of its constructor.

    Example:
        >>> from twinned.losses import ArcFaceLoss
        >>> ArcFaceLoss(num_classes=100, embedding_size=64)
        ArcFaceLoss(num_classes=100, embedding_size=64, margin=0.5, scale=64.0)
    """

    def __init__(self) -> None:  # hides the *args and **kwargs of nn.Module from signature()
        super().__init__()

    def extra_repr(self) -> str:
        """Return the options that are plain values, as ``name=value``."""
        values = {name: getattr(self, name, None) for name in inspect.signature(type(self)).parameters}
        shown = {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


class Loss(OptionsModule):
    """Base class of the losses of this package.

    A loss of another library has no attribute ``kind``; it is called as one of kind ``"embedding"``.

    Attributes:
        kind: Call signature. ``"pair"``: ``loss(distance, same)``; ``"triplet"``: ``loss(positive,
            negative)`` with two distances; ``"embedding"``: ``loss(embeddings, labels, indices=None)``. The
            first two also take ``reduction="none"``.
        distance: Name of the only distance that the loss accepts; None if it accepts any.
        input_kind: ``"distance"``, or ``"logit"`` for a pair loss that takes the logit of a learned head.
        proxies: True for an embedding loss with one learned vector for each class. Such a loss accepts no
            miner and no memory, and the optimizer must be given its parameters.
    """

    kind: Kind
    distance: str | None = None
    input_kind: Literal["distance", "logit"] = "distance"
    proxies: bool = False
