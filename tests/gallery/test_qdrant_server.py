"""Galleries on a server: addresses, network errors, and the extra."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fake_model import FakeModel, image

from twinned.errors import GalleryError, SettingError
from twinned.gallery.gallery import Gallery
from twinned.gallery.open import open_gallery
from twinned.gallery.store import binding_of

qdrant_client = pytest.importorskip("qdrant_client")
cluster = pytest.importorskip("twinned.gallery.qdrant_server")

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:qdrant_client", "ignore:Payload indexes:UserWarning"
)


@pytest.mark.parametrize(
    "address",
    [
        "http://host:6333",
        "http://host/",
        "http://host/a/b",
        "http://host/a?shards=2",
        "http://host/a?shard_number=x",
    ],
)
def test_addresses_without_a_collection_are_refused(address):
    with pytest.raises(SettingError, match="Invalid gallery address"):
        open_gallery(address, FakeModel())


def test_address_is_parsed(monkeypatch):
    asked = {}

    def client(**arguments):
        asked.update(arguments)
        return qdrant_client.QdrantClient(":memory:")

    monkeypatch.setenv("TWINNED_QDRANT_API_KEY", "secret")
    monkeypatch.setattr(cluster, "QdrantClient", client)
    made = {}
    monkeypatch.setattr(cluster, "create", lambda client, name, binding, **how: made.update(how, name=name))
    address = "https://host/people?shard_number=4&replication_factor=2"
    with pytest.raises(GalleryError, match="does not exist") as error:
        open_gallery(address, FakeModel())
    assert (asked["url"], asked["api_key"]) == ("https://host:6333", "secret")
    assert made == {"name": "people", "address": address, "shard_number": 4, "replication_factor": 2}
    assert "secret" not in str(error.value)


def test_forked_child_is_refused(monkeypatch):
    client = qdrant_client.QdrantClient(":memory:")
    cluster.create(client, "people", binding_of(FakeModel()), address="people")
    people = Gallery(cluster.ServerStore(client, "people", address="people"), FakeModel())
    people.add(image(1), "ann")
    child = os.getpid() + 1
    monkeypatch.setattr(os, "getpid", lambda: child)
    for use in (people.count, people.labels, lambda: people.add([]), lambda: people.search(image(1))):
        with pytest.raises(GalleryError, match=r"people: was opened in process .* was forked"):
            use()
    people.close()
    monkeypatch.undo()
    assert people.labels() == {"ann": 1}


def test_unreachable_server_error_names_the_address():
    with pytest.raises(GalleryError, match=r"http://127\.0\.0\.1:9/people.*Qdrant server is up"):
        open_gallery("http://127.0.0.1:9/people", FakeModel())


def test_foreign_collection_is_not_changed():
    client = qdrant_client.QdrantClient(":memory:")
    client.create_collection("theirs", vectors_config={})
    cluster.create(client, "theirs", binding_of(FakeModel()), address="theirs")
    with pytest.raises(GalleryError, match="was not created by Twinned"):
        cluster.ServerStore(client, "theirs", address="theirs")


def test_binding_and_index_report_are_stored_in_the_collection():
    client = qdrant_client.QdrantClient(":memory:")
    cluster.create(client, "people", binding_of(FakeModel()), address="people")
    store = cluster.ServerStore(client, "people", address="people")
    Gallery(store, FakeModel()).add(image(1), "ann")
    report = cluster.IndexReport(recall_at_10=0.98, queries=100, count=1000)
    store.set_report(report)
    again = cluster.ServerStore(client, "people", address="people")
    assert (again.binding, again.report) == (binding_of(FakeModel()), report)
    store.set_report(None)
    assert cluster.ServerStore(client, "people", address="people").report is None


def test_extra_is_required_for_addresses_only(tmp_path):
    program = (
        "import sys; sys.modules['qdrant_client'] = None\n"
        "from fake_model import FakeModel\n"
        "from twinned.errors import MissingExtra\n"
        "from twinned.gallery.open import open_gallery\n"
        f"open_gallery({str(tmp_path / 'people.gallery')!r}, FakeModel()).close()\n"
        "try: open_gallery('http://host/people', FakeModel())\n"
        "except MissingExtra as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "needs the extra 'cluster': pip install 'twinned[cluster]'" in done.stdout


def test_embedded_gallery_imports_neither_client_nor_torch():
    program = (
        "import sys, twinned.gallery\n"
        "print([m for m in ('torch', 'qdrant_client', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
