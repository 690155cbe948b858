"""Write docs/settings.md: ``python docs/settings.py``. A test fails when the page is out of date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from twinned.training.config import OPTIONS, TrainConfig, short_name, variants
from twinned.training.options import TrainOptions
from twinned.training.recipes import RECIPES
from twinned.training.rules import RULES
from twinned.utils.options import describe

PAGE = Path(__file__).with_name("settings.md")
_TOP = """# Settings

A training run has one configuration, a `twinned.TrainConfig`. Precedence, lowest first: recipe; defaults of
the chosen encoder, loss and optimizer; rules; your options. A rule that contradicts your option is an error,
never a silent change.

On the command line, `--set NAME=VALUE` sets any option, and can be repeated; frequent options have a flag of
their own. In Python, the same names go into `settings`:

    tw.train(images, loss="contrastive", margin=0.5, settings={"dropout": 0.1, "augment.rotation": 5})

`twinned train DATA --print-config` prints the resolved configuration as JSON, without training. `--config
FILE.json` starts from such a file; options missing from it have the defaults below. In Python:

    config = tw.recipes.get("face").merge({"minutes": 10, "loss": "arcface"})
    tw.train(images, config=config)

A name is dotted (`loss.margin`); where its last part is unique, that part is enough (`margin`). Names of
version 0.1 are still accepted.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [_TOP, "## Options of train and finetune\n", *_flags(), "\n## All options\n", *_options()]
    parts += [
        "\n## Recipes\n\nDifferences from the defaults above.\n",
        *_recipes(),
        "\n## Rules\n",
        *_rules(),
    ]
    return "\n".join(parts) + "\n"


def _flags() -> Iterator[str]:
    yield "| flag | in Python | help |\n| --- | --- | --- |"
    for name, _, option in describe(TrainOptions):
        flag = option.flag or f"--{name.replace('_', '-')}"
        yield f"| `{flag}` | `{name}` | {option.help} |"


def _options() -> Iterator[str]:
    yield "| option | short name | type | default | meaning |\n| --- | --- | --- | --- | --- |"
    for section, field in TrainConfig.model_fields.items():
        if section == "functions":  # names of functions, which are no options
            continue
        kinds = variants(section)
        if not kinds and section != "recipe":
            yield _row(section, section, field)
        several = len(kinds) > 1
        for kind, fields in kinds.items():
            label = f" ({kind})" if several else ""
            for name, option in fields.items():
                if name != "name" or not several:
                    yield _row(f"{section}.{name}", f"{section}.{name}{label}", option)
        if several:
            names = ", ".join(f"`{kind}`" for kind in kinds)
            default = getattr(TrainConfig(), section).name
            yield f"| {section}.name | `{section}` | {names} | {default} | Name of the {section} |"


def _row(name: str, label: str, field: Any) -> str:
    short = short_name(name)
    limits = [str(limit) for limit in field.metadata if hasattr(limit, "__slots__") and "=" in str(limit)]
    kind = _type(field.annotation) + "".join(f", {_limit(text)}" for text in limits if _limit(text))
    default = "none" if field.default is None else str(field.default).lower().replace("|", " ")
    return f"| {label} | `{short}` | {kind} | {default} | {field.description} |"


def _limit(text: str) -> str:
    found = re.fullmatch(r"(Ge|Gt|Le|Lt)\(\w+=(.+)\)", text)
    return f"{ {'Ge': '>=', 'Gt': '>', 'Le': '<=', 'Lt': '<'}[found[1]] } {found[2]}" if found else ""


def _type(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return " or ".join(f"`{value}`" for value in get_args(annotation))
    if get_origin(annotation) in (Union, UnionType):
        return " or ".join("none" if kind is type(None) else _type(kind) for kind in get_args(annotation))
    return str(getattr(annotation, "__name__", annotation))


def _recipes() -> Iterator[str]:
    from twinned.training import recipes

    plain = TrainConfig()
    for line in (recipes.__doc__ or "").splitlines():
        if found := re.fullmatch(r"(auto)\s{2,}(.+)", line):
            yield f"**{found[1]}** {found[2]}.\n"
    for name, config in RECIPES.items():
        changed = [
            f"`{short_name(option)}={_shown(config.get(option))}`"
            for option in OPTIONS
            if option != "recipe" and config.get(option) not in (None, plain.get(option))
        ]
        yield f"**{name}** {', '.join(changed)}.\n"


def _shown(value: Any) -> str:
    return str(round(value, 4) if isinstance(value, float) else value).lower()


def _rules() -> Iterator[str]:
    yield "| reason | change | no effect, so an error |\n| --- | --- | --- |"
    for rule in RULES:
        reason = re.sub(
            r"\{c\.([\w.]+)\}", lambda found: f"*{short_name(found[1]).rpartition('.')[2]}*", rule.reason
        )
        change = ", ".join(f"`{short_name(name)}={_shown(value)}`" for name, value in rule.change.items())
        unused = ", ".join(f"`{short_name(name)}`" for name in rule.unused)
        yield f"| {reason.replace('{{', '{').replace('}}', '}')} | {change} | {unused} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
