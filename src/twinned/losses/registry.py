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
import re
from collections.abc import Callable
from typing import Any

from pydantic.fields import FieldInfo

from ..errors import SettingError
from ..utils.registry import Part, Registry
from .base import AnyLoss, check_loss
from .in_batch import CircleLoss, InfoNCELoss, MultiSimilarityLoss, SupConLoss
from .pair import ChopraLoss, ContrastiveLoss, PairCrossEntropy
from .proxy import ArcFaceLoss, ProxyAnchorLoss
from .triplet import SoftTripletLoss, TripletLoss

BUILTIN: dict[str, Any] = {
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
# Loss classes, and the classes and functions of `register_loss`.
LOSSES: Registry[Any] = Registry("loss", "twinned.losses", BUILTIN, check_loss)
# Arguments of a constructor that are sizes of the data and the network, not options.
_SIZES = ("num_classes", "embedding_size")


def register_loss(name: str) -> Callable[[Part], Part]:
    """Register a loss under a name, as a decorator of a function or of a class whose objects are losses.

    ``twinned.train(loss=name)`` and ``twinned train --loss NAME`` then use it. A loss has one of these calls
    and returns a scalar:

    - ``loss(embeddings, labels)``: embeddings ``(n, d)`` and integers ``(n,)``. A third parameter receives
      the indices of a miner, as in pytorch-metric-learning.
    - ``loss(distance, same)``: distances ``(pairs,)``, at least 0, lower is closer, and booleans. It is used
      where the second parameter is named ``same``, or the loss has an attribute ``pairwise`` that is True.

    Numbers with defaults in the constructor of a class are options, such as ``margin``. Arguments
    ``num_classes`` and ``embedding_size`` receive the number of training classes and the size of an
    embedding. Parameters of the loss are trained.

    An installed package registers losses by entry points of the group ``twinned.losses``. The name has
    letters, digits and the signs ``. _ -``; one that is taken, or another call, raises a `SettingError`.

    Example:
        >>> @register_loss("hinge")
        ... def hinge(distance, same):
        ...     return (distance * same + (1 - distance).clamp(min=0) * ~same).mean()
        >>> create_loss("hinge") is hinge
        True
        >>> del LOSSES["hinge"]
    """
    return LOSSES.decorator(name)


def loss_options(name: str) -> dict[str, FieldInfo]:
    """Return the options of a built-in loss, as its constructor and docstring define them."""
    if (loss := BUILTIN.get(name)) is None:
        return {}
    one_line_each = re.sub(r"\n {8,}", " ", inspect.getdoc(loss) or "")
    described = dict(re.findall(r"^ {4}(\w+): (.+?)(?:\. .*|\.)?$", one_line_each, re.MULTILINE))
    return {
        option: FieldInfo(annotation=float, default=parameter.default, description=described.get(option))
        for option, parameter in inspect.signature(loss).parameters.items()
        if option not in _SIZES
    }


def option_names(loss: Any) -> list[str]:
    """Return the names of the options of a loss class; none for a function."""
    known = inspect.signature(loss).parameters if isinstance(loss, type) else {}
    return [name for name in known if name not in _SIZES]


def create_loss(
    name: str, *, num_classes: int | None = None, embedding_size: int | None = None, **options: float | None
) -> AnyLoss:
    """Create a loss by name.

    Args:
        name: Key of `LOSSES`, or the name of an entry point.
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
    loss = LOSSES.find(name)
    given = {option: value for option, value in options.items() if value is not None}
    if unknown := [option for option in given if option not in option_names(loss)]:
        has = ", ".join(option_names(loss)) or "none"
        raise SettingError(f"loss {name!r} has no setting {unknown[0]!r}; it has {has}")
    if isinstance(loss, type):
        sizes = {"num_classes": num_classes, "embedding_size": embedding_size}
        needed = {size: value for size, value in sizes.items() if size in inspect.signature(loss).parameters}
        if None in needed.values():
            raise SettingError(f"loss {name!r} has proxies and needs num_classes and embedding_size")
        loss = loss(**needed, **given)
    created: AnyLoss = loss
    return created
