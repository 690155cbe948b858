"""From images to a model: who is held out, what is said, what is refused, and that it can be gone on with."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import twinned
from twinned.data.datasets import ImageSet
from twinned.data.readers import load_images
from twinned.errors import DataError, SettingError, TrainingError
from twinned.inference.model_card import card
from twinned.inference.recalibrate import recalibrate
from twinned.nn import onnx_export
from twinned.training import pipeline
from twinned.training.state import Interrupted, Step

from ..conftest import EMBEDDING, slow

QUICK = {"precision": "float32", "warmup": 2, "quarter_turns": False, "mirrors": False, "augment.elastic": 0}


@pytest.fixture
def quick(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, listening: Callable[..., Any]
) -> Callable[..., twinned.Model]:
    """Train for a moment; the graph is `tiny_model`'s, since exporting takes longer than all the rest."""

    def borrowed(network: Any, spec: Any, path: Path) -> None:
        shutil.copyfile(tiny_model / "encoder.onnx", path)

    monkeypatch.setattr(onnx_export, "export_encoder", borrowed)

    def train(data: Any, **given: Any) -> twinned.Model:
        settings = QUICK | given.pop("settings", {})
        length = {"steps": 3} if not {"minutes", "epochs"} & set(given) else {}
        defaults = {"recipe": "glyph", "image_size": 20, "progress": False} | length
        model: twinned.Model = listening(twinned.train)(data, settings=settings, **defaults | given)
        return model

    return train


@pytest.fixture
def some(glyphs: Path) -> Callable[[int], ImageSet]:
    """The first so many classes."""
    images = load_images(glyphs)
    return lambda count: images.with_classes(images.classes[:count])


def weights(model: twinned.Model) -> dict[str, torch.Tensor]:
    return load_file(model.folder / "weights.safetensors")


def equal(a: twinned.Model, b: twinned.Model) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


# ---- the whole way, once as it is


def test_the_whole_way(glyphs, strangers, tmp_path, on_step):
    """Learned head and all, nothing borrowed: what is saved is what was trained, and it says so."""
    steps: list[Step] = []
    model = twinned.train(
        glyphs,
        recipe="glyph",
        image_size=20,
        loss="cross-entropy",
        steps=6,
        settings=QUICK,
        far=0.1,
        seed=3,
        output=tmp_path / "m.twin",
        progress=False,
        callbacks=[on_step(steps.append)],
    )
    assert [step.step for step in steps] == list(range(6))
    assert {step.total for step in steps} == {6}
    assert all(step.images == len(step.batch.index) for step in steps)
    assert not (tmp_path / "m.twin.partial").exists()
    said = json.loads((tmp_path / "m.twin" / "model.json").read_text())
    assert said["head"] is True
    assert said["calibration"]["far"] == 0.1
    assert said["recipe"]["loss"]["name"] == "cross-entropy"
    assert said["data"]["images"] == 72
    training = json.loads((tmp_path / "m.twin" / "training.json").read_text())
    assert training["seed"] == training["settings"]["seed"] == 3
    assert training["steps"] == 6
    rows = list(csv.DictReader((tmp_path / "m.twin" / "history.csv").open()))
    assert [row["step"] for row in rows] == ["6"]
    assert 0 <= float(rows[0]["held_out_eer"]) <= 1

    # With a learned head the distance is 1 - score, everywhere, and re-orders a gallery's candidates.
    a, b = (model.embed(sorted(map(str, strangers.rglob("*.png")))[i : i + 4]) for i in (0, 4))
    head = weights(model)
    logits = (np.abs(a - b) @ head["head.weight.weight"].numpy().T + head["head.weight.bias"].numpy())[:, 0]
    np.testing.assert_allclose(model.paired_distances(a, b), 1 - 1 / (1 + np.exp(-logits)), atol=1e-5)
    np.testing.assert_allclose(np.diag(model.distances(a, b)), model.paired_distances(a, b), atol=1e-6)
    np.testing.assert_allclose(model.rerank(a[0], b), model.distances(a, b)[0], atol=1e-6)
    file = next(strangers.rglob("*.png"))
    assert 0 < model.verify(file, file).distance < 1, "an image may be more than 0 from itself"
    # The score falls by at most a quarter of what the logit rises.
    near = np.linalg.norm(head["head.weight.weight"]) / 4 * 2 * EMBEDDING * np.linalg.norm(a, axis=1).max()
    twice = model.verify(file, file).distance
    assert model.classify(file, {"x": [file]}).distance == pytest.approx(twice, abs=float(near))
    found = model.evaluate(strangers, ways=4, episodes=50, progress=False)
    assert found.verification is not None
    assert found.verification.threshold == model.threshold


