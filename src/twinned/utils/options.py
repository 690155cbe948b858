"""Options that a Python function and a command share: name, type and help in one `TypedDict`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints


class Option(NamedTuple):
    """Description of an option, in the annotation of a `TypedDict`."""

    panel: str  # help panel of the command
    help: str  # noun phrase that is understood without the other options
    cli: Any = None  # type on the command line, where it differs
    flag: str | None = None  # name on the command line, where it differs
    least: int | None = None  # smallest value on the command line
    default: Any = None


def describe(options: type) -> Iterator[tuple[str, Any, Option]]:
    """Yield name, type in Python and description of every option of a `TypedDict`."""
    for name, annotation in get_type_hints(options, include_extras=True).items():
        yield name, annotation.__origin__, annotation.__metadata__[0]
