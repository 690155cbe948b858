"""Fetch public data sets by name, or convert local copies, to folders ready for training.

Downloads are checked against their published SHA-256, or compared with the previous download.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError, SettingError
from ...utils import files
from ...utils.notes import note
from ...utils.progress import progress_bar
from ..readers import find_images
from . import registry
from .archives import SUFFIXES, unpack
from .registry import DataSet, Download

RECORD = "SOURCE.json"  # origin of the files, in each folder that `fetch` wrote
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 18


def fetch(
    name: str,
    output: str | os.PathLike[str] | None = None,
    *,
    source: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: bool = True,
) -> Path:
    """Fetch a public data set from its owner, or convert a local copy.

    Terms, addresses and checksums are logged to the logger ``twinned``.

    Args:
        name: ``orl``, ``cedar``, ``lfw``, ``omniglot``, ``fashion-mnist``, or one that needs no download:
            ``digits`` (of scikit-learn) or ``letters`` (drawn with the typefaces of matplotlib).
        output: Folder to write; by default the name. It is written completely or not at all.
        source: Archive or folder with a copy of the data set. By default the folder in the environment
            variable TWINNED_DATA is searched for one before the data set is downloaded.
        force: Replace ``output`` if this function wrote it.
        progress: Show progress bars.

    Returns:
        The folder. Its SOURCE.json names the origin of each file.

    Raises:
        SettingError: If the name is unknown, or ``output`` exists.
        DataError: If the download fails, a checksum differs, or ``source`` does not hold the data set.
    """
    target = Path(name if output is None else output)
    files.check_output(target, force=force, data=() if source is None else (source,))
    before = _record(target)
    if target.exists() and before is None:
        raise SettingError(
            f"{target}: The folder exists and was not written by this command. Choose another output folder."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as temporary:
        work = Path(temporary, "new")
        work.mkdir()
        facts = _fill(name, work, source, before, target, progress=progress)
        facts["images"] = len(find_images(work))
        (work / RECORD).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
        if target.exists():
            shutil.rmtree(target)
        work.rename(target)
    shutil.rmtree(_downloads(target), ignore_errors=True)
    return target


get = fetch  # name in version 0.1


def find(name: str) -> Path | None:
    """Return the folder of a data set that is available without a download.

    Args:
        name: Name of the data set, as for `fetch`.

    Returns:
        The folder of that name in the working directory if `fetch` wrote it; else the copy in the folder that
        TWINNED_DATA names, unpacked once into the user's cache; None if there is neither.
    """
    if (_record(Path(name)) or {}).get("name") == name:
        return Path(name)
    data_set = registry.named(name)
    copies = _copies(data_set, os.environ.get("TWINNED_DATA"))
    if not copies:
        return None
    stamp = repr([(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in copies])
    cached = files.cache_folder() / hashlib.sha256(stamp.encode()).hexdigest()[:16] / name
    if _record(cached) is None:
        cached.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            fresh = fetch(name, Path(folder, name), source=os.environ["TWINNED_DATA"], progress=False)
            try:
                fresh.rename(cached)
            except OSError:  # another process was faster
                if _record(cached) is None:
                    raise
    return cached


def _fill(
    name: str,
    work: Path,
    source: str | os.PathLike[str] | None,
    before: dict[str, Any] | None,
    target: Path,
    *,
    progress: bool,
) -> dict[str, Any]:
    """Write the files of a data set into a folder; return the content of SOURCE.json."""
    data_set = registry.named(name)
    note("terms", f"{data_set.title}. Terms: {data_set.terms}; {data_set.page}")
    copies = _copies(data_set, os.environ.get("TWINNED_DATA") if source is None else source)
    if source is not None and not copies:
        copies = [Path(source)]
        if not copies[0].exists():
            raise DataError(f"{source}: no such file or folder. Give an archive or a folder of {name}.")
    if copies:
        note("local-copy", f"copying from {', '.join(map(str, copies))}")
        origins = [
            {"file": copy.name} | ({} if copy.is_dir() else {"sha256": files.file_sha256(copy)})
            for copy in copies
        ]
    else:
        origins, copies = [], []
        for download in data_set.downloads:
            path = _download(download, _downloads(target), progress=progress)
            sha256 = files.file_sha256(path)
            if download.sha256 is None:
                _check_unchanged(download, sha256, before, target)
            origins.append({"file": path.name, "address": download.addresses[0], "sha256": sha256})
            copies.append(path)
    left = data_set.max_bytes
    with progress_bar(f"Unpacking {name}", None, show=progress) as advance:
        for copy in copies:
            for part in _parts(copy, data_set):
                left -= unpack(part, work, place=data_set.place, max_bytes=left, advance=advance)
    if data_set.rules and not any(work.iterdir()):
        raise DataError(
            f"{', '.join(map(str, copies))}: Holds no files of {name}. Expected"
            f" {' or '.join(data_set.local[:2])}, or their content."
        )
    if data_set.finish is not None:
        data_set.finish(work)
    found = len(find_images(work))
    if found != data_set.images:
        note("incomplete", f"incomplete copy: found {found:,} of {data_set.images:,} images")
    about = {key: getattr(data_set, key) for key in ("name", "title", "terms", "page")}
    return {**about, "files": origins}


def _copies(data_set: DataSet, root: str | os.PathLike[str] | None) -> list[Path]:
    """Return the files and folders in a folder that have the name of a copy of the data set."""
    if not root or not Path(root).is_dir():
        return []
    here = {path.name: path for path in Path(root).iterdir()}
    found = [here[name] for name in data_set.local if name in here]
    archives = [path for path in found if path.is_file()]
    # Skip a folder that one of the archives was unpacked to.
    return [p for p in found if not any(p.is_dir() and a.name.startswith(f"{p.name}.") for a in archives)]


def _parts(copy: Path, data_set: DataSet) -> Iterator[Path]:
    """Yield a copy and, if it is a folder, the archives of the data set in it."""
    yield copy
    if copy.is_dir():
        names = {*data_set.local, *(download.file for download in data_set.downloads)}
        yield from sorted(p for p in copy.iterdir() if p.name in names and p.name.endswith(SUFFIXES))


def _downloads(target: Path) -> Path:
    """Return the folder that keeps finished downloads until the data set is complete."""
    return target.with_name(target.name + ".download")


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _check_unchanged(download: Download, sha256: str, before: dict[str, Any] | None, target: Path) -> None:
    """Compare a file without a published checksum with the previous download."""
    for file in (before or {}).get("files", ()):
        if file.get("file") == download.file and file.get("sha256") not in (None, sha256):
            raise DataError(
                f"{download.addresses[0]}: The file has changed since {target} was made from it (SHA-256"
                f" {sha256}, before {file['sha256']}). Remove {target} to accept the new file."
            )
    note(
        "unverified-download",
        f"no checksum of {download.file} is published: the file is accepted with SHA-256 {sha256}, which"
        f" {RECORD} stores",
    )


def _download(download: Download, folder: Path, *, progress: bool) -> Path:
    """Download a file into a folder, unless an earlier run finished it."""
    import pooch
    import requests  # installed with pooch

    def receive(address: str, path: str, _: object) -> None:
        # Without compression by the server, Content-Length is the size of the file.
        headers = {"User-Agent": "twinned", "Accept-Encoding": "identity"}
        with (
            open(path, "wb") as file,
            requests.get(address, stream=True, timeout=_TIMEOUT, headers=headers) as response,
            progress_bar(f"{download.file} (KB)", None, show=progress) as advance,
        ):
            response.raise_for_status()
            advance(0, total=int(response.headers.get("Content-Length", 0)) >> 10 or None)
            left = download.max_bytes
            for chunk in response.iter_content(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise ValueError(f"the file has more than the expected {download.max_bytes >> 20} MB")
                file.write(chunk)
                advance(len(chunk) >> 10)

    pooch.get_logger().setLevel(logging.WARNING)  # its other messages repeat the notes
    reasons = []
    for address in download.addresses:
        note("download", f"downloading {address}")
        try:
            return Path(pooch.retrieve(address, download.sha256, download.file, folder, None, receive))
        except (OSError, ValueError) as error:
            no_answer = isinstance(error, requests.ConnectionError)
            reasons.append(f"{address}: {'no connection' if no_answer else error}")
    raise DataError(
        f"{download.file} could not be downloaded ({'; '.join(reasons)}). Download it with another program"
        " and set the environment variable TWINNED_DATA to its folder."
    )
