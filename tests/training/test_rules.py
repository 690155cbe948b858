"""Resolving a configuration: recipe, defaults, user options, and each rule."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

from twinned import losses, recipes
from twinned.data.datasets import PairSet
from twinned.data.readers import load_images
from twinned.errors import SettingError
from twinned.training import rules
from twinned.training.config import TrainConfig
from twinned.training.rules import RULES, DataFacts, resolve, trait

IMAGES, PAIRS = DataFacts(n_classes=30), DataFacts(pairs=True)
RELATIONS = DataFacts(pairs=True, relations=True)


def resolved(recipe: str | TrainConfig = "glyph", data: DataFacts = IMAGES, **options: Any) -> TrainConfig:
    return resolve(recipes.get(recipe) if isinstance(recipe, str) else recipe, options, data)[0]


def notes(recipe: str = "glyph", data: DataFacts = IMAGES, **options: Any) -> dict[str, str]:
    return dict(resolve(recipes.get(recipe), options, data)[1])


class Case(NamedTuple):
    """Configuration for a rule, the expected values, and options that contradict the rule."""

    recipe: TrainConfig
    data: DataFacts
    values: dict[str, Any]
    wrong: dict[str, Any]


def _case(recipe: str, data: DataFacts, values: dict[str, Any], wrong: dict[str, Any], **base: Any) -> Case:
    return Case(recipes.get(recipe).merge(base), data, values, wrong)


# Required distance of a loss, and another one.
_DISTANCES = {
    name: (right, "euclidean" if right != "euclidean" else "cosine")
    for name in losses.LOSSES
    if (right := trait(name, "distance")) is not None
}
CASES: dict[str, Case] = {
    "pairs-need-pair-loss": _case(
        "glyph", PAIRS, {"loss": "contrastive", "distance": "euclidean"}, {"loss": "triplet"}
    ),
    "relation-head-needs-relations": _case(
        "koch2015", PAIRS, {"head": "weighted-l1"}, {"head": "relation"}, head="relation"
    ),
    "relations-unused": _case("koch2015", RELATIONS, {"head": "weighted-l1"}, {}),
    "loss-needs-learned-head": _case(
        "glyph",
        IMAGES,
        {"head": "weighted-l1"},
        {"head": "distance"},
        loss="cross-entropy",
    ),
    "head-needs-its-loss": _case(
        "glyph", IMAGES, {"head": "distance"}, {"head": "sigmoid-distance"}, head="weighted-l1"
    ),
    "head-learns-distance": _case("koch2015", IMAGES, {}, {"distance": "cosine"}),
    "lda-needs-classes": _case("photo", PAIRS, {"projection": "gradient"}, {"projection": "lda"}),
    "rotation-needs-square-images": _case(
        "glyph", IMAGES, {"rotate_classes": False}, {"rotate_classes": True}, height=20
    ),
    "cohort-needs-unit-vectors": _case("face", PAIRS, {"cohort": 0}, {"cohort": 64}),
    "pairs-fix-comparisons": _case(
        "glyph",
        PAIRS,
        {"rotate_classes": False, "flip_classes": False, "same_group_fraction": 0, "memory": 0},
        {"memory": 64},
    ),
    "classes-multiplied": _case("glyph", IMAGES, {"rotate_classes": True}, {}),
    "faces-aligned": _case("face", DataFacts(n_classes=30, faces=1.0), {"faces": "largest"}, {}),
    "aligned-faces-vary-less": _case(
        "face", DataFacts(n_classes=30, faces=1.0), {"augment.rotation": 5}, {}, faces="largest"
    ),
    "length-missing": _case("glyph", IMAGES, {"minutes": 2}, {}, minutes=None),
} | {
    f"{name}-distance": _case(
        "glyph", IMAGES, {"distance": right}, {"distance": wrong}, loss=name, distance=wrong
    )
    for name, (right, wrong) in _DISTANCES.items()
}


@pytest.mark.parametrize(
    "rule", [rule for rule in RULES if rule.code != "faces-not-installed"], ids=lambda rule: rule.code
)
def test_every_rule_applies_and_refuses_contradicting_options(rule):
    case = CASES[rule.code]
    found, emitted = resolve(case.recipe, {}, case.data)
    assert {name: found.get(name) for name in case.values} == case.values
    assert rule.note == (rule.code in dict(emitted))
    assert not rule.when(found, case.data) or not rule.change, "the change satisfies the rule"
    if case.wrong:
        with pytest.raises(SettingError, match=" and ".join(sorted(case.wrong)) + "$"):
            resolve(case.recipe, case.wrong, case.data)


@pytest.mark.parametrize("recipe", list(recipes.RECIPES))
@pytest.mark.parametrize("data", [IMAGES, PAIRS, RELATIONS])
def test_resolve_is_idempotent(recipe, data):
    found = resolved(recipe, data)
    assert resolved(found, data, encoder=found.encoder.name) == found


def test_data_facts_are_read_from_the_data():
    index = np.arange(4)
    image = np.zeros((9, 9), np.uint8)
    pairs = PairSet([image] * 5, left=index, right=index + 1, same=index % 2 == 0)
    assert DataFacts.of(load_images([image] * 4, ["a", "a", "b", "b"])) == DataFacts(n_classes=2)
    assert DataFacts.of(pairs) == PAIRS
    assert DataFacts.of(replace(pairs, relation=np.array(["a", "b"] * 2))) == RELATIONS


def test_user_options_override_the_recipe():
    c = resolved(learning_rate=0.5, embedding_size=7, steps=3, seed=9, warmup="4")
    assert (c.optimizer.learning_rate, c.encoder.embedding_size, c.schedule.warmup) == (0.5, 7, 4)
    assert (c.length.steps, c.length.minutes, c.seed) == (3, None, 9)
    assert c.loss == recipes.get("glyph").loss


@pytest.mark.parametrize(
    ("given", "size"),
    [("24x30", (24, 30)), ("24X30", (24, 30)), (40, (40, 40)), ("40", (40, 40)), ((9, 8), (9, 8))],
)
def test_image_size_is_height_by_width(given, size):
    found = resolved(image_size=given).input
    assert (found.height, found.width) == size


@pytest.mark.parametrize("given", ["foo", "", "3x", "10x20x30", (1, 2, 3), (), "1.5x2", ("a", "b")])
def test_invalid_image_sizes_are_refused(given):
    with pytest.raises(SettingError, match=r"(?i)image size .*HxW, such as 96x96"):
        resolved(image_size=given)


def test_encoder_sets_its_image_size():
    c = resolved(encoder="deck_signature")
    assert c.spec().shape == (100, 200, 1)
    assert c.encoder.dropout == 0
    assert resolved(encoder="deck_signature", image_size="50x60").input.width == 60
    assert resolved(encoder="resnet").input.height == recipes.get("glyph").input.height


@pytest.mark.parametrize(
    ("batch", "shape"), [(4, (2, 2)), (5, (2, 2)), (8, (2, 4)), (96, (24, 4)), (99, (24, 4))]
)
def test_batch_size_is_classes_times_images(batch, shape):
    s = resolved(batch_size=batch).sampler
    assert (s.classes_per_batch, s.images_per_class) == shape


@pytest.mark.parametrize("size", [3, 1, 0, -5])
def test_batch_below_two_classes_of_two_is_refused(size):
    with pytest.raises(SettingError, match=f"at least 4 images .*; got batch_size {size}"):
        resolved(batch_size=size)


def test_batch_size_excludes_classes_and_images():
    with pytest.raises(SettingError, match="classes_per_batch and images_per_class; not both"):
        resolved(batch_size=8, classes_per_batch=2)


def test_batch_size_is_limited_by_all_classes():
    few, plain = DataFacts(n_classes=6), {"rotate_classes": False, "flip_classes": False}
    assert resolved(data=few, batch_size=4000, **plain).sampler.classes_per_batch == 6
    found = notes(data=few, batch_size=4000, **plain)
    assert found["batch-limited"].startswith("a batch has at most 24 images: 4 of each of 6 classes")
    assert resolved(data=few, **plain).sampler.classes_per_batch == 48, "a recipe's batch may be larger"


def test_another_loss_drops_the_settings_of_the_recipe_loss():
    c = resolved("facenet", loss="contrastive", margin=2.0)
    assert (c.loss.margin, c.mining.miner) == (2.0, None)
    assert resolved(loss="chopra").comparison.distance == "manhattan"
    assert resolved("facenet", loss="supcon").comparison.distance == "cosine"
    c = resolved("koch2015", loss="supcon")
    assert (c.comparison.head, c.comparison.distance) == ("distance", "cosine")
    inherited = recipes.get("glyph").merge({"memory": 64})
    assert resolved(inherited, loss="arcface").mining.memory == 0
    assert resolved(inherited).mining.memory == 64


@pytest.mark.parametrize(
    ("options", "distance", "margin"),
    [
        ({}, "euclidean", 0.5),
        ({"margin": 0.8}, "euclidean", 0.8),
        ({"distance": "euclidean"}, "euclidean", 0.5),
        ({"distance": "cosine"}, "cosine", 1.0),
        ({"normalize": "false"}, "euclidean", 1.0),
    ],
)
def test_contrastive_loss_has_a_margin_for_unit_vectors(options, distance, margin):
    c = resolved("glyph", loss="contrastive", **options)
    assert (c.comparison.distance, c.loss.margin) == (distance, margin)


def test_contrastive_loss_keeps_its_margin_elsewhere():
    c = resolved("deck", loss="contrastive")
    assert (c.comparison.head, c.comparison.distance, c.loss.margin) == ("distance", "euclidean", 1.0)
    c = resolved("glyph", PAIRS, loss="contrastive")
    assert (c.comparison.distance, c.loss.margin) == ("euclidean", 1.0), "as without a choice"
    saved = recipes.get("glyph").merge({"loss": "contrastive"})
    assert resolved(saved).loss.margin == 1.0, "a saved model's own margin"


def test_another_optimizer_keeps_the_proxy_rate():
    def rates(**options: object) -> tuple[float, float]:
        found = resolved(**options).optimizer
        return found.learning_rate, found.learning_rate * found.proxy_lr_scale

    assert rates() == pytest.approx((0.01, 0.03))
    assert rates(optimizer="adamw") == pytest.approx((0.003, 0.03))
    assert rates(optimizer="muon", proxy_lr_scale=1) == pytest.approx((0.01, 0.01))
    assert rates(optimizer="adamw", learning_rate="0.1", proxy_lr_scale=1) == pytest.approx((0.1, 0.1))
    assert resolved(optimizer="sgd", momentum=0.5).optimizer.momentum == 0.5


def test_pairs_select_a_pair_loss():
    assert notes(data=PAIRS)["pairs-need-pair-loss"].endswith("; using loss=contrastive")
    assert resolved(data=PAIRS, loss="cross-entropy").comparison.head == "weighted-l1"
    assert resolved(data=PAIRS, distance="manhattan").comparison.distance == "manhattan"
    assert resolved(data=PAIRS, margin=0.5).loss.margin == 0.5, "margin of the loss chosen by the rule"
    facenet = recipes.get("facenet").merge({"memory": 64})
    assert resolved(facenet, PAIRS).mining.model_dump() == {"miner": None, "memory": 0}


def test_relations_select_the_relation_head_by_default():
    for options in ({}, {"loss": "cross-entropy"}):
        assert resolved(data=RELATIONS, **options).comparison.head == "relation"
        assert "relations-found" in notes(data=RELATIONS, **options)
    assert resolved(data=RELATIONS, loss="contrastive").comparison.head == "distance"
    assert "relations-unused" in notes(data=RELATIONS, loss="contrastive")
    assert resolved("koch2015", RELATIONS, head="relation").comparison.head == "relation"


def test_pretrained_encoder_adds_a_layer_only_with_steps():
    c = resolved("face", encoder="efficientnet_lite0_face")
    assert (c.encoder.embedding_size, c.transfer.projection, c.transfer.freeze) == (256, "lda", "all")
    assert c.encoder.symmetric is True
    assert c.spec().shape == (160, 160, 3)
    assert resolved("face", encoder="efficientnet_lite0_face", steps=0).encoder.embedding_size is None


def test_rotated_and_mirrored_classes_are_noted():
    assert "counts as 8 classes" in notes()["classes-multiplied"]
    assert "counts as 2 classes" in notes(rotate_classes=False)["classes-multiplied"]
    assert "classes-multiplied" not in notes("photo-small")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "vgg"}, "vgg"),
        ({"loss": "x"}, "Unknown loss 'x'. Choose one of contrastive"),
        ({"colour": 1}, "Unknown setting 'colour'"),
        ({"momentum": "0.5"}, "Optimizer muon has no setting momentum"),
        ({"margin": 1}, "Loss supcon has no setting margin; it has temperature"),
        ({"loss": 3}, "Setting loss is a name; got 3"),
    ],
)
def test_unknown_or_ineffective_options_are_refused(options, message):
    with pytest.raises(SettingError, match=message):
        resolved(**options)


# ---- faces


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(rules, "faces_installed", lambda: True)


def codes_of(found):
    return {note.code for note in found} & {"faces-aligned", "faces-not-installed"}


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(("share", "expected"), [(0.5, "largest"), (0.4, "none"), (None, "none")])
def test_recipe_face_aligns_images_that_show_faces(share, expected):
    config, found = resolve(recipes.get("face"), {}, DataFacts(n_classes=9, faces=share))
    assert config.input.faces == expected
    assert config.augment.rotation == (5 if expected == "largest" else 12)
    assert codes_of(found) == ({"faces-aligned"} if expected == "largest" else set())
    other, found = resolve(recipes.get("photo-small"), {}, DataFacts(n_classes=9, faces=share))
    assert (other.input.faces, codes_of(found)) == ("none", set())


@pytest.mark.usefixtures("installed")
def test_the_option_faces_takes_precedence_over_the_recipe():
    config, found = resolve(recipes.get("face"), {"faces": "none"}, DataFacts(n_classes=9, faces=1.0))
    assert config.input.faces == "none"
    assert codes_of(found) == set()


def test_a_note_names_the_extra_that_finds_faces(monkeypatch):
    monkeypatch.setattr(rules, "faces_installed", lambda: False)
    config, found = resolve(recipes.get("face"), {}, DataFacts(n_classes=9))
    assert config.input.faces == "none"
    assert codes_of(found) == {"faces-not-installed"}
    assert codes_of(resolve(recipes.get("face"), {"faces": "none"}, DataFacts(n_classes=9))[1]) == set()


def test_a_sample_of_the_images_is_searched_for_faces(monkeypatch, painted_faces):
    from twinned.data.faces import models
    from twinned.training.api import resolve_config

    monkeypatch.setattr(rules, "faces_installed", lambda: True)
    monkeypatch.setattr(models, "is_installed", lambda: True)
    people = [painted_faces(("red", 20, 30, 120)), painted_faces(("green", 9, 9, 99))] * 4
    data = load_images(people, ["anna", "ben"] * 4)
    assert resolve_config(data, recipe="face").input.faces == "largest"
    assert resolve_config(data, recipe="photo-small").input.faces == "none"
    assert resolve_config(data, config=recipes.get("face")).input.faces == "none"
    others = load_images([painted_faces()] * 8, ["anna", "ben"] * 4)
    assert resolve_config(others, recipe="face").input.faces == "none"
    for given in ({}, {"recipe": "auto"}):
        assert resolve_config(data, **given).input.faces == "none", "these faces are small"
    large = load_images([painted_faces(("red", 20, 30, 200))] * 8, ["anna", "ben"] * 4)
    assert resolve_config(large).input.faces == "largest"
    for name, value in {"faces": "none", "encoder": "conv4"}.items():
        found = resolve_config(large, settings={name: value})
        assert (found.recipe, found.input.faces) != ("face", "largest"), name
    monkeypatch.setattr(models, "is_installed", lambda: False)
    assert resolve_config(data, recipe="face").input.faces == "none"
    assert resolve_config(large).input.faces == "none"
