"""Settings of a training run."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from ..data.preprocessing import ImageSpec
from ..errors import SettingError

Rate = Annotated[float, Field(ge=0)]


def _listed(value: Any) -> Any:
    """Numbers as they come from a command line: ``0.1,0.2``."""
    return [part for part in value.split(",") if part] if isinstance(value, str) else value


def _whole(value: Any) -> Any:
    """A whole number as it comes from a command line, for settings that are one of a few."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Augment(BaseModel):
    """How far training images may be changed; see `twinned.data.augmentation.Augmentation`."""

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

    ``symmetric``: an image is embedded together with its mirror image (`twinned.nn.encoders`).
    ``cohort``: so many training images that every embedding is compared with, which adds a value to it
    (`twinned.nn.score_norm`); 0 for none.
    How long: ``minutes`` (from start to saved model; ``enough`` epochs may be fewer), ``steps`` or ``epochs``
    (as many steps as it takes to show as many images as there are). For an encoder that is not fresh:
    ``freeze`` and ``thaw`` as in `twinned.training.freezing`, ``norms`` (whether the batch norms' statistics
    move),
    ``views`` kept of each image, and whether the embedding ``layer`` is learned by gradient or solved
    (`twinned.nn.lda`, with ``shrink``). ``proxy_rate`` is the learning rate of a loss's
    proxies, as a multiple of the network's. ``stage_decay`` is the weight decay of each stage and then of
    the head, instead of one for all; ``momentum_from`` is where SGD's momentum starts, to rise to
    ``momentum`` over the run. The rest is named as in `twinned.training.state.Schedule`,
    `twinned.data.ClassBatches`, `twinned.data.preprocessing.ImageSpec` and the losses.
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


def flat(config: Any) -> Settings:
    """Flat settings of a configuration."""
    values: dict[str, Any] = {"recipe": config.recipe, "seed": config.seed, "augment": config.augment}
    names = {
        "projection": "layer",
        "freeze_batchnorm": "norms",
        "shrinkage": "shrink",
        "n_augmentations": "views",
        "same_group_fraction": "within_group",
        "rotate_classes": "quarter_turns",
        "flip_classes": "mirrors",
        "max_epochs": "enough",
        "proxy_lr_scale": "proxy_rate",
        "decay_start": "decay_from",
        "ema_decay": "average",
        "validation_fraction": "held_out",
    }
    for section, found in config:
        if section in ("recipe", "seed", "augment"):
            continue
        for name, value in found:
            values[section if name == "name" else names.get(name, name)] = value
    values["layer"] = {"gradient": "learned", "lda": "solved"}[values["layer"]]
    values["norms"] = "kept" if values["norms"] else "moving"
    values["augment"] = values["augment"].model_dump()
    return Settings(**values)
