"""Losses and miners, as modules. `twinned.losses.registry` has a table that helps to choose one.

`twinned.losses.base.Loss` lists the attributes by which a training loop knows how to call a loss.
`embedding_loss` adapts any loss to the call ``(embeddings, labels, indices=None)``. The indices are
comparisons that a miner selected, as in pytorch-metric-learning, whose losses and miners are accepted too:

    >>> import torch
    >>> from twinned import losses; from twinned.losses import miners
    >>> loss = losses.embedding_loss(
    ...     losses.TripletLoss(margin=0.2), distance="squared_euclidean", miner=miners.SemiHard()
    ... )
    >>> loss(torch.eye(4), torch.tensor([0, 0, 1, 1])).item()
    0.2...

Half precision is converted to float32. Equal embeddings and batches with nothing to compare give finite
gradients. No loss makes a GPU wait, unless triplets are formed or a miner selects.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import in_batch, pair, proxy, triplet
from .adapter import EmbeddingLoss, embedding_loss
from .base import Loss
from .cross_batch_memory import CrossBatchMemory
from .in_batch import *
from .miners import register_miner
from .pair import *
from .proxy import *
from .registry import BUILTIN, LOSSES, create_loss, register_loss
from .triplet import *

__all__ = [
    "BUILTIN",
    "LOSSES",
    "CrossBatchMemory",
    "EmbeddingLoss",
    "Loss",
    "create_loss",
    "embedding_loss",
    "get",
    "register_loss",
    "register_miner",
]
__all__ += pair.__all__ + triplet.__all__ + in_batch.__all__ + proxy.__all__

get = create_loss  # name of version 0.1

if not TYPE_CHECKING:  # would make every name known to type checkers

    def __getattr__(name: str) -> Callable[..., Any]:
        """Return a deprecated function of version 0.1: inputs and options of a loss in one call."""
        losses = {loss.__name__.lower(): loss for loss in BUILTIN.values() if not loss.proxies}
        loss = losses.get(name.replace("_", "")) if name.islower() else None  # SupConLoss: supcon_loss
        if loss is None:
            raise AttributeError(f"module 'twinned.losses' has no attribute {name!r}")
        warnings.warn(
            f"losses.{name} is deprecated. Use losses.{loss.__name__}", DeprecationWarning, stacklevel=2
        )
        known = inspect.signature(loss).parameters

        def function(*inputs: Any, **keywords: Any) -> Any:
            options = {key: keywords.pop(key) for key in list(keywords) if key in known}
            return loss(**options)(*inputs, **keywords)

        return function
