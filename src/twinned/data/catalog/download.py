"""The public data sets, by name: fetched from their owners, or made from a local copy, ready for training.

`get` writes a folder; `find` returns one that is at hand. Nothing is believed that can be checked: a download
is compared with the SHA-256 that is publicly known, or is remembered where none is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError, SettingError
from ...utils import files as outputs
from ...utils.progress import progress_bar
from ..readers import find_images
from . import convert, registry
from .archives import SUFFIXES, unpack
from .registry import DataSet, Download

RECORD = "SOURCE.json"  # in each folder that `get` made: where its files came from
_TIMEOUT = 30.0
_CHUNK = 1 << 18

Say = Callable[[str], None]


def get(
    name: str,
    output: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: bool = True,
    say: Say = lambda sentence: None,
) -> Path:
    """Fetch a public data set from its owner, or take it from a local copy.

    Args:
        name: ``orl``, ``cedar``, ``lfw``, ``omniglot``, ``fashion-mnist``, or ``digits``, which
            scikit-learn ships.
        output: The folder to write; by default its name. It is written whole or not at all.
        source: An archive or a folder to take it from: the data set's own, or one that holds it. By default
            the folder that the variable TWINNED_DATA names, where it holds the data set, else its owner.
        force: Replace ``output``, if it is a data set that this function wrote.
        progress: Show bars.
        say: Called with each sentence that a user should read: terms, addresses, checksums.

    Returns:
        The folder. SOURCE.json in it says where each file came from.

    Raises:
        SettingError: If there is no data set of that name, or ``output`` exists.
        DataError: If it cannot be fetched, is not what it should be, or is not in ``source``.
    """
    target = Path(name if output is None else output)
    given = () if source is None else (source,)
    outputs.refuse(target, force=force, data=given)
    before = _record(target)
    if target.exists() and before is None:
        raise SettingError(
            f"{target}: exists and was not written by this command; choose another place with -o"
        )
    work = target.with_name(target.name + ".partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        if name == "digits":
            convert.write_digits(work)
            facts: dict[str, Any] = {"name": name, "files": [{"file": "scikit-learn's digits"}]}
        else:
            facts = _fill(registry.named(name), work, source, before, target, progress=progress, say=say)
        facts["images"] = len(find_images(work))
        (work / RECORD).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(_downloads(target), ignore_errors=True)
    return target


def find(name: str) -> Path | None:
    """A data set that is at hand, fetching nothing.

    Args:
        name: As for `get`.

    Returns:
        The folder that `get` wrote here, under its own name; else the copy below TWINNED_DATA, unpacked once
        and kept in the user's cache; None if there is neither.
    """
    if (_record(Path(name)) or {}).get("name") == name:
        return Path(name)
    data_set = registry.named(name)
    copies = _copies(data_set, os.environ.get("TWINNED_DATA"))
    if not copies:
        return None
    stamp = repr([(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in copies])
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    kept = home / "twinned" / hashlib.sha256(stamp.encode()).hexdigest()[:16] / name
    if _record(kept) is None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            fresh = get(name, Path(folder, name), source=os.environ["TWINNED_DATA"], progress=False)
            try:
                fresh.rename(kept)
            except OSError:  # another process was quicker
                if _record(kept) is None:
                    raise
    return kept


def _fill(
    data_set: DataSet,
    work: Path,
    source: str | os.PathLike[str] | None,
    before: dict[str, Any] | None,
    target: Path,
    *,
    progress: bool,
    say: Say,
) -> dict[str, Any]:
    """Put a data set's files into a folder; what is to be remembered of them."""
    say(f"{data_set.title}. Terms: {data_set.terms}; {data_set.page}")
    if source is not None:
        copies = _copies(data_set, source) or [Path(source)]
        if not copies[0].exists():
            raise DataError(
                f"{source}: no such file or folder; give an archive or a folder of {data_set.name}"
            )
    else:
        copies = _copies(data_set, os.environ.get("TWINNED_DATA"))
    if copies:
        say(f"taken from {', '.join(map(str, copies))}")
        files = [
            {"file": copy.name} | ({} if copy.is_dir() else {"sha256": _sha256(copy)}) for copy in copies
        ]
    else:
        files, copies = [], []
        for download in data_set.downloads:
            path, sha256 = _fetch(download, _downloads(target), progress=progress, say=say)
            _remembered(download, sha256, before, target, say)
            files.append({"file": path.name, "address": download.addresses[0], "sha256": sha256})
            copies.append(path)
    left = data_set.most
    with progress_bar(f"Unpacking {data_set.name}", None, show=progress) as advance:
        for copy in copies:
            for part in _parts(copy, data_set):
                left -= unpack(part, work, place=data_set.place, most=left, advance=advance)
    if not any(work.iterdir()):
        raise DataError(
            f"{', '.join(map(str, copies))}: holds nothing of {data_set.name}; expected are files such as"
            f" {' or '.join(data_set.local[:2])}, or what is in them"
        )
    if data_set.finish is not None:
        data_set.finish(work)
    found = len(find_images(work))
    if found != data_set.images:
        say(f"{found:,} images were found, {data_set.images:,} belong to it: this copy is not the whole")
    return {
        "name": data_set.name,
        "title": data_set.title,
        "terms": data_set.terms,
        "page": data_set.page,
        "files": files,
    }


