"""Third-party ONNX encoders: inspect the graph, and convert it to Twinned's input and output.

A file's graph takes floats or bytes, channels first or last, a batch or one image. The converted graph maps
uint8 ``(n, height, width, channels)`` with free n to embeddings ``(n, d)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..data.preprocessing import ImageSpec
from ..errors import MissingExtra, ModelError
from .session import Floats, Graph, embed_pixels

_OLDEST_OPSET = 9
_AGREE = 1e-3  # tolerance between embeddings of one image and of a batch, relative to the largest value
_KINDS = ("float32", "float16", "float64", "uint8")


class InputFormat(NamedTuple):
    """Input format of an encoder."""

    layout: str  # nchw or nhwc
    spec: ImageSpec  # size and channels; the input is (pixels / 255 - mean) / std
    words: str  # description of the scaling


@dataclass(frozen=True, eq=False)
class OnnxEncoder:
    """Encoder in an ONNX file, with one image input and one vector output."""

    path: Path
    proto: Any  # contents of the file
    input: str  # name
    output: str  # name
    kind: str  # NumPy name of the input's type
    shape: tuple[int | None, ...]  # of the input, with the batch first; None where a size is free

    def layouts(self) -> list[str]:
        """Return the layouts that the input's sizes allow: one size must be 1 or 3."""
        _, a, _, c = self.shape
        first, last = (size in (None, 1, 3) for size in (a, c))
        if first and last and (a is None) != (c is None):  # the fixed one is the channels
            first, last = a is not None, c is not None
        return [name for name, fits in zip(("nchw", "nhwc"), (first, last), strict=True) if fits]

    def size(self, layout: str) -> tuple[int | None, int | None, int | None]:
        """Return height, width and channels in a layout; None where they are free."""
        _, a, b, c = self.shape
        return (b, c, a) if layout == "nchw" else (a, b, c)


def open_onnx(path: Path) -> OnnxEncoder:
    """Read an ONNX file and find its image input and its vector output; raise `ModelError` without them."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise MissingExtra("train", "wrapping an encoder") from None
    if not path.is_file():
        what = "This is a folder" if path.is_dir() else "No such file"
        raise ModelError(f"{path}: {what}; an ONNX file is expected")
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(proto)
    except Exception as error:  # onnx and protobuf have no common base for their errors
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: The file is not readable as ONNX ({first})") from None
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if opset < _OLDEST_OPSET:
        raise ModelError(f"{path}: Opset {opset} is too old. Export it with {_OLDEST_OPSET} or later")
    constants = {value.name for value in proto.graph.initializer}
    inputs = {v.name: _tensor(v) for v in proto.graph.input if v.name not in constants}
    images = {name: found for name, found in inputs.items() if len(found[1]) == 4 and found[0] in _KINDS}
    if len(inputs) != 1 or len(images) != 1:
        expected = "One input is expected, an image: floats or uint8 of four dimensions"
        raise ModelError(f"{path}: {expected}; it has {_listed(inputs)}")
    outputs = {v.name: _tensor(v) for v in proto.graph.output}
    flat = [name for name, (_, shape) in outputs.items() if len(shape) == 2]
    # A 1x1 map, (n, d, 1, 1) or (n, 1, 1, d), counts as a vector unless there is one.
    maps = {name: shape for name, (_, shape) in outputs.items() if len(shape) == 4}
    vectors = flat or [name for name, (_, a, b, c) in maps.items() if b == 1 and 1 in (a, c)]
    if len(vectors) != 1:
        raise ModelError(
            f"{path}: One output is expected, a vector per image, (n, d); it has {_listed(outputs)}."
            " Export the encoder without the layers after it"
        )
    (name, (kind, shape)), *_ = images.items()
    return OnnxEncoder(path, proto, name, vectors[0], kind, shape)


def build(found: OnnxEncoder, input_format: InputFormat, path: Path) -> None:
    """Write encoder.onnx: the file's graph after the second half of preprocessing.

    A batch size of 1 is made free if the output stays the same. Otherwise, and for another fixed batch
    size, the graph runs once per image.
    """
    import onnx

    for free in (True, False) if found.shape[0] in (None, 1) else (False,):
        is_attempt = free and found.shape[0] is not None
        onnx.save(_around(found, input_format, loop=not free), str(path))
        try:
            graph = Graph(path, device="cpu")
            pixels = np.random.default_rng(0).integers(0, 256, (3, *input_format.spec.shape), dtype=np.uint8)
            together = graph(pixels)
            if is_attempt and not _agree(together, embed_pixels(pixels, graph, batch=1)):
                continue
        except Exception as error:  # ONNX Runtime has no common base for its errors
            if is_attempt:
                continue
            reason = str(error).strip().splitlines()[0]
            height, width, channels = input_format.spec.shape
            raise ModelError(
                f"{found.path}: The encoder cannot run on images of {height}x{width} with {channels}"
                f" channels, {input_format.layout} ({reason})"
            ) from None
        if together.ndim != 2 or len(together) != 3:
            raise ModelError(f"{found.path}: 3 images give the shape {together.shape}; (3, d) is expected")
        return


def _agree(a: Floats, b: Floats) -> bool:
    if a.shape != b.shape or not np.isfinite(b).all():
        return False
    return bool(np.abs(a - b).max() <= _AGREE * max(1.0, float(np.abs(b).max())))


def _around(found: OnnxEncoder, input_format: InputFormat, *, loop: bool) -> Any:
    """Build the graph. It starts with Transpose, Cast, Mul, Add, as `twinned.inference.export` expects."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    spec = input_format.spec
    inner = onnx.compose.add_prefix(found.proto, prefix="wrapped/")
    image, vector = f"wrapped/{found.input}", f"wrapped/{found.output}"
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(found.kind))
    std = np.array(spec.std, np.float64)
    constants = {
        "scale": (1 / (255 * std)).astype(np.float32).reshape(-1, 1, 1),
        "shift": (-np.array(spec.mean) / std).astype(np.float32).reshape(-1, 1, 1),
        "flat": np.array([0, -1]),
    }
    node, info = helper.make_node, helper.make_tensor_value_info
    nodes = [
        node("Transpose", ["pixels"], ["planes"], perm=[0, 3, 1, 2]),
        node("Cast", ["planes"], ["floats"], to=TensorProto.FLOAT),
        node("Mul", ["floats", "scale"], ["scaled"]),
        node("Add", ["scaled", "shift"], ["fed"]),
    ]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    last, graph = "fed", inner.graph
    if input_format.layout == "nhwc":
        nodes.append(node("Transpose", [last], ["rows"], perm=[0, 2, 3, 1]))
        last = "rows"
    if kind != TensorProto.FLOAT:
        nodes.append(node("Cast", [last], ["typed"], to=kind))
        last = "typed"
    if loop:
        body = _one(found, input_format, graph, kind)
        nodes.append(node("Scan", [last], ["vectors"], body=body, num_scan_inputs=1))
        vector = "vectors"
    else:
        for one in graph.node:
            one.input[:] = [last if name == image else name for name in one.input]
        nodes += graph.node
        weights += graph.initializer
    nodes.append(node("Reshape", [vector, "flat"], ["whole"]))
    nodes.append(node("Cast", ["whole"], ["embedding"], to=TensorProto.FLOAT))
    whole = helper.make_graph(
        nodes,
        "encoder",
        [info("pixels", TensorProto.UINT8, ["n", *spec.shape])],
        [info("embedding", TensorProto.FLOAT, ["n", "d"])],
        weights,
    )
    return helper.make_model(
        whole, opset_imports=inner.opset_import, ir_version=inner.ir_version, functions=inner.functions
    )


