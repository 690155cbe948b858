"""Options that a Python function and a command share: name, type and help in one `TypedDict`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints


class Option(NamedTuple):
    """Description of an option, in the annotation of a `TypedDict`.

    Args:
        panel: Help panel of the command.
        help: Noun phrase that is understood without the other options.
        cli: Type on the command line, where it differs from the type in Python.
        flag: Name on the command line; by default the name in Python, with dashes.
        least: Smallest value on the command line.
        default: Value of an option that is not set.
    """

    panel: str
    help: str
    cli: Any = None
    flag: str | None = None
    least: int | None = None
    default: Any = None


def describe(options: type) -> Iterator[tuple[str, Any, Option]]:
    """Yield name, type in Python and description of every option of a `TypedDict`."""
    for name, annotation in get_type_hints(options, include_extras=True).items():
        yield name, annotation.__origin__, annotation.__metadata__[0]
