"""Galleries in a folder, in the local mode of qdrant-client, and on a server."""

from __future__ import annotations

import os
import sys
import uuid
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # fake_model, which subprocesses also import

from fake_model import FakeModel

from twinned.gallery.gallery import Gallery
from twinned.gallery.open import open_gallery

from ..conftest import in_memory

Opener = Callable[..., Gallery]
_SERVER = "TWINNED_QDRANT_URL"


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    yield from in_memory(tmp_path)


def _folder(tmp_path: Path) -> Opener:
    return lambda model, name="people": open_gallery(tmp_path / f"{name}.gallery", model)


def _local_mode() -> Opener:
    qdrant_client = pytest.importorskip("qdrant_client")
    from twinned.gallery import qdrant_server
    from twinned.gallery.store import binding_of

    client = qdrant_client.QdrantClient(":memory:")
    client.close = lambda: None  # data outlive a client, as on a server

    def open_it(model: FakeModel, name: str = "people") -> Gallery:
        with warnings.catch_warnings():  # local mode warns that payload indexes have no effect
            warnings.simplefilter("ignore")
            qdrant_server.create(client, name, binding_of(model), address=name)
        return Gallery(qdrant_server.ServerStore(client, name, address=name), model)

    return open_it


def _server() -> Iterator[Opener]:
    from qdrant_client import QdrantClient

    url = os.environ[_SERVER]
    run, made = uuid.uuid4().hex[:8], set()

    def open_it(model: FakeModel, name: str = "people") -> Gallery:
        made.add(f"twinned-test-{run}-{name}")
        return open_gallery(f"{url.rstrip('/')}/twinned-test-{run}-{name}", model)

    yield open_it
    client = QdrantClient(url=url)
    for collection in made:
        client.delete_collection(collection)


@pytest.fixture(params=["folder", "local"] + ["server"] * (_SERVER in os.environ))
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Function that opens a gallery of a model by name."""
    if request.param == "folder":
        yield _folder(tmp_path)
    elif request.param == "local":
        yield _local_mode()
    else:
        yield from _server()
