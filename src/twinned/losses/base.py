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


def check_loss(loss: Any) -> Any:
    """Return a loss, or a class of losses, if it can be called with two inputs.

    Raises:
        SettingError: If it cannot.
    """
    if isinstance(loss, Loss) or (isinstance(loss, type) and issubclass(loss, Loss)):
        return loss
    _check_inputs(loss, "loss", "(embeddings, labels) or (distance, same)")
    return loss


def check_miner(miner: Any) -> Any:
    """Return a miner, or a class of miners, if it can be called with two inputs.

    Raises:
        SettingError: If it cannot.
    """
    _check_inputs(miner, "miner", "(distance, labels) or (embeddings, labels)")
    return miner


def is_pairwise(loss: Any) -> bool:
    """Return True for a loss, or a class of losses, on ``(distance, same)``."""
    if hasattr(loss, "kind"):
        return bool(loss.kind == "pair")
    if (marked := getattr(loss, "pairwise", None)) is not None:
        return bool(marked)
    inputs = _inputs(loss, "loss")
    return len(inputs) > 1 and inputs[1].name == "same"


def takes_indices(loss: Any) -> bool:
    """Return True for a loss that takes the indices of a miner as its third input."""
    return len(_inputs(loss, "loss")) > 2


def has_reference(loss: Any) -> bool:
    """Return True for a loss that compares a batch with more embeddings, ``ref_emb`` and ``ref_labels``."""
    return {"ref_emb", "ref_labels"} <= {one.name for one in _inputs(loss, "loss")}


def takes_embeddings(miner: Any) -> bool:
    """Return True for a miner on embeddings, False for one on distances."""
    inputs = _inputs(miner, "miner")
    return not inputs or inputs[0].name != "distance"


def has_proxies(loss: Any) -> bool:
    """Return True for a loss with one vector for each class, so that labels beyond its classes fail."""
    if isinstance(loss, Loss):
        return loss.proxies
    return isinstance(loss, nn.Module) and isinstance(getattr(loss, "num_classes", None), int)


def _check_inputs(part: Any, kind: str, expected: str) -> None:
    inputs = _inputs(part, kind)
    if len(inputs) < 2 or any(_is_required(one) for one in inputs[2:]):
        raise SettingError(
            f"{kind.capitalize()} {plain_name(part)} takes ({', '.join(one.name for one in inputs)}). It must"
            f" take {expected}"
        )


def _inputs(part: Any, kind: str) -> list[inspect.Parameter]:
    """Return the positional parameters of a call; ``*args`` counts as two."""
    if isinstance(part, type):  # the parameter self is left out
        call = part.forward if issubclass(part, nn.Module) else part.__call__
        found = list(inspect.signature(call).parameters.values())[1:]
    elif callable(part):
        found = list(
            inspect.signature(part.forward if isinstance(part, nn.Module) else part).parameters.values()
        )
    else:
        raise SettingError(
            f"A {kind} must be a name, a torch.nn.Module or a function; got {type(part).__name__}"
        )
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [one for one in found if one.kind in positional]
    variable = [one for one in found if one.kind is inspect.Parameter.VAR_POSITIONAL]
    return named + 2 * variable


def _is_required(parameter: inspect.Parameter) -> bool:
    return (
        parameter.default is inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.VAR_POSITIONAL
    )
