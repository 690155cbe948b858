"""Parts by name: built-in ones, those registered by a decorator, and those of installed packages."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from ..errors import SettingError

Entry = TypeVar("Entry")
Part = TypeVar("Part", bound=Callable[..., Any])

# Marks the name of a part in a configuration that no table holds.
UNREGISTERED = "unregistered:"
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")


class Registry(dict[str, Entry], Generic[Entry]):
    """Table of the parts of one kind, by name.

    An installed package adds parts by entry points of the group; each is imported when its name is first
    looked up with `find`. ``make`` converts a registered part to an entry, and refuses an unsuitable one;
    ``part_of`` returns the part of an entry.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        entries: Mapping[str, Entry],
        make: Callable[[Any], Entry],
        part_of: Callable[[Entry], Any] = lambda entry: entry,
    ) -> None:
        super().__init__(entries)
        self.kind, self.group = kind, group
        self._make, self._part_of = make, part_of

    def register(self, name: str, part: Any) -> None:
        """Add a part; a class or function that was defined again replaces the one before."""
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            kind = self.kind.capitalize()
            raise SettingError(f"{kind} cannot be registered as {name!r}. Use letters, digits and . _ -")
        if name in self and not _is_same(self._part_of(self[name]), part):
            raise SettingError(f"The name {name!r} is taken by another {self.kind}. Choose another name")
        self[name] = self._make(part)

    def decorator(self, name: str) -> Callable[[Part], Part]:
        """Return a decorator that adds a part and returns it unchanged."""

        def register(part: Part) -> Part:
            self.register(name, part)
            return part

        return register

    def find(self, name: str) -> Entry:
        """Return the part of a name; one of an installed package is imported."""
        plain = name.removeprefix(UNREGISTERED)
        if plain not in self and plain in (points := _points(self.group)):
            part = points[plain].load()
            if plain not in self:  # its module may have registered it
                self.register(plain, part)
        if plain in self:
            return self[plain]
        if plain != name:
            register = f"twinned.register_{self.kind}({plain!r})"
            raise SettingError(f"The {self.kind} {plain} is not registered. Register it with {register}")
        raise SettingError(f"Unknown {self.kind} {name!r}. Choose one of {', '.join(self.names())}")

    def names(self) -> list[str]:
        """Return all names, those of installed packages included."""
        return [*self, *(name for name in _points(self.group) if name not in self)]

    def name_of(self, part: Any) -> str:
        """Return the name of a part or of its class; marked as unregistered where the table lacks it."""
        for name, entry in self.items():
            if (known := self._part_of(entry)) is part or known is type(part):
                return name
        return UNREGISTERED + plain_name(part)

    def current_name(self, name: str) -> str:
        """Return the name of a part in a saved configuration, marked or unmarked as the table is now."""
        plain = name.removeprefix(UNREGISTERED)
        return plain if plain in self or plain in _points(self.group) else UNREGISTERED + plain


def plain_name(part: Any) -> str:
    """Return the name of a function or class, or that of the class of an object."""
    if isinstance(part, functools.partial):
        return plain_name(part.func)
    return str(getattr(part, "__name__", type(part).__name__))


def _is_same(before: Any, part: Any) -> bool:
    """Return True for a class or function that was defined again, as in a notebook."""
    names = ("__module__", "__qualname__")
    same = all(getattr(before, name, None) == getattr(part, name, 0) for name in names)
    return before is part or (same and "<" not in part.__qualname__.rpartition(".")[2])


def _points(group: str) -> dict[str, Any]:
    return {point.name: point for point in entry_points(group=group)}