# ---- who is held out


def test_with_twelve_classes_some_are_held_out(quick, some):
    model = quick(some(12))
    fit_ = model.manifest.calibration
    assert fit_.unseen_classes
    assert fit_.n_classes == 4
    assert len(model.manifest.classes) == 8
    assert len(model.manifest.held_out["classes"]) == 4
    assert (fit_.n_genuine, fit_.n_impostor) == (4 * 15, 6 * 36)


@pytest.mark.parametrize(("classes", "folds"), [(6, 3), *slow((11, 3), (4, 2))])
def test_with_fewer_the_threshold_comes_from_folds_and_all_are_learnt_from(quick, some, classes, folds):
    said: list[str] = []
    model = quick(some(classes), say=said.append)
    text = f"{classes} classes are too few to hold some out, so the threshold is fitted on {folds} folds"
    assert any(note.startswith(text) for note in model.manifest.notes)
    assert len(model.manifest.classes) == classes
    assert model.manifest.calibration.unseen_classes
    assert model.manifest.calibration.n_classes == classes
    assert model.manifest.calibration.n_genuine == classes * 15


@pytest.mark.parametrize("classes", [*slow(2), 3])
def test_with_fewer_than_four_the_model_says_that_its_threshold_is_too_hopeful(quick, some, classes):
    model = quick(some(classes))
    assert not model.manifest.calibration.unseen_classes
    assert any("the threshold is from classes that training saw" in note for note in model.manifest.notes)
    assert "CLASSES SEEN IN TRAINING" in (model.folder / "README.md").read_text()


def test_images_to_validate_on_leave_every_class_to_learn_from(quick, some, strangers):
    model = quick(some(14), validation=strangers)
    fit_ = model.manifest.calibration
    assert len(model.manifest.classes) == 14
    assert fit_.n_classes == 8
    assert fit_.n_genuine == 8 * 15
    # glyph00 to glyph07 is what the classes of both are called.
    assert not fit_.unseen_classes
    renamed = load_images(strangers)
    renamed.labels[:] = [label.replace("glyph", "other") for label in renamed.labels]
    assert quick(some(14), validation=renamed).manifest.calibration.unseen_classes


def test_classes_with_one_image_stay_as_impostors(quick, some, strangers):
    known, single = some(12), load_images(strangers).subset(np.arange(0, 48, 6))
    names = [*known.labels, *(f"single {n}" for n in range(8))]
    drawn: set[int] = set()
    said: list[str] = []
    model = quick(
        load_images([*known.images, *single.images], names),
        on_step=lambda step: drawn.update(step.batch.index.tolist()),
        say=said.append,
    )
    assert "8 of 20 classes have one image: they serve as impostors only" in said
    assert len(model.manifest.classes) + len(model.manifest.held_out["classes"]) == 20
    assert drawn & set(range(48, 54)), "those not held out are in the batches"
    n = 4 * 6 + 2  # held out: four classes of six images, and two single ones
    assert model.manifest.calibration.n_impostor == n * (n - 1) // 2 - 4 * 15


@pytest.mark.parametrize("loss", ["arcface", *slow("proxy-anchor")])
def test_a_loss_with_proxies_leaves_single_images_out(quick, some, strangers, loss):
    known, single = some(12), load_images(strangers).subset(np.arange(0, 48, 6))
    names = [*known.labels, *(f"single {n}" for n in range(8))]
    assert quick(load_images([*known.images, *single.images], names), loss=loss)


