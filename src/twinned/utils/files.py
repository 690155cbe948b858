"""Write files: checks before writing, atomic writes, checksums."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import SettingError

_INDEX = "files.json"  # of a cached folder


def check_output(
    target: Path,
    *,
    force: bool = False,
    data: Iterable[str | os.PathLike[str]] = (),
    option: str | None = "force",
) -> None:
    """Raise a `SettingError` if an output exists (unless ``force``), touches the data, or is not writable.

    ``option`` is the name of the keyword that sets ``force``, for the message; None if there is none.
    """
    if os.path.lexists(target) and not force:
        remedy = f", or overwrite it with `{option}=True`" if option else ""
        raise SettingError(f"{target}: exists. Choose another name{remedy}.")
    place = target.resolve()
    for source in filter(Path.exists, map(Path, data)):
        given = source.resolve()
        if place == given:
            raise SettingError(f"{target}: The output is also an input. Choose another name.")
        if given in place.parents or place in given.parents:
            raise SettingError(
                f"{target}: The output would be written into the data ({source}). Choose another folder."
            )
    above = next(parent for parent in place.parents if parent.exists())
    if not above.is_dir():
        raise SettingError(f"{target}: Cannot be written, because {above} is a file. Choose another folder.")
    if not os.access(above, os.W_OK | os.X_OK):
        raise SettingError(f"{target}: The folder {above} is not writable. Choose another folder.")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file. It replaces ``path`` at the end of the block, unless that fails."""
    new = path.with_name(f".{path.name}.new")
    try:
        yield new
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, path)
    finally:
        new.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with replacing(path) as new:
        new.write_bytes(content)


def place(source: Path, target: Path) -> None:
    """Replace a target folder by a copy of a folder, atomically; a target that is a link stays a link."""
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


def cache_folder() -> Path:
    """Return the folder of Twinned in the user's cache, which may not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "twinned"


def cache_path(name: str, stamp: Sequence[str]) -> Path:
    """Return the path of a folder of `cached_folder`, which may not exist."""
    digest = hashlib.sha256(repr([*stamp]).encode()).hexdigest()
    return cache_folder() / f"{name}-{digest[:16]}"


def cached_folder(name: str, stamp: Sequence[str], write: Callable[[Path], object]) -> Path:
    """Return a folder of the user's cache, which is written on first use and again when damaged.

    A change of the ``stamp``, such as the SHA-256 of sources, makes a new folder. It appears complete, in one
    step: of several processes that write it at once, the first one counts.
    """
    target = cache_path(name, stamp)
    if not is_whole(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=target.parent) as temporary:
            new = Path(temporary, "new")
            new.mkdir()
            write(new)
            found = [path for path in sorted(new.rglob("*")) if path.is_file()]
            index = {path.relative_to(new).as_posix(): file_sha256(path) for path in found}
            (new / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
            try:
                os.rename(new, target)  # fails if the folder exists
            except OSError:
                if not is_whole(target):
                    place(new, target)
    return target


def is_whole(folder: Path) -> bool:
    """Return True if a folder of `cached_folder` has the files that were written, by their SHA-256."""
    try:
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        return all(file_sha256(folder / name) == sha256 for name, sha256 in index.items())
    except (OSError, ValueError, AttributeError):
        return False


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
