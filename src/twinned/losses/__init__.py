"""Losses: what a network is taught by, and which to choose for your data.

| your data                                   | loss |
| ------------------------------------------- | --- |
| classes of 2 to 20 images, many classes     | `InfoNCELoss`, `SupConLoss`, `CircleLoss` |
| the same, by triplets                       | `TripletLoss` with `miners.semi_hard` |
| the same, and a threshold must hold for all | `ContrastiveLoss`: it asks for a distance |
| noisy labels                                | `SupConLoss`; no batch-hard miner |
| small batches, hard impostors are rare      | `CrossBatchMemory` around any of these |
| tens of images a class                      | `MultiSimilarityLoss` with its miner, `ProxyAnchorLoss` |
| thousands of classes, tens of images each   | `ArcFaceLoss` |
| pairs marked same or different, no classes  | `ContrastiveLoss` |
| such pairs, and a learned head              | `PairCrossEntropy` |
| one image a class in a batch                | `ArcFaceLoss`, `ProxyAnchorLoss`: no pairs needed |
| no margin that you know how to choose       | `SoftTripletLoss`, `ChopraLoss` (Manhattan) |

Every loss is a module with these attributes, which is all that a training loop asks about:

- ``kind``: ``"pair"``, called ``loss(distance, same)``; ``"triplet"``, called
  ``loss(positive, negative)`` with two distances; ``"embedding"``, called
  ``loss(embeddings, labels, indices=None)``. The first two also take ``reduction="none"``.
  A loss without ``kind`` is foreign, and called as the third.
- ``distance``: the name of the one distance it is right for; None where any will do.
- ``wants`` (pairs only): ``"distance"``, or ``"logit"`` where a learned head's logit is
  taken instead; see `pair_cross_entropy`.
- ``proxies`` (embeddings only): True where it compares images with classes, whose vectors are its own
  parameters; then it takes no miner and no memory, and its parameters go to the optimiser.

`embedding_loss` makes of any loss one of the third kind. ``indices`` is a miner's choice, in
pytorch-metric-learning's convention, whose losses and miners plug in:

    >>> import torch
    >>> from twinned import losses; from twinned.losses import miners
    >>> loss = losses.embedding_loss(
    ...     losses.TripletLoss(margin=0.2), distance="squared_euclidean", miner=miners.semi_hard
    ... )
    >>> loss(torch.eye(4), torch.tensor([0, 0, 1, 1])).item()
    0.2...

Half precision is taken to float32 within. Equal embeddings and batches with nothing to
compare give finite gradients. No loss makes a GPU wait, except where triplets are formed or
a miner chooses.
"""

from __future__ import annotations

import inspect

from torch import nn

from ..errors import SettingError
from .adapter import EmbeddingLoss, embedding_loss
from .cross_batch_memory import CrossBatchMemory
from .in_batch import (
    CircleLoss,
    InfoNCELoss,
    MultiSimilarityLoss,
    SupConLoss,
    circle_loss,
    info_nce_loss,
    multi_similarity_loss,
    supcon_loss,
)
from .pair import (
    ChopraLoss,
    ContrastiveLoss,
    PairCrossEntropy,
    chopra_loss,
    contrastive_loss,
    pair_cross_entropy,
)
from .proxy import ArcFaceLoss, ProxyAnchorLoss
from .triplet import (
    SoftTripletLoss,
    TripletLoss,
    soft_triplet_loss,
    triplet_loss,
)

__all__ = [
    "LOSSES",
    "ArcFaceLoss",
    "ChopraLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "CrossBatchMemory",
    "EmbeddingLoss",
    "InfoNCELoss",
    "MultiSimilarityLoss",
    "PairCrossEntropy",
    "ProxyAnchorLoss",
    "SoftTripletLoss",
    "SupConLoss",
    "TripletLoss",
    "chopra_loss",
    "circle_loss",
    "contrastive_loss",
    "embedding_loss",
    "get",
    "info_nce_loss",
    "multi_similarity_loss",
    "pair_cross_entropy",
    "soft_triplet_loss",
    "supcon_loss",
    "triplet_loss",
]

LOSSES: dict[str, type[nn.Module]] = {
    "contrastive": ContrastiveLoss,
    "chopra": ChopraLoss,
    "cross-entropy": PairCrossEntropy,
    "triplet": TripletLoss,
    "triplet-soft": SoftTripletLoss,
    "supcon": SupConLoss,
    "infonce": InfoNCELoss,
    "multi-similarity": MultiSimilarityLoss,
    "circle": CircleLoss,
    "arcface": ArcFaceLoss,
    "proxy-anchor": ProxyAnchorLoss,
}


def get(
    name: str,
    *,
    margin: float | None = None,
    temperature: float | None = None,
    bound: float | None = None,
    scale: float | None = None,
    num_classes: int | None = None,
    embedding_size: int | None = None,
) -> nn.Module:
    """The loss of that name, with the settings given and its own defaults for the others.

    Args:
        name: A key of `LOSSES`.
        margin: Refused by a loss that has none; so are the next three.
        temperature: Of `SupConLoss` and `InfoNCELoss`.
        bound: Of `ChopraLoss`.
        scale: Of `CircleLoss` and `ArcFaceLoss`.
        num_classes: How many classes the training data has. No setting but a fact, so it is
            used by a loss with proxies and left aside by the others.
        embedding_size: How many values an embedding has; likewise.

    Raises:
        SettingError: If there is no such loss, or it lacks a setting, or needs one that was not given.

    Example:
        >>> get("contrastive", margin=0.5).margin
        0.5
        >>> get("supcon", margin=0.5)
        Traceback (most recent call last):
        twinned.errors.SettingError: loss 'supcon' has no setting 'margin'; it has temperature
    """
    if name not in LOSSES:
        raise SettingError(f"loss {name!r} is not known; choose one of {', '.join(LOSSES)}")
    facts = {"num_classes": num_classes, "embedding_size": embedding_size}
    settings = {"margin": margin, "temperature": temperature, "bound": bound, "scale": scale}
    known = inspect.signature(LOSSES[name]).parameters
    has = ", ".join(setting for setting in settings if setting in known) or "none of them"
    settings = {setting: value for setting, value in settings.items() if value is not None}
    for setting in settings:
        if setting not in known:
            raise SettingError(f"loss {name!r} has no setting {setting!r}; it has {has}")
    needed = {fact: value for fact, value in facts.items() if fact in known}
    if None in needed.values():
        raise SettingError(
            f"loss {name!r} holds a vector for each class; give num_classes and embedding_size"
        )
    return LOSSES[name](**needed, **settings)
