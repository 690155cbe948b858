"""`finetune`: inherited weights and settings, frozen stages, and the fallback to the baseline."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import twinned
from twinned import recipes
from twinned.data.datasets import PairSet
from twinned.data.readers import load_images
from twinned.errors import DataError, ModelError, SettingError, TrainingError
from twinned.inference import model_folder
from twinned.nn import onnx_export
from twinned.training.config import TrainConfig
from twinned.training.frozen_stages import FeatureCache
from twinned.training.state import Interrupted, Step

from ..conftest import slow

QUICK = {"precision": "float32", "warmup": 2, "quarter_turns": False, "mirrors": False, "augment.elastic": 0}


@pytest.fixture
def finetune(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, with_observers: Callable[..., Any]
) -> Callable[..., twinned.Model]:
    """Fine-tune `tiny_model` for a few steps; copy its graph unless `whole` is set."""

    def borrowed(network: Any, spec: Any, path: Path) -> None:
        shutil.copyfile(tiny_model / "encoder.onnx", path)

    def run(data: Any, *, whole: bool = False, **given: Any) -> twinned.Model:
        if not whole:
            monkeypatch.setattr(onnx_export, "export_encoder", borrowed)
        settings = QUICK | given.pop("settings", {})
        defaults = {"steps": 3, "progress": False}
        tuned: twinned.Model = with_observers(twinned.finetune)(
            given.pop("model", tiny_model), data, settings=settings, **defaults | given
        )
        return tuned

    return run


def weights(model: twinned.Model | Path) -> dict[str, torch.Tensor]:
    folder = model if isinstance(model, Path) else model.folder
    return load_file(folder / "weights.safetensors")


def test_fine_tuned_model_is_better_or_the_baseline_is_kept(finetune, tiny_model, strangers, glyphs):
    notes: list[str] = []
    known = load_images(glyphs)
    known = known.with_classes(known.classes[:6])
    model = finetune(strangers, steps=12, whole=True, old=known, on_note=notes.append)
    fit = model.manifest.calibration
    assert fit.n_classes == 8
    assert fit.unseen_classes
    before = twinned.load(tiny_model).evaluate(strangers, progress=False).verification
    assert before is not None
    assert fit.eer <= before.eer + 0.05, "measured on folds, so the values differ slightly"
    beaten = model.manifest.held_out.get("untouched")
    if beaten is None:
        assert any("the encoder before training is kept" in note for note in notes)
        assert all(torch.equal(v, weights(model)[k]) for k, v in weights(tiny_model).items())
    else:
        assert any("training improved the encoder" in note for note in notes)
        assert not all(torch.equal(v, weights(model)[k]) for k, v in weights(tiny_model).items())
        assert model.evaluate(strangers, progress=False).details["untouched"]["eer"] == before.eer
    # --old evaluates both models on the old classes and records the results.
    old = model.manifest.held_out["old"]
    ours = model.evaluate(known, progress=False).verification
    assert ours is not None
    assert old["after"]["eer"] == pytest.approx(ours.eer)
    theirs = twinned.load(tiny_model).evaluate(known, progress=False).verification
    assert theirs is not None
    assert old["before"]["eer"] == pytest.approx(theirs.eer)
    measured = model.manifest.coded_notes()[-1]
    assert measured.code == "old-classes"
    assert measured.text.startswith("on the old classes: equal error rate")
    assert twinned.load(model.folder).manifest == model.manifest


def test_validation_on_known_classes_is_noted(finetune, strangers):
    images = twinned.load_images(strangers)
    first = np.array([Path(image).stem in "012" for image in images.images])
    notes: list[str] = []
    finetune(images.subset(first), validation=images.subset(~first), on_note=notes.append)
    assert any("on held-out images of training classes: " in note for note in notes)


def test_worse_model_is_discarded(finetune, tiny_model, strangers):
    notes: list[str] = []
    ruin = {"learning_rate": 0.5, "settings": {"average": 0, "warmup": 0, "decay_from": 0.9}}
    model = finetune(strangers, steps=12, on_note=notes.append, **ruin)
    assert any("the encoder before training is kept" in note for note in notes)
    assert all(torch.equal(v, weights(model)[k]) for k, v in weights(tiny_model).items())
    before = twinned.load(tiny_model)
    assert model.manifest.classes == before.manifest.classes, "the new classes did not train it"
    assert model.manifest.data == before.manifest.data
    assert model.record.image_hashes == before.record.image_hashes
    assert "Trained on** 72 images" in (model.folder / "README.md").read_text()
    assert model.manifest.calibration.unseen_classes
    assert "untouched" not in model.manifest.held_out


def test_frozen_stages_keep_weights_and_statistics(finetune, tiny_model, strangers, monkeypatch):
    monkeypatch.setattr("twinned.training.cross_validation.is_better", lambda before, after: True)
    before = weights(tiny_model)
    model = finetune(strangers, steps=6, freeze=2)
    after = weights(model)
    stage = {name: name.split(".")[2] for name in before if name.startswith("encoder.blocks.")}
    moved = {stage[name] for name in stage if not torch.equal(before[name], after[name])}
    assert moved == {"2", "3"}
    assert model.manifest.setting("transfer.freeze") == "2"


def test_resume_requires_the_same_initial_model(finetune, tiny_model, strangers, tmp_path):
    given = {"settings": {"checkpoint_seconds": 0}, "output": tmp_path / "m.twin"}

    def crash(step: Step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted):
        finetune(strangers, on_step=crash, **given)
    with pytest.raises((TrainingError, SettingError), match="model: "):
        finetune(strangers, model=altered(tiny_model, tmp_path / "other.twin"), resume=True, **given)
    finetune(strangers, resume=True, **given)
    with pytest.raises(SettingError, match=r"different settings or data \(model: "):
        finetune(strangers, model=tmp_path / "other.twin", resume=True, **given)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_sighup_stops_and_the_run_resumes(finetune, strangers, tmp_path):
    steps: list[int] = []

    def hang_up(step: Step) -> None:
        steps.append(step.step)
        if step.step == 1:
            signal.raise_signal(signal.SIGHUP)

    known, other = load_images(strangers).split_classes(0.5)
    given = {"output": tmp_path / "m.twin", "validation": other, "on_step": hang_up}
    with pytest.raises(
        Interrupted, match=r"stopped after step 2 of 3; saved in .*; continue with the same arguments"
    ):
        finetune(known, **given)
    finetune(known, resume=True, **given)
    assert steps == [0, 1, 2]


def test_signal_during_old_evaluation_reports_the_saved_model(finetune, strangers, tmp_path, monkeypatch):
    def stop(*args: Any, **given: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    known, other = load_images(strangers).split_classes(0.5)
    monkeypatch.setattr("twinned.evaluation.results.Evaluation.headline", stop)
    with pytest.raises(Interrupted, match=r"stopped during evaluation on the old images; the model is saved"):
        finetune(known, output=tmp_path / "m.twin", old=strangers, validation=other)
    assert twinned.load(tmp_path / "m.twin").manifest.embedding_size > 0


def test_time_limits_the_images_of_frozen_stages(finetune, glyphs, strangers, monkeypatch, clock):
    seen: list[int] = []
    transform = FeatureCache.transform

    def watched(self: FeatureCache, pixels: Any, hashes: Any, **given: Any) -> Any:
        seen.append(len(hashes))
        return transform(self, pixels, hashes, **given)

    monkeypatch.setattr(FeatureCache, "transform", watched)
    monkeypatch.setattr(FeatureCache, "seconds_per_image", lambda self, pixels: 1.0)
    images = twinned.load_images(glyphs)
    ends = np.arange(95)
    same = images.labels[:-1] == images.labels[1:]
    pairs = PairSet(images.images, left=ends, right=ends + 1, same=same)
    notes: list[str] = []
    given = {"freeze": 2, "minutes": 0.05, "steps": None, "on_note": notes.append}
    given["on_step"] = lambda step: clock.advance(0.1)
    model = finetune(glyphs, validation=strangers, **given)
    assert model.manifest.held_out["images"] == 32
    finetune(pairs, **given)
    assert seen == [42 + 32, seen[1]]
    assert seen[1] <= 64
    assert any(note.startswith(f"time allows for {seen[1]} of 96 images: set minutes to") for note in notes)
    assert "time allows for 74 of 144 images: set minutes to 7 or more to use all" in notes


def test_preparing_takes_at_most_half_of_the_minutes(finetune, strangers, monkeypatch, clock):
    def slow(*given: Any) -> float:
        clock.advance(100)
        return 50.0

    monkeypatch.setattr("twinned.training.pipeline.write_baseline", slow)
    steps: list[int] = []
    given = {"minutes": 1, "steps": None, "settings": {"max_epochs": 50}}
    finetune(strangers, **given, on_step=lambda step: (steps.append(step), clock.advance(1.0)))
    assert len(steps) > 10


def altered(folder: Path, target: Path) -> Path:
    """Copy a model with slightly changed weights."""
    shutil.copytree(folder, target)
    values = {name: value * 1.01 for name, value in load_file(target / "weights.safetensors").items()}
    save_file(values, target / "weights.safetensors")
    model_folder.write(target, model_folder.read(target))
    return target


@pytest.mark.slow
def test_repeated_fine_tuning_keeps_the_learning_rate(finetune, strangers):
    one = finetune(strangers)
    two = finetune(strangers, model=one)
    rate = recipes.get("glyph").optimizer.learning_rate
    assert one.manifest.setting("optimizer.learning_rate") == pytest.approx(0.3 * rate)
    assert two.manifest.setting("optimizer.learning_rate") == one.manifest.setting("optimizer.learning_rate")
    notes: list[str] = []
    assert finetune(strangers, recipe="auto", on_note=notes.append).manifest.recipe["recipe"] == "glyph"
    assert notes[1].startswith("recipe glyph: ")


@pytest.mark.parametrize("place", ["new.twin", "."])
def test_output_inside_old_data_is_refused(finetune, strangers, glyphs, place):
    with pytest.raises(SettingError, match=r"into the data|output is also an input"):
        finetune(strangers, output=glyphs / place, old=glyphs, force=True)


def test_model_is_pickled_by_its_folder(tiny_model, glyphs):
    model = pickle.loads(pickle.dumps(twinned.load(tiny_model, device="cpu")))  # noqa: S301 - as devices=2 does
    assert (model.folder, model.device) == (tiny_model, "cpu")
    assert model.verify(*sorted(glyphs.rglob("*.png"))[:2]).distance >= 0


@pytest.mark.parametrize(
    ("given", "shape"), [*slow(({"image_size": 28}, (28, 28, 1))), ({"channels": 3}, (20, 20, 3))]
)
def test_fine_tune_with_another_size_or_color(finetune, tiny_model, strangers, given, shape):
    settings = {"channels": 3} if "channels" in given else {}
    size = {} if "channels" in given else given
    model = finetune(strangers, whole=True, settings=settings, **size)
    assert model.spec.shape == shape
    assert model.record.hash_limitation is not None, "hashes of the first training have another image shape"
    assert model.record.hash_limitation in model.evaluate(strangers, episodes=5, progress=False).notes
    assert model.embed([next(strangers.rglob("*.png"))]).shape == (1, model.embedding_size)
    if "channels" in given:  # gray becomes three equal channels, so the baseline is unchanged
        grey, mean = twinned.load(tiny_model), model.spec.mean
        assert mean == pytest.approx(grey.spec.mean * 3)


@pytest.mark.slow
def test_layer_that_does_not_fit_is_reinitialized_with_a_note(with_observers, glyphs, strangers, tmp_path):
    settings = QUICK | {"embedding_size": 12, "classes_per_batch": 8}
    first = tmp_path / "m.twin"
    twinned.train(
        glyphs,
        recipe="glyph",
        encoder="conv4",
        image_size=20,
        steps=2,
        settings=settings,
        output=first,
        progress=False,
    )
    notes: list[str] = []
    model = with_observers(twinned.finetune)(
        first, strangers, image_size=56, steps=2, settings=QUICK, progress=False, on_note=notes.append
    )
    assert (
        "the embedding layer does not fit images of 56x56 with 1 channels, so it is initialized at random"
        in notes
    )
    assert model.spec.height == 56
    assert model.manifest.classes, "no baseline exists"


def test_fixed_size_encoder_refuses_another_size(tiny_model, strangers, tmp_path):
    """The dense layer of Koch's network has a fixed input size."""
    folder = tmp_path / "m.twin"
    shutil.copytree(tiny_model, folder)
    found = model_folder.read(folder)
    koch = {"encoder": "koch2015", "height": 105, "width": 105, "embedding_size": None, "dropout": 0}
    recipe = TrainConfig.from_saved(found.recipe).merge(koch).model_dump(mode="json")
    model_folder.write(folder, found.model_copy(update={"recipe": recipe}))
    with pytest.raises(SettingError, match="koch2015 takes images of 105x105"):
        twinned.finetune(folder, strangers, image_size=64, steps=1, progress=False)


