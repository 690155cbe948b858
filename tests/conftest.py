"""Shared fixtures: real data sets, Hypothesis profile, drawn images and small models."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings as hypothesis_settings
from numpy.typing import NDArray
from PIL import Image, ImageDraw

# Importing Twinned switches off usage reporting, also for tests that import ONNX Runtime themselves.
from twinned.distances import euclidean
from twinned.metrics.comparisons import Comparisons, compare_all
from twinned.utils import files

# Test processes share the cores, so one thread per network is fastest.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Reproducible examples without a deadline, since machines are shared.
hypothesis_settings.register_profile("twinned", derandomize=True, deadline=None)
hypothesis_settings.load_profile("twinned")


def rounding(layers: int, terms: int) -> float:
    """Return a bound of the float32 rounding error of unit-length embeddings.

    Processors and batch sizes add in different orders. A sum of ``terms`` terms is then right to about
    ``sqrt(terms) * u`` of their length, u = 2^-24 (Higham 2002, section 2.8), and the layers' errors add up.
    """
    return float(layers * np.sqrt(terms) * 2**-24)


# For `tiny_model`: four convolutions with sums of up to 9 * 128 terms, and a linear layer; 1e-5.
EMBEDDING = rounding(5, 9 * 128)
# A cosine distance adds the errors of both embeddings and of one sum; 2e-5.
DISTANCE = rounding(11, 9 * 128)


def slow(*values: Any) -> list[Any]:
    """Mark values of a parametrized test as slow: ``parametrize("seed", [0, *slow(1, 2)])``.

    A tuple gives several parameters.
    """
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
        for value in values
    ]


def in_memory(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder in memory if it has space, since galleries synchronize often."""
    memory = Path("/dev/shm")
    if not memory.is_dir() or shutil.disk_usage(memory).free < 2 << 30:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory, prefix="twinned-test-") as folder:
        yield Path(folder)


