"""Routes that need the gallery."""

from __future__ import annotations

import base64
import io
import json
import tempfile
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from twinned.gallery.gallery import Gallery
from twinned.inference.model import Model
from twinned.server.app import create_app
from twinned.server.batching import EncoderPlan
from twinned.server.limits import Limits

from ..conftest import DISTANCE
from .conftest import Client, detail, drawing, encoded, pictures, png


def test_enrolled_images_are_stored_before_the_response(client: Client, gallery: Gallery) -> None:
    service = client()
    answer = service.post("/v1/gallery", files=pictures("circle", "circle-1"), data={"label": "round"})
    assert answer.json() == {
        "stored": 2,
        "skipped": 0,
        "unreadable": [],
        "count": 2,
        "ids": answer.json()["ids"],
    }
    assert gallery.count() == 2
    again = service.post("/v1/gallery", files=pictures("circle"), data={"label": "round"}).json()
    assert (again["stored"], again["skipped"]) == (0, 1)
    assert again["ids"] == answer.json()["ids"][:1]


def test_image_id_equals_that_of_the_command(client: Client, gallery: Gallery, tmp_path: Path) -> None:
    photo = encoded(drawing("cross", 5, 1200), "JPEG")
    (tmp_path / "photo.jpg").write_bytes(photo)
    gallery.add([tmp_path / "photo.jpg"], "cross", progress=False)
    answer = client().post("/v1/gallery", files={"image": ("photo.jpg", photo)}, data={"label": "cross"})
    assert answer.json()["skipped"] == 1


def test_unreadable_images_are_skipped_and_listed(client: Client) -> None:
    files = [
        ("images", ("no.png", b"text")),
        *pictures("bar"),
        ("images", ("half.png", png("bar", 2)[:120])),
    ]
    found = client().post("/v1/gallery", files=files, data={"label": "bar"}).json()
    assert found["stored"] == 1
    assert [one.partition(":")[0] for one in found["unreadable"]] == ["no.png", "half.png"]
    assert [one is None for one in found["ids"]] == [True, False, True]
    only = client().post("/v1/gallery", files=files[:1], data={"label": "bar"})
    assert detail(only, 422).startswith("no.png: ")


def test_image_under_two_labels_is_a_conflict(client: Client, gallery: Gallery) -> None:
    service = client()
    service.post("/v1/gallery", files=pictures("circle"), data={"label": "anna"})
    answer = service.post("/v1/gallery", files=pictures("circle"), data={"label": "ben"})
    assert "'anna'" in detail(answer, 409)
    assert gallery.labels() == {"anna": 1}


def test_identify_returns_label_or_null(client: Client, gallery: Gallery) -> None:
    gallery.add([png("circle"), png("bar"), png("bar", 1)], ["circle", "bar", "bar"], progress=False)
    found = (
        client().post("/v1/identify", files=pictures("circle", field="image"), data={"nearest": "2"}).json()
    )
    expected = gallery.identify(png("circle"))[0]
    assert found[0]["label"] == "circle"
    assert found[0]["threshold"] == expected.threshold
    assert found[0]["image"] == "circle.png"
    assert found[0]["hits"][0]["label"] == "circle"
    assert len(found[0]["hits"]) == 2
    strict = client().post("/v1/identify", files=pictures("ring-7"), data={"fpir": "0.0001"}).json()
    assert strict[0]["label"] is None
    assert strict[0]["nearest"].keys() == {"label", "distance", "probability"}


