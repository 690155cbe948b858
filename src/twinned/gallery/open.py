"""Open a gallery by its address: a folder, or a collection on a Qdrant server."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import GalleryError, SettingError
from . import qdrant_edge
from .gallery import Gallery
from .gallery_file import system_error
from .qdrant import Store
from .store import Binding, Embedder, binding_of


def open_gallery(
    address: str | os.PathLike[str],
    embedder: Embedder,
    *,
    create: bool = True,
    read_only: bool = False,
    timeout: float | None = None,
) -> Gallery:
    """Open a gallery, or create an empty one.

    Args:
        address: A folder, or ``http://host:6333/name`` on a Qdrant server (extra ``cluster``).
        embedder: The model. Galleries filled by another model raise an error.
        create: Create a missing gallery.
        read_only: Raise an error on every change; a missing gallery is not created.
        timeout: Seconds to wait for each response of a Qdrant server; 60 by default.

    Raises:
        GalleryError: If it is missing, damaged, in use by another process or filled by another model,
            or the disk is full.
    """
    wanted = binding_of(embedder)
    store = open_store(address, wanted if create and not read_only else None, timeout=timeout)
    if store.binding != wanted:
        store.close()
        raise GalleryError(
            f"{address}: was filled by another model ({_describe(store.binding)}; this one is "
            f"{_describe(wanted)}). Open it with that model, or embed its images again with this one: "
            "twinned gallery rebuild"
        )
    return Gallery(store, embedder, read_only=read_only)


def open_store(
    address: str | os.PathLike[str], binding: Binding | None, *, timeout: float | None = None
) -> Store:
    """Open the store at an address; with a binding, create a missing one."""
    text = os.fspath(address)
    if "://" in text:
        if not text.startswith(("http://", "https://")):
            raise SettingError(
                f"Invalid gallery address {text!r}: expected a folder or http://HOST:6333/NAME"
            )
        from . import qdrant_server  # qdrant_client is an optional dependency

        return qdrant_server.open_collection(text, binding, timeout=timeout)
    folder = Path(text).absolute()
    try:
        if folder.exists() and not folder.is_dir():
            raise GalleryError(
                f"{address}: is a file, but a gallery is a folder. Check the order of image and gallery"
            )
        empty = not folder.exists() or not any(folder.iterdir())
    except OSError as error:
        raise system_error(folder, error) or GalleryError(
            f"{address}: cannot be opened ({error}). Check the path, or choose another folder"
        ) from error
    if empty:
        if binding is None:
            raise GalleryError(
                f"{address}: the gallery does not exist. Add images to create it: twinned gallery add"
            )
        qdrant_edge.create(folder, binding)
    return qdrant_edge.EdgeStore(folder)


def _describe(binding: Binding) -> str:
    return f"{binding.encoder_sha256[:12]}, {binding.embedding_size} values, {binding.distance} distance"
