"""Saved models: embed, verify and classify images of any kind, compared with loops and NumPy."""

from __future__ import annotations

import io
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import twinned
from twinned.data.images import pixels_sha256
from twinned.data.preprocessing import read_image
from twinned.errors import DataError, ImageError, SettingError

from ..conftest import DISTANCE, EMBEDDING


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> twinned.Model:
    return twinned.load(tiny_model)


@pytest.fixture
def seen(glyphs: Path) -> list[list[str]]:
    """Files of each of four classes."""
    return [sorted(map(str, folder.iterdir())) for folder in sorted(glyphs.iterdir())[:4]]


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    return path


def test_embedding_is_independent_of_the_form_of_the_image(model, seen):
    path = seen[0][0]
    image = Image.open(path)
    expected = model.embed([path])[0]
    assert expected.shape == (model.embedding_size,)
    assert expected.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(expected), 1, atol=1e-5)
    array, encoded = np.asarray(image), Path(path).read_bytes()
    forms = [
        Path(path),
        image,
        array,
        array[..., None],
        array / 255.0,
        encoded,
        io.BytesIO(encoded).getvalue(),
    ]
    for form in forms:
        np.testing.assert_allclose(model.embed(form), expected, atol=EMBEDDING)
    np.testing.assert_allclose(model.embed(forms), np.tile(expected, (len(forms), 1)), atol=EMBEDDING)
    np.testing.assert_allclose(model.embed(f for f in forms)[2], expected, atol=EMBEDDING)
    np.testing.assert_allclose(model.embed(np.stack([array[..., None]] * 3))[0], expected, atol=EMBEDDING)
    for form in (bytearray(encoded), memoryview(encoded)):
        np.testing.assert_allclose(model.embed(form), expected, atol=EMBEDDING)
    assert model.embed([]).shape == (0, model.embedding_size)


@pytest.mark.parametrize("dtype", [str, object])
def test_array_of_paths_is_a_list_of_images(model, seen, dtype):
    paths = np.array(seen[0][:3], dtype)
    np.testing.assert_allclose(model.embed(paths), model.embed(seen[0][:3]), atol=1e-6)
    assert [guess.label for guess in model.classify(paths, {"a": paths})] == ["a"] * 3
    assert model.verify(paths, paths[0]).same


def test_images_are_converted_to_the_model_input(model, seen):
    image = Image.open(seen[0][0])
    large = image.resize((200, 120)).convert("RGB")
    assert model.embed(large).shape == (model.embedding_size,)
    np.testing.assert_allclose(model.embed(image.convert("RGBA")), model.embed(image), atol=1e-5)


def test_verify_compares_distance_with_threshold(model, seen):
    for left in (seen[0][0], seen[1][1]):
        for right in (seen[0][1], seen[2][0]):
            a, b = model.embed(left), model.embed(right)
            distance = 1 - float(a @ b)
            verdict = model.verify(left, right)
            assert verdict.distance == pytest.approx(distance, abs=DISTANCE)
            assert verdict.threshold == model.threshold
            assert verdict.same == (distance <= model.threshold)
            assert 0 <= verdict.probability <= 1
            assert verdict.probability == pytest.approx(float(model.probability(verdict.distance)))
            turned = model.verify(right, left)
            assert (turned.same, turned.threshold) == (verdict.same, verdict.threshold)
            assert turned.distance == pytest.approx(verdict.distance, abs=DISTANCE)
            assert type(verdict.same) is bool
    assert model.verify(left, left).same
    assert not model.verify(left, right, threshold=-1.0).same
    assert model.verify(left, right, threshold=2.0).same


def test_probability_decreases_with_distance(model):
    probability = model.probability(np.linspace(0, 2, 200))
    assert (np.diff(probability) <= 1e-12).all()
    assert probability[0] > 0.5 > probability[-1]


