"""Parts of one's own: objects and functions that a run uses in place of named parts and sections.

They travel beside the configuration, which has only their names, so that it stays JSON.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn

from .. import losses
from ..errors import SettingError
from ..losses import miners
from ..losses.base import AnyLoss, AnyMiner, Loss, check_loss, check_miner
from ..losses.registry import option_names
from ..nn import encoders
from ..nn.encoders.adapter import can_rebuild
from ..nn.encoders.base import Encoder
from ..utils.notes import Note
from ..utils.registry import UNREGISTERED, plain_name
from .config import Augment, Functions, TrainConfig, by_full_name, short_name
from .options import NOT_SETTINGS

if TYPE_CHECKING:
    from .options import TrainArguments

Augmenter: TypeAlias = Callable[[Tensor], Tensor]
OptimizerMaker: TypeAlias = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
Rate: TypeAlias = Callable[[int, int | None], float]

# Parts that can be given by name: the option that holds the name.
_NAMED = {"encoder": "encoder", "loss": "loss", "miner": "mining.miner", "optimizer": "optimizer"}
# Section that a part replaces, with the options that stay in effect.
_REPLACED: dict[str, tuple[str, tuple[str, ...]]] = {
    "encoder": ("encoder", ("encoder.embedding_size", "encoder.symmetric")),
    "miner": ("mining", ("mining.memory",)),
    "schedule": ("schedule", ("schedule.ema_decay", "schedule.evaluations")),
}
_SIZE = ("input.height", "input.width")


@dataclass(frozen=True, eq=False)
class OwnParts:
    """Parts of one's own, as in `TrainArguments`; None for those that the configuration names."""

    encoder: nn.Module | None = None
    loss: AnyLoss | None = None
    miner: AnyMiner | None = None
    augment: Augmenter | None = None
    optimizer: OptimizerMaker | None = None
    schedule: Rate | None = None

    def given(self) -> dict[str, Any]:
        """Return the parts that are not None, by name."""
        return {name: part for name, part in vars(self).items() if part is not None}

    def make_encoder(self, config: TrainConfig, *, pretrained: bool = True) -> Encoder:
        """Return a copy of the encoder of one's own, or build the one that the configuration names."""
        given: dict[str, Any] = {
            "image_size": (config.input.height, config.input.width),
            "channels": config.input.channels,
            "embedding_size": config.encoder.embedding_size,
        }
        if self.encoder is None:
            return encoders.create_encoder(
                config.encoder.name,
                **given,
                dropout=config.encoder.dropout,
                pretrained=pretrained,
                symmetric=config.encoder.symmetric,
            )
        encoder = encoders.as_encoder(copy.deepcopy(self.encoder), **given)
        encoder.symmetric = config.encoder.symmetric
        return encoder

    def finish(self, config: TrainConfig) -> tuple[TrainConfig, list[Note]]:
        """Return the configuration with the names of the parts, and notes on parts that are missing."""
        if self.encoder is not None:
            config = named_encoder(self.make_encoder(config), config)  # fails before images are decoded
        for part, name, known in (
            (self.encoder, config.encoder.name, encoders.ENCODERS),
            (self.loss, config.loss.name, losses.LOSSES),
            (self.miner, config.mining.miner, miners.MINERS),
        ):
            if part is None and name is not None:
                known.find(name)
        named = {name: plain_name(part) for name, part in self.given().items()}
        functions = Functions(**{name: named[name] for name in Functions.model_fields if name in named})
        notes = []
        for section, name in config.functions.model_dump().items():
            if name is not None and getattr(functions, section) is None:
                text = f"the model was trained with the {section} function {name}, which is not given now, so"
                notes.append(Note("function-missing", f"{text} the settings of {section} are used"))
        return config.model_copy(update={"functions": functions}), notes


def split_arguments(arguments: TrainArguments) -> tuple[OwnParts, dict[str, Any]]:
    """Split the options of `train` into parts of one's own and changes of the configuration.

    The changes have dotted names, and names and settings of parts in their place; also ``image_size`` and
    ``batch_size``.
    """
    named = {k: v for k, v in arguments.items() if v is not None and k not in NOT_SETTINGS}
    own: dict[str, Any] = {}
    for field in fields(OwnParts):
        value = named.pop(field.name, None)
        if isinstance(value, str) and field.name in _NAMED:
            named[_NAMED[field.name]] = value
        elif field.name == "augment" and isinstance(value, (Mapping, Augment)):
            given = value if isinstance(value, Mapping) else value.model_dump(exclude_unset=True)
            named |= {f"augment.{name}": each for name, each in given.items()}
        elif value is not None:
            own[field.name] = _checked(field.name, value)
    parts = OwnParts(**own)
    special = {name: named.pop(name) for name in ("image_size", "batch_size") if name in named}
    if "freeze" in named:
        named["freeze"] = str(named["freeze"])
    chosen = by_full_name(named, arguments.get("settings") or {})
    _check_unused(parts, chosen)
    sized = _SIZE if "image_size" in special else ()
    defaults = {name: value for name, value in _defaults(parts).items() if name not in sized}
    return parts, special | defaults | chosen | _names(parts)


