"""The page of commands is up to date, and every command that a page shows can be parsed."""

from __future__ import annotations

import importlib.util
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
import typer

from twinned.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_SHELL = re.compile(r"^```sh\n(.*?)^```|((?:^    twinned .*\n)+)", re.MULTILINE | re.DOTALL)
_EXTRAS = re.compile(r"\[options\]|\.\.\.$")  # of a usage line; of a command that is not whole


@cache
def page():
    spec = importlib.util.spec_from_file_location("commands_page", ROOT / "docs" / "cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def shown(text: str) -> list[list[str]]:
    """Return the words of each command ``twinned ...`` in the shell blocks of a page, without the program."""
    found = []
    for block in _SHELL.finditer(text):
        for line in "".join(filter(None, block.groups())).replace("\\\n", " ").splitlines():
            command = re.split(r"\s(?:\|\|?|&&?|>>?|#)(?:\s|$)", line.strip())[0]
            if command.startswith("twinned ") and not _EXTRAS.search(command):
                found.append(shlex.split(command)[1:])
    return found


def parse(words: list[str]) -> None:
    """Parse a command without running it; a mistake raises."""
    program = typer.main.get_command(app)
    context = typer.Context(program, info_name="twinned")
    name, command, rest = program.resolve_command(context, words)
    while hasattr(command, "commands"):
        context = typer.Context(command, info_name=name, parent=context)
        name, command, rest = command.resolve_command(context, rest)
    command.make_context(name, list(rest), parent=context)


def test_commands_page_is_up_to_date():
    text = page().PAGE.read_text("utf-8")
    described = set(re.findall(r"<!-- command: `(.+)` -->", text))
    assert described == set(page().commands()), "add or remove a section of docs/cli.md, with an example"
    assert text == page().page(text), "run: make pages"


@pytest.mark.parametrize("name", sorted(page().commands()))
def test_every_command_has_an_example(name):
    section = page().PAGE.read_text("utf-8").partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
    assert any(words[: len(name.split())] == name.split() for words in shown(section))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_of_a_page_can_be_parsed(path):
    for words in shown(path.read_text("utf-8")):
        if "--version" not in words:
            parse(words)


def test_invalid_command_is_detected():
    assert shown("```sh\ntwinned verify a.twin x.png \\\n    y.png || test $? = 1\n```\n") == [
        ["verify", "a.twin", "x.png", "y.png"]
    ]
    with pytest.raises(typer.exceptions.TyperException, match="--speed"):
        parse(["verify", "a.twin", "x.png", "y.png", "--speed", "3"])
