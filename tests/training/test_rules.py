"""Choosing a recipe from the images, and settings that fit each other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from twinned import losses, recipes
from twinned.data.datasets import ImageSet, PairSet
from twinned.data.readers import load_images
from twinned.errors import DataError, SettingError
from twinned.training.config import Settings
from twinned.training.recipes import choose
from twinned.training.rules import resolve

rng = np.random.default_rng(0)


def strokes(height: int, width: int) -> np.ndarray:
    page = np.full((height, width), 255, np.uint8)
    page[height // 3 : height // 3 + max(2, height // 8), width // 5 : -width // 5] = 0
    return page


def photo(height: int, width: int, channels: int) -> np.ndarray:
    ramp = np.linspace(0, 255, height * width).reshape(height, width)
    grey = np.clip(ramp + rng.normal(0, 20, ramp.shape), 0, 255).astype(np.uint8)
    if channels == 1:
        return grey
    return np.stack([grey, np.roll(grey, height // 2, axis=0), 255 - grey], axis=2)


def images_of(example: np.ndarray, classes: int = 30) -> ImageSet:
    return load_images([example] * 2 * classes, [str(n // 2) for n in range(2 * classes)])


def pairs_of(example: np.ndarray) -> PairSet:
    index = np.arange(4)
    return PairSet([example] * 5, left=index, right=index + 1, same=index % 2 == 0)


def settled(source: ImageSet | PairSet | None = None, recipe: Any = "glyph", **given: Any) -> Settings:
    defaults = {"image_size": None, "batch_size": None, "extra": {}, "seed": 0, "tell": lambda _: None}
    named = {k: v for k, v in given.items() if k not in defaults}
    rest = defaults | {k: v for k, v in given.items() if k in defaults}
    return resolve(source or images_of(strokes(30, 30)), recipe, named, **rest)


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
def test_the_recipe_goes_by_what_the_images_look_like_and_says_why(example, recipe):
    settings, why = choose(images_of(example))
    assert settings.recipe == recipe
    assert why.startswith(f"recipe {recipe}")
    if recipe != "glyph" or example.shape[0] < 100:
        assert f"{example.shape[1]}x{example.shape[0]}" in why


def test_small_glyphs_are_not_blown_up():
    assert choose(images_of(strokes(20, 20)))[0].height == 20
    assert choose(images_of(strokes(12, 12)))[0].height == 16
    assert choose(images_of(strokes(105, 105)))[0].height == 35


def test_forgeries_mean_signatures():
    images = images_of(photo(60, 60, 1))
    images.forgery[3] = True
    settings, why = choose(images)
    assert settings.recipe == "signature"
    assert "forgeries" in why


def test_unreadable_images_are_passed_over_unless_all_are(tmp_path):
    broken = tmp_path / "a.png"
    broken.write_bytes(b"no")
    mixed = load_images([broken, strokes(30, 30), strokes(30, 30)], ["a", "a", "b"])
    assert choose(mixed)[0].recipe == "glyph"
    with pytest.raises(DataError, match="none of 2 images looked at can be read; the first: "):
        choose(load_images([broken, broken], ["a", "b"]))


def test_what_the_user_says_goes_before_the_recipe():
    s = settled(learning_rate=0.5, embedding_size=7, steps=3, seed=9, extra={"warmup": "4"})
    assert (s.learning_rate, s.embedding_size, s.steps, s.minutes, s.seed) == (0.5, 7, 3, None, 9)
    assert s.warmup == 4
    assert s.temperature == recipes.get("glyph").temperature
    assert settled(extra={"seed": "3"}).seed == 3
    assert settled(recipe=recipes.get("face")).recipe == "face"


def test_one_length_replaces_the_recipes():
    assert settled().minutes == recipes.get("glyph").minutes
    assert settled(epochs=2.5).minutes is None
    assert settled(extra={"steps": 4}).minutes is None
    assert settled(recipe=recipes.get("glyph").change({"minutes": None})).minutes == 2
    with pytest.raises(
        SettingError, match="only one of minutes, steps and epochs can be set; got minutes and"
    ):
        settled(minutes=1, epochs=2)


@pytest.mark.parametrize(
    ("given", "size"),
    [("24x30", (24, 30)), ("24X30", (24, 30)), (40, (40, 40)), ("40", (40, 40)), ((9, 8), (9, 8))],
)
def test_image_sizes_are_height_by_width(given, size):
    s = settled(image_size=given)
    assert (s.height, s.width) == size


@pytest.mark.parametrize("given", ["foo", "", "3x", "10x20x30", (1, 2, 3), (), "1.5x2", ("a", "b")])
def test_what_is_no_image_size_is_refused(given):
    with pytest.raises(SettingError, match="an image size is HxW, such as 96x96; got"):
        settled(image_size=given)


def test_an_encoder_brings_its_own_size():
    s = settled(encoder="deck_signature")
    assert (s.height, s.width, s.channels, s.dropout) == (100, 200, 1, 0)
    assert settled(encoder="deck_signature", image_size="50x60").width == 60
    assert settled(encoder="resnet").height == recipes.get("glyph").height


@pytest.mark.parametrize(
    ("batch", "shape"), [(4, (2, 2)), (5, (2, 2)), (8, (2, 4)), (96, (24, 4)), (99, (24, 4))]
)
def test_a_batch_size_is_classes_times_images(batch, shape):
    s = settled(batch_size=batch)
    assert (s.classes_per_batch, s.images_per_class) == shape
    assert s.classes_per_batch * s.images_per_class <= batch


def test_a_batch_too_small_for_two_classes_of_two_is_refused():
    for size in (3, 1, 0, -5):
        with pytest.raises(SettingError, match=f"4 images or more .*; got {size}"):
            settled(batch_size=size)


def test_another_loss_drops_what_the_recipe_set_for_its_own():
    s = settled(loss="contrastive", recipe="facenet", margin=2.0)
    assert (s.margin, s.miner, s.temperature) == (2.0, None, None)
    s = settled(loss="chopra")
    assert (s.temperature, s.distance) == (None, "manhattan")
    assert settled(loss="cross-entropy").head == "weighted-l1"
    assert settled(loss="cross-entropy", extra={"head": "sigmoid-distance"}).head == "sigmoid-distance"
    s = settled(loss="supcon", recipe="koch2015")
    assert (s.head, s.distance) == ("distance", "cosine")
    with pytest.raises(
        SettingError, match="head weighted-l1 is learned by the loss cross-entropy; got supcon"
    ):
        settled(extra={"head": "weighted-l1"})


def test_another_optimiser_learns_at_a_rate_of_its_own_and_proxies_at_the_same():
    def rates(**extra: object) -> tuple[float, float]:
        s = settled(extra=extra)
        return s.learning_rate, s.learning_rate * s.proxy_rate

    assert rates() == pytest.approx((0.01, 0.03))
    assert rates(optimizer="adamw") == pytest.approx((0.003, 0.03))
    assert rates(optimizer="muon", proxy_rate=1) == pytest.approx((0.01, 0.01))
    assert rates(optimizer="adamw", learning_rate="0.1", proxy_rate=1) == pytest.approx((0.1, 0.1))


def test_pairs_are_learnt_from_by_a_pair_loss():
    told: list[str] = []
    s = settled(pairs_of(strokes(30, 30)), tell=told.append)
    assert (s.loss, s.distance, s.temperature, s.miner) == ("contrastive", "euclidean", None, None)
    assert told == ["a pair list has no class labels, so the loss is contrastive instead of supcon"]
    assert settled(pairs_of(strokes(30, 30)), loss="cross-entropy").head == "weighted-l1"
    assert settled(pairs_of(strokes(30, 30)), distance="manhattan").distance == "manhattan"
    with pytest.raises(
        SettingError, match=r"triplet needs class labels.*; choose one of contrastive, chopra, cross"
    ):
        settled(pairs_of(strokes(30, 30)), loss="triplet")


def test_unknown_names_are_refused():
    for named in ({"encoder": "vgg"}, {"distance": "hamming"}, {"extra": {"colour": 1}}, {"recipe": "none"}):
        with pytest.raises(SettingError):
            settled(**named)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"extra": {"momentum_from": "0.5"}}, "momentum_from belongs to optimizer=sgd; got optimizer muon"),
        ({"extra": {"momentum": "0.5"}}, "momentum belongs to optimizer=sgd; got optimizer muon"),
        ({"extra": {"thaw": "0.5"}}, "and freeze=none freezes none"),
        ({"extra": {"cohort": "1"}}, "a cohort has two images or more, or 0 for none; got 1"),
        ({"loss": "cross-entropy", "extra": {"head": "distance"}}, "something to learn, weighted-l1 or"),
        ({"distance": "euclidean"}, "loss supcon is right for distance cosine alone; got euclidean"),
        (
            {"recipe": "koch2015", "distance": "manhattan"},
            "head weighted-l1 learns how to measure, so leave distance out",
        ),
        ({"loss": object()}, r"loss takes a name, and got a object: .*embedding_loss"),
    ],
)
def test_what_would_have_no_effect_or_is_no_name_is_refused(given, message):
    with pytest.raises(SettingError, match=message):
        settled(**given)


def test_what_goes_with_it_is_taken():
    assert settled(extra={"momentum_from": "0.5", "optimizer": "sgd"}).momentum_from == 0.5
    assert settled(extra={"thaw": "0.5", "freeze": "2"}).thaw == 0.5
    assert settled(recipe="facenet", loss="supcon").distance == "cosine"
    inherited = recipes.get("glyph").change({"thaw": 0.5, "freeze": "2", "memory": 64})
    assert settled(recipe=inherited, extra={"freeze": "none"}).thaw is None
    assert settled(recipe=inherited, loss="arcface").memory == 0
    assert settled(recipe=inherited).memory == 64
    sgd = recipes.get("glyph").change({"optimizer": "sgd", "momentum_from": 0.5, "distance": "euclidean"})
    assert settled(recipe=sgd).momentum_from == 0.5
    assert settled(recipe=sgd, extra={"optimizer": "muon"}).momentum_from is None
    assert settled(recipe=sgd).distance == "cosine", "what the loss is right for"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"extra": {"memory": "64"}}, "memory: of no use to a pair list"),
        ({"extra": {"miner": "all"}}, "miner: of no use to a pair list"),
        ({"loss": "chopra", "distance": "cosine"}, "loss chopra is right for distance manhattan alone"),
    ],
)
def test_what_a_pair_list_has_no_use_for_is_refused(given, message):
    with pytest.raises(SettingError, match=message):
        settled(pairs_of(strokes(30, 30)), **given)


def test_a_recipes_miner_and_memory_are_left_out_for_pairs():
    s = settled(pairs_of(strokes(30, 30)), recipe=recipes.get("facenet").change({"memory": 64}))
    assert (s.memory, s.miner, s.loss) == (0, None, "contrastive")


def test_a_column_of_relations_is_learnt_or_said_to_be_left_aside():
    pairs = replace(pairs_of(strokes(30, 30)), relation=np.array(["a", "b"] * 2))
    for loss in (None, "cross-entropy"):
        assert settled(pairs, loss=loss).head == "relation"
    said: list[str] = []
    assert settled(pairs, loss="contrastive", tell=said.append).head == "distance"
    assert settled(pairs, recipe="koch2015", tell=said.append).head == "weighted-l1"
    assert settled(pairs, recipe="koch2015", extra={"head": "relation"}, tell=said.append).head == "relation"
    assert sum("the column relation is left aside" in sentence for sentence in said) == 2


def test_a_frozen_encoder_gets_a_layer_solved_over_it_but_none_without_steps():
    s = settled(recipe="face", encoder="efficientnet_lite0_face")
    assert (s.embedding_size, s.layer, s.freeze, s.symmetric) == (256, "solved", "all", True)
    assert (s.height, s.width, s.channels) == (160, 160, 3)
    assert settled(recipe="face", encoder="efficientnet_lite0_face", steps=0).embedding_size is None
    assert settled(recipe="face", encoder="efficientnet_lite0").symmetric is True


def test_turns_and_mirror_images_are_said_where_they_make_classes():
    said: list[str] = []
    settled(tell=said.append)
    (turned,) = (sentence for sentence in said if "makes" in sentence)
    assert turned.startswith("each class turned and mirrored makes 7 more")
    assert turned.endswith("--set quarter_turns=false --set mirrors=false")
    said.clear()
    settled(extra={"quarter_turns": False}, tell=said.append)
    assert any(s.startswith("each class mirrored makes 1 more") for s in said)
    said.clear()
    settled(extra={"quarter_turns": False, "mirrors": False}, tell=said.append)
    settled(images_of(photo(96, 96, 3)), "photo-small", tell=said.append)
    assert not any("makes" in sentence for sentence in said)


def test_a_batch_is_no_larger_than_all_classes_make_it():
    said: list[str] = []
    plain = {"quarter_turns": False, "mirrors": False}
    found = settled(images_of(strokes(30, 30), 6), batch_size=4000, extra=plain, tell=said.append)
    assert found.classes_per_batch == 6
    assert said == ["a batch has at most 24 images: 4 of each of 6 classes (turns counted)"]
    assert settled(images_of(strokes(30, 30), 6), batch_size=24, extra=plain).classes_per_batch == 6
    assert settled(images_of(strokes(30, 30), 6), extra=plain).classes_per_batch == 48, "a recipe's may be"


@pytest.mark.parametrize("given", [{"quarter_turns": True}, {"mirrors": True}, {"within_group": 0.5}])
def test_what_a_pair_list_cannot_use_is_refused_if_asked_for_and_dropped_if_not(given):
    with pytest.raises(SettingError, match=f"{next(iter(given))}: of no use to a pair list"):
        settled(pairs_of(strokes(30, 30)), extra=given)
    found = settled(pairs_of(strokes(30, 30)))
    unset = {"quarter_turns": False, "mirrors": False, "within_group": 0, "memory": 0, "miner": None}
    assert {name: getattr(found, name) for name in unset} == unset


@pytest.mark.parametrize(
    ("loss", "setting"),
    [("circle", "scale"), ("arcface", "scale"), ("chopra", "bound"), ("chopra", "margin")],
)
def test_every_setting_of_a_loss_can_be_set_by_its_name(loss, setting):
    found = settled(loss=loss, extra={setting: 3})
    assert getattr(found, setting) == 3
    known = {name: getattr(found, name) for name in ("margin", "temperature", "scale", "bound")}
    make = {"num_classes": 3, "embedding_size": 2} | known
    if setting == "margin":
        with pytest.raises(SettingError, match="loss 'chopra' has no setting 'margin'; it has bound"):
            losses.get(loss, **make)
    else:
        assert getattr(losses.get(loss, **make), setting) == 3
