"""Train a model: `train` from images, `finetune` from another model."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import torch
from safetensors import SafetensorError, safe_open

from ..data.datasets import ImageSet, PairSet
from ..data.faces.photographs import share_with_faces
from ..data.readers import Data, as_dataset
from ..data.splits import check_classes, split_by_column
from ..errors import SettingError, many
from ..inference import model_folder
from ..inference.model import Model
from ..nn import encoders
from ..utils.notes import Note
from ..utils.progress import progress_bar
from . import distributed, recipes
from .callbacks import Callback, check_callbacks
from .config import TrainConfig, by_full_name
from .encoder_selection import TRIAL_SHARE, select_encoder
from .finetune import base_config, check_kept, check_old_data, config_of, measure_old
from .launch import keep_freed_memory, on_devices, training_device
from .options import FinetuneOptions, TrainArguments, TrainOptions, to_settings
from .parts import OwnParts, split_parts
from .pipeline import Output, RunData, make_model, partial_folder
from .rules import DataFacts, resolve
from .signals import interruptible
from .state import Interrupted, kept_random_state
from .warm_start import load_for_input

_PRETRAINED = "efficientnet_lite0"
# For these recipes, auto compares a small encoder with a pretrained one: recipe and changes of each.
_CANDIDATES: dict[str, tuple[tuple[str, dict[str, Any]], tuple[str, dict[str, Any]]]] = {
    "photo": (("photo-small", {}), ("photo", {})),
    "face": (("face", {}), ("face", {"encoder": f"{_PRETRAINED}_face"})),
    "signature": (("signature", {}), ("signature", {"encoder": f"{_PRETRAINED}_signature"})),
}
# The user chooses the encoder by setting one of these.
_FIXES_ENCODER = {"encoder.name", "encoder.weights", "transfer.projection", "transfer.freeze"}


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
    _warn_of_old_names(validate=validate, force=force or None)
    return _train(
        data,
        output=output,
        init_from=init_from,
        validation=validate if validation is None else validation,
        resume=resume,
        overwrite=overwrite or force,
        config=config,
        progress=progress,
        callbacks=check_callbacks(callbacks),
        device=options.get("device", "auto"),
        devices=options.get("devices", 1),
        options=options,
    )


def finetune(
    model: Model | str | os.PathLike[str],
    data: Data,
    output: str | os.PathLike[str] | None = None,
    *,
    old: Data | None = None,
    **options: Unpack[FinetuneOptions],
) -> Model:
    """Train a model further, on other images: new classes, a new task, a new image size.

    The result is not worse than the model before, on classes that training did not see: with fewer than 60
    classes, folds of them are held out in turn. Where training does not help, the encoder stays unchanged,
    with a threshold for the new images, and a note reports it.

    Args:
        model: Model to start from, or its folder.
        data: Images or pairs, as for `train`.
        output: Model folder to write; by default a temporary folder, until `Model.save`.
        old: Data of the original task; both models are evaluated on them.
        **options: Arguments and options of `train`. By default they are the model's own, with a lower
            learning rate unless the model was fine-tuned before. ``recipe`` changes the way of training, not
            the encoder or its input.

    Raises:
        SettingError: If the model was wrapped, or does not support an option.
        DataError: If there are fewer than two classes with two readable images.
    """
    before = model if isinstance(model, Model) else Model(model)
    earlier = None if old is None else as_dataset(old)
    if earlier is not None:
        force = any(map(options.get, ("resume", "overwrite", "force")))
        check_old_data(earlier, None if output is None else Path(output), force=force)
    result = train(data, output, init_from=before, **options)
    if earlier is None or distributed.rank() > 0:
        return result
    with interruptible():
        return measure_old(before, result, earlier, options.get("seed") or 0, options.get("progress", True))


class _Start(NamedTuple):
    """Input of a run, before training.

    Args:
        data: Datasets.
        config: Resolved configuration.
        notes: Notes on what was chosen.
        recipe: Name of the recipe asked for; None for a configuration or a model.
        changes: The user's options, by dotted name.
        parts: Parts of one's own.
        model: Model to start from.
    """

    data: RunData
    config: TrainConfig
    notes: list[Note]
    recipe: str | None
    changes: dict[str, Any]
    parts: OwnParts
    model: Model | None


def resolve_config(
    data: Data,
    *,
    init_from: Model | str | os.PathLike[str] | None = None,
    validation: Data | None = None,
    config: TrainConfig | None = None,
    **options: Unpack[TrainArguments],
) -> TrainConfig:
    """Return the configuration that `train` would use, without training.

    With recipe ``auto``, `train` may still replace the encoder after pilot runs.

    Raises:
        SettingError: If an option is wrong.
    """
    return _start(data, validation, init_from, config, options).config


def _start(
    data: Data,
    validation: Data | None,
    init_from: Model | str | os.PathLike[str] | None,
    config: TrainConfig | None,
    arguments: TrainArguments,
) -> _Start:
    """Read the data and resolve the configuration."""
    parts, options = split_parts(arguments)
    whole = as_dataset(data)
    other = None if validation is None else as_dataset(validation)
    source, other, remarks = split_by_column(whole, other)
    if isinstance(source, ImageSet):
        check_classes(source)
    notes = [*(Note("split", remark) for remark in remarks), _describe(source)]
    changes, recipe = _changes(options), options.get("recipe")
    if config is not None and recipe is not None:
        raise SettingError(f"Set a recipe ({recipe}) or a configuration; not both")
    if config is None and (recipe == "auto" or (recipe is None and init_from is None)):
        recipe = "auto"
        fixed = changes.keys() & {*_FIXES_ENCODER, "input.faces"} or "encoder" in parts.given()
        faces = init_from is None and not fixed
        config, why = recipes.choose(source, seed=int(changes.get("seed", 0)), faces=faces)
        notes.append(why)
    elif config is None and recipe is not None:
        config = recipes.get(recipe)
    elif config is not None:
        changes = {"encoder.name": config.encoder.name, "input.faces": config.input.faces} | changes
    facts = DataFacts.of(source, pair_loss=parts.has_pair_loss)
    model = init_from if init_from is None or isinstance(init_from, Model) else Model(init_from)
    if model is not None:
        base, text = base_config(model, config, source)
        notes.append(Note("finetuned-from", text))
        kept = {"encoder.name": base.encoder.name, "input.faces": base.input.faces}
        found, more = resolve(base, kept | changes, facts)
        check_kept(config_of(model), found)
    else:
        assert config is not None
        if recipe == "face" and "input.faces" not in changes:
            share = share_with_faces(source.images, seed=int(changes.get("seed", 0)))
            facts = facts._replace(faces=share)
        found, more = resolve(config, changes, facts)
    found, missing = parts.finish(found)
    run_data = RunData(source, other, whole)
    return _Start(run_data, found, [*notes, *more, *missing], recipe, changes, parts, model)


def _describe(source: ImageSet | PairSet) -> Note:
    """Return a note with the size of the data."""
    if isinstance(source, PairSet):
        return Note("data", f"{many(len(source), 'pair')} of {many(len(source.images), 'image')}")
    return Note("data", f"{many(len(source), 'image')} of {many(len(source.classes), 'class')}")


@on_devices
@kept_random_state()
def _train(
    data: Data,
    *,
    output: str | os.PathLike[str] | None,
    init_from: Model | str | os.PathLike[str] | None,
    validation: Data | None,
    resume: bool,
    overwrite: bool,
    config: TrainConfig | None,
    progress: bool,
    callbacks: Sequence[Callback],
    device: str,
    devices: int,
    options: TrainArguments,
    started: float | None = None,
) -> Model:
    """Train in this process; see `train`."""
    began = time.monotonic() if started is None else started
    where = torch.device(training_device(device))
    keep_freed_memory()
    with progress_bar("Reading the data", show=progress):
        start = _start(data, validation, init_from, config, options)
    found, notes, warm_start = start.config, start.notes, None
    target = None if output is None else Path(output)
    if start.model is not None:
        warm_start = load_for_input(start.model, config_of(start.model), found, start.parts)
    elif candidates := _candidates(start):
        if target is not None:
            origin = start.data.train.origin
            model_folder.check_output(target, force=overwrite or resume, data=[origin], option="overwrite")
        with progress_bar("Choosing the encoder", show=progress):
            found, why = _select(start, *candidates, target if resume else None, where)
        notes = [*notes, *why]
    return make_model(
        start.data,
        found,
        Output(target, resume=resume, overwrite=overwrite),
        device=where,
        start_time=began,
        notes=notes,
        warm_start=warm_start,
        parts=start.parts,
        callbacks=callbacks,
        progress=progress,
    )


def _candidates(start: _Start) -> tuple[TrainConfig, TrainConfig] | None:
    """Return the configurations that auto chooses from by pilot runs; None where it need not choose."""
    pair, images = _CANDIDATES.get(start.config.recipe), start.data.train
    if start.recipe != "auto" or pair is None or not encoders.installed(_PRETRAINED) or start.parts.given():
        return None
    if (
        start.changes.keys() & _FIXES_ENCODER
        or not start.config.length.minutes
        or isinstance(images, PairSet)
    ):
        return None
    kept = {name: start.config.get(name) for name in ("input.faces", *recipes.ALIGNED)}
    facts, changes = DataFacts.of(images), kept | start.changes
    small, large = (resolve(recipes.get(name), more | changes, facts)[0] for name, more in pair)
    return small, large


def _select(
    start: _Start, small: TrainConfig, large: TrainConfig, resumed: Path | None, device: torch.device
) -> tuple[TrainConfig, list[Note]]:
    """Choose between two configurations by pilot runs, or by the run that is resumed."""
    if (before := _encoder_of(resumed)) is not None:
        return large if before == large.encoder.name else small, []
    assert isinstance(start.data.train, ImageSet)
    seconds = TRIAL_SHARE * 60 * (start.config.length.minutes or 0)
    try:
        found, why = select_encoder(start.data.train, small, large, seconds=seconds, device=device)
    except (Interrupted, KeyboardInterrupt):
        raise Interrupted("stopped during the choice of the encoder; nothing was saved") from None
    return found, [why]


def _encoder_of(target: Path | None) -> str | None:
    """Return the encoder of an interrupted or finished run; None where there is none."""
    if target is None:
        return None
    file = partial_folder(target) / "main.safetensors"
    try:
        if file.is_file():
            with safe_open(file, "pt") as checkpoint:
                return str(json.loads(checkpoint.metadata()["run"])["encoder"]["name"])
        if (target / "model.json").is_file() and not partial_folder(target).exists():
            return model_folder.read(target).encoder
    except (OSError, SafetensorError, KeyError, TypeError, ValueError):
        pass  # reading the run again reports the error
    return None


def _changes(options: TrainOptions) -> dict[str, Any]:
    """Return the options that change the configuration, by dotted name.

    Raises:
        SettingError: If an option is unknown, or set twice.
    """
    named, settings = to_settings(options), dict(options.get("settings") or {})
    special = {name: named.pop(name) for name in ("image_size", "batch_size") if name in named}
    first, second = by_full_name(named), by_full_name(settings)
    if twice := sorted(first.keys() & second.keys()):
        name = twice[0]
        raise SettingError(
            f"Setting {name} is given twice, as {first[name]} and as {second[name]}. Set it once"
        )
    return special | first | second


def _warn_of_old_names(**given: Any) -> None:
    new = {"validate": "validation", "force": "overwrite"}
    for name, value in given.items():
        if value is not None:
            warnings.warn(f"{name}= is deprecated; use {new[name]}=", DeprecationWarning, stacklevel=3)