def test_unreadable_images_are_named_once_and_left_out(quick, glyphs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(glyphs, data)
    for name in ("glyph03/1.png", "glyph05/2.png"):
        (data / name).write_bytes(b"broken")
    said: list[str] = []
    model = quick(data, say=said.append)
    for name in ("glyph03/1.png", "glyph05/2.png"):
        assert sum(name in sentence for sentence in said) == 1
    training = json.loads((model.folder / "training.json").read_text())
    assert len(training["images"]) + len(training["held_out_images"]) == 94
    assert model.manifest.notes == said
    assert sorted(p.name for p in data.iterdir()) == sorted(p.name for p in glyphs.iterdir()), (
        "nothing written"
    )


def marked(file: Path, glyphs: Path, split: Callable[[Path], str]) -> Path:
    """A CSV of the glyphs with a column split."""
    lines = [f"{image},{image.parent.name},{split(image)}" for image in sorted(glyphs.rglob("*.png"))]
    file.write_text("\n".join(["path,label,split", *lines]))
    return file


def test_a_csvs_split_says_what_is_learnt_from_what_chooses_the_threshold_and_what_is_measured(
    quick, glyphs, tmp_path
):
    def split(image: Path) -> str:
        name = image.parent.name
        return "val" if name > "glyph11" else "Test" if image.stem in "45" else "train"

    data, said = marked(tmp_path / "split.csv", glyphs, split), []
    model = quick(data, output=tmp_path / "m.twin", say=said.append)
    assert (
        said[0] == "the column split leaves 48 of 96 images for training, and 24 for choosing the threshold"
    )
    assert model.manifest.data["images"] == 48
    assert sum("several splits" in sentence for sentence in said) == 1
    assert model.manifest.held_out["classes"] == [f"glyph{n}" for n in (12, 13, 14, 15)]
    found = model.evaluate(data, progress=False)
    assert found.notes[0] == "measured on the 24 of 96 images that the column split marks as test"
    assert "seen_in_training" not in found.to_json()
    recalibrate(model.folder, data, in_place=True, progress=False)
    assert twinned.load(model.folder).manifest.held_out["images"] == 24


def test_a_split_within_classes_chooses_no_threshold_and_one_without_train_says_nothing(
    quick, glyphs, tmp_path
):
    said: list[str] = []
    within = marked(tmp_path / "within.csv", glyphs, lambda image: "val" if image.stem == "5" else "train")
    model = quick(within, say=said.append)
    assert said[0].endswith("show the same classes, so they choose no threshold")
    assert model.manifest.calibration.unseen_classes
    few = marked(tmp_path / "few.csv", glyphs, lambda i: "val" if i.parent.name == "glyph15" else "train")
    assert quick(few, say=said.append).manifest.calibration.unseen_classes
    assert any(s.endswith("those marked val are too few to choose the threshold on") for s in said)
    other = marked(tmp_path / "other.csv", glyphs, lambda image: f"fold{image.stem}")
    assert quick(other, say=said.append).manifest.data["images"] == 72
    assert any(s.endswith("fold5, never train") for s in said)
    for word in ("dev", "trainig"):
        typo = marked(tmp_path / "t.csv", glyphs, lambda i, word=word: "test" if i.stem == "5" else word)
        with pytest.raises(DataError, match=rf"values .*{word}.*, but not train. Mark the training"):
            quick(typo)
    blank = marked(tmp_path / "blank.csv", glyphs, lambda image: "test" if image.stem == "5" else "")
    assert quick(blank, say=said.append).manifest.data["images"] == 60


def test_copies_on_both_sides_of_a_split_are_told(quick, glyphs, tmp_path):
    shutil.copytree(glyphs, tmp_path / "glyphs")
    for folder in (tmp_path / "glyphs").iterdir():
        shutil.copy(folder / "0.png", folder / "5.png")
    data = marked(tmp_path / "c.csv", tmp_path / "glyphs", lambda i: "test" if i.stem == "5" else "train")
    said: list[str] = []
    quick(data, say=said.append)
    assert any("16 pictures in several splits" in sentence for sentence in said)


def test_a_folder_that_is_no_interrupted_run_is_left_alone(quick, glyphs, tmp_path):
    data = tmp_path / "m.partial"
    shutil.copytree(glyphs, data)
    for given in ({}, {"force": True}, {"resume": True}):
        with pytest.raises(SettingError, match="output is also an input"):
            quick(data, output=tmp_path / "m", **given)
        with pytest.raises(SettingError, match=r"m.partial exists and is not an interrupted run"):
            quick(glyphs, output=tmp_path / "m", **given)
    assert len(list(data.rglob("*.png"))) == 96


# ---- other kinds of data


def pair_list(folder: Path, glyphs: Path, **columns: Callable[[bool], str]) -> Path:
    """Pairs of neighbours within a class, and of first images of different classes."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(16):
        mine = [str(glyphs / f"glyph{number:02d}" / f"{i}.png") for i in range(6)]
        other = str(glyphs / f"glyph{(number + 1) % 16:02d}" / f"{rng.integers(6)}.png")
        rows += [
            (mine[0], mine[1], True),
            (mine[2], mine[3], True),
            (mine[4], other, False),
            (mine[5], mine[0], True),
        ]
        rows += [(mine[1], other, False)]
    file = folder / "pairs.csv"
    lines = [",".join(["left", "right", "same", *columns])]
    lines += [f"{a},{b},{int(s)}" + "".join(f",{c(s)}" for c in columns.values()) for a, b, s in rows]
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize(
    ("loss", "head", "distance"),
    [
        (None, False, "euclidean"),
        *slow(
            ("cross-entropy", True, "cosine"),
            ("contrastive", False, "manhattan"),
            ("chopra", False, "manhattan"),
        ),
    ],
)
def test_a_pair_list_alone_is_enough(quick, glyphs, tmp_path, loss, head, distance):
    wanted = distance if loss == "contrastive" else None
    model = quick(pair_list(tmp_path, glyphs), loss=loss, distance=wanted)
    assert model.manifest.head is head
    assert model.distance == distance
    assert model.manifest.classes == []
    assert model.manifest.calibration.unseen_classes
    training = json.loads((model.folder / "training.json").read_text())
    assert training["classes"] == training["held_out_classes"] == []
    assert not set(training["images"]) & set(training["held_out_images"])


def signatures(folder: Path, glyphs: Path, *, forged: int = 16) -> Path:
    """Four genuine images a class and two forgeries: glyphs of the class itself, a little warped."""
    lines = ["path,label,role"]
    for number in range(16):
        for i in range(6):
            role = "forgery" if i >= 4 and number < forged else "genuine"
            lines.append(f"{glyphs}/glyph{number:02d}/{i}.png,glyph{number:02d},{role}")
    file = folder / "signatures.csv"
    file.write_text("\n".join(lines))
    return file


def test_forgeries_are_learnt_from_and_the_threshold_is_against_them(quick, glyphs, tmp_path):
    seen: list[Step] = []
    model = quick(signatures(tmp_path, glyphs), on_step=seen.append)
    fit_ = model.manifest.calibration
    assert fit_.n_genuine == 4 * 6
    assert fit_.n_impostor == 4 * 2 * 4, "each forgery against the genuine images of its class, and no other"
    for step in seen:
        _, counts = np.unique(step.batch.labels, return_counts=True)
        assert 1 in counts, "a forgery is nobody's positive"


@pytest.mark.parametrize(
    ("recipe", "forged", "expected"),
    [
        ("signature", 0, ["skilled forgeries"]),
        ("glyph", 16, []),
        *slow(("signature", 16, []), ("glyph", 0, None)),
    ],
)
def test_a_model_says_whether_forgeries_were_measured(quick, glyphs, tmp_path, recipe, forged, expected):
    model = quick(signatures(tmp_path, glyphs, forged=forged), recipe=recipe)
    found = model.manifest
    assert found.not_measured == (expected or [])
    assert ("impostors" in found.held_out) == (expected is not None)
    assert ("**Skilled forgeries: not measured**" in card(found)) == bool(expected)


def test_where_training_has_forgeries_those_held_out_must_have_some_to_be_measured(quick, glyphs, tmp_path):
    images = load_images(signatures(tmp_path, glyphs))
    learn, other = images.with_classes(images.classes[:8]), images.with_classes(images.classes[8:])
    assert quick(learn, validation=other).manifest.not_measured == []
    assert quick(learn, validation=other.genuine()).manifest.unmeasured == "skilled forgeries: not measured"


def test_a_pair_list_does_not_mark_forgeries(quick, glyphs, tmp_path):
    model = quick(pair_list(tmp_path, glyphs), recipe="signature")
    assert model.manifest.unmeasured == "skilled forgeries: not marked in the pair list"


@pytest.mark.slow
def test_forgeries_of_some_classes_in_folds(quick, glyphs, tmp_path):
    images = load_images(signatures(tmp_path, glyphs, forged=1))
    model = quick(images.with_classes(images.classes[:6]))
    assert model.manifest.calibration.n_impostor == 2 * 4


# ---- the same, and other


def test_the_same_seed_gives_the_same_model_and_another_seed_another(quick, some):
    first, again, other = (quick(some(12), seed=seed) for seed in (0, 0, 1))
    assert equal(first, again)
    assert first.threshold == again.threshold
    assert not equal(first, other)


@pytest.mark.parametrize("classes", [12, *slow(6), 2])
def test_no_steps_fit_the_threshold_alone(quick, some, classes):
    model = quick(some(classes), steps=0)
    assert json.loads((model.folder / "training.json").read_text())["steps"] == 0
    assert model.threshold > 0
    assert model.manifest.calibration.n_classes == classes
    assert "Trained on" not in (model.folder / "README.md").read_text()


def test_a_solved_layer_learns_from_images_without_steps(quick, some):
    with pytest.raises(SettingError, match="projection=lda needs an encoder that ends in a linear layer"):
        quick(some(12), steps=0, settings={"layer": "solved"})
    model = quick(some(12), steps=0, embedding_size=256, settings={"layer": "solved"})
    assert len(model.manifest.classes) == 8
    assert "**Trained on** 48 images of 8 classes" in (model.folder / "README.md").read_text()


def test_epochs_show_as_many_images_as_there_are(quick, some):
    steps: list[Step] = []
    quick(some(12), epochs=3, batch_size=12, on_step=steps.append)
    assert sum(step.images for step in steps) == pytest.approx(3 * 48, abs=12)


def test_weights_from_a_file_are_fed_as_they_were_trained(quick, tiny_model, strangers):
    """With no steps the model is the one that the weights come from, and was trained on nothing here."""
    before = twinned.load(tiny_model)
    given = {"weights": str(tiny_model / "weights.safetensors")}
    model = quick(strangers, steps=0, settings=given)
    assert (model.spec.mean, model.spec.std) == (before.spec.mean, before.spec.std)
    assert equal(model, before)
    card = (model.folder / "README.md").read_text()
    assert "Trained on" not in card
    assert "**Not trained** here" in card
    assert model.manifest.classes == []
    assert model.manifest.data["images"] == 0
    assert json.loads((model.folder / "training.json").read_text())["images"] == []
    assert model.manifest.calibration.n_classes == 8, "all classes choose the threshold"
    assert model.manifest.calibration.unseen_classes
    assert not any("does not contain the mean" in note for note in model.manifest.notes)


@pytest.mark.parametrize("steps", [0, *slow(2)])
def test_weights_from_before_are_fed_by_the_model_json_beside_them(quick, some, tiny_model, tmp_path, steps):
    shutil.copytree(tiny_model, tmp_path / "old.twin")
    file = tmp_path / "old.twin" / "weights.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k not in ("mean", "std")}, file)
    spec = twinned.load(tiny_model).spec
    model = quick(some(12), steps=steps, settings={"weights": str(file)})
    assert (model.spec.mean, model.spec.std) == (spec.mean, spec.std)
    assert model.manifest.data["images"] == (48 if steps else 0)

    alone = shutil.copy(file, tmp_path / "alone.safetensors")
    said: list[str] = []
    model = quick(some(12), steps=steps, settings={"weights": str(alone)}, say=said.append)
    assert sum(s.startswith("alone.safetensors does not contain the mean and std") for s in said) == 1
    assert model.spec.mean == quick(some(12), steps=0).spec.mean


def test_the_mean_of_a_file_is_fitted_to_the_channels_or_refused(quick, some, tiny_model, tmp_path):
    state = load_file(tiny_model / "weights.safetensors")
    file = tmp_path / "mine.safetensors"
    settings = {"weights": str(file)}
    save_file(state | {"mean": torch.tensor([0.5, 0.4, 0.3]), "std": torch.tensor([0.1, 0.2, 0.3])}, file)
    spec = quick(some(12), steps=0, settings=settings).spec
    assert (spec.mean, spec.std) == (pytest.approx((0.4,)), pytest.approx((0.2,)))
    for wrong in ({"std": torch.zeros(1, 1, 1)}, {"mean": torch.zeros(2, 1, 1)}):
        save_file(state | wrong, file)
        with pytest.raises(SettingError, match=r"mine.safetensors: mean .* must have one value for each of"):
            quick(some(12), steps=0, settings=settings)


@pytest.mark.parametrize(
    "given",
    [
        *slow({"batch_size": 12}),
        {"batch_size": 20},
        {"batch_size": 12, "settings": {"quarter_turns": True}},
        *slow({"batch_size": 12, "settings": {"images_per_class": 2}}),
    ],
    ids=["whole steps", "steps to be rounded", "turned images", "few images of a class"],
)
def test_the_history_ends_at_the_number_of_epochs(quick, some, given):
    """Whatever share of a class's images a batch takes, and whatever classes are made of turned images."""
    model = quick(some(12), epochs=3, **given)
    history = model.record.history()
    assert history["epoch"][-1] == 3
    assert history["step"][-1] == json.loads((model.folder / "training.json").read_text())["steps"]


def test_a_single_step_that_shows_more_than_was_asked_for_counts_what_it_shows(quick, some):
    history = quick(some(12), epochs=0.25, settings={"mirrors": False}).record.history()  # 32 of 48 images
    assert (history["step"][-1], history["epoch"][-1]) == (1, 0.67)


def test_without_an_output_the_model_lasts_as_long_as_its_object(quick, some, tmp_path):
    model = quick(some(12))
    folder = model.folder
    model.save(tmp_path / "kept.twin")
    del model
    assert not folder.exists()
    assert twinned.load(tmp_path / "kept.twin").manifest.setting("length.steps") == 3


def test_training_works_in_another_thread(quick, some):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(quick, some(12)).result().manifest.calibration.n_classes == 4


def test_settings_reach_the_run(quick, some):
    seen: list[Step] = []
    model = quick(
        some(16),
        batch_size=8,
        learning_rate=0.123,
        on_step=seen.append,
        settings={"warmup": 1, "decay_from": 0.9, "optimizer": "sgd", "momentum": 0},
    )
    assert [step.images for step in seen] == [8] * 3
    assert seen[0].learning_rate == 0.123
    assert model.manifest.setting("optimizer.name") == "sgd"


# ---- what goes wrong


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"recipe": "foo"}, "Unknown recipe 'foo'"),
        ({"encoder": "foo"}, "Unknown encoder 'foo'"),
        ({"loss": "foo"}, "Unknown loss 'foo'"),
        ({"distance": "foo"}, "distance: .*'euclidean'.*; got 'foo'"),
        (
            {"loss": "circle", "settings": {"loss": "supcon"}},
            r"loss\.name is given twice, as circle and as supcon",
        ),
        ({"seed": 3, "settings": {"seed": 7}}, "seed is given twice, as 3 and as 7"),
        ({"image_size": "foo"}, "an image size must be HxW"),
        ({"image_size": "10x10"}, "at least 16x16; got 10x10"),
        ({"settings": {"miner": "foo"}}, "Unknown miner 'foo'"),
        ({"settings": {"head": "foo"}}, "Head foo requires loss cross-entropy"),
        ({"settings": {"x": 1}}, "Unknown setting 'x'"),
        ({"batch_size": 1}, "A batch needs at least 4 images"),
        ({"device": "tpu"}, "device 'tpu' cannot be used"),
        ({"margin": 1.0}, "Loss supcon has no setting margin; it has temperature"),
        (
            {"loss": "circle", "distance": "manhattan"},
            "Loss circle requires distance cosine; got manhattan",
        ),
        (
            {"image_size": "20x30", "settings": {"quarter_turns": True}},
            "Rotated classes require square images",
        ),
        ({"validation": "nowhere"}, "nowhere: no such file or folder"),
    ],
)
def test_wrong_settings_are_refused_and_leave_nothing_behind(quick, some, tmp_path, given, message):
    with pytest.raises((SettingError, DataError), match=message):
        quick(some(12), output=tmp_path / "m.twin", **given)
    assert list(tmp_path.iterdir()) == []


