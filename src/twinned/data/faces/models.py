"""dlib's face models: find the files of the extra, convert them once, and load them from the user's cache."""

from __future__ import annotations

import hashlib
import os
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import MissingExtra, ModelError
from ...utils.files import cached_folder
from .dat_file import Floats, ShapePredictor, read_network, read_shape_predictor
from .onnx_graphs import detector_graph, encoder_graph, folded, grid, resize_graph

_PACKAGE = "face_recognition_models"
VERSION = "3"  # of the conversion
_lock = threading.Lock()


class _Source(NamedTuple):
    """File of the extra; one with another SHA-256 is refused."""

    file: str
    sha256: str


ENCODER = _Source(
    "dlib_face_recognition_resnet_model_v1.dat",
    "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
)
DETECTOR = _Source(
    "mmod_human_face_detector.dat", "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6"
)
LANDMARKS = _Source(
    "shape_predictor_5_face_landmarks.dat", "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888"
)


# Input of the encoder: height and width, and mean and standard deviation of pixels in [0, 1].
SIDE = (150, 150)
MEAN = tuple(value / 255 for value in (122.782, 117.001, 104.298))
STD = (256 / 255,) * 3


class Finder(NamedTuple):
    """Detector and shape predictor."""

    resize: Any  # session of the graph of `resize_graph`
    scan: Any  # session of a fast approximation of the detector
    inspect: Any  # session of the detector
    mean: tuple[float, ...]  # color that is subtracted
    step: int  # distance of the scores in pixels
    origin: int  # pixel of the first score
    field: int  # side of the square of pixels on which a score rests
    predictor: ShapePredictor


def is_installed() -> bool:
    """Return True if the extra ``faces`` is installed."""
    return _models_folder() is not None


def read_source(source: _Source) -> bytes:
    """Read a file of the extra, which must be the published one."""
    if (folder := _models_folder()) is None:
        raise MissingExtra("faces", "dlib's face models")
    path = folder / source.file
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: The file cannot be read ({error.strerror})") from None
    if hashlib.sha256(content).hexdigest() != source.sha256:
        raise ModelError(f"{path}: The file differs from the published one. Install the extra again")
    return content


@cache
def finder() -> Finder:
    """Load detector and shape predictor, which are converted on first use."""
    import onnxruntime
    from safetensors.numpy import load_file

    with _lock:
        folder = cached_folder("faces", (VERSION, DETECTOR.sha256, LANDMARKS.sha256), _convert)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count() or 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")  # the encoder runs in between
    resize, scan, inspect = [
        onnxruntime.InferenceSession(
            str(folder / f"{name}.onnx"), options, providers=["CPUExecutionProvider"]
        )
        for name in ("resize", "scan", "inspect")
    ]
    values = load_file(folder / "landmarks.safetensors")
    mean, grid = values.pop("mean"), values.pop("grid")
    step, origin, field = grid.tolist()
    return Finder(resize, scan, inspect, tuple(mean.tolist()), step, origin, field, ShapePredictor(**values))


def _convert(folder: Path) -> None:
    """Write the graphs of `Finder` and landmarks.safetensors."""
    from safetensors.numpy import save_file

    network = read_network(read_source(DETECTOR), DETECTOR.file)
    (folder / "resize.onnx").write_bytes(resize_graph())
    (folder / "scan.onnx").write_bytes(detector_graph(network, fast=True))
    (folder / "inspect.onnx").write_bytes(detector_graph(network))
    predictor = read_shape_predictor(read_source(LANDMARKS), LANDMARKS.file)
    numbers = {"grid": np.array(grid(network)), "mean": np.array(network.mean)}
    save_file({**predictor._asdict(), **numbers}, folder / "landmarks.safetensors")


def write_encoder(path: Path) -> None:
    """Write the face encoder: uint8 ``pixels`` (n, 150, 150, 3) to ``embedding`` (n, 128)."""
    path.write_bytes(encoder_graph(read_network(read_source(ENCODER), ENCODER.file)))


def encoder_weights() -> dict[str, Floats]:
    """Return the weights of the face encoder by the names in `twinned.nn.encoders.pretrained.DlibFace`."""
    *layers, last = folded(read_network(read_source(ENCODER), ENCODER.file).layers)
    found = {"dense.weight": np.ascontiguousarray(last.weights.T)}
    for number, layer in enumerate(layer for layer in layers if layer.kind == "con_4"):
        block = f"blocks.{(number - 1) // 2}.{'first' if number % 2 else 'second'}"
        name = block if number else "stem.0"
        found |= {f"{name}.weight": layer.weights, f"{name}.bias": layer.bias}
    return found


def _models_folder() -> Path | None:
    found = find_spec(_PACKAGE)  # not imported: the package needs pkg_resources
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0], "models") if places else None
