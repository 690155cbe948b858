"""Export a model for other programs: a float encoder, an int8 encoder, and an example that runs them."""

from __future__ import annotations

import os
import shutil
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.datasets import ImageSet, PairSet
from ..data.decoded import DecodedSet
from ..data.images import Pixels
from ..data.pixel_stores import PixelRows, PixelStore
from ..data.readers import as_dataset
from ..errors import DataError, MissingExtra, ModelError, SettingError
from ..metrics.comparisons import compare_all
from ..metrics.few_shot import few_shot, possible_ways
from ..metrics.roc import eer
from ..utils import files
from ..utils.files import check_output
from . import model_folder
from .model import Model
from .session import Graph, embed_pixels

_TOLERANCE = 1e-4
_CALIBRATION_IMAGES = 256

_FITTED = {
    "stretch": """\
    return image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
""",
    "crop": """\
    return ImageOps.fit(image, (WIDTH, HEIGHT), Image.Resampling.BILINEAR)
""",
    "pad": """\
    scale = min(WIDTH / image.width, HEIGHT / image.height)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    values = np.asarray(image).reshape(image.height, image.width, -1)
    edge = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    canvas = Image.new(image.mode, (WIDTH, HEIGHT), tuple(int(v) for v in np.median(edge, axis=0)))
    resized = image.resize(size, Image.Resampling.BILINEAR)
    canvas.paste(resized, ((WIDTH - size[0]) // 2, (HEIGHT - size[1]) // 2))
    return canvas
""",
}
_OF_HEAD = '1 - run("head.onnx", "score", left=a[None], right=b[None])'
_DISTANCE = {
    "cosine": "1 - a @ b / (np.linalg.norm(a) * np.linalg.norm(b))",
    "euclidean": "np.linalg.norm(a - b)",
    "squared_euclidean": "((a - b) ** 2).sum()",
    "manhattan": "np.abs(a - b).sum()",
}


