"""`train`: held-out classes, notes, errors, and resuming."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
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
from twinned.training.loop import EmaModel
from twinned.training.state import Interrupted, Step

from ..conftest import EMBEDDING, slow

QUICK = {"precision": "float32", "warmup": 2, "quarter_turns": False, "mirrors": False, "augment.elastic": 0}


@pytest.fixture
def quick(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, with_observers: Callable[..., Any]
) -> Callable[..., twinned.Model]:
    """Train for a few steps; copy the graph of `tiny_model`, since the export takes the most time."""

    def borrowed(network: Any, spec: Any, path: Path) -> None:
        shutil.copyfile(tiny_model / "encoder.onnx", path)

    monkeypatch.setattr(onnx_export, "export_encoder", borrowed)

    def train(data: Any, **given: Any) -> twinned.Model:
        settings = QUICK | given.pop("settings", {})
        length = {"steps": 3} if not {"minutes", "epochs"} & set(given) else {}
        defaults = {"recipe": "glyph", "image_size": 20, "progress": False} | length
        model: twinned.Model = with_observers(twinned.train)(data, settings=settings, **defaults | given)
        return model

    return train


@pytest.fixture
def some(glyphs: Path) -> Callable[[int], ImageSet]:
    """Function that returns the first `count` classes."""
    images = load_images(glyphs)
    return lambda count: images.with_classes(images.classes[:count])


def weights(model: twinned.Model) -> dict[str, torch.Tensor]:
    return load_file(model.folder / "weights.safetensors")


def equal(a: twinned.Model, b: twinned.Model) -> bool:
    ours, theirs = weights(a), weights(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


# ---- end to end


def test_train_writes_complete_model_with_head(glyphs, strangers, tmp_path, on_step):
    """Train with a learned head and the real export; the files record the run."""
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
    manifest = json.loads((tmp_path / "m.twin" / "model.json").read_text())
    assert manifest["head"] is True
    assert manifest["calibration"]["far"] == 0.1
    assert manifest["recipe"]["loss"]["name"] == "cross-entropy"
    assert manifest["data"]["images"] == 72
    training = json.loads((tmp_path / "m.twin" / "training.json").read_text())
    assert training["seed"] == training["settings"]["seed"] == 3
    assert training["steps"] == 6
    rows = list(csv.DictReader((tmp_path / "m.twin" / "history.csv").open()))
    assert [row["step"] for row in rows] == ["6"]
    assert 0 <= float(rows[0]["held_out_eer"]) <= 1

    # With a learned head the distance is 1 - score in every method, and reorders gallery candidates.
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


# ---- held-out classes


def test_twelve_classes_hold_out_four_for_the_threshold(quick, some):
    model = quick(some(12))
    fit_ = model.manifest.calibration
    assert fit_.unseen_classes
    assert fit_.n_classes == 4
    assert len(model.manifest.classes) == 8
    assert len(model.manifest.held_out["classes"]) == 4
    assert (fit_.n_genuine, fit_.n_impostor) == (4 * 15, 6 * 36)


@pytest.mark.parametrize(("classes", "folds"), [(6, 3), *slow((11, 3), (4, 2))])
def test_few_classes_fit_the_threshold_on_folds(quick, some, classes, folds):
    notes: list[str] = []
    model = quick(some(classes), on_note=notes.append)
    text = f"{classes} classes are too few to hold some out, so the threshold is fitted on {folds} folds"
    assert any(note.startswith(text) for note in model.manifest.notes)
    assert len(model.manifest.classes) == classes
    assert model.manifest.calibration.unseen_classes
    assert model.manifest.calibration.n_classes == classes
    assert model.manifest.calibration.n_genuine == classes * 15


@pytest.mark.parametrize("classes", [*slow(2), 3])
def test_fewer_than_four_classes_warn_of_biased_threshold(quick, some, classes):
    model = quick(some(classes))
    assert not model.manifest.calibration.unseen_classes
    assert any("the threshold is from classes that training saw" in note for note in model.manifest.notes)
    assert "CLASSES SEEN IN TRAINING" in (model.folder / "README.md").read_text()


def test_validation_images_keep_all_classes_for_training(quick, some, strangers):
    model = quick(some(14), validation=strangers)
    fit_ = model.manifest.calibration
    assert len(model.manifest.classes) == 14
    assert fit_.n_classes == 8
    assert fit_.n_genuine == 8 * 15
    # Both datasets have classes glyph00 to glyph07.
    assert not fit_.unseen_classes
    renamed = load_images(strangers)
    renamed.labels[:] = [label.replace("glyph", "other") for label in renamed.labels]
    assert quick(some(14), validation=renamed).manifest.calibration.unseen_classes


def test_single_image_classes_serve_as_impostors(quick, some, strangers):
    known, single = some(12), load_images(strangers).subset(np.arange(0, 48, 6))
    names = [*known.labels, *(f"single {n}" for n in range(8))]
    drawn: set[int] = set()
    notes: list[str] = []
    model = quick(
        load_images([*known.images, *single.images], names),
        on_step=lambda step: drawn.update(step.batch.index.tolist()),
        on_note=notes.append,
    )
    assert "8 of 20 classes have one image: they serve as impostors only" in notes
    assert len(model.manifest.classes) + len(model.manifest.held_out["classes"]) == 20
    assert drawn & set(range(48, 54)), "single images that are not held out are in the batches"
    n = 4 * 6 + 2  # held out: four classes of six images, and two single ones
    assert model.manifest.calibration.n_impostor == n * (n - 1) // 2 - 4 * 15


@pytest.mark.parametrize("loss", ["arcface", *slow("proxy-anchor")])
def test_proxy_loss_skips_single_image_classes(quick, some, strangers, loss):
    known, single = some(12), load_images(strangers).subset(np.arange(0, 48, 6))
    names = [*known.labels, *(f"single {n}" for n in range(8))]
    assert quick(load_images([*known.images, *single.images], names), loss=loss)


def test_unreadable_images_are_skipped_and_reported_once(quick, glyphs, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(glyphs, data)
    for name in ("glyph03/1.png", "glyph05/2.png"):
        (data / name).write_bytes(b"broken")
    notes: list[str] = []
    model = quick(data, on_note=notes.append)
    for name in ("glyph03/1.png", "glyph05/2.png"):
        assert sum(name in sentence for sentence in notes) == 1
    training = json.loads((model.folder / "training.json").read_text())
    assert len(training["images"]) + len(training["held_out_images"]) == 94
    assert model.manifest.notes == notes
    assert sorted(p.name for p in data.iterdir()) == sorted(p.name for p in glyphs.iterdir()), (
        "nothing written"
    )


def csv_with_split(file: Path, glyphs: Path, split: Callable[[Path], str]) -> Path:
    """Write a CSV of the glyphs with a column split."""
    lines = [f"{image},{image.parent.name},{split(image)}" for image in sorted(glyphs.rglob("*.png"))]
    file.write_text("\n".join(["path,label,split", *lines]))
    return file


def test_csv_split_column_selects_train_validation_and_test(quick, glyphs, tmp_path):
    def split(image: Path) -> str:
        name = image.parent.name
        return "val" if name > "glyph11" else "Test" if image.stem in "45" else "train"

    data, notes = csv_with_split(tmp_path / "split.csv", glyphs, split), []
    model = quick(data, output=tmp_path / "m.twin", on_note=notes.append)
    assert (
        notes[0] == "the column split leaves 48 of 96 images for training, and 24 for choosing the threshold"
    )
    assert model.manifest.data["images"] == 48
    assert sum("several splits" in sentence for sentence in notes) == 1
    assert model.manifest.held_out["classes"] == [f"glyph{n}" for n in (12, 13, 14, 15)]
    found = model.evaluate(data, progress=False)
    assert found.notes[0] == "measured on the 24 of 96 images that the column split marks as test"
    assert "seen_in_training" not in found.to_json()
    recalibrate(model.folder, data, in_place=True, progress=False)
    assert twinned.load(model.folder).manifest.held_out["images"] == 24


def test_unusable_split_column_is_ignored_or_refused(quick, glyphs, tmp_path):
    notes: list[str] = []
    within = csv_with_split(
        tmp_path / "within.csv", glyphs, lambda image: "val" if image.stem == "5" else "train"
    )
    model = quick(within, on_note=notes.append)
    assert notes[0].endswith("show the same classes, so they choose no threshold")
    assert model.manifest.calibration.unseen_classes
    few = csv_with_split(
        tmp_path / "few.csv", glyphs, lambda i: "val" if i.parent.name == "glyph15" else "train"
    )
    assert quick(few, on_note=notes.append).manifest.calibration.unseen_classes
    assert any(s.endswith("those marked val are too few to choose the threshold on") for s in notes)
    other = csv_with_split(tmp_path / "other.csv", glyphs, lambda image: f"fold{image.stem}")
    assert quick(other, on_note=notes.append).manifest.data["images"] == 72
    assert any(s.endswith("fold5, never train") for s in notes)
    for word in ("dev", "trainig"):
        typo = csv_with_split(
            tmp_path / "t.csv", glyphs, lambda i, word=word: "test" if i.stem == "5" else word
        )
        with pytest.raises(DataError, match=rf"split has .*{word}.*, but not train. Mark the training"):
            quick(typo)
    blank = csv_with_split(tmp_path / "blank.csv", glyphs, lambda image: "test" if image.stem == "5" else "")
    assert quick(blank, on_note=notes.append).manifest.data["images"] == 60


def test_duplicates_across_splits_are_reported(quick, glyphs, tmp_path):
    shutil.copytree(glyphs, tmp_path / "glyphs")
    for folder in (tmp_path / "glyphs").iterdir():
        shutil.copy(folder / "0.png", folder / "5.png")
    data = csv_with_split(
        tmp_path / "c.csv", tmp_path / "glyphs", lambda i: "test" if i.stem == "5" else "train"
    )
    notes: list[str] = []
    quick(data, on_note=notes.append)
    assert any("16 pictures in several splits" in sentence for sentence in notes)


def test_unrelated_partial_folder_is_not_overwritten(quick, glyphs, tmp_path):
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
    """Write a pair list with same and different pairs of each class."""
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
def test_train_on_a_pair_list(quick, glyphs, tmp_path, loss, head, distance):
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
    """Write a CSV with four genuine images and two forgeries per class."""
    lines = ["path,label,role"]
    for number in range(16):
        for i in range(6):
            role = "forgery" if i >= 4 and number < forged else "genuine"
            lines.append(f"{glyphs}/glyph{number:02d}/{i}.png,glyph{number:02d},{role}")
    file = folder / "signatures.csv"
    file.write_text("\n".join(lines))
    return file


def test_threshold_is_fitted_on_forgeries_of_their_class(quick, glyphs, tmp_path):
    seen: list[Step] = []
    model = quick(signatures(tmp_path, glyphs), on_step=seen.append)
    fit_ = model.manifest.calibration
    assert fit_.n_genuine == 4 * 6
    assert fit_.n_impostor == 4 * 2 * 4, "each forgery is compared with the genuine images of its class only"
    for step in seen:
        _, counts = np.unique(step.batch.labels, return_counts=True)
        assert 1 in counts, "a forgery has no positive pair"


@pytest.mark.parametrize(
    ("recipe", "forged", "expected"),
    [
        ("signature", 0, ["skilled forgeries"]),
        ("glyph", 16, []),
        *slow(("signature", 16, []), ("glyph", 0, None)),
    ],
)
def test_manifest_records_whether_forgeries_were_measured(quick, glyphs, tmp_path, recipe, forged, expected):
    model = quick(signatures(tmp_path, glyphs, forged=forged), recipe=recipe)
    found = model.manifest
    assert found.not_measured == (expected or [])
    assert ("impostors" in found.held_out) == (expected is not None)
    assert ("**Skilled forgeries: not measured**" in card(found)) == bool(expected)


def test_forgeries_are_unmeasured_without_held_out_ones(quick, glyphs, tmp_path):
    images = load_images(signatures(tmp_path, glyphs))
    learn, other = images.with_classes(images.classes[:8]), images.with_classes(images.classes[8:])
    assert quick(learn, validation=other).manifest.not_measured == []
    assert quick(learn, validation=other.genuine()).manifest.unmeasured == "skilled forgeries: not measured"


def test_pair_list_records_forgeries_as_not_marked(quick, glyphs, tmp_path):
    model = quick(pair_list(tmp_path, glyphs), recipe="signature")
    assert model.manifest.unmeasured == "skilled forgeries: not marked in the pair list"


@pytest.mark.slow
def test_partly_forged_classes_are_calibrated_in_folds(quick, glyphs, tmp_path):
    images = load_images(signatures(tmp_path, glyphs, forged=1))
    model = quick(images.with_classes(images.classes[:6]))
    assert model.manifest.calibration.n_impostor == 2 * 4


# ---- reproducibility, weights and settings


def test_seed_determines_the_model(quick, some):
    first, again, other = (quick(some(12), seed=seed) for seed in (0, 0, 1))
    assert equal(first, again)
    assert first.threshold == again.threshold
    assert not equal(first, other)


@pytest.mark.parametrize("classes", [12, *slow(6), 2])
def test_zero_steps_only_fit_the_threshold(quick, some, classes):
    model = quick(some(classes), steps=0)
    assert json.loads((model.folder / "training.json").read_text())["steps"] == 0
    assert model.threshold > 0
    assert model.manifest.calibration.n_classes == classes
    assert "Trained on" not in (model.folder / "README.md").read_text()


def test_lda_projection_is_fitted_without_steps(quick, some):
    with pytest.raises(SettingError, match="projection=lda needs an encoder that ends in a linear layer"):
        quick(some(12), steps=0, settings={"layer": "solved"})
    model = quick(some(12), steps=0, embedding_size=256, settings={"layer": "solved"})
    assert len(model.manifest.classes) == 8
    assert "**Trained on** 48 images of 8 classes" in (model.folder / "README.md").read_text()


def test_epochs_set_the_number_of_images_shown(quick, some):
    steps: list[Step] = []
    quick(some(12), epochs=3, batch_size=12, on_step=steps.append)
    assert sum(step.images for step in steps) == pytest.approx(3 * 48, abs=12)


def test_weights_file_keeps_its_normalization(quick, tiny_model, strangers):
    """With steps=0 the model equals the source of the weights and records no training data."""
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
def test_weights_without_mean_use_model_json_of_the_folder(quick, some, tiny_model, tmp_path, steps):
    shutil.copytree(tiny_model, tmp_path / "old.twin")
    file = tmp_path / "old.twin" / "weights.safetensors"
    save_file({k: v for k, v in load_file(file).items() if k not in ("mean", "std")}, file)
    spec = twinned.load(tiny_model).spec
    model = quick(some(12), steps=steps, settings={"weights": str(file)})
    assert (model.spec.mean, model.spec.std) == (spec.mean, spec.std)
    assert model.manifest.data["images"] == (48 if steps else 0)

    alone = shutil.copy(file, tmp_path / "alone.safetensors")
    notes: list[str] = []
    model = quick(some(12), steps=steps, settings={"weights": str(alone)}, on_note=notes.append)
    assert sum(s.startswith("alone.safetensors does not contain the mean and std") for s in notes) == 1
    assert model.spec.mean == quick(some(12), steps=0).spec.mean


def test_mean_in_weights_file_must_match_channels(quick, some, tiny_model, tmp_path):
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
def test_history_ends_at_requested_epochs(quick, some, given):
    """For any number of images per class, with and without rotated classes."""
    model = quick(some(12), epochs=3, **given)
    history = model.record.history()
    assert history["epoch"][-1] == 3
    assert history["step"][-1] == json.loads((model.folder / "training.json").read_text())["steps"]


def test_one_step_run_records_the_epochs_shown(quick, some):
    history = quick(some(12), epochs=0.25, settings={"mirrors": False}).record.history()  # 32 of 48 images
    assert (history["step"][-1], history["epoch"][-1]) == (1, 0.67)


def test_temporary_model_is_deleted_with_its_object(quick, some, tmp_path):
    model = quick(some(12))
    folder = model.folder
    model.save(tmp_path / "kept.twin")
    del model
    assert not folder.exists()
    assert twinned.load(tmp_path / "kept.twin").manifest.setting("length.steps") == 3


def test_train_in_a_thread(quick, some):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(quick, some(12)).result().manifest.calibration.n_classes == 4


def test_settings_are_applied(quick, some):
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


# ---- errors


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
def test_invalid_settings_are_refused_and_write_nothing(quick, some, tmp_path, given, message):
    with pytest.raises((SettingError, DataError), match=message):
        quick(some(12), output=tmp_path / "m.twin", **given)
    assert list(tmp_path.iterdir()) == []


def test_validation_images_must_not_be_training_images(quick, some, glyphs):
    with pytest.raises(DataError, match="72 of 96 validation images are training images too"):
        quick(some(12), validation=glyphs)


def test_too_few_classes_or_readable_images_are_refused(quick, some, tmp_path):
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


def test_diverged_weights_are_not_saved(quick, some, tmp_path):
    with pytest.raises(
        TrainingError, match=r"before any evaluation with finite embeddings. Use a smaller learning rate"
    ):
        quick(some(12), learning_rate=1e30, output=tmp_path / "m.twin", settings={"warmup": 0})
    assert not (tmp_path / "m.twin").exists()


# ---- resuming


class CrashError(BaseException):
    """Simulated kill between two steps; test_launch.py kills real processes."""


def crash_at(number: int) -> Callable[[Step], None]:
    def crash(step: Step) -> None:
        if step.step == number:
            raise CrashError

    return crash


@pytest.mark.parametrize("classes", [12, *slow(6)])
def test_resumed_run_equals_uninterrupted_run(quick, some, tmp_path, monkeypatch, classes):
    """Also after a crash in the second fold of the calibration."""
    output = tmp_path / "m.twin"
    given = {"steps": 8, "settings": {"checkpoint_seconds": 0, "dropout": 0.2, "memory": 24}}
    whole = quick(some(classes), **given)
    count, update = 0, EmaModel.update

    def crash(*args: Any) -> None:
        nonlocal count
        count += 1
        if count in ({5} if classes == 12 else {5, 16}):
            raise CrashError
        update(*args)

    monkeypatch.setattr(EmaModel, "update", crash)  # callbacks are not called in folds
    for resume in (False, True) if classes == 6 else (False,):
        with pytest.raises(CrashError):
            quick(some(classes), output=output, resume=resume, **given)
    assert not output.exists()
    resumed = quick(some(classes), output=output, resume=True, **given)
    assert count == (8 + 1 if classes == 12 else 8 + 3 * 4 + 2), "only the lost steps are repeated"
    assert equal(resumed, whole)
    assert resumed.threshold == whole.threshold
    assert resumed.manifest.calibration == whole.manifest.calibration
    assert not pipeline.partial_folder(output).exists()


def test_resume_refuses_other_settings_or_data(quick, some, strangers, tmp_path):
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
    before = pipeline.partial_folder(output) / "main.safetensors"
    assert before.exists(), "the checkpoint is kept"
    with pytest.raises(SettingError, match="holds an interrupted run"):
        quick(some(14), **given)
    assert before.exists()
    assert quick(some(14), force=True, **given).manifest.setting("length.steps") == 8
    assert not pipeline.partial_folder(output).exists()


def test_resume_refuses_and_keeps_incompatible_checkpoint(quick, some, tmp_path):
    output = tmp_path / "m.twin"
    given = {"steps": 8, "output": output, "settings": {"checkpoint_seconds": 0}}
    with pytest.raises(CrashError):
        quick(some(12), on_step=crash_at(4), **given)
    file = pipeline.partial_folder(output) / "main.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    save_file({k: v for k, v in load_file(file).items() if k != "network/mean"}, file, metadata)
    with pytest.raises(
        TrainingError,
        match=r"written by another version of Twinned \(network/mean is missing.*`overwrite=True`",
    ):
        quick(some(12), resume=True, **given)
    assert file.exists()


def test_resume_of_finished_run_returns_the_model(quick, some, tmp_path):
    output = tmp_path / "m.twin"
    notes: list[str] = []
    model = quick(some(12), output=output, resume=True, on_note=notes.append)
    assert any("does not exist, so the run starts from the beginning" in s for s in notes)
    steps: list[Step] = []
    again = quick(some(12), output=output, resume=True, on_step=steps.append, on_note=notes.append)
    assert steps == []
    assert again.encoder_sha256 == model.encoder_sha256
    assert notes[-1] == f"{output}: this run is finished; there is nothing to resume"
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


def test_existing_model_is_replaced_only_with_force(quick, some, tmp_path, glyphs):
    output = tmp_path / "m.twin"
    quick(some(12), output=output)
    with pytest.raises(SettingError, match=r"exists\. Choose another name"):
        quick(some(12), output=output, steps=4)
    assert quick(some(12), output=output, steps=4, force=True).manifest.setting("length.steps") == 4
    for place in (glyphs, glyphs / "m.twin", glyphs.parent):
        with pytest.raises(SettingError, match=r"written into the data|output is also an input"):
            quick(glyphs, output=place, force=True)
    assert len(list(glyphs.rglob("*.png"))) == 96


def test_ctrl_c_reports_the_resume_command(quick, some, tmp_path):
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
        Interrupted, match=r"saved in .*m.twin.partial; continue with the same arguments and `resume=True`"
    ):
        quick(some(12), output=tmp_path / "m.twin", on_step=later, settings={"checkpoint_seconds": 0})


@pytest.mark.parametrize("where", ["save.calibrate_on", "pipeline.write_model"])
@pytest.mark.parametrize("name", ["SIGTERM", *slow("SIGHUP")])
def test_signal_after_training_reports_the_resume_command(quick, some, tmp_path, monkeypatch, name, where):
    number = getattr(signal, name, None)
    if number is None:
        pytest.skip(f"there is no {name} on this platform")
    output, before = tmp_path / "m.twin", signal.getsignal(number)

    def kill(*args: Any, **given: Any) -> None:
        signal.raise_signal(number)

    with monkeypatch.context() as patched:
        patched.setattr(f"twinned.training.{where}", kill)
        with pytest.raises(Interrupted, match=r"^stopped; saved in .*m.twin.partial; continue with the same"):
            quick(some(12), output=output)
    assert signal.getsignal(number) == before
    assert not output.exists()
    steps: list[Step] = []
    assert quick(some(12), output=output, resume=True, on_step=steps.append).folder == output
    assert not steps


def test_signal_before_first_checkpoint_leaves_no_files(quick, some, tmp_path, monkeypatch):
    output = tmp_path / "m.twin"

    def kill(path: Path, **given: Any) -> None:
        path.parent.mkdir()
        path.with_suffix(".new").touch()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # the second signal interrupts at once

    with monkeypatch.context() as patched:
        patched.setattr("twinned.training.checkpoint.save", kill)
        with pytest.raises(Interrupted, match="stopped; nothing was saved"):
            quick(some(12), output=output)
    assert list(tmp_path.iterdir()) == []
    assert quick(some(12), output=output).folder == output


def test_signal_after_saving_reports_the_saved_model(quick, some, tmp_path, monkeypatch):
    output, remove = tmp_path / "m.twin", shutil.rmtree

    def kill(path: Path, **given: Any) -> None:
        remove(path, **given)
        if path == pipeline.partial_folder(output):
            raise KeyboardInterrupt

    monkeypatch.setattr(pipeline.shutil, "rmtree", kill)
    with pytest.raises(Interrupted, match="stopped; the model is saved in "):
        quick(some(12), output=output)
    assert twinned.load(output).manifest.embedding_size > 0


# ---- time limit


@pytest.mark.parametrize("classes", [14, *slow(6)])
def test_minutes_limit_the_total_time(quick, some, tmp_path, monkeypatch, clock, classes):
    update = EmaModel.update

    def slow_step(*args: Any) -> None:
        clock.advance(0.1 if classes == 14 else 0.02)
        update(*args)

    monkeypatch.setattr(pipeline, "FINISH_SECONDS", 2.0)
    monkeypatch.setattr(EmaModel, "update", slow_step)  # callbacks are not called in folds
    model = quick(some(classes), minutes=0.1, output=tmp_path / "m.twin")
    assert 3 < clock() <= 6 - 2
    training = json.loads((model.folder / "training.json").read_text())
    assert training["steps"] > 10
    assert training["settings"]["length"]["minutes"] == 0.1


@pytest.mark.parametrize("wrong", [{"loss": "nosuch"}, {"validation": "nowhere"}])
def test_invalid_options_are_refused_before_any_note(
    quick: Callable[..., twinned.Model], glyphs: Path, wrong: dict[str, str]
) -> None:
    notes: list[str] = []
    with pytest.raises((DataError, SettingError), match=r"nosuch|nowhere"):
        quick(glyphs, recipe="auto", on_note=notes.append, **wrong)
    assert notes == []


def test_deprecated_arguments_warn_the_caller(tiny_model, tmp_path):
    for call in (partial(twinned.train), partial(twinned.finetune, tiny_model)):
        with (
            pytest.warns(DeprecationWarning, match="force= is deprecated; use overwrite=") as found,
            pytest.raises(DataError, match="missing"),
        ):
            call(tmp_path / "missing", force=True)
        assert [warning.filename for warning in found] == [__file__]
