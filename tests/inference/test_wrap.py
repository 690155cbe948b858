"""Wrapped encoders of other frameworks: equal outputs; unsupported graphs are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import twinned
from twinned.data.decoded import decode
from twinned.data.readers import load_images
from twinned.errors import DataError, ModelError, SettingError
from twinned.inference.export import export_model

from ..conftest import slow

Write = Callable[..., Path]
_RANDOM = np.random.default_rng(0)
_WEIGHT = _RANDOM.normal(size=(20 * 20, 6)).astype(np.float32)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Function that writes a graph of ``x @ W`` on flattened images, of any shape, type and batch."""

    def make(
        shape: tuple[Any, ...] = ("n", 1, 20, 20),
        kind: int = TensorProto.FLOAT,
        *,
        flatten: tuple[int, ...] = (0, -1),
        inputs: tuple[str, ...] = ("image",),
        relu: bool = False,
        outputs: tuple[Any, ...] | None = None,
        opset: int = 13,
        weight: np.ndarray[Any, Any] = _WEIGHT,
    ) -> Path:
        nodes = [
            helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["floats", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["product"]),
            helper.make_node("Relu" if relu else "Identity", ["product"], ["vector"]),
        ]
        graph = helper.make_graph(
            nodes,
            "theirs",
            [helper.make_tensor_value_info(name, kind, list(shape)) for name in inputs],
            [
                helper.make_tensor_value_info(
                    "vector", TensorProto.FLOAT, list(outputs or (shape[0], weight.shape[1]))
                )
            ],
            [numpy_helper.from_array(np.array(flatten), "shape"), numpy_helper.from_array(weight, "weight")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.save(model, tmp_path / "theirs.onnx")
        return tmp_path / "theirs.onnx"

    return make


@pytest.fixture(scope="module")
def pixels(strangers: Path) -> np.ndarray[Any, Any]:
    images = load_images(strangers).images[:7]
    spec = twinned.data.preprocessing.ImageSpec(height=20, width=20, channels=1)
    return decode(images, spec, progress=False).pixels


def wrap(path: Path, data: Any, **given: Any) -> twinned.Model:
    return twinned.wrap(path, data, progress=False, **given)


@pytest.mark.parametrize(
    ("shape", "flatten"),
    [
        (("n", 1, 20, 20), (0, -1)),
        ((None, 1, 20, 20), (0, -1)),
        ((1, 1, 20, 20), (0, -1)),
        ((1, 1, 20, 20), (1, -1)),  # batch size fixed to one image
        ((4, 1, 20, 20), (4, -1)),
        (("n", 1, "h", "w"), (0, -1)),
        (("n", 20, 20, 1), (0, -1)),
        ((1, 20, 20, 1), (1, 400)),
    ],
)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT, *slow(TensorProto.FLOAT16, TensorProto.UINT8)])
def test_embeddings_equal_the_graph_for_any_layout_batch_and_type(
    write, strangers, pixels, shape, flatten, kind
):
    size = {"image_size": 20} if "h" in shape else {}
    fed = {} if kind == TensorProto.UINT8 else {"scale": 1 / 255, "mean": 0.5, "std": 0.25}
    model = wrap(write(shape, kind, flatten=flatten), strangers, distance="euclidean", **size, **fed)
    assert model.spec.shape == (20, 20, 1)
    x = pixels.reshape(len(pixels), -1).astype(np.float32)
    if fed:
        x = ((x / 255 - 0.5) / 0.25).astype(np.float16 if kind == TensorProto.FLOAT16 else np.float32)
    expected = x.astype(np.float32) @ _WEIGHT
    np.testing.assert_allclose(model.embed_pixels(pixels), expected, rtol=1e-3, atol=2e-2)
    np.testing.assert_allclose(model.embed_pixels(pixels[:1]), expected[:1], rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_embeddings_equal_the_graph_for_other_types(write, strangers, pixels, kind):
    test_embeddings_equal_the_graph_for_any_layout_batch_and_type(
        write, strangers, pixels, ("n", 20, 20, 1), (0, -1), kind
    )


def test_channels_last_color_input(write, strangers):
    weight = _RANDOM.normal(size=(20 * 20 * 3, 4)).astype(np.float32)
    model = wrap(write(("n", 20, 20, 3), weight=weight), strangers, mean=[0.1, 0.2, 0.3], std=[1, 2, 3])
    x = _RANDOM.integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    fed = (x / 255 - [0.1, 0.2, 0.3]) / [1, 2, 3]
    np.testing.assert_allclose(model.embed_pixels(x), fed.reshape(3, -1) @ weight, rtol=1e-3, atol=1e-3)


def test_vector_output_is_used_beside_a_feature_map(tiny_model, strangers, tmp_path):
    theirs = twinned.load(tiny_model)
    graph = onnx.load(tiny_model / "encoder.onnx").graph
    assert [len(value.type.tensor_type.shape.dim) for value in graph.output] == [2, 4]
    model = wrap(tiny_model / "encoder.onnx", strangers, distance="cosine")
    images = load_images(strangers).images[:5]
    np.testing.assert_allclose(model.embed(images), theirs.embed(images), atol=1e-5)


def test_graph_of_another_exporter(strangers, tmp_path, caplog):
    """Principal components by scikit-learn, exported by skl2onnx, on flattened images."""
    to_onnx = pytest.importorskip("skl2onnx").to_onnx
    from sklearn.decomposition import PCA

    images = load_images(strangers)
    spec = twinned.data.preprocessing.ImageSpec(height=20, width=20, channels=1)
    rows = decode(images.images, spec, progress=False).pixels.reshape(-1, 400).astype(np.float32) / 255
    pca = PCA(5, random_state=0).fit(rows)
    theirs = to_onnx(pca, rows[:1], target_opset=15)
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 20, 20, 1])
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", 400])
    front = helper.make_model(
        helper.make_graph([helper.make_node("Flatten", ["image"], ["flat"])], "front", [image], [flat]),
        opset_imports=[helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)],
        ir_version=theirs.ir_version,
    )
    whole = onnx.compose.merge_models(
        front,
        onnx.compose.add_prefix(theirs, "pca/"),
        io_map=[("flat", f"pca/{theirs.graph.input[0].name}")],
    )
    onnx.save(whole, tmp_path / "pca.onnx")
    caplog.set_level("INFO", "twinned")
    caplog.clear()
    model = wrap(tmp_path / "pca.onnx", strangers, scale=1 / 255)
    np.testing.assert_allclose(model.embed(images.images), pca.transform(rows), atol=1e-3)
    assert model.manifest.encoder == "wrapped:pca.onnx"
    assert any("distance" in text for text in caplog.messages)


