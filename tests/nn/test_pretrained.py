"""dlib's face network in PyTorch: equal to its ONNX graph, with random weights and with the real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import twinned as tw
from twinned.data.faces import models
from twinned.data.faces.dat_file import Layer, Network
from twinned.inference import faces
from twinned.inference.ready_made import READY_MADE
from twinned.nn.encoders import create_encoder
from twinned.nn.siamese import SiameseNetwork

STAGES = [(32, 3), (64, 4), (128, 3), (256, 3), (256, 1)]
DOWN, LEVEL = (3, 3, 2, 2, 0, 0), (3, 3, 1, 1, 1, 1)


def layers_of_the_network() -> list[Layer]:
    """Layers of the published network, with random weights."""
    rng = np.random.default_rng(0)

    def convolution(inputs: int, outputs: int, window: tuple[int, ...]) -> list[Layer]:
        shape = (outputs, inputs, *window[:2])
        values = rng.normal(0, (inputs * window[0] * window[1]) ** -0.5, shape).astype(np.float32)
        bias, scale, shift = (rng.normal(m, 0.1, outputs).astype(np.float32) for m in (0, 1, 0))
        return [Layer("con_4", window, values, bias=bias), Layer("affine_", scale=scale, bias=shift)]

    layers = [
        *convolution(3, 32, (7, 7, 2, 2, 0, 0)),
        Layer("relu_"),
        Layer("max_pool_2", (3, 3, 2, 2, 0, 0)),
    ]
    inputs = 32
    for stage, (outputs, blocks) in enumerate(STAGES):
        for block in range(blocks):
            down = stage > 0 and block == 0
            layers += [*convolution(inputs, outputs, DOWN if down else LEVEL), Layer("relu_")]
            layers += convolution(outputs, outputs, LEVEL)
            layers += [Layer("avg_pool_2", (2, 2, 2, 2, 0, 0))] * down + [Layer("add_prev_"), Layer("relu_")]
            inputs = outputs
    matrix = rng.normal(0, 0.1, (256, 128)).astype(np.float32)
    return [*layers, Layer("avg_pool_2", (0, 0, 1, 1, 0, 0)), Layer("fc_2", weights=matrix)]


@pytest.fixture
def random_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Stand-in for the file of the extra."""
    network = Network(tuple(255 * value for value in models.MEAN), models.SIDE, layers_of_the_network())
    monkeypatch.setattr(models, "read_source", lambda source: b"")
    monkeypatch.setattr(models, "read_network", lambda content, name: network)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def images(count: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (count, 150, 150, 3), dtype=np.uint8)


@torch.no_grad()
def assert_equal(model: tw.Model) -> None:
    pixels = images(2)
    expected = model.embed_pixels(pixels)
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    found = model.to_torch().embed(planes).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(1, np.abs(expected).max()))


@pytest.mark.usefixtures("random_weights")
def test_the_network_equals_the_graph_of_the_ready_made_model(tmp_path):
    faces.write(tmp_path / "face.twin")
    assert_equal(tw.load(tmp_path / "face.twin"))


@pytest.mark.skipif(not models.is_installed(), reason="needs the extra faces")
def test_with_the_published_weights(tmp_path):
    faces.write(tmp_path / "face.twin")
    assert_equal(tw.load(tmp_path / "face.twin"))


@pytest.mark.usefixtures("random_weights")
def test_parts_of_the_encoder():
    encoder = create_encoder("dlib_face", image_size=(150, 150), channels=3)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 5_607_488
    assert encoder.embedding_size == 128
    assert len(encoder.stages()) == 7
    network = SiameseNetwork(encoder, mean=encoder.mean, std=encoder.std)
    assert next(row.output for row in network.layers()) == (32, 72, 72)
    other = create_encoder("dlib_face", image_size=(150, 150), channels=3, embedding_size=16)
    assert other(torch.zeros(1, 3, 150, 150)).shape == (1, 16)
    torch.testing.assert_close(other.stem[0].weight, encoder.stem[0].weight)
    with pytest.raises(tw.errors.SettingError, match="150x150"):
        create_encoder("dlib_face", image_size=(96, 96), channels=3)


@pytest.mark.slow
@pytest.mark.usefixtures("random_weights")
def test_the_ready_made_model_is_trained_further(tmp_path, painted_faces):
    """Images without a found face are faces themselves; each class has a color."""
    rng = np.random.default_rng(2)
    colors = rng.integers(0, 200, (6, 1, 1, 3))
    pixels = (colors[:, None] + rng.integers(0, 50, (6, 3, 96, 96, 3))).reshape(-1, 96, 96, 3)
    people = tw.load_images(pixels.astype(np.uint8), np.repeat([f"p{n}" for n in range(6)], 3))
    faces.write(tmp_path / "face.twin")
    model = tw.finetune(tmp_path / "face.twin", people, tmp_path / "mine.twin", progress=False)
    assert model.spec.faces == "largest"
    assert model.manifest.licence == READY_MADE["face"].license
    assert {"trained", "baseline-kept"} & set(model.manifest.note_codes)
    assert_equal(model)
