from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import twinned as tw
from twinned.errors import DataError, SettingError
from twinned.inference.export import export_model, normalized
from twinned.inference.session import Graph


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> tw.Model:
    return tw.load(tiny_model)


def test_float_encoder_takes_normalized_floats(model: tw.Model, glyphs: Path, tmp_path: Path) -> None:
    result = export_model(model, tmp_path / "out", progress=False)
    graph = onnx.load(str(tmp_path / "out" / "encoder_float.onnx"))
    assert [i.name for i in graph.graph.input] == ["image"]
    assert graph.opset_import[0].version == result["opset"]
    pixels = np.random.default_rng(1).integers(0, 256, (7, *model.spec.shape), dtype=np.uint8)
    plain = Graph(tmp_path / "out" / "encoder_float.onnx")(normalized(model, pixels))
    np.testing.assert_allclose(plain, model.embed_pixels(pixels), atol=1e-4)


def test_int8_export_reports_the_change_in_error(model: tw.Model, glyphs: Path, tmp_path: Path) -> None:
    result = export_model(model, tmp_path / "out", int8=glyphs, progress=False)
    cost = result["int8"]
    assert cost["images"] == 48
    assert 0 <= cost["before"]["eer"] <= 1
    assert abs(cost["after"]["eer"] - cost["before"]["eer"]) < 0.1
    assert (tmp_path / "out" / "encoder_int8.onnx").stat().st_size < (
        tmp_path / "out" / "encoder.onnx"
    ).stat().st_size
    json.dumps(result, allow_nan=False)


def test_example_runs_standalone(model: tw.Model, glyphs: Path, tmp_path: Path) -> None:
    export_model(model, tmp_path / "out", progress=False)
    a, b = (str(glyphs / "glyph00" / f"{n}.png") for n in (0, 1))
    done = subprocess.run(
        [sys.executable, "example.py", a, b], cwd=tmp_path / "out", capture_output=True, text=True, check=True
    )
    verdict = model.verify(a, b)
    word, distance = done.stdout.split()
    assert word == ("same" if verdict.same else "different")
    assert float(distance) == pytest.approx(verdict.distance, abs=1e-4)
    assert "ORT_DISABLE_TELEMETRY=1" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("fit", ["pad", pytest.param("crop", marks=pytest.mark.slow)])
def test_example_runs_a_learned_head_on_any_image_size(glyphs: Path, tmp_path: Path, fit: str) -> None:
    model = tw.train(
        glyphs,
        recipe="glyph",
        loss="cross-entropy",
        image_size=20,
        steps=3,
        settings={"fit": fit},
        progress=False,
    )
    result = export_model(model, tmp_path / "out", progress=False)
    assert "head.onnx" in result["files"]
    assert "1 - the score of head.onnx" in (tmp_path / "out" / "README.md").read_text()
    for number, size in enumerate([(50, 20), (20, 50)]):
        wide = Image.new("L", size, 200)
        wide.paste(Image.open(glyphs / f"glyph0{number}" / "0.png"), (3, 1))
        wide.save(tmp_path / f"{number}.png")
    a, b = (str(tmp_path / f"{number}.png") for number in (0, 1))
    example = [sys.executable, str(tmp_path / "out" / "example.py"), a, b]
    done = subprocess.run(example, cwd=tmp_path, capture_output=True, text=True, check=True)
    verdict = model.verify(a, b)
    word, distance = done.stdout.split()
    assert word == ("same" if verdict.same else "different")
    assert float(distance) == pytest.approx(verdict.distance, abs=1e-4)


def test_existing_folder_is_not_replaced(model: tw.Model, glyphs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(SettingError, match="exists"):
        export_model(model, tmp_path / "mine")
    with pytest.raises(SettingError, match="Not an exported model"):
        export_model(model, tmp_path / "mine", force=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"


def test_int8_export_requires_four_classes(model: tw.Model, glyphs: Path, tmp_path: Path) -> None:
    few = tw.load_images(glyphs).with_classes(["glyph00", "glyph01"])
    with pytest.raises(DataError, match="at least 4 classes"):
        export_model(model, tmp_path / "out", int8=few, progress=False)
    assert not (tmp_path / "out").exists()
