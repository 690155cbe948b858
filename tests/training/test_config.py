"""TrainConfig: sections, names, merging, serialization, and one-line errors."""

from __future__ import annotations

import pickle

import pytest

from twinned import losses, recipes
from twinned.errors import SettingError
from twinned.losses.registry import loss_options
from twinned.training.config import (
    ALIASES,
    OPTIONS,
    SHORT_NAMES,
    Loss,
    TrainConfig,
    full_name,
    variants,
)


def test_merge_changes_the_named_options_only():
    base = recipes.get("glyph")
    changed = base.merge({"steps": "5", "minutes": "none", "augment.rotation": "3.5", "rotate_classes": "no"})
    assert (changed.length.steps, changed.length.minutes, changed.augment.rotation) == (5, None, 3.5)
    assert changed.sampler.rotate_classes is False
    assert changed.augment.shear == base.augment.shear
    others = {"length", "augment", "sampler"}
    assert changed.model_dump(exclude=others) == base.model_dump(exclude=others)
    assert base.length.minutes == 2, "the recipe itself does not change"
    assert base.merge({"ink": "none"}).input.ink == "none", "a value named none"


def test_new_loss_or_optimizer_uses_its_own_defaults():
    glyph = recipes.get("glyph")
    assert glyph.merge({"loss": "infonce"}).loss.temperature == 0.07
    assert glyph.merge({"margin": 0.5, "loss": "contrastive"}).loss.margin == 0.5
    assert glyph.merge({"loss": "supcon"}).loss.temperature == 0.03
    assert glyph.merge({"optimizer": "sgd"}).optimizer.momentum == 0.9


def test_one_length_replaces_the_others():
    glyph = recipes.get("glyph")
    assert glyph.merge({"epochs": 2.5}).length.minutes is None
    with pytest.raises(
        SettingError, match=r"Only one of minutes, steps and epochs .* got minutes and epochs"
    ):
        glyph.merge({"minutes": 1, "epochs": 2})


def test_short_and_old_names_are_aliases():
    assert full_name("margin") == full_name("loss.margin") == "loss.margin"
    assert full_name("encoder") == "encoder.name"
    old = recipes.get("glyph").merge({"layer": "solved", "norms": "kept", "quarter_turns": False})
    assert old.transfer.projection == "lda"
    assert old.transfer.freeze_batchnorm is True
    assert old.sampler.rotate_classes is False
    assert set(ALIASES.values()) <= set(OPTIONS)
    assert {full_name(name) for name in SHORT_NAMES} == set(OPTIONS) - {"recipe"}


def test_option_given_by_two_names_is_refused():
    with pytest.raises(SettingError, match=r"loss\.margin is given twice, as 1 and as 2"):
        TrainConfig().merge({"margin": 1, "loss.margin": 2})


def test_loss_section_has_options_and_defaults_of_its_class():
    assert list(variants("loss")) == list(losses.LOSSES)
    section = Loss(name="multi-similarity", alpha=1.0)
    assert section.model_dump() == {"name": "multi-similarity", "alpha": 1.0, "beta": 50.0, "base": 0.5}
    arcface = loss_options("arcface")
    assert list(arcface) == ["margin", "scale"]
    assert arcface["margin"].description == "Angle in radians, between 0 and pi"


def test_config_can_be_pickled():
    config = recipes.get("glyph")
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301


def test_every_option_has_a_description():
    for name, field in OPTIONS.items():
        assert field.description or name.endswith(".name"), name


@pytest.mark.parametrize("name", list(recipes.RECIPES))
def test_json_round_trip(name):
    config = recipes.get(name)
    assert TrainConfig.from_saved(config.model_dump(mode="json")) == config


