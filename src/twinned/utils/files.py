"""Where results may be written: never over what is there unasked, never into the data they come from."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ..errors import SettingError


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


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    new = path.with_name(f".{path.name}.new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)


def place(source: Path, target: Path) -> None:
    """Copy what a folder holds in place of the target, whole at every moment; a link stays a link."""
    target = target.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        for file in source.iterdir():
            (shutil.copytree if file.is_dir() else shutil.copyfile)(file, new / file.name)
        new.chmod(0o755)
        if target.is_dir():
            old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
            os.replace(target, old / "model")
            os.replace(new, target)
            shutil.rmtree(old)
        else:
            os.replace(new, target)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