def test_guessed_input_range_has_the_lowest_eer(write, strangers, caplog):
    """Negated pixels pass a ReLU only if the input range includes negative values."""
    caplog.set_level("INFO", "twinned")
    caplog.clear()
    model = wrap(write(relu=True, weight=-np.eye(400, dtype=np.float32)), strangers)
    guessed = next(text for text in caplog.messages if text.startswith("guessed by the equal error rate"))
    assert "nchw, pixels from -1 to 1" in guessed
    assert (model.spec.mean, model.spec.std) == ((0.5,), (0.5,))
    assert guessed in model.manifest.notes
    assert not any("close call" in text for text in caplog.messages)


def test_uncertain_guess_is_noted(write, strangers, caplog):
    caplog.set_level("INFO", "twinned")
    caplog.clear()
    model = wrap(write(relu=True), strangers)
    (close,) = (
        text for text in caplog.messages if text.startswith("the guess is not certain: nchw, pixels ")
    )
    assert "mean and std" in close
    assert close in model.manifest.notes


@pytest.mark.parametrize("given", [{"mean": "much"}, {"mean": []}, {"std": [[1], [2, 3]]}, {"scale": "x"}])
def test_non_numeric_scaling_is_refused(write, strangers, given):
    with pytest.raises(SettingError, match="scale must be a number, mean and std one or more"):
        wrap(write(), strangers, **given)


