"""The ready-made model `face`, with a small graph instead of the encoder of the extra."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, checker, helper, numpy_helper

import twinned as tw
from twinned.data.faces import models
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
def small_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "write_encoder", write_encoder)
    monkeypatch.setattr(models, "encoder_weights", dict)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_folder_is_a_complete_model(tmp_path: Path) -> None:
    made = faces.write(tmp_path / "face.twin")
    assert made == model_folder.read(tmp_path / "face.twin")
    assert made.spec.faces == "largest"
    assert made.calibration.far == 0.01
    assert made.calibration.references is not None
    assert made.licence is not None
    assert "CC0" in made.licence
    model = tw.load(tmp_path / "face.twin")
    assert model.embed_pixels(np.zeros((2, 150, 150, 3), np.uint8)).shape == (2, 128)
    card = (tmp_path / "face.twin" / "README.md").read_text(encoding="utf-8")
    assert "did not consent" in card


def test_cached_folder_is_written_once() -> None:
    first = tw.load("face")
    stamp = (first.folder / "model.json").stat().st_mtime_ns
    assert tw.load("face").folder == first.folder
    assert (first.folder / "model.json").stat().st_mtime_ns == stamp
    assert first.folder.name == "face"
    assert first.threshold == pytest.approx(0.6, abs=0.02)


_USER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_faces import models, write_encoder
import twinned as tw
models.write_encoder = write_encoder
print("ready", flush=True)
sys.stdin.readline()
print(tw.load("face").folder)
"""


def test_concurrent_first_use_converts_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _USER, str(Path(__file__).parent)]
    pipe = subprocess.PIPE
    users = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    assert [user.stdout and user.stdout.readline() for user in users] == ["ready\n"] * 2
    for user in users:
        assert user.stdin is not None
        user.stdin.write("go\n")
        user.stdin.flush()
    folders = [user.communicate()[0].strip() for user in users]
    assert [user.returncode for user in users] == [0, 0]
    assert folders[0] == folders[1]
    cache = tmp_path / "cache" / "twinned"
    assert [folder.name for folder in cache.iterdir()] == [Path(folders[0]).parent.name]
