"""Recipes: settings that can be used together, changed by name, refused with a sentence."""

from __future__ import annotations

import pytest
import torch

from twinned import (
    encoders,
    heads,
    losses,
    miners,
    recipes,
)
from twinned.data.augmentation import Augmentation
from twinned.errors import SettingError
from twinned.training.config import Settings
from twinned.training.recipes import RECIPES
from twinned.training.state import Schedule


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_can_be_built(name):
    s = recipes.get(name)
    assert s.recipe == name
    encoder = encoders.build(
        s.encoder,
        image_size=(s.height, s.width),
        channels=s.channels,
        embedding_size=s.embedding_size,
        dropout=s.dropout,
    )
    head = heads.build(s.head, distance=s.distance, embedding_size=encoder.embedding_size)
    loss = losses.get(
        s.loss,
        margin=s.margin,
        temperature=s.temperature,
        num_classes=4,
        embedding_size=encoder.embedding_size,
    )
    measure = s.distance if not head.learned else lambda a, b: torch.zeros(len(a), len(b))
    losses.embedding_loss(loss, distance=measure, miner=miners.get(s.miner) if s.miner else None)
    assert head.learned == (getattr(loss, "input_kind", None) == "logit")
    assert Augmentation(**s.augment.model_dump()).rotation == s.augment.rotation
    assert s.spec().shape == (s.height, s.width, s.channels)
    assert [s.minutes, s.steps, s.epochs].count(None) == 2


def test_the_papers_recipes_say_what_the_papers_say():
    koch, facenet, chopra = (RECIPES[name] for name in ("koch2015", "facenet", "chopra2005"))
    assert (koch.height, koch.width, koch.channels) == (105, 105, 1)
    assert (koch.encoder, koch.head, koch.loss) == ("koch2015", "weighted-l1", "cross-entropy")
    a = koch.augment
    assert (a.rotation, a.shear, a.scale, a.shift, a.probability) == (10, 0.3, 0.2, 2 / 105, 0.5)
    assert (facenet.loss, facenet.margin, facenet.miner) == ("triplet", 0.2, "semi-hard")
    assert (facenet.distance, facenet.normalize, facenet.embedding_size) == ("squared_euclidean", True, 128)
    assert (chopra.encoder, chopra.distance, chopra.loss) == ("chopra2005", "manhattan", "chopra")


def test_settings_that_plan_and_batches_take_have_their_names():
    shared = {
        "learning_rate",
        "warmup",
        "decay_from",
        "epoch_decay",
        "average",
        "evaluations",
        "patience",
        "clip",
        "seed",
    }
    assert shared | {"checkpoint_seconds"} <= set(Schedule.__dataclass_fields__) & set(Settings.model_fields)


def test_an_unknown_recipe_is_refused_with_the_names():
    with pytest.raises(SettingError, match=r"'imagenet' is not known; choose auto, glyph, face"):
        recipes.get("imagenet")


def test_change_sets_what_it_names_and_nothing_else():
    base = recipes.get("glyph")
    changed = base.change({"steps": "5", "minutes": "none", "augment.rotation": "3.5", "quarter_turns": "no"})
    assert (changed.steps, changed.minutes, changed.augment.rotation) == (5, None, 3.5)
    assert changed.quarter_turns is False
    baseline = {"steps", "minutes", "augment", "quarter_turns"}
    assert changed.model_dump(exclude=baseline) == base.model_dump(exclude=baseline)
    assert changed.augment.shear == base.augment.shear
    assert base.minutes == 2, "the recipe itself stays as it is"
    assert base.change({"ink": "none"}).ink == "none", "a value that is called none"


def test_channels_may_come_from_a_command_line():
    assert recipes.get("face").change({"channels": "3"}).channels == 3
    with pytest.raises(SettingError, match="channels: Input should be 1 or 3; got 2"):
        recipes.get("face").change({"channels": "2"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"speed": 1}, r"'speed' is not known; choose from height, width, .*augment\.rotation"),
        ({"recipe": "mine"}, "'recipe' is not known"),
        ({"steps.more": 1}, r"'steps.more' is not known"),
        ({"augment.colour": 1}, r"'augment.colour' is not known; choose from augment.rotation"),
        ({"learning_rate": "fast"}, "learning_rate: .*valid number.*; got 'fast'"),
        ({"learning_rate": 0}, "learning_rate: .*greater than 0; got 0"),
        ({"minutes": float("inf")}, "minutes: .*finite number; got inf"),
        ({"learning_rate": float("nan")}, "learning_rate: .*; got nan"),
        ({"channels": 2}, "channels: .*1 or 3; got 2"),
        ({"distance": "hamming"}, "distance: .*'euclidean'.*; got 'hamming'"),
        ({"steps": -1}, "steps: .*greater than or equal to 0"),
        ({"seed": 1 << 31}, "seed: "),
        ({"far": 1}, "far: "),
        ({"augment.erase": 1}, r"augment\.erase: "),
        ({"augment": 3}, "augment: "),
        ({"height": "none"}, "height: "),
    ],
)
def test_what_cannot_be_set_is_refused_in_one_line(changes, message):
    with pytest.raises(SettingError, match=message) as caught:
        recipes.get("photo").change(changes)
    assert "\n" not in str(caught.value)
