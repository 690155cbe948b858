"""The contract of a gallery, for every kind of storage."""

from __future__ import annotations

import io
import math
from collections import Counter

import numpy as np
import pytest
from fake_model import SIZE, FakeModel, image, images, vectors
from PIL import Image

from twinned import distances
from twinned.errors import DataError, GalleryError, ImageError, SettingError
from twinned.gallery import gallery
from twinned.gallery.copy import copy
from twinned.gallery.gallery import Gallery

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")
NAMES = ["ann", "ben", "cleo", "dan", "eve"]


@pytest.fixture
def people(opener):
    """Gallery of five people with eight images each, numbered in the metadata."""
    shown = images(40)
    with opener(FakeModel()) as opened:
        opened.add(shown, [NAMES[i % 5] for i in range(40)], metadata=[{"n": i} for i in range(40)])
        yield opened


# ---- enrolling


def test_added_images_are_found_after_reopening(opener):
    shown = images(30)
    with opener(FakeModel()) as people:
        added = people.add(shown, "ann", metadata={"site": "north"})
    assert (added.stored, added.skipped, added.unreadable) == (30, 0, [])
    with opener(FakeModel()) as people:
        assert len(people) == people.count(label="ann") == 30
        for id, one in zip(added.ids, shown):
            hit = people.search(one, k=1)[0]
            assert (hit.id, hit.label, hit.image, hit.metadata) == (id, "ann", None, {"site": "north"})
            assert hit.distance == pytest.approx(0, abs=1e-5)


def test_repeated_add_embeds_only_new_images(opener):
    model = FakeModel()
    shown = images(300)
    with opener(model) as people:
        people.add(shown[:200], "ann")
        assert model.embedded == 200
        again = people.add(shown, "ann")
        assert (again.stored, again.skipped, model.embedded) == (100, 200, 300)
        assert people.count() == 300


def test_class_folders_are_enrolled_under_their_names(opener, tmp_path):
    shown = images(6)
    for number, one in enumerate(shown):
        folder = tmp_path / "people" / ("ann", "ben")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(one).save(folder / f"{number}.png")
    (tmp_path / "empty").mkdir()
    with opener(FakeModel()) as people:
        assert people.add(tmp_path / "people").stored == 6
        assert people.labels() == {"ann": 3, "ben": 3}
        assert [one.label for one in people.identify(tmp_path / "people" / "ann")] == ["ann"] * 3
        with pytest.raises(DataError, match="Found 3 images, but no class folders"):
            people.add(str(tmp_path / "people" / "ann"))
        for nothing in (None, "ann"):
            with pytest.raises(DataError, match=r"[nN]o images"):
                people.add(tmp_path / "empty", nothing)
        with pytest.raises(DataError, match="ann: is a folder in a list of images"):
            people.add([tmp_path / "people" / "ann"], "ann")
        people.remove(label="ben")
        assert people.add(str(tmp_path / "people" / "ben"), "ben", metadata={"site": "north"}).stored == 3
        assert people.count(where={"site": "north"}) == 3
        with pytest.raises(ImageError, match="is a folder; an image is expected"):
            people.search(tmp_path / "people")


def test_equal_pixels_are_one_record(opener, tmp_path):
    Image.fromarray(image(1, 2)).save(tmp_path / "one.png")
    Image.fromarray(image(1, 2)).save(tmp_path / "two.bmp")
    model = FakeModel()
    with opener(model) as people:
        added = people.add([tmp_path / "one.png", tmp_path / "two.bmp", image(1, 2)], "ann")
        assert (added.stored, added.skipped, model.embedded) == (1, 2, 1)
        assert len(set(added.ids)) == 1
        assert people.list().items[0].image == str(tmp_path / "one.png")


