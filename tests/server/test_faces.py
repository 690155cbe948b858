"""Photographs of people: find their faces, and take them in every route. Squares of a color are the faces."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

import twinned as tw
from twinned.server.app import create_app
from twinned.server.batching import EncoderPlan

from .conftest import detail, encoded

RED, GREEN, BLUE = ("red", 20, 30, 120), ("green", 300, 200, 90), ("blue", 500, 60, 60)
Paint = Callable[..., Image.Image]


@pytest.fixture
def service(color_model: Path, painted_faces: Paint, tmp_path: Path) -> TestClient:
    """A service of a model that looks for faces, with an empty gallery."""
    model = tw.load(color_model, device="cpu").with_faces("largest")
    gallery = model.gallery(tmp_path / "people.gallery")
    app = create_app(model, gallery, plan=EncoderPlan(model.encoder, 2, False))
    return TestClient(app, base_url="http://127.0.0.1:8000")


@pytest.fixture
def photo(painted_faces: Paint) -> Callable[..., tuple[str, bytes]]:
    """``photo(RED, GREEN)`` is a file with these faces."""
    return lambda *faces, **options: ("photo.png", encoded(painted_faces(*faces, **options), "PNG"))


def test_faces_are_found_and_cut_out(service: TestClient, photo: Any) -> None:
    found = service.post("/v1/faces", files={"image": photo(RED, GREEN, BLUE)}).json()
    assert (found["image"], found["width"], found["height"]) == ("photo.png", 640, 480)
    assert [face["box"] for face in found["faces"]] == [
        [20, 30, 140, 150],
        [300, 200, 390, 290],
        [500, 60, 560, 120],
    ]
    for face, color in zip(found["faces"], ((255, 0, 0), (0, 255, 0), (0, 0, 255))):
        with Image.open(io.BytesIO(base64.b64decode(face["crop"]))) as crop:
            assert crop.getpixel((crop.width // 2, crop.height // 2)) == color
    assert {"words", "refused"} == found["faces"][0]["quality"].keys()


def test_a_photograph_without_a_face_is_refused_with_a_reason(service: TestClient, photo: Any) -> None:
    answer = service.post("/v1/faces", files={"image": photo()})
    assert detail(answer, 422).startswith("photo.png: no face was found. Choose a photograph with a face")
    small = photo(("red", 40, 40, 24))
    assert "no face was found" in detail(service.post("/v1/faces", files={"image": small}), 422)
    found = service.post("/v1/faces", files={"image": small}, data={"min_face": "20"}).json()
    assert found["faces"][0]["box"] == [40, 40, 64, 64]


def test_face_that_was_cut_out_is_used_unchanged(service: TestClient, photo: Any) -> None:
    faces = service.post("/v1/faces", files={"image": photo(RED, GREEN)}).json()["faces"]
    crops = [base64.b64decode(face["crop"]) for face in faces]
    by_crop = service.post("/v1/verify", files={"a": crops[0], "b": crops[1]}, data={"faces": "none"}).json()
    by_photo = service.post("/v1/verify", files={"a": photo(RED), "b": photo(GREEN)}).json()
    assert by_crop["distance"] == pytest.approx(by_photo["distance"], abs=1e-6)
    assert by_crop["distance"] > 0.5
    images = {"a": photo(RED, GREEN), "b": photo(("red", 20, 30, 120), ("blue", 300, 200, 90))}
    assert service.post("/v1/verify", files=images).json()["distance"] == pytest.approx(0, abs=1e-6)
    whole = service.post("/v1/verify", files=images, data={"faces": "none"}).json()
    assert whole["distance"] > 0.01


def test_every_face_of_a_group_gets_a_name_or_unknown(service: TestClient, photo: Any) -> None:
    for label, face in (("anna", RED), ("ben", GREEN)):
        added = service.post("/v1/gallery", files={"image": photo(face)}, data={"label": label}).json()
        assert added["stored"] == 1
    fields = {"faces": "all", "nearest": "1"}
    found = service.post("/v1/identify", files={"image": photo(GREEN, BLUE, RED)}, data=fields).json()
    assert [(one["label"], one["box"]) for one in found[:2]] == [
        ("anna", [20, 30, 140, 150]),
        ("ben", [300, 200, 390, 290]),
    ]
    assert [one["hits"][0]["label"] for one in found[:2]] == ["anna", "ben"]
    assert found[2]["label"] is None
    assert {one["image"] for one in found} == {"photo.png"}
    (largest,) = service.post("/v1/identify", files={"image": photo(GREEN, BLUE, RED)}).json()
    assert largest["label"] == "anna"
    assert "box" not in largest
    hits = service.post("/v1/search", files={"image": photo(GREEN)}, data={"k": "1"}).json()
    assert hits[0]["label"] == "ben"


def test_a_face_enrolled_twice_is_skipped_whether_it_was_cut_out_or_not(
    service: TestClient, photo: Any
) -> None:
    service.post("/v1/gallery", files={"image": photo(RED)}, data={"label": "anna"})
    (face,) = service.post("/v1/faces", files={"image": photo(RED)}).json()["faces"]
    crop = base64.b64decode(face["crop"])
    again = service.post("/v1/gallery", files={"image": crop}, data={"label": "anna", "faces": "none"})
    assert (again.json()["stored"], again.json()["skipped"]) == (0, 1)


def test_another_way_to_take_faces_is_refused(service: TestClient, photo: Any) -> None:
    for path, field in (("/v1/verify", "a"), ("/v1/gallery", "image")):
        files = {field: photo(RED)} | ({"b": photo(RED)} if field == "a" else {})
        assert "faces" in detail(service.post(path, files=files, data={"faces": "all"}), 422)
