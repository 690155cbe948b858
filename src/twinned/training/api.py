"""`train`, and the configuration that it uses."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any, Unpack

from ..data.readers import Data
from ..inference.model import Model
from .callbacks import Callback, check_callbacks
from .config import TrainConfig
from .launch import run_on_devices
from .options import TrainArguments, TrainRequest
from .pipeline import run, set_up


def train(
    data: Data,
    output: str | os.PathLike[str] | None = None,
    *,
    init_from: Model | str | os.PathLike[str] | None = None,
    validation: Data | None = None,
    resume: bool = False,
    overwrite: bool = False,
    config: TrainConfig | None = None,
    progress: bool = True,
    callbacks: Sequence[Callback] = (),
    validate: Data | None = None,
    force: bool = False,
    **options: Unpack[TrainArguments],
) -> Model:
    """Train a Siamese network on your images and return the saved model.

    A fifth of the classes (at least 4) is held out of training to choose the threshold on. With fewer than 12
    classes (60 with a pretrained encoder), none is held out: the threshold comes from cross-validation over
    classes.

    Args:
        data: Images or pairs, a path to them, ``(images, labels)`` in arrays or tensors, or a PyTorch
            ``Dataset`` of pairs (image, label); see `twinned.data.load_images` and `load_pairs`.
        output: Model folder to write; by default a temporary folder, until `Model.save`.
        init_from: Model to start from, or its folder; see `finetune`.
        validation: Data for choosing the threshold, instead of held-out classes.
        resume: Continue an interrupted run that wrote to ``output``.
        overwrite: Replace ``output``.
        config: Configuration to start from, instead of a recipe.
        progress: Show progress bars.
        callbacks: Called after steps and evaluations (`twinned.training.callbacks.Callback`).
        validate: Deprecated name of ``validation``.
        force: Deprecated name of ``overwrite``.
        **options: Options of `twinned.training.options.TrainArguments`, such as ``recipe``, ``minutes`` and
            ``loss``. Any other option of `TrainConfig` goes into ``settings``. ``encoder``, ``loss``,
            ``miner``, ``augment``, ``optimizer`` and ``schedule`` can be objects and functions of your own;
            copies of your encoder and loss are trained, and the model has the result.

    Raises:
        DataError: If there are fewer than two classes with two readable images.
        SettingError: If an option is wrong, or ``output`` exists.
        TrainingError: If training failed, or a callback did; the message names the checkpoint.
    """
    given = with_new_names(
        {"validation": validation, "overwrite": overwrite, "validate": validate, "force": force}
    )
    request = TrainRequest(
        data,
        output=output,
        init_from=init_from,
        validation=given["validation"],
        resume=resume,
        overwrite=given["overwrite"],
        config=config,
        progress=progress,
        callbacks=check_callbacks(callbacks),
        options=options,
        device=options.get("device", "auto"),
        devices=options.get("devices", 1),
    )
    return run_on_devices(run, request)


def resolve_config(
    data: Data,
    *,
    init_from: Model | str | os.PathLike[str] | None = None,
    validation: Data | None = None,
    config: TrainConfig | None = None,
    **options: Unpack[TrainArguments],
) -> TrainConfig:
    """Return the configuration of `train`, which may still replace the encoder with recipe ``auto``."""
    request = TrainRequest(data, options, init_from=init_from, validation=validation, config=config)
    return set_up(request).config


def with_new_names(given: dict[str, Any]) -> dict[str, Any]:
    """Return arguments with new names in place of deprecated ones; warn the caller of the caller."""
    for old, new in (("validate", "validation"), ("force", "overwrite")):
        value = given.pop(old, None)
        if value is not None and value is not False:
            warnings.warn(f"{old}= is deprecated; use {new}=", DeprecationWarning, stacklevel=3)
            if given.get(new) is None or given[new] is False:
                given[new] = value
    return given