def test_near_duplicates_of_a_large_gallery_are_refused(
    client: Client, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    gallery.add([png("bar", seed) for seed in (1, 2)], "bar", progress=False)
    found = client().get("/v1/gallery/duplicates", params={"within": 9}).json()
    assert [len(group) for group in found] == [2]
    assert found[0][0].keys() == {"id", "image", "label", "distance"}
    monkeypatch.setattr("twinned.server.gallery_routes._MOST_COMPARED", 1)
    answer = client().get("/v1/gallery/duplicates")
    assert (answer.status_code, "would take minutes" in answer.json()["detail"]) == (422, True)
    assert client().get("/v1/gallery/duplicates", params={"within": "nan"}).status_code == 422


def test_identify_in_an_empty_gallery_is_unknown(client: Client) -> None:
    assert client().post("/v1/identify", files=pictures("circle")).json() == [
        {
            "image": "circle.png",
            "label": None,
            "probability": 0,
            "distance": None,
            "nearest": None,
            "threshold": 0,
            "hits": [],
        }
    ]


def test_a_temporary_gallery_is_made_once_and_deleted_at_the_end(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinned.server.service._ROOM", 1 << 60)  # not in /dev/shm
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    app = create_app(model, plan=EncoderPlan(model.encoder, 2, False))
    with TestClient(app, base_url="http://127.0.0.1:8000") as service:
        assert service.get("/v1/model").json()["gallery"] is None
        assert "twinned_gallery_images" not in service.get("/metrics").text
        made = service.post("/v1/gallery/temporary")
        assert made.json() == {"count": 0, "temporary": True}
        service.post("/v1/gallery", files=pictures("circle"), data={"label": "anna"})
        assert service.post("/v1/gallery/temporary").json() == {"count": 1, "temporary": True}
        assert service.get("/v1/model").json()["gallery"]["temporary"] is True
        assert service.post("/v1/identify", files=pictures("circle")).json()[0]["label"] == "anna"
        assert "twinned_gallery_images 1.0" in service.get("/metrics").text
        wrong = service.delete("/v1/gallery", params={"label": "ben"})
        assert detail(wrong, 404).startswith("temporary.gallery: no image has the label")
        assert list(tmp_path.glob("twinned-*/temporary.gallery"))
    assert not list(tmp_path.iterdir())


def test_no_temporary_gallery_where_nothing_may_change(client: Client, gallery: Gallery) -> None:
    refused = client(gallery=None, read_only=True).post("/v1/gallery/temporary")
    assert "no gallery" in detail(refused, 404)
    assert client().post("/v1/gallery/temporary").json() == {"count": 0, "temporary": False}


def test_search_by_id_excludes_the_image(client: Client, gallery: Gallery) -> None:
    gallery.add([png("circle", s) for s in range(4)], "circle", progress=False)
    service = client()
    hits = service.post("/v1/search", files=pictures("circle", field="image"), data={"k": "3"}).json()
    assert [hit["distance"] for hit in hits] == sorted(hit["distance"] for hit in hits)
    assert len(hits) == 3
    assert hits[0]["distance"] == pytest.approx(0, abs=DISTANCE)
    further = service.post("/v1/search", json={"id": hits[0]["id"], "k": 10}).json()
    assert hits[0]["id"] not in {hit["id"] for hit in further}
    assert len(further) == 3
    assert "either an image or an id" in detail(service.post("/v1/search", json={}), 422)
    assert "no image has the id" in detail(service.post("/v1/search", json={"id": str(uuid.uuid4())}), 404)
    assert "no image has the id" in detail(service.post("/v1/search", json={"id": "../../etc"}), 404)


def test_search_filters_by_label_and_metadata(client: Client) -> None:
    service = client()
    for shape in ("circle", "bar", "ring"):
        service.post(
            "/v1/gallery",
            files=pictures(shape),
            data={"label": shape, "metadata": f'{{"site": "{shape[0]}"}}'},
        )
    by_label = service.post(
        "/v1/search", files=pictures("circle", field="image"), data={"label": ["bar", "ring"]}
    )
    assert {hit["label"] for hit in by_label.json()} == {"bar", "ring"}
    by_site = service.post(
        "/v1/search", files=pictures("circle", field="image"), data={"where": '{"site": "b"}'}
    )
    assert {hit["label"] for hit in by_site.json()} == {"bar"}
    assert "is not valid JSON" in detail(
        service.post("/v1/search", files=pictures("circle", field="image"), data={"where": "{"}), 422
    )


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"a\\": "b"}, "metadata key"),
        ({"a": "\ud800"}, "Unicode text"),
        ({"a": []}, "is empty"),
        ({"a": 2**70}, "64 bits"),
    ],
)
def test_invalid_filters_and_metadata_are_refused(
    client: Client, where: dict[str, object], message: str
) -> None:
    service, json_type = client(), {"Content-Type": "application/json"}
    image = base64.b64encode(png()).decode()
    for path, field in (("/v1/identify", "where"), ("/v1/search", "where"), ("/v1/gallery", "metadata")):
        body = json.dumps({"image": image, field: where})
        if (path, message) != ("/v1/gallery", "is empty"):
            assert message in detail(service.post(path, content=body, headers=json_type), 422)