def test_images_of_training_do_not_validate(quick, some, glyphs):
    with pytest.raises(DataError, match="72 of 96 validation images are training images too"):
        quick(some(12), validation=glyphs)


def test_too_little_data_is_refused(quick, some, tmp_path):
    single = some(12).subset(np.arange(0, 72, 6))
    with pytest.raises(
        DataError, match="two classes with two readable images each; 0 of 12 classes have two"
    ):
        quick(single)
    broken = tmp_path / "data"
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (broken / name).parent.mkdir(parents=True, exist_ok=True)
        (broken / name).write_bytes(b"broken")
    with pytest.raises(DataError, match="none of 4 images can be read"):
        quick(broken)
    for number in (1, 2):
        shutil.copy(some(1).images[number], broken / "a" / f"{number}.png")
    with pytest.raises(DataError, match="two classes with two readable images each; 1 of 1 classes have two"):
        quick(broken)


def test_weights_that_run_away_are_not_saved(quick, some, tmp_path):
    with pytest.raises(
        TrainingError, match=r"before any evaluation with finite embeddings. Use a smaller learning rate"
    ):
        quick(some(12), learning_rate=1e30, output=tmp_path / "m.twin", settings={"warmup": 0})
    assert not (tmp_path / "m.twin").exists()


# ---- going on


