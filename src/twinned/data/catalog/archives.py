"""Extract archives from untrusted sources: only expected files, within a size limit.

Each expected file is mapped to a path that is not taken from the archive. Links and devices are skipped.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

from ...errors import DataError

_CHUNK = 1 << 20
_MAX_MEMBERS = 500_000
# Programs that extract RAR archives, with their arguments for an archive and a folder.
_RAR: tuple[tuple[str, Callable[[str, str], list[str]]], ...] = (
    ("bsdtar", lambda file, folder: ["-xf", file, "-C", folder]),
    ("unar", lambda file, folder: ["-quiet", "-output-directory", folder, file]),
    ("7z", lambda file, folder: ["x", "-y", f"-o{folder}", file]),
    ("unrar", lambda file, folder: ["x", "-y", "-idq", file, f"{folder}{os.sep}"]),
)
SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar", ".rar")


class Member(NamedTuple):
    """File of a folder or an archive."""

    name: str  # path inside the folder or archive
    size: int  # in bytes
    open: Callable[[], IO[bytes]]


def unpack(
    source: Path,
    target: Path,
    *,
    place: Callable[[str], str | None],
    max_bytes: int,
    advance: Callable[[int], None] = lambda amount: None,
) -> int:
    """Write the expected files of an archive, a folder or a single file; return the number of bytes.

    ``place`` maps the path of a file to its path below the target, or None to skip it. Existing files stay.

    Raises:
        DataError: If the archive is damaged or too large; declared sizes are checked before any write.
    """
    written = 0
    with closing(_members(source, max_bytes)) as members:
        for member in members:
            path = place(member.name)
            if path is None or (file := target / path).exists():
                continue
            written += member.size
            if written > max_bytes:
                raise DataError(
                    f"{source}: The files have more than {max_bytes >> 20} MB, the limit of this data set."
                )
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with member.open() as content, file.open("xb") as out:
                    _copy(content, out, member, source)
            except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
                raise DataError(f"{source}: {member.name} is damaged ({error}). Download it again.") from None
            advance(1)
    return written


def _copy(content: IO[bytes], out: IO[bytes], member: Member, source: Path) -> None:
    left = member.size
    while left:
        chunk = content.read(min(_CHUNK, left))
        if not chunk:
            raise DataError(f"{source}: {member.name} is truncated. Download it again.")
        out.write(chunk)
        left -= len(chunk)
    if content.read(1):
        raise DataError(f"{source}: {member.name} is longer than its declared size. Download it again.")


def _members(source: Path, max_bytes: int) -> Generator[Member]:
    kind = next((suffix for suffix in SUFFIXES if source.name.lower().endswith(suffix)), "")
    if source.is_dir():
        yield from _of_folder(source)
    elif kind == "":
        yield Member(source.name, source.stat().st_size, partial(_read, source))
    elif kind == ".rar":
        yield from _of_rar(source)
    elif kind == ".zip":
        yield from _of_zip(source, max_bytes)
    else:
        yield from _of_tar(source, max_bytes)


def _of_folder(folder: Path) -> Iterator[Member]:
    for above, inner, files in os.walk(folder):
        inner.sort()
        for name in sorted(files):
            path = Path(above, name)
            if path.is_file() and not path.is_symlink():
                inside = f"{folder.name}/{path.relative_to(folder).as_posix()}"
                yield Member(inside, path.stat().st_size, partial(_read, path))


def _of_zip(source: Path, max_bytes: int) -> Iterator[Member]:
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{source}: Not a readable ZIP archive ({error}).") from None
    with archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        _refuse_bomb(source, len(entries), sum(entry.file_size for entry in entries), max_bytes)
        for entry in entries:
            if (entry.external_attr >> 16) & 0o170000 in (0, 0o100000):  # a regular file, or unspecified
                yield Member(entry.filename, entry.file_size, partial(archive.open, entry))


def _of_tar(source: Path, max_bytes: int) -> Iterator[Member]:
    import tarfile

    count = total = 0
    try:
        with tarfile.open(source, "r:*") as archive:
            for entry in archive:
                count, total = count + 1, total + entry.size
                _refuse_bomb(source, count, total, max_bytes)
                if entry.isreg():
                    yield Member(entry.name, entry.size, partial(_extract, archive, entry))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{source}: Not a complete tar archive ({error}). Download it again.") from None


def _read(path: Path) -> IO[bytes]:
    return path.open("rb")


def _extract(archive: Any, entry: Any) -> IO[bytes]:
    content: IO[bytes] = archive.extractfile(entry)
    return content


def _refuse_bomb(source: Path, count: int, total: int, max_bytes: int) -> None:
    if count > _MAX_MEMBERS or total > 2 * max_bytes:
        raise DataError(
            f"{source}: The archive declares {count:,} files of {total >> 20:,} MB, but at most"
            f" {max_bytes >> 19:,} MB are expected. Nothing was extracted."
        )


def _of_rar(source: Path) -> Iterator[Member]:
    found = next(((program, call) for program, call in _RAR if shutil.which(program)), None)
    if found is None:
        raise DataError(
            f"{source}: Extracting a RAR archive requires one of the programs"
            f" {', '.join(p for p, _ in _RAR)}. Install one of them (bsdtar is in the package"
            " libarchive-tools), or extract the archive yourself and use the folder as the source."
        )
    program, arguments = found
    with tempfile.TemporaryDirectory(prefix="twinned-") as folder:
        run = subprocess.run(
            [program, *arguments(str(source), folder)], stdin=subprocess.DEVNULL, capture_output=True
        )
        if run.returncode:
            reason = " ".join(run.stderr.decode(errors="replace").split())[:200]
            raise DataError(
                f"{source}: {program} could not extract the archive ({reason or run.returncode})."
            )
        yield from _of_folder(Path(folder))
