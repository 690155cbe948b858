"""Rebuilding a gallery for another model; test_gallery.py has the tests of copies."""

from __future__ import annotations

import numpy as np
import pytest
from fake_model import FakeModel, image, images
from PIL import Image

from twinned.data.preprocessing import ImageSpec
from twinned.errors import DataError, GalleryError, SettingError
from twinned.gallery.copy import rebuild
from twinned.gallery.open import open_gallery
from twinned.gallery.qdrant_edge import EdgeStore


@pytest.fixture
def files(tmp_path):
    paths = []
    for number, pixels in enumerate(images(30)):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return paths


@pytest.fixture
def gallery(tmp_path, files):
    path = tmp_path / "people.gallery"
    with open_gallery(path, FakeModel()) as people:
        people.add(files, ["ann", "ben"] * 15, metadata=[{"n": number} for number in range(30)])
    return path


def content(gallery):
    """Return the first letters of the names in the folder."""
    return sorted(entry.name[:6] for entry in gallery.iterdir())


NEW = FakeModel(encoder_sha256="b" * 64, embedding_size=4, distance="cosine")


def test_rebuild_replaces_the_embeddings_and_keeps_the_records(gallery):
    with open_gallery(gallery, FakeModel()) as people:
        before = people.list()
    added = rebuild(gallery, NEW)
    assert (added.stored, added.skipped, added.unreadable) == (30, 0, [])
    with open_gallery(gallery, NEW) as people:
        assert people.list() == before
        assert people.embeddings()[1].shape == (30, 4)
        assert people.search(images(30)[3], k=1)[0].metadata == {"n": 3}
        people.remove(label="ann")
        people.add(image(1), "cleo")
    with open_gallery(gallery, NEW) as people:
        assert people.labels() == {"ben": 15, "cleo": 1}
    with pytest.raises(GalleryError, match="another model"):
        open_gallery(gallery, FakeModel())
    assert content(gallery) == ["galler", "shard-"]


def test_rebuild_refuses_missing_files_before_it_starts(gallery, files):
    files[3].unlink()
    files[4].unlink()
    model = FakeModel(encoder_sha256="b" * 64)
    lost = r"files of 2 of 30 images are missing.*\.png.*`skip_missing=True` and `allow_loss=2`"
    for options in ({}, {"allow_loss": 2}, {"skip_missing": True}, {"skip_missing": True, "allow_loss": 1}):
        with pytest.raises(GalleryError, match=lost):
            rebuild(gallery, model, **options)
    assert model.embedded == 0
    assert content(gallery) == ["galler", "shard-"]
    added = rebuild(gallery, model, skip_missing=True, allow_loss=2)
    assert (added.stored, len(added.unreadable)) == (28, 2)


def test_rebuild_counts_images_without_files_as_lost(gallery):
    with open_gallery(gallery, FakeModel()) as people:
        id = people.add(image(1), "cleo").ids[0]
    for options in ({}, {"skip_missing": True}):
        with pytest.raises(GalleryError, match=f"1 of 31 .*id {id} .not from a file"):
            rebuild(gallery, NEW, **options)
    added = rebuild(gallery, NEW, skip_missing=True, allow_loss=1)
    assert (added.stored, len(added.ids)) == (30, 31)
    assert [error.source for error in added.unreadable] == [f"id {id}"]


def test_rebuild_does_not_empty_a_gallery_without_files(tmp_path):
    path = tmp_path / "people.gallery"
    with open_gallery(path, FakeModel()) as people:
        people.add(images(30), "ann")
    with pytest.raises(GalleryError, match="30 of 30 images are missing"):
        rebuild(path, NEW, skip_missing=True)
    with pytest.raises(GalleryError, match="30 of 30 images are missing"):
        rebuild(path, NEW, skip_missing=True, into=tmp_path / "new.gallery")
    assert not (tmp_path / "new.gallery").exists()
    with open_gallery(path, FakeModel()) as people:
        assert people.labels() == {"ann": 30}


