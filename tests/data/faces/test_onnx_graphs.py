"""Converted networks against plain loops and embeddings by dlib."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dat_writer as dat
import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from twinned.data.faces.dat_file import Layer, Network, read_network
from twinned.data.faces.onnx_graphs import detector_graph, encoder_graph, grid, resize_graph
from twinned.errors import ModelError

Floats = NDArray[np.float64]


def run(graph: bytes, **inputs: NDArray[Any]) -> NDArray[np.float32]:
    return onnxruntime.InferenceSession(graph).run(None, inputs)[0]


def windows(values: Floats, layer: Layer, fill: float) -> Floats:
    """Windows of a map, (rows, columns, channels, height, width)."""
    height, width, down, right, top, left = layer.window
    padded = np.pad(values, ((0, 0), (top, top), (left, left)), constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(1, 2))
    return found[:, ::down, ::right].transpose(1, 2, 0, 3, 4)


def add_padded(a: Floats, b: Floats) -> Floats:
    total = np.zeros(np.maximum(a.shape, b.shape))
    for one in (a, b):
        total[tuple(slice(size) for size in one.shape)] += one
    return total


def slow(layers: list[Layer], values: Floats) -> Floats:
    """Run the layers one by one, as dlib does."""
    start = shortcut = values
    for number, one in enumerate(layers):
        if one.kind == "con_4":
            values = np.einsum("rcihw,oihw->orc", windows(values, one, 0), one.weights)
            values += one.bias[:, None, None]
        elif one.kind == "affine_":
            values = values * one.scale[:, None, None] + one.bias[:, None, None]
        elif one.kind == "relu_":
            values = np.maximum(values, 0)
            if layers[number - 1].kind == "add_prev_":
                start = shortcut = values
        elif one.kind == "max_pool_2":
            start = shortcut = values = windows(values, one, -np.inf).max((3, 4)).transpose(2, 0, 1)
        elif one.kind == "avg_pool_2" and one.window[0]:
            shortcut = windows(start, one, 0).mean((3, 4)).transpose(2, 0, 1)
        elif one.kind == "avg_pool_2":
            values = values.mean((1, 2))
        elif one.kind == "add_prev_":
            values = add_padded(values, shortcut)
        else:
            values = values @ one.weights
    return values


def test_encoder_equals_a_plain_loop() -> None:
    content, expected = dat.encoder()
    pixels = np.random.default_rng(1).integers(0, 256, (3, 35, 35, 3), dtype=np.uint8)
    found = run(encoder_graph(read_network(content, "x")), pixels=pixels)
    for image, vector in zip(pixels, found, strict=True):
        planes = (image.astype(float) - expected.mean).transpose(2, 0, 1) / 256
        both = [slow(expected.layers, one) for one in (planes, planes[:, :, ::-1])]
        np.testing.assert_allclose(vector, np.mean(both, axis=0), atol=2e-5)


def detector() -> Network:
    rng = np.random.default_rng(0)
    sizes = [(4, 3, (5, 5, 2, 2, 0, 0)), (4, 4, (5, 5, 2, 2, 0, 0)), (9, 4, (5, 5, 1, 1, 2, 2))]
    details = []
    for outputs, channels, window in [*sizes, (1, 9, (3, 3, 1, 1, 1, 1))]:
        weights = rng.normal(0, 0.2, (outputs, channels, *window[:2])).astype(np.float32)
        bias = rng.normal(size=outputs).astype(np.float32)
        details += [dat.layer(Layer("con_4", window, weights, bias=bias)), dat.layer(Layer("relu_"))]
    return read_network(dat.network(details[:-1]), "x")


def test_detector_equals_a_plain_loop_at_any_size() -> None:
    network = detector()
    graphs = [detector_graph(network, fast=fast) for fast in (False, True)]
    assert grid(network) == (4, 6, 37)
    for height, width in ((30, 41), (50, 23)):
        planes = np.random.default_rng(2).normal(0, 50, (1, 3, height, width)).astype(np.float32)
        expected = slow(network.layers, planes[0] / 256)
        for graph in graphs:  # the fast one is exact for a rank of 4 * 5
            np.testing.assert_allclose(run(graph, planes=planes)[0], expected, atol=2e-5)


def test_resizing_keeps_the_first_and_the_last_pixels() -> None:
    planes = np.random.default_rng(3).normal(size=(1, 3, 9, 13)).astype(np.float32)
    found = run(resize_graph(), planes=planes, size=np.array([1, 3, 5, 7]))
    np.testing.assert_allclose(found, planes[:, :, ::2, ::2], atol=1e-6)


def test_incompatible_layers_are_refused() -> None:
    _, network = dat.encoder()
    convolution, affine, relu, *rest = network.layers
    with pytest.raises(ModelError, match="affine_"):
        encoder_graph(network._replace(layers=[convolution, relu, affine, *rest]))
    with pytest.raises(ModelError, match="channels"):
        encoder_graph(network._replace(layers=[convolution, affine, relu, convolution, *rest]))
    with pytest.raises(ModelError, match="matrix"):
        encoder_graph(network._replace(layers=network.layers[:-1]))


DLIB_NORM = 1.3005871
DLIB_VALUES = [-0.0644201, 0.1072875, 0.0202905, 0.0034202, -0.0651351, -0.0454212]


def drawn_face() -> NDArray[np.uint8]:
    """Circles and rings on a gray background, uint8 (150, 150, 3)."""
    rows, columns = np.mgrid[:150, :150]
    pixels = np.full((150, 150, 3), 90, np.uint8)
    shapes = [(75, 75, 55, (224, 180, 150)), (60, 55, 7, (40, 40, 60)), (60, 95, 7, (40, 40, 60))]
    for row, column, radius, color in [*shapes, (105, 75, 12, (150, 60, 70))]:
        pixels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = color
    return pixels


def test_encoder_agrees_with_dlib() -> None:
    """Embeddings of a drawn image and its mirror image by dlib 20.0.1, averaged; six of 128 values."""
    models = find_spec("face_recognition_models")
    if models is None or not models.submodule_search_locations:
        pytest.skip("needs the extra faces")
    path = Path(models.submodule_search_locations[0], "models", "dlib_face_recognition_resnet_model_v1.dat")
    vector = run(encoder_graph(read_network(path.read_bytes(), path.name)), pixels=drawn_face()[None])[0]
    assert float(np.linalg.norm(vector)) == pytest.approx(DLIB_NORM, abs=1e-5)
    np.testing.assert_allclose(vector[:6], DLIB_VALUES, atol=1e-5)
