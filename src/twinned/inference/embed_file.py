"""Embed any number of images into one file, in parts and resumable.

Finished parts are in ``FILE.partial/``; after the last one they are joined into the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..data.preprocessing import Box, read_faces
from ..errors import DataError, ImageError, MissingExtra, SettingError
from ..utils.files import replacing
from ..utils.progress import progress_bar
from .session import Floats, embed_stream

if TYPE_CHECKING:
    from .model import Model

_PART = 4096  # images


def embed_to_file(
    model: Model | Callable[[list[str]], Iterator[Rows]],
    paths: Sequence[str],
    output: str | os.PathLike[str],
    *,
    strict: bool = False,
    resume: bool = False,
    force: bool = False,
    progress: bool = True,
) -> list[str]:
    """Embed image files into a .npz or .parquet file with path, vector and error of each; return the errors.

    An unreadable image has a vector of NaN and its reason under error. If the model embeds every face, each
    has a row, and the column box has its left, top, right and bottom in pixels; -1 for an unreadable image.
    A function in place of the model embeds images elsewhere; its runs cannot be resumed.
    """
    target = Path(output)
    if target.suffix not in (".npz", ".parquet"):
        raise SettingError(f"{target}: The name must end in .npz or .parquet")
    embed: Callable[[list[str]], Iterator[Rows]]
    if callable(model):
        embed, identity, faces = model, [], False
    else:
        embed, faces = partial(_rows, model=model), model.spec.faces == "all"
        identity = [model.encoder_sha256, model.spec.model_dump(mode="json")]
    run = hashlib.sha256(json.dumps([*identity, list(paths)]).encode()).hexdigest()
    work = target.with_name(target.name + ".partial")
    if target.exists() and not force:
        if resume and not work.exists():
            return []
        raise SettingError(f"{target}: The file exists. Choose another name, or set `force=True`")
    if not target.parent.is_dir():
        raise SettingError(f"{target.parent}: No such folder to write to")
    if work.exists() and not (resume and (work / run).exists()):
        if resume:
            raise SettingError(f"{work}: Has another model or other images. Set `force=True` to start over")
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
                _write_part(part, embed(chunk), faces, strict, advance)
            with np.load(part, allow_pickle=False) as done:
                errors += [e for e in done["error"].tolist() if e]
    parts = sorted(work.glob("*.npz"))
    join = _join_npz if target.suffix == ".npz" else _join_parquet
    with replacing(target) as new:
        join(parts, new)
    shutil.rmtree(work)
    return errors


class Rows(NamedTuple):
    """Rows of consecutive images: one for each image, or for each face of an image."""

    images: int
    paths: list[str]
    boxes: list[Box | None]
    vectors: Floats  # (rows, d)
    errors: list[ImageError | None]


def _rows(paths: list[str], model: Model) -> Iterator[Rows]:
    if model.spec.faces != "all":
        for start, vectors, errors in embed_stream(paths, model.spec, model.encoder):
            count = len(errors)
            yield Rows(count, paths[start : start + count], [None] * count, vectors, errors)
        return
    for path in paths:
        try:
            boxes, pixels = zip(*read_faces(path, model.spec), strict=True)
        except ImageError as error:
            yield Rows(1, [path], [None], np.full((1, model.embedding_size), np.nan, np.float32), [error])
        else:
            count = len(boxes)
            yield Rows(1, [path] * count, list(boxes), model.encoder(np.stack(pixels)), [None] * count)


def _write_part(part: Path, embedded: Iterator[Rows], faces: bool, strict: bool, advance: Any) -> None:
    found: list[Rows] = []
    for rows in embedded:
        if strict and (first := next(filter(None, rows.errors), None)):
            raise DataError(f"{first} (strict stops here)")
        found.append(rows)
        advance(rows.images)
    columns: dict[str, Any] = {
        "path": np.array([path for rows in found for path in rows.paths]),
        "vector": np.concatenate([rows.vectors for rows in found]),
        "error": np.array([str(error or "") for rows in found for error in rows.errors]),
    }
    if faces:
        columns["box"] = np.array([box or (-1,) * 4 for rows in found for box in rows.boxes], np.int32)
    with replacing(part) as new, new.open("wb") as file:
        np.savez(file, **columns)


def _names(part: Path) -> list[str]:
    with np.load(part, allow_pickle=False) as done:
        return list(done)


def _column(parts: list[Path], name: str) -> Iterator[np.ndarray[Any, Any]]:
    for part in parts:
        with np.load(part, allow_pickle=False) as done:
            yield done[name]


def _join_npz(parts: list[Path], target: Path) -> None:
    """Stream the parts into one .npz without holding a whole array in memory."""
    with zipfile.ZipFile(target, "w") as archive:
        for name in _names(parts[0]):
            shapes = [(array.dtype, array.shape) for array in _column(parts, name)]
            widest = max((dtype for dtype, _ in shapes), key=lambda dtype: dtype.itemsize)
            shape = (sum(shape[0] for _, shape in shapes), *shapes[0][1][1:])
            header = {"descr": np.lib.format.dtype_to_descr(widest), "fortran_order": False, "shape": shape}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_2_0(file, header)
                for array in _column(parts, name):
                    file.write(np.ascontiguousarray(array.astype(widest)).tobytes())


def _join_parquet(parts: list[Path], target: Path) -> None:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise MissingExtra("all", "writing .parquet") from None

    def column(array: np.ndarray[Any, Any]) -> Any:
        if array.ndim == 1:
            return pa.array(array.tolist(), pa.string())
        return pa.FixedSizeListArray.from_arrays(pa.array(array.ravel()), array.shape[1])

    names = _names(parts[0])
    rows = zip(*(_column(parts, name) for name in names), strict=True)
    tables = (pa.table(dict(zip(names, map(column, arrays), strict=True))) for arrays in rows)
    first = next(tables)
    with pq.ParquetWriter(target, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