class CrashError(BaseException):
    """Stands for a kill between two steps; the real one is in tests/cli/test_interrupted.py."""


def crash_at(number: int) -> Callable[[Step], None]:
    def crash(step: Step) -> None:
        if step.step == number:
            raise CrashError

    return crash


@pytest.mark.parametrize("classes", [12, *slow(6)])
def test_a_resumed_run_ends_as_an_uninterrupted_one(quick, some, tmp_path, classes):
    """Also where the crash is in the second of the folds that the threshold comes from."""
    output = tmp_path / "m.twin"
    given = {"steps": 8, "settings": {"checkpoint_seconds": 0, "dropout": 0.2, "memory": 24}}
    whole = quick(some(classes), **given)
    count = 0

    def crash(step: Step) -> None:
        nonlocal count
        count += 1
        if count in ({5} if classes == 12 else {5, 16}):
            raise CrashError

    for resume in (False, True) if classes == 6 else (False,):
        with pytest.raises(CrashError):
            quick(some(classes), output=output, on_step=crash, resume=resume, **given)
    assert not output.exists()
    resumed = quick(some(classes), output=output, on_step=crash, resume=True, **given)
    assert count == (8 + 1 if classes == 12 else 8 + 3 * 4 + 2), (
        "steps are not taken twice, but for those lost"
    )
    assert equal(resumed, whole)
    assert resumed.threshold == whole.threshold
    assert resumed.manifest.calibration == whole.manifest.calibration
    assert not pipeline.partial(output).exists()


