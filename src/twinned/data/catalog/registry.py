"""Public data sets that can be fetched by name: owner, files, terms and conversion, from data_sets.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from ...errors import SettingError
from . import convert

MB = 1 << 20


@dataclass(frozen=True)
class Download:
    """File to download."""

    addresses: tuple[str, ...]  # the owner's first
    max_bytes: int
    sha256: str | None = None  # None if none is published

    @property
    def file(self) -> str:
        """File name."""
        return self.addresses[0].rsplit("/", 1)[1]


@dataclass(frozen=True)
class DataSet:
    """Public data set."""

    name: str
    title: str
    terms: str  # license, or the conditions of the owner
    page: str  # of the owner
    downloads: tuple[Download, ...]  # empty if the data set is made
    local: tuple[str, ...]  # names of files and folders that can be a local copy
    # Pattern of a path inside an archive, and the path to write, of groups of the pattern and constants.
    rules: tuple[tuple[str, str], ...]
    images: int
    max_bytes: int  # of all unpacked files
    use: tuple[str, ...] = ("",)  # paths below the folder to train on
    finish: Callable[[Path], None] | None = None  # conversion of the unpacked folder

    def place(self, name: str) -> str | None:
        """Return the path below the folder for a file of an archive; None to skip the file."""
        for pattern, path in self.rules:
            if (found := re.search(rf"(?:^|/){pattern}$", name.replace("\\", "/"))) is not None:
                return found.expand(path)
        return None


def _read(name: str, row: dict[str, Any]) -> DataSet:
    max_bytes, finish = row.pop("max_mb") * MB, row.pop("finish", None)
    downloads = tuple(
        Download(tuple(addresses), max_mb * MB, sha256 or None)
        for max_mb, sha256, *addresses in row.pop("downloads")
    )
    row["rules"] = map(tuple, row["rules"])
    fields: dict[str, Any] = {
        key: value if isinstance(value, (str, int)) else tuple(value) for key, value in row.items()
    }
    convert_files = getattr(convert, finish) if finish else None
    return DataSet(name, downloads=downloads, max_bytes=max_bytes, finish=convert_files, **fields)


_ROWS = tomllib.loads(files(__package__).joinpath("data_sets.toml").read_text(encoding="utf-8"))
DATA_SETS: dict[str, DataSet] = {name: _read(name, row) for name, row in _ROWS.items()}


def named(name: str) -> DataSet:
    """Return the data set with the given name, or raise `SettingError`."""
    if name not in DATA_SETS:
        raise SettingError(f"Unknown data set {name!r}. Choose one of {', '.join(DATA_SETS)}.")
    return DATA_SETS[name]
