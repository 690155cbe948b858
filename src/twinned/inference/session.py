"""ONNX Runtime sessions, and the pipeline that decodes and embeds images."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..data.images import ImageSource
from ..data.preprocessing import ImageSpec, read_image
from ..errors import ImageError, ModelError, SettingError, is_out_of_memory

if TYPE_CHECKING:
    from ..data.pixel_stores import PixelStore

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
    """ONNX Runtime session of one file on a device, with one thread per core by default; thread-safe."""

    def __init__(self, path: Path, *, device: str = "auto", threads: int = 0) -> None:
        import onnxruntime

        self.path = path
        self._single: Graph | None = None
        self._loading = threading.Lock()
        self.providers, self.note = choose_providers(device, onnxruntime.get_available_providers())
        if self.providers[0] == _PROVIDERS["cuda"]:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints missing libraries
                onnxruntime.preload_dlls()  # those installed by pip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or (os.cpu_count() or 1)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin after a run would slow down the decoding and the face detector between runs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=self.providers)
        except Exception as error:  # ONNX Runtime has no common base for its errors
            if is_out_of_memory(error):
                raise MemoryError(f"{path}: Not enough memory to load it ({error})") from None
            raise ModelError(f"{path}: ONNX Runtime cannot load it ({error})") from None
        if (started := self.session.get_providers())[0] != self.providers[0]:
            self.note = f"{self.providers[0]} did not start (missing libraries?); running on the CPU"
            self.providers = started
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.outputs = [o.name for o in self.session.get_outputs()]

    def check(self, *expected: tuple[int, ...]) -> None:
        """Compare the shapes of input and output with those in model.json; a name matches any size."""
        ends = {"input": self.session.get_inputs()[0], "output": self.session.get_outputs()[0]}
        for (end, tensor), wanted in zip(ends.items(), expected, strict=True):
            found = tuple(tensor.shape[1:])  # without the batch dimension
            if len(found) != len(wanted) or any(f != w for f, w in zip(found, wanted) if isinstance(f, int)):
                raise ModelError(
                    f"{self.path.parent}: The {end} of {self.path.name} has the shape {found}, in model.json"
                    f" {wanted}. One of the two was changed. Restore the folder from a copy, or train again"
                )

    def single_threaded(self) -> Graph:
        """Return a session with one thread, loaded once; this one on devices other than the CPU."""
        if self.providers != [_PROVIDERS["cpu"]]:
            return self
        with self._loading:
            if self._single is None:
                self._single = Graph(self.path, device="cpu", threads=1)
        return self._single

    def __call__(self, *arrays: NDArray[Any], output: str | None = None) -> NDArray[np.float32]:
        """Run the graph and return one of its outputs, by default the first."""
        feed = dict(zip(self.inputs, arrays, strict=True))
        found: NDArray[np.float32] = self.session.run([output or self.outputs[0]], feed)[0]
        return found


def choose_providers(device: str, available: list[str]) -> tuple[list[str], str | None]:
    """Return the execution providers of a device, and a note if it is not available."""
    if device == "auto":
        device = next((d for d in ("cuda", "coreml") if _PROVIDERS[d] in available), "cpu")
    if device not in _PROVIDERS:
        raise SettingError(f"Unknown device {device!r}. Choose auto, {', '.join(_PROVIDERS)}")
    wanted = _PROVIDERS[device]
    if wanted in available:
        return list(dict.fromkeys([wanted, _PROVIDERS["cpu"]])), None
    return [_PROVIDERS["cpu"]], f"device {device} is not supported by this ONNX Runtime; running on the CPU"


class Embedded(NamedTuple):
    """Embeddings of consecutive images."""

    start: int
    vectors: Floats  # (n, d); NaN where there is an error
    errors: list[ImageError | None]  # (n,)


def embed_stream(
    images: Iterable[ImageSource], spec: ImageSpec, graph: Graph, *, batch: int = BATCH
) -> Iterator[Embedded]:
    """Embed any number of images in bounded memory, on all cores; batches are in the order of the images.

    Each worker decodes a batch and runs the network on it with one thread, so that decoding and network share
    the cores without waiting. A generator of images is read a few batches ahead.
    """
    source, start = iter(images), 0
    first = list(itertools.islice(source, batch))
    if len(first) < batch:  # too few for several workers: all cores work on one batch
        if first:
            yield Embedded(0, *_embed(first, spec, graph))
        return
    workers = os.cpu_count() or 1
    lane = graph.single_threaded() if workers > 1 else graph
    with ThreadPoolExecutor(workers, thread_name_prefix="embed") as pool:
        waiting = deque([pool.submit(_embed, first, spec, lane)])
        while waiting:
            while len(waiting) <= workers and (chunk := list(itertools.islice(source, batch))):
                waiting.append(pool.submit(_embed, chunk, spec, lane))
            vectors, errors = waiting.popleft().result()
            yield Embedded(start, vectors, errors)
            start += len(errors)


def embed_images(
    images: Iterable[ImageSource], spec: ImageSpec, graph: Graph, advance: Callable[[int], None] | None = None
) -> Floats:
    """Embed any number of images, shape ``(n, d)``; raise at the first one that cannot be opened.

    ``advance`` gets the number of images of each batch.
    """
    vectors = []
    for batch in embed_stream(images, spec, graph):
        for error in filter(None, batch.errors):
            raise error
        vectors.append(batch.vectors)
        if advance is not None:
            advance(len(batch.vectors))
    return np.concatenate(vectors) if vectors else embed_pixels(np.zeros((0, *spec.shape), np.uint8), graph)


def embed_pixels(pixels: PixelStore, graph: Graph, *, batch: int = BATCH) -> Floats:
    """Embed decoded images: uint8 ``(n, height, width, channels)`` to ``(n, d)``."""
    if len(pixels) == 0:
        return graph(np.zeros((1, *pixels.shape[1:]), np.uint8))[:0]
    return np.concatenate(
        [graph(np.ascontiguousarray(pixels[i : i + batch])) for i in range(0, len(pixels), batch)]
    )


def _embed(
    images: list[ImageSource], spec: ImageSpec, graph: Graph
) -> tuple[Floats, list[ImageError | None]]:
    """Decode a batch and run the network on it; unreadable images get NaN and an error."""
    pixels = np.zeros((len(images), *spec.shape), np.uint8)
    errors: list[ImageError | None] = [None] * len(images)
    for place, image in enumerate(images):
        try:
            pixels[place] = read_image(image, spec)
        except ImageError as error:
            errors[place] = error
    vectors = np.array(graph(pixels), np.float32)
    vectors[[error is not None for error in errors]] = np.nan
    return vectors, errors