def _copies(data_set: DataSet, root: str | os.PathLike[str] | None) -> list[Path]:
    """The files and folders below a folder that may be a copy of the data set, by their names."""
    if not root or not Path(root).is_dir():
        return []
    here = {path.name: path for path in Path(root).iterdir()}
    found = [here[name] for name in data_set.local if name in here]
    archives = [path for path in found if path.is_file()]
    # Where there are archives and the folders they were unpacked to, one of both is enough.
    return [p for p in found if not any(p.is_dir() and a.name.startswith(f"{p.name}.") for a in archives)]


def _parts(copy: Path, data_set: DataSet) -> Iterator[Path]:
    """A copy, and the data set's archives in it where it is a folder."""
    yield copy
    if copy.is_dir():
        names = {*data_set.local, *(download.file for download in data_set.downloads)}
        yield from sorted(p for p in copy.iterdir() if p.name in names and p.name.endswith(SUFFIXES))


def _downloads(target: Path) -> Path:
    """Where downloads lie until the data set is whole, so that an interrupted one can go on."""
    return target.with_name(target.name + ".download")


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _remembered(
    download: Download, sha256: str, before: dict[str, Any] | None, target: Path, say: Say
) -> None:
    """Where no checksum is known: compare with what was fetched the last time, and say so."""
    if download.sha256 is not None:
        return
    for file in (before or {}).get("files", ()):
        if file.get("file") == download.file and file.get("sha256") not in (None, sha256):
            raise DataError(
                f"{download.addresses[0]}: has changed since {target} was made from it (SHA-256 {sha256},"
                f" then {file['sha256']}); remove {target} to take the new one on trust"
            )
    say(
        f"no checksum of {download.file} is publicly known: it is taken on trust, with SHA-256 {sha256},"
        f" which {RECORD} remembers"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch(download: Download, folder: Path, *, progress: bool, say: Say) -> tuple[Path, str]:
    """Fetch a file into a folder; go on with what an interrupted run left where a checksum can tell.

    Returns:
        The file, and its SHA-256.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / download.file
    if path.exists() and download.sha256 and _sha256(path) == download.sha256:
        return path, download.sha256
    part = path.with_name(path.name + ".part")
    if download.sha256 is None:
        part.unlink(missing_ok=True)
    reasons = []
    for address in download.addresses:
        say(f"fetching {address}")
        for _ in range(2):  # the second time from the beginning, if what was there did not fit
            resumed = part.exists()
            try:
                _receive(address, part, download.most, progress=progress)
            except (OSError, ValueError) as error:
                reasons.append(f"{address}: {error}")
                break
            sha256 = _sha256(part)
            if download.sha256 in (None, sha256):
                part.replace(path)
                return path, sha256
            part.unlink()
            reasons.append(f"{address}: SHA-256 {sha256}, but {download.sha256} is what was published")
            if not resumed:
                break
    raise DataError(
        f"{download.file} could not be fetched ({'; '.join(reasons)}); get it in another way and give it"
        " with --from, or name the folder that holds it in the variable TWINNED_DATA"
    )


def _receive(address: str, part: Path, most: int, *, progress: bool) -> None:
    """Append to a file what an address still holds of it.

    Raises:
        OSError: If it cannot be read to its end.
        ValueError: If it has more bytes than it may.
    """
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "twinned"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(address, headers=headers), timeout=_TIMEOUT)
    except HTTPError as error:
        if error.code == 416 and have:  # all of it is there, or more: the checksum will tell
            return
        raise
    with response:
        if response.status != 206:
            have = 0
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdigit() else None
        if (total or 0) > most:
            raise ValueError(f"it has {(total or 0) >> 20} MB; at most {most >> 20} MB are expected")
        with (
            part.open("ab" if have else "wb") as out,
            progress_bar(f"{part.stem} (KB)", total and total >> 10, show=progress) as advance,
        ):
            done = have
            advance(done >> 10)
            try:
                while chunk := response.read(_CHUNK):
                    if done + len(chunk) > most:
                        raise ValueError(f"it has more than the {most >> 20} MB that are expected")
                    out.write(chunk)
                    advance(((done + len(chunk)) >> 10) - (done >> 10))
                    done += len(chunk)
            except HTTPException as error:
                raise OSError(f"broke off after {done:,} bytes ({error!r})") from None
    if total is not None and done < total:
        raise OSError(f"broke off after {done:,} of {total:,} bytes; run this again to go on")
