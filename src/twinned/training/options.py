"""Options of `twinned.train` and `twinned.finetune`: names, types and help, for Python and the command line.

This module imports no PyTorch, so that ``twinned train --help`` is fast.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypedDict

from ..utils.options import Option

if TYPE_CHECKING:
    from torch import nn

    from ..data.datasets import ImageSet, PairSet
    from ..data.readers import Data
    from ..inference.model import Model
    from ..losses.base import AnyLoss, AnyMiner
    from .callbacks import Callback
    from .config import Augment, TrainConfig
    from .parts import Augmenter, OptimizerMaker, Rate

    EncoderPart = nn.Module
    LossPart = AnyLoss
else:  # the command line takes names alone
    EncoderPart = LossPart = str


def _names_in(registry: str) -> str:
    """Return the names in a table of parts, from the source of its module, which needs PyTorch."""
    source = (Path(__file__).parents[1] / registry).read_text("utf-8")
    return ", ".join(re.findall(r'^    "(.+?)": ', source, re.MULTILINE))


# For the help; tests compare them with the tables.
_RECIPES = "glyph, face, signature, photo, photo-small, deck, koch2015, facenet or chopra2005"
_ENCODERS = _names_in("nn/encoders/registry.py")
_LOSSES = _names_in("losses/registry.py")


class TrainOptions(TypedDict, total=False):
    """Options of a training run; what is missing comes from the recipe."""

    image_size: Annotated[
        str | int | tuple[int, int] | None,
        Option("Data", "Height and width of the network's input, HxW, or one number for both", str | None),
    ]
    recipe: Annotated[
        str | None,
        Option("Model", f"Name of a recipe: {_RECIPES}; auto chooses one from the images (docs/settings.md)"),
    ]
    encoder: Annotated[
        str | EncoderPart | None,
        Option("Model", f"Name of the encoder: {_ENCODERS}, or one that is registered", str | None),
    ]
    embedding_size: Annotated[
        int | None, Option("Model", "Number of values of an embedding (default: the encoder's own)")
    ]
    distance: Annotated[
        str | None,
        Option("Model", "Distance of embeddings: cosine, euclidean, squared_euclidean or manhattan"),
    ]
    freeze: Annotated[
        str | int | None,
        Option(
            "Model", "Number of encoder stages to freeze, counted from the input; all, or none", str | None
        ),
    ]
    loss: Annotated[
        str | LossPart | None,
        Option("Optimization", f"Name of the loss: {_LOSSES}, or one that is registered", str | None),
    ]
    margin: Annotated[float | None, Option("Optimization", "Margin of the loss")]
    batch_size: Annotated[int | None, Option("Optimization", "Number of images per batch")]
    learning_rate: Annotated[float | None, Option("Optimization", "Peak learning rate")]
    minutes: Annotated[
        float | None,
        Option("Optimization", "Minutes from start to saved model, at least half of them for training"),
    ]
    steps: Annotated[
        int | None, Option("Optimization", "Number of training steps (instead of a number of minutes)")
    ]
    epochs: Annotated[
        float | None, Option("Optimization", "Number of epochs (instead of a number of minutes)")
    ]
    settings: Annotated[
        Mapping[str, Any] | None,
        Option(
            "Optimization",
            "Any other setting, as NAME=VALUE; can be repeated (docs/settings.md)",
            list[str] | None,
            "--set",
        ),
    ]
    far: Annotated[
        float | None, Option("Run", "False accept rate of the threshold (default: equal error rate)")
    ]
    seed: Annotated[int | None, Option("Run", "Seed of all random numbers (default: 0)", least=0)]
    device: Annotated[str, Option("Run", "Device: auto, cpu, cuda or mps", default="auto")]
    devices: Annotated[
        int, Option("Run", "Number of devices, each with a process and a share of every batch", default=1)
    ]


class TrainArguments(TrainOptions, total=False):
    """Options of a training run in Python, of which some can be parts of one's own.

    With ``devices`` above 1, each process gets a copy of the parts, so functions and classes must be defined
    at the top level of a module.

    Attributes:
        encoder: Name, or a module that maps floats ``(n, channels, height, width)`` to ``(n, d)``; see
            `twinned.nn.encoders.ModuleEncoder`.
        loss: Name, or a module or function ``(embeddings, labels)`` or ``(distance, same)`` to a scalar; see
            `twinned.register_loss`. The losses of pytorch-metric-learning are such modules.
        miner: Name, or a module or function; see `twinned.register_miner`.
        augment: Settings of the section ``augment``, or a function that maps floats in [0, 1], shape
            ``(n, channels, height, width)``, to the same and draws PyTorch's random numbers.
        optimizer: Name, or a function that maps the parameters of network and loss to an optimizer. Its
            learning rates are multiplied by the schedule.
        schedule: Function that maps a step (from 0) and the number of steps (None while unknown) to a factor
            of the learning rates.
    """

    miner: str | AnyMiner | None
    augment: Augmenter | Augment | Mapping[str, Any] | None
    optimizer: str | OptimizerMaker | None
    schedule: Rate | None


class FinetuneOptions(TrainArguments, total=False):
    """Arguments of `twinned.train` that `twinned.finetune` passes on, and its options."""

    validation: ImageSet | PairSet | str | os.PathLike[str] | None
    resume: bool
    overwrite: bool
    config: TrainConfig | None
    progress: bool
    callbacks: Sequence[Callback]
    validate: ImageSet | PairSet | str | os.PathLike[str] | None
    force: bool


# Names and values of version 0.1, for `--set`, and for models saved by it.
OLD_NAMES = {
    "layer": "transfer.projection",
    "norms": "transfer.freeze_batchnorm",
    "shrink": "transfer.shrinkage",
    "views": "transfer.n_augmentations",
    "within_group": "sampler.same_group_fraction",
    "quarter_turns": "sampler.rotate_classes",
    "mirrors": "sampler.flip_classes",
    "enough": "length.max_epochs",
    "proxy_rate": "optimizer.proxy_lr_scale",
    "decay_from": "schedule.decay_start",
    "average": "schedule.ema_decay",
    "held_out": "calibration.validation_fraction",
}
OLD_VALUES: dict[tuple[str, str], Any] = {
    ("layer", "learned"): "gradient",
    ("layer", "solved"): "lda",
    ("norms", "moving"): False,
    ("norms", "kept"): True,
}

# Options that are not part of the configuration.
NOT_SETTINGS = ("recipe", "settings", "device", "devices")


@dataclass(frozen=True, eq=False)
class TrainRequest:
    """Arguments of `twinned.train`, and the start of the run on the clock that all processes share."""

    data: Data
    options: TrainArguments
    output: str | os.PathLike[str] | None = None
    init_from: Model | str | os.PathLike[str] | None = None
    validation: Data | None = None
    resume: bool = False
    overwrite: bool = False
    config: TrainConfig | None = None
    progress: bool = True
    callbacks: Sequence[Callback] = ()
    device: str = "auto"
    devices: int = 1
    started: float | None = None