@pytest.mark.parametrize("at_once", [True, False])
def test_image_under_two_labels_is_refused(opener, tmp_path, at_once):
    Image.fromarray(image(1, 2)).save(tmp_path / "one.png")
    with opener(FakeModel()) as people:
        if not at_once:
            people.add(tmp_path / "one.png", "ann")
        with pytest.raises(GalleryError, match=r"'ben'.*'ann'.*one\.png"):
            people.add([tmp_path / "one.png", image(1, 2)], ["ann", "ben"])
        assert set(people.labels()) <= {"ann"}


def test_image_added_concurrently_is_detected(opener):
    class Meanwhile(FakeModel):
        def embed_pixels(self, pixels):
            if len(pixels) > 1:
                people.add(image(1, 2), label)
            return super().embed_pixels(pixels)

    with opener(Meanwhile()) as people:
        label = "ben"
        with pytest.raises(GalleryError, match=r"'ann'.*'ben'"):
            people.add([image(1, 2), image(3)], "ann")
        assert people.labels() == {"ben": 1}
        label = "ann"
        people.remove(label="ben")
        assert people.add([image(1, 2), image(3)], "ann").stored == 1
        assert people.labels() == {"ann": 2}


def test_unlabeled_image_can_be_labeled_later(opener):
    with opener(FakeModel()) as people:
        people.add(image(1), metadata={"a": 1, "b": 1})
        assert people.identify(image(1))[0].label is None
        assert people.search(image(1))[0].label is None
        assert people.add(image(1), "ann", metadata={"b": 2}).stored == 1
        assert people.add(image(1)).skipped == 1  # a missing label is not a conflict
        assert people.search(image(1))[0].metadata == {"a": 1, "b": 2}
        assert people.identify(image(1))[0].label == "ann"
        assert len(people) == 1


def test_unreadable_images_are_skipped_and_listed(opener, tmp_path):
    (tmp_path / "empty.png").touch()
    with opener(FakeModel()) as people:
        added = people.add([image(1), tmp_path / "empty.png", tmp_path / "none.png", image(2)], "ann")
        assert [id is None for id in added.ids] == [False, True, True, False]
        assert [type(error) for error in added.unreadable] == [ImageError, ImageError]
        assert "empty.png" in str(added.unreadable[0])
        assert (added.stored, added.skipped, len(people)) == (2, 0, 2)


@pytest.mark.parametrize(("seconds", "commits"), [(1e9, [256, 256, 88]), (0.0, [64] * 9 + [24])])
def test_commits_by_count_and_by_time(opener, monkeypatch, seconds, commits):
    acknowledged = []

    def count(ids):
        acknowledged.append(len(ids))
        assert people.count() == sum(acknowledged)

    monkeypatch.setattr(gallery, "COMMIT_SECONDS", seconds)
    with opener(FakeModel()) as people:
        people.add(images(600), "ann", acknowledge=count)
    assert acknowledged == commits


def test_add_accepts_one_image_or_several(opener):
    with opener(FakeModel()) as people:
        assert people.add(image(1), "ann").stored == 1
        assert people.add(np.stack([image(2), image(3)])[..., None], ["ann", "ben"]).stored == 2
        assert people.add(Image.fromarray(image(4)), "ann").stored == 1
        assert people.add([], []).stored == 0
        assert people.labels() == {"ann": 3, "ben": 1}


@pytest.mark.parametrize("form", [bytes, bytearray, memoryview])
def test_bytes_of_a_file_are_one_image(opener, form):
    file = io.BytesIO()
    Image.fromarray(image(1, 2)).save(file, "PNG")
    with opener(FakeModel()) as people:
        added = people.add(form(file.getvalue()), "ann")
        assert (added.stored, added.unreadable) == (1, [])
        assert [one.label for one in people.identify(form(file.getvalue()))] == ["ann"]


