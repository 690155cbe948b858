"""The embedded gallery's own file, gallery.json, and writing so that a crash does no harm."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import GalleryError
from .store import Binding, IndexReport

_NAME = "gallery.json"
# Qdrant's files are sparse and mapped into memory: a disk that fills up under them ends the process
# (SIGBUS). So room is asked for first: to open, for its housekeeping; to add, so much more that a gallery
# that could be added to can be opened again and images removed from it.
ROOM_TO_OPEN = 16 << 20
ROOM_TO_ADD = 64 << 20
_BLOCK = bytes(1 << 16)
_RUST_OS_ERROR = re.compile(r"\(os error (\d+)\)|\bcode: (\d+)")  # Rust's two ways to print a number
_PERMISSION = (
    "permission was denied",
    "a gallery needs a folder that this user can read and write, even to be searched: change its owner or "
    "its permissions, or copy the folder and open the copy",
)
_FILES = ("too many files are open", "close some, or raise the limit (ulimit -n), and run this again")
_DISK = ("the disk is full", "what was acknowledged is stored: free some space and run this again")
# What the operating system refuses though the folder is whole.
_REFUSED = {
    errno.EROFS: (
        "the file system is read-only",
        "a gallery needs a folder that it can write to, even to be searched: copy the folder to a file "
        "system that can be written to, and open the copy",
    ),
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.ENOMEM: ("there is not enough memory", "free some memory and run this again"),
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
}


class Manifest(BaseModel):
    """gallery.json.

    Args:
        format: Of this file.
        binding: The model that the gallery belongs to.
        shard: The folder in use.
        at_least: So many images are in it; fewer means damage.
        written: Number of the last write that Qdrant's log had passed on; a lower one means damage.
        report: How well the index finds.
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
            f"{folder}: has no {_NAME}, so it is no gallery, or a damaged one; choose another folder, or "
            "restore it from a backup"
        ) from None
    except ValidationError as error:
        raise damaged(folder, f"{_NAME}: {error.errors()[0]['msg']}") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace gallery.json in one step; on disk when this returns."""
    draft = folder / f".{_NAME}"
    draft.write_text(manifest.model_dump_json(indent=2), encoding="utf-8")
    sync_file(draft)
    draft.replace(folder / _NAME)
    sync_folder(folder)


def need_room(folder: Path, needed: int) -> None:
    """Refuse to go on where the disk has no room for so many bytes.

    Raises:
        GalleryError: If there is less.
    """
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise refused(folder, error) or GalleryError(
            f"{folder}: its free space cannot be read ({error}); nothing was written: check the folder and "
            "run this again"
        ) from error
    if free < needed:
        raise GalleryError(
            f"{folder}: the disk is full ({free >> 20:,} MB free, {needed >> 20:,} MB are needed); what was "
            "acknowledged is stored: free some space and run this again"
        )


def damaged(folder: Path, reason: str) -> GalleryError:
    """What to say of a damaged gallery."""
    return GalleryError(
        f"{folder}: is damaged ({reason}); nothing was changed: restore the folder from a backup, or move "
        "it away and add the images again"
    )


def refused(folder: Path, error: BaseException) -> GalleryError | None:
    """Explain what the operating system refuses though the gallery is whole; None for any other error."""
    number: int | None = None
    if isinstance(error, OSError):
        number = error.errno
    elif found := _RUST_OS_ERROR.search(str(error)):
        code = int(found[1] or found[2])
        number = OSError(code, "", None, code).errno  # on Windows from its own numbers
    if number not in _REFUSED:
        return None
    what, remedy = _REFUSED[number]
    detail = f" ({error})" if number in (errno.EACCES, errno.EPERM) else ""  # names the file
    return GalleryError(f"{folder}: {what}{detail}; {remedy}")


def identity(path: str | os.PathLike[str] | int) -> tuple[int, int]:
    """Device and inode: the same for one folder, whatever its name."""
    seen = os.stat(path)
    return seen.st_dev, seen.st_ino


def sync_file(path: Path) -> None:
    """Bring a file's content to disk."""
    _sync(path, os.O_RDWR)


def sync_folder(path: Path) -> None:
    """Bring a folder's names to disk; Windows cannot."""
    if os.name != "nt":
        _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    file = os.open(path, flags)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def copy_sparse(source: Path, target: Path) -> None:
    """Copy a folder of sparse files; what is empty in them stays so."""
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
    """Bytes that a folder of sparse files takes."""
    return sum(512 * entry.stat().st_blocks for entry in folder.rglob("*"))
