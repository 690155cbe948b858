"""Configuration of a training run: `TrainConfig`, in sections.

Every option has one dotted name, such as ``loss.margin``. Where its last part is unique, that part alone is a
short name: ``margin``. Command line, Python and JSON use the same names.

Precedence, lowest first: recipe, defaults of the chosen encoder, loss and optimizer, rules
(`twinned.training.rules`), the user. A rule that contradicts the user is an error, never a silent change.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import Field, ValidationError, model_validator

from .. import losses
from ..data.preprocessing import ImageSpec
from ..errors import SettingError
from ..losses import miners
from ..nn import encoders
from .sections import (
    HELP,
    LOSS_SECTIONS,
    AdamW,
    Augment,
    CalibrationConfig,
    Comparison,
    EncoderConfig,
    Functions,
    Input,
    Length,
    Loss,
    Mining,
    Optimizer,
    Run,
    Sampler,
    ScheduleConfig,
    Section,
    Transfer,
    loss_section,
)


class TrainConfig(Section):
    """Configuration of a training run.

    Example:
        >>> config = TrainConfig().merge({"margin": 0.5, "loss": "contrastive", "minutes": 3})
        >>> config.loss
        Contrastive(name='contrastive', margin=0.5, factor=0.5)
        >>> config.length.minutes
        3.0
    """

    recipe: str = Field("photo", description="Name of the recipe that the other values come from")
    seed: int = Field(0, ge=0, lt=1 << 31, description=HELP["seed"])
    input: Input = Input()
    encoder: EncoderConfig = EncoderConfig()
    transfer: Transfer = Transfer()
    comparison: Comparison = Comparison()
    loss: Loss = loss_section("supcon")
    mining: Mining = Mining()
    sampler: Sampler = Sampler()
    augment: Augment = Augment()
    length: Length = Length()
    optimizer: Optimizer = AdamW()
    schedule: ScheduleConfig = ScheduleConfig()
    run: Run = Run()
    calibration: CalibrationConfig = CalibrationConfig()
    functions: Functions = Functions()

    @model_validator(mode="after")
    def _check_length(self) -> TrainConfig:
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
        named = by_full_name(changes)
        values = self.model_dump()
        if any(named.get(f"length.{name}") is not None for name in LENGTHS):
            values["length"] |= dict.fromkeys(LENGTHS)
        for name, value in sorted(named.items(), key=lambda item: item[0] not in VARIANTS):
            section, _, option = name.partition(".")
            if not option:
                values[section] = value
            elif name in VARIANTS and values[section]["name"] != value:
                values[section] = {"name": value}
            else:
                values[section][option] = (
                    None if name in _OPTIONAL and str(value).lower() == "none" else value
                )
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
        for section, option, known in (
            ("encoder", "name", encoders.ENCODERS),
            ("loss", "name", losses.LOSSES),
            ("mining", "miner", miners.MINERS),
        ):
            found = nested.get(section)
            if isinstance(found, dict) and isinstance(name := found.get(option), str):
                nested[section] = found | {option: known.current_name(name)}
        return cls.parse(nested)


LENGTHS = ("minutes", "steps", "epochs")
_VARIED = ("loss", "optimizer")
VARIANTS = tuple(f"{section}.name" for section in _VARIED)


def _variants(section: str) -> list[type[Section]]:
    """Return the classes that a section can be, without those of other losses than Twinned's."""
    if section == "loss":
        return list(LOSS_SECTIONS.values())
    annotation = TrainConfig.model_fields[section].annotation
    return [
        kind
        for kind in (annotation, *get_args(annotation))
        if isinstance(kind, type) and issubclass(kind, Section)
    ]