def test_unknown_option_is_refused(write, strangers):
    with pytest.raises(TypeError, match="unexpected keyword argument 'means'"):
        wrap(write(), strangers, means=0.5)


def test_wrapped_model_supports_all_methods(write, strangers, glyphs, tmp_path):
    file = write()
    output = tmp_path / "m.twin"
    model = wrap(file, glyphs, output=output, far=0.1, licence="MIT: theirs", scale=1 / 255)
    assert {p.name for p in output.iterdir()} == {"encoder.onnx", "model.json", "training.json", "README.md"}
    card = (output / "README.md").read_text()
    assert "MIT: theirs" in card
    assert "wrapped:theirs.onnx" in card
    assert model.manifest.calibration.far == 0.1
    assert model.manifest.calibration.n_classes == 16
    images = sorted(map(str, strangers.rglob("*.png")))
    assert model.verify(images[0], images[0]).same
    assert model.classify(images[0], {"x": [images[0]]}).label == "x"
    found = model.evaluate(strangers, ways=4, episodes=20, progress=False)
    assert found.verification is not None
    assert found.verification.threshold == model.threshold
    with model.gallery(tmp_path / "g.gallery") as gallery:
        gallery.add(images[:6], ["a"] * 6)
        assert gallery.identify([images[0]])[0].label == "a"
    assert model.record.layers() == []
    assert model.record.history() == {}
    assert "wrapped" in str(model.record.without_history())
    result = export_model(model, tmp_path / "out", progress=False)
    assert result["float_difference"] < 1e-4
    with pytest.raises(SettingError, match="wrapped, and an ONNX graph cannot be trained"):
        twinned.finetune(model, strangers)
    with pytest.raises(SettingError, match="exists"):
        wrap(file, glyphs, output=output)
    assert wrap(file, strangers, output=output, force=True).manifest.calibration.n_classes == 8


def test_pair_list_fits_a_threshold(write, strangers, tmp_path):
    images = load_images(strangers)
    rows = [
        f"{images.images[i]},{images.images[i + 1]},{int(images.labels[i] == images.labels[i + 1])}"
        for i in range(40)
    ]
    (tmp_path / "pairs.csv").write_text("left,right,same\n" + "\n".join(rows) + "\n")
    model = wrap(write(), tmp_path / "pairs.csv", scale=1 / 255)
    assert model.manifest.calibration.n_genuine + model.manifest.calibration.n_impostor == 40
    assert model.manifest.calibration.n_classes == 7, "groups connected by same pairs"
    notes = model.evaluate(tmp_path / "pairs.csv", progress=False).notes
    assert any(note.startswith("the threshold was chosen on 41 of these 41 images") for note in notes)


def test_test_images_are_excluded_from_the_threshold(write, strangers, tmp_path):
    files = sorted(strangers.rglob("*.png"))
    rows = [f"{f},{f.parent.name},{'test' if f.parent.name > 'glyph04' else ''}" for f in files]
    (tmp_path / "split.csv").write_text("path,label,split\n" + "\n".join(rows) + "\n")
    model = wrap(write(), tmp_path / "split.csv", scale=1 / 255)
    assert model.manifest.calibration.n_classes == 5
    found = model.evaluate(tmp_path / "split.csv", progress=False)
    assert found.notes[0].startswith("measured on the 18 of 48 images")
    assert model.manifest.notes[0] == "the column split leaves 30 of 48 images for the threshold"
    assert not any("chose" in note for note in found.notes)