@pytest.mark.parametrize("dtype", [str, object])
def test_array_of_paths_is_a_list_of_images(opener, tmp_path, dtype):
    for number in range(3):
        Image.fromarray(image(number)).save(tmp_path / f"{number}.png")
    paths = np.array(sorted(map(str, tmp_path.glob("*.png"))), dtype)
    with opener(FakeModel()) as people:
        assert people.add(paths, np.array(["ann", "ben", "ann"])).stored == 3
        assert people.labels() == {"ann": 2, "ben": 1}
        assert len(people.identify(paths)) == 3
        assert sorted(record.image for record in people.list().items) == paths.tolist()


@pytest.mark.parametrize(
    ("labels", "metadata", "error"),
    [
        (["ann"], None, "1 labels were given for 2 images"),
        ("", None, "label ''"),
        (["ann", 7], None, "label 7"),
        ("ann", [{}], "1 metadata were given for 2 images"),
        ("ann", {"size": float("nan")}, "'size': nan"),
        ("ann", {"size": [1]}, "'size'"),
        ("ann", {"size": 2**63}, "64 bits"),
        ("ann\ud800", None, "Unicode text"),
        ("ann\nben", None, "one line of Unicode text"),
        ("ann", {"text": "\ud800"}, "Unicode text"),
    ],
)
def test_invalid_labels_and_metadata_are_refused(people, labels, metadata, error):
    with pytest.raises(DataError, match=error.replace("[", r"\[")):
        people.add(images(2, seed=1), labels, metadata=metadata)
    assert len(people) == 40


@pytest.mark.parametrize("key", ['a"b', "a\\", "\ud800", "", 7])
def test_invalid_metadata_keys_are_refused(people, key):
    with pytest.raises(SettingError, match="metadata key"):
        people.add(image(1), metadata={key: 1})
    with pytest.raises(SettingError, match="metadata key"):
        people.count(where={key: 1})


def test_metadata_keys_may_have_path_characters(people):
    keys = ("a.b", "a[]", "[0]", "'", "é ☃", "*", "\n")
    for number, key in enumerate(keys):
        people.add(image(100 + number), "ann", metadata={key: "here"})
    assert [people.count(where={key: "here"}) for key in keys] == [1] * len(keys)


def test_filter_without_values_is_refused(people):
    with pytest.raises(DataError, match="where 'site': the list of values is empty"):
        people.count(where={"site": []})


def test_file_name_that_is_not_unicode_is_skipped(people, tmp_path):
    broken = tmp_path / "caf\udce9.png"  # é in Latin-1
    try:
        Image.fromarray(image(90)).save(broken)
    except OSError:
        pytest.skip("this file system keeps Unicode names only")
    added = people.add([broken, image(91)], "ann")
    assert (added.stored, len(added.unreadable)) == (1, 1)
    assert "not Unicode text" in str(added.unreadable[0])


def test_non_finite_embeddings_are_refused(opener):
    class Broken(FakeModel):
        def embed_pixels(self, pixels):
            return super().embed_pixels(pixels) * np.nan

    with opener(Broken()) as people:
        with pytest.raises(GalleryError, match="not finite"):
            people.add(image(1), "ann")
        assert len(people) == 0


def test_read_only_refuses_every_change(people):
    closed = Gallery(people.store, FakeModel(), read_only=True)
    removed = people.remove(label="eve")
    for change in (
        lambda: closed.add(image(1), "ann"),
        lambda: closed.remove(label="ann"),
        lambda: closed.restore(removed),
        lambda: closed.update(people.list().items[0].id, label="x"),
        lambda: closed.rename("ann", "x"),
        lambda: closed.compact(),
    ):
        with pytest.raises(GalleryError, match="read-only"):
            change()
    assert closed.labels() == people.labels() == {"ann": 8, "ben": 8, "cleo": 8, "dan": 8}


# ---- changing


