"""A model folder written by Twinned 0.1.0 (``old_model``) loads and gives the same distances.

``images.png`` holds 20 classes as rows of 4 images of 16x16: the first 12 trained the model (recipe glyph,
encoder deck_signature, 300 steps), and ``expected.json`` is computed on the other 8.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import twinned

from ..conftest import rounding

OLD = Path(__file__).parent / "old_model"
SIDE, TRAINED = 16, 12  # pixels of an image, classes that the model was trained on

# Three layers with sums of up to 64 * 16 terms; a distance adds the errors of two embeddings.
CLOSE = rounding(7, 64 * 16)


@pytest.fixture(scope="module")
def model() -> twinned.Model:
    return twinned.load(OLD / "model")


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    """Answers of the code that wrote the folder."""
    answers: dict[str, Any] = json.loads((OLD / "expected.json").read_text())
    return answers


@pytest.fixture(scope="module")
def classes() -> list[list[NDArray[np.uint8]]]:
    """Images, one list per class."""
    sheet = np.asarray(Image.open(OLD / "images.png"))
    rows = np.split(sheet, sheet.shape[0] // SIDE, axis=0)
    return [np.split(row, sheet.shape[1] // SIDE, axis=1) for row in rows]


def write(root: Path, classes: list[list[NDArray[np.uint8]]], first: int) -> Path:
    """Write class folders."""
    for number, images in enumerate(classes, first):
        folder = root / f"glyph{number}"
        folder.mkdir(parents=True)
        for place, image in enumerate(images):
            Image.fromarray(image).save(folder / f"{place}.png")
    return root


@pytest.fixture(scope="module")
def novel(classes: list[list[NDArray[np.uint8]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("old") / "novel", classes[TRAINED:], TRAINED)


def test_loads(model, expected):
    assert model.threshold == expected["threshold"]
    assert "deck_signature" in repr(model)
    assert len(model.record.image_hashes) == 32


def test_distances_are_unchanged(model, expected, classes):
    images = [image for one in classes[TRAINED:] for image in one]
    embeddings = model.embed(images)
    distances = model.distances(embeddings, embeddings)
    then = np.concatenate([np.asarray(row) for row in expected["distances"]])
    np.testing.assert_allclose(distances[np.tril_indices(len(images), -1)], then, rtol=0, atol=CLOSE)


def test_verifies(model, expected, classes):
    left, right = classes[TRAINED][:2]
    answer, then = model.verify(left, right).to_json(), expected["verify"]
    assert answer.pop("verdict") in ("Same", "Probably the same")  # added later
    assert answer.keys() == then.keys()
    assert answer.pop("distance") == pytest.approx(then.pop("distance"), abs=CLOSE)
    assert answer == then


def test_classifies(model, expected, classes):
    support = {f"glyph{number}": images[:1] for number, images in enumerate(classes) if number >= TRAINED}
    answers = model.classify([images[1] for images in classes[TRAINED:]], support)
    for answer, then in zip(answers, expected["classify"], strict=True):
        assert (answer.label, answer.nearest) == (then["label"], then["nearest"])
        assert answer.distance == pytest.approx(then["distance"], abs=CLOSE)


def test_enrolls_in_a_gallery(model, expected, novel, classes, tmp_path):
    paths = sorted(novel.rglob("*.png"))
    with model.gallery(tmp_path / "g.gallery") as gallery:
        gallery.add(paths, [path.parent.name for path in paths], progress=False)
        assert len(gallery) == 32
        first = gallery.search(classes[TRAINED][0], k=2)
    assert first[0].label == f"glyph{TRAINED}"
    nearest = [distance for row in expected["distances"] for distance in row[:1]]  # to the first image
    assert first[1].distance == pytest.approx(min(nearest), abs=CLOSE)


def test_evaluates(model, expected, novel):
    figures, then = model.evaluate(novel).to_json(), expected["evaluation"]
    for name in ("threshold", "n_genuine", "n_impostor", "n_classes"):
        assert figures["verification"][name] == then["verification"][name]
    # No stored distance is within the rounding error of the threshold.
    distances = np.concatenate([np.asarray(row) for row in expected["distances"]])
    assert np.abs(distances - model.threshold).min() > CLOSE
    for name in ("far", "frr"):
        assert figures["verification"][name] == then["verification"][name]
    # Rounding may swap a genuine and an impostor comparison, which changes the AUC by one pair.
    same = np.concatenate([np.arange(row) // 4 == row // 4 for row in range(1, 32)])
    ties = np.count_nonzero(np.abs(distances[same][:, None] - distances[~same]) < 2 * CLOSE)
    moved = ties / (np.count_nonzero(same) * np.count_nonzero(~same))
    assert moved < 0.001
    assert figures["verification"]["auc"] == pytest.approx(then["verification"]["auc"], abs=moved)
    assert figures["verification"]["eer"] == pytest.approx(then["verification"]["eer"], abs=1 / 48)
    # One of 32 queries may have another neighbor.
    assert figures["one_shot"]["accuracy"] == pytest.approx(then["one_shot"]["accuracy"], abs=1 / 32)
    for name in ("recall_at_1", "map_at_r"):
        assert figures["retrieval"][name] == pytest.approx(then["retrieval"][name], abs=1 / 32)


@pytest.mark.slow
def test_fine_tunes(model, classes, tmp_path):
    known = write(tmp_path / "known", classes[:TRAINED], 0)
    settings = {"precision": "float32", "warmup": 1, "classes_per_batch": 8}
    tuned = twinned.finetune(model.folder, known, steps=3, settings=settings, progress=False)
    assert tuned.embed(classes[0]).shape == (4, 4)
