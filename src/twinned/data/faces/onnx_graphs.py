"""Convert dlib's face networks to ONNX graphs."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingExtra, ModelError
from .dat_file import Floats, Layer, Network

_OPSET = 17
_IR_VERSION = 8
_DIVISOR = 256.0
_BLOCK = 16
_RANK = 32  # of 160 to 240; the scores of faces change by about 0.1


class _Value(NamedTuple):
    name: str
    shape: tuple[int, ...]  # channels, height and width; the last two are 0 where they are free


class _Builder:
    """Nodes and constants of a graph."""

    def __init__(self) -> None:
        try:
            from onnx import helper
        except ModuleNotFoundError:
            raise MissingExtra("faces", "reading dlib's face models") from None
        self._helper = helper
        self.nodes: list[Any] = []
        self.constants: dict[str, NDArray[Any]] = {}

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        name = f"c{len(self.constants)}"
        self.constants[name] = values
        return name

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"v{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def slide(self, kind: str, value: _Value, layer: Layer) -> _Value:
        """Add a convolution or a pool."""
        height, width, *rest = layer.window
        strides, pads = rest[:2], rest[2:]
        (channels, *sides), names = value.shape, list[str]()
        if layer.kind == "con_4":
            if layer.weights.shape[1] != channels:
                raise ModelError(
                    f"A convolution has {layer.weights.shape[1]} inputs; got {channels} channels"
                )
            channels, names = len(layer.weights), [self.constant(layer.weights), self.constant(layer.bias)]
        sizes = [
            0 if side == 0 else (side + 2 * pad - size) // stride + 1
            for side, size, stride, pad in zip(sides, (height, width), strides, pads)
        ]
        name = self.add(
            kind, value.name, *names, kernel_shape=[height, width], strides=strides, pads=pads * 2
        )
        return _Value(name, (channels, *sizes))

    def sum(self, *values: _Value) -> _Value:
        """Add two values; the smaller of the two is padded with zeros at the end of each axis."""
        shape, names = tuple(np.max([value.shape for value in values], axis=0).tolist()), list[str]()
        for name, before in values:
            pads = np.array([0] * 5 + [after - side for side, after in zip(before, shape)], np.int64)
            names.append(self.add("Pad", name, self.constant(pads)) if pads.any() else name)
        return _Value(self.add("Add", *names), shape)

    def model(self, output: str, shape: list[int | str], **inputs: tuple[str, list[int | str]]) -> bytes:
        """Return the serialized graph from inputs, each a type and a shape, to the last node."""
        from onnx import TensorProto, checker, numpy_helper

        info = self._helper.make_tensor_value_info
        self.nodes[-1].output[0] = output
        made = self._helper.make_graph(
            self.nodes,
            "face",
            [info(name, getattr(TensorProto, kind), sides) for name, (kind, sides) in inputs.items()],
            [info(output, TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opset = self._helper.make_opsetid("", _OPSET)
        model = self._helper.make_model(made, opset_imports=[opset], ir_version=_IR_VERSION)
        checker.check_model(model)
        return bytes(model.SerializeToString())


def folded(layers: list[Layer]) -> list[Layer]:
    """Return equal layers, with each affine layer after a convolution made part of it."""
    result: list[Layer] = []
    for layer in layers:
        if layer.kind != "affine_" or not result or result[-1].kind != "con_4":
            result.append(layer)
            continue
        before = result.pop()
        if not len(before.weights) == len(layer.scale) == len(layer.bias):
            raise ModelError("An affine layer does not fit the convolution before it")
        weights = before.weights * layer.scale[:, None, None, None]
        result.append(before._replace(weights=weights, bias=before.bias * layer.scale + layer.bias))
    return result


def encoder_graph(network: Network) -> bytes:
    """Convert the face encoder: uint8 ``pixels`` (n, height, width, 3) to ``embedding`` (n, d).

    The embedding is the mean of those of the image and of its mirror image.
    """
    graph, (height, width) = _Builder(), network.size
    # The first four nodes are those that `twinned.inference.export` expects.
    value = graph.add("Transpose", "pixels", perm=[0, 3, 1, 2])
    value = graph.add("Cast", value, to=1)
    mean = np.array(network.mean, np.float32).reshape(3, 1, 1)
    value = graph.add("Mul", value, graph.constant(np.full((3, 1, 1), 1 / _DIVISOR, np.float32)))
    planes = graph.add("Add", value, graph.constant(-mean / np.float32(_DIVISOR)))
    steps = {"starts": [-1], "ends": [-(1 << 31)], "axes": [3], "steps": [-1]}
    names = [graph.constant(np.array(values, np.int64)) for values in steps.values()]
    both = graph.add("Concat", planes, graph.add("Slice", planes, *names), axis=0)
    *layers, last = folded(network.layers)
    value, shape = _residual(graph, _Value(both, (3, height, width)), layers)
    if last.kind != "fc_2" or shape != (len(last.weights), 1, 1):
        raise ModelError(f"The encoder does not end with a matrix that fits {shape}")
    size = last.weights.shape[1]
    value = graph.add("MatMul", graph.add("Flatten", value), graph.constant(last.weights))
    value = graph.add("Reshape", value, graph.constant(np.array([2, -1, size], np.int64)))
    graph.add("ReduceMean", value, axes=[0], keepdims=0)
    return graph.model("embedding", ["n", size], pixels=("UINT8", ["n", height, width, 3]))


def _residual(graph: _Builder, value: _Value, layers: list[Layer]) -> _Value:
    """Add residual blocks. A block starts after the first pool or after the block before it.

    A pool of 2x2 inside a block is applied to the input of the block, which is then added to its output.
    """
    start = shortcut = value
    for before, layer in pairwise([Layer(""), *layers]):
        if layer.kind == "con_4":
            value = graph.slide("Conv", value, layer)
        elif layer.kind == "relu_":
            value = value._replace(name=graph.add("Relu", value.name))
            if before.kind == "add_prev_":
                start = shortcut = value
        elif layer.kind == "max_pool_2":
            start = shortcut = value = graph.slide("MaxPool", value, layer)
        elif layer.kind == "avg_pool_2" and not layer.window[0]:
            value = _Value(graph.add("GlobalAveragePool", value.name), (value.shape[0], 1, 1))
        elif layer.kind == "avg_pool_2":
            shortcut = graph.slide("AveragePool", start, layer)
        elif layer.kind == "add_prev_":
            value = graph.sum(value, shortcut)
        else:
            raise ModelError(f"Layer {layer.kind} after {before.kind or 'the input'} is not supported")
    return value


_PLANES: tuple[str, list[int | str]] = ("FLOAT", ["n", 3, "height", "width"])


def detector_graph(network: Network, *, fast: bool = False) -> bytes:
    """Convert the face detector: ``planes`` (n, 3, height, width) to ``scores`` (n, 1, rows, columns).

    ``fast`` replaces convolutions of stride 1 by two smaller ones that are almost equal.
    """
    first, *rest = folded(network.layers)
    layers = _in_blocks([first._replace(weights=first.weights / np.float32(_DIVISOR)), *rest])
    graph = _Builder()
    _residual(graph, _Value("planes", (3, 0, 0)), _separated(layers) if fast else layers)
    return graph.model("scores", ["n", 1, "rows", "columns"], planes=_PLANES)


def _separated(layers: list[Layer]) -> list[Layer]:
    """Replace square convolutions of stride 1 by a column and a row, which have the largest singular values.

    Source: Jaderberg et al., Speeding up convolutional neural networks with low rank expansions, BMVC 2014.
    """
    result = []
    for layer in layers:
        if layer.kind != "con_4" or layer.window[2:4] != (1, 1) or layer.window[0] != layer.window[1]:
            result.append(layer)
            continue
        height, width, _, _, top, left = layer.window
        outputs, inputs = layer.weights.shape[:2]
        matrix = layer.weights.transpose(1, 2, 0, 3).reshape(inputs * height, outputs * width)
        down, values, across = np.linalg.svd(matrix, full_matrices=False)
        column = (down * values)[:, :_RANK].T.reshape(-1, inputs, height, 1)
        row = across[:_RANK].reshape(-1, outputs, 1, width).swapaxes(0, 1)
        zeros = np.zeros(len(column), np.float32)
        result += [
            Layer("con_4", (height, 1, 1, 1, top, 0), column, bias=zeros),
            Layer("con_4", (1, width, 1, 1, 0, left), row, bias=layer.bias),
        ]
    return result


def resize_graph() -> bytes:
    """Make a graph that resizes ``planes`` (n, 3, height, width) to the shape ``size``.

    Interpolation is bilinear, and the first and the last pixels stay in place, as in dlib.
    """
    graph = _Builder()
    graph.add(
        "Resize", "planes", "", "", "size", mode="linear", coordinate_transformation_mode="align_corners"
    )
    return graph.model("resized", list("nchw"), planes=_PLANES, size=("INT64", [4]))


def _in_blocks(layers: list[Layer]) -> list[Layer]:
    """Return equal layers for which ONNX Runtime has its fast convolution: blocks of 16 channels.

    Channels of zeros are added. The last filter becomes a filter for each of its rows, and their sum.
    """
    result, channels = [], layers[0].weights.shape[1]
    for layer in layers[:-1]:
        if layer.kind == "con_4":
            inputs, channels = channels, _blocks(len(layer.weights))
            weights = _zero_padded(layer.weights, channels, inputs, *layer.window[:2])
            layer = layer._replace(weights=weights, bias=_zero_padded(layer.bias, channels))
        result.append(layer)
    last = layers[-1]
    height, width, down, right, top, left = last.window
    if last.kind != "con_4" or len(last.weights) != 1 or (down, right) != (1, 1):
        raise ModelError("The detector does not end with one filter")
    rows = _blocks(height)
    of_rows = _zero_padded(last.weights[0].transpose(1, 0, 2)[:, :, None], rows, channels, 1, width)
    total = _zero_padded(np.eye(height, dtype=np.float32)[None, :, :, None], 1, rows, height, 1)
    return [
        *result,
        Layer("con_4", (1, width, 1, 1, 0, left), of_rows, bias=np.zeros(rows, np.float32)),
        Layer("con_4", (height, 1, 1, 1, top, 0), total, bias=last.bias),
    ]


def _blocks(channels: int) -> int:
    return -(-channels // _BLOCK) * _BLOCK


def _zero_padded(values: Floats, *shape: int) -> Floats:
    result = np.zeros(shape, np.float32)
    result[tuple(slice(size) for size in values.shape)] = values
    return result


def grid(network: Network) -> tuple[int, int, int]:
    """Return step and origin of a detector's scores, and the side of the square of pixels of each.

    Score ``i`` belongs to pixel ``step * i + origin``.
    """
    step, origin, field = 1, 0.0, 1
    for layer in network.layers:
        if layer.kind == "con_4":
            size, _, stride, _, pad, _ = layer.window
            origin += step * ((size - 1) / 2 - pad)
            field += step * (size - 1)
            step *= stride
    return step, int(origin), field
