"""Configuration of a training run: `TrainConfig` and its sections, with every option.

An option has a dotted name, such as ``loss.margin``, and a short one, ``margin``, where that is unique.
Precedence, lowest first: recipe, defaults of the chosen encoder, loss and optimizer, rules, the user.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from .. import losses
from ..data.preprocessing import ImageSpec
from ..errors import SettingError
from ..losses import miners
from ..losses.registry import loss_options, option_names
from ..nn import encoders
from ..utils.options import describe
from ..utils.registry import UNREGISTERED, Registry
from .options import OLD_NAMES, OLD_VALUES, TrainOptions

# Options with a flag of their own; their descriptions are the help of the flags.
HELP = {name: option.help for name, _, option in describe(TrainOptions)}
# A command line gives digits.
Channels = Annotated[Literal[1, 3], BeforeValidator(lambda v: int(v) if str(v).isdecimal() else v)]


class Section(BaseModel):
    """Base class: immutable, refuses unknown options."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Input(Section):
    """Size and preparation of the images; see `twinned.data.preprocessing.ImageSpec`."""

    height: int = Field(96, ge=8, le=2048, description="Height of the network's input, in pixels")
    width: int = Field(96, ge=8, le=2048, description="Width of the network's input, in pixels")
    channels: Channels = Field(3, description="1 for gray images, 3 for color images")
    fit: Literal["stretch", "pad", "crop"] = Field("stretch", description="Handling of other aspect ratios")
    ink: Literal["none", "binary", "grey"] = Field("none", description="Extraction of ink, for handwriting")
    faces: Literal["none", "largest"] = Field("none", description="Cut out the largest face (extra faces)")
    min_face: int | None = Field(None, ge=10, description="Smallest faces searched, in pixels; none for 40")


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
    n_augmentations: int = Field(6, ge=0, le=1000, description="Augmented views of each cached image")


class Comparison(Section):
    """The distance between two embeddings."""

    head: str = Field("distance", description="Plain distance or a learned head")
    distance: Literal["euclidean", "squared_euclidean", "manhattan", "cosine"] = Field(
        "cosine", description=HELP["distance"]
    )
    normalize: bool = Field(True, description="Scale embeddings to length 1")
    cohort: int = Field(0, ge=0, le=4096, description="Training images for score normalization, or 0")


