"""Embed any number of images into one file, in parts and resumable.

Finished parts are in ``FILE.partial/``; after the last one they are joined into the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..errors import DataError, MissingExtra, SettingError
from ..utils.files import replacing
from ..utils.progress import progress_bar
from .session import embed_stream

if TYPE_CHECKING:
    from .model import Model

_PART = 4096  # images


class Written(NamedTuple):
    """Result of `embed_to_file`: number of images, and a sentence for each unreadable one."""

    images: int
    errors: list[str]


def embed_to_file(
    model: Model,
    paths: Sequence[str],
    output: str | os.PathLike[str],
    *,
    strict: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
) -> Written:
    """Embed images into a .npz or .parquet file with path, vector and error of each.

    An unreadable image has a vector of NaN and its reason under error; the others have an empty error.

    Args:
        model: Model with the encoder.
        paths: Image files.
        output: File to write, with the suffix .npz or .parquet.
        strict: Stop at an unreadable image.
        resume: Continue an interrupted run with the same model and paths.
        force: Replace an existing file.
        progress: Show a progress bar.

    Raises:
        SettingError: If the suffix is neither, or the file exists.
        DataError: If ``strict`` and an image cannot be read.
    """
    target = Path(output)
    if target.suffix not in (".npz", ".parquet"):
        raise SettingError(f"{target}: The name must end in .npz or .parquet")
    run = hashlib.sha256(json.dumps([model.encoder_sha256, list(paths)]).encode()).hexdigest()
    work = target.with_name(target.name + ".partial")
    if target.exists() and not force:
        if resume and not work.exists():
            return Written(len(paths), [])
        raise SettingError(f"{target}: The file exists. Choose another name, or overwrite it with force")
    if not target.parent.is_dir():
        raise SettingError(f"{target.parent}: No such folder to write to")
    if work.exists() and not (resume and (work / run).exists()):
        if resume:
            raise SettingError(
                f"{work}: The partial run has another model or other images. Set force to start over"
            )
        shutil.rmtree(work)
    work.mkdir(exist_ok=True)
    (work / run).touch()
    errors: list[str] = []
    with progress_bar("Embedding", len(paths), show=progress) as advance:
        for number, start in enumerate(range(0, len(paths), _PART)):
            part, chunk = work / f"{number:06d}.npz", list(paths[start : start + _PART])
            if part.exists():
                advance(len(chunk))
            else:
                _write_part(part, chunk, model, strict, advance)
            with np.load(part, allow_pickle=False) as done:
                errors += [e for e in done["error"].tolist() if e]
    parts = sorted(work.glob("*.npz"))
    join = _join_npz if target.suffix == ".npz" else _join_parquet
    with replacing(target) as new:
        join(parts, new, len(paths), model.embedding_size)
    shutil.rmtree(work)
    return Written(len(paths), errors)


def _write_part(part: Path, paths: list[str], model: Model, strict: bool, advance: Any) -> None:
    vectors = np.empty((len(paths), model.embedding_size), np.float32)
    errors = [""] * len(paths)
    for chunk in embed_stream(paths, model.spec, model.encoder):
        vectors[chunk.start : chunk.start + len(chunk.vectors)] = chunk.vectors
        for place, error in enumerate(chunk.errors, start=chunk.start):
            if error is not None:
                if strict:
                    raise DataError(f"{error} (strict stops here)")
                errors[place] = str(error)
        advance(len(chunk.vectors))
    with replacing(part) as new, new.open("wb") as file:
        np.savez(file, path=np.array(paths), vector=vectors, error=np.array(errors))


def _column(parts: list[Path], name: str) -> Iterator[np.ndarray[Any, Any]]:
    for part in parts:
        with np.load(part, allow_pickle=False) as done:
            yield done[name]


def _join_npz(parts: list[Path], target: Path, count: int, size: int) -> None:
    """Stream the parts into one .npz without holding a whole array in memory."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
        for name in ("path", "vector", "error"):
            widest = max((a.dtype for a in _column(parts, name)), key=lambda d: d.itemsize)
            shape = (count, size) if name == "vector" else (count,)
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                header = {
                    "descr": np.lib.format.dtype_to_descr(widest),
                    "fortran_order": False,
                    "shape": shape,
                }
                np.lib.format.write_array_header_2_0(file, header)
                for array in _column(parts, name):
                    file.write(np.ascontiguousarray(array.astype(widest)).tobytes())


def _join_parquet(parts: list[Path], target: Path, count: int, size: int) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise MissingExtra("all", "writing .parquet") from None
    schema = pa.schema(
        [("path", pa.string()), ("vector", pa.list_(pa.float32(), size)), ("error", pa.string())]
    )
    with pq.ParquetWriter(target, schema) as writer:
        columns = zip(*(_column(parts, name) for name in ("path", "vector", "error")), strict=True)
        for path, vector, error in columns:
            flat = pa.array(vector.ravel(), pa.float32())
            table = [pa.array(path.tolist()), pa.FixedSizeListArray.from_arrays(flat, size)]
            writer.write_table(pa.table([*table, pa.array(error.tolist())], schema=schema))
