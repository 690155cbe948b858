"""Drawings of shapes, and a service of a small model."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

pytest.importorskip("fastapi", reason="needs the extra serve")

from starlette.testclient import TestClient

import twinned as tw
from twinned.gallery.gallery import Gallery
from twinned.inference.model import Model
from twinned.server.app import create_app
from twinned.server.batching import EncoderPlan

SHAPES = ("circle", "square", "triangle", "cross", "ring", "bar")


def drawing(shape: str, seed: int, size: int = 64) -> Image.Image:
    """Draw a shape at a random place on a light background."""
    random = np.random.default_rng([SHAPES.index(shape), seed])
    ground = tuple(int(v) for v in random.integers(200, 256, 3))
    ink = tuple(int(v) for v in random.integers(0, 120, 3))
    image = Image.new("RGB", (size, size), ground)
    pen = ImageDraw.Draw(image)
    half = int(size * random.uniform(0.2, 0.3))
    x, y = (int(size * random.uniform(0.42, 0.58)) for _ in range(2))
    box = (x - half, y - half, x + half, y + half)
    if shape == "circle":
        pen.ellipse(box, fill=ink)
    elif shape == "square":
        pen.rectangle(box, fill=ink)
    elif shape == "triangle":
        pen.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], fill=ink)
    elif shape == "cross":
        pen.line((x - half, y - half, x + half, y + half), fill=ink, width=size // 10)
        pen.line((x - half, y + half, x + half, y - half), fill=ink, width=size // 10)
    elif shape == "ring":
        pen.ellipse(box, outline=ink, width=size // 10)
    else:
        pen.rectangle((x - half, y - half // 4, x + half, y + half // 4), fill=ink)
    return image


def png(shape: str = "circle", seed: int = 0, size: int = 64) -> bytes:
    """Return a drawing as bytes of a PNG."""
    return encoded(drawing(shape, seed, size), "PNG")


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image as bytes of a file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight drawings of each shape in class folders."""
    root = tmp_path_factory.mktemp("shapes")
    for shape in SHAPES:
        (root / shape).mkdir()
        for seed in range(8):
            (root / shape / f"{seed}.png").write_bytes(png(shape, seed))
    return root


@pytest.fixture(scope="session")
def model_folder(tiny_model: Path) -> Path:
    """Folder of the model, shared by all processes; do not modify it."""
    return tiny_model


@pytest.fixture
def model(model_folder: Path) -> Model:
    """New instance of the model, since a service replaces its encoder."""
    return tw.load(model_folder, device="cpu")


@pytest.fixture
def gallery(model: Model, tmp_path: Path) -> Iterator[Gallery]:
    """Empty gallery."""
    opened = model.gallery(tmp_path / "shapes.gallery")
    yield opened
    opened.close()


Client = Callable[..., TestClient]


def pictures(*names: str, field: str = "images") -> list[tuple[str, tuple[str, bytes]]]:
    """Return drawings to upload; ``circle-3`` is the circle of seed 3."""
    sent = []
    for name in names:
        shape, _, seed = name.partition("-")
        sent.append((field, (f"{name}.png", png(shape, int(seed or 0)))))
    return sent


def detail(answer: httpx.Response, status: int) -> str:
    """Return the detail of a problem response with the status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    return str(problem["detail"])


@pytest.fixture
def client(model: Model, request: pytest.FixtureRequest) -> Iterator[Client]:
    """Function that returns a client: ``client()`` with a gallery, ``client(gallery=None)`` without."""
    clients = []

    def make(**options: object) -> TestClient:
        if "gallery" not in options:
            options["gallery"] = request.getfixturevalue("gallery")
        options = {"plan": EncoderPlan(model.encoder, 2, False)} | options
        app = create_app(model, **options)  # type: ignore[arg-type]
        clients.append(TestClient(app, base_url="http://127.0.0.1:8000"))
        return clients[-1]

    yield make
    for one in clients:
        one.close()
