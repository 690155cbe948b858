"""Routes of the model return the results of the library."""

from __future__ import annotations

import base64
import gzip
import io

import numpy as np
import pytest
from PIL import Image

from twinned.inference.model import Model
from twinned.server.limits import Limits

from ..conftest import DISTANCE, EMBEDDING
from .conftest import Client, detail, drawing, encoded, pictures, png


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_verify_equals_the_library(client: Client, model: Model) -> None:
    for left, right in ((png("circle", 0), png("circle", 1)), (png("circle", 0), png("bar", 1))):
        expected = model.verify(left, right)
        answer = client(gallery=None).post("/v1/verify", files={"a": ("a.png", left), "b": ("b.png", right)})
        assert answer.status_code == 200
        found = answer.json()
        assert found.keys() == {"same", "probability", "distance", "threshold", "verdict"}
        assert found["same"] is expected.same
        assert found["distance"] == pytest.approx(expected.distance, abs=DISTANCE)
        low, high = (model.probability(found["distance"] + by) for by in (DISTANCE, -DISTANCE))
        assert low <= expected.probability <= high
        assert found["threshold"] == expected.threshold


def test_multipart_and_json_are_equivalent(client: Client) -> None:
    service = client(gallery=None)
    left, right = png("ring"), png("cross")
    parts = service.post("/v1/verify", files={"a": left, "b": right}, data={"threshold": "0.5"})
    as_json = service.post("/v1/verify", json={"a": b64(left), "b": b64(right), "threshold": 0.5})
    assert parts.json() == as_json.json()
    assert as_json.json()["threshold"] == 0.5


def test_explain_returns_regions_and_words(client: Client, model: Model) -> None:
    left, right = png("ring"), png("cross")
    answer = client(gallery=None).post("/v1/explain", files={"a": left, "b": right}).json()
    expected = model.explain(left, right)
    assert answer["text"] == expected.text(model.threshold)
    assert answer["weak"] == expected.is_weak(model.threshold)
    assert np.shape(answer["images"][0]["share"]) == expected.left_share.shape
    with Image.open(io.BytesIO(base64.b64decode(answer["images"][1]["png"]))) as image:
        assert image.size == (model.spec.width, model.spec.height)
    assert len(answer["links"]) == len(expected.strongest())


def test_verify_accepts_several_references(client: Client, model: Model) -> None:
    service, references = client(gallery=None), [png("ring", n) for n in range(3)]
    expected = model.verify(references, png("cross"))
    assert expected.threshold == model.manifest.calibration.references.row(3).threshold
    parts = service.post(
        "/v1/verify", files=[*(("a", ("r.png", one)) for one in references), ("b", ("c.png", png("cross")))]
    )
    as_json = service.post("/v1/verify", json={"a": list(map(b64, references)), "b": b64(png("cross"))})
    for found in (parts.json(), as_json.json()):
        assert found["threshold"] == expected.threshold
        assert found["distance"] == pytest.approx(expected.distance, abs=DISTANCE)
    for refused, says in (([], "a: holds no image"), ([b64(png()), "no base64!"], "a: expected an image as")):
        answer = service.post("/v1/verify", json={"a": refused, "b": b64(png())})
        assert detail(answer, 422).startswith(says)
    broken = service.post("/v1/verify", json={"a": [b64(png()), b64(b"text")], "b": b64(png())})
    assert detail(broken, 422).startswith("a[1]: is not a supported image")


def test_base64_may_have_line_breaks(client: Client) -> None:
    lines = base64.encodebytes(png("ring")).decode()
    assert "\n" in lines.strip()
    answer = client(gallery=None).post("/v1/verify", json={"a": lines, "b": b64(png("ring"))})
    assert answer.json()["distance"] == pytest.approx(0, abs=DISTANCE)


def test_exif_rotation_is_applied(client: Client, model: Model) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(drawing("triangle", 3, 900), "JPEG", exif=exif)
    answer = client(gallery=None).post("/v1/verify", files={"a": turned, "b": png()})
    assert answer.json()["distance"] == pytest.approx(model.verify(turned, png()).distance, abs=DISTANCE)