def test_rebuild_refuses_to_lose_images(gallery, files):
    whole = files[7].read_bytes()
    files[7].write_bytes(b"no image")
    message = r"would have 29 images, but this one has 30 \(1 cannot be read\).*`allow_loss=1`\)"
    with pytest.raises(GalleryError, match=message):
        rebuild(gallery, NEW, skip_missing=True)
    assert content(gallery) == ["galler", "shard-"]
    with open_gallery(gallery, FakeModel()) as people:
        assert people.count() == 30
    assert rebuild(gallery, NEW, skip_missing=True, allow_loss=1).stored == 29
    files[7].write_bytes(whole)


def test_rebuild_refuses_to_merge_images_equal_at_the_new_size(tmp_path):
    """Images that differ in fine detail only have equal pixels at 8 x 8."""
    path, fine = tmp_path / "people.gallery", np.full((2, 64, 64), 128, np.uint8)
    fine[1, :, ::2], fine[1, :, 1::2] = 129, 127
    for number, pixels in enumerate(fine):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    large = FakeModel(spec=ImageSpec(height=64, width=64, channels=1))
    with open_gallery(path, large) as people:
        assert people.add([tmp_path / "0.png", tmp_path / "1.png"], "ann").stored == 2
    small = FakeModel(
        encoder_sha256="b" * 64, embedding_size=4, spec=ImageSpec(height=8, width=8, channels=1)
    )
    with pytest.raises(GalleryError, match=r"1 images, but this one has 2 \(1 equal another"):
        rebuild(path, small)
    with open_gallery(path, large) as people:
        assert people.count() == 2
    assert rebuild(path, small, allow_loss=1).stored == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"allow_loss": -1}, "allow_loss is -1"),
        ({"allow_loss": 1, "into": "new"}, "cannot be combined with `into=`"),
    ],
)
def test_invalid_allowed_loss_is_refused(gallery, options, message):
    with pytest.raises(SettingError, match=message):
        rebuild(gallery, NEW, **options)


class Cut(BaseException):
    """Simulated interruption."""


@pytest.mark.parametrize(
    ("moment", "error"), [("embedding", Cut), ("reading", DataError), ("replacing", Cut)]
)
def test_interrupted_rebuild_leaves_the_gallery_unchanged(gallery, files, monkeypatch, moment, error):
    def cut(*_, **__):
        raise Cut

    with open_gallery(gallery, FakeModel()) as people:
        before, vectors = people.list(), people.embeddings()[1]
    whole = files[7].read_bytes()
    if moment == "embedding":
        monkeypatch.setattr(FakeModel, "embed_pixels", cut)
    elif moment == "reading":
        files[7].write_bytes(b"no image")
    else:
        monkeypatch.setattr(EdgeStore, "_replace", cut)
    with pytest.raises(error):
        rebuild(gallery, NEW)
    monkeypatch.undo()
    files[7].write_bytes(whole)
    with open_gallery(gallery, FakeModel()) as people:
        assert people.list() == before
        np.testing.assert_array_equal(people.embeddings()[1], vectors)
    assert rebuild(gallery, NEW).stored == 30


def test_rebuild_into_another_gallery_keeps_the_first(gallery, tmp_path):
    assert rebuild(gallery, NEW, into=tmp_path / "new.gallery").stored == 30
    assert rebuild(gallery, NEW, into=tmp_path / "new.gallery").skipped == 30
    with open_gallery(gallery, FakeModel()) as old, open_gallery(tmp_path / "new.gallery", NEW) as new:
        assert old.list() == new.list()


@pytest.mark.filterwarnings("ignore:Payload indexes:UserWarning")
def test_server_gallery_requires_a_new_one_to_rebuild(monkeypatch):
    qdrant_client = pytest.importorskip("qdrant_client")
    from twinned.gallery import qdrant_server
    from twinned.gallery.store import binding_of

    client = qdrant_client.QdrantClient(":memory:")
    qdrant_server.create(client, "people", binding_of(FakeModel()), address="people")
    monkeypatch.setattr(
        qdrant_server,
        "open_collection",
        lambda address, binding, timeout=None: qdrant_server.ServerStore(client, "people", address=address),
    )
    with pytest.raises(SettingError, match="into"):
        rebuild("http://host/people", NEW)
