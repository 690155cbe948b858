"""Convert dlib's face networks to ONNX graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingExtra, ModelError
from .dat_file import Floats, Layer, Network

_OPSET = 17
_IR_VERSION = 8
_DIVISOR = 256.0
_BLOCK = 16


class _Builder:
    """Nodes and constants of a graph, with the shape of the current value.

    Args:
        value: Name of the input of the first layer.
        shape: Its channels, height and width; the last two are 0 where they are free.
    """

    def __init__(self, value: str, shape: tuple[int, int, int]) -> None:
        try:
            from onnx import helper
        except ModuleNotFoundError:
            raise MissingExtra("faces", "reading dlib's face models") from None
        self._helper = helper
        self.value, self.shape = value, shape
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
        self.value = name
        return name

    def convolution(self, layer: Layer, affine: Layer | None) -> None:
        """Add a convolution with the affine layer after it."""
        if affine is not None:
            layer = with_affine(layer, affine)
        weights, bias = layer.weights, layer.bias
        if weights.shape[1] != self.shape[0]:
            raise ModelError(f"A convolution has {weights.shape[1]} inputs; got {self.shape[0]} channels")
        self.add("Conv", self.value, self.constant(weights), self.constant(bias), **_window(layer))
        self._slide(layer, len(weights))

    def pool(self, kind: str, layer: Layer) -> None:
        """Add a pool."""
        self.add(kind, self.value, **_window(layer))
        self._slide(layer, self.shape[0])

    def _slide(self, layer: Layer, channels: int) -> None:
        height, width, *rest = layer.window
        strides, pads = rest[:2], rest[2:]
        sides = [
            0 if side == 0 else (side + 2 * pad - size) // stride + 1
            for side, size, stride, pad in zip(self.shape[1:], (height, width), strides, pads)
        ]
        self.shape = channels, sides[0], sides[1]

    def sum(self, other: str, shape: tuple[int, int, int]) -> None:
        """Add another value; the smaller of the two is padded with zeros at the end of each axis."""
        large = tuple(np.maximum(self.shape, shape).tolist())
        value, other = (self._padded(*one, large) for one in ((self.value, self.shape), (other, shape)))
        self.add("Add", value, other)
        self.shape = large[0], large[1], large[2]

    def _padded(self, value: str, shape: tuple[int, int, int], large: tuple[int, ...]) -> str:
        if shape == large:
            return value
        pads = [0] * 5 + [after - before for before, after in zip(shape, large)]
        return self.add("Pad", value, self.constant(np.array(pads, np.int64)))

    def model(self, height: int | str, width: int | str, output: str, shape: list[int | str]) -> bytes:
        """Return the serialized graph from uint8 ``pixels`` (n, height, width, 3) to the current value."""
        from onnx import TensorProto, checker, numpy_helper

        self.nodes[-1].output[0] = output
        made = self._helper.make_graph(
            self.nodes,
            "face",
            [self._helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", height, width, 3])],
            [self._helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", *shape])],
            [numpy_helper.from_array(value, name) for name, value in self.constants.items()],
        )
        opset = self._helper.make_opsetid("", _OPSET)
        model = self._helper.make_model(made, opset_imports=[opset], ir_version=_IR_VERSION)
        checker.check_model(model)
        return bytes(model.SerializeToString())


def with_affine(convolution: Layer, affine: Layer) -> Layer:
    """Return a convolution that equals a convolution and the affine layer after it.

    Raises:
        ModelError: If they do not fit each other.
    """
    if not len(convolution.weights) == len(affine.scale) == len(affine.bias):
        raise ModelError("An affine layer does not fit the convolution before it")
    weights = convolution.weights * affine.scale[:, None, None, None]
    return convolution._replace(weights=weights, bias=convolution.bias * affine.scale + affine.bias)


def encoder_graph(network: Network) -> bytes:
    """Convert the face encoder: uint8 ``pixels`` (n, height, width, 3) to ``embedding`` (n, d).

    The embedding is the mean of those of the image and of its mirror image.

    Args:
        network: Residual network that ends with a matrix.

    Raises:
        MissingExtra: If ``onnx`` is not installed.
        ModelError: If the layers do not fit each other.
    """
    height, width = network.size
    graph = _Builder("pixels", (3, height, width))
    # The first four nodes are those that `twinned.inference.export` expects.
    graph.add("Transpose", "pixels", perm=[0, 3, 1, 2])
    graph.add("Cast", graph.value, to=1)
    mean = np.array(network.mean, np.float32).reshape(3, 1, 1)
    graph.add("Mul", graph.value, graph.constant(np.full((3, 1, 1), 1 / _DIVISOR, np.float32)))
    planes = graph.add("Add", graph.value, graph.constant(-mean / np.float32(_DIVISOR)))
    steps = {"starts": [-1], "ends": [-(1 << 31)], "axes": [3], "steps": [-1]}
    names = [graph.constant(np.array(values, np.int64)) for values in steps.values()]
    graph.add("Concat", planes, graph.add("Slice", planes, *names), axis=0)
    _residual(graph, network.layers[:-1])
    *_, last = network.layers
    if last.kind != "fc_2" or graph.shape != (len(last.weights), 1, 1):
        raise ModelError(f"The encoder does not end with a matrix that fits {graph.shape}")
    graph.add("Flatten", graph.value)
    graph.add("MatMul", graph.value, graph.constant(last.weights))
    size = last.weights.shape[1]
    graph.add("Reshape", graph.value, graph.constant(np.array([2, -1, size], np.int64)))
    graph.add("ReduceMean", graph.value, axes=[0], keepdims=0)
    return graph.model(height, width, "embedding", [size])


def _residual(graph: _Builder, layers: list[Layer]) -> None:
    """Add residual blocks. A block starts after the first pool or after the block before it.

    A pool of 2x2 inside a block is applied to the input of the block, which is then added to its output.
    """
    start = shortcut = graph.value, graph.shape
    for number, layer in enumerate(layers):
        before = layers[number - 1].kind if number else ""
        following = layers[number + 1] if number + 1 < len(layers) else Layer("")
        if layer.kind == "con_4":
            graph.convolution(layer, following if following.kind == "affine_" else None)
        elif layer.kind == "relu_":
            graph.add("Relu", graph.value)
            if before == "add_prev_":
                start = shortcut = graph.value, graph.shape
        elif layer.kind == "max_pool_2":
            graph.pool("MaxPool", layer)
            start = shortcut = graph.value, graph.shape
        elif layer.kind == "avg_pool_2" and not layer.window[0]:
            graph.add("GlobalAveragePool", graph.value)
            graph.shape = graph.shape[0], 1, 1
        elif layer.kind == "avg_pool_2":
            main = graph.value, graph.shape
            graph.value, graph.shape = start
            graph.pool("AveragePool", layer)
            shortcut = graph.value, graph.shape
            graph.value, graph.shape = main
        elif layer.kind == "add_prev_":
            graph.sum(*shortcut)
        elif layer.kind != "affine_" or before != "con_4":
            raise ModelError(f"Layer {layer.kind} after {before or 'the input'} is not supported")


def detector_graph(network: Network) -> bytes:
    """Convert the face detector: uint8 ``pixels`` (1, height, width, 3) to ``scores`` (1, 1, rows, columns).

    Args:
        network: Convolutions with affine layers and ReLU; the last has one filter.

    Raises:
        MissingExtra: If ``onnx`` is not installed.
        ModelError: If the layers do not fit each other.
    """
    first, *rest = network.layers
    mean = np.array(network.mean, np.float32)
    # The first convolution has no padding, so that subtracting the mean and dividing are part of it.
    weights = first.weights / np.float32(_DIVISOR)
    bias = first.bias - (weights.sum((2, 3)) * mean).sum(1)
    layers = _in_blocks([first._replace(weights=weights, bias=bias), *rest])
    graph = _Builder("pixels", (3, 0, 0))
    graph.add("Transpose", "pixels", perm=[0, 3, 1, 2])
    graph.add("Cast", graph.value, to=1)
    _residual(graph, layers)
    return graph.model("height", "width", "scores", [1, "rows", "columns"])


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
        elif layer.kind == "affine_":
            scale, bias = (_zero_padded(values, channels) for values in (layer.scale, layer.bias))
            layer = layer._replace(scale=scale, bias=bias)
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


def grid(network: Network) -> tuple[int, int]:
    """Return step and origin of a detector's scores: score ``i`` belongs to pixel ``step * i + origin``."""
    step, origin = 1, 0.0
    for layer in network.layers:
        if layer.kind == "con_4":
            size, _, stride, _, pad, _ = layer.window
            origin += step * ((size - 1) / 2 - pad)
            step *= stride
    return step, int(origin)


def _window(layer: Layer) -> dict[str, list[int]]:
    height, width, *rest = layer.window
    return {"kernel_shape": [height, width], "strides": rest[:2], "pads": rest[2:] * 2}