def test_verify_with_references_uses_all_and_their_threshold(model, seen, tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    with pytest.raises(DataError, match="no images in this folder of references"):
        model.verify(folder, seen[0][0])
    for name, source in enumerate([seen[1][0], seen[0][2], seen[2][3]]):
        shutil.copy(source, folder / f"{name}.png")
    files = sorted(folder.glob("*.png"))
    fitted = model.manifest.calibration.references
    vectors = model.embed([*files, seen[0][0]])
    to, among = (model.distances(vectors[:3], some) for some in (vectors[3:], vectors[:3]))
    verdict, row = model.verify(folder, seen[0][0]), fitted.row(3)
    assert verdict.distance == pytest.approx(float(fitted.distance(to, among)[0]), abs=DISTANCE)
    assert verdict.threshold == row.threshold
    assert verdict.probability == pytest.approx(float(row.probability(verdict.distance)), abs=1e-6)
    (folder / "._0.png").write_bytes(b"resource fork of macOS")
    (folder / "more.png").mkdir()
    assert model.verify(folder, seen[0][0]) == verdict
    for number in range(3, 9):
        shutil.copy(files[0], folder / f"{number}.png")  # copies change nothing
    assert model.verify(folder, seen[0][0]).distance == pytest.approx(verdict.distance, abs=DISTANCE)
    files[2].unlink()
    files[1].unlink()  # one reference uses the threshold of pairs
    assert model.verify(folder, seen[0][0]).threshold == model.threshold
    assert model.verify(folder, seen[0][0]).same == model.verify(files[0], seen[0][0]).same
    with pytest.raises(ImageError, match="is a folder; an image is expected"):
        model.verify(seen[0][0], folder)


def test_verify_many_equals_verify_per_pair(model, seen):
    left = [seen[0][0], seen[0][0], seen[1][0], Image.open(seen[2][0])]
    right = [seen[0][1], seen[1][1], seen[1][2], np.asarray(Image.open(seen[2][1]))]
    together = model.verify_many(left, right)
    for a, b, verdict in zip(left, right, together, strict=True):
        alone = model.verify(a, b)
        assert verdict.same == alone.same
        assert verdict.distance == pytest.approx(alone.distance, abs=DISTANCE)
    assert model.verify_many([], []) == []
    with pytest.raises(DataError, match="got 2 and 1"):
        model.verify_many(left[:2], right[:1])


def test_classify_returns_nearest_class_or_none(model, seen):
    support = {f"class {n}": files[n : n + 1] for n, files in enumerate(seen)}
    queries = [files[-1] for files in seen]
    for query, guess in zip(queries, model.classify(queries, support), strict=True):
        distance, label = min((model.verify(f, query).distance, label) for label, (f,) in support.items())
        assert guess.nearest == label
        assert guess.distance == pytest.approx(distance, abs=DISTANCE)
        assert guess.label == (label if distance <= model.threshold else None)
        assert guess.image == query
        found = guess.to_json()
        assert list(found) == ["image", "label", "probability", "distance", "nearest", "threshold"]
        assert found["nearest"] == {k: found[k] for k in ("probability", "distance")} | {"label": label}
        assert found["threshold"] == guess.threshold == model.threshold
    one = {"only": seen[0][0]}
    assert model.classify(seen[0][1], one, threshold=2).label == "only"


def test_classify_uses_all_examples_of_the_nearest_class(model, seen):
    support = {f"class {n}": files[: n + 1] for n, files in enumerate(seen)}  # one to four examples
    support["class 3"] += support["class 3"][:1]  # copies change nothing
    queries = [files[-1] for files in seen]
    flat = [(label, f) for label, files in support.items() for f in files]
    thresholds = set()
    for query, guess in zip(queries, model.classify(queries, support), strict=True):
        assert guess.nearest == min((model.verify(f, query).distance, label) for label, f in flat)[1]
        verdict = model.verify(support[guess.nearest], query)
        assert guess.distance == pytest.approx(verdict.distance, abs=DISTANCE)
        fit = model.manifest.calibration.references.row(len(set(support[guess.nearest])))
        low, high = (
            (model if len(support[guess.nearest]) == 1 else fit).probability(guess.distance + by)
            for by in (DISTANCE, -DISTANCE)
        )
        assert low <= verdict.probability <= high
        assert guess.label == (guess.nearest if verdict.same else None)
        thresholds.add(verdict.threshold)
    assert len(thresholds) > 2
    names = list(support)
    assert [g.nearest for g in model.classify(queries, support)] == names
    assert [g.label for g in model.classify(queries, support, threshold=-1)] == [None] * 4
    assert [g.label for g in model.classify(queries, support, threshold=float("inf"))] == names


def test_images_of_an_image_set_are_taken(model, strangers):
    images = twinned.load_images(strangers)
    assert np.array_equal(model.embed(images), model.embed(list(images.images)))
    assert len(model.classify(images, strangers)) == len(images)


def test_references_are_a_list_or_a_folder(model, seen, tmp_path):
    for name, source in enumerate(seen[0][:3]):
        shutil.copy(source, tmp_path / f"{name}.png")
    assert model.verify(seen[0][:3], seen[1][0]) == model.verify(tmp_path, seen[1][0])
    assert model.verify(seen[0][:1], seen[1][0]) == model.verify(seen[0][0], seen[1][0])
    with pytest.raises(DataError, match="at least one reference"):
        model.verify([], seen[1][0])


def test_unusable_images_and_thresholds_are_refused(model, seen, broken):
    image = seen[0][0]
    for pair in ((image, broken), (broken, image), (image, "nowhere.png")):
        with pytest.raises(ImageError):
            model.verify(*pair)
        with pytest.raises(ImageError):
            model.verify_many([pair[0]], [pair[1]])
    with pytest.raises(ImageError, match="broken"):
        model.embed([image, broken])
    with pytest.raises(ImageError, match="broken"):
        model.classify(broken, {"a": [image]})
    with pytest.raises(ImageError, match="broken"):
        model.classify(image, {"a": [image], "b": [broken]})
    for support, message in (({}, "none for any class"), ({"a": [image], "b": []}, "none for b")):
        with pytest.raises(DataError, match=message):
            model.classify(image, support)
    for threshold in (float("nan"), float("inf")):
        with pytest.raises(SettingError, match="threshold must be a finite number"):
            model.verify(image, image, threshold=threshold)
    with pytest.raises(SettingError, match="threshold must be a number; got nan"):
        model.classify(image, {"a": [image]}, threshold=float("nan"))


def test_record_has_hashes_of_training_images(model, glyphs):
    trained = model.record.image_hashes
    assert len(trained) == 72
    by_class = {
        folder.name: {pixels_sha256(read_image(f, model.spec)) in trained for f in folder.iterdir()}
        for folder in glyphs.iterdir()
    }
    assert {name for name, hits in by_class.items() if hits == {True}} == set(model.manifest.classes)
    assert {name for name, hits in by_class.items() if hits == {False}} == set(
        model.manifest.held_out["classes"]
    )


def test_repr_and_properties(model, tiny_model):
    assert repr(model) == f"Model(conv4_wide, 20x20x1, cosine, {tiny_model})"
    assert model.distance == "cosine"
    assert model.spec.shape == (20, 20, 1)
    assert len(model.encoder_sha256) == 64
    assert not model.manifest.head
    assert model.rerank is None


def test_dir_lists_public_names(model):
    verbs = "classify embed evaluate explain gallery identify load preprocess save search verify verify_many"
    assert dir(model) == sorted(
        [*verbs.split(), "from_network", "to_torch", "manifest", "threshold", "with_faces"]
    )


def test_duplicated_layers_of_older_folders_are_listed_once(model):
    rows = [["0", "Conv2d", [8, 9, 9], 80], ["1", "ReLU", [8, 9, 9], 0]]
    last = [["dense", "Linear", [4], 2596], ["head", "Distance", [], 0]]
    older = twinned.load(model.folder)
    for listed, expected in ((rows + rows + last, rows + last), (rows + last, rows + last)):
        older.record.__dict__["values"] = {"layers": listed}
        shown = [[name, kind, list(shape), count] for name, kind, shape, count in older.record.layers()]
        assert shown == expected
    # Consecutive layers without weights are kept.
    older.record.__dict__["values"] = {"layers": [rows[1], rows[1], *last]}
    assert len(older.record.layers()) == 4


def test_gallery_search_ranks_by_model_distance(model, seen, tmp_path):
    with model.gallery(tmp_path / "g.gallery") as gallery:
        gallery.add([files[0] for files in seen], ["a", "b", "c", "d"])
        hits = gallery.search(seen[2][0], k=2)
        assert hits[0].label == "c"
        assert hits[0].distance == pytest.approx(0, abs=DISTANCE)
        expected = sorted(model.verify(seen[2][0], files[0]).distance for files in seen)[1]
        assert hits[1].distance == pytest.approx(expected, abs=DISTANCE)


def test_classify_accepts_one_image_and_any_support(model, glyphs):
    file = sorted(glyphs.rglob("*.png"))[0]
    images = twinned.load_images(glyphs)
    (expected,) = model.classify([file], glyphs)
    assert model.classify(file, glyphs) == expected == model.classify(file, images)
    assert expected.label == file.parent.name
    assert model.embed(file.parent).shape == (6, model.embedding_size), "a folder is a list of images"
    assert twinned.Model.load(model.folder).threshold == model.threshold


def test_with_session_leaves_the_model_unchanged(model, seen):
    calls = []

    def session(pixels):
        calls.append(len(pixels))
        return model.encoder(pixels)

    pixels = np.zeros((2, *model.spec.shape), np.uint8)
    np.testing.assert_array_equal(
        model.with_session(session).embed_pixels(pixels), model.embed_pixels(pixels)
    )
    assert calls == [2]
    assert model.embed_pixels(pixels).shape[0] == 2
    assert calls == [2], "the model itself is unchanged"


def test_with_faces_keeps_session_and_temporary_folder(model, tmp_path):
    copied = model.with_session("session").with_faces("largest")
    assert (copied.encoder, copied.spec.faces) == ("session", "largest")
    assert model.with_faces("none") is model, "nothing changes"
    temporary = tempfile.TemporaryDirectory(dir=tmp_path)
    folder = Path(temporary.name, "model")
    model.save(folder)
    copied = twinned.Model(folder, temporary=temporary).with_faces("largest")
    del temporary
    assert folder.exists()
    assert copied.encoder.path == folder / "encoder.onnx"


def test_commands_are_available_as_methods(model, seen, tmp_path):
    with model.gallery(tmp_path / "g") as gallery:
        gallery.add(seen[0][:2], ["a", "a"], progress=False)
        assert model.search(seen[0][0], gallery, k=1)[0].label == "a"
    assert len(model.identify(seen[0][:2], tmp_path / "g")) == 2
    with pytest.raises(SettingError, match="Expected a gallery, its folder or its URL; got list"):
        model.identify(tmp_path / "g", seen[0][:2])
    assert model.explain(seen[0][0], seen[0][1]).left.shape == model.spec.shape


def test_copies_share_the_loaded_encoder(color_model):
    model = twinned.load(color_model).with_faces("largest")
    encoder = model.encoder
    assert model.with_faces("none").encoder is encoder
    assert model.with_session(encoder).spec.faces == "largest"
