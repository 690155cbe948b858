"""Whole galleries: copied to another place, or embedded again for another model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import DataError, GalleryError, SettingError
from ..progress import progress_bar
from .edge import EdgeStore
from .embedder import Embedder
from .finding import pages
from .gallery import Gallery
from .opening import open_gallery, open_store
from .results import Added
from .store import Filter, Store


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
    progress: bool = True,
) -> Added:
    """Embed a gallery's images again, from their files, for another model.

    A folder is replaced in one step at the end: until then, and if this is cut off, it is as it was.

    Args:
        address: The gallery, whichever model filled it.
        embedder: The new model.
        into: A new gallery to fill instead; needed for one on a server. It goes on where it was cut off.
        skip_missing: Leave out images that have no readable file any more, rather than stop.
        progress: Show a bar.

    Raises:
        GalleryError: If images have no file any more; names some.
        DataError: If a file cannot be read.
    """
    old = open_store(address, None)
    try:
        in_place = old if into is None and isinstance(old, EdgeStore) else None
        if into is None and in_place is None:
            raise SettingError(f"{address}: a gallery on a server is rebuilt into a new one; name it: into")
        if not skip_missing:
            _check_files(old)
        draft = Path(old.address, "rebuild")
        if in_place:
            shutil.rmtree(draft, ignore_errors=True)  # of a run that was cut off, perhaps for another model
        with open_gallery(into or draft, embedder) as new:
            added = _add_all(old, new, skip_missing, progress)
            if in_place and isinstance(new.store, EdgeStore):
                in_place.adopt(new.store)
        return added
    finally:
        old.close()


def _check_files(old: Store) -> None:
    lost = [
        record.image or f"id {record.id} (not from a file)"
        for records, _ in pages(old, Filter())
        for record in records
        if record.image is None or not os.path.isfile(record.image)
    ]
    if lost:
        raise GalleryError(
            f"{old.address}: {len(lost):,} of {old.count(Filter()):,} images have no file any more and "
            f"cannot be embedded again: {', '.join(lost[:3])}; put the files back, or leave such images out "
            "(--skip-missing)"
        )


def _add_all(old: Store, new: Gallery, skip_missing: bool, progress: bool) -> Added:
    total = Added([], 0, 0, [])
    with progress_bar("Embedding again", old.count(Filter()), show=progress) as advance:
        for records, _ in pages(old, Filter()):
            filed = [(record.image, record) for record in records if record.image is not None]
            added = new.add(
                [image for image, _ in filed],
                [record.label for _, record in filed],
                metadata=[record.metadata for _, record in filed],
                progress=False,
            )
            if added.unreadable and not skip_missing:
                raise DataError(
                    f"{added.unreadable[0]}; repair it, or leave such images out (--skip-missing)"
                )
            total = Added(
                total.ids + added.ids,
                total.stored + added.stored,
                total.skipped + added.skipped,
                total.unreadable + added.unreadable,
            )
            advance(len(records))
    return total