def test_weights_of_another_encoder_are_refused(tiny_model, strangers, tmp_path):
    folder = tmp_path / "m.twin"
    shutil.copytree(tiny_model, folder)
    state = {name: v for name, v in weights(folder).items() if ".blocks.0." not in name}
    save_file(state, folder / "weights.safetensors")
    model_folder.write(folder, model_folder.read(folder))
    with pytest.raises(ModelError, match=r"does not hold the weights of encoder .*blocks\.0\..* is missing"):
        twinned.finetune(folder, strangers, steps=1, progress=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"freeze": 9},
            "freeze must be none, all, or a number of stages, at most 4; got '9'",
        ),
        ({"freeze": "some"}, "got 'some'"),
        ({"freeze": "all"}, "freeze=all freezes every layer of encoder conv4"),
        ({"settings": {"encoder": "resnet"}}, "Fine-tuning keeps the model's encoder"),
        ({"recipe": "foo"}, "Unknown recipe 'foo'"),
        ({"epochs": 1}, "Only one of minutes, steps and epochs"),
    ],
)
def test_invalid_options_are_refused(finetune, strangers, tmp_path, given, message):
    with pytest.raises(SettingError, match=message):
        finetune(strangers, output=tmp_path / "new.twin", **given)
    assert list(tmp_path.iterdir()) == []


