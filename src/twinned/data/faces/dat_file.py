"""Read files of dlib (.dat): trained networks and the shape predictor.

Nothing in a file is executed. Lengths are compared with the bytes that are left before memory is allocated.
Source of the format: dlib/serialize.h, dlib/dnn/core.h, dlib/dnn/layers.h (dlib 20.0).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import ModelError

Floats = NDArray[np.float32]

MAX_BYTES = 64 << 20
_MAX_LAYERS = 1000
_MAX_TEXT = 100
_MAX_EXPONENT = 900
_MAX_VERSION = 3
_MAX_SIDE = 4096
_NONE: Floats = np.empty(0, np.float32)

# Content by kind, see `Reader.values`.
_VIEWS = 2 * "1iiii"  # shapes of the two parts of a tensor
_LOSSES = {"loss_metric_2": "rr", "loss_mmod_": "1ii" + 7 * "r"}
_INPUTS = {"input_rgb_image_sized": "rrrnn", "input_rgb_image_pyramid": "rrr"}  # mean; height and width
_LAYERS = {
    "relu_": "",
    "add_prev_": "",
    "max_pool_2": "iinnii",  # window: height, width, strides and paddings, each y and x
    "avg_pool_2": "iinnii",
    "con_4": "tnnnnnii" + _VIEWS + "rrrr",  # filters before the window
    "affine_": "t" + _VIEWS + "0",
    "bn_con2": "t" + _VIEWS + "ttttiirrrrr",
    "fc_2": "nnt" + _VIEWS + "1rrrr",  # outputs, inputs; 1 is for no bias
}
_STATE = "bbbttt"  # of training, after each layer


class Reader:
    """Cursor over the bytes of a .dat file; raises `ModelError` where they do not fit the format."""

    def __init__(self, content: bytes, name: str) -> None:
        if len(content) > MAX_BYTES:
            raise ModelError(f"{name}: The file has {len(content):,} bytes; the limit is {MAX_BYTES:,}")
        self.content, self.name, self.place = content, name, 0

    def error(self, reason: str) -> ModelError:
        """Return an error with the name of the file and the current position."""
        return ModelError(f"{self.name}: The file is damaged at byte {self.place:,} ({reason})")

    def part(self, kinds: Mapping[str, str], length: int | None = None) -> tuple[str, list[Any]]:
        """Read the name of a part and its values; the length of the name comes first unless it is known."""
        kind = self.text(self.integer(0, _MAX_TEXT) if length is None else length)
        if kind not in kinds:
            raise self.error(f"{kind!r} is not supported")
        return kind, self.values(kinds[kind])

    def values(self, letters: str) -> list[Any]:
        """Read values: r float, b boolean, t tensor, n integer from 1, i integer from 0, or a known digit."""
        return [self._value(letter) for letter in letters]

    def _value(self, letter: str) -> Any:
        match letter:
            case "r":
                return self.reals(1)[0]
            case "b":
                if (value := self.text(1)) not in ("0", "1"):
                    raise self.error("a boolean is expected")
                return value == "1"
            case "t":
                return self.tensor()
            case "n" | "i":
                return self.integer(int(letter == "n"), _MAX_SIDE)
        return self.integer(int(letter), int(letter))

    def integers(self, count: int) -> NDArray[np.int64]:
        """Read integers, each a control byte (sign and length) and up to 8 bytes, low byte first."""
        if not 0 <= count <= len(self.content) - self.place:  # an integer takes at least two bytes
            raise self.error(f"{count:,} integers are announced")
        content, place, values = self.content, self.place, np.empty(count, np.int64)
        try:
            for index in range(count):
                control = content[place]
                start, place = place + 1, place + 1 + (control & 0x0F)
                value = int.from_bytes(content[start:place], "little")
                values[index] = -value if control & 0x80 else value
        except (IndexError, OverflowError):
            raise self.error("an integer is expected") from None
        if place > len(content):
            raise self.error("the end of the file is inside an integer")
        self.place = place
        return values

    def integer(self, low: int, high: int = _MAX_SIDE) -> int:
        """Read one integer from ``low`` to ``high``."""
        value = int(self.integers(1)[0])
        if not low <= value <= high:
            raise self.error(f"{value:,} is not within {low:,} to {high:,}")
        return value

    def reals(self, count: int) -> NDArray[np.float64]:
        """Read floats, each a mantissa and an exponent."""
        return self.to_reals(self.integers(2 * count))

    def to_reals(self, pairs: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the floats of integers that alternate mantissa and exponent: ``(..., 2 n) -> (..., n)``."""
        mantissa, exponent = pairs[..., ::2], pairs[..., 1::2]
        if np.abs(exponent).max(initial=0) > _MAX_EXPONENT:
            raise self.error("a float is not finite")
        return np.ldexp(mantissa.astype(np.float64), exponent.astype(np.int32))

    def text(self, length: int) -> str:
        """Read ASCII characters."""
        value = self.content[self.place : self.place + length]
        if len(value) < length or not value.isascii():
            raise self.error("a string is expected")
        self.place += length
        return value.decode("ascii")

    def tensor(self) -> Floats:
        """Read the values of a tensor of float32; a copy, since a view would keep the file in memory."""
        self.integer(2, 2)
        shape = [self.integer(0, (1 << 31) - 1) for _ in range(4)]
        length = 4 * math.prod(shape)
        if length > len(self.content) - self.place:
            raise self.error(f"a tensor of shape {shape} is announced")
        values = np.frombuffer(self.content, "<f4", length // 4, self.place)
        self.place += length
        if not np.isfinite(values).all():
            raise self.error("a tensor has values that are not finite")
        return values.astype(np.float32)

    def end(self) -> None:
        """Check that nothing is left."""
        if self.place != len(self.content):
            raise self.error(f"{len(self.content) - self.place:,} bytes follow the end")


class Layer(NamedTuple):
    """Layer of a network, by its name in the file, such as ``con_4``."""

    kind: str
    window: tuple[int, ...] = ()  # height, width, stride y, stride x, padding y and padding x
    weights: Floats = _NONE  # (out, in, height, width) of a convolution, (in, out) of a matrix
    scale: Floats = _NONE  # of each channel of an affine layer
    bias: Floats = _NONE  # of each channel of a convolution or an affine layer


class Network(NamedTuple):
    """Network in a file. It divides the difference of a pixel and the mean by 256."""

    mean: tuple[float, ...]  # of red, green and blue
    size: tuple[int, ...]  # height and width of the input; empty where they are free
    layers: list[Layer]  # from the input; without tags


def read_network(content: bytes, name: str) -> Network:
    """Read a network for embeddings (``loss_metric_2``) or for detection (``loss_mmod_``)."""
    reader = Reader(content, name)
    reader.integer(1, 1)
    reader.part(_LOSSES)  # its options are known for each model
    # Versions of the layers from the last to the first: 1 for a tag, which has no content. The length of the
    # name of the input follows them, and then the contents of the layers from the first to the last.
    versions: list[int] = []
    while (value := reader.integer(1, _MAX_TEXT)) <= _MAX_VERSION:
        versions.append(value)
        if len(versions) > _MAX_LAYERS:
            raise reader.error(f"more than {_MAX_LAYERS:,} layers are announced")
    _, (red, green, blue, *size) = reader.part(_INPUTS, value)
    layers = []
    for number, version in enumerate(reversed(versions)):
        if version == 1:
            continue
        layers.append(_layer(reader))
        reader.values(_STATE)
        if number == 0 and version == 3:
            reader.integers(1)
    reader.end()
    return Network((float(red), float(green), float(blue)), tuple(size), layers)


def _layer(reader: Reader) -> Layer:
    """Read one layer; a batch norm as an affine layer."""
    kind, values = reader.part(_LAYERS)
    if kind == "con_4":
        numbers, filters, *window = values[:8]
        inputs, rest = divmod(numbers.size - filters, filters * window[0] * window[1])
        if inputs < 1 or rest:
            raise reader.error(f"a convolution {filters}@{window[0]}x{window[1]} has {numbers.size:,} values")
        weights = numbers[:-filters].reshape(filters, inputs, *window[:2])
        return Layer(kind, tuple(window), weights, bias=numbers[-filters:])
    if kind == "fc_2":
        outputs, inputs, weights = values[:3]
        if weights.size != inputs * outputs:
            raise reader.error(f"{inputs}x{outputs} weights are expected; got {weights.size:,}")
        return Layer(kind, weights=weights.reshape(inputs, outputs))
    if kind not in ("affine_", "bn_con2"):
        return Layer(kind, tuple(values))
    numbers = values[0]
    if numbers.size == 0 or numbers.size % 2:
        raise reader.error(f"{numbers.size:,} values are not a factor and a summand for each channel")
    scale, bias = np.split(numbers, 2)
    if kind == "bn_con2":  # gamma * (x - mean) / sqrt(variance + eps) + beta
        mean, variance, eps = values[-9], values[-8], values[-1]
        if not mean.shape == variance.shape == scale.shape or (variance + eps <= 0).any():
            raise reader.error("a batch norm has no valid statistics")
        scale = scale / np.sqrt(variance + eps)
        bias = bias - scale * mean
    return Layer("affine_", scale=scale.astype(np.float32), bias=bias.astype(np.float32))


class ShapePredictor(NamedTuple):
    """Cascade of regression trees that moves a mean shape to the landmarks of a face.

    Coordinates are relative to the box of the face: 0 to 1 across it. The splits of a tree form a complete
    binary tree in level order. Source: Kazemi & Sullivan, One millisecond face alignment with an ensemble of
    regression trees, CVPR 2014.
    """

    shape: Floats  # mean shape, (points, 2)
    first: NDArray[np.int64]  # feature of each split, (levels, trees, splits)
    second: NDArray[np.int64]  # feature that is subtracted from it
    threshold: Floats  # a larger difference goes to the left
    leaves: Floats  # movement of the points, (levels, trees, splits + 1, points, 2)
    anchors: NDArray[np.int64]  # point that each feature is relative to, (levels, features)
    offsets: Floats  # position relative to that point, (levels, features, 2)


def read_shape_predictor(content: bytes, name: str) -> ShapePredictor:
    """Read a shape predictor whose trees all have the same size."""
    reader = Reader(content, name)
    reader.integer(1, 1)
    rows = -reader.integer(-_MAX_SIDE, -1)  # negative sizes mark the format of a matrix, here one column
    reader.integer(-1, -1)
    shape, points = reader.reals(rows), rows // 2
    if rows % 2:
        raise reader.error("a shape has two coordinates for each point")
    levels = reader.integer(1)
    forests = [_forest(reader, reader.integer(1), points) for _ in range(levels)]
    if len({forest[0].shape for forest in forests}) > 1:
        raise reader.error("the forests have different sizes")
    reader.integer(levels, levels)
    anchors = [reader.integers(reader.integer(1)) for _ in range(levels)]
    reader.integer(levels, levels)
    offsets = [reader.reals(2 * reader.integer(len(one), len(one))).reshape(-1, 2) for one in anchors]
    reader.end()
    if len({len(one) for one in anchors}) > 1:
        raise reader.error("the levels have different numbers of features")
    first, second, threshold, leaves = (np.stack(part) for part in zip(*forests, strict=True))
    features = len(anchors[0])
    for index, limit in ((first, features), (second, features), (np.stack(anchors), points)):
        if index.min() < 0 or index.max() >= limit:
            raise reader.error("an index is out of range")
    return ShapePredictor(
        shape.reshape(points, 2).astype(np.float32),
        first,
        second,
        threshold.astype(np.float32),
        leaves.reshape(*leaves.shape[:3], points, 2).astype(np.float32),
        np.stack(anchors),
        np.stack(offsets).astype(np.float32),
    )


def _forest(reader: Reader, trees: int, points: int) -> tuple[Any, Any, Any, Any]:
    """Read trees: indices of features, thresholds, and values of the leaves."""
    place = reader.place
    splits = reader.integer(1)
    reader.place = place
    # Each tree is a run of integers of the same length: the number of splits, (first, second, mantissa,
    # exponent) of each, the number of leaves, (rows, columns, mantissas and exponents) of each.
    column = 2 + 4 * points
    length = 1 + 4 * splits + 1 + (splits + 1) * column
    rows = reader.integers(trees * length).reshape(trees, length)
    split = rows[:, 1 : 1 + 4 * splits].reshape(trees, splits, 4)
    leaf = rows[:, 2 + 4 * splits :].reshape(trees, splits + 1, column)
    sizes = rows[:, 0], rows[:, 1 + 4 * splits] - 1
    if any((size != splits).any() for size in sizes) or (leaf[..., :2] != (-2 * points, -1)).any():
        raise reader.error("the trees have different sizes")
    if splits & (splits + 1):
        raise reader.error(f"a tree with {splits} splits is not complete")
    threshold = reader.to_reals(split[..., 2:])[..., 0]
    return split[..., 0], split[..., 1], threshold, reader.to_reals(leaf[..., 2:])
