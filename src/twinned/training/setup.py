"""Setup of a run: its data, configuration and parts, from the arguments of `twinned.train`."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..data.datasets import ImageSet, PairSet
from ..data.faces.photographs import share_with_faces
from ..data.readers import as_dataset
from ..data.splits import check_classes, split_by_column
from ..errors import SettingError, many
from ..inference.model import Model
from ..inference.ready_made import READY_MADE
from ..losses.base import is_pairwise
from ..utils.notes import Note
from . import recipes
from .config import TrainConfig, short_name
from .options import TrainRequest
from .parts import OwnParts, split_arguments
from .rules import DataFacts, resolve
from .warm_start import base_config, check_kept, config_of

# Options that the user can set where auto starts from the ready-made model of faces; others are for a network
# of their own.
_OPEN = ("seed", "run.", "calibration.", "length.minutes", "transfer.", "input.faces", "input.min_face")
_STARTS_FROM_FACE = (
    "training starts from the ready-made model face instead of a new network;"
    ' `recipe="face"` trains one on these images alone'
)
_TRAINS_ALONE = (
    "a network is trained on these images alone, because {} is set; without it, training starts from"
    " the ready-made model face"
)


class Setup(NamedTuple):
    """Input of a run, before training.

    Args:
        train: Training data.
        validation: Separate data to fit the threshold on; None to hold some out.
        given: All data that was given, with images marked for testing, for the data check.
        config: Resolved configuration.
        notes: Notes on what was chosen.
        parts: Parts of one's own.
        model: Model to start from.
        recipe: Name of the recipe asked for; None for a configuration or a model.
        changes: The user's options, by dotted name.
    """

    train: ImageSet | PairSet
    validation: ImageSet | PairSet | None
    given: ImageSet | PairSet
    config: TrainConfig
    notes: list[Note]
    parts: OwnParts
    model: Model | None
    recipe: str | None
    changes: dict[str, Any]


def set_up(request: TrainRequest) -> Setup:
    """Read the data and resolve the configuration.

    Raises:
        SettingError: If an option is wrong.
    """
    parts, changes = split_arguments(request.options)
    given, config, source = as_dataset(request.data), request.config, request.init_from
    other = None if request.validation is None else as_dataset(request.validation)
    train, other, remarks = split_by_column(given, other)
    if isinstance(train, ImageSet):
        check_classes(train)
        size = f"{many(len(train), 'image')} of {many(len(train.classes), 'class')}"
    else:
        size = f"{many(len(train), 'pair')} of {many(len(train.images), 'image')}"
    notes = [*(Note("split", remark) for remark in remarks), Note("data", size)]
    recipe, seed = request.options.get("recipe"), changes.get("seed", 0)
    if config is not None and recipe is not None:
        raise SettingError(f"Set a recipe ({recipe}) or a configuration; not both")
    if config is not None:
        changes = {"encoder.name": config.encoder.name, "input.faces": config.input.faces} | changes
    elif recipe == "auto" or (recipe is None and source is None):
        recipe = "auto"
        fixed = changes.keys() & {"encoder.name", "encoder.weights"} or "encoder" in parts.given()
        faces = source is None and not fixed and changes.get("input.faces") != "none"
        config, why = recipes.choose(train, seed=int(seed), faces=faces)
        notes.append(why)
        if config.input.faces == "largest" and isinstance(train, ImageSet):
            own = [*parts.given(), *(short_name(name) for name in changes if not name.startswith(_OPEN))]
            if not own:
                source, config = READY_MADE["face"].folder(), None
            text = _TRAINS_ALONE.format(own[0]) if own else _STARTS_FROM_FACE
            notes.append(Note("ready-made", text))
    elif recipe is not None:
        config = recipes.get(recipe)
    facts = DataFacts.of(train, pair_loss=parts.loss is not None and is_pairwise(parts.loss))
    model = source if source is None or isinstance(source, Model) else Model(source)
    if model is not None:
        base, text = base_config(model, config, train)
        notes.append(Note("finetuned-from", text))
        kept = {"encoder.name": base.encoder.name, "input.faces": base.input.faces}
        config, more = resolve(base, kept | changes, facts)
        check_kept(config_of(model), config)
    else:
        assert config is not None
        if recipe == "face" and "input.faces" not in changes:
            facts = facts._replace(faces=share_with_faces(train.images, seed=int(seed)))
        config, more = resolve(config, changes, facts)
    config, missing = parts.finish(config)
    return Setup(train, other, given, config, [*notes, *more, *missing], parts, model, recipe, changes)