def test_embed_returns_a_vector_per_image(client: Client, model: Model) -> None:
    answer = client(gallery=None).post("/v1/embed", files=pictures("circle", "bar-2"))
    found = answer.json()
    assert [one["image"] for one in found] == ["circle.png", "bar-2.png"]
    expected = model.embed([png("circle"), png("bar", 2)])
    np.testing.assert_allclose([one["vector"] for one in found], expected, atol=EMBEDDING)
    one = client(gallery=None).post("/v1/embed", json={"image": b64(png())}).json()
    np.testing.assert_allclose(one[0]["vector"], expected[0], atol=EMBEDDING)


def test_classify_accepts_examples_per_class(client: Client, model: Model) -> None:
    support = {"circle": [png("circle", 1), png("circle", 2)], "bar": [png("bar", 1)]}
    expected = [g.to_json() for g in model.classify([png("circle"), png("bar")], support, threshold=1e9)]
    files = [
        *pictures("circle", "bar"),
        *pictures("circle-1", "circle-2", field="support[circle]"),
        *pictures("bar-1", field="support[bar]"),
    ]
    parts = client(gallery=None).post("/v1/classify", files=files, data={"threshold": "1e9"}).json()
    as_json = (
        client(gallery=None)
        .post(
            "/v1/classify",
            json={
                "images": [b64(png("circle")), b64(png("bar"))],
                "support": {label: [b64(one) for one in examples] for label, examples in support.items()},
                "threshold": 1e9,
            },
        )
        .json()
    )
    for found in (parts, as_json):
        assert [g["label"] for g in found] == [g["label"] for g in expected]
        assert [g["distance"] for g in found] == pytest.approx(
            [g["distance"] for g in expected], abs=DISTANCE
        )
    assert parts[0]["image"] == "circle.png"
    assert as_json[1]["image"] == "images[1]"


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"files": {"a": ("x.png", png())}}, 422, "^b: is missing"),
        ({"files": {"left": ("x.png", png())}}, 422, "^left: unknown field. Supported: a, b, thre"),
        ({"files": {"a": ("x.png", png()), "b": ("y.jpg", b"text")}}, 422, "y.jpg: is not a supported image"),
        ({"files": {"a": ("x.png", png()), "b": ("y.png", b"")}}, 422, r"y.png: is empty \(0 bytes\)"),
        ({"files": {"a": ("x.png", png()), "b": ("y.png", png()[:150])}}, 422, "y.png: is damaged or trunc"),
        ({"json": {"a": b64(png()), "b": "no base64!"}}, 422, "b: expected an image as base64"),
        ({"json": {"a": b64(png()), "b": "data:image/png;base64," + b64(png())}}, 422, "without data:"),
        ({"json": {"a": b64(png()), "b": 7}}, 422, "b: expected an image"),
        ({"json": {"a": b64(png()), "b": b64(png()), "c": 1}}, 422, "^c: unknown field"),
        ({"json": {"a": b64(png()), "b": b64(png()), "path": "x"}}, 422, "^path: unknown field"),
        (
            {"json": {"a": b64(png()), "b": b64(png()), "threshold": "wide"}},
            422,
            "^threshold: 'wide' is not a valid number$",
        ),
        ({"json": [1]}, 422, r"^\[1\] is not an object with the fields a, b, threshold, faces$"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 422, "is not valid JSON"),
        (
            {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}},
            422,
            "is not valid JSON",
        ),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 422, "has no boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 422, "damaged"),
        ({"content": png(), "headers": {"content-type": "image/png"}}, 415, "'image/png' is not supported"),
        ({"content": b""}, 415, "is not supported"),
    ],
)
def test_invalid_requests_are_refused_in_one_sentence(
    client: Client, asked: dict[str, object], status: int, says: str
) -> None:
    sentence = detail(client(gallery=None).post("/v1/verify", **asked), status)
    assert pytest.importorskip("re").search(says, sentence), sentence
    assert "\n" not in sentence