def test_other_settings_or_data_are_not_gone_on_with(quick, some, strangers, tmp_path):
    output = tmp_path / "m.twin"
    given = {"steps": 8, "output": output, "settings": {"checkpoint_seconds": 0}}
    with pytest.raises(CrashError):
        quick(some(14), on_step=crash_at(4), **given)
    with pytest.raises(TrainingError, match=r"learning_rate: 0\.01 then, 0\.02 now"):
        quick(some(14), resume=True, learning_rate=0.02, **given)
    with pytest.raises(TrainingError, match=r"data: .* then, .* now"):
        quick(some(13), resume=True, **given)
    with pytest.raises(TrainingError, match=r"held_out: .* then, .* now"):
        quick(some(14), resume=True, validation=strangers, **given)
    before = pipeline.partial(output) / "main.safetensors"
    assert before.exists(), "a refusal loses nothing"
    with pytest.raises(SettingError, match="holds an interrupted run"):
        quick(some(14), **given)
    assert before.exists()
    assert quick(some(14), force=True, **given).manifest.setting("length.steps") == 8
    assert not pipeline.partial(output).exists()


def test_a_checkpoint_from_before_is_refused_and_kept(quick, some, tmp_path):
    output = tmp_path / "m.twin"
    given = {"steps": 8, "output": output, "settings": {"checkpoint_seconds": 0}}
    with pytest.raises(CrashError):
        quick(some(12), on_step=crash_at(4), **given)
    file = pipeline.partial(output) / "main.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file({k: v for k, v in load_file(file).items() if k != "network/mean"}, file, metadata)
    with pytest.raises(
        TrainingError,
        match=r"written by another version of Twinned \(network/mean is missing.*--force",
    ):
        quick(some(12), resume=True, **given)
    assert file.exists()


