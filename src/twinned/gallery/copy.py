"""Copy a gallery to another address, or embed its images again for another model."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from ..errors import DataError, GalleryError, ImageError, SettingError
from ..utils.progress import progress_bar
from .gallery import Gallery
from .open import open_gallery, open_store
from .qdrant import Store
from .qdrant_edge import EdgeStore
from .results import Added
from .search import pages
from .store import Embedder, Filter


def copy(source: Gallery, target: Gallery, *, progress: bool = True) -> int:
    """Copy every record and embedding to another gallery, and return the number of records written.

    Records that the target already has are skipped, so an interrupted copy can be run again.

    Args:
        source: Gallery to read.
        target: Gallery to write, of the same model.
        progress: Show a progress bar.

    Raises:
        GalleryError: If the galleries are bound to different models.
    """
    ours, theirs = source.store, target.store
    if ours.binding != theirs.binding:
        raise GalleryError(
            f"{ours.address} and {theirs.address} belong to different models. Rebuild one of them"
        )
    written = 0
    with progress_bar("Copying", ours.count(Filter()), show=progress) as advance:
        for records, vectors in pages(ours, Filter(), vectors=True):
            present, _ = theirs.get([record.id for record in records]) if records else ([], None)
            there = {record.id: record for record in present}
            missing = [place for place, record in enumerate(records) if there.get(record.id) != record]
            target.insert([records[place] for place in missing], vectors[missing])
            written += len(missing)
            advance(len(records))
    return written


def rebuild(
    address: str | os.PathLike[str],
    embedder: Embedder,
    *,
    into: str | os.PathLike[str] | None = None,
    skip_missing: bool = False,
    allow_loss: int = 0,
    progress: bool = True,
) -> Added:
    """Embed a gallery's images again, from their files, for another model.

    A folder is replaced atomically at the end; an interrupted rebuild leaves it unchanged. It is never
    replaced by a gallery with fewer images, unless ``allow_loss`` permits that.

    Args:
        address: Address of the gallery; any model may have filled it.
        embedder: The new model.
        into: Address of a new gallery to fill; required for a gallery on a server. An interrupted run can be
            repeated.
        skip_missing: Skip images whose file is missing or unreadable.
        allow_loss: Number of images by which the new gallery may be smaller than the folder it replaces.
        progress: Show a progress bar.

    Returns:
        Counts of the embedded images; ``unreadable`` lists the skipped ones.

    Raises:
        GalleryError: If image files are missing (names some), or more than ``allow_loss`` images would be
            lost.
        DataError: If a file cannot be read.
        SettingError: If ``allow_loss`` is negative, or is combined with ``into``.
    """
    if allow_loss < 0:
        raise SettingError(f"allow_loss is {allow_loss}. Give a number of images, 0 or more")
    if allow_loss and into is not None:
        raise SettingError(
            "`allow_loss=` cannot be combined with `into=`, because the old gallery is kept. Leave it out"
        )
    with contextlib.closing(open_store(address, None)) as old:
        in_place = old if into is None and isinstance(old, EdgeStore) else None
        if into is None and in_place is None:
            raise SettingError(
                f"{address}: a gallery on a server must be rebuilt into a new one. Name it with `into=`"
            )
        _check_files(old, skip_missing, allow_loss if in_place else None)
        draft = Path(old.address, "rebuild")
        if in_place:
            shutil.rmtree(draft, ignore_errors=True)  # from an interrupted run, possibly for another model
        with open_gallery(into or draft, embedder) as new:
            added = _add_all(old, new, skip_missing, progress)
            if in_place and isinstance(new.store, EdgeStore):
                _check_loss(old, new.store, added, allow_loss)
                in_place.adopt(new.store)
        return added


def _check_files(old: Store, skip_missing: bool, allow_loss: int | None) -> None:
    """Check that the image files exist before embedding; ``allow_loss`` is None without a limit."""
    lost = [one for page, _ in pages(old, Filter()) for one in page if not os.path.isfile(one.image or "")]
    count = old.count(Filter())
    allowed = count - 1 if allow_loss is None else allow_loss
    if not lost or (skip_missing and len(lost) <= allowed):
        return
    remedy = "Restore the files"
    if allow_loss is not None:
        remedy += f", or replace the gallery without them (`skip_missing=True` and `allow_loss={len(lost)}`)"
    elif len(lost) < count:
        remedy += ", or skip such images (`skip_missing=True`)"
    names = ", ".join(record.image or f"id {record.id} (not from a file)" for record in lost[:3])
    raise GalleryError(
        f"{old.address}: the files of {len(lost):,} of {count:,} images are missing, so these images cannot "
        f"be embedded again: {names}. Nothing was changed. {remedy}"
    )


def _check_loss(old: Store, new: EdgeStore, added: Added, allow_loss: int) -> None:
    before, after = old.count(Filter()), new.count(Filter())
    if before - after <= allow_loss:
        return
    reasons = [f"{len(added.unreadable):,} cannot be read"] if added.unreadable else []
    if added.skipped:
        reasons.append(f"{added.skipped:,} equal another image at this model's image size")
    new.close()
    shutil.rmtree(new.address, ignore_errors=True)
    raise GalleryError(
        f"{old.address}: the new gallery would have {after:,} images, but this one has {before:,} "
        f"({', '.join(reasons)}). Nothing was changed. Repair the files, fill a new gallery (`into=`), or "
        f"accept the loss (`allow_loss={before - after}`)"
    )


def _add_all(old: Store, new: Gallery, skip_missing: bool, progress: bool) -> Added:
    total = Added([], 0, 0, [])
    with progress_bar("Embedding", old.count(Filter()), show=progress) as advance:
        for records, _ in pages(old, Filter()):
            filed = [one for one in records if one.image]
            unfiled = [
                ImageError(f"id {one.id}", "did not come from a file") for one in records if not one.image
            ]
            added = new.add(
                [one.image or "" for one in filed],
                [one.label for one in filed],
                metadata=[one.metadata for one in filed],
                progress=False,
            )
            if added.unreadable and not skip_missing:
                raise DataError(
                    f"{added.unreadable[0]}. Repair it, or skip such images (`skip_missing=True`, and "
                    "`allow_loss=` if the gallery is replaced)"
                )
            total = Added(
                total.ids + added.ids + [None] * len(unfiled),
                total.stored + added.stored,
                total.skipped + added.skipped,
                total.unreadable + added.unreadable + unfiled,
            )
            advance(len(records))
    return total