def test_list_is_paged(client: Client, gallery: Gallery) -> None:
    gallery.add([png("circle", s) for s in range(5)], "circle", progress=False)
    service = client()
    seen, after = [], None
    while True:
        page = service.get("/v1/gallery", params={"limit": 2} | ({"after": after} if after else {})).json()
        assert page["count"] == 5
        seen += [item["id"] for item in page["items"]]
        after = page["after"]
        if after is None:
            break
    assert len(set(seen)) == 5
    assert service.get("/v1/gallery/labels").json() == {"count": 5, "labels": {"circle": 5}}
    assert service.get("/v1/gallery", params={"label": "nobody"}).json()["items"] == []
    problem = detail(service.get("/v1/gallery", params={"limit": 0}), 422)
    assert problem == "limit: '0' is not greater than or equal to 1"
    assert detail(service.get("/v1/gallery", params={"after": "x"}), 422)


def test_rename_update_remove_and_undo(client: Client, gallery: Gallery) -> None:
    service = client()
    ids = service.post("/v1/gallery", files=pictures("circle", "circle-1"), data={"label": "a"}).json()["ids"]
    assert service.post("/v1/gallery/rename", json={"label": "a", "new": "b"}).json() == {"updated": 2}
    changed = service.patch(f"/v1/gallery/{ids[0]}", json={"label": "c", "metadata": {"n": 1}}).json()
    assert changed == {"id": ids[0], "label": "c", "image": None, "metadata": {"n": 1}}
    picture = service.get(f"/v1/gallery/{ids[0]}/thumbnail").content
    removed = service.delete(f"/v1/gallery/{ids[0]}").json()
    assert (removed["removed"], removed["count"]) == (1, 1)
    assert "no image has the id" in detail(service.get(f"/v1/gallery/{ids[0]}/thumbnail"), 404)
    assert not list(Path(gallery.store.address).glob(f"thumbnails/*/{ids[0]}*"))
    assert service.post("/v1/gallery/undo", json={"undo": removed["undo"]}).json() == {
        "restored": 1,
        "count": 2,
    }
    assert gallery.labels() == {"b": 1, "c": 1}
    assert service.get(f"/v1/gallery/{ids[0]}/thumbnail").content == picture
    assert "can no longer be undone" in detail(
        service.post("/v1/gallery/undo", json={"undo": removed["undo"]}), 404
    )
    assert service.delete("/v1/gallery", params={"label": "b"}).json()["removed"] == 1
    assert "no image has the label" in detail(service.delete("/v1/gallery", params={"label": "b"}), 404)
    assert "no image has the label" in detail(
        service.post("/v1/gallery/rename", json={"label": "x", "new": "y"}), 404
    )
    assert "changes nothing" in detail(service.patch(f"/v1/gallery/{ids[0]}", json={}), 422)


def test_unknown_query_parameters_are_refused(client: Client, gallery: Gallery) -> None:
    gallery.add([png("circle"), png("bar")], "site", metadata={"row": 1}, progress=False)
    service = client()
    (id, _) = [item.id for item in gallery.list().items]
    for method, address, says in (
        (
            "DELETE",
            '/v1/gallery?label=site&where={"row":2}',
            "where: unknown query parameter. Supported: label",
        ),
        ("DELETE", "/v1/gallery?label=other&label=site", "label: was given twice"),
        (
            "DELETE",
            f"/v1/gallery/{id}?dry_run=1",
            "dry_run: unknown query parameter. This address supports none",
        ),
        ("GET", "/v1/gallery?k=1", "Supported: label, after, limit"),
        ("GET", "/v1/gallery/labels?label=site", "supports none"),
        ("GET", "/v1/gallery/map?limit=1", "Supported: method"),
        ("GET", f"/v1/gallery/{id}/thumbnail?size=1", "supports none"),
        ("PATCH", f"/v1/gallery/{id}?label=x", "supports none"),
        ("POST", "/v1/gallery?label=x", "supports none"),
        ("POST", "/v1/gallery/rename?label=site", "supports none"),
        ("POST", "/v1/identify?fpir=0.1", "supports none"),
        ("POST", "/v1/verify?threshold=0.1", "supports none"),
        ("GET", "/v1/model?x", "supports none"),
        ("GET", "/healthz?verbose=1", "supports none"),
        ("GET", "/metrics?name%0A=1", "supports none"),
    ):
        sentence = detail(service.request(method, address), 422)
        assert says in sentence, address
        assert "\n" not in sentence
    assert gallery.labels() == {"site": 2}
    assert service.get("/?from=a-link").status_code == 200  # static files ignore the query


