"""Base class of losses, and the calls of losses and miners of one's own or of other libraries."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

from torch import Tensor, nn

from ..errors import SettingError
from ..utils.registry import plain_name
from .inputs import Indices

Kind: TypeAlias = Literal["pair", "triplet", "embedding"]
# A `Loss`; or a module or function ``(embeddings, labels) -> scalar`` or ``(distance, same) -> scalar``.
AnyLoss: TypeAlias = nn.Module | Callable[..., Tensor]
# A `twinned.losses.miners.Miner` or another module or function: ``(distance, labels) -> indices`` where the
# first parameter is named ``distance``, otherwise ``(embeddings, labels) -> indices``.
AnyMiner: TypeAlias = nn.Module | Callable[..., Indices]


class OptionsModule(nn.Module):
    """Module whose repr shows the options of its constructor, such as ``TripletLoss(margin=0.2)``."""

    def __init__(self) -> None:  # hides the *args and **kwargs of nn.Module from signature()
        super().__init__()

    def extra_repr(self) -> str:
        """Return the options that are plain values, as ``name=value``."""
        values = {name: getattr(self, name, None) for name in inspect.signature(type(self)).parameters}
        shown = {name: value for name, value in values.items() if isinstance(value, (bool, int, float, str))}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


class Loss(OptionsModule):
    """Base class of the losses of this package; an option out of its range raises a `SettingError`.

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


def check_loss(loss: Any) -> Any:
    """Return a loss, or a class of losses; raise a `SettingError` if it cannot take two inputs."""
    if isinstance(loss, Loss) or (isinstance(loss, type) and issubclass(loss, Loss)):
        return loss
    return _checked(loss, "loss", "(embeddings, labels) or (distance, same)")


def check_miner(miner: Any) -> Any:
    """Return a miner, or a class of miners; raise a `SettingError` if it cannot take two inputs."""
    return _checked(miner, "miner", "(distance, labels) or (embeddings, labels)")


def is_pairwise(loss: Any) -> bool:
    """Return True for a loss, or a class of losses, on ``(distance, same)``."""
    if hasattr(loss, "kind"):
        return bool(loss.kind == "pair")
    if (marked := getattr(loss, "pairwise", None)) is not None:
        return bool(marked)
    return call_inputs(loss, "loss")[1:2] == ["same"]


def has_proxies(loss: Any) -> bool:
    """Return True for a loss with one vector for each class, so that labels beyond its classes fail."""
    if isinstance(loss, Loss):
        return loss.proxies
    return isinstance(loss, nn.Module) and isinstance(getattr(loss, "num_classes", None), int)


def call_inputs(part: Any, kind: str) -> list[str]:
    """Return the names of the positional parameters of a call; ``*args`` counts as two."""
    found = _signature(part, kind).parameters.values()
    names = [one.name for one in found if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return names + 2 * [one.name for one in found if one.kind is one.VAR_POSITIONAL]


def _checked(part: Any, kind: str, expected: str) -> Any:
    try:
        _signature(part, kind).bind(None, None)
    except TypeError:
        inputs = ", ".join(call_inputs(part, kind))
        name = f"{kind.capitalize()} {plain_name(part)}"
        raise SettingError(f"{name} takes ({inputs}). It must take {expected}") from None
    return part


def _signature(part: Any, kind: str) -> inspect.Signature:
    """Return the signature of a call of a part, or of the objects of a class."""
    if not callable(part):
        given = type(part).__name__
        raise SettingError(f"A {kind} must be a name, a torch.nn.Module or a function; got {given}")
    if isinstance(part, type):
        call = part.forward if issubclass(part, nn.Module) else part.__call__
        signature = inspect.signature(call)
        return signature.replace(parameters=[*signature.parameters.values()][1:])  # without self
    return inspect.signature(part.forward if isinstance(part, nn.Module) else part)