class Loss(Section):
    """A loss and its options, which are numbers; without options where it is given as an object."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]
    name: str

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, values: Any) -> Any:
        """Check the names of the options, and add the defaults of a built-in loss."""
        name = values.get("name") if isinstance(values, dict) else None
        if not isinstance(name, str) or name.startswith(UNREGISTERED):
            return values
        known = option_names(losses.LOSSES.find(name))
        if unknown := values.keys() - {"name", *known}:
            has = ", ".join(known) or "none"
            raise ValueError(f"loss {name} has no setting {min(unknown)}; it has {has}")
        defaults = {option: field.default for option, field in loss_options(name).items()}
        return {"name": name} | defaults | values

    @model_validator(mode="after")
    def _check_values(self) -> Loss:
        if self.name in losses.BUILTIN:
            with torch.device("meta"):  # the loss checks its options; random proxies are not drawn
                losses.create_loss(**self.model_dump(), num_classes=2, embedding_size=1)
        return self


class Mining(Section):
    """Selection of the comparisons that a loss sees."""

    miner: str | None = Field(None, description="Name of the miner; none for all comparisons of the batch")
    memory: int = Field(0, ge=0, description="Size of the cross-batch memory, in embeddings; 0 for none")


class Sampler(Section):
    """Composition of a batch; see `twinned.data.samplers.ClassBatches`."""

    classes_per_batch: int = Field(48, ge=2, description="Classes per batch")
    images_per_class: int = Field(4, ge=2, description="Images of each class in a batch")
    same_group_fraction: float = Field(
        0.0, ge=0, le=1, description="Share of batches from one group, such as an alphabet"
    )
    rotate_classes: bool = Field(False, description="Use three rotations of each class as further classes")
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
    probability: float = Field(1.0, gt=0, le=1, description="Probability of rotation, shear, scale, shift")
    elastic: float = Field(0.0, ge=0, le=0.5, description="Strength of the elastic deformation")
    flip: bool = Field(False, description="Mirror images at random")
    brightness: float = Field(0.0, ge=0, le=1, description="Largest change of brightness")
    contrast: float = Field(0.0, ge=0, le=1, description="Largest change of contrast")
    saturation: float = Field(0.0, ge=0, le=1, description="Largest change of saturation")
    erase: float = Field(0.0, ge=0, lt=1, description="Relative side of a square erased in half the images")


class Length(Section):
    """Length of the run: exactly one of minutes, steps and epochs."""

    minutes: float | None = Field(None, gt=0, description=HELP["minutes"])
    steps: int | None = Field(None, ge=0, description=HELP["steps"])
    epochs: float | None = Field(None, gt=0, description=HELP["epochs"])
    max_epochs: float | None = Field(None, gt=0, description="Limit of epochs, even if minutes are left")


class OptimizerSection(Section):
    """Base class of the sections of optimizers."""

    name: str
    learning_rate: float = Field(3e-3, gt=0, description=HELP["learning_rate"])
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay")
    proxy_lr_scale: float = Field(10.0, gt=0, description="Relative learning rate of a loss's proxies")


class AdamW(OptimizerSection):
    """AdamW (Loshchilov & Hutter 2019)."""

    name: Literal["adamw"] = "adamw"


class Muon(OptimizerSection):
    """Muon (Jordan et al. 2024) for matrices, Adam for the other parameters."""

    name: Literal["muon"] = "muon"
    learning_rate: float = Field(0.01, gt=0, description=HELP["learning_rate"])
    proxy_lr_scale: float = Field(3.0, gt=0, description="Relative learning rate of a loss's proxies")


class SGD(OptimizerSection):
    """Stochastic gradient descent with Nesterov momentum."""

    name: Literal["sgd"] = "sgd"
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum")


class ScheduleConfig(Section):
    """Course of the learning rate, and evaluation on the way."""

    warmup: int = Field(30, ge=0, description="Steps over which the learning rate rises")
    decay_start: float = Field(0.3, ge=0, le=1, description="Fraction of the steps before the cosine decay")
    ema_decay: float = Field(0.99, ge=0, lt=1, description="Decay of the averaged weights; 0 for no average")
    evaluations: int = Field(10, ge=1, description="Number of evaluations during training")


class Functions(Section):
    """Names of the functions that replace sections of a run; not settings."""

    augment: str | None = None
    optimizer: str | None = None
    schedule: str | None = None


class Run(Section):
    """Execution of the run."""

    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of the network; auto is bfloat16 where the processor has it natively"
    )
    checkpoint_seconds: float = Field(15.0, ge=0, description="Time between two checkpoints, in seconds")


class CalibrationConfig(Section):
    """Choice of the threshold after training."""

    validation_fraction: float = Field(0.2, gt=0, lt=0.9, description="Fraction of the classes held out")
    far: float | None = Field(None, gt=0, lt=1, description=HELP["far"])


class TrainConfig(Section):
    """Configuration of a training run.

    Example:
        >>> config = TrainConfig().merge({"margin": 0.5, "loss": "contrastive", "minutes": 3})
        >>> config.loss
        Loss(name='contrastive', margin=0.5, factor=0.5)
        >>> config.length.minutes
        3.0
    """

    recipe: str = Field("photo", description="Name of the recipe that the other values come from")
    seed: int = Field(0, ge=0, lt=1 << 31, description=HELP["seed"])
    input: Input = Input()
    encoder: EncoderConfig = EncoderConfig()
    transfer: Transfer = Transfer()
    comparison: Comparison = Comparison()
    loss: Loss = Loss(name="supcon")
    mining: Mining = Mining()
    sampler: Sampler = Sampler()
    augment: Augment = Augment()
    length: Length = Length()
    optimizer: AdamW | Muon | SGD = Field(AdamW(), discriminator="name")
    schedule: ScheduleConfig = ScheduleConfig()
    run: Run = Run()
    calibration: CalibrationConfig = CalibrationConfig()
    functions: Functions = Functions()

    @model_validator(mode="after")
    def _check_values(self) -> TrainConfig:
        if self.comparison.cohort == 1:
            raise ValueError("a cohort has at least 2 images, or 0 for none")
        given = [name for name in LENGTHS if getattr(self.length, name) is not None]
        if len(given) > 1:
            raise ValueError(f"only one of minutes, steps and epochs can be set; got {' and '.join(given)}")
        return self

    def spec(self) -> ImageSpec:
        """Image preprocessing; mean and standard deviation are measured later."""
        return ImageSpec(**self.input.model_dump())

    def get(self, name: str) -> Any:
        """Return the value of an option by its dotted or short name; None where its variant lacks it."""
        section, _, option = full_name(name).partition(".")
        value = getattr(self, section)
        return getattr(value, option, None) if option else value

    def merge(self, changes: Mapping[str, Any]) -> TrainConfig:
        """Return the configuration with some options changed.

        Another variant (``loss.name``, ``optimizer.name``) starts from its own defaults. One of minutes,
        steps and epochs replaces the others.

        Args:
            changes: Values by dotted or short name. Strings are converted, as they come from a command line.

        Raises:
            SettingError: If a name is not known, or a value is not allowed.
        """
        named, values = by_full_name(changes), self.model_dump()
        if any(named.get(f"length.{name}") is not None for name in LENGTHS):
            values["length"] |= dict.fromkeys(LENGTHS)
        for name, value in sorted(named.items(), key=lambda item: item[0] not in VARIANTS):
            section, _, option = name.partition(".")
            if name in VARIANTS and values[section]["name"] != value:
                values[section] = {"name": value}
            elif option:
                is_none = name in _OPTIONAL and str(value).lower() == "none"
                values[section][option] = None if is_none else value
            else:
                values[section] = value
        return TrainConfig.parse(values)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Validate nested values, as in a JSON file.

        Raises:
            SettingError: If a name is not known, or a value is not allowed.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _explain(error) from None

    @classmethod
    def from_saved(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Read the configuration of a saved model, also in the flat form of version 0.1.

        Names of parts that are not registered here are marked as unregistered.

        Raises:
            SettingError: If a value is not allowed.
        """
        nested = _from_flat(values) if isinstance(values.get("encoder"), str) else dict(values)
        for full, known in REGISTRIES.items():
            section, _, option = full.partition(".")
            found = nested.get(section)
            if isinstance(found, dict) and isinstance(name := found.get(option), str):
                nested[section] = found | {option: known.current_name(name)}
        return cls.parse(nested)