def test_thumbnail_has_no_metadata(client: Client, gallery: Gallery) -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET place"
    exif[0x0112] = 6
    photo = encoded(
        drawing("bar", 1, 800), "JPEG", exif=exif, icc_profile=b"SECRET" * 30, comment=b"SECRET words"
    )
    service = client()
    (id,) = service.post("/v1/gallery", files={"image": ("p.jpg", photo)}, data={"label": "x"}).json()["ids"]
    answer = service.get(f"/v1/gallery/{id}/thumbnail")
    assert answer.headers["content-type"] == "image/webp"
    assert b"SECRET" not in answer.content
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (192, 192)
        assert not image.getexif()
        assert set(image.info) <= {"loop", "background", "timestamp", "duration"}
        columns = np.asarray(image.convert("L"))
    # Upright: the EXIF tag rotates the horizontal bar.
    dark = columns < columns.mean()
    assert np.ptp(np.flatnonzero(dark.any(axis=1))) > np.ptp(np.flatnonzero(dark.any(axis=0)))


def test_thumbnail_is_made_from_the_file_of_the_record(
    client: Client, gallery: Gallery, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png("ring"))
    gallery.add([tmp_path / "a.png", png("bar")], ["ring", "bar"], progress=False)
    service = client()
    ids = {item["label"]: item for item in service.get("/v1/gallery").json()["items"]}
    assert ids["ring"]["image"] == "a.png"  # without the folder
    address = f"/v1/gallery/{ids['ring']['id']}/thumbnail"
    assert service.get(address).status_code == 200
    (tmp_path / "a.png").unlink()
    assert service.get(address).status_code == 200  # the thumbnail is stored
    without = service.get(f"/v1/gallery/{ids['bar']['id']}/thumbnail")
    assert (without.status_code, without.content) == (204, b"")


def test_thumbnails_of_removed_images_are_deleted(client: Client, gallery: Gallery, model: Model) -> None:
    service = client()
    ids = service.post("/v1/gallery", files=pictures("circle", "bar"), data={"label": "x"}).json()["ids"]
    kept = Path(gallery.store.address, "thumbnails")
    assert {path.stem for path in kept.glob("*/*.webp")} == set(ids)
    gallery.remove(ids[0])
    client()
    assert {path.stem for path in kept.glob("*/*.webp")} == {ids[1]}


def test_moved_gallery_folder_is_unavailable_until_restored(
    client: Client, gallery: Gallery, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png("ring"))
    id = gallery.add(tmp_path / "a.png", "ring", progress=False).ids[0]
    folder, service = Path(gallery.store.address), client()
    ids = service.post("/v1/gallery", files=pictures("circle", "bar"), data={"label": "x"}).json()["ids"]
    undo = service.delete(f"/v1/gallery/{ids[0]}").json()["undo"]
    folder.rename(tmp_path / "moved")
    new = {"files": pictures("cross"), "data": {"label": "y"}}
    for answer in (
        service.post("/v1/gallery", **new),  # type: ignore[arg-type]
        service.delete(f"/v1/gallery/{ids[1]}"),
        service.delete("/v1/gallery", params={"label": "x"}),
        service.patch(f"/v1/gallery/{ids[1]}", json={"label": "z"}),
        service.post("/v1/gallery/rename", json={"label": "x", "new": "z"}),
        service.post("/v1/gallery/undo", json={"undo": undo}),
    ):
        assert detail(answer, 503).startswith("shapes.gallery: the folder was renamed, moved or deleted")
    assert service.get(f"/v1/gallery/{id}/thumbnail").status_code == 200
    assert not folder.exists()
    (tmp_path / "moved").rename(folder)
    assert service.post("/v1/gallery/undo", json={"undo": undo}).json()["restored"] == 1
    assert service.post("/v1/gallery", **new).json()["count"] == 4  # type: ignore[arg-type]


