"""Whole galleries: copied to another place, or embedded again for another model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import (
    DataError,
    GalleryError,
    ImageError,
    SettingError,
)
from ..utils.progress import progress_bar
from .embedder import Embedder
from .gallery import Gallery
from .open import open_gallery, open_store
from .qdrant_edge import EdgeStore
from .results import Added
from .search import pages
from .store import Filter, Record, Store


def copy(source: Gallery, target: Gallery, *, progress: bool = True) -> int:
    """Copy every record and embedding, from a folder to a server or the other way.

    What the target holds already is skipped, so a copy that was cut off is simply run again.

    Args:
        source: Where to read.
        target: Where to write: a gallery of the same model.
        progress: Show a bar.

    Returns:
        How many were written.

    Raises:
        GalleryError: If the two are bound to different models.
    """
    ours, theirs = source.store, target.store
    if ours.binding != theirs.binding:
        raise GalleryError(
            f"{ours.address} and {theirs.address} are of different models; rebuild one of them"
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

    A folder is replaced in one step at the end: until then, and if this is cut off, it does not change. It is
    never replaced by a gallery with fewer images, unless ``allow_loss`` permits it.

    Args:
        address: The gallery, whichever model filled it.
        embedder: The new model.
        into: A new gallery to fill instead; needed for one on a server. It goes on where it was cut off.
        skip_missing: Leave out images that have no readable file any more, rather than stop.
        allow_loss: Replace the folder even if the new gallery has up to this many images fewer.
        progress: Show a bar.

    Returns:
        What was embedded; an image that was left out is in ``unreadable``.

    Raises:
        GalleryError: If images have no file any more (names some), or more than ``allow_loss`` would be lost.
        DataError: If a file cannot be read.
        SettingError: If ``allow_loss`` is negative, or comes with ``into``, which replaces no gallery.
    """
    if allow_loss < 0:
        raise SettingError(f"allow_loss is {allow_loss}; expected a number of images, 0 or more")
    if allow_loss and into is not None:
        raise SettingError(
            "allow_loss is for a gallery that is replaced; with into the old one stays: omit it"
        )
    old = open_store(address, None)
    try:
        in_place = old if into is None and isinstance(old, EdgeStore) else None
        if into is None and in_place is None:
            raise SettingError(f"{address}: a gallery on a server is rebuilt into a new one; name it: into")
        _check_files(old, skip_missing, allow_loss if in_place else None)
        draft = Path(old.address, "rebuild")
        if in_place:
            shutil.rmtree(draft, ignore_errors=True)  # of a run that was cut off, perhaps for another model
        with open_gallery(into or draft, embedder) as new:
            added = _add_all(old, new, skip_missing, progress)
            if in_place and isinstance(new.store, EdgeStore):
                _check_loss(old, new.store, added, allow_loss)
                in_place.adopt(new.store)
        return added
    finally:
        old.close()


def _check_files(old: Store, skip_missing: bool, allow_loss: int | None) -> None:
    """Look for the images' files before anything is embedded; ``into`` has no limit of losses, None."""
    lost = [record for records, _ in pages(old, Filter()) for record in records if not _has_file(record)]
    if not lost:
        return
    count = old.count(Filter())
    if skip_missing and (len(lost) <= allow_loss if allow_loss is not None else len(lost) < count):
        return
    remedy = "put the files back"
    if allow_loss is not None:
        remedy += f", or replace the gallery without them (--skip-missing --allow-loss {len(lost)})"
    elif len(lost) < count:
        remedy += ", or leave such images out (--skip-missing)"
    names = ", ".join(record.image or f"id {record.id} (not from a file)" for record in lost[:3])
    raise GalleryError(
        f"{old.address}: {len(lost):,} of {count:,} images have no file any more and cannot be embedded "
        f"again: {names}; nothing was changed: {remedy}"
    )


def _check_loss(old: Store, new: EdgeStore, added: Added, allow_loss: int) -> None:
    before, after = old.count(Filter()), new.count(Filter())
    if before - after <= allow_loss:
        return
    reasons = [f"{len(added.unreadable):,} cannot be read"] if added.unreadable else []
    if added.skipped:
        reasons.append(f"{added.skipped:,} are the same as another at this model's image size")
    new.close()
    shutil.rmtree(new.address, ignore_errors=True)
    raise GalleryError(
        f"{old.address}: the new gallery would have {after:,} images where this one has {before:,} "
        f"({', '.join(reasons)}); nothing was changed: repair the files, fill a new gallery instead "
        f"(--into), or accept the loss (--allow-loss {before - after})"
    )


def _has_file(record: Record) -> bool:
    return record.image is not None and os.path.isfile(record.image)


def _add_all(old: Store, new: Gallery, skip_missing: bool, progress: bool) -> Added:
    total = Added([], 0, 0, [])
    with progress_bar("Embedding again", old.count(Filter()), show=progress) as advance:
        for records, _ in pages(old, Filter()):
            filed = [(record.image, record) for record in records if record.image is not None]
            unfiled = [
                ImageError(f"id {record.id}", "did not come from a file")
                for record in records
                if record.image is None
            ]
            added = new.add(
                [image for image, _ in filed],
                [record.label for _, record in filed],
                metadata=[record.metadata for _, record in filed],
                progress=False,
            )
            if added.unreadable and not skip_missing:
                raise DataError(
                    f"{added.unreadable[0]}; repair it, or leave such images out (--skip-missing, and "
                    "--allow-loss N where the gallery is replaced)"
                )
            total = Added(
                total.ids + added.ids + [None] * len(unfiled),
                total.stored + added.stored,
                total.skipped + added.skipped,
                total.unreadable + added.unreadable + unfiled,
            )
            advance(len(records))
    return total