LENGTHS = ("minutes", "steps", "epochs")
VARIANTS = ("loss.name", "optimizer.name")
# Tables of the parts that options name.
REGISTRIES: dict[str, Registry[Any]] = {
    "encoder.name": encoders.ENCODERS,
    "loss.name": losses.LOSSES,
    "mining.miner": miners.MINERS,
}


def variants(section: str) -> dict[str, dict[str, FieldInfo]]:
    """Return the options of each built-in loss or optimizer by its name, or those of another section."""
    if section == "loss":
        return {name: Loss.model_fields | loss_options(name) for name in losses.BUILTIN}
    kind = TrainConfig.model_fields[section].annotation
    sections = [k for k in (kind, *get_args(kind)) if isinstance(k, type) and issubclass(k, Section)]
    named = len(sections) > 1
    return {k.model_fields["name"].default if named else section: k.model_fields for k in sections}


OPTIONS = {name: TrainConfig.model_fields[name] for name in ("recipe", "seed")} | {
    f"{section}.{option}": field
    for section in TrainConfig.model_fields
    if section != "functions"
    for fields in variants(section).values()
    for option, field in fields.items()
}
_OPTIONAL = frozenset(name for name, field in OPTIONS.items() if field.default is None)


def short_name(name: str) -> str:
    """Return the name that messages and docs use for a dotted name: ``loss`` for ``loss.name``."""
    section, _, option = name.partition(".")
    if name not in OPTIONS or section == "augment":  # `scale` belongs to the losses
        return name
    return section if option == "name" else option or section


ALIASES = {short_name(name): name for name in OPTIONS} | OLD_NAMES
SHORT_NAMES = [short_name(name) for name in OPTIONS if name != "recipe"]


def full_name(name: str) -> str:
    """Return the dotted name of an option, or raise a `SettingError` that lists the names."""
    found = ALIASES.get(name, name)
    # Losses that are registered later have more options.
    if not found.startswith("loss.") and (found not in OPTIONS or found == "recipe"):
        section = name.partition(".")[0]
        known = sorted(n for n in OPTIONS if n.startswith(f"{section}.") and "." in name)
        raise SettingError(f"Unknown setting {name!r}. Choose one of {', '.join(known or SHORT_NAMES)}")
    return found


def by_full_name(*options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by dotted name; a `SettingError` refuses unknown ones, and one that is given twice."""
    named: dict[str, Any] = {}
    for name, value in (item for given in options for item in given.items()):
        if (full := full_name(name)) in named:
            raise SettingError(f"Setting {full} is given twice, as {named[full]} and as {value}. Set it once")
        named[full] = OLD_VALUES.get((name, str(value)), value)
    return named


def _explain(error: ValidationError) -> SettingError:
    """Convert pydantic's first error to one sentence."""
    first = error.errors()[0]
    kind, reason = first["type"], first["msg"]
    section, *where = map(str, first["loc"] or [""])
    if kind == "value_error":  # from a validator of ours
        cause = str(first["ctx"]["error"])
        return SettingError(cause[:1].upper() + cause[1:])
    if kind == "missing" or kind.startswith("union_tag"):
        wrong = f"Unknown {section} {first['ctx']['tag']!r}" if "tag" in first.get("ctx", ()) else ""
        wrong = wrong or f"Section {section} has no name"
        return SettingError(f"{wrong}. Choose one of {', '.join(variants(section))}")
    if section == "optimizer" and len(where) == 2:
        variant = where.pop(0)
        if kind == "extra_forbidden":
            own = ", ".join(name for name in variants(section)[variant] if name != "name")
            return SettingError(f"Optimizer {variant} has no setting {where[0]}; it has {own}")
    name = ".".join([section, *where])
    if kind == "extra_forbidden":
        return SettingError(f"Unknown setting {name!r}. Choose one of {', '.join(SHORT_NAMES)}")
    return SettingError(f"Setting {name}: {reason}; got {first['input']!r}")


def _from_flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the flat settings of version 0.1; options that no longer exist are dropped."""
    nested: dict[str, Any] = {"augment": values.get("augment", {})}
    for name, value in values.items():
        section, _, option = ALIASES.get(name, "").partition(".")
        varies = f"{section}.name" in VARIANTS and option != "name"
        if varies and (value is None or option not in variants(section).get(values[section], {})):
            continue  # None stood for the variant's own default
        if option:
            nested.setdefault(section, {})[option] = OLD_VALUES.get((name, str(value)), value)
        elif section:
            nested[section] = value
    return nested