def test_unusable_old_images_are_refused_before_training(finetune, strangers, tmp_path):
    one = load_images(strangers)
    with pytest.raises(DataError, match=r"`old=`: .*: evaluation needs two classes"):
        finetune(strangers, output=tmp_path / "new.twin", old=one.with_classes(one.classes[:1]))
    assert list(tmp_path.iterdir()) == []


def test_output_must_not_be_the_initial_model(finetune, strangers, tiny_model, tmp_path):
    folder = tmp_path / "m.twin"
    shutil.copytree(tiny_model, folder)
    with pytest.raises(SettingError):
        finetune(strangers, model=folder, output=folder, force=True)
    assert json.loads((folder / "model.json").read_text()) == json.loads(
        (tiny_model / "model.json").read_text()
    )


@pytest.mark.slow
def test_kept_baseline_is_noted_and_not_trained_again(finetune, glyphs, tmp_path):
    ruin = {"learning_rate": 0.5, "settings": {"average": 0, "warmup": 0, "decay_from": 0.9}}
    some = twinned.load_images(glyphs).with_classes([f"glyph0{n}" for n in range(4)])
    notes: list[str] = []
    one = tmp_path / "one.twin"
    model = finetune(some, whole=True, steps=4, image_size=24, output=one, on_note=notes.append, **ruin)
    assert any("on which the initial model was trained" in sentence for sentence in notes)
    assert not model.manifest.calibration.unseen_classes
    assert finetune(some, steps=4, image_size=24, output=one, resume=True, on_note=notes.append, **ruin)
    assert notes[-1] == f"{one}: this run is finished; there is nothing to resume"
    third = finetune(some, whole=True, model=one, steps=4, image_size=20, **ruin)
    assert not third.manifest.calibration.unseen_classes, "at another size classes are known by their names"


def test_recipe_changes_training_but_not_encoder_or_input(finetune, strangers):
    model = finetune(strangers, recipe="facenet")
    found = model.manifest
    assert (found.setting("input.height"), found.setting("input.channels")) == (20, 1)
    assert found.setting("encoder.name") == found.encoder
    assert np.isfinite(model.threshold)