DataSet = Callable[[str], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of real data as ``data``, so that ``-m "not data"`` excludes them."""
    for item in items:
        if "data_set" in getattr(item, "fixturenames", ()):
            item.add_marker("data")


@pytest.fixture(scope="session")
def data_set() -> DataSet:
    """Function that unpacks a real data set and returns its folder; skips without TWINNED_DATA.

    Call it with the name of a ZIP below TWINNED_DATA, without the suffix: "orl_faces", "lfw_crop96" (the
    official lists are next to the folder, in ``lfw_protocol``), "cedar_signatures", "logos27",
    "omniglot/all_runs", "omniglot/images_background_small1". The folders are kept for later sessions
    and shared by processes; do not modify them.
    """
    return _unpacked


def _unpacked(name: str) -> Path:
    if not os.environ.get("TWINNED_DATA"):
        pytest.skip("TWINNED_DATA is not set")
    archive = Path(os.environ["TWINNED_DATA"], f"{name}.zip")
    if not archive.is_file():
        pytest.skip(f"{archive} does not exist")
    status = archive.stat()
    cache = Path(tempfile.gettempdir(), f"twinned-test-data-{os.getuid()}")
    root = cache / f"{archive.stem}-{status.st_size}-{status.st_mtime_ns}"
    cache.mkdir(mode=0o700, exist_ok=True)
    with FileLock(f"{root}.lock"):
        if not root.is_dir():
            part = root.with_suffix(
                ".part"
            )  # renamed when complete, so that a killed run leaves no partial folder
            shutil.rmtree(part, ignore_errors=True)
            with zipfile.ZipFile(archive) as file:
                file.extractall(part)
            part.rename(root)
    inner = root / archive.stem
    return inner if inner.is_dir() else root


Squares = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="session")
def squares() -> Squares:
    """``squares((color, row, column), ...)`` draws 4x4 squares on a black 32x32 image, on a grid of 8x8."""
    colors = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}

    def draw(*spots: tuple[str, int, int]) -> NDArray[np.uint8]:
        image = np.zeros((32, 32, 3), np.uint8)
        for color, row, column in spots:
            image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = colors[color]
        return image

    return draw


@pytest.fixture(scope="session")
def color_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a constructed model: the embedding is the mean color, the features those of 8x8 regions.

    Its threshold is fitted on simulated comparisons, so that expected values are known.
    """
    onnx = pytest.importorskip("onnx", reason="needs onnx to build the graph")
    from twinned import __version__
    from twinned.data.preprocessing import ImageSpec
    from twinned.evaluation.fitting import fit_calibration
    from twinned.inference import model_folder
    from twinned.metrics.comparisons import compare_pairs

    make = onnx.helper.make_node
    nodes = [
        make("Cast", ["pixels"], ["floats"], to=onnx.TensorProto.FLOAT),
        make("Mul", ["floats", "scale"], ["scaled"]),
        make("Transpose", ["scaled"], ["planes"], perm=[0, 3, 1, 2]),
        make("AveragePool", ["planes"], ["features"], kernel_shape=[4, 4], strides=[4, 4]),
        make("ReduceMean", ["features", "axes"], ["embedding"], keepdims=0),
    ]
    value = onnx.helper.make_tensor_value_info
    constants = [
        onnx.numpy_helper.from_array(np.float32(1 / 255), "scale"),
        onnx.numpy_helper.from_array(np.array([2, 3]), "axes"),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "colors",
        [value("pixels", onnx.TensorProto.UINT8, ["n", 32, 32, 3])],
        [
            value("embedding", onnx.TensorProto.FLOAT, ["n", 3]),
            value("features", onnx.TensorProto.FLOAT, ["n", 3, 8, 8]),
        ],
        constants,
    )
    folder = tmp_path_factory.mktemp("models") / "colors.twin"
    folder.mkdir()
    opset = onnx.helper.make_opsetid("", 18)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9), folder / "encoder.onnx")
    random = np.random.default_rng(0)
    classes = random.integers(0, 12, (2, 400))
    same = classes[0] == classes[1]
    calibration = fit_calibration(
        compare_pairs(
            random.normal(np.where(same, 0.2, 0.6), 0.1).clip(0), same, left=classes[0], right=classes[1]
        ),
        bootstrap=20,
    )
    layers = [["pool", "AvgPool2d", [3, 8, 8], 0], ["mean", "AvgPool2d", [3], 0], ["head", "Distance", [], 0]]
    training = {"seed": 7, "layers": layers, "classes": ["old"], "images": []}
    files.write_text(folder / "training.json", json.dumps(training))
    history = "step,seconds,epoch,loss,train_accuracy,held_out_accuracy,held_out_eer\n"
    rows = ["25,1,1,2.5,0.7,0.6,0.4", "50,2,2,1.5,0.8,0.75,0.25", "75,3,3,1.2,0.9,0.7,0.3"]
    files.write_text(folder / "history.csv", history + "\n".join(rows) + "\n")
    model_folder.write(
        folder,
        model_folder.Manifest(
            twinned=__version__,
            encoder="colors",
            spec=ImageSpec(height=32, width=32, channels=3),
            embedding_size=3,
            normalized=False,
            distance="cosine",
            calibration=calibration,
            classes=["old"],
            data={"images": 40, "sha256": "f" * 64},
            held_out={"classes": ["held"]},
            recipe={"recipe": "by hand", "steps": 75, "seed": 7},
        ),
    )
    return folder


