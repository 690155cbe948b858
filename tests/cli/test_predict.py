"""verify, classify, embed, evaluate, gallery and compare: output, exit codes, errors."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import twinned as tw
from twinned.inference import model_folder

from ..conftest import EMBEDDING, slow

pytestmark = pytest.mark.usefixtures("place")


@pytest.fixture(scope="module")
def pair(glyphs: Path) -> tuple[str, str]:
    return str(glyphs / "glyph00" / "0.png"), str(glyphs / "glyph00" / "1.png")


@pytest.fixture(scope="module")
def other(glyphs: Path) -> str:
    return str(glyphs / "glyph05" / "0.png")


# ---- verify


def test_verify_exit_code_and_json(twinned, tiny_model, pair, other):
    model = tw.load(tiny_model)
    for right in (pair[1], other):
        verdict = model.verify(pair[0], right)
        shown = twinned("verify", tiny_model, pair[0], right, "--json")
        assert shown.json == pytest.approx(verdict.to_json())
        assert set(shown.json) == {"same", "probability", "distance", "threshold", "verdict"}
        assert type(shown.json["same"]) is bool
        assert shown.code == (0 if verdict.same else 1)
        assert shown.err == ""
        assert len(shown.out.splitlines()) == 1
        plain = twinned("verify", tiny_model, pair[0], right)
        assert plain.out.startswith(f"{verdict.verdict}: probability ")
        assert ("is within" if verdict.same else "is beyond") in plain.out
        assert len(plain.out) <= 81
        assert plain.code == shown.code
    assert twinned("verify", tiny_model, *pair, "--threshold", "-0.1").code == 1
    assert twinned("verify", tiny_model, pair[0], other, "--threshold", "2").code == 0


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (1.0, "Same"),
        (0.95, "Same"),
        (0.9, "Probably the same"),
        (0.5, "Cannot tell"),
        (0.1, "Probably different"),
        (0.0, "Different"),
    ],
)
def test_verdict_words_follow_the_probability(probability, words):
    verdict = tw.Verdict(same=True, probability=probability, distance=0.1, threshold=0.2)
    assert verdict.verdict == words
    assert verdict.to_json()["verdict"] == words


def test_verify_prints_the_decision_with_custom_threshold(twinned, tiny_model, pair):
    shown = twinned("verify", tiny_model, pair[0], pair[0], "--threshold", "-0.1")
    assert shown.code == 1
    assert "is beyond the threshold -0.1: counts as different" in shown.out


@pytest.fixture
def forgeries_missing(tiny_model: Path, tmp_path: Path) -> Path:
    """Model of signatures whose threshold was fitted without forgeries."""
    folder = tmp_path / "signatures.twin"
    model_folder.copy(tiny_model, folder)
    found = model_folder.read(folder)
    held_out = found.held_out | {"impostors": {"skilled forgeries": "not measured"}}
    model_folder.write(folder, found.model_copy(update={"held_out": held_out}))
    return folder


def test_verify_notes_unmeasured_forgeries_once(twinned, forgeries_missing, pair):
    expected = "twinned: skilled forgeries: not measured, so expect more false accepts"
    for more in ([], ["--json"]):
        shown = twinned("verify", forgeries_missing, *pair, *more)
        assert shown.code == 0
        assert shown.err.startswith(expected)
        assert len(shown.err.splitlines()) == len(shown.out.splitlines()) == 1
        assert "forgeries" not in shown.out
    assert set(shown.json) == {"same", "probability", "distance", "threshold", "verdict"}
    assert twinned("verify", forgeries_missing, *pair, "--quiet").err == ""


def test_train_calibrate_and_evaluate_report_unmeasured_forgeries(
    twinned, forgeries_missing, strangers, tmp_path
):
    from twinned.cli.options import Run
    from twinned.cli.train import emit_model

    model = tw.load(forgeries_missing)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        emit_model(Run(), model, forgeries_missing)
        emit_model(Run(json=True), model, forgeries_missing)
    line, _, *following, value = out.getvalue().splitlines()
    assert line.endswith("; skilled forgeries: not measured")
    assert f"      twinned evaluate {forgeries_missing} OTHER_IMAGES" in following
    assert json.loads(value)["not_measured"] == ["skilled forgeries"]
    found = twinned(
        "evaluate", model.folder, strangers, "--episodes", "10", "--json", "--report", tmp_path / "r.html"
    )
    note = f"skilled forgeries: not measured, because {strangers} marks none"
    assert note in found.json["notes"]
    report = (tmp_path / "r.html").read_text()
    assert note in report
    assert "When the threshold was chosen, skilled forgeries: not measured." in report
    shown = twinned("calibrate", model.folder, strangers, "--in-place")
    line, judged, *following = shown.out.splitlines()
    assert line.endswith("; skilled forgeries: not measured")
    assert judged.startswith(("Good: ", "Usable: ", "Weak: ", "Very good: "))
    assert following[1] == f"      twinned evaluate {model.folder} OTHER_IMAGES"
    rows = [
        f"{f},{f.parent.name},{'forgery' if f.stem > '3' else 'genuine'}" for f in strangers.rglob("*.png")
    ]
    (tmp_path / "roles.csv").write_text("\n".join(["path,label,role", *rows]))
    marked = twinned("calibrate", model.folder, tmp_path / "roles.csv", "--in-place", "--json")
    assert marked.json["not_measured"] == []
    assert twinned("verify", model.folder, *[next(strangers.rglob("*.png"))] * 2).err == ""
    # Data without forgeries reset the measurement.
    unmarked = twinned("calibrate", model.folder, strangers, "--in-place", "--json")
    assert unmarked.json["not_measured"] != []


def test_verify_with_folder_of_references(twinned, tiny_model, pair, glyphs, other):
    found = twinned("verify", tiny_model, glyphs / "glyph00", pair[0], "--json")
    assert found.code == 0
    fitted = tw.load(tiny_model).manifest.calibration.references
    count = len(list((glyphs / "glyph00").iterdir()))
    assert found.json["threshold"] == fitted.row(count).threshold
    assert twinned("verify", tiny_model, glyphs / "glyph00", other).code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["nowhere", "image.png", "image.png"],
            "nowhere: No such model folder",
        ),
        (["empty", "image.png", "image.png"], "empty: Not a model folder"),
        (["image.png", "image.png", "image.png"], "image.png: Not a model folder"),
        (["MODEL", "nowhere.png", "image.png"], "nowhere.png: no such file"),
        (["MODEL", "image.png", "nowhere.png"], "nowhere.png: no such file"),
        (["MODEL", "text.png", "image.png"], "text.png: is not a supported image"),
        (["MODEL", "image.png", "cut.png"], "cut.png: is damaged or truncated"),
        (["MODEL", "zero.png", "image.png"], "zero.png: is empty (0 bytes)"),
        (["MODEL", "empty", "image.png"], "empty: no images in this folder of references"),
        (["MODEL", "broken/a", "image.png"], "broken/a/0.png: is not a supported image"),
        (["MODEL", "image.png", "flat"], "flat: is a folder; an image is expected"),
        (["MODEL", "/dev/zero", "image.png"], "/dev/zero: is not a file"),
        (
            ["MODEL", "image.png", "image.png", "--threshold", "nan"],
            "A threshold must be a finite number; got nan",
        ),
        (
            ["MODEL", "image.png", "image.png", "--threshold", "inf"],
            "A threshold must be a finite number; got inf",
        ),
    ],
)
@pytest.mark.parametrize("form", [[], *slow(["--json"])])
def test_verify_refuses_invalid_input(twinned, tiny_model, arguments, message, form):
    arguments = [tiny_model if a == "MODEL" else a for a in arguments]
    assert twinned("verify", *arguments, *form).error.startswith(message)


# ---- classify


def test_classify_returns_label_or_unknown(twinned, tiny_model, glyphs, strangers, pair):
    images = [pair[0], str(strangers / "glyph03" / "0.png")]
    shown = twinned("classify", tiny_model, glyphs, *images, "--json")
    assert shown.code == 0
    assert shown.err == ""
    keys = {"image", "label", "probability", "distance", "nearest", "threshold"}
    assert [set(row) for row in shown.json] == [keys] * 2
    assert [row["image"] for row in shown.json] == images
    assert shown.json[0]["label"] == shown.json[0]["nearest"]["label"] == "glyph00"
    nobody = twinned("classify", tiny_model, glyphs, *images, "--json", "--threshold", "-1").json
    assert [row["label"] for row in nobody] == [None, None]
    plain = twinned("classify", tiny_model, glyphs, *images, "--threshold", "-1").out.splitlines()
    assert len(plain) == 2
    assert all("unknown" in line for line in plain)


def test_forgeries_are_neither_examples_nor_enrolled(twinned, tiny_model, glyphs, strangers, tmp_path):
    forged = strangers / "glyph03" / "0.png"
    rows = [f"{file},{file.parent.name},genuine" for file in sorted(glyphs.rglob("*.png"))]
    (tmp_path / "roles.csv").write_text("\n".join(["path,label,role", *rows, f"{forged},glyph00,forgery"]))
    (found,) = twinned("classify", tiny_model, tmp_path / "roles.csv", forged, "--json").json
    assert found["distance"] > 1e-3
    added = twinned("gallery", "add", tiny_model, tmp_path / "g", tmp_path / "roles.csv", "--json")
    assert added.json["stored"] == 96
    assert "1 forged image left out" in added.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty", "image.png"], "empty: No images"),
        (["flat", "image.png"], "flat: Found 2 images, but no class folders"),
        (["nowhere", "image.png"], "nowhere: no such file or folder"),
        (["broken", "image.png"], "broken/a/0.png: is not a supported image"),
        (["list.csv", "image.png"], "list.csv: The first line must be the column names path,label"),
        (["one_class", "text.png"], "text.png: is not a supported image"),
        (["one_class", "image.png", "nowhere.png"], "nowhere.png: no such file"),
        (["one_class", "empty"], "no images in empty"),
        (["one_class", "image.png", "--threshold", "nan"], "A threshold must be a number; got nan"),
    ],
)
def test_classify_refuses_invalid_input(twinned, tiny_model, arguments, message):
    assert twinned("classify", tiny_model, *arguments).error.startswith(message)


# ---- embed


def test_embed_writes_paths_vectors_and_errors(twinned, tiny_model, pair, glyphs):
    shown = twinned("embed", tiny_model, glyphs / "glyph02", "text.png", pair[0], "-o", "v.npz", "--json")
    assert shown.code == 0
    assert shown.json == {"images": 8, "errors": 1, "output": "v.npz"}
    assert shown.err.splitlines() == ["twinned: left out: text.png: is not a supported image, or is damaged"]
    with np.load("v.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"path", "vector", "error"}
        path, vector, error = arrays["path"], arrays["vector"], arrays["error"]
    assert path.tolist() == [*(str(glyphs / "glyph02" / f"{n}.png") for n in range(6)), "text.png", pair[0]]
    assert vector.dtype == np.float32
    good = error == ""
    assert good.tolist() == [True] * 6 + [False, True]
    np.testing.assert_allclose(vector[good], tw.load(tiny_model).embed(path[good].tolist()), atol=EMBEDDING)
    assert np.isnan(vector[6]).all()
    assert "text.png" in error[6]


def test_parquet_has_the_same_columns(twinned, tiny_model, pair):
    pq = pytest.importorskip("pyarrow.parquet")
    assert twinned("embed", tiny_model, *pair, "text.png", "-o", "v.parquet").code == 0
    table = pq.read_table("v.parquet").to_pydict()
    assert set(table) == {"path", "vector", "error"}
    assert table["path"] == [*pair, "text.png"]
    expected = tw.load(tiny_model).embed(list(pair))
    np.testing.assert_allclose(table["vector"][:2], expected, atol=EMBEDDING)
    assert table["error"][:2] == ["", ""]
    assert math.isnan(table["vector"][2][0])


def test_embed_replaces_a_file_only_with_force(twinned, tiny_model, pair):
    assert twinned("embed", tiny_model, *pair, "-o", "v.npz").code == 0
    assert "exists. Choose another name" in twinned("embed", tiny_model, pair[0], "-o", "v.npz").error
    assert twinned("embed", tiny_model, pair[0], "-o", "v.npz", "--force").code == 0
    assert len(np.load("v.npz", allow_pickle=False)["path"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image.png", "-o", "v.txt"], "v.txt: The name must end in .npz or .parquet"),
        (["image.png", "-o", "list.csv/v.npz"], "list.csv/v.npz: Cannot be written, because"),
        (["empty", "-o", "v.npz"], "no images in empty"),
        (["nowhere", "-o", "v.npz"], "nowhere: no such file or folder"),
        (["image.png", "nowhere.png", "-o", "v.npz"], "nowhere.png: no such file or folder"),
        (["text.png", "image.png", "-o", "v.npz", "--strict"], "text.png: is not a supported image"),
        (["flat", "-o", "flat/v.npz"], "flat/v.npz: The output would be written into the data (flat)"),
        (["image.png", "-o", "image.png", "--force"], "image.png: The output is also an input"),
        (["image.png", "-o", "v.npz", "--device", "tpu"], "Unknown device 'tpu'. Choose auto, cpu"),
    ],
)
def test_embed_refuses_invalid_input(twinned, tiny_model, arguments, message):
    assert twinned("embed", tiny_model, *arguments).error.startswith(message)
    assert not Path("v.npz").exists()


def test_embed_without_readable_images_fails(twinned, tiny_model):
    shown = twinned("embed", tiny_model, "broken", "-o", "v.npz")
    assert shown.code == 2
    assert shown.out == ""
    assert shown.err.splitlines()[-1] == "twinned: none of 4 images could be read; v.npz lists the errors"


def test_unavailable_device_is_noted_in_one_line(twinned, tiny_model, pair):
    shown = twinned("embed", tiny_model, *pair, "-o", "v.npz", "--device", "openvino")
    assert shown.code == 0
    assert shown.err == "twinned: device openvino is not supported by this ONNX Runtime; running on the CPU\n"


def test_images_are_given_by_folders_and_patterns(twinned, tiny_model, glyphs, strangers, tmp_path):
    folder = glyphs / "glyph00"
    count = len(list(folder.iterdir()))
    for given in (folder, glyphs / "glyph0[0]" / "*.png"):
        assert len(twinned("classify", tiny_model, glyphs, given, "--json", "-q").json) == count
    gallery = tmp_path / "g"
    twinned("gallery", "add", tiny_model, gallery, glyphs, "-q")
    assert len(twinned("identify", tiny_model, gallery, folder, "--json").json) == count
    found = twinned("search", tiny_model, gallery, folder, "-k", "2", "--json").json
    assert len(found) == count
    assert all(len(hits) == 2 for hits in found.values())
    missing = twinned("classify", tiny_model, glyphs, tmp_path / "*.gif")
    assert missing.error == f"{tmp_path / '*.gif'}: no such file or folder"


# ---- evaluate


def test_evaluate_json_keys(twinned, tiny_model, strangers):
    shown = twinned(
        "evaluate", tiny_model, strangers, "--ways", "5", "--episodes", "100", "--far", "0.05", "--json", "-q"
    )
    assert shown.code == 0
    assert shown.err == ""
    found = shown.json
    verification = {"eer", "eer_ci", "auc", "threshold", "far", "frr", "n_genuine", "n_impostor"}
    verification |= {"tar_at_far", "cllr", "min_cllr"}
    assert verification <= set(found["verification"])
    assert found["verification"]["n_genuine"] == 8 * 15
    assert found["verification"]["n_impostor"] == 28 * 36
    assert found["verification"]["threshold"] == tw.load(tiny_model).threshold, (
        "evaluation does not change the threshold"
    )
    assert set(found["verification"]["tar_at_far"]) >= {"0.1", "0.05", "0.01", "0.001", "0.0001"}
    assert all(set(row) == {"tar", "ci", "supported"} for row in found["verification"]["tar_at_far"].values())
    assert set(found["one_shot"]) == {"ways", "shots", "episodes", "accuracy", "ci"}
    assert (found["one_shot"]["ways"], found["one_shot"]["shots"], found["one_shot"]["episodes"]) == (
        5,
        1,
        100,
    )
    assert {"recall_at_1", "recall_at_5", "map_at_r"} <= set(found["retrieval"])
    again = twinned(
        "evaluate", tiny_model, strangers, "--ways", "5", "--episodes", "100", "--far", "0.05", "--json"
    )
    assert again.json == found
    text = twinned("evaluate", tiny_model, strangers, "--episodes", "20").out
    assert "equal error rate" in text
    assert "8-way 1-shot" in text, "ways are limited by the classes"
    assert len(text.splitlines()) == 5
    assert max(map(len, text.splitlines())) <= 80
    assert "MAP at R" not in text
    assert "MAP at R" in twinned("evaluate", tiny_model, strangers, "--episodes", "20", "--all").out


def test_evaluate_notes_images_seen_in_training(twinned, tiny_model, glyphs):
    shown = twinned("evaluate", tiny_model, glyphs, "--episodes", "10", "--json")
    assert "72 of 96 images were seen in training" in shown.err
    assert any("72 of 96" in note for note in shown.json["notes"])


def test_evaluate_pair_list_gives_null_for_other_figures(twinned, tiny_model, strangers):
    rows = [f"{strangers}/glyph0{a}/{n}.png,{strangers}/glyph0{b}/{n + 1}.png,{int(a == b)}"
            for a in range(4) for b in range(4) for n in range(3)]  # fmt: skip
    Path("pairs.csv").write_text("\n".join(["left,right,same", *rows]))
    found = twinned("evaluate", tiny_model, "pairs.csv", "--json").json
    assert found["one_shot"] is None
    assert found["retrieval"] is None
    assert (found["verification"]["n_genuine"], found["verification"]["n_impostor"]) == (12, 36)


def test_evaluate_report_path_is_checked(twinned, tiny_model, strangers):
    shown = twinned("evaluate", tiny_model, strangers, "--episodes", "10", "--report", "out/r.html")
    assert shown.code == 0, shown.err
    assert Path("out/r.html").read_text().startswith("<!")
    refused = twinned("evaluate", tiny_model, strangers, "--report", "out/r.html")
    assert "exists. Choose another name" in refused.error
    refused = twinned("evaluate", tiny_model, strangers, "--report", strangers / "r.html")
    assert "written into the data" in refused.error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder"),
        (["empty"], "empty: No images"),
        (["flat"], "flat: Found 2 images, but no class folders"),
        (["single"], "single: Two classes are needed, and two images of one of them"),
        (["one_class"], "one_class: Two classes are needed"),
        (["broken"], "None of 4 images could be read. The first: broken/a/0.png"),
        (["list.csv"], "list.csv: The first line must be"),
        (
            ["one_class", "--protocol", "foo"],
            "Unknown protocol 'foo'. Choose one of classes, pairs, lfw",
        ),
        (
            ["one_class", "--protocol", "pairs"],
            "one_class: Protocol pairs needs a CSV with the columns left,right",
        ),
        (["one_class", "--protocol", "lfw"], "one_class: No pairs.txt found"),
        (["one_class", "--protocol", "omniglot-runs"], "one_class: No run found"),
        (["list.csv", "--protocol", "omniglot-runs"], "list.csv: No run found"),
        (["one_class", "--ways", "1"], "At least 2 ways, 1 shot and 1 episode are needed; got 1 ways"),
        (["one_class", "--shots", "0"], "At least 2 ways"),
        (["one_class", "--episodes", "-3"], "At least 2 ways"),
        (["DATA", "--far", "0"], "A false accept rate must be between 0 and 1"),
        (["DATA", "--far", "nan"], "A false accept rate must be between 0 and 1"),
        (["one_class", "--device", "tpu"], "Unknown device 'tpu'"),
        (
            ["one_class", "--report", "one_class/r.html"],
            "one_class/r.html: The output would be written",
        ),
    ],
)
def test_evaluate_refuses_invalid_input(twinned, tiny_model, strangers, arguments, message):
    arguments = [strangers if a == "DATA" else a for a in arguments]
    assert twinned("evaluate", tiny_model, *arguments).error.startswith(message)


# ---- gallery


def test_gallery_add_without_readable_images_fails(twinned, tiny_model):
    for given in (["broken"], ["text.png", "zero.png", "nowhere.png", "--label", "ann"]):
        shown = twinned("gallery", "add", tiny_model, "g", *given)
        assert (shown.code, shown.out) == (2, "")
        assert re.match(r"twinned: none of [34] images can be read: ", shown.err.splitlines()[-1])


def test_gallery_add_skips_and_lists_unreadable_images(twinned, tiny_model):
    shown = twinned("gallery", "add", tiny_model, "g", "text.png", "image.png", "--label", "ann", "--json")
    assert shown.code == 0
    assert (shown.json["stored"], len(shown.json["unreadable"])) == (1, 1)
    assert "twinned: left out: text.png: is not a supported image" in shown.err


def test_gallery_rebuild_requires_allowed_loss(twinned, tiny_model, glyphs):
    images = []
    for number in range(4):
        images.append(f"{number}.png")
        shutil.copy(glyphs / f"glyph0{number}" / "0.png", images[-1])
    assert twinned("gallery", "add", tiny_model, "g", *images, "--label", "ann").code == 0
    Path(images[0]).unlink()
    rebuild = ["gallery", "rebuild", tiny_model, "g"]
    for options in ([], ["--skip-missing"]):
        refused = twinned(*rebuild, *options).error
        assert "files of 1 of 4 images are missing" in refused
        assert "--skip-missing and --allow-loss 1" in refused
    assert twinned(*rebuild, "--allow-loss", "-1").error.startswith("allow_loss is -1")
    assert twinned("gallery", "count", tiny_model, "g", "--json").json["count"] == 4
    shown = twinned(*rebuild, "--skip-missing", "--allow-loss", "1", "--json")
    assert (shown.code, shown.json["stored"], len(shown.json["unreadable"])) == (0, 3, 1)
    assert "twinned: left out: " in shown.err
    assert twinned("gallery", "count", tiny_model, "g", "--json").json["count"] == 3


@pytest.mark.parametrize(
    "command",
    [
        ["search", "M", "g", "image.png"],
        *slow(["gallery", "count", "M", "g"], ["identify", "M", "g", "image.png"]),
    ],
)
def test_read_only_file_system_is_not_reported_as_damage(twinned, tiny_model, place, monkeypatch, command):
    from twinned.gallery import qdrant_edge

    def fail(_):
        raise Exception("Failed to open mmap payload storage: Read-only file system (os error 30)")

    assert twinned("gallery", "add", tiny_model, "g", "image.png", "--label", "ann").code == 0
    monkeypatch.setattr(qdrant_edge.EdgeStore, "_check", fail)
    error = twinned(*(tiny_model if word == "M" else word for word in command)).error
    assert "g: the file system is read-only" in error


def test_gallery_add_stores_other_csv_columns_as_metadata(twinned, tiny_model, glyphs, tmp_path):
    files = sorted(glyphs.rglob("*.png"))[:4]
    values = ["A 1,9.5,9.5", "007,12,", f"{2**64},NaN,true", "b,1,false"]
    rows = [f"{file},{file.parent.name},genuine,{more}" for file, more in zip(files, values, strict=True)]
    rows[3] = rows[3].replace("genuine", "forgery")
    Path("goods.csv").write_text("\n".join(["path,label,role,SKU,price,site", *rows]))
    shown = twinned("gallery", "add", tiny_model, "g", "goods.csv", "--meta", "site=north", "--json")
    assert shown.json["stored"] == 3
    assert "goods.csv: stored as metadata: SKU; price; site" in shown.err
    with tw.load(tiny_model).gallery("g") as people:
        kept = {record.image: dict(record.metadata) for record in people.list().items}
    assert kept == {
        str(files[0]): {"SKU": "A 1", "price": 9.5, "site": "north"},
        str(files[1]): {"SKU": "007", "price": 12, "site": "north"},
        str(files[2]): {"SKU": str(2**64), "price": "NaN", "site": "north"},
    }
    for where in ("price=12", "SKU=007", f"SKU={2**64}", "price=NaN"):
        assert twinned("gallery", "count", tiny_model, "g", "--where", where, "--json").json["count"] == 1
    assert twinned("gallery", "add", tiny_model, "h", "goods.csv", "-q").err.count("metadata") == 0


def test_unclosed_quote_in_csv_is_refused_with_its_line(twinned, tiny_model, glyphs):
    rows = [f"{file},{file.parent.name}" for file in sorted(glyphs.rglob("*.png"))]
    rows[30] = rows[30].replace(",", ',"')
    Path("q.csv").write_text("\n".join(["path,label", *rows, ""]))
    for command in (
        ["check", "q.csv"],
        ["check", "q.csv", "--strict"],
        ["train", "q.csv", "-o", "new.twin"],
        ["evaluate", tiny_model, "q.csv"],
        ["calibrate", tiny_model, "q.csv", "--in-place"],
        ["gallery", "add", tiny_model, "g", "q.csv"],
    ):
        assert twinned(*command).error.startswith(
            'q.csv, line 32: Close or remove the quote (") that opens here'
        )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("data.zip", "data.zip: This is an archive. Extract it"),
        ("image.png", "image.png: expected a folder of class folders"),
        (
            "https://example.com/a.zip",
            "https:/example.com/a.zip: no such file or folder; web addresses are not supported: download https://",
        ),
        ("C:\\data", "C:\\data: no such file or folder; this is a Windows path"),
    ],
)
def test_unsupported_data_is_refused(twinned, tiny_model, given, message):
    shutil.make_archive("data", "zip", "single")
    for command in (["check"], ["train", "-o", "new.twin"], ["evaluate", tiny_model]):
        assert twinned(*command, given).error.startswith(message)
    if given != "image.png":
        assert twinned("gallery", "add", tiny_model, "g", given).error.startswith(message)


def test_windows_paths_in_csv_are_reported(twinned):
    Path("w.csv").write_text("path,label\n" + "".join(f"C:\\data\\c{k}\\0.png,c{k}\n" for k in range(3)))
    shown = twinned("check", "w.csv")
    assert "this is a Windows path" in shown.out


# ---- damaged models


@pytest.mark.parametrize(
    "command", ["verify", "evaluate", "search", *slow("classify", "embed", "calibrate", "list")]
)
def test_damaged_model_is_refused(twinned, tiny_model, glyphs, command):
    shutil.copytree(tiny_model, "m.twin")
    manifest = json.loads(Path("m.twin/model.json").read_text())
    rest = {
        "verify": ["verify", "m.twin", "image.png", "image.png"],
        "classify": ["classify", "m.twin", glyphs, "image.png"],
        "embed": ["embed", "m.twin", "image.png", "-o", "v.npz"],
        "evaluate": ["evaluate", "m.twin", glyphs],
        "calibrate": ["calibrate", "m.twin", glyphs, "--in-place"],
        "search": ["search", "m.twin", "g", "image.png"],
        "list": ["gallery", "list", "m.twin", "g"],
    }[command]
    for name in ("encoder.onnx", "training.json", "weights.safetensors"):
        content = Path("m.twin", name).read_bytes()
        Path("m.twin", name).write_bytes(content[:-1])
        assert f"m.twin/{name}: The file differs" in twinned(*rest).error
        Path("m.twin", name).write_bytes(content)
    for text in (
        "",
        "{",
        "[]",
        json.dumps(manifest | {"calibration": {}}),
        json.dumps(manifest | {"spec": 3}),
    ):
        Path("m.twin/model.json").write_text(text)
        assert "m.twin/model.json: " in twinned(*rest).error


@pytest.mark.parametrize("command", ["calibrate", "export"])
def test_unreadable_images_are_reported(twinned, tiny_model, tmp_path, command):
    for name in ("a/1.png", "a/2.png", "b/1.png", "b/2.png"):
        (tmp_path / "bad" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bad" / name).write_text("no image")
    bad = tmp_path / "bad"
    more = [bad, "--in-place"] if command == "calibrate" else ["-o", tmp_path / "out", "--int8", bad]
    shown = twinned(command, tiny_model, *more)
    assert shown.code == 2
    assert "one of 4 images can be read" in shown.err
    assert "1.png" in shown.err


def test_damaged_images_of_a_folder_are_left_out(twinned, tiny_model, glyphs, other, tmp_path):
    shutil.copy(other, tmp_path / "a.png")
    (tmp_path / "bad.png").write_text("no image")
    twinned("gallery", "add", tiny_model, "g", glyphs)
    for command, source in (("classify", glyphs), ("identify", "g"), ("search", "g")):
        shown = twinned(command, tiny_model, source, tmp_path)
        assert shown.code == 0
        assert "a.png" in shown.out or command == "search"
        assert f"left out: {tmp_path / 'bad.png'}: is not a supported image" in shown.err
        assert twinned(command, tiny_model, source, tmp_path / "bad.png").code == 2


def test_folder_without_class_folders_is_enrolled_without_labels(twinned, tiny_model, glyphs):
    shown = twinned("gallery", "add", tiny_model, "flat.gallery", glyphs / "glyph00", "--json")
    assert shown.json["stored"] == shown.json["count"] > 0
    assert "no class folders, so its images have no label" in shown.err
    assert twinned("search", tiny_model, "flat.gallery", glyphs / "glyph00/0.png").out.startswith("0  -  ")
    (found,) = twinned("identify", tiny_model, "flat.gallery", glyphs / "glyph00/0.png", "--json").json
    assert (found["label"], found["nearest"]) == (None, None)
    shown = twinned("identify", tiny_model, "flat.gallery", glyphs / "glyph00/0.png")
    assert shown.out.endswith("unknown  no image with a label is enrolled\n")


def test_gallery_and_demo_refuse_invalid_paths(twinned, tiny_model, tmp_path):
    refused = twinned("gallery", "add", tiny_model, "people.gallery", "nowhere")
    assert refused.error.startswith("nowhere: no such file or folder")
    (tmp_path / "plain.txt").write_text("hello")
    assert "is a file; choose a folder" in twinned("demo", "-o", str(tmp_path / "plain.txt")).error


# ---- compare


def test_compare_prints_differences_of_two_models(twinned, tiny_model, color_model, strangers):
    found = twinned("compare", tiny_model, color_model, strangers, "--json", "-q").json
    assert set(found) == {"eer", "recall_at_1", "n_genuine", "n_impostor", "n_classes", "seed", "notes"}
    assert found["eer"]["difference"] == pytest.approx(found["eer"]["b"] - found["eer"]["a"])
    assert found["n_classes"] == 8
    text = twinned("compare", tiny_model, color_model, strangers, "-q").out
    assert f"B - A {found['eer']['difference']:+.4f}" in text