def test_map_has_every_image(client: Client, gallery: Gallery) -> None:
    gallery.add([png("circle", s) for s in range(4)] + [png("bar")], ["b"] * 4 + [None], progress=False)
    service = client()
    found = service.get("/v1/gallery/map").json()
    assert found["ready"]
    assert found["labels"] == ["b"]
    assert sorted(found["label"]) == [-1, 0, 0, 0, 0]
    assert len(found["ids"]) == len(found["x"]) == len(found["y"]) == found["count"] == 5
    service.delete(f"/v1/gallery/{found['ids'][0]}")
    assert service.get("/v1/gallery/map").json()["count"] == 4
    assert "method" in detail(service.get("/v1/gallery/map", params={"method": "umap"}), 422)


def test_routes_without_a_gallery_name_the_option(client: Client) -> None:
    service = client(gallery=None)
    for answer in (
        service.post("/v1/identify", files=pictures("circle")),
        service.post("/v1/search", files=pictures("circle", field="image")),
        service.post("/v1/gallery", files=pictures("circle"), data={"label": "x"}),
        service.get("/v1/gallery"),
        service.get("/v1/gallery/map"),
        service.get(f"/v1/gallery/{uuid.uuid4()}/thumbnail"),
    ):
        assert "--gallery" in detail(answer, 404)


def test_unknown_ids_and_labels_are_not_found(client: Client) -> None:
    service = client()
    for answer in (
        service.delete(f"/v1/gallery/{uuid.uuid4()}"),
        service.delete("/v1/gallery", params={"label": "nobody"}),
        service.get("/v1/gallery/nothing/thumbnail"),
    ):
        assert detail(answer, 404).startswith("shapes.gallery: ")


def test_read_only_refuses_every_change(client: Client, gallery: Gallery) -> None:
    gallery.add([png("circle")], "circle", progress=False)
    (id,) = [item.id for item in gallery.list().items]
    service = client(read_only=True)
    for answer in (
        service.post("/v1/gallery", files=pictures("bar"), data={"label": "x"}),
        service.post("/v1/gallery/rename", json={"label": "circle", "new": "x"}),
        service.post("/v1/gallery/undo", json={"undo": "x"}),
        service.patch(f"/v1/gallery/{id}", json={"label": "x"}),
        service.delete(f"/v1/gallery/{id}"),
        service.delete("/v1/gallery", params={"label": "circle"}),
    ):
        assert "read-only" in detail(answer, 403)
    assert service.post("/v1/identify", files=pictures("circle")).json()[0]["label"] == "circle"
    assert gallery.labels() == {"circle": 1}


@pytest.mark.parametrize("label", ["", "   ", "a\nb", "\x00", "x" * 201])
def test_label_must_be_one_line_of_text(client: Client, label: str) -> None:
    answer = client().post("/v1/gallery/rename", json={"label": label, "new": "x"})
    assert detail(answer, 422).startswith("label: ")


def test_label_with_markup_is_returned_unchanged(client: Client) -> None:
    label = "<img src=x onerror=alert(1)> ‮ \u0939\u093f ' \" & 😀"
    service = client()
    service.post("/v1/gallery", files=pictures("circle"), data={"label": label})
    answer = service.get("/v1/gallery/labels")
    assert answer.json()["labels"] == {label: 1}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_concurrent_enrollment_and_search(client: Client, gallery: Gallery) -> None:
    service = client(limits=Limits(waiting=64))
    wrong: list[str] = []

    def work(place: int) -> None:
        for seed in range(4):
            answer = service.post(
                "/v1/gallery", files=pictures(f"ring-{10 * place + seed}"), data={"label": f"p{place}"}
            )
            picture = pictures(f"ring-{10 * place + seed}", field="image")
            asked = service.post("/v1/search", files=picture)
            if answer.status_code != 200 or asked.json()[0]["label"] != f"p{place}":
                wrong.append(asked.text)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert gallery.labels() == {f"p{place}": 4 for place in range(6)}
