"""Encoders: an image in, one embedding out. Both inputs of a Siamese network go through the same one.

    name             input                parameters   from
    conv4            any size              0.3 M       the usual few-shot network (Vinyals et al. 2016), wider
    resnet           any size              1 to 3 M    a small residual network (He et al. 2016)
    koch2015         105 x 105 x 1        38.9 M       Koch et al. 2015, figure 4
    chopra2005       56 x 46 x 1           0.3 M       Chopra et al. 2005, section 3
    deck_face        96 x 96 x 3           8.0 M       the slide deck's face network
    deck_signature   100 x 200 x 1         9.1 M       the slide deck's signature network

An encoder takes floats of shape ``(n, channels, height, width)``, already scaled, and has the attributes
``image_size`` (height, width), ``channels`` and ``embedding_size``; ``features(x)`` is its last feature
map, and ``stages()`` are its parts from the input on, for freezing and for smaller learning rates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..errors import SettingError
from .convnets import Conv4, Encoder, ResNet
from .papers import Chopra2005, Deck, Koch2015

__all__ = ["ENCODERS", "Chopra2005", "Conv4", "Deck", "Encoder", "Koch2015", "ResNet", "build", "deck"]


def deck(
    filters: tuple[int, ...] = (64, 128),
    dense: int = 128,
    *,
    image_size: tuple[int, int] = (96, 96),
    channels: int = 3,
) -> Deck:
    """The slide deck's example networks: 3x3 convolutions, each with a pool, then a dense layer.

    Args:
        filters: Filters of each convolution. The face network has (64, 128), the signature network (32, 64).
        dense: Values of the embedding.
        image_size: Height and width.
        channels: 1 or 3.
    """
    return Deck(filters=filters, dense=dense, image_size=image_size, channels=channels)


def _deck_signature(*, image_size: tuple[int, int] = (100, 200), channels: int = 1, dense: int = 128) -> Deck:
    return deck((32, 64), dense, image_size=image_size, channels=channels)


# name -> (builder, its own (height, width, channels) or None for any, name of its embedding size or None)
_Builder = tuple[Callable[..., Encoder], tuple[int, int, int] | None, str | None]
ENCODERS: dict[str, _Builder] = {
    "conv4": (Conv4, None, "embedding_size"),
    "resnet": (ResNet, None, "embedding_size"),
    "koch2015": (Koch2015, (105, 105, 1), None),
    "chopra2005": (Chopra2005, (56, 46, 1), "embedding_size"),
    "deck_face": (deck, (96, 96, 3), "dense"),
    "deck_signature": (_deck_signature, (100, 200, 1), "dense"),
}


def input_shape(name: str) -> tuple[int, int, int] | None:
    """The (height, width, channels) that an encoder was written for; None if it takes any.

    Raises:
        SettingError: If there is no encoder of that name; the message lists the names.
    """
    return _find(name)[1]


def build(
    name: str,
    *,
    image_size: tuple[int, int],
    channels: int,
    embedding_size: int | None = None,
    dropout: float = 0.0,
) -> Encoder:
    """Make an encoder by name.

    Args:
        name: A key of ``ENCODERS``.
        image_size: Height and width of its input.
        channels: 1 or 3.
        embedding_size: Values of the embedding; None for the encoder's own default.
        dropout: Share of the last map's values left out in training; conv4 and resnet only.

    Raises:
        SettingError: If the name is not known, or the encoder cannot have that size.
    """
    builder, shape, size_name = _find(name)
    settings: dict[str, Any] = {}
    if shape is None or size_name == "dense":
        settings = {"image_size": image_size, "channels": channels}
    elif (*image_size, channels) != shape:
        raise SettingError(
            f"encoder {name} takes images of {shape[0]}x{shape[1]} with {shape[2]} channels;"
            f" got {image_size[0]}x{image_size[1]} with {channels}"
        )
    if dropout:
        if shape is not None:
            raise SettingError(f"encoder {name} has no dropout; leave it at 0")
        settings["dropout"] = dropout
    if embedding_size is not None:
        if size_name is None:
            raise SettingError(f"encoder {name} has an embedding of fixed size; leave --embedding-size out")
        settings[size_name] = embedding_size
    return builder(**settings)


def _find(name: str) -> _Builder:
    try:
        return ENCODERS[name]
    except KeyError:
        raise SettingError(f"encoder {name!r} is not known; choose one of {', '.join(ENCODERS)}") from None