def test_remove_and_restore(people):
    gone = people.search(images(40)[0], k=2)
    one = people.remove(gone[0].id)
    assert [item.id for item in one.items] == [gone[0].id]
    assert people.search(images(40)[0], k=1)[0].id == gone[1].id
    ben = people.remove(label="ben")
    assert (len(ben.items), len(people), people.count(label="ben")) == (8, 31, 0)
    assert people.identify(images(40)[1])[0].label is None
    people.restore(ben)
    people.restore(one)
    assert len(people) == 40
    assert people.search(images(40)[0], k=2) == gone
    assert people.identify(images(40)[1], fpir=0.5)[0].label == "ben"


def test_image_added_again_has_the_same_id(people):
    id = people.search(images(40)[7], k=1)[0].id
    people.remove([id])
    assert people.add(images(40)[7], "cleo").ids == [id]


def test_remove_of_unknown_images_removes_nothing(people):
    id = people.list().items[0].id
    for wrong in ("nobody", "00000000-0000-0000-0000-000000000000"):
        with pytest.raises(GalleryError, match=f"no image has the id '{wrong}'"):
            people.remove([id, wrong])
    with pytest.raises(GalleryError, match=r"no image has the label 'zoe'\. Labels: 'ann'"):
        people.remove(label="zoe")
    with pytest.raises(SettingError):
        people.remove()
    assert len(people) == 40


def test_restore_refuses_a_relabeled_image(people):
    removed = people.remove(label="ann")
    people.add(images(40)[0], "zoe")
    with pytest.raises(GalleryError, match="'zoe'"):
        people.restore(removed)
    assert people.count(label="ann") == 0


def test_update(people):
    id = people.search(images(40)[0], k=1)[0].id
    assert people.update(id, label="zoe").metadata == {"n": 0}
    updated = people.update(id, metadata={"m": "new"})
    assert (updated.label, updated.metadata) == ("zoe", {"m": "new"})
    assert people.get(id) == updated
    assert people.count(where={"n": 0}) == 0
    assert people.labels() == {"ann": 7, "ben": 8, "cleo": 8, "dan": 8, "eve": 8, "zoe": 1}
    with pytest.raises(GalleryError, match="no image has the id"):
        people.update("nobody", label="x")


def test_rename_and_merge(people):
    assert people.rename("ann", "anna") == 8
    assert people.rename("ben", "anna") == 8
    assert people.labels() == {"anna": 16, "cleo": 8, "dan": 8, "eve": 8}
    with pytest.raises(GalleryError, match="no image has the label 'ann'"):
        people.rename("ann", "x")


# ---- searching


@pytest.mark.parametrize("name", distances.DISTANCES)
def test_search_returns_nearest_images_by_distance(opener, name):
    shown, probes = images(60), images(5, seed=1)
    with opener(FakeModel(distance=name)) as people:
        ids = people.add(shown, "ann").ids
        expected = distances.get(name)(vectors(probes), vectors(shown), pairwise=True)
        for row, probe in zip(expected, probes):
            hits = people.search(probe, k=7)
            order = np.argsort(row)[:7]
            assert [hit.id for hit in hits] == [ids[i] for i in order]
            np.testing.assert_allclose([hit.distance for hit in hits], row[order], rtol=1e-4, atol=1e-6)
        records, kept = people.embeddings()
        place = {id: i for i, id in enumerate(ids)}
        np.testing.assert_allclose(kept, vectors([shown[place[r.id]] for r in records]), rtol=1e-5, atol=1e-6)


def test_zero_embedding_is_stored(opener):
    with opener(FakeModel(distance="cosine")) as people:
        people.add([image(0), image(5)], ["nil", "ann"])
        assert [hit.distance for hit in people.search(image(5), k=2)] == [0, 1]
        np.testing.assert_array_equal(people.embeddings(label="nil")[1], np.zeros((1, SIZE)))


