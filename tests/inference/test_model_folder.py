"""The model folder: atomic writes, checksums, and overwriting of model folders only."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

import twinned
from twinned.errors import ModelError, SettingError
from twinned.inference import model_folder
from twinned.utils import files

FILES = {"model.json", "encoder.onnx", "weights.safetensors", "training.json", "history.csv", "README.md"}


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "m.twin"))


def change(folder: Path, **values: object) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_folder_has_the_documented_files(tiny_model):
    assert {p.name for p in tiny_model.iterdir()} == FILES
    manifest = json.loads((tiny_model / "model.json").read_text())
    assert set(manifest["files"]) == FILES - {"model.json"}
    for name, digest in manifest["files"].items():
        assert files.file_sha256(tiny_model / name) == digest
    training = json.loads((tiny_model / "training.json").read_text())
    assert {"recipe", "settings", "seed", "classes", "images"} <= set(training)
    assert len(training["images"]) == 72  # 12 of 16 classes of 6; the threshold is from the other 4
    assert len(training["held_out_images"]) == 24
    header = (tiny_model / "history.csv").read_text().splitlines()[0].split(",")
    assert header[:4] == ["epoch", "step", "seconds", "loss"]
    assert {"train_accuracy", "held_out_accuracy", "held_out_eer", "learning_rate"} <= set(header)


def test_folder_contains_no_local_paths(tiny_model, glyphs):
    for file in tiny_model.iterdir():
        content = file.read_bytes()
        for trace in (str(glyphs), str(tiny_model.parent), os.getcwd(), "site-packages"):
            assert trace.encode() not in content, (file.name, trace)


def test_model_card_describes_the_model(tiny_model):
    card = (tiny_model / "README.md").read_text()
    for words in (
        "conv4",
        "20x20",
        "72 images of 12 classes",
        "4 classes that training never saw",
        "Not supp",
    ):
        assert words in card


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "missing", "a folder"])
def test_damaged_file_is_named_in_the_error(folder, name, damage):
    path = folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        middle = content.index(b'"', len(content) // 2) if name == "model.json" else len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 0x40]) + content[middle + 1 :])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "a folder":
        path.mkdir()
    with pytest.raises(ModelError, match=str(folder)) as caught:
        twinned.load(folder)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format_version": 99}, "format version is 99; this Twinned reads up to version 2"),
        ({"format_version": None}, "format version is None"),
        ({"encoder": 5}, "encoder: Input should be a valid string"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"files": {}}, "encoder.onnx"),
        ({"files": {"../m.twin/encoder.onnx": "0"}}, "is not the name of a file"),
        ({"head": True}, "head.onnx: No such file"),
        ({"calibration": {}}, "calibration.threshold: Field required"),
    ],
)
def test_invalid_manifest_is_refused(folder, values, message):
    change(folder, **values)
    with pytest.raises(ModelError, match=message):
        twinned.load(folder)


def test_sizes_must_match_the_graph(folder, glyphs):
    manifest = json.loads((folder / "model.json").read_text())
    for values in ({"spec": manifest["spec"] | {"height": 24}}, {"embedding_size": 12}):
        change(folder, **manifest | values)
        with pytest.raises(ModelError, match=r"The (input|output) of encoder.onnx .* in model.json"):
            twinned.load(folder).embed(str(glyphs / "glyph00" / "0.png"))


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match="No such model folder"):
        twinned.load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="Not a model folder"):
        twinned.load(tmp_path)
    (tmp_path / "model.json").write_text("[1]")
    with pytest.raises(ModelError, match="format version"):
        twinned.load(tmp_path)
    (tmp_path / "model.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ModelError, match="damaged"):
        twinned.load(tmp_path)


def test_save_refuses_an_existing_folder_without_force(tiny_model, tmp_path):
    model = twinned.load(tiny_model)
    target = tmp_path / "some" / "where" / "copy.twin"
    model.save(target)
    assert {p.name for p in target.iterdir()} == FILES
    assert all((target / name).read_bytes() == (tiny_model / name).read_bytes() for name in FILES)
    with pytest.raises(SettingError, match=r"exists\. Choose another name"):
        model.save(target)
    model.save(target, force=True)
    twinned.load(target).save(target, force=True)  # onto itself
    assert {p.name for p in target.iterdir()} == FILES
    assert [p.name for p in target.parent.iterdir()] == ["copy.twin"], "no temporary folder is left"


def test_force_replaces_only_models_and_empty_folders(tiny_model, tmp_path):
    model = twinned.load(tiny_model)
    photos, note, empty = tmp_path / "photos", tmp_path / "note.txt", tmp_path / "empty"
    photos.mkdir()
    (photos / "a.jpg").write_text("precious")
    note.write_text("precious")
    empty.mkdir()
    for precious in (photos, note):
        with pytest.raises(SettingError, match="not replaced"):
            model.save(precious, force=True)
    with pytest.raises(SettingError, match=r"is a file. Choose another folder"):
        model.save(note / "m.twin", force=True)
    assert (photos / "a.jpg").read_text() == note.read_text() == "precious"
    model.save(empty, force=True)
    assert (empty / "model.json").is_file()


def test_failed_copy_keeps_the_old_model(tiny_model, folder, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        model_folder.copy(tiny_model, folder, force=True)
    assert {p.name for p in folder.iterdir()} == FILES
    assert [p.name for p in folder.parent.iterdir()] == ["m.twin"]


def test_format_version_1_is_read(tiny_model, tmp_path):
    shutil.copytree(tiny_model, tmp_path / "m.twin")
    path = tmp_path / "m.twin" / "model.json"
    values = json.loads(path.read_text())
    notes = ["doctor: the threshold rests on 2 classes, too few", "another note"]
    values |= {"format_version": 1, "notes": notes}
    values["recipe"]["recipe"] = "wrap"
    del values["origin"], values["note_codes"]
    path.write_text(json.dumps(values))
    found = model_folder.read(tmp_path / "m.twin")
    assert found.origin == "wrapped"
    assert [note.code for note in found.coded_notes()] == ["threshold-version-1", ""]
    assert found.notes == notes