def test_compressed_body_is_refused(client: Client) -> None:
    service = client(gallery=None)
    asked = service.build_request("POST", "/v1/embed", files={"image": png()})
    body, kind = asked.read(), asked.headers["content-type"]
    for encoding, sent in (("gzip", gzip.compress(body)), ("br", body), ("gzip, identity", body)):
        answer = service.post(
            "/v1/embed", content=sent, headers={"content-type": kind, "content-encoding": encoding}
        )
        assert repr(encoding) in detail(answer, 415)
        assert answer.headers["accept-encoding"] == "identity"
    plain = {"content-type": kind, "content-encoding": "identity"}
    assert service.post("/v1/embed", content=body, headers=plain).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/v1/gallery", {"GET", "HEAD", "POST", "DELETE"}),
        ("/v1/gallery/00000000-0000-0000-0000-000000000000", {"PATCH", "DELETE"}),
        ("/v1/verify", {"POST"}),
        ("/v1/model", {"GET", "HEAD"}),
        ("/healthz", {"GET", "HEAD"}),
        ("/openapi.json", {"GET", "HEAD"}),
        ("/", {"GET", "HEAD"}),
    ],
)
def test_unsupported_method_lists_the_allowed_ones(client: Client, path: str, methods: set[str]) -> None:
    service = client(gallery=None)
    for method in ("OPTIONS", "PUT"):
        answer = service.request(method, path)
        assert detail(answer, 405)
        assert set(answer.headers["allow"].split(", ")) == methods


def test_error_message_equals_that_of_the_library(client: Client, model: Model, tmp_path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"photo\.jpg") as caught:
        model.verify(tmp_path / "photo.jpg", png())
    answer = client(gallery=None).post("/v1/verify", files={"a": ("photo.jpg", b"not an image"), "b": png()})
    assert detail(answer, 422) == str(caught.value).removeprefix(f"{tmp_path}/")


def bomb(side: int) -> bytes:
    """Build a small PNG that declares ``side`` x ``side`` pixels."""
    file = io.BytesIO()
    Image.new("1", (side, 8)).save(file, "PNG")
    data = bytearray(file.getvalue())
    data[20:24] = side.to_bytes(4, "big")  # the height, in the header
    data[29:33] = __import__("zlib").crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def test_huge_image_is_refused_by_its_header(client: Client) -> None:
    for side in (8_000, 12_000, 60_000):
        sentence = detail(
            client(gallery=None).post("/v1/verify", files={"a": ("b.png", bomb(side)), "b": png()}), 422
        )
        assert sentence.startswith("b.png: ")
        assert "pixels" in sentence


def test_uncommon_formats_are_refused(client: Client) -> None:
    for kind in ("EPS", "TGA", "ICO", "PCX"):
        data = encoded(drawing("circle", 0), kind)
        assert "is not a supported image" in detail(
            client(gallery=None).post("/v1/embed", files={"image": ("x", data)}), 422
        )


def test_too_many_images_or_bytes_are_refused(client: Client) -> None:
    small = client(gallery=None, limits=Limits(images=2, body_bytes=20_000))
    assert "at most 2" in detail(
        small.post("/v1/embed", json={"images": [b64(png(seed=seed)) for seed in range(3)]}), 413
    )
    assert "at most 2" in detail(small.post("/v1/embed", files=pictures("circle", "bar", "ring")), 413)
    assert "20,000 bytes" in detail(small.post("/v1/embed", files={"image": bytes(30_000)}), 413)


def test_file_name_is_sanitized_in_messages(client: Client) -> None:
    name = "../../etc/<script>alert(1)</script>\r\n" + "x" * 500 + ".png"
    sentence = detail(client(gallery=None).post("/v1/embed", files={"image": (name, b"text")}), 422)
    assert sentence.startswith("script>")
    assert len(sentence) < 200
    found = client(gallery=None).post("/v1/embed", files={"image": ("C:\\photos\\me.png", png())}).json()
    assert found[0]["image"] == "me.png"


def test_model_route_returns_figures_limits_and_gallery(client: Client, model: Model) -> None:
    facts = client().get("/v1/model").json()
    assert facts["threshold"] == model.threshold
    assert facts["embedding_size"] == model.embedding_size
    assert len(facts["held_out"]["curve"]["far"]) == len(facts["held_out"]["curve"]["threshold"]) > 1
    assert facts["gallery"]["count"] == 0
    assert facts["limits"]["images"] == 64
    assert str(model.folder.parent) not in str(facts)
    assert client(gallery=None).get("/v1/model").json()["gallery"] is None