def test_flat_config_of_version_0_1_is_read():
    flat = {
        "recipe": "glyph",
        "height": 35,
        "encoder": "conv4_wide",
        "layer": "solved",
        "norms": "kept",
        "loss": "supcon",
        "margin": None,
        "temperature": 0.03,
        "augment": {"rotation": 10.0},
        "optimizer": "muon",
        "momentum": 0.9,
        "proxy_rate": 3.0,
        "average": 0.5,
        "thaw": None,
        "clip": 0.0,
        "steps": 4,
    }
    config = TrainConfig.from_saved(flat)
    assert (config.input.height, config.encoder.name, config.loss.temperature) == (35, "conv4_wide", 0.03)
    assert (config.transfer.projection, config.transfer.freeze_batchnorm) == ("lda", True)
    assert (config.optimizer.name, config.optimizer.proxy_lr_scale) == ("muon", 3.0)
    assert (config.schedule.ema_decay, config.length.steps, config.augment.rotation) == (0.5, 4, 10.0)


def test_variants_count_rotations_and_mirror_images():
    assert TrainConfig().sampler.variants == 1
    assert TrainConfig().merge({"rotate_classes": True, "flip_classes": True}).sampler.variants == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1}, r"Unknown setting 'speed'\. Choose one of seed, height, .*augment\.rotation"),
        ({"recipe": "mine"}, "Unknown setting 'recipe'"),
        ({"steps.more": 1}, r"Unknown setting 'steps.more'"),
        ({"augment.colour": 1}, r"'augment.colour'\. Choose one of augment.brightness"),
        ({"learning_rate": "fast"}, "learning_rate: .*valid number.*; got 'fast'"),
        ({"learning_rate": 0}, "learning_rate: .*greater than 0; got 0"),
        ({"minutes": float("inf")}, "minutes: .*finite number; got inf"),
        ({"learning_rate": float("nan")}, "learning_rate: .*; got nan"),
        ({"channels": "2"}, "channels: .*1 or 3; got 2"),
        ({"distance": "hamming"}, "distance: .*'euclidean'.*; got 'hamming'"),
        ({"steps": -1}, "steps: .*greater than or equal to 0"),
        ({"seed": 1 << 31}, "seed: "),
        ({"far": 1}, "far: "),
        ({"augment.erase": 1}, r"augment\.erase: "),
        ({"augment": 3}, "Unknown setting 'augment'"),
        ({"height": "none"}, "height: "),
        ({"cohort": "1"}, "A cohort has at least 2 images, or 0 for none"),
        (
            {"loss": "contrastive", "temperature": 1},
            "Loss contrastive has no setting temperature; it has margin, factor",
        ),
        ({"loss": "x"}, "Unknown loss 'x'. Choose one of contrastive, "),
        ({"optimizer": "x"}, "Unknown optimizer 'x'. Choose one of adamw, muon, sgd"),
        ({"momentum": 0.5}, "Optimizer adamw has no setting momentum; it has learning_rate"),
        ({"loss": "circle", "margin": 2}, "Margin is 2.0. Circle loss needs one between 0 and 1"),
        ({"temperature": 0}, "Temperature is 0.0. It must be positive"),
        ({"loss": "triplet", "margin": "wide"}, "Setting loss.margin: .*; got 'wide'"),
    ],
)
def test_invalid_changes_are_refused_in_one_line(changes, message):
    with pytest.raises(SettingError, match=message) as caught:
        recipes.get("photo").merge(changes)
    assert "\n" not in str(caught.value)


def test_channels_accept_a_string():
    assert recipes.get("face").merge({"channels": "3"}).input.channels == 3


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"speed": 1}, "Unknown setting 'speed'"),
        ({"input": {"depth": 1}}, "Unknown setting 'input.depth'"),
        ({"loss": {"margin": 1}}, "Section loss has no name. Choose one of contrastive"),
        ({"loss": {"name": "supcon", "margin": 1}}, "Loss supcon has no setting margin; it has temperature"),
    ],
)
def test_invalid_json_is_refused(values, message):
    with pytest.raises(SettingError, match=message):
        TrainConfig.parse(values)