def test_filters(people):
    everything = people.search(images(40)[0], k=100)
    assert len(everything) == 40
    assert [h for h in everything if h.label == "ben"] == people.search(images(40)[0], k=100, label="ben")
    assert [h for h in everything if h.label in "ben dan"] == people.search(
        images(40)[0], k=100, label=["ben", "dan"]
    )
    assert [h for h in everything if h.metadata["n"] in (3, 8)] == people.search(
        images(40)[0], k=100, where={"n": [3, 8]}
    )
    assert people.count(label="dan", where={"n": [3, 8, 9]}) == 2
    assert people.search(images(40)[0], label=[]) == []
    assert people.labels(where={"n": [0, 1, 5]}) == {"ann": 2, "ben": 1}


@pytest.mark.parametrize("value", ["text", 7, -(2**63), 1.5, True, False, "true", "é 漢字 <b>"])
def test_metadata_of_every_type_is_kept_and_filtered(opener, value):
    others = [v for v in ("text", 7, 1.5, True, False, "true", 0) if v is not value]
    key = "a.b [c] d"
    with opener(FakeModel()) as people:
        wanted = people.add(image(1), metadata={key: value}).ids
        people.add(images(len(others)), metadata=[{key: other} for other in others])
        people.add(image(2))
        found = people.list(where={key: value})
        assert [item.id for item in found.items] == wanted
        assert found.items[0].metadata == {key: value}
        assert type(found.items[0].metadata[key]) is type(value)


def test_search_by_id_excludes_the_image(people):
    id = people.list().items[0].id
    hits = people.search(id=id, k=5)
    assert len(hits) == 5
    assert id not in [hit.id for hit in hits]
    probe = people.embeddings(limit=1)[1]
    _, kept = people.embeddings()
    nearest = np.sort(distances.euclidean(probe, kept, pairwise=True)[0])[1:6]
    np.testing.assert_allclose([hit.distance for hit in hits], nearest, rtol=1e-5)


def test_invalid_search_is_refused(people):
    for wrong in ({}, {"image": image(1), "id": people.list().items[0].id}, {"image": image(1), "k": 0}):
        with pytest.raises(SettingError):
            people.search(**wrong)
    with pytest.raises(ImageError):
        people.search("no such file.png")
    with pytest.raises(GalleryError, match="no image has the id"):
        people.search(id="nobody")


def test_head_reranks_the_results(opener):
    def head(query, candidates):  # compares the last value only
        return np.abs(candidates[:, -1] - query[-1]) / 100

    shown, probe = images(40), images(1, seed=3)[0]
    with opener(FakeModel(rerank=head)) as people:
        ids = people.add(shown, [NAMES[i % 5] for i in range(40)]).ids
        expected = head(vectors([probe])[0], vectors(shown))
        hits = people.search(probe, k=4)
        assert [hit.id for hit in hits] == [ids[i] for i in np.argsort(expected, kind="stable")[:4]]
        np.testing.assert_allclose([hit.distance for hit in hits], np.sort(expected)[:4], rtol=1e-5)
        named = people.identify(probe, fpir=0.5)[0]
        assert (named.label, named.distance) == (hits[0].label, hits[0].distance)


def test_head_gets_embeddings_before_normalization(opener):
    seen = []

    def head(query, candidates):
        seen.append((query, candidates))
        return np.zeros(len(candidates))

    with opener(FakeModel(distance="cosine", rerank=head)) as people:
        people.add(image(30, 40), "ann")
        people.search(image(60, 80))
    np.testing.assert_allclose(seen[0][0][:2], [6, 8])
    np.testing.assert_allclose(seen[0][1][0, :2], [3, 4], rtol=1e-6)


# ---- identifying


def test_identify_returns_unknown_beyond_threshold(opener):
    with opener(FakeModel()) as people:
        people.add([image(10), image(100)], ["ann", "ben"])
        near, far = people.identify([image(14), image(17)])
        assert (near.label, far.label) == ("ann", None)
        assert near.threshold == far.threshold == 0.5  # two labels
        assert (near.distance, far.distance) == (pytest.approx(0.4), pytest.approx(0.7))
        assert near.probability == pytest.approx(1 / 1.4)
        assert people.identify(image(17), fpir=0.02)[0].label == "ann"
        assert people.identify(image(17), label="ann")[0].label == "ann"  # one label: 1.0
        assert people.identify(image(17), where={"n": 1})[0].label is None
        people.add(image(200), "cleo")
        assert people.identify(image(14))[0].label is None  # three labels: stricter