def export_model(
    model: Model,
    output: str | os.PathLike[str],
    *,
    int8: ImageSet | str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Write a folder with the encoder in the forms that other programs need, atomically.

    Labeled images for ``int8`` calibrate an int8 encoder and measure its loss of accuracy, each with half of
    the classes; training should not have seen them. Returns the figures under their JSON keys.
    """
    target = Path(output)
    given = [int8] if isinstance(int8, (str, os.PathLike)) else []
    check_output(target, force=force, data=[model.folder, *given])
    if target.exists() and not (target / "encoder_float.onnx").is_file() and any(target.iterdir()):
        raise SettingError(f"{target}: Not an exported model, so it is not replaced. Choose another name")
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtra("train", "exporting a model") from None
    random = np.random.default_rng(0)
    pixels: PixelStore = random.integers(0, 256, (5, *model.spec.shape), dtype=np.uint8)
    data = None if int8 is None else as_dataset(int8)
    if isinstance(data, PairSet):
        raise DataError(f"{data.origin}: Labeled images are needed to measure int8 accuracy; got pairs")
    labels: NDArray[Any] | None = None
    if data is not None:
        decoded = DecodedSet.from_images(data.genuine(), model.spec, progress=progress)
        pixels, labels = decoded.pixels, decoded.images.labels
    with tempfile.TemporaryDirectory(prefix="twinned-") as name:
        folder = Path(name)
        for graph in ("encoder.onnx", *(["head.onnx"] if model.manifest.head else [])):
            shutil.copyfile(model_folder.checked(model.folder, graph, model.manifest), folder / graph)
        encoder = onnx.load(str(folder / "encoder.onnx"))
        onnx.save(_float_input(encoder), str(folder / "encoder_float.onnx"))
        ours = model.embed_pixels(pixels[:64])
        theirs = Graph(folder / "encoder_float.onnx", device="cpu")(normalized(model, pixels[:64]))
        gap = float(np.abs(ours - theirs).max() / max(1.0, float(np.abs(ours).max())))
        if not gap <= _TOLERANCE:
            raise ModelError(f"encoder_float.onnx differs from the original by {gap:g}")
        result: dict[str, Any] = {
            "output": str(target),
            "opset": encoder.opset_import[0].version,
            "float_difference": gap,
            "int8": None,
        }
        if labels is not None:
            result["int8"] = _quantize(model, folder, pixels, labels)
        spec, template = model.spec, resources.files(__package__).joinpath("example.py.txt")
        files.write_text(
            folder / "example.py",
            template.read_text("utf-8").format(
                width=spec.width,
                height=spec.height,
                mode="L" if spec.channels == 1 else "RGB",
                threshold=model.manifest.threshold,
                mean=list(spec.mean),
                std=list(spec.std),
                fitted=_FITTED[spec.fit],
                distance=_OF_HEAD if model.manifest.head else _DISTANCE[model.distance],
            ),
        )
        files.write_text(folder / "README.md", _readme(model, result))
        result["files"] = sorted(p.name for p in folder.iterdir())
        files.place(folder, target)
    return result


def _float_input(graph: Any) -> Any:
    """Return the graph that starts at the normalized float image, ``(n, channels, height, width)``."""
    import onnx

    plain = onnx.ModelProto()
    plain.CopyFrom(graph)
    chain, name, kinds = [], plain.graph.input[0].name, ("Transpose", "Cast", "Mul", "Add")
    nodes = {node.input[0]: node for node in plain.graph.node if node.op_type in kinds}
    for kind in kinds:
        node = nodes.get(name)
        if node is None or node.op_type != kind:
            raise ModelError("encoder.onnx does not start with the nodes that Twinned writes")
        chain.append(node)
        name = node.output[0]
    pixels = plain.graph.input[0]
    for node in plain.graph.node:
        node.input[:] = ["image" if value in (name, pixels.name) else value for value in node.input]
    for node in chain:
        plain.graph.node.remove(node)
    count, height, width, channels = pixels.type.tensor_type.shape.dim
    shape = [count.dim_param or "n", channels.dim_value, height.dim_value, width.dim_value]
    del plain.graph.input[:]
    plain.graph.input.append(onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, shape))
    used = {value for node in plain.graph.node for value in node.input}
    for spare in [i for i in plain.graph.initializer if i.name not in used]:
        plain.graph.initializer.remove(spare)
    onnx.checker.check_model(plain)
    return plain


def normalized(model: Model, pixels: Pixels) -> NDArray[np.float32]:
    """Return the input of the float encoder: ``(pixels / 255 - mean) / std``, channels first."""
    mean, std = np.array(model.spec.mean, np.float32), np.array(model.spec.std, np.float32)
    scaled = (pixels.astype(np.float32) / 255 - mean) / std
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), np.float32)


def _quantize(model: Model, folder: Path, pixels: PixelStore, labels: NDArray[Any]) -> dict[str, Any]:
    """Write encoder_int8.onnx and measure its accuracy on classes that did not calibrate it."""
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    names = np.random.default_rng(0).permutation(np.unique(labels))
    first = np.isin(labels, names[: len(names) // 2])
    if len(names) < 4:
        raise DataError(f"int8 needs at least 4 classes, half to measure accuracy; got {len(names)}")
    calibrate = pixels[np.flatnonzero(first)[:: max(1, int(first.sum()) // _CALIBRATION_IMAGES)]]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        batches = iter({"pixels": calibrate[i : i + 16]} for i in range(0, len(calibrate), 16))

        def get_next(self) -> dict[str, Any] | None:
            return next(self.batches, None)

    prepared = folder / "prepared.onnx"
    quant_pre_process(str(folder / "encoder.onnx"), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(folder / "encoder_int8.onnx"),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        calibrate_method=quantization.CalibrationMethod.MinMax,
        # Not Add: normalizing the image in int8 would take as long as all convolutions; additions between
        # quantized layers run in int8 in any case.
        op_types_to_quantize=["Conv", "MatMul", "Gemm", "GlobalAveragePool", "MaxPool", "Relu", "Clip"],
        extra_options={"ActivationSymmetric": False},
    )
    prepared.unlink()
    small = Graph(folder / "encoder_int8.onnx", device="cpu")
    kept, names_kept = PixelRows(pixels, np.flatnonzero(~first)), labels[~first]
    vectors = {"before": model.embed_pixels(kept), "after": embed_pixels(kept, small)}
    ways = min(20, possible_ways(names_kept))
    result: dict[str, Any] = {"images": len(kept), "ways": ways}
    for when, embedded in vectors.items():
        found = compare_all(embedded, names_kept, model.distances)
        result[when] = {"eer": float(eer(found.distance, found.same)), "one_shot": None}
        if ways > 1:
            shots = few_shot(embedded, names_kept, ways, distance=model.distances)
            result[when]["one_shot"] = shots.accuracy
    return result


def _readme(model: Model, result: dict[str, Any]) -> str:
    spec = model.spec
    lines = [
        "# Exported by Twinned",
        "",
        f"Opset {result['opset']}; the first dimension, the number of images, is free in every file.",
        "",
        "| file | input | output |",
        "|---|---|---|",
        f"| encoder.onnx | `pixels`, uint8 (n, {spec.height}, {spec.width}, {spec.channels}) |"
        f" `embedding`, float32 (n, {model.embedding_size}) |",
        f"| encoder_float.onnx | `image`, float32 (n, {spec.channels}, {spec.height}, {spec.width}):"
        f" (pixels / 255 - {list(spec.mean)}) / {list(spec.std)} | same as encoder.onnx |",
    ]
    measure = f"Embeddings are compared by {model.distance} distance"
    if model.manifest.head:
        values = f"float32 (n, {model.embedding_size})"
        lines.append(f"| head.onnx | `left` and `right`, {values} each | `score`, float32 (n,) |")
        measure = "The distance of two embeddings is 1 - the score of head.onnx"
    if result["int8"]:
        cost = result["int8"]
        before, after = cost["before"], cost["after"]
        lines += [
            "| encoder_int8.onnx | same as encoder.onnx | same as encoder.onnx, in int8 |",
            "",
            f"Accuracy of int8 on {cost['images']} images of classes that did not calibrate it: equal error"
            f" rate {before['eer']:.4f} before, {after['eer']:.4f} after; {cost['ways']}-way one-shot"
            f" accuracy {before['one_shot']} before, {after['one_shot']} after.",
        ]
    first = "" if spec.ink == "none" else f", cropped to the ink ({spec.ink}) by Twinned's reader first"
    if spec.faces != "none":
        first = ", after Twinned's reader has cut out and aligned the largest face"
    threshold = model.manifest.threshold
    same = "" if threshold is None else f"; same means at most {threshold:.6g}"
    lines += [
        "",
        f"Images are resized to {spec.width}x{spec.height} by bilinear resizing ({spec.fit}){first}."
        f" {measure}{same}.",
        "`python example.py A B` runs encoder_float.onnx with onnxruntime, Pillow and NumPy alone.",
        "",
        "ONNX Runtime 1.29 and later reports its usage to Microsoft unless"
        " ORT_DISABLE_TELEMETRY=1 is set before it is imported. example.py sets it; your own program has to"
        " do so as well.",
        "",
    ]
    return "\n".join(lines)
