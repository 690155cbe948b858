"""Files of an embedded gallery: gallery.json, operations that survive a crash, and errors explained."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import GalleryError
from ..utils.files import write_text
from .store import Binding, IndexReport

_NAME = "gallery.json"
# Qdrant's files are sparse and memory-mapped, so a full disk kills the process (SIGBUS). Free space is
# checked first. Adding requires more than opening does, so that a gallery that accepted its last images can
# still be opened and have images removed.
ROOM_TO_OPEN = 16 << 20
ROOM_TO_ADD = 64 << 20
_BLOCK = bytes(1 << 16)
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)|\bcode: (\d+)")  # Rust prints the number in two formats
_PERMISSION = (
    "permission was denied",
    "A gallery must be readable and writable, even to search. Change its owner or its permissions, or copy "
    "the folder and open the copy",
)
_FILES = ("too many files are open", "Close some, or raise the limit (ulimit -n), and run this again")
_DISK = ("the disk is full", "Acknowledged data is stored. Free some space and run this again")
# Errors of the operating system that do not mean damage: reason and remedy.
_REFUSED = {
    errno.EROFS: (
        "the file system is read-only",
        "A gallery must be writable, even to search. Copy the folder to another place and open the copy",
    ),
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOMEM: ("there is not enough memory", "Free some memory and run this again"),
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
}


class Manifest(BaseModel):
    """Content of gallery.json."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    binding: Binding
    shard: str  # name of the folder in use
    at_least: int = 0  # lower bound of the number of images; fewer means damage
    written: int = -1  # last write moved from Qdrant's log to the segments; a lower number means damage
    report: IndexReport | None = None


def read_manifest(folder: Path) -> Manifest:
    """Read gallery.json."""
    try:
        return Manifest.model_validate_json((folder / _NAME).read_bytes())
    except FileNotFoundError:
        raise GalleryError(
            f"{folder}: has no {_NAME}, so it is not a gallery or is damaged. Choose another folder, or "
            "restore it from a backup"
        ) from None
    except ValidationError as error:
        raise damaged(folder, f"{_NAME}: {error.errors()[0]['msg']}") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace gallery.json atomically; on disk when this returns."""
    write_text(folder / _NAME, manifest.model_dump_json(indent=2))
    sync(folder)


def need_room(folder: Path, needed: int) -> None:
    """Check that the disk has this many bytes free."""
    if (free := shutil.disk_usage(folder).free) < needed:
        raise _refused(folder, errno.ENOSPC, f" ({free >> 20:,} MB free, {needed >> 20:,} MB required)")


def damaged(folder: Path, reason: str) -> GalleryError:
    """Make the error for a damaged gallery."""
    return GalleryError(
        f"{folder}: is damaged ({reason}); nothing was changed. Restore the folder from a backup, or move "
        "it away and add the images again"
    )


def system_error(folder: Path, error: BaseException) -> GalleryError | None:
    """Make the error for a failed system call on an undamaged gallery; None for any other error."""
    number: int | None = None
    if isinstance(error, OSError):
        number = error.errno
    elif found := _RUST_OS_ERROR.search(str(error)):
        code = int(found[1] or found[2])
        number = OSError(code, "", None, code).errno  # on Windows, converts its own numbers
    if number not in _REFUSED:
        return None
    return _refused(folder, number, f" ({error})" if number in (errno.EACCES, errno.EPERM) else "")


def _refused(folder: Path, number: int, detail: str) -> GalleryError:
    what, remedy = _REFUSED[number]
    return GalleryError(f"{folder}: {what}{detail}. {remedy}")


@contextlib.contextmanager
def explaining(folder: Path, doing: str | None = None) -> Iterator[None]:
    """Explain errors of Qdrant Edge and of the system, on opening a gallery or ``doing`` something else."""
    try:
        yield
    except BaseException as error:
        if not is_failure(error):
            raise
        if doing is not None:
            other = GalleryError(
                f"{folder}: {doing} failed ({error}); acknowledged data is stored. Close the gallery and "
                "open it again"
            )
        elif "WouldBlock" in str(error):  # Qdrant Edge raises no type of its own for a held lock
            other = GalleryError(
                f"{folder}: is open already, in another process or in this one. Close the other one, or ask "
                "its service: twinned search MODEL GALLERY IMAGE --url http://127.0.0.1:8000"
            )
        else:
            other = damaged(folder, str(error))
        raise system_error(folder, error) or other from error


def is_failure(error: BaseException) -> bool:
    """Return True for errors of the system and of Qdrant Edge: plain `Exception`, or Rust's panics."""
    return isinstance(error, OSError) or type(error) is Exception or type(error).__name__ == "PanicException"


def identity(path: str | os.PathLike[str] | int) -> tuple[int, int]:
    """Return device and inode, which stay the same when a folder is renamed."""
    seen = os.stat(path)
    return seen.st_dev, seen.st_ino


def sync(path: Path) -> None:
    """Synchronize a file's content or a folder's entries with the disk; Windows does so for files only."""
    if path.is_dir() and os.name == "nt":
        return
    file = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def copy_sparse(source: str, target: str) -> None:
    """Copy a sparse file and keep its holes."""
    with open(source, "rb") as whole, open(target, "wb") as sparse:
        while block := whole.read(len(_BLOCK)):
            if block == _BLOCK[: len(block)]:
                sparse.seek(len(block), os.SEEK_CUR)
            else:
                sparse.write(block)
        sparse.truncate()


def size_on_disk(folder: Path) -> int:
    """Return the bytes that a folder of sparse files occupies."""
    return sum(512 * entry.stat().st_blocks for entry in folder.rglob("*"))
