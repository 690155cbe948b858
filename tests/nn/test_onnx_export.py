"""encoder.onnx and head.onnx agree with PyTorch for any number of images, and contain no local paths."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from twinned import encoders, heads
from twinned.data.preprocessing import ImageSpec
from twinned.nn import onnx_export
from twinned.nn.encoders import ENCODERS
from twinned.nn.siamese import SiameseNetwork

HEADS = {"koch2015": heads.WeightedL1, "chopra2005": heads.SigmoidDistance}


def trained(name: str) -> tuple[SiameseNetwork, ImageSpec]:
    """Return a network whose weights and batch statistics have changed, and the spec of its input."""
    torch.manual_seed(1)
    height, width, channels = encoders.input_shape(name) or (35, 28, 3)
    size = (height, width)
    encoder = encoders.build(name, image_size=size, channels=channels, symmetric=name == "conv4_wide")
    mean, std = (0.6, 0.5, 0.4)[:channels], (0.2, 0.3, 0.4)[:channels]
    network = SiameseNetwork(
        encoder, HEADS.get(name, heads.Distance)(), normalize=name not in HEADS, mean=mean, std=std
    )
    network.train()
    for _ in range(2):
        network.embed(torch.rand(4, channels, height, width)).sum().backward()
    spec = ImageSpec(height=height, width=width, channels=channels, mean=mean, std=std)
    return network, spec


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[SiameseNetwork, ImageSpec, Path]:
    """Conv4 network, its input spec, and its encoder.onnx; do not modify them."""
    network, spec = trained("conv4")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path = tmp_path_factory.mktemp("conv4") / "encoder.onnx"
    onnx_export.export_encoder(network, spec, path)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items()), "unchanged"
    return network, spec, path


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in {"conv4", "chopra2005"}))
        for name in ENCODERS
    ],
)
def test_onnx_runtime_agrees_with_pytorch(name, exported, tmp_path):
    if name == "conv4":
        network, spec, path = exported
        shutil.copyfile(path, tmp_path / "encoder.onnx")
    else:
        network, spec = trained(name)
        onnx_export.export_encoder(network, spec, tmp_path / "encoder.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    for count in (1, 2, 9):
        pixels = rng.integers(0, 256, (count, *spec.shape), dtype=np.uint8)
        theirs, *features = session.run(None, {"pixels": pixels})
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            ours = network.eval().embed(images).numpy()
        assert theirs.dtype == np.float32
        # Tolerance of the exporter; koch2015, with sums of 9216 terms, reaches a third of it.
        np.testing.assert_allclose(theirs, ours, atol=onnx_export.TOLERANCE * max(1, np.abs(ours).max()))
        assert [len(maps) for maps in features] == [count] * network.encoder.has_maps

    assert onnx_export.export_head(network, tmp_path / "head.onnx") == (name in HEADS)
    if name in HEADS:
        head = onnxruntime.InferenceSession(tmp_path / "head.onnx", providers=["CPUExecutionProvider"])
        left, right = ours[:8], ours[1:]
        score = head.run(None, {"left": left, "right": right})[0]
        with torch.no_grad():
            distance = network.head(torch.from_numpy(left), torch.from_numpy(right)).numpy()
        np.testing.assert_allclose(1 - score, distance, atol=1e-5)
        assert head.run(None, {"left": left[:1], "right": right[:1]})[0].shape == (1,)

    for file in tmp_path.iterdir():
        content = file.read_bytes()
        for trace in (os.path.dirname(onnx_export.__file__), os.getcwd(), "site-packages", "/home/"):
            assert trace.encode() not in content, (file.name, trace)
        model = onnx.load(file)
        onnx.checker.check_model(model)
        assert [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")] == [onnx_export.OPSET]
        assert not model.metadata_props
    assert not list(tmp_path.glob("*.data")), "all weights are in the file"


def test_second_output_is_the_last_feature_map(exported):
    network, spec, path = exported
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [o.name for o in session.get_outputs()] == ["embedding", "features"]
    pixels = np.full((2, *spec.shape), 77, np.uint8)
    images = torch.full((2, 3, 35, 28), 77 / 255)
    with torch.no_grad():
        maps = network.eval().encoder.features((images - network.mean) / network.std).numpy()
    np.testing.assert_allclose(session.run(["features"], {"pixels": pixels})[0], maps, atol=1e-3)


def test_differing_graph_is_refused(exported, tmp_path, monkeypatch):
    network, spec, path = exported
    monkeypatch.setattr(torch.onnx, "export", lambda module, example, target, **_: shutil.copy(path, target))
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(onnx_export.ExportError, match=r"encoder.onnx: ONNX Runtime differs from PyTorch by"):
        onnx_export.export_encoder(network, spec, tmp_path / "encoder.onnx")