@pytest.mark.parametrize(
    ("graph", "given", "message"),
    [
        ({"shape": ("n", 400), "flatten": (0, -1)}, {}, r"One input is expected, an image.*\(\?, 400\)"),
        ({"inputs": ("image", "other")}, {}, "One input is expected, an image: .* it has image, float32"),
        ({"kind": TensorProto.INT64}, {}, r"One input is expected.*image, int64"),
        ({"outputs": ("n", 3, 2, 1)}, {}, "One output is expected, a vector"),
        ({"shape": ("n", 5, 20, 20)}, {}, "1 or 3 channels are expected"),
        ({"opset": 8}, {}, "Opset 8 is too old"),
        ({"shape": ("n", 1, "h", "w")}, {}, "Set the image size"),
        ({}, {"image_size": 24}, "Images must be 20x20; got 24x24"),
        ({}, {"channels": 3}, "Images must have 1 channels, nchw; got 3"),
        ({}, {"layout": "chw"}, r"layout of the input \(\?, 1, 20, 20\) must be nchw; got 'chw'"),
        ({}, {"layout": "nhwc"}, r"layout of the input \(\?, 1, 20, 20\) must be nchw; got 'nhwc'"),
        ({}, {"far": 3}, r"A false accept rate must be between 0 and 1, such as 0\.01; got 3"),
        ({}, {"mean": [1, 2, 3]}, "one value, or 1 for the channels"),
        ({}, {"std": 0}, "scale and std must be above 0"),
        ({}, {"distance": "hamming"}, "hamming"),
        ({}, {"fit": "squeeze"}, "image fit: "),
        ({"kind": TensorProto.UINT8}, {"mean": 0.5}, "takes uint8; scale, mean and std do not apply"),
        ({"weight": np.zeros((400, 3), np.float32)}, {}, "the same vector for every image"),
        (
            {"weight": np.zeros((400, 3), np.float32)},
            {"scale": 1, "distance": "cosine"},
            "the same vector for every image",
        ),
        (
            {"weight": np.ones((300, 3), np.float32)},
            {},
            "cannot run on images of 20x20 with 1 channels, nchw",
        ),
    ],
)
def test_unsupported_encoder_is_refused(write, strangers, tmp_path, graph, given, message):
    file = write(**graph)
    with pytest.raises((ModelError, SettingError), match=message) as caught:
        wrap(file, strangers, output=tmp_path / "m.twin", **given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "m.twin").exists()


def test_invalid_onnx_file_is_refused(strangers, tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"PK not a graph")
    for path in (tmp_path / "no.onnx", tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(ModelError, match=r"No such file|is a folder|not readable as ONNX"):
            wrap(path, strangers)


def test_data_without_both_kinds_of_pairs_are_refused(write, strangers, tmp_path):
    one = load_images(strangers)
    with pytest.raises(DataError, match="A threshold needs same and different pairs"):
        wrap(write(), one.with_classes(one.classes[:1]))


def test_wrap_command(write, strangers, tmp_path, monkeypatch, capsys):
    from twinned.cli.main import main

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", ["twinned", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return int(stop.value.code or 0)

    file, output = write(), tmp_path / "m.twin"
    assert (
        run("wrap", file, strangers, "-o", output, "--mean", "0.5", "--std", "0.5", "--json", "--quiet") == 0
    )
    shown = json.loads(capsys.readouterr().out)
    assert shown["model"] == str(output)
    assert shown["spec"]["mean"] == [0.5]
    assert run("wrap", file, strangers, "-o", tmp_path / "n.twin", "--mean", "a,b") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--mean a,b" in error
    assert run("finetune", output, strangers, "-o", tmp_path / "n.twin") == 2
    error = capsys.readouterr().err
    assert "was wrapped" in error
    assert error.count("\n") == 1


def test_wrapped_model_needs_only_its_folder(write, strangers, tmp_path):
    model = wrap(write(), strangers, output=tmp_path / "m.twin", scale=1)
    (tmp_path / "theirs.onnx").unlink()
    session = onnxruntime.InferenceSession(
        str(model.folder / "encoder.onnx"), providers=["CPUExecutionProvider"]
    )
    assert [i.name for i in session.get_inputs()] == ["pixels"]
    assert session.get_inputs()[0].type == "tensor(uint8)"
    assert session.run(None, {"pixels": np.zeros((5, 20, 20, 1), np.uint8)})[0].shape == (5, 6)
