"""Evaluation by protocol, compared with explicit computations; recalibration."""

from __future__ import annotations

import json
import shutil
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import twinned as tw
from twinned.data.datasets import PairSet
from twinned.data.images import pixels_sha256
from twinned.data.preprocessing import read_image
from twinned.data.readers import load_images
from twinned.errors import DataError, SettingError
from twinned.evaluation.calibration import Identification
from twinned.evaluation.results import Evaluation
from twinned.inference import model_folder
from twinned.inference.recalibrate import recalibrate
from twinned.metrics.comparisons import compare
from twinned.visualization.report import figures, provenance
from twinned.visualization.report.html import join

pytestmark = pytest.mark.usefixtures("few_replicates")


def report(model, found):
    """Sections of the report without figures."""
    return join([*figures.glance(model, found), *provenance.provenance(model, found, "x")])


@pytest.fixture(scope="module")
def folder(glyphs, tmp_path_factory):
    """Model of gray values of 5x5 regions; 12 classes of `glyphs` are recorded as training classes.

    The threshold is fitted on the other 4.
    """
    onnx = pytest.importorskip("onnx")
    make, value = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("AveragePool", ["image"], ["regions"], kernel_shape=[4, 4], strides=[4, 4]),
        make("Flatten", ["regions"], ["gray"]),
        make("Sub", ["gray", "white"], ["vector"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "regions",
        [value("image", onnx.TensorProto.FLOAT, ["n", 1, 20, 20])],
        [value("vector", onnx.TensorProto.FLOAT, ["n", 25])],
        [onnx.numpy_helper.from_array(np.float32(1), "white")],
    )
    place = tmp_path_factory.mktemp("regions")
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), place / "regions.onnx")
    images = tw.load_images(glyphs)
    known, held_out = images.classes[:12], images.classes[12:]
    wrapped = tw.wrap(
        place / "regions.onnx",
        images.with_classes(held_out),
        scale=1 / 255,
        distance="cosine",
        progress=False,
    )
    wrapped.save(place / "m.twin")
    pixels = [read_image(image, wrapped.spec) for image in images.with_classes(known).images]
    path = place / "m.twin" / "training.json"
    training = json.loads(path.read_text()) | {"images": [pixels_sha256(one) for one in pixels]}
    manifest = wrapped.manifest.model_copy(update={"origin": "trained", "classes": list(known)})
    model_folder.write(place / "m.twin", manifest, training)
    return place / "m.twin"


@pytest.fixture(scope="module")
def model(folder):
    return tw.load(folder)


def flat(figures, path=""):
    """Flatten nested dictionaries to dotted keys."""
    if not isinstance(figures, dict):
        return {path[1:]: figures}
    return {
        key: value for name, part in figures.items() for key, value in flat(part, f"{path}.{name}").items()
    }


def test_frame_has_a_row_per_metric(model, strangers):
    pytest.importorskip("pandas")
    found = model.evaluate(strangers, episodes=20, progress=False)
    frame = found.to_frame()
    rows = found.metrics()
    assert frame.index.tolist() == [row.key for row in rows]
    assert frame["name"].tolist() == [row.name for row in rows]
    assert frame.loc["verification.eer", "value"] == found.verification.eer
    assert (frame.loc["retrieval.recall_at_1", "low"], frame.loc["retrieval.recall_at_1", "high"]) == (
        found.retrieval.recall_at_ci[1]
    )
    assert frame.loc["verification.far", "better"] == "lower"


