"""Recipes: the settings of a training run, by name. Nothing but settings, over the one loop.

auto         looks at the images and chooses one of the next four, and says why
glyph        characters, symbols, icons: small, few colours, many classes
face         aligned faces
signature    handwriting: the ink alone is looked at; genuine and forged
photo        colour photographs of things: a network that has seen a million of them, fitted to yours
photo-small  the same with a small network that has seen nothing
koch2015, facenet, chopra2005    the three papers of the slide deck, as they were written
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import SettingError
from .images import ImageSpec

Rate = Annotated[float, Field(ge=0)]


def _listed(value: Any) -> Any:
    """Numbers as they come from a command line: ``0.1,0.2``."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    """A whole number as it comes from a command line, for settings that are one of a few."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Augment(BaseModel):
    """How far training images may be changed; see `twinned.data.augment.Augmentation`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rotation: float = Field(0.0, ge=0, le=180)
    shear: float = Field(0.0, ge=0, le=1)
    scale: float = Field(0.0, ge=0, le=2)
    shift: float = Field(0.0, ge=0, le=0.5)
    probability: float = Field(1.0, gt=0, le=1)
    elastic: float = Field(0.0, ge=0, le=0.5)
    flip: bool = False
    brightness: float = Field(0.0, ge=0, le=1)
    contrast: float = Field(0.0, ge=0, le=1)
    saturation: float = Field(0.0, ge=0, le=1)
    erase: float = Field(0.0, ge=0, lt=1)


class Settings(BaseModel):
    """Every setting of a training run; `Settings.change` sets some of them by name.

    ``symmetric``: an image is embedded together with its mirror image (`twinned.encoders`).
    ``cohort``: so many training images that every embedding is compared with, which adds a value to it
    (`twinned.cohort`); 0 for none.
    How long: ``minutes`` (from start to saved model; ``enough`` epochs may be fewer), ``steps`` or ``epochs``
    (as many steps as it takes to show as many images as there are). For an encoder that is not fresh:
    ``freeze`` and ``thaw`` as in `twinned.freezing`, ``norms`` (whether the batch norms' statistics move),
    ``views`` kept of each image, and whether the embedding ``layer`` is learned by gradient or solved
    (`twinned.solving`, with ``shrink``). ``proxy_rate`` is the learning rate of a loss's
    proxies, as a multiple of the network's. ``stage_decay`` is the weight decay of each stage and then of
    the head, instead of one for all; ``momentum_from`` is where SGD's momentum starts, to rise to
    ``momentum`` over the run. The rest is named as in `twinned.training.Plan`,
    `twinned.data.ClassBatches`, `twinned.images.ImageSpec` and the losses.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    recipe: str = "photo"
    # what it looks at
    height: int = Field(96, ge=8, le=2048)
    width: int = Field(96, ge=8, le=2048)
    channels: Annotated[Literal[1, 3], BeforeValidator(_whole)] = 3
    fit: Literal["stretch", "pad", "crop"] = "stretch"
    ink: Literal["none", "binary", "grey"] = "none"
    # the network
    encoder: str = "conv4"
    embedding_size: int | None = Field(None, ge=2, le=8192)
    dropout: float = Field(0.0, ge=0, lt=1)
    symmetric: bool = False
    cohort: int = Field(0, ge=0, le=4096)
    weights: str | None = None
    freeze: str = "none"
    thaw: float | None = Field(None, ge=0, lt=1)
    layer_decay: float = Field(1.0, gt=0, le=1)
    norms: Literal["moving", "kept"] = "moving"
    layer: Literal["learned", "solved"] = "learned"
    shrink: float = Field(1.0, gt=0)
    views: int = Field(6, ge=0, le=1000)
    normalize: bool = True
    head: str = "distance"
    distance: Literal["euclidean", "squared_euclidean", "manhattan", "cosine"] = "cosine"
    # what it learns from
    loss: str = "supcon"
    margin: float | None = Field(None, gt=0)
    temperature: float | None = Field(None, gt=0)
    scale: float | None = Field(None, gt=0)
    bound: float | None = Field(None, gt=0)
    miner: str | None = None
    memory: int = Field(0, ge=0)
    classes_per_batch: int = Field(48, ge=2)
    images_per_class: int = Field(4, ge=2)
    within_group: float = Field(0.0, ge=0, le=1)
    quarter_turns: bool = False
    mirrors: bool = False
    augment: Augment = Augment()
    # how long and how fast
    minutes: float | None = Field(None, gt=0)
    steps: int | None = Field(None, ge=0)
    epochs: float | None = Field(None, gt=0)
    enough: float | None = Field(None, gt=0)
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0)
    proxy_rate: float = Field(10.0, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    stage_decay: Annotated[tuple[Rate, ...], BeforeValidator(_listed)] = ()
    momentum: float = Field(0.9, ge=0, lt=1)
    momentum_from: float | None = Field(None, ge=0, lt=1)
    warmup: int = Field(30, ge=0)
    decay_from: float = Field(0.3, ge=0, le=1)
    epoch_decay: float = Field(1.0, gt=0, le=1)
    average: float = Field(0.99, ge=0, lt=1)
    clip: float = Field(0.0, ge=0)
    evaluations: int = Field(10, ge=1)
    patience: int = Field(0, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_seconds: float = Field(15.0, ge=0)
    # what is held out, and the threshold
    held_out: float = Field(0.2, gt=0, lt=0.9)
    far: float | None = Field(None, gt=0, lt=1)
    seed: int = Field(0, ge=0, lt=1 << 31)

    def spec(self) -> ImageSpec:
        """The input that the images are brought to; mean and deviation are measured later."""
        return ImageSpec(**self.model_dump(include={"height", "width", "channels", "fit", "ink"}))

    def change(self, changes: dict[str, Any]) -> Settings:
        """The same settings but for some; ``augment.rotation`` names a setting of the augmentation.

        Values may be strings, as they come from a command line.

        Raises:
            SettingError: If a name is not known, or a value is not one it can have.
        """
        values = self.model_dump()
        for name, value in changes.items():
            target, _, inner = name.partition(".")
            if target not in values or target == "recipe" or (inner and target != "augment"):
                known = [n for n in values if n not in ("recipe", "augment")]
                known += [f"augment.{n}" for n in values["augment"]]
                raise SettingError(f"setting {name!r} is not known; choose from {', '.join(known)}")
            optional = Settings.model_fields[target].default is None
            plain = None if optional and isinstance(value, str) and value.lower() == "none" else value
            if inner:
                if inner not in values[target]:
                    raise SettingError(
                        f"setting {name!r} is not known; choose from"
                        f" {', '.join(f'{target}.{n}' for n in values[target])}"
                    )
                values[target][inner] = plain
            else:
                values[target] = plain
        try:
            return Settings(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(part for part in first["loc"] if isinstance(part, str))
            raise SettingError(f"setting {where}: {first['msg']}; got {first['input']!r}") from None


RECIPES: dict[str, Settings] = {
    "glyph": Settings(
        recipe="glyph",
        height=35,
        width=35,
        channels=1,
        encoder="conv4_wide",
        temperature=0.03,
        quarter_turns=True,
        mirrors=True,
        within_group=0.5,
        augment=Augment(rotation=10, shear=0.3, scale=0.2, shift=0.06, elastic=0.04),
        optimizer="muon",
        learning_rate=0.01,
        proxy_rate=3,
        minutes=2,
    ),
    "face": Settings(
        recipe="face",
        height=96,
        width=96,
        channels=1,
        encoder="conv4_wide",
        temperature=0.03,
        dropout=0.2,
        symmetric=True,
        cohort=512,
        classes_per_batch=32,
        images_per_class=4,
        augment=Augment(
            rotation=12,
            shear=0.1,
            scale=0.2,
            shift=0.08,
            elastic=0.05,
            flip=True,
            brightness=0.15,
            contrast=0.3,
            erase=0.5,
        ),
        optimizer="muon",
        learning_rate=0.02,
        proxy_rate=1.5,
        minutes=3,
    ),
    "signature": Settings(
        recipe="signature",
        height=64,
        width=128,
        channels=1,
        ink="binary",
        encoder="conv4_wide",
        temperature=0.03,
        classes_per_batch=16,
        images_per_class=6,
        augment=Augment(rotation=6, shear=0.1, scale=0.12, shift=0.04, elastic=0.02, erase=0.4),
        minutes=3,
    ),
    "photo-small": Settings(
        recipe="photo-small",
        temperature=0.1,
        classes_per_batch=24,
        images_per_class=4,
        augment=Augment(
            rotation=10,
            scale=0.25,
            shift=0.1,
            flip=True,
            erase=0.3,
            brightness=0.2,
            contrast=0.4,
            saturation=0.5,
        ),
        minutes=3,
    ),
    # Koch, Zemel & Salakhutdinov 2015. Rates were searched for and never published; these are ours, the rate
    # and the shape of a batch chosen on alphabets of the background held out.
    "koch2015": Settings(
        recipe="koch2015",
        height=105,
        width=105,
        channels=1,
        encoder="koch2015",
        normalize=False,
        head="weighted-l1",
        loss="cross-entropy",
        classes_per_batch=16,
        images_per_class=4,
        within_group=0.5,
        augment=Augment(rotation=10, shear=0.3, scale=0.2, shift=2 / 105, probability=0.5),
        optimizer="adamw",
        learning_rate=4e-4,
        average=0.99,
        warmup=100,
        minutes=30,
    ),
    # Schroff, Kalenichenko & Philbin 2015: triplet loss on squared distances of unit vectors, semi-hard.
    "facenet": Settings(
        recipe="facenet",
        height=96,
        width=96,
        channels=3,
        embedding_size=128,
        distance="squared_euclidean",
        loss="triplet",
        margin=0.2,
        miner="semi-hard",
        classes_per_batch=24,
        images_per_class=6,
        augment=Augment(flip=True, shift=0.03),
        minutes=5,
    ),
    # Chopra, Hadsell & LeCun 2005: L1 distance and an exponential loss for impostors.
    "chopra2005": Settings(
        recipe="chopra2005",
        height=56,
        width=46,
        channels=1,
        encoder="chopra2005",
        normalize=False,
        distance="manhattan",
        loss="chopra",
        classes_per_batch=20,
        images_per_class=4,
        augment=Augment(shift=0.04, flip=True),
        learning_rate=1e-3,
        minutes=3,
    ),
}

# A usual learning rate of each optimiser: how a recipe's rate is brought to another one.
RATES = {"adamw": 0.003, "muon": 0.01, "sgd": 0.003}

# How an encoder learns that has seen the world: its first stages stay as they are, the others move a little.
PRETRAINED: dict[str, Any] = {
    "embedding_size": 256,
    "layer": "solved",
    "norms": "kept",
    "dropout": 0.0,
    "quarter_turns": False,
    "mirrors": False,
    "classes_per_batch": 8,
    "images_per_class": 4,
    "optimizer": "adamw",
    "learning_rate": 3e-4,
    "proxy_rate": 10.0,
    "weight_decay": 0.01,
    "warmup": 20,
    "decay_from": 0.0,
    "average": 0.95,
    "evaluations": 3,
    "enough": 8,
}
# How many stages of each stay as they are; of others all of them.
FREEZE = {"efficientnet_lite0": "6", "efficientnet_lite0_photo": "6"}

RECIPES["photo"] = RECIPES["photo-small"].change(
    {"encoder": "efficientnet_lite0_photo", "symmetric": True, "height": 224, "width": 224}
    | {"augment.erase": 0, "augment.flip": False}  # writing does not look the same in a mirror
    | PRETRAINED
    | {"freeze": FREEZE["efficientnet_lite0_photo"], "shrink": 3, "views": 3}
)
RECIPES["photo"] = RECIPES["photo"].model_copy(update={"recipe": "photo"})


def get(name: str) -> Settings:
    """The settings of a recipe.

    Raises:
        SettingError: If there is none of that name; the message lists the names.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise SettingError(f"recipe {name!r} is not known; choose auto, {', '.join(RECIPES)}") from None
