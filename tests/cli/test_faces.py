"""Faces in photographs: the options --faces and --min-face, with colored squares as faces."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import twinned as tw
from twinned.data.faces import cropping, models
from twinned.data.preprocessing import ImageSpec, read_faces, read_image
from twinned.errors import SettingError

RED, GREEN, BLUE = ("red", 20, 30, 120), ("green", 300, 200, 90), ("blue", 500, 60, 60)
BOXES = [[20, 30, 140, 150], [300, 200, 390, 290], [500, 60, 560, 120]]


@pytest.fixture
def photos(painted_faces, tmp_path, monkeypatch) -> Path:
    """Folder with a group photograph, one without faces, and people with one photograph each."""
    monkeypatch.chdir(tmp_path)
    painted_faces(RED, GREEN, BLUE).save("group.png")
    painted_faces().save("empty.png")
    painted_faces(("blue", 0, 0, 24)).save("small.png")
    painted_faces(("red", 300, 300, 50), ("green", 30, 30, 48)).save("two.png")
    painted_faces(size=(96, 96)).save("crop.png")
    for name, face in {"anna": ("red", 200, 100, 200), "ben": ("green", 9, 9, 99)}.items():
        Path("people", name).mkdir(parents=True)
        painted_faces(face).save(Path("people", name, "1.png"))
    return tmp_path


def test_verify_takes_the_largest_face_and_notes_others_once(twinned, color_model, photos):
    arguments = ("verify", color_model, "group.png", "two.png")
    shown = twinned(*arguments, "--faces", "largest", "--json")
    assert shown.code == 0
    assert shown.json["distance"] == pytest.approx(0, abs=1e-6)
    assert shown.err.count("2 faces were found, and the largest is used. With --faces all") == 1
    assert "two.png" not in shown.err
    whole = twinned(*arguments, "--json")
    assert whole.json["distance"] != shown.json["distance"]


def test_photograph_without_a_face_is_refused_with_a_hint(twinned, color_model, photos):
    for image in ("empty.png", "small.png"):
        arguments = ("verify", color_model, image, "people/ben/1.png", "--faces", "largest")
        assert "no face was found (of 40 pixels or more). Choose --faces none" in twinned(*arguments).error
    found = twinned("verify", color_model, "small.png", "group.png", "--faces", "largest", "--min-face", 20)
    assert found.code == 1
    assert twinned("verify", color_model, "empty.png", "empty.png", "--faces", "none").code == 0
    assert "min_face" in twinned("verify", color_model, "two.png", "two.png", "--min-face", 5).error
    assert "faces" in twinned("verify", color_model, "two.png", "two.png", "--faces", "some").error


def test_small_image_without_a_face_is_used_whole(twinned, color_model, photos):
    shown = twinned("verify", color_model, "crop.png", "crop.png", "--faces", "largest")
    assert shown.code == 0
    assert "crop.png: no face was found; the whole image is used as the face" in shown.err


def test_verify_and_gallery_add_refuse_faces_all(twinned, color_model, photos):
    for command in (
        ("verify", color_model, "group.png", "two.png"),
        ("gallery", "add", color_model, "g", "people"),
    ):
        assert "One face of each image is expected" in twinned(*command, "--faces", "all").error
        shown = " ".join(twinned(*command, "--help").out.split())
        assert "largest" in shown
        assert "answer for each face" not in shown


def test_gallery_add_refuses_faces_that_cannot_be_recognized(twinned, color_model, photos, painted_faces):
    blank = painted_faces(RED)
    blank.paste("red", (20, 30, 140, 150))
    for name, face in (("anna", painted_faces(RED)), ("ben", blank)):
        Path("blurs", name).mkdir(parents=True)
        face.save(f"blurs/{name}/1.png")
    added = twinned("gallery", "add", color_model, "b", "blurs", "--faces", "largest", "--json")
    assert added.json["stored"] == 1
    assert added.json["unreadable"] == ["blurs/ben/1.png: the face is too blurred to be recognized"]
    alone = ("blurs/ben/1.png", "--label", "ben", "--faces", "largest")
    assert "too blurred" in twinned("gallery", "add", color_model, "b", *alone).error


def test_identify_and_search_answer_for_each_face(twinned, color_model, photos):
    added = twinned("gallery", "add", color_model, "g", "people", "--faces", "largest", "--json")
    assert added.json["stored"] == 2
    for command in (("identify", color_model, "g"), ("classify", color_model, "people")):
        found = twinned(*command, "group.png", "--faces", "all", "--json").json
        assert [each["box"] for each in found] == BOXES
        assert [each["label"] for each in found] == ["anna", "ben", None]
        assert {each["image"] for each in found} == {"group.png"}
        plain = twinned(*command, "group.png", "--faces", "all", "--min-face", "95")
        assert plain.out.startswith("group.png [20, 30, 140, 150]  anna  probability ")
        assert len(plain.out.splitlines()) == 1
        (largest,) = twinned(*command, "group.png", "--faces", "largest", "--json").json
        assert largest["label"] == "anna"
        assert "box" not in largest
        assert "empty.png: no face" in twinned(*command, "empty.png", "--faces", "all").error
    hits = twinned(
        "search", color_model, "g", "group.png", "two.png", "--faces", "all", "-k", 1, "--json"
    ).json
    assert [each["box"] for each in hits[:3]] == BOXES
    assert [each["found"][0]["label"] for each in hits if each["image"] == "two.png"] == ["anna", "ben"]
    assert (
        "group.png [300, 200, 390, 290]"
        in twinned("search", color_model, "g", "group.png", "--faces", "all").out
    )


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_embed_writes_a_row_per_face(twinned, color_model, photos, suffix):
    file = f"vectors{suffix}"
    shown = twinned("embed", color_model, "group.png", "empty.png", "two.png", "-o", file, "--faces", "all")
    assert "2 images embedded, 1 unreadable" in shown.out
    if suffix == ".npz":
        with np.load(file, allow_pickle=False) as saved:
            rows = {name: saved[name].tolist() for name in saved}
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(file).to_pydict()
    assert rows["path"] == ["group.png"] * 3 + ["empty.png"] + ["two.png"] * 2
    assert rows["box"][:4] == [*BOXES, [-1] * 4]
    assert np.array(rows["vector"][1]).nonzero()[0].tolist() == [1]
    assert np.isnan(rows["vector"][3]).all()
    assert "no face" in rows["error"][3]
    one = twinned("embed", color_model, "group.png", "-o", f"one{suffix}", "--faces", "largest", "--json")
    assert one.json == {"images": 1, "errors": 0, "output": f"one{suffix}"}


def test_with_faces_sets_the_faces_of_a_model(painted_faces, color_model, tmp_path):
    group = painted_faces(RED, GREEN, BLUE)
    model = tw.load(color_model)
    every = model.with_faces("all")
    assert model.spec.faces == "none"
    support = {"anna": painted_faces(RED), "ben": painted_faces(GREEN)}
    assert [each.label for each in every.classify(group, support)] == ["anna", "ben", None]
    with every.gallery(tmp_path / "g") as gallery:
        assert [each.distance for each in gallery.identify(group)] == [np.inf]
    assert model.with_faces("largest").embed(group).nonzero()[0].tolist() == [0]
    with pytest.raises(SettingError, match="One face"):
        every.embed(group)
    spec = ImageSpec(height=32, width=32, faces="largest")
    assert spec.with_faces() is spec
    assert [box for box, _ in read_faces(group, spec)] == [None]
    assert read_image(group, spec).shape == (32, 32, 3)


# ---- crop


@pytest.fixture
def album(photos, painted_faces) -> Path:
    """Class folders: names that differ in the suffix, an unreadable file, a group, an empty photograph."""
    painted_faces(RED).save("people/anna/1.webp", lossless=True)
    Path("people/ben/broken.png").write_bytes(b"broken")
    Path("group.png").rename("people/ben/group.png")
    Path("empty.png").rename("people/ben/empty.png")
    return Path("people")


def rows_of(folder: str) -> list[dict[str, str]]:
    with Path(folder, "crops.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def test_crop_writes_aligned_faces_into_equal_folders(twinned, album):
    before = contents(album)
    shown = twinned("crop", album, "-o", "faces", "--json")
    assert shown.json == {
        "images": 6,
        "faces": 4,
        "no_face": ["people/ben/empty.png"],
        "whole": [],
        "several": ["people/ben/group.png"],
        "unreadable": ["people/ben/broken.png: is not a supported image, or is damaged"],
        "output": "faces",
    }
    assert contents(album) == before
    rows = rows_of("faces")
    assert list(rows[0]) == ["source", "box", "score", "output"]
    assert [row["output"] for row in rows] == [
        "anna/1.png.png",
        "anna/1.webp.png",
        "ben/1.png",
        "",
        "ben/group.png",
    ]
    assert json.loads(rows[4]["box"]) == BOXES[0]
    assert float(rows[4]["score"]) == 1
    assert rows[3] == {"source": "ben/empty.png", "box": "", "score": "", "output": ""}
    images = tw.load_images("faces")
    assert images.classes == ["anna", "ben"]
    chip = np.asarray(Image.open("faces/ben/group.png"))
    assert chip.shape == (150, 150, 3)
    assert tuple(chip[75, 75]) == (255, 0, 0)


def test_crop_all_with_size_and_margin(twinned, album):
    twinned("crop", "people/ben/group.png", "-o", "faces", "--all", "--size", 60, "--margin", 0)
    rows = rows_of("faces")
    assert [row["output"] for row in rows] == ["group.png", "group.face2.png", "group.face3.png"]
    assert [json.loads(row["box"]) for row in rows] == BOXES
    chip = np.asarray(Image.open("faces/group.face2.png"))
    assert chip.shape == (60, 60, 3)
    assert tuple(chip[3, 3]) == (0, 255, 0)


def test_crop_resumes_and_overwrites_only_its_files(twinned, album, monkeypatch):
    def interrupted(image, **_):
        raise KeyboardInterrupt

    twinned("crop", album / "anna", "-o", "faces")
    assert "exists" in twinned("crop", album / "anna", "-o", "faces").error
    assert (
        "150 pixels, not 96" in twinned("crop", album / "anna", "-o", "faces", "--resume", "--size", 96).error
    )
    with monkeypatch.context() as patch:
        patch.setattr(cropping, "search", interrupted)
        assert twinned("crop", album / "anna", "-o", "faces", "--resume", "--json").json["faces"] == 2
        assert twinned("crop", album / "anna", "-o", "other").code == 2
    assert rows_of("other") == []
    assert twinned("crop", album / "anna", "-o", "other", "--resume", "--json").json["faces"] == 2
    kept = Path("other", "note.txt")
    kept.write_text("kept")
    found = twinned("crop", album / "ben", "-o", "other", "--force", "--size", 32, "--json")
    assert found.json["faces"] == 2
    assert {path.name for path in Path("other").iterdir()} == {"crops.csv", "note.txt", "1.png", "group.png"}
    assert twinned("crop", album, "-o", "people", "--force").code == 2
    Path("mine").mkdir()
    assert "no crops.csv" in twinned("crop", album, "-o", "mine", "--force").error


def test_crop_deletes_nothing_outside_its_folder(twinned, album):
    Path("faces").mkdir()
    Path("faces", "crops.csv").write_text('source,box,score,output\na.png,"[0, 0, 9, 9]",1,../crop.png\n')
    assert twinned("crop", album, "-o", "faces", "--force").code == 0
    assert Path("crop.png").exists()


def test_crop_refuses_images_without_faces_and_invalid_options(twinned, photos):
    assert "no face was found in 1 image" in twinned("crop", "empty.png", "-o", "faces").error
    Path("none").mkdir()
    assert "no images" in twinned("crop", "none", "-o", "out").error
    assert "size must be" in twinned("crop", "people", "-o", "out", "--size", 4).error
    assert "margin must be" in twinned("crop", "people", "-o", "out", "--margin", 3).error


# ---- check


def test_check_reports_photographs_without_a_face_or_with_several(twinned, album, monkeypatch):
    monkeypatch.setattr(models, "is_installed", lambda: True)
    found = twinned("check", album, "--faces", "--json").json["problems"]
    faces = {problem["severity"]: problem for problem in found if problem["kind"] == "faces"}
    assert faces["warning"]["files"] == ["people/ben/empty.png"]
    assert faces["info"]["files"] == ["people/ben/group.png"]
    assert "no face in 1 of 5 images: people/ben/empty.png" in faces["warning"]["message"]
    assert twinned("check", album, "--json").json["problems"] == found
    without = twinned("check", album, "--no-faces", "--json").json["problems"]
    assert without == [problem for problem in found if problem["kind"] != "faces"]
    monkeypatch.setattr(models, "is_installed", lambda: False)
    assert twinned("check", album, "--json").json["problems"] == without