def test_frame_requires_pandas(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(SettingError, match="pip install pandas"):
        Evaluation(None, None, None, "classes").to_frame()


def test_metrics_rows_equal_the_json(model, strangers):
    found = model.evaluate(strangers, episodes=10, progress=False)
    figures, rows = flat(found.to_dict()), found.metrics()
    assert {row.key.split(".")[0] for row in rows} == {
        *("verification", "one_shot", "retrieval", "open_set", "references")
    }
    for row in rows:
        assert row.value == figures[row.key]
        assert list(row.ci or ()) == list(figures.get(f"{row.key}_ci", row.ci) or ())
    better = {row.key: row.better for row in rows}
    assert better["verification.eer"] == better["open_set.fnir"] == better["references.2.far"] == "lower"
    assert better["verification.auc"] == better["verification.tar_at_far.0.01.tar"] == "higher"
    assert [row.supported for row in rows if "tar_at_far" in row.key] == [True, False, False, False]


def by_gallery(model, strangers, seed, folder):
    """Return FNIR and FPIR of a gallery with the same enrolled half of the classes."""
    random = np.random.default_rng(seed)
    images = tw.load_images(strangers)
    order = np.lexsort((random.random(48), images.class_index))
    inside = set(random.permutation(8)[:4].tolist())
    enrolled = [n for c in sorted(inside) for n in order[6 * c : 6 * c + 3]]
    rest = [n for n in range(48) if n not in enrolled]
    with model.gallery(folder) as gallery:
        gallery.add([images.images[n] for n in enrolled], images.labels[enrolled].tolist(), progress=False)
        answers = gallery.identify([images.images[n] for n in rest])
    known = np.array([images.class_index[n] in inside for n in rest])
    right = np.array([a.label == images.labels[n] for n, a in zip(rest, answers)])
    named = np.array([a.label is not None for a in answers])
    return np.mean(~right[known]), np.mean(named[~known])


@pytest.mark.parametrize("prototype", [False, True])
def test_open_set_rates_equal_those_of_a_gallery(folder, strangers, tmp_path, prototype):
    """With half of the classes enrolled, a gallery has the evaluated rates."""
    manifest = model_folder.read(folder)
    tight = manifest.calibration.threshold * (0.1 if prototype else 0.3)  # some are identified, some not
    near = Identification(images=(1,), labels=((1,),), fpir=(0.001, 0.1), threshold=(((tight, 2 * tight),),))
    calibration = manifest.calibration.model_copy(update={"identification": near})
    shutil.copytree(folder, tmp_path / "m.twin")
    model_folder.write(
        tmp_path / "m.twin", manifest.model_copy(update={"prototype": prototype, "calibration": calibration})
    )
    model = tw.load(tmp_path / "m.twin")
    found = model.evaluate(strangers, episodes=10, seed=3, progress=False)
    assert found.seed == 3
    rates = found.to_json()["open_set"]
    assert (rates["labels"], rates["images"], rates["n_strangers"], rates["n_enrolled"]) == (4, 12, 24, 12)
    assert rates == model.evaluate(strangers, episodes=10, seed=3, progress=False).details["open_set"]
    assert rates["threshold"] == model.identification_threshold(4, 0.01, images_per_label=3)
    assert (rates["fnir"], rates["fpir"]) == pytest.approx(by_gallery(model, strangers, 3, tmp_path / "g"))
    assert 0 < rates["fnir"] < 1
    assert "enrolled not recognized" in str(found)


def test_open_set_requires_eight_classes_without_forgeries(model, strangers, tmp_path):
    few = tw.load_images(strangers).with_classes([f"glyph0{n}" for n in range(7)])
    assert "open_set" not in model.evaluate(few, episodes=10, progress=False).to_json()
    rows = [f"{strangers}/glyph0{c}/{n}.png,g{c},{'forgery' if n > 3 else 'genuine'}"
            for c in range(8) for n in range(6)]  # fmt: skip
    (tmp_path / "f.csv").write_text("\n".join(["path,label,role", *rows]))
    found = model.evaluate(tmp_path / "f.csv", episodes=10, progress=False)
    assert "open_set" not in found.to_json()
    assert found.verification.n_impostor == 8 * 4 * 2, (
        "forgeries are compared with genuine images of their class"
    )
    assert "64 skilled-forgery comparisons" in str(found)
    random = found.verification.parts["random"]
    _, section = str(found).split(f"verification against {random.n_impostor:,} random impostors")
    assert section.split("\n")[1].split()[:4] == ["equal", "error", "rate", f"{random.eer:.4f}"]


def test_images_seen_in_training_are_listed(model, glyphs, strangers):
    fresh = model.evaluate(strangers, episodes=10, progress=False)
    assert "seen_in_training" not in fresh.to_json()
    found = model.evaluate(glyphs, episodes=10, progress=False).to_json()
    named = found["seen_in_training"]
    assert len(named) == len(model.record.image_hashes)
    assert {path.split("/")[-2] for path in named} == set(model.manifest.classes)
    assert any(note.startswith("72 of 96 images were seen in training (") for note in found["notes"])
    assert any(
        note.startswith("the threshold was chosen on 24 of these 96 images") for note in found["notes"]
    )


def test_evaluation_notes_the_data_of_the_refitted_threshold(model, strangers, tmp_path):
    model.save(tmp_path / "m.twin")
    fitted = recalibrate(tmp_path / "m.twin", strangers, in_place=True, far=0.05, progress=False)
    again = tw.load(tmp_path / "m.twin")
    held_out = again.manifest.held_out
    assert (held_out["images"], held_out["classes"]) == (48, sorted(p.name for p in strangers.iterdir()))
    assert (held_out["eer"], tuple(held_out["eer_ci"])) == (fitted.eer, fitted.eer_ci)
    assert held_out["curve"] != model.manifest.held_out["curve"]
    notes = again.evaluate(strangers, episodes=10, progress=False).notes
    assert any(note.startswith("the threshold was chosen on 48 of these 48 images") for note in notes)
    ends = np.array([0, 0]), np.array([1, 7])
    pairs = PairSet(sorted(strangers.rglob("*.png"))[:8], *ends, np.array([True, False]))
    notes = again.evaluate(pairs, progress=False).notes
    assert any(note.startswith("the threshold was chosen on 8 of these 8 images") for note in notes)


def test_recalibration_notes_unreadable_images_and_known_classes(model, strangers, tmp_path, caplog):
    model.save(tmp_path / "m.twin")
    shutil.copytree(strangers, tmp_path / "data")
    for folder in sorted((tmp_path / "data").iterdir()):
        folder.rename(folder.with_name(f"new {folder.name}"))
    one, two, *_ = sorted((tmp_path / "data").iterdir())
    one.rename(one.with_name(model.manifest.classes[0]))
    (two / "0.png").write_bytes(b"")
    (two / "new.heic").write_bytes(b"")
    caplog.set_level("INFO", "twinned")
    caplog.clear()
    fitted = recalibrate(tmp_path / "m.twin", tmp_path / "data", in_place=True, progress=False)
    assert not fitted.unseen_classes
    known, hopeful = caplog.messages[-2:]
    assert any(text.startswith("1 unreadable image left out: ") for text in caplog.messages)
    assert known.startswith("training saw other images of 1 of these classes, by their names (")
    assert hopeful.startswith("the threshold is from classes that training saw")
    assert any("heic" in text for text in caplog.messages)
    card = (tmp_path / "m.twin" / "README.md").read_text()
    assert "8 CLASSES SEEN IN TRAINING" in card
    assert all(text in card for text in caplog.messages)


def test_recalibration_notes_few_classes_and_keeps_links(model, strangers, tmp_path, caplog):
    folder, link = tmp_path / "m.twin", tmp_path / "link.twin"
    model.save(folder)
    (folder / "pictures").mkdir()
    (folder / "pictures" / "a.txt").write_text("mine")
    link.symlink_to(folder)
    few = load_images(strangers).with_classes(["glyph00", "glyph01"])
    caplog.set_level("INFO", "twinned")
    caplog.clear()
    fitted = recalibrate(link, few, prior=0.1, in_place=True, progress=False)
    assert "the threshold rests on 2 classes, too few to be reliable: " in caplog.messages[-1]
    assert link.is_symlink()
    assert (folder / "pictures" / "a.txt").read_text() == "mine"
    for place in (folder, link):
        assert tw.load(place).manifest.calibration == fitted
    assert fitted.prior == 0.1
    recalibrate(folder, strangers, in_place=True, progress=False)
    assert not any("rests on 2 classes" in note for note in tw.load(folder).manifest.notes)


def test_recalibration_keeps_rate_and_prior_with_a_note(model, strangers, tmp_path, caplog):
    folder = tmp_path / "m.twin"
    model.save(folder)
    caplog.set_level("INFO", "twinned")
    caplog.clear()
    fit = partial(recalibrate, folder, strangers, in_place=True, progress=False)
    assert fit(far=0.1, prior=0.2).far == 0.1
    assert not any("keeps" in text for text in caplog.messages)
    again = fit()
    assert (again.far, again.prior) == (0.1, 0.2)
    assert any("the threshold keeps the false accept rate of 0.1 that" in text for text in caplog.messages)
    assert any("the probability keeps the prior of 0.2 that" in text for text in caplog.messages)
    assert not any("keeps" in note for note in tw.load(folder).manifest.notes), "the note is not stored"
    assert fit(equal_error=True, prior=0.5).far is None
    assert fit().far is None
    with pytest.raises(SettingError, match=r"far=0\.1 and equal error"):
        fit(far=0.1, equal_error=True)


def test_recalibration_excludes_test_images(model, strangers, tmp_path, caplog):
    model.save(tmp_path / "m.twin")
    rows = [
        f"{f},{f.parent.name},{'test' if f.parent.name > 'glyph04' else ''}" for f in strangers.rglob("*.png")
    ]
    (tmp_path / "some.csv").write_text("path,label,split\n" + "\n".join(rows))
    (tmp_path / "all.csv").write_text("path,label,split\n" + "\n".join(r for r in rows if r.endswith("test")))
    caplog.set_level("INFO", "twinned")
    caplog.clear()
    assert (
        recalibrate(tmp_path / "m.twin", tmp_path / "some.csv", in_place=True, progress=False).n_classes == 5
    )
    assert caplog.messages[0] == "the column split leaves 30 of 48 images for the threshold"
    recalibrate(tmp_path / "m.twin", tmp_path / "all.csv", in_place=True, progress=False)
    assert any("all images are marked test, but choose the threshold" in text for text in caplog.messages)
    again = tw.load(tmp_path / "m.twin")
    found = again.evaluate(tmp_path / "all.csv", episodes=10, progress=False)
    page = report(again, found)
    assert "was chosen on 18 of these 18 images: its error rates are too optimistic here." in page
    assert "was fixed before" not in page
    assert any(note.startswith("3 classes are too few to be representative") for note in found.notes)


def test_sampled_comparisons_are_noted(model, strangers, monkeypatch):
    monkeypatch.setattr("twinned.evaluation.protocols.compare", partial(compare, limit=500))
    notes = model.evaluate(strangers, episodes=10, progress=False).notes
    assert any(" of 1,128 comparisons were made: those within a class" in note for note in notes)


@pytest.fixture
def lfw(tmp_path: Path, strangers: Path) -> Path:
    """Folder of LFW with two folds of six pairs."""
    lines = ["2\t3"]
    for person in range(4):
        folder = tmp_path / "lfw" / "images" / f"Person_{person}"
        folder.mkdir(parents=True)
        for n in range(6):
            target = folder / f"Person_{person}_{n + 1:04d}.png"
            shutil.copy(strangers / f"glyph0{person}" / f"{n}.png", target)
    for fold in (0, 2):
        lines += [f"Person_{fold}\t{n}\t{n + 1}" for n in (1, 2, 3)]
        lines += [f"Person_{fold}\t{n}\tPerson_{fold + 1}\t{n}" for n in (1, 2, 3)]
    (tmp_path / "lfw" / "pairs.txt").write_text("\n".join(lines))
    (tmp_path / "lfw" / "pairsDevTest.txt").write_text("\n".join(["3", *lines[1:7]]))
    return tmp_path / "lfw"


def test_lfw_accuracy_by_folds(model, lfw):
    for protocol in ("lfw", "auto"):
        found = model.evaluate(lfw, protocol=protocol, progress=False)
        assert found.protocol == "lfw"
        assert (found.one_shot, found.retrieval) == (None, None)
        assert (found.verification.n_genuine, found.verification.n_impostor) == (6, 6)
        figures = found.to_json()["lfw"]
        assert len(figures["folds"]) == 2
        assert figures["accuracy"] == pytest.approx(np.mean(figures["folds"]))
        assert figures["people_seen_in_training"] == []
    json.dumps(found.to_json(), allow_nan=False)
    assert "(2 folds from " in str(found)


def test_lfw_view_1_and_people_seen_in_training(folder, lfw, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "m.twin")
    model_folder.write(
        folder, model_folder.read(folder).model_copy(update={"classes": ["Person_1", "Nobody"]})
    )
    model = tw.load(folder)
    found = model.evaluate(lfw / "pairsDevTest.txt", protocol="lfw", progress=False)
    figures = found.details["lfw"]
    c = found.comparisons
    assert figures["accuracy"] == np.mean((c.distance <= model.threshold) == c.same)
    assert "folds" not in figures
    assert figures["people_seen_in_training"] == ["Person_1"]
    assert any("1 people of the folds were in training" in note for note in found.notes)
    assert str(found).endswith("  (at the stored threshold)")
    assert "LFW accuracy, at the stored threshold" in report(model, found)


def test_official_protocol_requires_readable_images(model, lfw):
    (lfw / "images" / "Person_0" / "Person_0_0001.png").write_bytes(b"broken")
    with pytest.raises(
        DataError, match=r"All images of an official protocol must be readable: .*Person_0_0001"
    ):
        model.evaluate(lfw, progress=False)


def test_omniglot_runs(model, strangers, tmp_path):
    """Two runs of four classes; the queries of the second are its support images."""
    for run, query in (("run01", 1), ("run02", 0)):
        lines = []
        for side, n in (("test", query), ("training", 0)):
            (tmp_path / run / side).mkdir(parents=True)
            for c in range(4):
                shutil.copy(strangers / f"glyph0{c}" / f"{n}.png", tmp_path / run / side / f"{c}.png")
        lines = [f"{run}/test/{c}.png {run}/training/{c}.png" for c in range(4)]
        (tmp_path / run / "class_labels.txt").write_text("\n".join(lines))
    found = model.evaluate(tmp_path, progress=False)
    assert found.protocol == "omniglot-runs"
    queries, support = (
        model.embed([strangers / f"glyph0{c}" / f"{n}.png" for c in range(4)]) for n in (1, 0)
    )
    first = np.mean(model.distances(queries, support).argmin(axis=1) == np.arange(4))
    assert found.details["runs"] == [first, 1.0]
    assert found.one_shot.accuracy == (first + 1) / 2
    assert (found.one_shot.ways, found.one_shot.episodes) == (4, 8)
    assert (found.verification, found.retrieval) == (None, None)
    assert "seen_in_training" not in found.to_json()
    assert "None of the 16 images was in training" in report(model, found)


def test_recalibration_requires_output_or_in_place(model, strangers, tmp_path):
    for wrong in ({}, {"output": tmp_path / "new.twin", "in_place": True}):
        with pytest.raises(SettingError, match="in place"):
            recalibrate(model.folder, strangers, progress=False, **wrong)
    before = model.manifest.calibration
    fitted = recalibrate(model.folder, strangers, tmp_path / "new.twin", progress=False)
    assert tw.load(tmp_path / "new.twin").manifest.calibration == fitted
    assert tw.load(model.folder).manifest.calibration == before
