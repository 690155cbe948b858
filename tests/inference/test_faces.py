"""The ready-made model `face`: its folder, with a small graph in the place of the extra's encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

import twinned as tw
from twinned.data.faces import models
from twinned.errors import SettingError
from twinned.inference import faces, model_folder


def write_encoder(path: Path) -> None:
    """Write a graph with the input and the output of the encoder."""
    made = helper.make_graph(
        [
            helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMean", ["floats"], ["mean"], axes=[1, 2], keepdims=0),
            helper.make_node("MatMul", ["mean", "weights"], ["embedding"]),
        ],
        "encoder",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 150, 150, 3])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 128])],
        [numpy_helper.from_array(np.ones((3, 128), np.float32), "weights")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    path.write_bytes(model.SerializeToString())


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "write_encoder", write_encoder)
    monkeypatch.setattr(models, "encoder_weights", dict)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_the_folder_is_a_complete_model(tmp_path: Path) -> None:
    made = faces.make_model(tmp_path / "face.twin")
    assert made == model_folder.read(tmp_path / "face.twin")
    assert made.spec.faces == "largest"
    assert made.calibration.far == 0.01
    assert made.calibration.references is not None
    assert made.licence is not None
    assert "CC0" in made.licence
    model = tw.load(tmp_path / "face.twin")
    assert model.embed_pixels(np.zeros((2, 150, 150, 3), np.uint8)).shape == (2, 128)
    with pytest.raises(SettingError, match="exists"):
        faces.make_model(tmp_path / "face.twin")
    card = (tmp_path / "face.twin" / "README.md").read_text(encoding="utf-8")
    assert "did not consent" in card


def test_the_cached_folder_is_written_once() -> None:
    first = faces.cached_model()
    stamp = (first / "model.json").stat().st_mtime_ns
    assert faces.cached_model() == first
    assert (first / "model.json").stat().st_mtime_ns == stamp
    assert tw.load(first).threshold == pytest.approx(0.6, abs=0.02)
