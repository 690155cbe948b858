"""Running ONNX graphs: sessions, batches, and decoding that overlaps the network."""

from __future__ import annotations

import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import ImageError, ModelError, SettingError
from .images import ImageSource, ImageSpec, Pixels, read_image

Floats = NDArray[np.float32]

_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "directml": "DmlExecutionProvider",
}
BATCH = 32


class Graph:
    """One ONNX file, loaded; safe to call from several threads.

    Args:
        path: The file.
        device: ``auto``, ``cpu``, ``cuda``, ``coreml``, ``openvino`` or ``directml``.
        threads: Threads inside the network; 0 for one a core.

    Raises:
        ModelError: If the file is no graph that ONNX Runtime can load.
        SettingError: If the device is not known.
    """

    def __init__(self, path: Path, *, device: str = "auto", threads: int = 0) -> None:
        import onnxruntime

        self.providers, self.note = choose_providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or (os.cpu_count() or 1)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=self.providers)
        except Exception as error:  # ONNX Runtime has no common base for its errors
            raise ModelError(f"{path}: ONNX Runtime cannot load it ({error})") from None
        self.inputs = [i.name for i in self.session.get_inputs()]
        # Without the batch; a name stands for any size.
        self.input_shape: tuple[int | str, ...] = tuple(self.session.get_inputs()[0].shape[1:])
        self.output_shape: tuple[int | str, ...] = tuple(self.session.get_outputs()[0].shape[1:])
        self.outputs = [o.name for o in self.session.get_outputs()]

    def __call__(self, *arrays: NDArray[Any], output: str | None = None) -> NDArray[np.float32]:
        """Run the graph and return one of its outputs, by default the first."""
        feed = dict(zip(self.inputs, arrays, strict=True))
        found: NDArray[np.float32] = self.session.run([output or self.outputs[0]], feed)[0]
        return found


def choose_providers(device: str, available: list[str]) -> tuple[list[str], str | None]:
    """The execution providers to ask ONNX Runtime for, and a sentence where it is not the one asked for.

    Raises:
        SettingError: If the device is not known.
    """
    if device == "auto":
        device = next((d for d in ("cuda", "coreml") if _PROVIDERS[d] in available), "cpu")
    if device not in _PROVIDERS:
        raise SettingError(f"device {device!r} is not known; choose auto, {', '.join(_PROVIDERS)}")
    wanted = _PROVIDERS[device]
    if wanted in available:
        return list(dict.fromkeys([wanted, _PROVIDERS["cpu"]])), None
    return [_PROVIDERS["cpu"]], f"device {device} is not offered by this ONNX Runtime; running on the CPU"


class Embedded(NamedTuple):
    """Some consecutive images, embedded."""

    start: int
    vectors: Floats  # (n, d); NaN where there is an error
    errors: list[ImageError | None]  # (n,)


def embed_stream(
    images: Iterable[ImageSource], spec: ImageSpec, graph: Graph, *, batch: int = BATCH
) -> Iterator[Embedded]:
    """Embed any number of images in bounded memory, decoding ahead of the network.

    Args:
        images: May be a generator; it is read a few batches ahead.
        spec: The model's input.
        graph: The encoder.
        batch: Images a run of the network.

    Yields:
        The images in order, a batch at a time.
    """
    workers = os.cpu_count() or 1
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[Future[tuple[Pixels, list[ImageError | None]]]] = deque()
        source = iter(images)
        start = 0
        while True:
            while len(waiting) <= workers:
                chunk = list(itertools.islice(source, batch))
                if not chunk:
                    break
                waiting.append(pool.submit(_decode, chunk, spec))
            if not waiting:
                return
            pixels, errors = waiting.popleft().result()
            vectors = np.array(graph(pixels), np.float32)
            vectors[[error is not None for error in errors]] = np.nan
            yield Embedded(start, vectors, errors)
            start += len(errors)


def embed_pixels(pixels: Pixels, graph: Graph, *, batch: int = BATCH) -> Floats:
    """Embed images that are decoded already: uint8 ``(n, height, width, channels)`` to ``(n, d)``."""
    if len(pixels) == 0:
        return graph(np.zeros((1, *pixels.shape[1:]), np.uint8))[:0]
    return np.concatenate(
        [graph(np.ascontiguousarray(pixels[i : i + batch])) for i in range(0, len(pixels), batch)]
    )


def _decode(images: list[ImageSource], spec: ImageSpec) -> tuple[Pixels, list[ImageError | None]]:
    pixels = np.zeros((len(images), *spec.shape), np.uint8)
    errors: list[ImageError | None] = [None] * len(images)
    for place, image in enumerate(images):
        try:
            pixels[place] = read_image(image, spec)
        except ImageError as error:
            errors[place] = error
    return pixels, errors
