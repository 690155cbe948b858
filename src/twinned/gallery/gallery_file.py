"""gallery.json of an embedded gallery, and file operations that survive a crash."""

from __future__ import annotations

import errno
import os
import re
import shutil
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
_RUST_OS_ERROR = re.compile(
    r"\(os error (\d+)\)|\bcode: (\d+)"
)  # the two formats in which Rust prints the number
_PERMISSION = (
    "permission was denied",
    "A gallery needs a folder that this user can read and write, even to search. Change its owner or "
    "its permissions, or copy the folder and open the copy",
)
_FILES = ("too many files are open", "Close some, or raise the limit (ulimit -n), and run this again")
_DISK = ("the disk is full", "Acknowledged data is stored. Free some space and run this again")
# Errors of the operating system that do not mean damage: reason and remedy.
_REFUSED = {
    errno.EROFS: (
        "the file system is read-only",
        "A gallery needs a writable folder, even to search. Copy the folder to a writable file system and "
        "open the copy",
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
    """Content of gallery.json.

    Args:
        format: Format version of the file.
        binding: Encoder that the gallery is bound to.
        shard: Name of the folder in use.
        at_least: Lower bound of the number of images; fewer means damage.
        written: Number of the last write moved from Qdrant's log to the segments; a lower one means damage.
        report: Recall of the index.
    """

    model_config = ConfigDict(frozen=True)

    format: Literal[1] = 1
    binding: Binding
    shard: str
    at_least: int = 0
    written: int = -1
    report: IndexReport | None = None


def read_manifest(folder: Path) -> Manifest:
    """Read gallery.json.

    Raises:
        GalleryError: If it is missing or damaged.
    """
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
    sync_folder(folder)


def need_room(folder: Path, needed: int) -> None:
    """Check that the disk has this many bytes free.

    Raises:
        GalleryError: If there are fewer.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise system_error(folder, error) or GalleryError(
            f"{folder}: its free space cannot be read ({error}); nothing was written. Check the folder and "
            "run this again"
        ) from error
    if free < needed:
        raise GalleryError(
            f"{folder}: the disk is full ({free >> 20:,} MB free, {needed >> 20:,} MB required). "
            "Acknowledged data is stored. Free some space and run this again"
        )


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
    what, remedy = _REFUSED[number]
    detail = f" ({error})" if number in (errno.EACCES, errno.EPERM) else ""  # names the file
    return GalleryError(f"{folder}: {what}{detail}. {remedy}")


def identity(path: str | os.PathLike[str] | int) -> tuple[int, int]:
    """Return device and inode, which stay the same when a folder is renamed."""
    seen = os.stat(path)
    return seen.st_dev, seen.st_ino


def sync_file(path: Path) -> None:
    """Synchronize a file's content with the disk."""
    _sync(path, os.O_RDWR)


def sync_folder(path: Path) -> None:
    """Synchronize a folder's entries with the disk; Windows does not support this."""
    if os.name != "nt":
        _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a folder of sparse files and keep their holes."""
    shutil.copytree(source, target, copy_function=_copy_file)


def _copy_file(source: str, target: str) -> None:
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