def test_a_finished_run_is_handed_back(quick, some, tmp_path):
    output = tmp_path / "m.twin"
    said: list[str] = []
    model = quick(some(12), output=output, resume=True, say=said.append)
    assert any("does not exist, so the run starts from the beginning" in s for s in said)
    steps: list[Step] = []
    again = quick(some(12), output=output, resume=True, on_step=steps.append, say=said.append)
    assert steps == []
    assert again.encoder_sha256 == model.encoder_sha256
    assert said[-1] == f"{output}: this run is finished; there is nothing to resume"
    with pytest.raises(
        SettingError, match=r"finished run with different settings or data \(length\.steps: 3 then, 4 now"
    ):
        quick(some(12), output=output, resume=True, steps=4)
    with pytest.raises(SettingError, match=r"different settings or data \(data: \w+ then, \w+ now\)"):
        quick(some(13), output=output, resume=True)
    turned = some(12)
    turned = replace(turned, labels=turned.labels[::-1])
    with pytest.raises(SettingError, match=r"different settings or data \(data: \w+ then, \w+ now\)"):
        quick(turned, output=output, resume=True)


def test_an_existing_model_is_replaced_by_force_alone(quick, some, tmp_path, glyphs):
    output = tmp_path / "m.twin"
    quick(some(12), output=output)
    with pytest.raises(SettingError, match=r"exists\. Choose another name"):
        quick(some(12), output=output, steps=4)
    assert quick(some(12), output=output, steps=4, force=True).manifest.setting("length.steps") == 4
    for place in (glyphs, glyphs / "m.twin", glyphs.parent):
        with pytest.raises(SettingError, match=r"written into the data|output is also an input"):
            quick(glyphs, output=place, force=True)
    assert len(list(glyphs.rglob("*.png"))) == 96


