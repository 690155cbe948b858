"""Ready-made models: names instead of a model folder, and their list."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import twinned as tw
from twinned.cli.options import MODEL_HELP
from twinned.data.letters import load_letters
from twinned.data.readers import find_images
from twinned.errors import MissingExtra, ModelError, SettingError
from twinned.inference.ready_made import READY_MADE
from twinned.inference.recalibrate import recalibrate
from twinned.utils import notes
from twinned.visualization.report.report import write_report

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", READY_MADE)
def test_description_is_complete(name: str) -> None:
    found = READY_MADE[name].to_json()
    assert found.keys() == {
        "name", "for", "license", "training_data", "size", "figures", "available", "extra"
    }  # fmt: skip
    assert all(row.keys() == {"name", "value", "command"} for row in found["figures"])
    assert all(0 <= row["value"] <= 1 for row in found["figures"])


def test_help_of_commands_names_the_models() -> None:
    *names, last = READY_MADE
    assert MODEL_HELP.endswith(f": {', '.join(names)} or {last}.")


def test_folder_of_the_same_name_is_preferred(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "face")
    with notes.collect() as found:
        model = tw.load("face")
    assert model.folder == Path("face")
    assert [note.code for note in found] == ["own-folder"]


def test_folder_of_images_does_not_hide_the_model_of_its_name(tmp_path: Path) -> None:
    (tmp_path / "glyph" / "anna").mkdir(parents=True)
    with notes.collect() as found:
        model = tw.load("glyph")
    assert model.folder != Path("glyph")
    assert not found


def test_missing_extra_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinned.inference.ready_made.find_spec", lambda name: None)
    assert not READY_MADE["face"].available
    with pytest.raises(MissingExtra, match=r"face needs the extra 'faces': pip install 'twinned\[faces\]'"):
        tw.load("face")


def test_unknown_name_lists_the_names() -> None:
    with pytest.raises(ModelError, match=f"ready-made model: {', '.join(READY_MADE)}"):
        tw.load("fcae")


def test_figures_equal_the_benchmark_results() -> None:
    faces, glyph = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("faces", "glyph"))
    measured = {
        "face": (
            faces["accuracy"]["accuracy"],
            faces["accuracy"]["lfw"]["far"],
            faces["accuracy"]["orl"]["eer"],
        ),
        "glyph": (
            glyph["runs"]["accuracy"],
            glyph["evaluation"]["eer"],
            glyph["evaluation"]["recall_at_1"],
            glyph["letters"]["one_shot"],
        ),
    }
    page = (RESULTS.parents[1] / "docs" / "models.md").read_text("utf-8")
    for name, model in READY_MADE.items():
        for row in model.figures:
            assert f"| `{name}` | {row['name']} | {row['value']} | `{row['command']}` |" in page
    for name, values in measured.items():
        assert [row["value"] for row in READY_MADE[name].figures] == [round(value, 4) for value in values]


def test_glyph_model_recognizes_letters_and_equals_its_network() -> None:
    model = tw.load("glyph")
    assert sum(path.stat().st_size for path in model.folder.iterdir()) <= 4_000_000
    assert "MIT License, copyright (c) 2015 Brenden Lake" in (model.folder / "README.md").read_text("utf-8")
    letters = load_letters(["armenian"], size=35)
    found = model.evaluate(letters, episodes=100, progress=False)
    assert found.one_shot is not None
    assert found.one_shot.accuracy > 0.8  # printed letters; a guess is right once in 20
    assert model.verify(letters.images[0], 255 - np.asarray(letters.images[0])).same  # light on dark
    pixels = list(letters.images[:20])
    network = model.to_torch()
    expected = [network.embed(model.preprocess(image)[None]).detach().numpy()[0] for image in pixels]
    np.testing.assert_allclose(model.embed(pixels), expected, atol=1e-5)


@pytest.fixture
def without_threshold(tiny_model: Path, tmp_path: Path) -> Path:
    """Copy of `tiny_model` without a threshold, as the model `photo` is."""
    folder = tmp_path / "photo"
    shutil.copytree(tiny_model, folder)
    values = json.loads((folder / "model.json").read_text()) | {"calibration": None, "prototype": False}
    (folder / "model.json").write_text(json.dumps(values | {"recipe": {"recipe": "photo"}}))
    return folder


def test_decisions_require_a_threshold(without_threshold: Path, strangers: Path) -> None:
    model, images = tw.load(without_threshold), find_images(strangers)
    with pytest.raises(SettingError, match=r"`twinned calibrate photo DATA -o mine\.twin`.*`twinned train"):
        model.verify(images[0], images[1])
    with pytest.raises(SettingError, match="no threshold"):
        model.classify(images[0], strangers)
    with model.gallery("some.gallery") as gallery:
        gallery.add(images, ["a"] * len(images))
        with pytest.raises(SettingError, match="no threshold"):
            gallery.identify(images[0])


def test_search_and_metrics_require_no_threshold(without_threshold: Path, strangers: Path) -> None:
    model, images = tw.load(without_threshold), find_images(strangers)
    assert model.embed(images[0]).shape == (model.embedding_size,)
    with model.gallery("some.gallery") as gallery:
        gallery.add([*images, np.asarray(255)[None, None].repeat(20, 0).repeat(20, 1).astype(np.uint8)])
        assert gallery.search(images[0], 1)[0].distance == pytest.approx(0, abs=1e-5)
        assert isinstance(gallery.duplicates(), list)
    found = model.evaluate(strangers, progress=False)
    assert found.verification is not None
    assert found.verification.eer is not None
    assert found.to_json()["verification"]["threshold"] is None
    assert found.to_json()["verification"]["far"] is None
    assert "stored threshold" not in str(found)


def test_calibration_adds_a_threshold(without_threshold: Path, strangers: Path, tmp_path: Path) -> None:
    recalibrate(without_threshold, strangers, tmp_path / "mine.twin", progress=False)
    images, model = find_images(strangers), tw.load(tmp_path / "mine.twin")
    assert model.verify(images[0], images[0]).same
    model.manifest = model.manifest.model_copy(update={"data": {"description": "photographs of a zoo"}})
    write_report(model, model.evaluate(strangers, progress=False), tmp_path / "report.html", data="strangers")
    assert "photographs of a zoo" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_ready_made_model_is_not_changed_in_place(
    tiny_model: Path, strangers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("twinned.inference.ready_made.ReadyMade.folder", lambda self: tiny_model)
    with pytest.raises(SettingError, match="not changed in place"):
        recalibrate("photo", strangers, in_place=True)


@pytest.mark.slow
def test_photo_is_converted(tmp_path: Path) -> None:
    if not READY_MADE["photo"].available:
        pytest.skip("needs the extra pretrained")
    model = tw.load("photo")
    assert model.folder.parent.parent == tmp_path / "cache" / "twinned"
    pixels = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    network = model.to_torch()
    expected = np.stack(
        [network.embed(model.preprocess(image)[None]).detach().numpy()[0] for image in pixels]
    )
    np.testing.assert_allclose(model.embed_pixels(pixels), expected, atol=1e-4 * np.abs(expected).max())
    assert "No threshold" in (model.folder / "README.md").read_text(encoding="utf-8")


def test_glyph_on_the_official_runs(data_set: Callable[[str], Path]) -> None:
    found = tw.load("glyph").evaluate(data_set("omniglot/all_runs"), protocol="omniglot-runs", progress=False)
    assert found.one_shot is not None
    assert found.one_shot.accuracy >= 0.97