def test_identify_in_an_empty_gallery_is_unknown(opener):
    with opener(FakeModel()) as people:
        answer = people.identify(image(1))[0]
        assert (answer.label, answer.probability, answer.distance) == (None, 0.0, math.inf)
        assert answer.to_json()["distance"] is None
        people.add(image(1))  # an image without a label is never identified
        assert people.identify(image(1))[0].distance == math.inf
        assert people.search(image(1), k=3)[0].distance == 0


def test_identify_ignores_unlabeled_images(opener):
    with opener(FakeModel()) as people:
        people.add([image(10), *(image(12, salt=i) for i in range(30))], ["ann"] + 30 * [None])
        assert people.identify(image(13))[0].label == "ann"


def test_identify_refuses_invalid_rate(people):
    for fpir in (0, 1, -1):
        with pytest.raises(SettingError, match="fpir"):
            people.identify(image(1), fpir=fpir)


@pytest.mark.parametrize("name", ["euclidean", "cosine"])
def test_prototypes_equal_class_means_after_changes(opener, name):
    shown = images(40)
    truth = [NAMES[i % 5] for i in range(40)]

    def check():
        labels = sorted(set(truth))
        means = np.stack(
            [
                np.mean([vectors([s])[0] for s, t in zip(shown, truth) if t == label], axis=0)
                for label in labels
            ]
        )
        probes = images(20, seed=2)
        expected = distances.get(name)(vectors(probes), means, pairwise=True)
        answers = people.identify(probes, fpir=0.999)
        np.testing.assert_allclose([a.distance for a in answers], expected.min(axis=1), rtol=1e-4)
        named = people.identify(probes, fpir=0.999, label=labels)
        assert [a.distance for a in named] == pytest.approx([a.distance for a in answers], rel=1e-6)
        within = [
            labels[i] if d <= answers[0].threshold else None
            for i, d in zip(expected.argmin(1), expected.min(1))
        ]
        assert [a.label for a in answers] == within

    with opener(FakeModel(distance=name, prototype=True, threshold=10)) as people:
        ids = people.add(shown, truth).ids
        check()
        people.remove(ids[3])
        people.add(image(9, 9, 9), "dan")  # the same number of images
        shown[3], truth[3] = image(9, 9, 9), "dan"
        check()
        people.update(ids[0], label="ben")
        truth[0] = "ben"
        check()
        people.rename("eve", "ann")
        truth = ["ann" if label == "eve" else label for label in truth]
        check()
        removed = people.remove(label="cleo")
        people.restore(removed)
        check()


def test_prototypes_are_reranked_by_a_head(opener):
    def head(query, candidates):
        return np.abs(candidates[:, -1] - query[-1]) / 100

    with opener(FakeModel(prototype=True, rerank=head)) as people:
        people.add(
            [image(0, 0, 0, 0, 0, 0, 0, v, salt=v) for v in (0, 20, 100, 140)], ["ann", "ann", "ben", "ben"]
        )
        answer = people.identify(image(50, 0, 0, 0, 0, 0, 0, 110), fpir=0.5)[0]
        assert (answer.label, answer.distance) == ("ben", pytest.approx(0.01))


# ---- listing, figures, duplicates


def test_list_in_pages(people):
    whole = people.list()
    assert whole.count == len(whole.items) == 40
    paged, after = [], None
    while True:
        page = people.list(after=after, limit=7)
        assert page.count == 40
        paged += page.items
        if (after := page.after) is None:
            break
    assert paged == whole.items
    assert [item.id for item in paged] == sorted(item.id for item in paged)
    assert Counter(item.label for item in people.list(label=["ann", "eve"]).items) == {"ann": 8, "eve": 8}