def test_ctrl_c_says_how_to_go_on(quick, some, tmp_path):
    def interrupt(step: Step) -> None:
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="stopped; nothing was saved"):
        quick(some(12), on_step=interrupt)
    with pytest.raises(Interrupted, match="stopped; nothing was saved"):
        quick(some(12), output=tmp_path / "m.twin", on_step=interrupt)

    def later(step: Step) -> None:
        if step.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(
        Interrupted, match=r"saved in .*m.twin.partial; continue with the same command and --resume"
    ):
        quick(some(12), output=tmp_path / "m.twin", on_step=later, settings={"checkpoint_seconds": 0})


@pytest.mark.parametrize("where", ["fit_calibration", "write_model"])
@pytest.mark.parametrize("name", ["SIGTERM", *slow("SIGHUP")])
def test_a_signal_after_the_steps_says_how_to_go_on(quick, some, tmp_path, monkeypatch, name, where):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"there is no {name} here")
    output, before = tmp_path / "m.twin", signal.getsignal(number)

    def kill(*args: Any, **given: Any) -> None:
        signal.raise_signal(number)

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, where, kill)
        with pytest.raises(Interrupted, match=r"^stopped; saved in .*m.twin.partial; continue with the same"):
            quick(some(12), output=output)
    assert signal.getsignal(number) == before
    assert not output.exists()
    steps: list[Step] = []
    assert quick(some(12), output=output, resume=True, on_step=steps.append).folder == output
    assert not steps


def test_a_signal_before_anything_is_saved_leaves_nothing_in_the_way(quick, some, tmp_path, monkeypatch):
    output = tmp_path / "m.twin"

    def kill(path: Path, **given: Any) -> None:
        path.parent.mkdir()
        path.with_suffix(".new").touch()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # the second one does not wait

    with monkeypatch.context() as patched:
        patched.setattr("twinned.training.checkpoint.save", kill)
        with pytest.raises(Interrupted, match="stopped; nothing was saved"):
            quick(some(12), output=output)
    assert list(tmp_path.iterdir()) == []
    assert quick(some(12), output=output).folder == output


def test_a_signal_once_the_model_is_written_says_so(quick, some, tmp_path, monkeypatch):
    output, remove = tmp_path / "m.twin", shutil.rmtree

    def kill(path: Path, **given: Any) -> None:
        remove(path, **given)
        if path == pipeline.partial(output):
            raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.shutil, "rmtree", kill)
    with pytest.raises(Interrupted, match="stopped; the model is saved in "):
        quick(some(12), output=output)
    assert twinned.load(output).manifest.embedding_size > 0


# ---- in time


@pytest.mark.parametrize("classes", [14, *slow(6)])
def test_minutes_bound_the_whole_command(quick, some, tmp_path, monkeypatch, clock, classes):
    monkeypatch.setattr(pipeline, "FINISH_SECONDS", 2.0)
    model = quick(
        some(classes),
        minutes=0.1,
        output=tmp_path / "m.twin",
        on_step=lambda step: clock.advance(0.1 if classes == 14 else 0.02),
    )
    assert 3 < clock() <= 6 - 2
    training = json.loads((model.folder / "training.json").read_text())
    assert training["steps"] > 10
    assert training["settings"]["length"]["minutes"] == 0.1


@pytest.mark.parametrize("wrong", [{"loss": "nosuch"}, {"validation": "nowhere"}])
def test_what_is_wrong_is_said_before_any_note(
    quick: Callable[..., twinned.Model], glyphs: Path, wrong: dict[str, str]
) -> None:
    told: list[str] = []
    with pytest.raises((DataError, SettingError), match=r"nosuch|nowhere"):
        quick(glyphs, recipe="auto", say=told.append, **wrong)
    assert told == []
