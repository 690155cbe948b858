"""Running graphs: order, batch sizes, lazy reading, unreadable images, threads and devices."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import twinned
from twinned.data.preprocessing import read_image
from twinned.errors import ModelError, SettingError
from twinned.inference.session import Graph, choose_providers, embed_pixels, embed_stream

from ..conftest import EMBEDDING

CPU, CUDA, COREML = "CPUExecutionProvider", "CUDAExecutionProvider", "CoreMLExecutionProvider"


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> twinned.Model:
    return twinned.load(tiny_model)


@pytest.fixture(scope="module")
def files(glyphs: Path) -> list[str]:
    return sorted(map(str, glyphs.rglob("*.png")))[:45]


def test_embeddings_keep_order_for_any_batch_size(model, files):
    pixels = np.stack([read_image(f, model.spec) for f in files])
    one_by_one = np.concatenate([model.encoder(p[None]) for p in pixels])
    for batch in (1, 7, 32, 100):
        chunks = list(embed_stream(iter(files), model.spec, model.encoder, batch=batch))
        assert [c.start for c in chunks] == list(range(0, len(files), batch))
        vectors = np.concatenate([c.vectors for c in chunks])
        np.testing.assert_allclose(vectors, one_by_one, atol=EMBEDDING)
        np.testing.assert_allclose(
            embed_pixels(pixels, model.encoder, batch=batch), one_by_one, atol=EMBEDDING
        )


def test_no_images_give_no_embeddings(model):
    assert list(embed_stream([], model.spec, model.encoder)) == []
    empty = embed_pixels(np.zeros((0, *model.spec.shape), np.uint8), model.encoder)
    assert empty.shape == (0, model.embedding_size)


def test_unreadable_image_gives_nan_and_an_error(model, files, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(files[0]).read_bytes()[:50])
    chunk = next(embed_stream([files[0], broken, files[1]], model.spec, model.encoder))
    assert [error is None for error in chunk.errors] == [True, False, True]
    assert str(broken) in str(chunk.errors[1])
    assert np.isnan(chunk.vectors[1]).all()
    alone = next(embed_stream([files[0], files[1]], model.spec, model.encoder)).vectors
    np.testing.assert_allclose(chunk.vectors[[0, 2]], alone, atol=EMBEDDING)


def test_generator_is_read_a_few_batches_ahead(model):
    drawn = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal drawn
        while True:
            drawn += 1
            yield Image.new("L", (20, 20), drawn % 256)

    stream = embed_stream(endless(), model.spec, model.encoder, batch=4)
    for _ in range(3):
        next(stream)
    stream.close()
    assert drawn < 4 * 40


def test_threads_get_equal_embeddings(model, files):
    expected = model.embed(files)
    start = threading.Barrier(8)

    def work(_: int) -> np.ndarray:
        start.wait()
        return model.embed(files)

    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(work, range(8)):
            np.testing.assert_allclose(found, expected, atol=EMBEDDING)


@pytest.mark.parametrize(
    ("device", "available", "providers", "noted"),
    [
        ("cpu", [CUDA, CPU], [CPU], False),
        ("auto", [CPU], [CPU], False),
        ("auto", [CUDA, CPU], [CUDA, CPU], False),
        ("auto", [COREML, CPU], [COREML, CPU], False),
        ("cuda", [CUDA, CPU], [CUDA, CPU], False),
        ("cuda", [CPU], [CPU], True),
        ("openvino", [CPU], [CPU], True),
    ],
)
def test_unavailable_device_falls_back_to_cpu_with_a_note(device, available, providers, noted):
    found, note = choose_providers(device, available)
    assert found == providers
    assert (note is not None) == noted
    assert note is None or device in note


def test_failed_device_is_noted(model, files, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    with pytest.warns(UserWarning, match=CUDA):
        graph = Graph(model.encoder.path)
    assert graph.providers == [CPU]
    assert "did not start" in graph.note
    assert graph.single_threaded() is not graph


def test_lack_of_memory_is_a_memory_error(model, monkeypatch):
    def load(*_: object, **__: object) -> None:
        raise RuntimeError("Exception during initialization: std::bad_alloc")

    monkeypatch.setattr(onnxruntime, "InferenceSession", load)
    with pytest.raises(MemoryError, match="Not enough memory to load it"):
        Graph(model.folder / "encoder.onnx")


def test_unknown_devices_and_invalid_graphs_are_refused(tmp_path):
    with pytest.raises(SettingError, match=r"Unknown device 'tpu'\. Choose auto, cpu, cuda"):
        choose_providers("tpu", [CPU])
    for content in (b"", b"no graph"):
        (tmp_path / "encoder.onnx").write_bytes(content)
        with pytest.raises(ModelError, match=r"encoder.onnx: ONNX Runtime cannot load it"):
            Graph(tmp_path / "encoder.onnx")
