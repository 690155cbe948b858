"""Sections of `twinned.training.config.TrainConfig`: options with their types, defaults and descriptions."""

from __future__ import annotations

import inspect
import re
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

import torch
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    model_validator,
)

from .. import losses
from ..losses.registry import SIZES, option_names
from ..utils.options import describe
from ..utils.registry import UNREGISTERED
from .options import TrainOptions

# Options with a flag of their own; their descriptions are the help of the flags.
HELP = {name: option.help for name, _, option in describe(TrainOptions)}


def _as_int(value: Any) -> Any:
    """Convert digits from a command line, for options with a few allowed numbers."""
    return int(value) if isinstance(value, str) and value.isdecimal() else value


class Section(BaseModel):
    """Base class: immutable, refuses unknown options."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(Section):
    """Size and preparation of the images; see `twinned.data.preprocessing.ImageSpec`."""

    height: int = Field(96, ge=8, le=2048, description="Height of the network's input, in pixels")
    width: int = Field(96, ge=8, le=2048, description="Width of the network's input, in pixels")
    channels: Annotated[Literal[1, 3], BeforeValidator(_as_int)] = Field(
        3, description="1 for gray images, 3 for color images"
    )
    fit: Literal["stretch", "pad", "crop"] = Field(
        "stretch", description="Handling of images with another aspect ratio"
    )
    ink: Literal["none", "binary", "grey"] = Field(
        "none", description="Extraction of dark ink from its background, for handwriting"
    )
    faces: Literal["none", "largest"] = Field(
        "none", description="Detection and alignment of the largest face of each photograph (extra faces)"
    )
    min_face: int | None = Field(
        None, ge=10, description="Size of the smallest faces that are searched, in pixels; none for 40"
    )


class EncoderConfig(Section):
    """The network that maps an image to an embedding."""

    name: str = Field("conv4", description=HELP["encoder"])
    embedding_size: int | None = Field(None, ge=2, le=8192, description=HELP["embedding_size"])
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout rate of the pooled features in training")
    symmetric: bool = Field(False, description="Average the features of an image and of its mirror image")
    weights: str | None = Field(None, description="File of weights (safetensors) to start from")


class Transfer(Section):
    """Adaptation of an encoder that has been trained before."""

    freeze: str = Field("none", description=HELP["freeze"])
    freeze_batchnorm: bool = Field(False, description="Keep the running statistics of batch normalization")
    projection: Literal["gradient", "lda"] = Field(
        "gradient", description="Fit of the embedding layer: by gradient descent, or in closed form (LDA)"
    )
    shrinkage: float = Field(1.0, gt=0, description="Regularization of the closed-form projection")
    n_augmentations: int = Field(
        6, ge=0, le=1000, description="Augmented copies of each image in the cache of frozen features"
    )


class Comparison(Section):
    """The distance between two embeddings."""

    head: str = Field("distance", description="Plain distance or a learned head")
    distance: Literal["euclidean", "squared_euclidean", "manhattan", "cosine"] = Field(
        "cosine", description=HELP["distance"]
    )
    normalize: bool = Field(True, description="Scale embeddings to length 1")
    cohort: int = Field(
        0, ge=0, le=4096, description="Number of training images for score normalization; 0 for none"
    )

    @model_validator(mode="after")
    def _check_cohort(self) -> Comparison:
        if self.cohort == 1:
            raise ValueError("a cohort has at least 2 images, or 0 for none")
        return self


class LossSection(Section):
    """Base class of the sections in `LOSS_SECTIONS`: a name, and the options of its loss."""

    name: str

    @model_validator(mode="after")
    def _check_values(self) -> LossSection:
        with torch.device("meta"):  # the loss checks its options; random proxies are not drawn
            losses.create_loss(**self.model_dump(), num_classes=2, embedding_size=1)
        return self

    def __reduce__(self) -> tuple[Any, ...]:  # pickle cannot find the class by name
        return partial(loss_section, **self.model_dump()), ()


def loss_section(name: str, **options: float) -> LossSection:
    """Create the section of a loss.

    Example:
        >>> loss_section("contrastive", margin=0.5)
        Contrastive(name='contrastive', margin=0.5, factor=0.5)
    """
    if name in LOSS_SECTIONS:
        return LOSS_SECTIONS[name](**options)
    return OwnLoss(name=name, **options)


def _derive_section(name: str, loss: type[losses.Loss]) -> type[LossSection]:
    """Derive a section from a loss: defaults from its constructor, descriptions from its docstring."""
    described = dict(re.findall(r"^    (\w+): (.+?)\.?$", _first_sentences(loss), re.MULTILINE))
    fields: dict[str, Any] = {"name": (Literal[name], name)} | {
        option: (float, Field(parameter.default, description=described.get(option)))
        for option, parameter in inspect.signature(loss).parameters.items()
        if option not in SIZES
    }
    return create_model(
        loss.__name__.removesuffix("Loss"),
        __base__=LossSection,
        __module__=__name__,
        __doc__=f"`twinned.losses.{loss.__name__}`.",
        **fields,
    )


def _first_sentences(loss: type[losses.Loss]) -> str:
    """Return the docstring with each argument on one line, cut after its first sentence."""
    joined = re.sub(r"\n {8,}", " ", inspect.getdoc(loss) or "")
    return re.sub(r"\. .*", "", joined)


class OwnLoss(LossSection):
    """Loss that is not part of Twinned: a registered one with its options, or one given as an object."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    @model_validator(mode="after")
    def _check_values(self) -> OwnLoss:
        given = self.model_extra or {}
        if given and not self.name.startswith(UNREGISTERED):
            known = option_names(losses.LOSSES.find(self.name))
            if unknown := given.keys() - set(known):
                has = ", ".join(known) or "none"
                raise ValueError(f"loss {self.name} has no setting {min(unknown)}; it has {has}")
        return self


