"""Archives, opened without trust: only files that are expected are written, and only as many bytes as may be.

Paths are never taken from an archive: each expected file has its place (`DataSet.place`). Links, devices and
everything unexpected are passed over.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from ...errors import DataError

_CHUNK = 1 << 20
_MOST_MEMBERS = 500_000
# Programs that open RAR, and how each is called: the archive, the folder.
_RAR: tuple[tuple[str, Callable[[str, str], list[str]]], ...] = (
    ("bsdtar", lambda file, folder: ["-xf", file, "-C", folder]),
    ("unar", lambda file, folder: ["-quiet", "-output-directory", folder, file]),
    ("7z", lambda file, folder: ["x", "-y", f"-o{folder}", file]),
    ("unrar", lambda file, folder: ["x", "-y", "-idq", file, f"{folder}{os.sep}"]),
)
SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar", ".rar")


class Member(NamedTuple):
    """A file of a folder or an archive: its path there, its bytes, and how to read it."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(
    source: Path,
    target: Path,
    *,
    place: Callable[[str], str | None],
    most: int,
    advance: Callable[[int], None] = lambda amount: None,
) -> int:
    """Write the expected files of an archive, a folder or a single file below a folder.

    Args:
        source: A .zip, .tar, .tgz or .rar, any other single file, or a folder.
        target: A folder; files that are there already stay.
        place: Where a file goes, relative to the target; None leaves it out.
        most: Bytes that all files together may have.
        advance: Called with the number of files as they are written.

    Returns:
        The bytes written.

    Raises:
        DataError: If the archive is damaged, or holds more than it may; nothing is set aside before that
            is known.
    """
    written = 0
    with _members(source, most) as members:
        for member in members:
            path = place(member.name)
            if path is None or (file := target / path).exists():
                continue
            written += member.size
            if written > most:
                raise DataError(f"{source}: holds more than {most >> 20} MB; it is not what it should be")
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with member.open() as content, file.open("xb") as out:
                    _copy(content, out, member, source)
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise DataError(f"{source}: {member.name} is damaged ({error}); fetch it again") from None
            advance(1)
    return written


def _copy(content: IO[bytes], out: IO[bytes], member: Member, source: Path) -> None:
    left = member.size
    while left:
        chunk = content.read(min(_CHUNK, left))
        if not chunk:
            raise DataError(f"{source}: {member.name} ends too early; fetch it again")
        out.write(chunk)
        left -= len(chunk)
    if content.read(1):
        raise DataError(f"{source}: {member.name} is longer than it says; fetch it again")


@contextmanager
def _members(source: Path, most: int) -> Iterator[Iterable[Member]]:
    kind = next((suffix for suffix in SUFFIXES if source.name.lower().endswith(suffix)), "")
    if source.is_dir():
        yield _of_folder(source)
    elif kind == "":
        yield [Member(source.name, source.stat().st_size, partial(_read, source))]
    elif kind == ".rar":
        with _unpacked_rar(source) as folder:
            yield _of_folder(folder)
    elif kind == ".zip":
        try:
            archive = zipfile.ZipFile(source)
        except (zipfile.BadZipFile, OSError) as error:
            raise DataError(f"{source}: is no ZIP that can be opened ({error})") from None
        with archive:
            yield _of_zip(archive, source, most)
    else:
        yield _of_tar(source, most)


def _of_folder(folder: Path) -> Iterator[Member]:
    for above, inner, files in os.walk(folder):
        inner.sort()
        for name in sorted(files):
            path = Path(above, name)
            if path.is_file() and not path.is_symlink():
                inside = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                yield Member(inside, path.stat().st_size, partial(_read, path))


def _of_zip(archive: zipfile.ZipFile, source: Path, most: int) -> Iterator[Member]:
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _refuse_bomb(source, len(entries), sum(entry.file_size for entry in entries), most)
    for entry in entries:
        if (entry.external_attr >> 16) & 0o170000 in (0, 0o100000):  # a regular file, or not said
            yield Member(entry.filename, entry.file_size, partial(archive.open, entry))


def _of_tar(source: Path, most: int) -> Iterator[Member]:
    import tarfile

    count = total = 0
    try:
        with tarfile.open(source, "r:*") as archive:
            for entry in archive:
                count, total = count + 1, total + entry.size
                _refuse_bomb(source, count, total, most)
                if entry.isreg():
                    yield Member(entry.name, entry.size, partial(_extract, archive, entry))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{source}: is no whole tar archive ({error}); fetch it again") from None


def _read(path: Path) -> IO[bytes]:
    return path.open("rb")


def _extract(archive: Any, entry: Any) -> IO[bytes]:
    content: IO[bytes] = archive.extractfile(entry)
    return content


def _refuse_bomb(source: Path, count: int, total: int, most: int) -> None:
    if count > _MOST_MEMBERS or total > 2 * most:
        raise DataError(
            f"{source}: says that it holds {count:,} files of {total >> 20:,} MB;"
            f" at most {most >> 19:,} MB are expected, so nothing of it is unpacked"
        )


@contextmanager
def _unpacked_rar(source: Path) -> Iterator[Path]:
    found = next(((program, call) for program, call in _RAR if shutil.which(program)), None)
    if found is None:
        raise DataError(
            f"{source}: is a RAR archive, which takes one of the programs {', '.join(p for p, _ in _RAR)};"
            " install one of them (libarchive-tools has bsdtar) and run this again, or unpack it"
            " yourself and give the folder with --from"
        )
    program, arguments = found
    with tempfile.TemporaryDirectory(prefix="twinned-") as folder:
        run = subprocess.run(
            [program, *arguments(str(source), folder)], stdin=subprocess.DEVNULL, capture_output=True
        )
        if run.returncode:
            reason = " ".join(run.stderr.decode(errors="replace").split())[:200]
            raise DataError(f"{source}: {program} could not unpack it ({reason or run.returncode})")
        yield Path(folder)
