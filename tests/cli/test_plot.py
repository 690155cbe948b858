"""The commands plot and explain."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from twinned import plots
from twinned.inference import model_folder
from twinned.utils import files


@pytest.fixture(scope="module")
def data(tmp_path_factory, squares):
    """Three classes by color, five images each."""
    root = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    for color in ("red", "green", "blue"):
        (root / color).mkdir()
        for n in range(5):
            image = squares(*[(color, *random.integers(0, 8, 2)) for _ in range(6)])
            image = (image + random.normal(30, 20, image.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(root / color / f"{n}.png")
    return root


@pytest.fixture
def run(twinned):
    """Function that runs the program and returns exit code, standard output and standard error."""
    return twinned


COMMANDS = {
    "architecture": "architecture MODEL",
    "history": "history MODEL",
    "time": "history MODEL MODEL --over seconds",
    "verification": "verification MODEL DATA",
    "roc": "verification MODEL DATA --view roc",
    "det": "verification MODEL DATA --view det",
    "distances": "verification MODEL DATA --view distances",
    "reliability": "verification MODEL DATA --view reliability",
    "confusion": "verification MODEL DATA --view confusion",
    "embeddings": "embeddings MODEL DATA --most 12",
    "neighbours": "neighbours MODEL DATA DATA/red/0.png DATA/blue/1.png -k 4",
    "one-shot": "one-shot MODEL DATA DATA/red/0.png --truth red",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_plots_are_written(name, run, color_model, data, tmp_path):
    command = COMMANDS[name].replace("MODEL", str(color_model)).replace("DATA", str(data)).split()
    output = tmp_path / "made/here" / (f"{name}.svg" if name == "roc" else f"{name}.png")
    code, out, err = run("plot", *command, "-o", output, "--json")
    assert (code, json.loads(out)) == (0, {"output": str(output)}), err
    if name == "roc":
        assert output.read_text().startswith("<?xml")
    else:
        with Image.open(output) as image:
            assert min(image.size) > 300
    assert [p.name for p in output.parent.iterdir()] == [output.name]


@pytest.mark.parametrize(
    ("recipe", "steps", "reason"),
    [
        ({"recipe": "photo", "layer": "solved", "embedding_size": 256}, 0, "the embedding layer was solved"),
        (
            {"recipe": "photo", "layer": "solved", "embedding_size": None},
            0,
            "the encoder was kept as it came",
        ),
        ({"recipe": "wrap"}, 0, "the encoder was trained elsewhere and wrapped"),
        ({"recipe": "glyph"}, 3, "training ended before its first evaluation"),
    ],
)
def test_model_without_history_is_refused_with_the_reason(run, color_model, tmp_path, recipe, steps, reason):
    folder = tmp_path / "no.twin"
    model_folder.copy(color_model, folder)
    files.write_text(folder / "history.csv", "step\n")
    training = json.loads((folder / "training.json").read_text()) | {"steps": steps}
    files.write_text(folder / "training.json", json.dumps(training))
    changed = {"recipe": recipe, "origin": "wrapped" if recipe["recipe"] == "wrap" else "trained"}
    model_folder.write(folder, model_folder.read(folder).model_copy(update=changed))
    for models in ([folder], [color_model, folder]):
        code, out, err = run("plot", "history", *models, "-o", tmp_path / "a.png")
        assert (code, out) == (2, "")
        assert err.startswith(f"twinned: {folder}: has no training history to draw: {reason}")
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "a.png").exists()


def test_confusion_requires_classes_and_skips_forgeries(run, color_model, data, tmp_path, monkeypatch):
    drawn: list[list[str]] = []
    real = plots.confusion
    monkeypatch.setattr(plots, "confusion", lambda truth, answer: drawn.append(truth) or real(truth, answer))
    files = sorted(data.rglob("*.png"))
    rows = [f"{f},{f.parent.name},{'forgery' if f.stem == '1' else 'genuine'}" for f in files]
    (tmp_path / "roles.csv").write_text("\n".join(["path,label,role", *rows]))
    view = ["--view", "confusion", "-o", tmp_path / "a.png", "--force"]
    assert run("plot", "verification", color_model, tmp_path / "roles.csv", *view)[0] == 0
    assert len(drawn[0]) == sum(f.stem != "1" for f in files)
    pairs = [f"{files[0]},{files[1]},1", f"{files[0]},{files[-1]},0"]
    (tmp_path / "pairs.csv").write_text("\n".join(["left,right,same", *pairs]))
    code, _, err = run("plot", "verification", color_model, tmp_path / "pairs.csv", *view)
    assert code == 2
    assert "a confusion matrix requires classes; protocol pairs has none" in err


def test_explain_writes_figure_and_matches(run, color_model, squares, tmp_path):
    for name, image in {
        "a": squares(("red", 1, 1), ("green", 5, 6)),
        "b": squares(("red", 6, 2), ("blue", 1, 5)),
    }.items():
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    pair = [tmp_path / "a.png", tmp_path / "b.png"]
    code, out, _ = run("explain", color_model, *pair, "-o", tmp_path / "why.png", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["method"] == "exact"
    assert result["matches"] == [{"a": [1, 1], "b": [6, 2], "weight": pytest.approx(0.5)}]
    assert result["distance"] == pytest.approx(0.5)
    assert np.sum(result["a"]) == pytest.approx(0.5)
    assert result["same"] == (result["distance"] <= result["threshold"])
    code, out, _ = run(
        "explain", color_model, *pair, "-o", tmp_path / "o.svg", "--method", "occlusion", "--json"
    )
    assert json.loads(out)["method"] == "occlusion"
    assert (tmp_path / "o.svg").exists()


def test_invalid_arguments_are_refused_in_one_line(run, color_model, data, tmp_path):
    there = tmp_path / "there.png"
    there.write_text("mine")
    new = ["-o", tmp_path / "a.png"]
    images = [data / "red/0.png", data / "red/1.png"]
    for arguments, words in (
        (["plot", "architecture", color_model, "-o", there], "exists"),
        (["plot", "architecture", color_model, "-o", tmp_path / "a.pdf"], ".png or .svg"),
        (["plot", "architecture", tmp_path / "no.twin", *new], "No such model folder"),
        (["plot", "embeddings", color_model, data, "-o", data / "a.png"], "into the data"),
        (["plot", "embeddings", color_model, data, *new, "--method", "pca"], "pca"),
        (["plot", "neighbours", color_model, data, tmp_path / "no.png", *new], "no such file"),
        (["explain", color_model, there, there, *new], "not a supported image"),
        (
            ["explain", color_model, *images, *new, "--method", "occlusion", "--cells", "1"],
            "between 2 and 16",
        ),
    ):
        code, out, err = run(*arguments)
        assert code == 2, arguments
        assert out == ""
        assert words in err
        assert len(err.strip().splitlines()) == 1
        assert "Traceback" not in err
    assert there.read_text() == "mine"
    assert not (tmp_path / "a.png").exists()
    code, _, _ = run("plot", "architecture", color_model, "-o", there, "--force")
    assert code == 0
    assert there.read_bytes().startswith(b"\x89PNG")


def test_evaluate_writes_a_report(run, color_model, data, tmp_path):
    code, _, err = run("evaluate", color_model, data, "--ways", 2, "--report", tmp_path / "r.html", "--quiet")
    assert code == 0, err
    assert "<!doctype html>" in (tmp_path / "r.html").read_text()


def test_plot_architecture_does_not_import_torch(color_model, tmp_path):
    code = (
        "import sys; from twinned.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules\n"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "plot",
        "architecture",
        str(color_model),
        "-o",
        str(tmp_path / "a.png"),
    ]
    subprocess.run(command, check=True, capture_output=True, env=os.environ)