LOSS_SECTIONS = {name: _derive_section(name, loss) for name, loss in losses.BUILTIN.items()}
_OWN = "own"


def _loss_tag(value: Any) -> str | None:
    """Return the name of a built-in loss, `_OWN` for another known one, or an unknown name."""
    name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
    if not isinstance(name, str) or name in LOSS_SECTIONS:
        return name
    return _OWN if name.startswith(UNREGISTERED) or name in losses.LOSSES.names() else name


class Mining(Section):
    """Selection of the comparisons that a loss sees."""

    miner: str | None = Field(None, description="Name of the miner; none for all comparisons of the batch")
    memory: int = Field(0, ge=0, description="Size of the cross-batch memory, in embeddings; 0 for none")


class Sampler(Section):
    """Composition of a batch; see `twinned.data.samplers.ClassBatches`."""

    classes_per_batch: int = Field(48, ge=2, description="Classes per batch")
    images_per_class: int = Field(4, ge=2, description="Images of each class in a batch")
    same_group_fraction: float = Field(
        0.0, ge=0, le=1, description="Share of batches whose classes come from one group, such as an alphabet"
    )
    rotate_classes: bool = Field(
        False, description="Use each class rotated by 90, 180 and 270 degrees as further classes"
    )
    flip_classes: bool = Field(False, description="Use each class mirrored as a further class")

    @property
    def variants(self) -> int:
        """Number of classes that each class of the data counts as."""
        return (4 if self.rotate_classes else 1) * (2 if self.flip_classes else 1)


class Augment(Section):
    """Random changes of the training images; see `twinned.data.augmentation.Augmentation`."""

    rotation: float = Field(0.0, ge=0, le=180, description="Largest rotation, in degrees")
    shear: float = Field(0.0, ge=0, le=1, description="Largest shear")
    scale: float = Field(0.0, ge=0, le=2, description="Largest change of scale, as a share")
    shift: float = Field(0.0, ge=0, le=0.5, description="Largest shift, as a share of the image")
    probability: float = Field(
        1.0, gt=0, le=1, description="Probability of rotation, shear, scale and shift, each"
    )
    elastic: float = Field(0.0, ge=0, le=0.5, description="Strength of the elastic deformation")
    flip: bool = Field(False, description="Mirror images at random")
    brightness: float = Field(0.0, ge=0, le=1, description="Largest change of brightness")
    contrast: float = Field(0.0, ge=0, le=1, description="Largest change of contrast")
    saturation: float = Field(0.0, ge=0, le=1, description="Largest change of saturation")
    erase: float = Field(
        0.0, ge=0, lt=1, description="Side of the square erased in half of the images, as a share of theirs"
    )


class Length(Section):
    """Length of the run: exactly one of minutes, steps and epochs."""

    minutes: float | None = Field(None, gt=0, description=HELP["minutes"])
    steps: int | None = Field(None, ge=0, description=HELP["steps"])
    epochs: float | None = Field(None, gt=0, description=HELP["epochs"])
    max_epochs: float | None = Field(
        None, gt=0, description="Epochs after which training stops although minutes are left"
    )


class OptimizerSection(Section):
    """Base class of the sections of optimizers."""

    name: str
    learning_rate: float = Field(3e-3, gt=0, description=HELP["learning_rate"])
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay")
    proxy_lr_scale: float = Field(
        10.0, gt=0, description="Learning rate of a loss's proxies, relative to the network's"
    )


class AdamW(OptimizerSection):
    """AdamW (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"


class Muon(OptimizerSection):
    """Muon (Jordan et al. 2024) for matrices, Adam for the other parameters."""

    name: Literal["muon"] = "muon"
    learning_rate: float = Field(0.01, gt=0, description=HELP["learning_rate"])
    proxy_lr_scale: float = Field(
        3.0, gt=0, description="Learning rate of a loss's proxies, relative to the network's"
    )


class SGD(OptimizerSection):
    """Stochastic gradient descent with Nesterov momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum")


class ScheduleConfig(Section):
    """Course of the learning rate, and evaluation on the way."""

    warmup: int = Field(30, ge=0, description="Steps over which the learning rate rises")
    decay_start: float = Field(
        0.3,
        ge=0,
        le=1,
        description="Fraction of the steps after which the learning rate falls along a cosine",
    )
    ema_decay: float = Field(
        0.99, ge=0, lt=1, description="Decay of the running average of the weights; 0 for none"
    )
    evaluations: int = Field(10, ge=1, description="Number of evaluations during training")


class Functions(Section):
    """Names of the functions that replace sections of a run; not settings."""

    augment: str | None = None
    optimizer: str | None = None
    schedule: str | None = None


class Run(Section):
    """Execution of the run."""

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Precision of the network; auto is bfloat16 where the processor computes in it natively",
    )
    checkpoint_seconds: float = Field(15.0, ge=0, description="Time between two checkpoints, in seconds")


class CalibrationConfig(Section):
    """Choice of the threshold after training."""

    validation_fraction: float = Field(
        0.2, gt=0, lt=0.9, description="Fraction of the classes held out to choose the threshold"
    )
    far: float | None = Field(None, gt=0, lt=1, description=HELP["far"])


if TYPE_CHECKING:
    Loss = LossSection
else:
    _TAGGED = (Annotated[kind, Tag(name)] for name, kind in {**LOSS_SECTIONS, _OWN: OwnLoss}.items())
    Loss = Annotated[Union[tuple(_TAGGED)], Discriminator(_loss_tag)]  # noqa: UP007
Optimizer = Annotated[AdamW | Muon | SGD, Field(discriminator="name")]
