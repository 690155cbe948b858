"""Fill in the options of each command in docs/cli.md: ``python docs/cli.py``.

The examples are written in the page. The parts between ```<!-- command: `NAME` -->``` and ``<!-- end -->``
come from the program, and a test fails when they are out of date.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import typer

from twinned.cli.main import app

PAGE = Path(__file__).with_name("cli.md")
_PART = re.compile(r"(<!-- command: `?(.+?)`? -->\n).*?(<!-- end -->)", re.DOTALL)
_COMMON = "common options"
_MANY = 5  # commands that have an option which is described once
_SAME = {"finetune": "train"}  # command whose options are those of another one, and its own


def commands() -> dict[str, Any]:
    """Return the commands by name, such as ``verify`` and ``gallery add``."""
    program: Any = typer.main.get_command(app)
    context = typer.Context(program)
    found = {}
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        below = getattr(command, "commands", None)
        found |= {f"{name} {part}": one for part, one in below.items()} if below else {name: command}
    return found


def page(text: str) -> str:
    """Return the text of the page with the parts that come from the program."""
    known = commands()
    seen = Counter(option for command in known.values() for option in _options(command))
    common = {option for option, times in seen.items() if times >= _MANY and option.panel == "Run"}

    def part(found: re.Match[str]) -> str:
        name = found[2]
        lines = _table(sorted(common), "option") if name == _COMMON else _command(name, known, common)
        return "\n".join([found[1], *lines, "", found[3]])

    return _PART.sub(part, text)


class _Option(NamedTuple):
    """Flags, help and help panel of an option."""

    flags: str
    help: str
    panel: str


def _options(command: Any) -> list[_Option]:
    found = []
    for one in command.params:
        if one.param_type_name != "option":
            continue
        flags = ", ".join(f"`{flag}`" for flag in sorted(one.opts, key=len, reverse=True))
        text = str(one.help)
        if one.default not in (None, False, [], ()) and "default" not in text:
            text = f"{re.sub(r'(?<![.])[.]$', '', text)} (default: {_shown(one.default)})."
        if choices := _choices(one.type_descriptor.annotation):
            text = f"{text} One of {', '.join(choices)}."
        if one.required:
            text = f"{text} Required."
        found.append(_Option(flags, text, one.rich_help_panel or ""))
    return found


def _shown(value: Any) -> str:
    return str(value.value if isinstance(value, Enum) else value)


def _choices(annotation: Any) -> list[str]:
    kinds = (annotation, *get_args(annotation))
    return [f"`{value}`" for kind in kinds if get_origin(kind) is Literal for value in get_args(kind)]


def _command(name: str, known: dict[str, Any], common: set[_Option]) -> Iterator[str]:
    """Yield the lines of one command: sentence, usage, arguments, options."""
    command = known[name]
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    usage = ["twinned", name, *(one.metavar or one.name.upper() for one in arguments), "[options]"]
    yield " ".join(command.help.split())
    yield f"\n    {' '.join(usage)}\n"
    yield from _table([_Option(f"`{one.metavar or one.name.upper()}`", one.help, "") for one in arguments])
    options = _options(command)
    other = _SAME.get(name)
    shared = set(_options(known[other])) if other else set()
    if own := [one for one in options if one not in common and one not in shared]:
        if arguments:
            yield ""
        yield from _table(own, "option")
    notes = []
    if other:
        notes.append(f"The options of [{other}](#{other}).")
    if general := sorted(one.flags.split(",")[0] for one in options if one in common and one not in shared):
        notes.append(f"[Common options](#common-options): {', '.join(general)}.")
    if notes:
        yield ("\n" if arguments or own else "") + " ".join(notes)


def _table(options: list[_Option], first: str = "argument") -> Iterator[str]:
    if options:
        yield f"| {first} | meaning |\n| --- | --- |"
    for one in options:
        yield f"| {one.flags} | {one.help} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), encoding="utf-8")