def test_json_keys(people):
    assert people.search(image(1))[0].to_json().keys() == {"image", "label", "distance"}
    identified = people.identify(image(1))[0].to_json()
    assert identified.keys() == {"image", "label", "probability", "distance", "nearest", "threshold"}
    assert identified["nearest"].keys() == {"label", "distance", "probability"}
    listed = people.list(limit=2).to_json()
    assert listed.keys() == {"count", "items"}
    assert listed["items"][0].keys() == {"id", "label", "image"}


def test_stats(people):
    stats = people.stats()
    assert (stats.count, stats.labels, stats.search, stats.recall_at_10) == (40, 5, "exact", None)
    assert (stats.distance, stats.embedding_size, stats.encoder_sha256) == ("euclidean", SIZE, "a" * 64)
    assert stats.exact_below == 800_000


@pytest.mark.parametrize("within", [-1, float("nan")])
def test_invalid_limit_of_duplicates_is_refused(opener, within):
    with opener(FakeModel()) as gallery, pytest.raises(SettingError, match="within must be 0 or more"):
        gallery.duplicates(within)


def test_duplicates_are_connected_groups(opener):
    chain = [image(v, salt=1) for v in (100, 101, 102)]  # each 0.1 from the next
    crowd = [image(200, salt=salt) for salt in range(30)]  # more than one query returns
    alone = [image(10), image(50)]
    with opener(FakeModel()) as people:
        ids = people.add([*chain, *crowd, *alone]).ids
        found = people.duplicates(0.11)
        assert all(hit.distance <= 0.11 for group in found for hit in group)
        groups = [{hit.id for hit in group} for group in found]
        assert groups == [set(ids[3:33]), set(ids[:3])]
        assert people.duplicates() == people.duplicates(FakeModel.threshold / 10)
        assert [len(group) for group in people.duplicates(4.001)] == [30, 3, 2]
        assert [len(group) for group in people.duplicates(5.001)] == [30, 5]


# ---- models, copies


@pytest.mark.parametrize(
    "other",
    [FakeModel(encoder_sha256="b" * 64), FakeModel(embedding_size=4), FakeModel(distance="cosine")],
)
def test_gallery_of_another_model_is_refused(opener, other, tmp_path):
    from twinned.gallery.open import open_gallery

    opener(FakeModel()).close()
    if not (tmp_path / "people.gallery").exists():
        pytest.skip("opened by address only in a folder or on a server")
    with pytest.raises(GalleryError, match=r"another model.*twinned gallery rebuild"):
        open_gallery(tmp_path / "people.gallery", other)
    opener(FakeModel()).close()  # and can be opened again


def test_copy_resumes_and_adds_only_new_images(opener, people):
    with opener(FakeModel(), "backup") as backup:
        assert copy(people, backup) == 40
        assert backup.list() == people.list()
        np.testing.assert_array_equal(backup.embeddings()[1], people.embeddings()[1])
        assert copy(people, backup) == 0
        backup.remove(label="ben")
        people.rename("ann", "anna")
        assert copy(people, backup) == 16
        assert backup.list() == people.list()


def test_copy_refuses_another_model(opener, people):
    other = opener(FakeModel(encoder_sha256="b" * 64), "backup")
    with other, pytest.raises(GalleryError, match="different models"):
        copy(people, other)


def test_copy_between_folder_and_server_keeps_all_data(tmp_path):
    from .conftest import _folder, _local_mode

    model = FakeModel(distance="cosine")
    with _folder(tmp_path)(model, "here") as here, _local_mode()(model) as there:
        here.add(images(30), "ann", metadata={"n": 1.5, "b": True})
        assert copy(here, there) == 30
        with _folder(tmp_path)(model, "back") as back:
            assert copy(there, back) == 30
            assert back.list() == here.list()
            np.testing.assert_allclose(back.embeddings()[1], here.embeddings()[1], rtol=1e-6)
