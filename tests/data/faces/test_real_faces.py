"""The real detector and encoder on real faces; figures are in benchmarks/faces.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.cbook import get_sample_data
from PIL import Image

import twinned as tw
from twinned.data.faces import detector, models

pytestmark = pytest.mark.skipif(not models.is_installed(), reason="needs the extra faces")


def test_few_places_are_searched_as_the_whole_pyramid_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A photograph of matplotlib, in three sizes on one image."""
    with get_sample_data("grace_hopper.jpg") as file:
        photograph = Image.open(file).convert("RGB")
    image = Image.new("RGB", (480, 400), (90, 120, 90))
    for width, place in ((256, (10, 60)), (128, (290, 10)), (100, (330, 220))):
        image.paste(photograph.resize((width, width * 6 // 5)), place)
    found = detector.find_faces(image, 40)
    monkeypatch.setattr(detector, "_LEVELS", 10**6)  # takes longer than all levels
    whole = detector.find_faces(image, 40)
    assert len(found) == 3
    assert [face.box for face in found] == [face.box for face in whole]
    np.testing.assert_allclose([face.score for face in found], [face.score for face in whole], atol=1e-4)


@pytest.fixture(scope="module")
def people(data_set: Callable[[str], Path]) -> Path:
    return data_set("orl_faces")


def test_faces_of_a_group_are_detected(people: Path) -> None:
    group = Image.new("RGB", (640, 480), (90, 120, 90))
    places = [(20, 30), (250, 200), (480, 60)]
    for number, place in enumerate(places, start=1):
        file = next(people.rglob(f"s{number}/1.pgm"))
        group.paste(Image.open(file).resize((138, 168)), place)
    found = tw.faces.detect(group)
    assert len(found) == 3
    for face in found:
        left, top, right, bottom = face.box
        center = (left + right) / 2 - 69, (top + bottom) / 2 - 84
        assert min(np.hypot(center[0] - x, center[1] - y) for x, y in places) < 40
        chip = tw.faces.align(group, face)
        assert chip.shape == (150, 150, 3)


def test_same_person_is_closer_than_another(people: Path) -> None:
    model = tw.load("face")
    files = [next(people.rglob(f"s{person}/{image}.pgm")) for person in range(1, 9) for image in (1, 5)]
    vectors = model.embed(files)
    distances = tw.distances.euclidean(vectors, vectors, pairwise=True)
    same = np.arange(16) // 2
    genuine = distances[1::2, ::2].diagonal()
    impostor = distances[same[:, None] != same]
    assert np.median(genuine) < model.threshold < np.median(impostor)
    assert (impostor <= model.threshold).mean() < 0.1


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("orl_faces", "face"), ("lfw_crop96", "face"), ("small_objects", "photo"), ("logos27", "photo")],
)
def test_auto_aligns_photographs_of_people_alone(
    data_set: Callable[[str], Path], name: str, recipe: str
) -> None:
    config, _ = tw.recipes.choose(tw.load_images(data_set(name)))
    assert (config.recipe, config.input.faces) == (recipe, "largest" if recipe == "face" else "none")
