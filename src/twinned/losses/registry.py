"""Table of losses by name, and which loss suits which data.

| data | loss |
| --- | --- |
| 2 to 20 images of each class, many classes | `InfoNCELoss`, `SupConLoss`, `CircleLoss` |
| the same, trained on triplets | `TripletLoss` with `miners.SemiHard` |
| the same, with one threshold for all classes | `ContrastiveLoss`: it requires a distance |
| noisy labels | `SupConLoss`, without a batch-hard miner |
| small batches in which hard impostors are rare | `CrossBatchMemory` around any of these |
| tens of images of each class | `MultiSimilarityLoss` with its miner, `ProxyAnchorLoss` |
| thousands of classes with tens of images each | `ArcFaceLoss` |
| pairs marked same or different, without classes | `ContrastiveLoss` |
| such pairs, with a learned head | `PairCrossEntropy` |
| one image of each class in a batch | `ArcFaceLoss`, `ProxyAnchorLoss`: they need no pairs |
| any, without a margin to choose | `SoftTripletLoss`, `ChopraLoss` (Manhattan) |
"""

from __future__ import annotations

import inspect

from ..errors import SettingError
from .base import Loss
from .in_batch import CircleLoss, InfoNCELoss, MultiSimilarityLoss, SupConLoss
from .pair import ChopraLoss, ContrastiveLoss, PairCrossEntropy
from .proxy import ArcFaceLoss, ProxyAnchorLoss
from .triplet import SoftTripletLoss, TripletLoss

LOSSES: dict[str, type[Loss]] = {
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


def create_loss(
    name: str,
    *,
    num_classes: int | None = None,
    embedding_size: int | None = None,
    **options: float | None,
) -> Loss:
    """Create a loss by name.

    Args:
        name: Key of `LOSSES`.
        num_classes: Number of training classes; only losses with proxies use it.
        embedding_size: Values in an embedding; only losses with proxies use it.
        **options: Options of the loss, such as ``margin``; None selects the loss's default.

    Raises:
        SettingError: If the name is not known, or the loss lacks an option or needs one that is missing.

    Example:
        >>> create_loss("contrastive", margin=0.5)
        ContrastiveLoss(margin=0.5, factor=0.5)
        >>> create_loss("supcon", margin=0.5)
        Traceback (most recent call last):
        twinned.errors.SettingError: loss 'supcon' has no setting 'margin'; it has temperature
    """
    if name not in LOSSES:
        raise SettingError(f"loss {name!r} is not known; choose one of {', '.join(LOSSES)}")
    sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
    known = inspect.signature(LOSSES[name]).parameters
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in known:
            has = ", ".join(parameter for parameter in known if parameter not in sizes) or "none"
            raise SettingError(f"loss {name!r} has no setting {option!r}; it has {has}")
    needed = {size: value for size, value in sizes.items() if size in known}
    if None in needed.values():
        raise SettingError(
            f"loss {name!r} needs num_classes and embedding_size, because it has a vector for each class"
        )
    return LOSSES[name](**needed, **given)