def _all_options() -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the field of every option."""
    for section, field in TrainConfig.model_fields.items():
        if section == "functions":
            continue
        kinds = _variants(section)
        if not kinds:
            yield section, field
        for kind in kinds:
            yield from ((f"{section}.{option}", found) for option, found in kind.model_fields.items())


OPTIONS: dict[str, Any] = dict(_all_options())
_OPTIONAL = frozenset(name for name, field in OPTIONS.items() if field.default is None)
# Names of version 0.1, for `--set`, and for models saved by it.
_OLD_NAMES = {
    "layer": "transfer.projection",
    "norms": "transfer.freeze_batchnorm",
    "shrink": "transfer.shrinkage",
    "views": "transfer.n_augmentations",
    "within_group": "sampler.same_group_fraction",
    "quarter_turns": "sampler.rotate_classes",
    "mirrors": "sampler.flip_classes",
    "enough": "length.max_epochs",
    "proxy_rate": "optimizer.proxy_lr_scale",
    "decay_from": "schedule.decay_start",
    "average": "schedule.ema_decay",
    "held_out": "calibration.validation_fraction",
}
_OLD_VALUES: dict[str, dict[str, Any]] = {
    "layer": {"learned": "gradient", "solved": "lda"},
    "norms": {"moving": False, "kept": True},
}
# Short name -> dotted name. Options of the augmentation have none: `scale` belongs to the losses.
ALIASES: dict[str, str] = (
    {
        name.rpartition(".")[2]: name
        for name in OPTIONS
        if not name.endswith(".name") and not name.startswith("augment.")
    }
    | {section: f"{section}.name" for section in ("encoder", "loss", "optimizer")}
    | _OLD_NAMES
)
_SHORT = {full: short for short, full in ALIASES.items() if short not in _OLD_NAMES}
SHORT_NAMES: tuple[str, ...] = tuple(_SHORT.get(name, name) for name in OPTIONS if name != "recipe")


def short_name(name: str) -> str:
    """Return the name that messages and docs use for a dotted name: ``loss`` for ``loss.name``."""
    return _SHORT.get(name, name)


def full_name(name: str) -> str:
    """Return the dotted name of an option.

    Raises:
        SettingError: If there is no such option; the message lists the names.
    """
    found = ALIASES.get(name, name)
    if found.startswith("loss."):  # losses that are registered later have more options
        return found
    if found not in OPTIONS or found == "recipe":
        section = name.partition(".")[0]
        known = sorted(n for n in OPTIONS if n.startswith(f"{section}.") and "." in name)
        raise SettingError(f"Unknown setting {name!r}. Choose one of {', '.join(known or SHORT_NAMES)}")
    return found


def by_full_name(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by dotted name, with names and values of version 0.1 translated.

    Raises:
        SettingError: If a name is not known, or an option is given by two names.
    """
    named: dict[str, Any] = {}
    for name, value in options.items():
        if (full := full_name(name)) in named:
            raise SettingError(f"Setting {full} is given twice, as {named[full]} and as {value}. Set it once")
        named[full] = _current(name, value)
    return named


def _current(name: str, value: Any) -> Any:
    """Translate the value of an option that had another name in version 0.1."""
    return _OLD_VALUES.get(name, {}).get(value, value) if isinstance(value, str) else value


def _explain(error: ValidationError) -> SettingError:
    """Convert pydantic's first error to one sentence."""
    first = error.errors()[0]
    where = [str(part) for part in first["loc"]]
    section = where[0] if where else ""
    variants = {k.model_fields["name"].default: k for k in _variants(section)} if section in _VARIED else {}
    if first["type"] == "union_tag_invalid":
        names = losses.LOSSES.names() if section == "loss" else variants
        return SettingError(f"Unknown {section} {first['ctx']['tag']!r}. Choose one of {', '.join(names)}")
    if first["type"] == "union_tag_not_found":
        return SettingError(f"Section {section} has no name. Choose one of {', '.join(variants)}")
    if first["type"] == "extra_forbidden" and len(where) == 3:
        own = ", ".join(name for name in variants[where[1]].model_fields if name != "name") or "none"
        return SettingError(f"{section.capitalize()} {where[1]} has no setting {where[2]}; it has {own}")
    if variants and len(where) == 3:
        del where[1]  # the name of the variant
    if first["type"] == "extra_forbidden":
        return SettingError(f"Unknown setting {'.'.join(where)!r}. Choose one of {', '.join(SHORT_NAMES)}")
    if first["type"] == "value_error":  # from a validator of ours
        reason = first["msg"].removeprefix("Value error, ")
        return SettingError(reason[:1].upper() + reason[1:])
    reason = first["msg"]
    return SettingError(f"Setting {'.'.join(where)}: {reason}; got {first['input']!r}")


def _from_flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the flat settings of version 0.1; options that no longer exist are dropped."""
    nested: dict[str, Any] = {"recipe": values.get("recipe", "photo"), "augment": values.get("augment", {})}
    chosen = {section: values.get(section) for section in _VARIED}
    for name, value in values.items():
        dotted = ALIASES.get(name)
        if dotted is None or name in ("recipe", "augment"):
            continue
        section, _, option = dotted.partition(".")
        if not option:
            nested[section] = value
        elif (
            section not in _VARIED or option == "name" or _has_option(section, chosen[section], option, value)
        ):
            nested.setdefault(section, {})[option] = _current(name, value)
    return nested


def _has_option(section: str, variant: str | None, option: str, value: Any) -> bool:
    """Return whether a variant of a section has an option; None stood for the variant's own default."""
    fields = [kind.model_fields for kind in _variants(section)]
    return value is not None and any(f["name"].default == variant and option in f for f in fields)
