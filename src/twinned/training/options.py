"""Options of `twinned.train` and `twinned.finetune`: names, types and help, for Python and the command line.

This module imports no PyTorch, so that ``twinned train --help`` is fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple, TypedDict, get_type_hints


class Option(NamedTuple):
    """Description of an option.

    Args:
        panel: Help panel: Data, Model, Optimization or Run.
        help: Noun phrase that is understood without the other options.
        cli: Type on the command line, where it differs from the type in Python.
        flag: Name on the command line; by default the name in Python, with dashes.
        least: Smallest value on the command line.
    """

    panel: str
    help: str
    cli: Any = None
    flag: str | None = None
    least: int | None = None


class TrainOptions(TypedDict, total=False):
    """Options of a training run; what is missing comes from the recipe."""

    image_size: Annotated[
        str | int | tuple[int, int] | None,
        Option("Data", "Height and width of the network's input, HxW, or one number for both", str | None),
    ]
    recipe: Annotated[
        str | None, Option("Model", "Name of a recipe; auto chooses one from the images (docs/settings.md)")
    ]
    encoder: Annotated[str | None, Option("Model", "Name of the encoder")]
    embedding_size: Annotated[int | None, Option("Model", "Number of values of an embedding")]
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
    loss: Annotated[str | None, Option("Optimization", "Name of the loss")]
    margin: Annotated[float | None, Option("Optimization", "Margin of the loss")]
    batch_size: Annotated[int | None, Option("Optimization", "Number of images per batch")]
    learning_rate: Annotated[float | None, Option("Optimization", "Peak learning rate")]
    minutes: Annotated[float | None, Option("Optimization", "Minutes from start to saved model")]
    steps: Annotated[int | None, Option("Optimization", "Number of training steps (instead of --minutes)")]
    epochs: Annotated[float | None, Option("Optimization", "Number of epochs (instead of --minutes)")]
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
    device: Annotated[str, Option("Run", "Device: auto, cpu, cuda or mps")]
    devices: Annotated[
        int, Option("Run", "Number of devices, each with a process and a share of every batch")
    ]


def described() -> Iterator[tuple[str, Any, Option]]:
    """Yield name, type in Python and description of every option."""
    for name, annotation in get_type_hints(TrainOptions, include_extras=True).items():
        yield name, annotation.__origin__, annotation.__metadata__[0]


# Defaults other than None.
DEFAULTS: dict[str, Any] = {"device": "auto", "devices": 1}
# Options that are not part of the configuration.
_NOT_SETTINGS = ("recipe", "settings", "device", "devices")


def to_settings(options: TrainOptions) -> dict[str, Any]:
    """Return the options that change the configuration, ``settings`` included."""
    named = {k: v for k, v in options.items() if k not in _NOT_SETTINGS and v is not None}
    if "freeze" in named:
        named["freeze"] = str(named["freeze"])
    return named