@pytest.fixture
def painted_faces(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Image.Image]:
    """``painted_faces(("red", left, top, side), ...)`` paints grids on black, which are found as faces."""
    from twinned.data.faces import detector, landmarks, models, photographs

    colors = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255)}

    def find(image: Image.Image, smallest: float) -> list[detector.Face]:
        found = []
        for color in colors.values():
            rows, columns = np.nonzero((np.asarray(image.convert("RGB")) == color).all(2))
            if len(rows) and (side := rows.max() + 1 - rows.min()) >= smallest:
                left, top = int(columns.min()), int(rows.min())
                points = landmarks.AVERAGE_FACE * side + (left, top)
                found.append(detector.Face((left, top, left + int(side), top + int(side)), 1.0, points))
        return sorted(found, key=lambda face: -face.size)

    def predict(predictor: object, image: Image.Image, boxes: NDArray[Any]) -> NDArray[np.float64]:
        return landmarks.AVERAGE_FACE * (boxes[:, 2:] - boxes[:, :2])[:, None] + boxes[:, None, :2]

    monkeypatch.setattr(photographs, "find_faces", find)
    monkeypatch.setattr(photographs, "predict", predict)
    monkeypatch.setattr(models, "finder", lambda: models.Finder(None, None, None, (), 8, 14, 189, None))  # type: ignore[arg-type]
    monkeypatch.setattr(photographs, "_noted", set())

    def paint(*faces: tuple[str, int, int, int], size: tuple[int, int] = (640, 480)) -> Image.Image:
        image = Image.new("RGB", size, "black" if faces else "gray")
        for color, left, top, side in faces:
            image.paste(colors[color], (left, top, left + side, top + side))
            for line in range(side // 8, side, side // 4):  # not blurred; the middle keeps its color
                image.paste("black", (left + line, top, left + line + side // 16, top + side))
                image.paste("black", (left, top + line, left + side, top + line + side // 16))
        return image

    return paint


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, painted_faces: Callable[..., Image.Image]) -> list[float]:
    """Sizes of faces that were searched for, where painted faces are those that are found."""
    from twinned.data.faces import models, photographs

    sizes: list[float] = []
    find = photographs.find_faces
    monkeypatch.setattr(models, "is_installed", lambda: True)
    monkeypatch.setattr(photographs, "find_faces", lambda *given: (sizes.append(given[1]), find(*given))[1])
    return sizes


DrawGlyphs = Callable[..., Path]


@pytest.fixture(scope="session")
def draw_glyphs() -> DrawGlyphs:
    """``draw_glyphs(folder, classes=16, images=6)`` writes PNGs of characters with three random strokes."""
    return _draw_glyphs


def _draw_glyphs(root: Path, *, classes: int = 16, images: int = 6, size: int = 20, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    for name in range(classes):
        strokes = rng.uniform(0.15, 0.85, (3, 2, 2))
        folder = root / f"glyph{name:02d}"
        folder.mkdir(parents=True)
        for number in range(images):
            page = Image.new("L", (4 * size, 4 * size), 255)
            pen = ImageDraw.Draw(page)
            for a, b in (strokes + rng.normal(0, 0.03, strokes.shape)) * 4 * size:
                pen.line([*a, *b], fill=0, width=size // 3)
            page.resize((size, size), Image.Resampling.BOX).save(folder / f"{number}.png")
    return root


@pytest.fixture(scope="session")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 classes of 6 glyphs, 20x20, the training data of `tiny_model`; do not modify them."""
    return _draw_glyphs(tmp_path_factory.mktemp("glyphs") / "glyphs")


@pytest.fixture(scope="session")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 classes of 6 glyphs that `tiny_model` has not seen; do not modify them."""
    return _draw_glyphs(tmp_path_factory.mktemp("strangers") / "strangers", classes=8, seed=1)


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """``once(name, make)`` calls ``make(folder)`` in one process of pytest-xdist, for all of them."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def share(name: str, make: Callable[[Path], object]) -> Path:
        with FileLock(root / f"{name}.lock"):
            if not (root / name).exists():
                make(root / name)
        return root / name

    return share


@pytest.fixture(scope="session")
def tiny_model(glyphs: Path, once: Callable[[str, Callable[[Path], object]], Path]) -> Path:
    """Folder of a model trained for 40 steps on `glyphs`; copy it before changes."""

    def make(folder: Path) -> None:
        from twinned import train

        settings = {"warmup": 5, "augment.elastic": 0, "classes_per_batch": 12, "precision": "float32"}
        train(glyphs, recipe="glyph", image_size=20, steps=40, settings=settings, output=folder)

    return once("tiny.twin", make)


World = Callable[..., Comparisons]


def _scattered(seed: int, classes: int, images: int, dimensions: int = 8) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    centers = random.normal(size=(classes, dimensions))
    spread = 0.6 * np.exp(0.4 * random.normal(size=(classes, 1)))
    label = np.repeat(np.arange(classes), images)
    noise = random.normal(size=(len(label), dimensions))
    return (centers[label] + spread[label] * noise).astype(np.float32), label


@pytest.fixture
def world() -> World:
    def make(seed: int = 0, classes: int = 20, images: int = 5) -> Comparisons:
        return compare_all(*_scattered(seed, classes, images), partial(euclidean, pairwise=True))

    return make


@pytest.fixture
def made_up() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Embeddings and their labels, by seed, classes and images."""
    return _scattered


class Shown(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """JSON value on standard output."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """Message of a failed command, the only line on standard error."""
        assert self.code == 2, self
        assert self.out == "", "a failed command writes nothing to standard output"
        assert "Traceback" not in self.err
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("twinned: ")
        return lines[0].removeprefix("twinned: ")


Twinned = Callable[..., Shown]


@pytest.fixture
def twinned(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Twinned:
    """``twinned("verify", model, a, b)`` runs the program as from a shell, in this process."""
    from twinned.cli.main import main

    def call(*arguments: object) -> Shown:
        monkeypatch.setattr(sys, "argv", ["twinned", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        shown = capsys.readouterr()
        return Shown(stop.value.code, shown.out, shown.err)

    return call