def named_encoder(encoder: Encoder, config: TrainConfig) -> TrainConfig:
    """Return the configuration with the name of an encoder, and the embedding size that rebuilds it.

    The name is marked as unregistered if no encoder of the table computes the same with the same weights.
    """
    part = encoder.module if isinstance(encoder, encoders.ModuleEncoder) else encoder
    name = encoder.name or encoders.ENCODERS.name_of(part)
    layer = encoder.linear_projection
    for size in () if name.startswith(UNREGISTERED) else (None, encoder.embedding_size):
        found = config.merge({"encoder.name": name, "encoder.embedding_size": size})
        if can_rebuild(partial(OwnParts().make_encoder, found, pretrained=False), encoder):
            return found
    size = encoder.embedding_size if part is not encoder and layer is not None else None
    return config.merge({"encoder.name": UNREGISTERED + plain_name(part), "encoder.embedding_size": size})


def first_channels(module: nn.Module) -> int | None:
    """Return the channels of the first convolution of a module if they are those of images, 1 or 3."""
    first = next((part for part in module.modules() if isinstance(part, nn.Conv2d)), None)
    return first.in_channels if first is not None and first.in_channels in (1, 3) else None


def _checked(name: str, value: Any) -> Any:
    """Return a part if it has the type of its argument; raise a `SettingError` otherwise."""
    if isinstance(value, type) and name != "optimizer":
        raise SettingError(
            f"Option {name} is an object or a function; got the class {value.__name__}. Create an object"
        )
    if name == "loss":
        return check_loss(value)
    if name == "miner":
        return check_miner(value)
    if name == "optimizer" and isinstance(value, torch.optim.Optimizer):
        kind = type(value).__name__
        raise SettingError(
            f"Option optimizer is a name or a function from parameters to an optimizer; got an optimizer of"
            f" other parameters. Use optimizer=lambda parameters: {kind}(parameters, lr=...)"
        )
    if isinstance(value, nn.Module) if name == "encoder" else callable(value):
        return value
    kinds = {"encoder": "a name or a torch.nn.Module", "augment": "a function or settings"}
    raise SettingError(f"Option {name} is {kinds.get(name, 'a function')}; got {value!r}")


def _names(parts: OwnParts) -> dict[str, Any]:
    """Return the names of the parts, and the options of a registered loss, by dotted name."""
    named: dict[str, Any] = {}
    if parts.encoder is not None:
        named["encoder.name"] = encoders.ENCODERS.name_of(parts.encoder)
    if parts.loss is not None:
        name = losses.LOSSES.name_of(parts.loss)
        named["loss.name"] = name
        if not name.startswith(UNREGISTERED):
            values = {option: getattr(parts.loss, option, None) for option in option_names(type(parts.loss))}
            named |= {f"loss.{k}": v for k, v in values.items() if isinstance(v, (int, float))}
    if parts.miner is not None:
        named["mining.miner"] = miners.MINERS.name_of(parts.miner)
    return named


def _defaults(parts: OwnParts) -> dict[str, Any]:
    """Return the input that an encoder needs and the distance that a loss needs, by dotted name."""
    found: dict[str, Any] = {}
    if isinstance(parts.encoder, Encoder):
        shape = (*parts.encoder.image_size, parts.encoder.channels)
        found |= zip((*_SIZE, "input.channels"), shape, strict=True)
    elif parts.encoder is not None and (channels := first_channels(parts.encoder)):
        found["input.channels"] = channels
    if isinstance(parts.loss, Loss) and parts.loss.distance is not None:
        found["comparison.distance"] = parts.loss.distance
    return found


def _check_unused(parts: OwnParts, chosen: Mapping[str, Any]) -> None:
    """Raise a `SettingError` if an option belongs to what a part replaces."""
    for part in parts.given():
        section, used = _REPLACED.get(part, (part, ()))
        if unused := [n for n in chosen if n.startswith(f"{section}.") and n not in used]:
            own = f"{part} {plain_name(parts.given()[part])}"
            raise SettingError(f"Option {short_name(unused[0])} has no effect with {own}. Leave it out")
