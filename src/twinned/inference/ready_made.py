"""Ready-made models: their descriptions, from ready_made.toml, and their folders."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import MissingExtra
from ..utils.files import cache_path, cached_folder, is_whole


@dataclass(frozen=True)
class ReadyMade:
    """Model that works without training; its name takes the place of a model folder."""

    name: str
    purpose: str  # kind of images, and what the model decides about them
    license: str  # of the weights
    training_data: str  # of its encoder, with their license
    size: float  # of the model folder, in MB (1,000,000 bytes)
    figures: tuple[dict[str, Any], ...]  # each with a name, a value and the command that measured it
    extra: str | None = None  # that the first use needs; None if the folder is part of Twinned
    packages: tuple[str, ...] = ()  # of that extra, by their import names
    module: str = ""  # of this package, with stamp() and write(folder), which writes the model folder

    @property
    def available(self) -> bool:
        """True if the model can be used now: its extra is installed, or its folder is in the user's cache."""
        installed = all(find_spec(package) is not None for package in self.packages)
        return installed or is_whole(cache_path(self.name, self._stamp()))

    def folder(self) -> Path:
        """Return the model folder, which is written to the user's cache on first use."""
        if self.extra is None:
            return Path(str(files(__package__).joinpath(self.name)))
        if not self.available:
            raise MissingExtra(self.extra, f"The ready-made model {self.name}")
        write = self._writer().write
        return cached_folder(self.name, self._stamp(), lambda new: write(new / self.name)) / self.name

    def to_json(self) -> dict[str, Any]:
        """Return the description under its JSON keys."""
        return {
            "name": self.name,
            "for": self.purpose,
            "license": self.license,
            "training_data": self.training_data,
            "size": self.size,
            "figures": list(self.figures),
            "available": self.available,
            "extra": self.extra,
        }

    def _stamp(self) -> list[str]:
        return [*self._writer().stamp(), __version__]

    def _writer(self) -> Any:
        return import_module(f".{self.module}", __package__)


_ROWS = tomllib.loads(files(__package__).joinpath("ready_made.toml").read_text(encoding="utf-8"))
READY_MADE: dict[str, ReadyMade] = {name: ReadyMade(name, **row) for name, row in _ROWS.items()}
