"""Where results may be written: never over what is there unasked, never into the data they come from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from .errors import SettingError


def refuse(target: Path, *, force: bool = False, data: Iterable[str | os.PathLike[str]] = ()) -> None:
    """Raise where a file or folder must not be written.

    Args:
        target: The file or folder to write.
        force: Whether it may replace what is there.
        data: Files and folders that were given to be read: nothing is written into them or over them.

    Raises:
        SettingError: If the target exists and ``force`` is not set, lies inside the data or around it, or in
            no folder that can be written to; says which and what to do.
    """
    if os.path.lexists(target) and not force:
        raise SettingError(f"{target}: exists; choose another name, or --force to replace it")
    place = target.resolve()
    for source in map(Path, data):
        if not source.exists():
            continue
        given = source.resolve()
        if place == given:
            raise SettingError(f"{target}: is what is read; choose another name")
        if given in place.parents or place in given.parents:
            raise SettingError(f"{target}: would be written into the data ({source}); choose another place")
    above = next(parent for parent in place.parents if parent.exists())
    if not above.is_dir():
        raise SettingError(f"{target}: cannot be written, since {above} is a file; choose another place")
    if not os.access(above, os.W_OK | os.X_OK):
        raise SettingError(f"{target}: {above} cannot be written to; choose another place")