def _one(found: OnnxEncoder, input_format: InputFormat, graph: Any, kind: int) -> Any:
    """Build the body of a loop over images: one image, repeated to the file's batch size, to its vector."""
    from onnx import helper, numpy_helper

    batch = found.shape[0] or 1
    height, width, channels = input_format.spec.shape
    one = (channels, height, width) if input_format.layout == "nchw" else (height, width, channels)
    constants = {"batch": np.array([batch, *one]), "first": np.array(0), "flat_one": np.array([-1])}
    nodes = [
        helper.make_node("Expand", ["one", "batch"], [f"wrapped/{found.input}"]),
        *graph.node,
        helper.make_node("Gather", [f"wrapped/{found.output}", "first"], ["row"], axis=0),
        helper.make_node("Reshape", ["row", "flat_one"], ["vector"]),
    ]
    out_kind = next(v.type.tensor_type.elem_type for v in graph.output if v.name == f"wrapped/{found.output}")
    return helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("one", kind, list(one))],
        [helper.make_tensor_value_info("vector", out_kind, ["d"])],
        [*(numpy_helper.from_array(v, name) for name, v in constants.items()), *graph.initializer],
    )


def _tensor(value: Any) -> tuple[str, tuple[int | None, ...]]:
    """Return type and shape of an input or output."""
    from onnx import helper

    tensor = value.type.tensor_type
    try:
        kind = str(np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    except (KeyError, TypeError):
        kind = "of another type"
    sizes = (d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
    return kind, tuple(sizes)


def _listed(tensors: dict[str, tuple[str, tuple[int | None, ...]]]) -> str:
    shown = (f"{name}, {kind} {shape_text(shape)}" for name, (kind, shape) in tensors.items())
    return "; ".join(shown) or "none"


def shape_text(shape: tuple[int | None, ...]) -> str:
    """Return a shape in words, with ? where a size is free."""
    return f"({', '.join('?' if size is None else str(size) for size in shape)})"
